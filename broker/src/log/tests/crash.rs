//! A process that dies, a disk that fails or fills up, and a power cut, at every call.

use super::*;
use crate::log::fault_fs::Fault;

/// What a run was told before it stopped.
#[derive(Default)]
struct Told {
    appended: i64,
    flushed: i64,
}

/// Appends, flushes and rolls until it is through or something fails.
fn run(fs: &FaultFs) -> Told {
    let mut told = Told::default();
    let shared: Arc<dyn Fs> = Arc::new(fs.clone());
    let Ok((mut log, _)) = Log::open(shared, dir(), small(), CLEAN, NOW) else {
        return told;
    };
    for i in 0..24 {
        let bytes = values(log.end_offset(), 3);
        let Ok(done) = try_append(&mut log, &bytes) else {
            return told;
        };
        told.appended = done.last_offset + 1;
        if i % 3 == 2 {
            let flushed = log.begin_flush().run();
            match log.finish_flush(flushed) {
                Ok(offset) => told.flushed = offset,
                Err(_) => return told,
            }
        }
    }
    if log.close().is_ok() {
        told.flushed = told.appended;
    }
    told
}

fn calls_of_a_run() -> u64 {
    let fs = FaultFs::new(1);
    let told = run(&fs);
    assert_eq!(told.flushed, 72);
    assert!(segments(&fs).len() > 2);
    fs.calls()
}

/// What is there must be a prefix of what was written, and go on.
fn check_prefix(fs: &FaultFs, from: OpenFrom, at_least: i64, context: &str) {
    let (mut log, report) = open(fs, from);
    let end = log.end_offset();
    assert!(
        end >= at_least,
        "{context}: {end} of {at_least}, {report:?}"
    );
    assert_eq!(contents(&log), filled(0..end), "{context}: {report:?}");
    assert!(
        report.bad.is_empty() && !report.lost_below_recovery_point,
        "{context}: {report:?}"
    );
    fill(&mut log, 2);
    assert_eq!(flush(&mut log), end + 6);
    assert_eq!(contents(&log), filled(0..end + 6));
    log.close().unwrap();
    let (log, _) = open(fs, CLEAN);
    assert_eq!(
        contents(&log),
        filled(0..end + 6),
        "{context}: after a clean restart"
    );
}

#[test]
fn a_killed_process_loses_nothing_it_was_told_of() {
    for call in 0..calls_of_a_run() {
        let fs = FaultFs::new(call);
        fs.fail_at(call, Fault::Crash);
        let told = run(&fs);
        fs.heal();
        for from in [UNKNOWN, known(told.flushed)] {
            check_prefix(
                &fs.fork(),
                from,
                told.appended,
                &format!("call {call} {from:?}"),
            );
        }
    }
}

#[test]
fn a_power_cut_loses_nothing_that_was_flushed() {
    for call in 0..calls_of_a_run() {
        for seed in 0..12 {
            let fs = FaultFs::new(call * 100 + seed);
            fs.fail_at(call, Fault::Crash);
            let told = run(&fs);
            fs.power_cut();
            let context = format!("call {call} seed {seed}");
            check_prefix(&fs, known(told.flushed), told.flushed, &context);
        }
    }
}

#[test]
fn a_power_cut_after_a_power_cut_is_no_worse() {
    for seed in 0..300 {
        let fs = FaultFs::new(seed);
        fs.fail_at(seed % calls_of_a_run(), Fault::Crash);
        let told = run(&fs);
        fs.power_cut();
        fs.fail_at(seed % 17, Fault::Crash);
        let shared: Arc<dyn Fs> = Arc::new(fs.clone());
        let from = known(told.flushed);
        let mut flushed = told.flushed;
        if let Ok((mut log, _)) = Log::open(shared, dir(), small(), from, NOW) {
            for _ in 0..4 {
                let bytes = values(log.end_offset(), 3);
                let _ = try_append(&mut log, &bytes);
            }
            if let Ok(offset) = log.finish_flush(log.begin_flush().run()) {
                flushed = offset;
            }
        }
        fs.power_cut();
        check_prefix(&fs, known(flushed), flushed, &format!("seed {seed}"));
    }
}

#[test]
fn a_failed_write_is_undone_and_the_next_one_works() {
    for call in 0..calls_of_a_run() {
        let fs = FaultFs::new(call);
        fs.fail_at(call, Fault::Once);
        let shared: Arc<dyn Fs> = Arc::new(fs.clone());
        let Ok((mut log, _)) = Log::open(shared, dir(), small(), CLEAN, NOW) else {
            continue;
        };
        let mut failures = 0;
        while log.end_offset() < 72 {
            let bytes = values(log.end_offset(), 3);
            match try_append(&mut log, &bytes) {
                Ok(_) => {}
                Err(AppendError::Io { .. }) => failures += 1,
                Err(e) => panic!("call {call}: {e}"),
            }
        }
        assert!(failures <= 1);
        assert_eq!(contents(&log), filled(0..72), "call {call}");
        if log.close().is_ok() {
            let (log, report) = open(&fs, CLEAN);
            assert_eq!(contents(&log), filled(0..72), "call {call}");
            assert_eq!(report.truncated_bytes, 0);
        }
    }
}

