//! Files that were cut, garbled or deleted between two starts.

use super::*;

/// Every side file of a log: all but the segments themselves.
fn side_files(fs: &FaultFs) -> Vec<PathBuf> {
    let entries = fs.list(dir()).unwrap();
    let names = entries.iter().filter(|e| !e.name.ends_with(".log"));
    names.map(|e| dir().join(&e.name)).collect()
}

fn everything(fs: &FaultFs) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs.list(dir()).unwrap();
    let path = |e: &DirEntry| dir().join(&e.name);
    entries
        .iter()
        .map(|e| (path(e), fs.get(&path(e)).unwrap()))
        .collect()
}

#[test]
fn a_torn_tail_is_cut_at_every_byte() {
    let whole = closed(3);
    let bytes = whole.get(&file(0, "log")).unwrap();
    let one = bytes.len() / 3;
    for len in 0..bytes.len() {
        for from in [UNKNOWN, known(0), known(3)] {
            let fs = whole.fork();
            fs.set(&file(0, "log"), &bytes[..len]);
            let (mut log, report) = open(&fs, from);
            let kept = (len / one * 3) as i64;
            assert_eq!(log.end_offset(), kept, "cut at {len}");
            assert_eq!(report.truncated_bytes as usize, len % one);
            assert_eq!(
                report.lost_below_recovery_point,
                from == known(3) && kept < 3
            );
            fill(&mut log, 1);
            assert_eq!(contents(&log), filled(0..kept + 3));
        }
    }
}

#[test]
fn zeros_behind_the_log_are_cut() {
    for zeros in [1, 60, 61, 5000] {
        let fs = closed(3);
        let mut bytes = fs.get(&file(0, "log")).unwrap();
        bytes.resize(bytes.len() + zeros, 0);
        fs.set(&file(0, "log"), &bytes);
        let (log, report) = open(&fs, known(9));
        assert_eq!(report.truncated_bytes as usize, zeros);
        assert_eq!(contents(&log), filled(0..9));
    }
}

#[test]
fn a_flipped_bit_hides_one_batch_and_no_other() {
    let whole = closed(5);
    let bytes = whole.get(&file(0, "log")).unwrap();
    let one = bytes.len() / 5;
    // Base offset, length, magic, CRC, attributes, delta, records: all but the leader epoch, which
    // no checksum covers.
    for at in (0..one).filter(|at| !(12..16).contains(at)) {
        for bit in [0, 7] {
            let fs = whole.fork();
            let mut flipped = bytes.clone();
            flipped[2 * one + at] ^= 1 << bit;
            fs.set(&file(0, "log"), &flipped);
            let (mut log, report) = open(&fs, UNKNOWN);
            let readable = [filled(0..6), filled(9..15)].concat();
            assert_eq!(contents(&log), readable, "byte {at} bit {bit}");
            assert_eq!(report.truncated_bytes, 0);
            let [bad] = report.bad[..] else {
                panic!("byte {at} bit {bit}: {report:?}");
            };
            assert_eq!((bad.first_offset, bad.next_offset), (6, 9));
            for offset in 6..9 {
                let refused = log.view().read(offset, 4096, i64::MAX, true);
                assert!(matches!(
                    refused,
                    Err(ReadError::Corrupt { next_offset: 9, .. })
                ));
            }
            fill(&mut log, 1);
            // Known for good, also after a clean start and a roll.
            fill(&mut log, 10);
            log.close().unwrap();
            let (log, report) = open(&fs, CLEAN);
            assert_eq!(report.bad, [bad]);
            assert_eq!(contents(&log), [readable, filled(15..48)].concat());
        }
    }
}

#[test]
fn damage_in_the_middle_of_a_long_log_keeps_all_the_rest() {
    let whole = closed(100);
    for base in segments(&whole) {
        for (from, len) in [(0, 1), (30, 200), (500, 61)] {
            let fs = whole.fork();
            let mut bytes = fs.get(&file(base, "log")).unwrap();
            let from = from.min(bytes.len());
            let to = (from + len).min(bytes.len());
            bytes[from..to].iter_mut().for_each(|b| *b = !*b);
            fs.set(&file(base, "log"), &bytes);
            let (log, report) = open(&fs, UNKNOWN);
            let hidden = |offset: i64| {
                report
                    .bad
                    .iter()
                    .any(|b| b.first_offset <= offset && offset < b.next_offset)
            };
            let end = log.end_offset();
            let expected: Vec<_> = filled(0..end)
                .into_iter()
                .filter(|(o, _)| !hidden(*o))
                .collect();
            assert_eq!(contents(&log), expected);
            let lost = 300 - expected.len();
            assert!(lost <= 12, "{base} {from}: lost {lost}, {report:?}");
        }
    }
}

