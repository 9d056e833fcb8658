//! What a log does when nothing goes wrong.

use super::*;

#[test]
fn a_new_log_is_empty_and_readable() {
    let fs = FaultFs::new(1);
    let (log, report) = open(&fs, UNKNOWN);
    assert_eq!(
        (log.start_offset(), log.end_offset(), log.size_bytes()),
        (0, 0, 0)
    );
    assert_eq!(report, RecoveryReport::default());
    assert_eq!(log.view().read(0, 100, i64::MAX, true).unwrap().len, 0);
    let beyond = log.view().read(1, 100, i64::MAX, true);
    assert!(matches!(
        beyond,
        Err(ReadError::OffsetOutOfRange {
            offset: 1,
            start: 0,
            end: 0
        })
    ));
}

#[test]
fn offsets_follow_each_other_and_headers_are_patched() {
    let fs = FaultFs::new(1);
    let (mut log, _) = open(&fs, CLEAN);
    let first = append(&mut log, &values(0, 3));
    let second = append(&mut log, &values(3, 2));
    assert_eq!((first.base_offset, first.last_offset), (0, 2));
    assert_eq!((second.base_offset, second.last_offset), (3, 4));
    assert_eq!(second.log_append_time, -1);
    let region = log.view().read(0, 4096, i64::MAX, false).unwrap();
    let bytes = region.bytes().unwrap();
    let headers: Vec<BatchHeader> = batch::split(&bytes).map(|b| b.unwrap().0).collect();
    assert_eq!(headers[1].base_offset, 3);
    assert_eq!(headers[1].partition_leader_epoch, 3);
    assert_eq!(contents(&log), filled(0..5));
    assert_eq!(fs.get(&file(0, "log")).unwrap(), bytes);
}

#[test]
fn an_append_is_one_write() {
    let fs = FaultFs::new(1);
    let (mut log, _) = open(&fs, CLEAN);
    fill(&mut log, 1);
    let before = fs.calls();
    fill(&mut log, 3);
    assert_eq!(fs.calls() - before, 3);
}

#[test]
fn log_append_time_is_stamped_with_a_new_crc() {
    let fs = FaultFs::new(1);
    let (mut log, _) = open(&fs, CLEAN);
    let bytes = values(0, 3);
    let opt = AppendOptions {
        log_append_time: Some(777),
        ..options(0)
    };
    let done = log
        .append(&bytes, &BatchHeader::parse(&bytes).unwrap(), opt)
        .unwrap();
    assert_eq!(done.log_append_time, 777);
    let stored = log.view().read_batches(0, i64::MAX, 4096).unwrap();
    assert!(stored[0].0.is_log_append_time());
    let stamps = records::decode(&stored[0].1, 4096).unwrap();
    assert!(stamps.iter().all(|r| r.timestamp == 777));
}

#[test]
fn a_read_begins_with_the_batch_that_holds_the_offset() {
    let fs = FaultFs::new(1);
    let (mut log, _) = open(&fs, CLEAN);
    fill(&mut log, 40);
    assert!(segments(&fs).len() > 3, "several segments");
    let view = log.view();
    for offset in 0..120 {
        let batches = view.read_batches(offset, i64::MAX, 1).unwrap();
        assert_eq!(batches.len(), 1, "one batch although larger than asked for");
        let header = batches[0].0;
        assert!(header.base_offset <= offset && offset <= header.last_offset());
        assert_eq!(view.read(offset, 1, i64::MAX, false).unwrap().len, 0);
    }
    for max_bytes in [1, 200, 1500, 100_000] {
        assert_eq!(read_from(&view, 0, max_bytes), filled(0..120));
    }
}

#[test]
fn a_read_ends_at_max_bytes_perhaps_within_a_batch() {
    let fs = FaultFs::new(1);
    let (mut log, _) = open(&fs, CLEAN);
    fill(&mut log, 3);
    let one = values(0, 3).len();
    for offset in [0, 4] {
        let region = log.view().read(offset, one + 10, i64::MAX, false).unwrap();
        assert_eq!(region.len, one + 10);
        assert_eq!(region.position, (offset / 3) as u64 * one as u64);
    }
}

#[test]
fn nothing_at_or_behind_the_upper_bound_is_served() {
    let fs = FaultFs::new(1);
    let (mut log, _) = open(&fs, CLEAN);
    fill(&mut log, 200);
    let view = log.view();
    for upper in [0, 3, 6, 30, 300, 303, 597, 600] {
        for from in [0, 2, 3, 29, 299, 302, 595] {
            let region = view.read(from, 1 << 20, upper, true).unwrap();
            let bytes = region.bytes().unwrap();
            let last = batch::split(&bytes)
                .last()
                .map(|b| b.unwrap().0.last_offset());
            if from >= upper {
                assert_eq!(last, None, "{from} below {upper}");
            } else {
                assert!(
                    last.unwrap() < upper && last.unwrap() >= from,
                    "{from} below {upper}"
                );
            }
        }
    }
}

