//! `.index`: sparse offset → position, 8 bytes an entry: the LAST offset of a batch, relative to the
//! segment, and where that batch begins (Kafka's `OffsetIndex`). Also [`IndexBuilder`], which the
//! writer and recovery feed with batch headers and which fills both indexes of a segment.
//!
//! Entries wait in memory and are written some hundred at a time, so an append is one system call
//! and index files need not stay open. Nothing here is trusted: readers check an entry against the
//! batch it points to.

use std::io::{self, ErrorKind};
use std::path::Path;

use wire::batch::BatchHeader;

use super::file::{Fs, LogFile};
use super::segment::{index_path, time_index_path};
use super::time_index::{self, TimeEntry};

/// Bytes of one entry on disk.
pub const ENTRY_LEN: usize = 8;
/// Entries that wait in memory before they are written: 256 of them span at least 1 MiB of log.
const SPILL_ENTRIES: usize = 256;
/// A search reads this many entries at once when it has come that close.
const BLOCK_ENTRIES: usize = 128;

/// One entry of the offset index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Last offset of the batch.
    pub offset: i64,
    /// Where the batch begins.
    pub position: u64,
}

impl Entry {
    /// As on disk.
    pub fn encode(self, base: i64) -> [u8; ENTRY_LEN] {
        let mut out = [0; ENTRY_LEN];
        out[..4].copy_from_slice(&((self.offset - base) as i32).to_be_bytes());
        out[4..].copy_from_slice(&(self.position as i32).to_be_bytes());
        out
    }

    /// From disk; negative fields (garbage) end up out of any range.
    pub fn decode(base: i64, raw: &[u8; ENTRY_LEN]) -> Entry {
        let [a, b, c, d, e, f, g, h] = *raw;
        Entry {
            offset: base.saturating_add(i64::from(i32::from_be_bytes([a, b, c, d]))),
            position: i64::from(i32::from_be_bytes([e, f, g, h])) as u64,
        }
    }
}

/// Largest entry with an offset ≤ `target` among the first `count` of the file, with its slot.
pub fn floor(
    file: &dyn LogFile,
    base: i64,
    count: usize,
    target: i64,
) -> io::Result<Option<(usize, Entry)>> {
    let at_most = |raw: &[u8; ENTRY_LEN]| Entry::decode(base, raw).offset <= target;
    let found = search(file, count, at_most)?;
    Ok(found.map(|(slot, raw)| (slot, Entry::decode(base, &raw))))
}

/// Binary search over fixed-size entries of a file: the last for which `at_most` holds, provided it
/// holds for a prefix of them. On garbage it returns some entry or none, and always ends.
pub fn search<const N: usize>(
    file: &dyn LogFile,
    count: usize,
    at_most: impl Fn(&[u8; N]) -> bool,
) -> io::Result<Option<(usize, [u8; N])>> {
    let mut raw = [0; N];
    let (mut low, mut high) = (0, count);
    while high - low > BLOCK_ENTRIES {
        let middle = low + (high - low) / 2;
        file.read_exact_at(&mut raw, (middle * N) as u64)?;
        if at_most(&raw) {
            low = middle;
        } else {
            high = middle;
        }
    }
    let mut block = vec![0; (high - low) * N];
    file.read_exact_at(&mut block, (low * N) as u64)?;
    let (entries, _) = block.as_chunks::<N>();
    let within = entries.partition_point(|raw| at_most(raw));
    Ok(within
        .checked_sub(1)
        .and_then(|i| entries.get(i).map(|raw| (low + i, *raw))))
}

/// Collects the entries of both indexes of one segment, by Kafka's rule (`LogSegment.append`): when
/// more than the interval was written since the last entry, the next batch gets one.
#[derive(Debug)]
pub struct IndexBuilder {
    base: i64,
    /// Entries in the files.
    on_file: usize,
    time_on_file: usize,
    pending: Vec<Entry>,
    time_pending: Vec<TimeEntry>,
    /// Newest time entry, on file or pending.
    last_time: TimeEntry,
    bytes_since_entry: u64,
    /// Largest timestamp so far and the last offset of the first batch that has it.
    max: TimeEntry,
    /// A write failed and entries were dropped: the index has gaps and is rebuilt once sealed.
    gaps: bool,
}

/// Entries on their way to the files.
#[derive(Debug)]
pub struct Spill {
    base: i64,
    on_file: usize,
    time_on_file: usize,
    offsets: Vec<u8>,
    times: Vec<u8>,
    taken: (usize, usize),
}

impl IndexBuilder {
    /// For a new segment.
    pub fn new(base: i64) -> IndexBuilder {
        IndexBuilder::resume(base, 0, 0, TimeEntry::none(base))
    }

