//! Tests of the log as a whole, on a file system in memory. `basics` what it does, `damage` what it
//! survives on disk, `crash` every call at which it may stop, `model` random runs against a vector,
//! `real` the real file system.

mod basics;
mod crash;
mod damage;
mod model;
mod real;
mod times;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use wire::batch::{self, BatchHeader};
use wire::compress::Compression;
use wire::records::{self, BatchBuilder};

use super::fault_fs::FaultFs;
use super::*;

pub const DIR: &str = "/data/ticks-0";
const NOW: i64 = 1_000_000;

pub fn dir() -> &'static Path {
    Path::new(DIR)
}

pub fn file(base: i64, suffix: &str) -> PathBuf {
    dir().join(format!("{base:020}.{suffix}"))
}

/// Small enough that a few batches roll a segment and every second one is indexed.
pub fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 1000,
        index_interval_bytes: 100,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

pub const CLEAN: OpenFrom = OpenFrom {
    clean: true,
    recovery_point: None,
    log_start_offset: None,
};

pub const UNKNOWN: OpenFrom = OpenFrom {
    clean: false,
    recovery_point: None,
    log_start_offset: None,
};

pub fn known(recovery_point: i64) -> OpenFrom {
    OpenFrom {
        clean: false,
        recovery_point: Some(recovery_point),
        log_start_offset: None,
    }
}

pub fn open_with(fs: &FaultFs, cfg: LogConfig, from: OpenFrom) -> (Log, RecoveryReport) {
    Log::open(Arc::new(fs.clone()), dir(), cfg, from, NOW).unwrap()
}

pub fn open(fs: &FaultFs, from: OpenFrom) -> (Log, RecoveryReport) {
    open_with(fs, small(), from)
}

/// A batch of `n` records with successive values from `first` and timestamps alike.
pub fn values(first: i64, n: i64) -> Bytes {
    let mut b = BatchBuilder::new(Compression::None);
    for i in first..first + n {
        b.push(
            i * 10,
            Some(b"k"),
            Some(format!("value {i:06}").as_bytes()),
            &[],
        );
    }
    b.build(0)
}

/// The same from an idempotent producer.
pub fn sequenced(id: i64, epoch: i16, sequence: i32, n: i64) -> Bytes {
    let mut b = BatchBuilder::new(Compression::None).with_producer(id, epoch, sequence);
    for i in 0..n {
        b.push(
            NOW,
            None,
            Some(format!("{id} {}", i64::from(sequence) + i).as_bytes()),
            &[],
        );
    }
    b.build(0)
}

pub fn options(epoch: i32) -> AppendOptions {
    AppendOptions {
        leader_epoch: epoch,
        log_append_time: None,
        now_ms: NOW,
    }
}

pub fn try_append(log: &mut Log, bytes: &[u8]) -> Result<Appended, AppendError> {
    log.append(bytes, &BatchHeader::parse(bytes).unwrap(), options(3))
}

pub fn append(log: &mut Log, bytes: &[u8]) -> Appended {
    try_append(log, bytes).unwrap()
}

/// Appends `count` batches of three records whose values are their offsets.
pub fn fill(log: &mut Log, count: usize) {
    for _ in 0..count {
        let first = log.end_offset();
        append(log, &values(first, 3));
    }
}

pub fn flush(log: &mut Log) -> i64 {
    let flushed = log.begin_flush().run();
    log.finish_flush(flushed).unwrap()
}

/// Offset and value of everything readable from `from` on, read as a consumer does; the offsets of
/// corrupt stretches are passed over. Every batch served is checked.
pub fn read_from(view: &LogView, from: i64, max_bytes: usize) -> Vec<(i64, String)> {
    let mut all = Vec::new();
    let mut at = from;
    while at < view.end_offset() {
        let region = match view.read(at, max_bytes, i64::MAX, true) {
            Ok(region) => region,
            Err(ReadError::Corrupt { next_offset, .. }) => {
                assert!(next_offset > at);
                at = next_offset;
                continue;
            }
            Err(e) => panic!("reading {at}: {e}"),
        };
        let before = at;
        for item in batch::split(&region.bytes().unwrap()) {
            let (header, bytes) = item.unwrap();
            batch::validate_stored(&bytes).unwrap();
            for record in records::decode(&bytes, 1 << 20).unwrap() {
                if record.offset >= at {
                    let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                    all.push((record.offset, value));
                }
            }
            at = header.last_offset() + 1;
        }
        assert!(at > before, "no progress at {before}");
    }
    all
}

pub fn contents(log: &Log) -> Vec<(i64, String)> {
    read_from(&log.view(), log.start_offset(), 4096)
}

/// What `fill` wrote to the offsets.
pub fn filled(offsets: std::ops::Range<i64>) -> Vec<(i64, String)> {
    offsets.map(|i| (i, format!("value {i:06}"))).collect()
}

/// Bases of the segments there are.
pub fn segments(fs: &FaultFs) -> Vec<i64> {
    let mut bases: Vec<i64> = fs
        .list(dir())
        .unwrap()
        .iter()
        .filter_map(|e| e.name.strip_suffix(".log")?.parse().ok())
        .collect();
    bases.sort_unstable();
    bases
}

/// A closed log of `count` batches of three records, and its file system.
pub fn closed(count: usize) -> FaultFs {
    let fs = FaultFs::new(1);
    let (mut log, _) = open(&fs, CLEAN);
    fill(&mut log, count);
    log.close().unwrap();
    fs
}