#[test]
fn segments_roll_by_size_time_and_index() {
    let fs = FaultFs::new(1);
    let (mut log, _) = open(&fs, CLEAN);
    let one = values(0, 3).len() as i64;
    fill(&mut log, 20);
    let per_segment = 1000 / one * 3;
    assert_eq!(
        segments(&fs),
        (0..60).step_by(per_segment as usize).collect::<Vec<i64>>()
    );

    let fs = FaultFs::new(1);
    let (mut log, _) = open_with(
        &fs,
        LogConfig {
            segment_ms: 100,
            ..small()
        },
        CLEAN,
    );
    fill(&mut log, 6);
    // Timestamps are ten times the offset; the first batch's largest is 20.
    assert_eq!(segments(&fs), [0, 12]);

    let fs = FaultFs::new(1);
    let cfg = LogConfig {
        segment_bytes: 1 << 20,
        segment_index_bytes: 36,
        ..small()
    };
    let (mut log, _) = open_with(&fs, cfg, CLEAN);
    fill(&mut log, 9);
    assert!(segments(&fs).len() > 2);
    assert_eq!(contents(&log), filled(0..27));
}

#[test]
fn a_batch_larger_than_a_segment_is_refused() {
    let fs = FaultFs::new(1);
    let (mut log, _) = open(&fs, CLEAN);
    let refused = try_append(&mut log, &values(0, 60));
    assert!(matches!(
        refused,
        Err(AppendError::TooLarge { limit: 1000, .. })
    ));
    fill(&mut log, 1);
    assert_eq!(contents(&log), filled(0..3));
}

#[test]
fn bytes_that_contradict_their_header_are_refused() {
    let fs = FaultFs::new(1);
    let (mut log, _) = open(&fs, CLEAN);
    let bytes = values(0, 3);
    let header = BatchHeader::parse(&bytes).unwrap();
    let cut = log.append(&bytes[..bytes.len() - 1], &header, options(0));
    assert!(matches!(cut, Err(AppendError::Malformed)));
    assert_eq!(log.end_offset(), 0);
}

#[test]
fn a_clean_restart_reads_a_few_bytes_and_changes_nothing() {
    let fs = closed(400);
    let (log, report) = open(&fs, CLEAN);
    assert_eq!(contents(&log), filled(0..1200));
    assert!(report.scanned_bytes < 1000, "{report:?}");
    assert_eq!(
        (
            report.truncated_bytes,
            report.rebuilt_indexes,
            report.replayed_batches
        ),
        (0, 0, 0)
    );
    assert!(!report.rebuilt_epochs);
    assert_eq!(report.snapshot_offset, Some(1200));
    assert_eq!(log.flushed_offset(), 1200);
}

#[test]
fn duplicates_answer_their_first_offset_also_after_restarts() {
    let fs = FaultFs::new(1);
    let (mut log, _) = open(&fs, CLEAN);
    let batches: Vec<Bytes> = (0..5).map(|i| sequenced(9, 0, i * 2, 2)).collect();
    for b in &batches {
        append(&mut log, b);
    }
    for (i, b) in batches.iter().enumerate() {
        let again = append(&mut log, b);
        assert!(again.duplicate);
        assert_eq!(again.base_offset, i as i64 * 2);
    }
    log.close().unwrap();
    // Snapshots hold the newest batch of a producer, as Kafka's do.
    let (mut log, report) = open(&fs, CLEAN);
    assert_eq!(report.snapshot_offset, Some(10));
    assert!(append(&mut log, &batches[4]).duplicate);
    assert_eq!(append(&mut log, &sequenced(9, 0, 10, 1)).base_offset, 10);
    drop(log);
    // No snapshot: all of it is replayed.
    fs.remove(&file(10, "snapshot")).unwrap();
    let (mut log, report) = open(&fs, UNKNOWN);
    assert_eq!((report.snapshot_offset, report.replayed_batches), (None, 6));
    for b in &batches[1..] {
        assert!(append(&mut log, b).duplicate);
    }
    assert_eq!(log.producers()[0].last_sequence, 10);
    assert_eq!(log.end_offset(), 11);
}

#[test]
fn retention_by_time_and_size_deletes_from_the_front() {
    let fs = closed(40);
    let (mut log, _) = open_with(
        &fs,
        LogConfig {
            retention_ms: 500,
            ..small()
        },
        CLEAN,
    );
    let view = log.view();
    let early = view.read(0, 200, i64::MAX, true).unwrap();
    let before = early.bytes().unwrap();
    // Timestamps go from 0 to 1190.
    let done = log.retain(1200).unwrap();
    assert!(done.deleted_segments >= 2);
    assert_eq!(done.new_start, segments(&fs)[0]);
    assert!(done.new_start * 10 <= 700 && log.start_offset() == done.new_start);
    assert_eq!(
        early.bytes().unwrap(),
        before,
        "a reader on its way still reads"
    );
    let gone = view.read(0, 200, i64::MAX, true);
    assert!(matches!(gone, Err(ReadError::OffsetOutOfRange { .. })));
    assert_eq!(contents(&log), filled(done.new_start..120));

    log.set_config(LogConfig {
        retention_bytes: 1900,
        ..small()
    });
    let done = log.retain(0).unwrap();
    assert!(log.size_bytes() >= 1900 && log.size_bytes() < 1900 + 1000);
    assert_eq!(contents(&log), filled(done.new_start..120));

    log.set_config(LogConfig {
        retention_ms: 5,
        ..small()
    });
    let done = log.retain(NOW).unwrap();
    assert_eq!(
        (done.new_start, log.end_offset(), log.size_bytes()),
        (120, 120, 0)
    );
    assert_eq!(segments(&fs), [120]);
    fill(&mut log, 1);
    log.close().unwrap();
    let (log, _) = open(&fs, CLEAN);
    assert_eq!(contents(&log), filled(120..123));
}

