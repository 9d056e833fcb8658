//! Seeded random runs against a vector: whatever the order of appends, retries, rolls, flushes,
//! deletions, restarts, kills and power cuts, the log holds what the model says.

use super::*;
use crate::log::fault_fs::Rng;

/// What the log should hold.
#[derive(Default)]
struct Model {
    start: i64,
    /// Value of every offset ever written, deleted ones too.
    values: Vec<String>,
    /// Per producer: next sequence, and the newest batches (bytes, base offset).
    producers: Vec<(i32, Vec<(Bytes, i64)>)>,
    flushed: i64,
    counter: i64,
}

impl Model {
    fn contents(&self) -> Vec<(i64, String)> {
        let all = self.values.iter().enumerate();
        all.map(|(i, v)| (i as i64, v.clone()))
            .skip(self.start as usize)
            .collect()
    }

    /// A power cut took the end. What it took of a producer is forgotten with it.
    fn cut(&mut self, end: i64) {
        self.values.truncate(end as usize);
        for (next, batches) in &mut self.producers {
            while let Some((bytes, base)) = batches.last()
                && *base >= end
            {
                *next = BatchHeader::parse(bytes).unwrap().base_sequence;
                batches.pop();
            }
        }
    }
}

const PRODUCERS: u64 = 3;

fn produce(log: &mut Log, model: &mut Model, rng: &mut Rng) {
    let who = rng.below(PRODUCERS) as usize;
    let n = 1 + rng.below(5) as i64;
    let (next, batches) = &mut model.producers[who];
    let mut b = BatchBuilder::new(Compression::None).with_producer(who as i64, 0, *next);
    for _ in 0..n {
        let value = format!("{} {}", model.counter, "x".repeat(rng.below(40) as usize));
        model.counter += 1;
        b.push(model.counter, None, Some(value.as_bytes()), &[]);
        model.values.push(value);
    }
    let bytes = b.build(0);
    let done = append(log, &bytes);
    assert!(!done.duplicate);
    assert_eq!(done.last_offset + 1, model.values.len() as i64);
    *next += n as i32;
    batches.push((bytes, done.base_offset));
}

/// Sends the newest batch of a producer again.
fn retry(log: &mut Log, model: &Model, rng: &mut Rng) {
    let (_, batches) = &model.producers[rng.below(PRODUCERS) as usize];
    if let Some((bytes, base)) = batches.last() {
        // Gone with the segment, its producer may be forgotten.
        if *base >= model.start {
            let again = append(log, bytes);
            assert!(again.duplicate);
            assert_eq!(again.base_offset, *base);
        }
    }
}

fn probe(log: &Log, model: &Model, rng: &mut Rng) {
    let end = model.values.len() as i64;
    let from = model.start + rng.below((end - model.start) as u64 + 1) as i64;
    let max_bytes = 1 + rng.below(3000) as usize;
    let skip = (from - model.start) as usize;
    assert_eq!(
        read_from(&log.view(), from, max_bytes),
        model.contents()[skip..]
    );
}

fn restart(fs: &FaultFs, log: Log, model: &mut Model, rng: &mut Rng) -> Log {
    let mut log = log;
    let start = Some(model.start);
    let kind = rng.below(3);
    let from = match kind {
        0 => {
            log.close().unwrap();
            OpenFrom {
                log_start_offset: start,
                ..CLEAN
            }
        }
        _ => OpenFrom {
            log_start_offset: start,
            ..known(model.flushed)
        },
    };
    drop(log);
    if kind == 2 {
        fs.power_cut();
    }
    let (log, report) = open(fs, from);
    if kind == 2 {
        assert!(
            log.end_offset() >= model.flushed.max(model.start),
            "{report:?}"
        );
        model.cut(log.end_offset());
    }
    assert_eq!(log.end_offset(), model.values.len() as i64, "{report:?}");
    assert!(
        report.bad.is_empty() && !report.lost_below_recovery_point,
        "{report:?}"
    );
    model.flushed = log.flushed_offset();
    log
}

fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let fs = FaultFs::new(seed);
    let (mut log, _) = open(&fs, CLEAN);
    let mut model = Model {
        producers: vec![(0, Vec::new()); PRODUCERS as usize],
        ..Model::default()
    };
    for _ in 0..300 {
        match rng.below(40) {
            0..25 => produce(&mut log, &mut model, &mut rng),
            25..29 => retry(&mut log, &model, &mut rng),
            29..34 => probe(&log, &model, &mut rng),
            34..37 => model.flushed = flush(&mut log),
            37 => {
                // The caller writes the start offset down before it answers, hence the flush.
                model.flushed = flush(&mut log);
                let to = model.start + rng.below((model.flushed - model.start) as u64 + 1) as i64;
                model.start = log.delete_records_before(to).unwrap();
            }
            _ => log = restart(&fs, log, &mut model, &mut rng),
        }
        assert_eq!(
            (log.start_offset(), log.end_offset()),
            (model.start, model.values.len() as i64)
        );
    }
    assert_eq!(contents(&log), model.contents());
}

#[test]
fn random_runs_agree_with_a_vector() {
    for seed in 0..150 {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
