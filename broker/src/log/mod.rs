//! The append-only log of one partition: segments, indexes, recovery, producer state, leader
//! epochs, retention. Files are Apache Kafka's, byte for byte, so `kafka.tools.DumpLogSegments`
//! reads them and a directory can move between the two.
//!
//! May know: `wire::batch`, `wire::records`, `std`, `rustix`. Never sockets, protocol messages,
//! tokio or the broker's configuration. All calls block; the caller chooses the thread.
//!
//! One rule: the `.log` files are the truth. Indexes, snapshots and checkpoints are derived,
//! verified when used, and rebuilt when missing or garbled.
//!
//! Reading order: `file` (the I/O seam), `segment`, `index`, `time_index`, `scan`, `writer`
//! (append, roll), `flush`, `view` (readers), `stamps` (by timestamp), `recovery`, `retention`.

#[cfg(test)]
pub mod fault_fs;
pub mod file;
mod flush;
mod index;
mod leader_epochs;
mod producer_state;
mod recovery;
mod recovery_scan;
mod recovery_state;
mod retention;
mod scan;
mod segment;
mod stamps;
#[cfg(test)]
mod tests;
mod time_index;
mod view;
mod writer;

pub use file::{DirEntry, Fs, LogFile, RealFs};
pub use flush::{FlushJob, Flushed};
pub use view::{LogView, Region};
pub use writer::Log;

use std::io;

/// What a log needs to know of its topic's configuration. Names are Kafka's topic settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is rolled before it would grow beyond this (at most 2^31-1).
    pub segment_bytes: u64,
    /// `segment.ms`: a segment is rolled when its first batch is older than this.
    pub segment_ms: i64,
    /// `index.interval.bytes`: at most one index entry per this many bytes of log.
    pub index_interval_bytes: u32,
    /// `segment.index.bytes`: a segment is rolled when one of its indexes would outgrow this.
    pub segment_index_bytes: u32,
    /// `retention.ms`; -1: none.
    pub retention_ms: i64,
    /// `retention.bytes`; -1: none.
    pub retention_bytes: i64,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i64,
}

impl Default for LogConfig {
    /// Apache Kafka's defaults.
    fn default() -> LogConfig {
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            index_interval_bytes: 4096,
            segment_index_bytes: 10 << 20,
            retention_ms: 7 * 24 * 3_600_000,
            retention_bytes: -1,
            producer_id_expiration_ms: 24 * 3_600_000,
        }
    }
}

/// What the caller knows about the directory it opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFrom {
    /// The last shutdown was clean: only the very end of the log is looked at.
    pub clean: bool,
    /// Everything below this offset is known to be on disk; ignored after a clean shutdown.
    /// Unknown and not clean: the whole log is scanned.
    pub recovery_point: Option<i64>,
    /// First offset to serve (`log-start-offset-checkpoint`); records below were deleted.
    pub log_start_offset: Option<i64>,
}

/// How one batch is to be appended.
#[derive(Clone, Copy, Debug)]
pub struct AppendOptions {
    /// Written into the batch header (`partitionLeaderEpoch`).
    pub leader_epoch: i32,
    /// `message.timestamp.type=LogAppendTime`: the time every record of the batch gets.
    pub log_append_time: Option<i64>,
    /// The clock, for rolling segments whose batches have no timestamp.
    pub now_ms: i64,
}

/// Where a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: i64,
    pub last_offset: i64,
    /// -1 under `CreateTime`.
    pub log_append_time: i64,
    /// The batch was in the log already (a retry of an idempotent producer); nothing was written.
    pub duplicate: bool,
    /// A segment was rolled on the way: a good moment for a background flush.
    pub rolled: bool,
}

/// Position of a record found by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub offset: i64,
    pub timestamp: i64,
    pub leader_epoch: i32,
}