#[test]
fn records_are_deleted_up_to_an_offset() {
    let fs = closed(40);
    let (mut log, _) = open(&fs, CLEAN);
    assert_eq!(log.delete_records_before(50).unwrap(), 50);
    assert_eq!(log.delete_records_before(20).unwrap(), 50);
    assert!(segments(&fs)[0] > 0 && segments(&fs)[0] <= 50);
    assert_eq!(contents(&log), filled(50..120));
    let beyond = log.delete_records_before(121);
    assert!(matches!(beyond, Err(LogError::OffsetOutOfRange { .. })));
    log.close().unwrap();
    let from = OpenFrom {
        log_start_offset: Some(50),
        ..CLEAN
    };
    let (log, _) = open(&fs, from);
    assert_eq!(contents(&log), filled(50..120));
    drop(log);
    // The start offset lies behind everything there is: the log begins anew at it.
    let from = OpenFrom {
        log_start_offset: Some(500),
        ..known(500)
    };
    let (mut log, _) = open(&fs, from);
    assert_eq!((log.start_offset(), log.end_offset()), (500, 500));
    fill(&mut log, 1);
    assert_eq!(contents(&log), filled(500..503));
}

#[test]
fn epochs_are_kept_with_the_batches() {
    let fs = FaultFs::new(1);
    let (mut log, _) = open(&fs, CLEAN);
    for (epoch, count) in [(0, 10), (2, 5), (3, 8)] {
        for _ in 0..count {
            let bytes = values(log.end_offset(), 3);
            let header = BatchHeader::parse(&bytes).unwrap();
            log.append(&bytes, &header, options(epoch)).unwrap();
        }
    }
    let check = |log: &Log| {
        assert_eq!(log.latest_epoch(), Some(3));
        assert_eq!(log.epoch_end_offset(0), Some((0, 30)));
        assert_eq!(log.epoch_end_offset(1), Some((0, 30)));
        assert_eq!(log.epoch_end_offset(2), Some((2, 45)));
        assert_eq!(log.epoch_end_offset(3), Some((3, 69)));
        assert_eq!(log.epoch_end_offset(4), None);
    };
    check(&log);
    log.close().unwrap();
    let checkpoint = dir().join("leader-epoch-checkpoint");
    assert_eq!(fs.get(&checkpoint).unwrap(), b"0\n3\n0 0\n2 30\n3 45\n");
    for damaged in [
        None,
        Some(&b"garbage"[..]),
        Some(b"0\n1\n0 0\n"),
        Some(b"0\n1\n7 0\n"),
    ] {
        match damaged {
            None => fs.remove(&checkpoint).unwrap(),
            Some(bytes) => fs.set(&checkpoint, bytes),
        }
        let (mut log, report) = open(&fs, CLEAN);
        assert!(report.rebuilt_epochs);
        check(&log);
        log.close().unwrap();
        assert_eq!(fs.get(&checkpoint).unwrap(), b"0\n3\n0 0\n2 30\n3 45\n");
    }
}

#[test]
fn an_open_transaction_holds_back_the_last_stable_offset() {
    let fs = FaultFs::new(1);
    let (mut log, _) = open(&fs, CLEAN);
    fill(&mut log, 2);
    let mut b = BatchBuilder::new(Compression::None)
        .with_producer(5, 0, 0)
        .transactional();
    b.push(1, None, Some(b"t"), &[]);
    append(&mut log, &b.build(0));
    fill(&mut log, 1);
    assert_eq!((log.last_stable_offset(), log.end_offset()), (6, 10));
    log.close().unwrap();
    let (mut log, _) = open(&fs, CLEAN);
    assert_eq!(log.last_stable_offset(), 6);
    let mut end = BatchBuilder::new(Compression::None).with_producer(5, 0, -1);
    end = end.transactional().control();
    end.push(2, Some(&[0, 0, 0, 0]), Some(&[0, 0, 0, 0, 0, 1]), &[]);
    append(&mut log, &end.build(0));
    assert_eq!(log.last_stable_offset(), 11);
}

#[test]
fn a_destroyed_log_leaves_nothing() {
    let fs = closed(10);
    let (mut log, _) = open(&fs, CLEAN);
    log.destroy().unwrap();
    assert!(fs.list(Path::new("/data")).unwrap().is_empty());
}