    /// For a segment whose files hold that many entries, the last batch indexed being the next one
    /// to be noted.
    pub fn resume(base: i64, on_file: usize, time_on_file: usize, last: TimeEntry) -> IndexBuilder {
        IndexBuilder {
            base,
            on_file,
            time_on_file,
            pending: Vec::new(),
            time_pending: Vec::new(),
            last_time: last,
            bytes_since_entry: 0,
            max: last,
            gaps: false,
        }
    }

    pub fn max(&self) -> TimeEntry {
        self.max
    }

    pub fn on_file(&self) -> usize {
        self.on_file
    }

    /// Entries not yet in the file, for readers of the active segment.
    pub fn pending_floor(&self, target: i64) -> Option<Entry> {
        let at = self.pending.partition_point(|e| e.offset <= target);
        at.checked_sub(1).and_then(|i| self.pending.get(i).copied())
    }

    /// Takes a batch that was written at `position` into account.
    pub fn note(&mut self, position: u64, header: &BatchHeader, interval: u32) {
        let last_offset = header.last_offset();
        if header.max_timestamp > self.max.timestamp {
            self.max = TimeEntry {
                timestamp: header.max_timestamp,
                offset: last_offset,
            };
        }
        if self.bytes_since_entry > u64::from(interval) {
            self.pending.push(Entry {
                offset: last_offset,
                position,
            });
            self.push_time();
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += header.size() as u64;
    }

    fn push_time(&mut self) {
        if self.max.timestamp > self.last_time.timestamp {
            self.time_pending.push(self.max);
            self.last_time = self.max;
        }
    }

    /// True when an index has reached `segment.index.bytes` and the segment has to be rolled.
    pub fn is_full(&self, index_bytes: u32) -> bool {
        let limit = index_bytes as usize;
        let offsets = self.on_file + self.pending.len();
        let times = self.time_on_file + self.time_pending.len();
        // One slot is reserved for the final time entry, as Kafka's TimeIndex.isFull does.
        offsets >= (limit / ENTRY_LEN).max(1) || times + 1 >= (limit / time_index::ENTRY_LEN).max(2)
    }

    pub fn spill_due(&self) -> bool {
        self.pending.len() >= SPILL_ENTRIES
    }

    /// The entries that wait, as bytes. `seal`: the segment is complete, its largest timestamp
    /// becomes the final time entry.
    pub fn prepare(&mut self, seal: bool) -> Spill {
        if seal {
            self.push_time();
        }
        let base = self.base;
        Spill {
            base,
            on_file: self.on_file,
            time_on_file: self.time_on_file,
            offsets: self.pending.iter().flat_map(|e| e.encode(base)).collect(),
            times: self
                .time_pending
                .iter()
                .flat_map(|e| e.encode(base))
                .collect(),
            taken: (self.pending.len(), self.time_pending.len()),
        }
    }

    /// After [`Spill::write`]. On failure the entries are dropped (the caller removes the files): a
    /// sparser index is still a right one.
    pub fn commit(&mut self, spill: &Spill, written: bool) {
        self.pending.drain(..spill.taken.0.min(self.pending.len()));
        self.time_pending
            .drain(..spill.taken.1.min(self.time_pending.len()));
        if written {
            self.on_file += spill.taken.0;
            self.time_on_file += spill.taken.1;
        } else {
            self.on_file = 0;
            self.time_on_file = 0;
            self.last_time = TimeEntry::none(self.base);
            self.gaps = true;
        }
    }

    pub fn has_gaps(&self) -> bool {
        self.gaps
    }
}

impl Spill {
    /// Writes behind the entries that are there and cuts whatever lay beyond. The offset index comes
    /// first: a time index without one is refused by Kafka's dump tool.
    pub fn write(&self, fs: &dyn Fs, dir: &Path) -> io::Result<()> {
        let at = (self.on_file * ENTRY_LEN) as u64;
        write_at_end(fs, &index_path(dir, self.base), at, &self.offsets)?;
        let at = (self.time_on_file * time_index::ENTRY_LEN) as u64;
        write_at_end(fs, &time_index_path(dir, self.base), at, &self.times)
    }
}

fn write_at_end(fs: &dyn Fs, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
    let file = match fs.open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound && at == 0 => fs.create(path)?,
        Err(e) => return Err(e),
    };
    let len = file.len()?;
    if len < at {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    if !bytes.is_empty() {
        file.write_all_at(bytes, &[], at)?;
    }
    if len > at + bytes.len() as u64 {
        file.truncate(at + bytes.len() as u64)?;
    }
    Ok(())
}

/// Number of entries in an index file; `None` when it is missing or its length is impossible.
pub fn entry_count(len: Option<u64>, entry_len: usize) -> Option<usize> {
    let len = usize::try_from(len?).ok()?;
    (len % entry_len == 0).then_some(len / entry_len)
}
