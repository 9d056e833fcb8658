//! On the real file system: readers beside the writer, and how many files are open.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn open_real(dir: &Path, cfg: LogConfig) -> Log {
    Log::open(Arc::new(RealFs), dir, cfg, CLEAN, NOW).unwrap().0
}

#[test]
fn readers_keep_up_with_the_writer_through_rolls_and_deletions() {
    let temp = tempfile::tempdir().unwrap();
    let cfg = LogConfig {
        segment_bytes: 20_000,
        retention_bytes: 60_000,
        ..small()
    };
    let mut log = open_real(&temp.path().join("ticks-0"), cfg);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let view = log.view();
            let done = &done;
            scope.spawn(move || {
                let mut at = 0;
                let mut read = 0;
                loop {
                    let last_round = done.load(Ordering::Acquire);
                    let region = match view.read(at, 5000, i64::MAX, true) {
                        Ok(region) => region,
                        Err(ReadError::OffsetOutOfRange { start, .. }) => {
                            assert!(start > at);
                            at = start;
                            continue;
                        }
                        Err(e) => panic!("at {at}: {e}"),
                    };
                    for item in batch::split(&region.bytes().unwrap()) {
                        let (header, bytes) = item.unwrap();
                        batch::validate(&bytes).unwrap();
                        assert_eq!(header.base_offset, at);
                        at = header.last_offset() + 1;
                        read += 1;
                    }
                    if last_round && at == view.end_offset() {
                        break;
                    }
                }
                assert!(read > 0);
            });
        }
        for i in 0..4000 {
            fill(&mut log, 1);
            if i % 100 == 99 {
                flush(&mut log);
                log.retain(0).unwrap();
            }
        }
        done.store(true, Ordering::Release);
    });
    assert!(log.start_offset() > 0);
    assert!(log.size_bytes() < 85_000);
    log.close().unwrap();
}

#[test]
fn few_files_are_open() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("ticks-0");
    let mut log = open_real(&path, small());
    fill(&mut log, 300);
    assert_eq!(read_from(&log.view(), 0, 300).len(), 900);
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let ours = open
        .filter_map(|e| std::fs::read_link(e.ok()?.path()).ok())
        .filter(|target| target.starts_with(&path))
        .count();
    // The active segment, the one read last, and a few that wait to be flushed.
    assert!(ours <= 6, "{ours} open");
    log.close().unwrap();
    let log = open_real(&path, small());
    assert_eq!(contents(&log), filled(0..900));
}