#[test]
fn a_write_that_cannot_be_undone_poisons_the_log() {
    let fs = FaultFs::new(1);
    let (mut log, _) = open(&fs, CLEAN);
    fill(&mut log, 2);
    flush(&mut log);
    fs.fail_at(0, Fault::Crash);
    let failed = try_append(&mut log, &values(6, 3));
    assert!(matches!(failed, Err(AppendError::Io { .. })));
    fs.heal();
    assert!(log.is_poisoned());
    assert!(matches!(
        try_append(&mut log, &values(6, 3)),
        Err(AppendError::Poisoned)
    ));
    assert!(matches!(log.close(), Err(LogError::Poisoned)));
    assert_eq!(contents(&log), filled(0..6), "it still reads");
    let (mut log, _) = open(&fs, known(6));
    fill(&mut log, 1);
    assert_eq!(contents(&log), filled(0..9));
}

#[test]
fn a_failed_flush_poisons_the_log() {
    let fs = FaultFs::new(1);
    let (mut log, _) = open(&fs, CLEAN);
    fill(&mut log, 2);
    fs.fail_at(0, Fault::Once);
    let failed = log.begin_flush().run();
    assert!(failed.is_err());
    assert!(log.finish_flush(failed).is_err());
    assert_eq!(log.flushed_offset(), 0);
    assert!(matches!(
        try_append(&mut log, &values(6, 3)),
        Err(AppendError::Poisoned)
    ));
    // Never retried: a later success of the same call says nothing about the lost pages.
    let again = log.begin_flush().run();
    assert!(matches!(log.finish_flush(again), Err(LogError::Poisoned)));
    assert_eq!(log.flushed_offset(), 0);
}

#[test]
fn a_failed_index_write_forgets_no_time() {
    let cfg = || LogConfig {
        segment_bytes: 1 << 20,
        index_interval_bytes: 1,
        ..small()
    };
    let fs = FaultFs::new(1);
    let (mut log, _) = open_with(&fs, cfg(), CLEAN);
    // The newest time comes first, so the second half of the entries has none of its own.
    append(&mut log, &values(99_999, 1));
    fill(&mut log, 256);
    assert_eq!(
        fs.get(&file(0, "index")).unwrap().len(),
        256 * 8,
        "written in between"
    );
    fill(&mut log, 255);
    // The log's own write, then the index.
    fs.fail_at(1, Fault::Once);
    fill(&mut log, 1);
    assert!(fs.struck() && fs.get(&file(0, "index")).is_none());
    fs.heal();
    fill(&mut log, 256);
    assert_eq!(fs.get(&file(0, "index")).unwrap().len(), 256 * 8);
    let end = log.end_offset();
    let read = contents(&log);
    assert_eq!(read.len() as i64, end);
    drop(log);
    for from in [known(end), CLEAN] {
        let (mut log, _) = open_with(&fs, cfg(), from);
        let newest = log.view().max_timestamp(i64::MAX).unwrap();
        assert_eq!(
            newest.map(|s| (s.offset, s.timestamp)),
            Some((0, 999_990)),
            "{from:?}"
        );
        assert_eq!(contents(&log), read);
        log.close().unwrap();
    }
}

#[test]
fn a_flush_covers_what_was_there_when_it_began() {
    let fs = FaultFs::new(1);
    let (mut log, _) = open(&fs, CLEAN);
    fill(&mut log, 9);
    let job = log.begin_flush();
    assert_eq!(job.end_offset(), 27);
    fill(&mut log, 15);
    let done = job.run();
    assert_eq!(log.finish_flush(done).unwrap(), 27);
    assert_eq!(flush(&mut log), 72);
}

#[test]
fn a_full_disk_prevents_neither_start_nor_reads_nor_deletes() {
    for damaged in [false, true] {
        let fs = closed(60);
        if damaged {
            for base in segments(&fs) {
                fs.remove(&file(base, "index")).unwrap();
                fs.remove(&file(base, "timeindex")).unwrap();
            }
            fs.remove(&dir().join("leader-epoch-checkpoint")).unwrap();
        }
        fs.fail_at(0, Fault::DiskFull);
        for from in [CLEAN, UNKNOWN] {
            let (mut log, _) = open(&fs, from);
            assert_eq!(contents(&log), filled(0..180));
            let found = log.view().lookup_timestamp(900, i64::MAX).unwrap();
            assert_eq!(found.map(|s| s.offset), Some(90));
            let refused = try_append(&mut log, &values(180, 3));
            assert!(matches!(refused, Err(AppendError::Io { .. })));
            assert!(!log.is_poisoned());
        }
        let (mut log, _) = open(&fs, UNKNOWN);
        let start = log.delete_records_before(100).unwrap();
        assert_eq!(contents(&log), filled(start..180));
        fs.heal();
        fill(&mut log, 10);
        assert_eq!(contents(&log), filled(start..210));
        log.close().unwrap();
        let from = OpenFrom {
            log_start_offset: Some(start),
            ..CLEAN
        };
        let (log, _) = open(&fs, from);
        assert_eq!(contents(&log), filled(start..210));
    }
}