/// A batch that fails its checks while valid ones follow: kept on disk, never served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBatch {
    /// Base offset of the segment it lies in.
    pub segment: i64,
    /// Where it begins in the segment's file, and where the next valid batch begins.
    pub position: u64,
    pub end_position: u64,
    /// Offsets that cannot be read: from the first, up to but not including the second.
    pub first_offset: i64,
    pub next_offset: i64,
}

/// What opening a log found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Bytes whose checksums were verified.
    pub scanned_bytes: u64,
    /// Bytes cut off the end: a torn write.
    pub truncated_bytes: u64,
    /// Whole segments dropped because they lay behind bytes that never reached the disk.
    pub dropped_segments: usize,
    /// Bad batches in the middle that are kept but not served (including those known before).
    pub bad: Vec<BadBatch>,
    /// Indexes that were missing, torn or wrong and were rebuilt.
    pub rebuilt_indexes: usize,
    /// The newest valid producer snapshot, and how many batches were replayed on top of it.
    pub snapshot_offset: Option<i64>,
    pub replayed_batches: u64,
    /// `leader-epoch-checkpoint` was missing or did not fit the log, and was rebuilt.
    pub rebuilt_epochs: bool,
    /// The log ends below the recovery point it was opened with: synced data is gone.
    pub lost_below_recovery_point: bool,
}

/// What `retain` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    pub deleted_segments: usize,
    pub new_start: i64,
}

/// State of one idempotent or transactional producer (`DescribeProducers`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerInfo {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub last_sequence: i32,
    pub last_timestamp: i64,
    pub coordinator_epoch: i32,
    /// First offset of the open transaction, -1 when there is none.
    pub current_txn_start_offset: i64,
}

/// Why a log cannot be opened, flushed, trimmed or closed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{what} {path}: {source}; check the disk and the permissions of the data directory")]
    Io {
        what: &'static str,
        path: String,
        source: io::Error,
    },
    #[error(
        "the log takes no writes since an earlier write or flush failed; restart the broker so that it recovers from what is on disk"
    )]
    Poisoned,
    #[error("offset {offset} is outside of the log, which holds {start} to {end}")]
    OffsetOutOfRange { offset: i64, start: i64, end: i64 },
}

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error(
        "the log takes no writes since an earlier write or flush failed; restart the broker so that it recovers from what is on disk"
    )]
    Poisoned,
    #[error(
        "producer {producer_id} sent sequence {got} where {expected} follows the last one written"
    )]
    OutOfOrderSequence {
        producer_id: i64,
        expected: i32,
        got: i32,
    },
    #[error(
        "producer {producer_id} wrote with epoch {got}, but epoch {current} has been seen: a newer producer replaced it"
    )]
    InvalidProducerEpoch {
        producer_id: i64,
        current: i16,
        got: i16,
    },
    #[error("producer {producer_id} is not known to this partition")]
    UnknownProducerId { producer_id: i64 },
    #[error(
        "producer {producer_id} wrote outside of its open transaction; commit or abort that first"
    )]
    InvalidTxnState { producer_id: i64 },
    #[error("a marker of coordinator epoch {got} came after one of epoch {current}")]
    CoordinatorFenced { current: i32, got: i32 },
    #[error("a batch of {size} bytes does not fit into a segment of {limit}; raise segment.bytes")]
    TooLarge { size: usize, limit: u64 },
    #[error("the batch's bytes do not agree with its header")]
    Malformed,
    #[error("{what}: {source}; check the space left on the disk")]
    Io {
        what: &'static str,
        source: io::Error,
    },
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("offset {offset} is outside of the log, which holds {start} to {end}")]
    OffsetOutOfRange { offset: i64, start: i64, end: i64 },
    #[error(
        "offset {offset} lies in a corrupt batch at byte {position} of segment {segment}; the next readable offset is {next_offset}"
    )]
    Corrupt {
        offset: i64,
        segment: i64,
        position: u64,
        /// Where reading can go on; equal to the log's end when nothing readable follows.
        next_offset: i64,
    },
    #[error("reading the log: {0}")]
    Io(#[from] io::Error),
}
