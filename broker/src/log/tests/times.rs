//! Look-ups by time, against a plain walk over what was written.

use super::*;
use crate::log::fault_fs::Rng;

/// Appends batches with random timestamps and codecs; returns all (offset, timestamp).
fn scatter(log: &mut Log, rng: &mut Rng, count: usize) -> Vec<(i64, i64)> {
    let mut all = Vec::new();
    for i in 0..count {
        let codec = [Compression::None, Compression::Lz4, Compression::Zstd][i % 3];
        let mut b = BatchBuilder::new(codec);
        let n = 1 + rng.below(4);
        for r in 0..n {
            let timestamp = (i as i64) * 5 + rng.below(400) as i64;
            b.push(timestamp, None, Some(b"some value or other"), &[]);
            all.push((log.end_offset() + r as i64, timestamp));
        }
        append(log, &b.build(0));
    }
    all
}

fn check(log: &Log, all: &[(i64, i64)], rng: &mut Rng) {
    let view = log.view();
    let first = log.start_offset();
    for _ in 0..200 {
        let ts = rng.below(900) as i64;
        // Bounds are ends of batches, as a high watermark is.
        let near = first + rng.below((log.end_offset() - first) as u64 + 1) as i64;
        let upper = match view.read_batches(near, i64::MAX, 1).unwrap().first() {
            Some((header, _)) => header.base_offset,
            None => log.end_offset(),
        };
        let served = || all.iter().filter(|(o, _)| *o >= first && *o < upper);
        let expected = served().find(|(_, t)| *t >= ts).copied();
        let found = view.lookup_timestamp(ts, upper).unwrap();
        assert_eq!(
            found.map(|s| (s.offset, s.timestamp)),
            expected,
            "{ts} below {upper}"
        );
        let largest = served().map(|(_, t)| *t).max();
        let expected = served().find(|(_, t)| Some(*t) == largest).copied();
        let found = view.max_timestamp(upper).unwrap();
        assert_eq!(
            found.map(|s| (s.offset, s.timestamp)),
            expected,
            "max below {upper}"
        );
    }
}

#[test]
fn look_ups_are_exact_to_the_record() {
    for seed in 0..6 {
        let mut rng = Rng::new(seed);
        let fs = FaultFs::new(seed);
        let (mut log, _) = open(&fs, CLEAN);
        let all = scatter(&mut log, &mut rng, 100);
        check(&log, &all, &mut rng);
        assert_eq!(log.view().lookup_timestamp(10_000, i64::MAX).unwrap(), None);
        let stamp = log.view().lookup_timestamp(0, i64::MAX).unwrap().unwrap();
        assert_eq!((stamp.offset, stamp.leader_epoch), (0, 3));
        log.close().unwrap();
        let (mut log, _) = open(&fs, CLEAN);
        check(&log, &all, &mut rng);
        log.delete_records_before(57).unwrap();
        check(&log, &all, &mut rng);
    }
}

#[test]
fn an_empty_log_has_no_times() {
    let (log, _) = open(&FaultFs::new(1), CLEAN);
    assert_eq!(log.view().lookup_timestamp(0, i64::MAX).unwrap(), None);
    assert_eq!(log.view().max_timestamp(i64::MAX).unwrap(), None);
}

#[test]
fn time_entries_that_point_too_far_are_not_believed() {
    let cfg = || LogConfig {
        segment_bytes: 8000,
        ..small()
    };
    let fs = FaultFs::new(1);
    let (mut log, _) = open_with(&fs, cfg(), CLEAN);
    fill(&mut log, 200);
    log.close().unwrap();
    for base in segments(&fs) {
        let mut bytes = fs.get(&file(base, "timeindex")).unwrap();
        let n = bytes.len();
        let last: [u8; 4] = bytes[n - 4..].try_into().unwrap();
        for entry in bytes[..n - 12].chunks_mut(12) {
            entry[8..].copy_from_slice(&last);
        }
        fs.set(&file(base, "timeindex"), &bytes);
    }
    let (log, _) = open_with(&fs, cfg(), CLEAN);
    for offset in 0..600 {
        let found = log
            .view()
            .lookup_timestamp(offset * 10 - 3, i64::MAX)
            .unwrap();
        assert_eq!(found.map(|s| s.offset), Some(offset));
    }
}

#[test]
fn a_garbled_time_index_is_not_believed() {
    let mut rng = Rng::new(7);
    let fs = FaultFs::new(7);
    let (mut log, _) = open(&fs, CLEAN);
    let all = scatter(&mut log, &mut rng, 100);
    log.close().unwrap();
    // One wrong entry in the middle, which a check of the ends does not see.
    for base in segments(&fs) {
        let mut bytes = fs.get(&file(base, "timeindex")).unwrap();
        for entry in bytes.chunks_mut(12).skip(1).step_by(3) {
            entry[7] ^= 1;
            entry[11] ^= 3;
        }
        fs.set(&file(base, "timeindex"), &bytes);
    }
    let (log, _) = open(&fs, CLEAN);
    check(&log, &all, &mut rng);
}
