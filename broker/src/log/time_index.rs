//! `.timeindex`: sparse timestamp → offset, 12 bytes an entry: the largest timestamp so far and the
//! last offset, relative to the segment, of the first batch that has it (Kafka's `TimeIndex`).
//! Timestamps and offsets both grow from entry to entry.

use std::io;

use super::file::LogFile;
use super::index::search;

/// Bytes of one entry on disk.
pub const ENTRY_LEN: usize = 12;

/// One entry of the time index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeEntry {
    pub timestamp: i64,
    pub offset: i64,
}

impl TimeEntry {
    /// No timestamp seen yet.
    pub fn none(base: i64) -> TimeEntry {
        TimeEntry {
            timestamp: -1,
            offset: base,
        }
    }

    /// As on disk.
    pub fn encode(self, base: i64) -> [u8; ENTRY_LEN] {
        let mut out = [0; ENTRY_LEN];
        out[..8].copy_from_slice(&self.timestamp.to_be_bytes());
        out[8..].copy_from_slice(&((self.offset - base) as i32).to_be_bytes());
        out
    }

    /// From disk.
    pub fn decode(base: i64, raw: &[u8; ENTRY_LEN]) -> TimeEntry {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *raw;
        TimeEntry {
            timestamp: i64::from_be_bytes([a, b, c, d, e, f, g, h]),
            offset: base.saturating_add(i64::from(i32::from_be_bytes([i, j, k, l]))),
        }
    }
}

/// Largest entry with a timestamp ≤ `target` among the first `count` of the file.
pub fn floor_by_time(
    file: &dyn LogFile,
    base: i64,
    count: usize,
    target: i64,
) -> io::Result<Option<TimeEntry>> {
    let at_most = |raw: &[u8; ENTRY_LEN]| TimeEntry::decode(base, raw).timestamp <= target;
    let found = search(file, count, at_most)?;
    Ok(found.map(|(_, raw)| TimeEntry::decode(base, &raw)))
}

/// Largest entry with an offset ≤ `target` among the first `count` of the file, with its slot.
pub fn floor_by_offset(
    file: &dyn LogFile,
    base: i64,
    count: usize,
    target: i64,
) -> io::Result<Option<(usize, TimeEntry)>> {
    let at_most = |raw: &[u8; ENTRY_LEN]| TimeEntry::decode(base, raw).offset <= target;
    let found = search(file, count, at_most)?;
    Ok(found.map(|(slot, raw)| (slot, TimeEntry::decode(base, &raw))))
}