#[test]
fn a_garbled_last_batch_that_was_promised_keeps_its_offsets() {
    let fs = closed(3);
    let mut bytes = fs.get(&file(0, "log")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs.set(&file(0, "log"), &bytes);
    let (mut log, report) = open(&fs, CLEAN);
    assert_eq!((report.bad.len(), log.end_offset()), (1, 9));
    fill(&mut log, 1);
    assert_eq!(contents(&log), [filled(0..6), filled(9..12)].concat());
}

#[test]
fn side_files_are_rebuilt_as_they_were() {
    let whole = closed(100);
    let before = everything(&whole);
    for damage in ["delete", "empty", "garble", "cut", "zero"] {
        let fs = whole.fork();
        for path in side_files(&fs) {
            let mut bytes = fs.get(&path).unwrap();
            match damage {
                "delete" => fs.remove(&path).unwrap(),
                "empty" => fs.set(&path, &[]),
                "garble" => {
                    bytes
                        .iter_mut()
                        .enumerate()
                        .for_each(|(i, b)| *b ^= (i * 37 + 11) as u8);
                    fs.set(&path, &bytes);
                }
                "cut" => fs.set(&path, &bytes[..bytes.len() * 2 / 3]),
                _ => fs.set(&path, &vec![0; bytes.len()]),
            }
        }
        let (mut log, report) = open(&fs, CLEAN);
        assert!(
            report.rebuilt_indexes > 0 && report.rebuilt_epochs,
            "{damage}: {report:?}"
        );
        assert_eq!(contents(&log), filled(0..300), "{damage}");
        assert_eq!(log.latest_epoch(), Some(3));
        let stamp = log.view().lookup_timestamp(1234, i64::MAX).unwrap();
        assert_eq!(stamp.map(|s| s.offset), Some(124), "{damage}");
        log.close().unwrap();
        for (path, bytes) in &before {
            let name = path.display();
            let snapshot = path.extension().is_some_and(|e| e == "snapshot");
            // Old snapshots are not made again.
            if !snapshot {
                assert_eq!(fs.get(path).as_ref(), Some(bytes), "{damage} {name}");
            }
        }
    }
}

#[test]
fn an_index_garbled_in_the_middle_is_not_believed() {
    // Positions within a batch, positions of a later batch, offsets out of order, zeros.
    let damages: [fn(&mut [u8]); 4] = [
        |entry| entry[7] ^= 5,
        |entry| entry[6] += 1,
        |entry| entry[3] ^= 0xff,
        |entry| entry.fill(0),
    ];
    let big = || LogConfig {
        segment_bytes: 8000,
        ..small()
    };
    let whole = FaultFs::new(1);
    let (mut log, _) = open_with(&whole, big(), CLEAN);
    fill(&mut log, 200);
    log.close().unwrap();
    for damage in damages {
        let fs = whole.fork();
        for base in segments(&fs) {
            let mut bytes = fs.get(&file(base, "index")).unwrap();
            let n = bytes.len();
            if n < 24 {
                continue;
            }
            for entry in bytes[8..n - 8].chunks_mut(8).step_by(2) {
                damage(entry);
            }
            fs.set(&file(base, "index"), &bytes);
        }
        let (log, _) = open_with(&fs, big(), CLEAN);
        for offset in 0..600 {
            let batch = log.view().read_batches(offset, i64::MAX, 1).unwrap()[0].0;
            assert_eq!(batch.base_offset, offset / 3 * 3);
        }
    }
}

#[test]
fn a_sector_never_written_ends_what_was_not_promised() {
    let cfg = || LogConfig {
        segment_bytes: 1 << 20,
        ..small()
    };
    let whole = FaultFs::new(1);
    let (mut log, _) = open_with(&whole, cfg(), CLEAN);
    fill(&mut log, 50);
    log.close().unwrap();
    let mut bytes = whole.get(&file(0, "log")).unwrap();
    bytes[1024..1536].fill(0);
    whole.set(&file(0, "log"), &bytes);
    let one = bytes.len() as i64 / 50;
    let before = 1024 / one * 3;
    // After a power cut: nothing from there on was promised.
    let (log, report) = open_with(&whole.fork(), cfg(), known(before));
    assert_eq!(contents(&log), filled(0..before));
    assert!(report.bad.is_empty());
    // Promised, or nobody knows: what follows is kept.
    let after = (1536 + one - 1) / one * 3;
    for from in [known(before + 1), UNKNOWN] {
        let (log, report) = open_with(&whole.fork(), cfg(), from);
        assert_eq!(
            contents(&log),
            [filled(0..before), filled(after..150)].concat(),
            "{report:?}"
        );
    }
}

#[test]
fn an_index_deleted_under_way_is_rebuilt_by_a_reader() {
    let fs = closed(100);
    let (log, _) = open(&fs, CLEAN);
    let bases = segments(&fs);
    for base in &bases[..bases.len() - 1] {
        for suffix in ["index", "timeindex"] {
            let before = fs.get(&file(*base, suffix)).unwrap();
            fs.remove(&file(*base, suffix)).unwrap();
            assert_eq!(read_from(&log.view(), 0, 500), filled(0..300));
            assert!(
                log.view()
                    .lookup_timestamp(base * 10 + 55, i64::MAX)
                    .unwrap()
                    .is_some()
            );
            assert_eq!(
                fs.get(&file(*base, suffix)),
                Some(before),
                "{base} {suffix}"
            );
        }
    }
}

#[test]
fn a_snapshot_of_batches_that_are_gone_is_not_loaded() {
    let fs = FaultFs::new(1);
    let (mut log, _) = open(&fs, CLEAN);
    append(&mut log, &sequenced(1, 0, 0, 1));
    append(&mut log, &sequenced(1, 0, 1, 1));
    log.close().unwrap();
    let bytes = fs.get(&file(0, "log")).unwrap();
    fs.set(&file(0, "log"), &bytes[..bytes.len() - 1]);
    let (mut log, report) = open(&fs, known(0));
    assert_eq!((log.end_offset(), report.snapshot_offset), (1, None));
    assert!(!append(&mut log, &sequenced(1, 0, 1, 1)).duplicate);
    assert!(append(&mut log, &sequenced(1, 0, 0, 1)).duplicate);
}

#[test]
fn leftovers_are_removed() {
    let fs = closed(10);
    for name in [
        "00000000000000000000.log.deleted",
        "x.tmp",
        "00000000000000000999.index",
    ] {
        fs.set(&dir().join(name), b"left over");
    }
    fs.set(&dir().join("partition.metadata"), b"version: 0\n");
    fs.set(&dir().join("7.log"), b"not ours");
    let (log, _) = open(&fs, UNKNOWN);
    assert_eq!(contents(&log), filled(0..30));
    let names: Vec<String> = fs
        .list(dir())
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    assert!(
        !names
            .iter()
            .any(|n| n.ends_with(".deleted") || n.ends_with(".tmp"))
    );
    assert!(!names.iter().any(|n| n.contains("999")));
    assert!(names.iter().any(|n| n == "partition.metadata") && names.iter().any(|n| n == "7.log"));
}

#[test]
fn the_indexes_of_a_log_cut_short_are_cut_too() {
    let fs = closed(100);
    let last = *segments(&fs).last().unwrap();
    let first = segments(&fs)[1];
    for base in segments(&fs) {
        if base > first {
            fs.remove(&file(base, "log")).unwrap();
        }
    }
    let bytes = fs.get(&file(first, "log")).unwrap();
    let one = bytes.len() / ((segments(&fs)[1] - segments(&fs)[0]) / 3) as usize;
    fs.set(&file(first, "log"), &bytes[..one + 5]);
    let (mut log, _) = open(&fs, UNKNOWN);
    assert_eq!(log.end_offset(), first + 3);
    log.close().unwrap();
    assert_eq!(fs.get(&file(first, "index")).unwrap(), b"");
    let times = fs.get(&file(first, "timeindex")).unwrap();
    assert_eq!(
        times,
        [&((first + 2) * 10).to_be_bytes()[..], &2i32.to_be_bytes()].concat()
    );
    assert_eq!(
        fs.get(&file(last, "index")),
        None,
        "nor is anything left of the lost ones"
    );
}
