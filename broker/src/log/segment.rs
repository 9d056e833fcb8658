//! Segments and what readers share with the writer: file names, closed segments, the active one,
//! and the snapshot of all that under one short lock. Knows `file`, `index`, `time_index`, `scan`.
//!
//! INVARIANT: bytes below a published size never change. So a reader takes what it needs under the
//! lock and then reads files without it, whatever the writer does meanwhile.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wire::batch::BatchHeader;

use super::BadBatch;
use super::file::{Fs, LogFile};
use super::index::{self, IndexBuilder};
use super::scan::{Found, HEADER_BLOCK, Scanner};
use super::time_index::{self, TimeEntry};

/// Batches whose place is remembered, so that reading near the end needs no index.
const RECENT_BATCHES: usize = 128;

fn file_name(base: i64, suffix: &str) -> String {
    format!("{base:020}.{suffix}")
}

pub fn log_path(dir: &Path, base: i64) -> PathBuf {
    dir.join(file_name(base, "log"))
}

pub fn index_path(dir: &Path, base: i64) -> PathBuf {
    dir.join(file_name(base, "index"))
}

pub fn time_index_path(dir: &Path, base: i64) -> PathBuf {
    dir.join(file_name(base, "timeindex"))
}

pub fn snapshot_path(dir: &Path, offset: i64) -> PathBuf {
    dir.join(file_name(offset, "snapshot"))
}

/// The offset in a name like `00000000000000000042.log`.
pub fn offset_of(name: &str, suffix: &str) -> Option<i64> {
    let digits = name.strip_suffix(suffix)?.strip_suffix('.')?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    all_digits.then(|| digits.parse().ok()).flatten()
}

/// A segment that takes no more writes. Its files are opened when somebody reads.
#[derive(Debug)]
pub struct Segment {
    pub base: i64,
    /// Base of the segment behind it.
    pub end: i64,
    pub size: u64,
    /// Largest timestamp, and last offset of the first batch that has it.
    pub max: TimeEntry,
    pub bad: Arc<Vec<BadBatch>>,
}

/// Where a batch lies in the active segment.
#[derive(Clone, Copy, Debug)]
pub struct Recent {
    pub base: i64,
    pub last: i64,
    pub position: u64,
    pub size: u64,
}

/// The segment that is written to.
pub struct Active {
    pub base: i64,
    pub file: Arc<dyn LogFile>,
    pub size: u64,
    pub index: IndexBuilder,
    pub recent: VecDeque<Recent>,
    pub bad: Arc<Vec<BadBatch>>,
}

impl Active {
    pub fn new(base: i64, file: Arc<dyn LogFile>) -> Active {
        Active {
            base,
            file,
            size: 0,
            index: IndexBuilder::new(base),
            recent: VecDeque::new(),
            bad: Arc::default(),
        }
    }

    pub fn note(&mut self, position: u64, header: &BatchHeader, interval: u32) {
        self.index.note(position, header, interval);
        if self.recent.len() == RECENT_BATCHES {
            self.recent.pop_front();
        }
        self.recent.push_back(Recent {
            base: header.base_offset,
            last: header.last_offset(),
            position,
            size: header.size() as u64,
        });
        self.size = position + header.size() as u64;
    }

    /// The first batch that ends at or behind `offset`, when that is certain from memory alone.
    pub fn recent(&self, offset: i64) -> Option<Recent> {
        if self.recent.front().is_none_or(|first| first.base > offset) {
            return None;
        }
        let at = self.recent.partition_point(|r| r.last < offset);
        self.recent.get(at).copied()
    }
}

/// What readers see, consistent under the lock.
pub struct Published {
    pub closed: Arc<Vec<Arc<Segment>>>,
    pub active: Active,
    pub start_offset: i64,
    pub end_offset: i64,
}

impl Published {
    /// Where the oldest segment begins; the start offset may lie behind it.
    pub fn first_base(&self) -> i64 {
        self.closed.first().map_or(self.active.base, |s| s.base)
    }
}

/// A segment as one reader sees it, good for reading without the lock.
#[derive(Clone)]
pub struct SegmentView {
    pub base: i64,
    /// First offset behind it.
    pub end: i64,
    pub size: u64,
    pub file: Arc<dyn LogFile>,
    pub max: TimeEntry,
    pub bad: Arc<Vec<BadBatch>>,
    /// Entries of the index file that may be used; `None` for a closed segment: the whole file.
    pub entries: Option<usize>,
}

/// Shared by the writer and all readers of one log.
pub struct Shared {
    pub fs: Arc<dyn Fs>,
    pub dir: PathBuf,
    pub interval: AtomicU32,
    published: Mutex<Published>,
    /// The closed segment read last, kept open: one descriptor per log, and none for most.
    cold: Mutex<Option<(i64, Arc<dyn LogFile>)>>,
    /// One reader at a time rebuilds an index.
    repair: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks with the state half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(fs: Arc<dyn Fs>, dir: PathBuf, interval: u32, published: Published) -> Shared {
        Shared {
            fs,
            dir,
            interval: AtomicU32::new(interval),
            published: Mutex::new(published),
            cold: Mutex::new(None),
            repair: Mutex::new(()),
        }
    }

    /// Held for a few instructions, never over I/O.
    pub fn published(&self) -> MutexGuard<'_, Published> {
        lock(&self.published)
    }

    pub fn interval(&self) -> u32 {
        self.interval.load(Ordering::Relaxed)
    }

    fn open_closed(&self, base: i64) -> io::Result<Arc<dyn LogFile>> {
        if let Some((at, file)) = &*lock(&self.cold)
            && *at == base
        {
            return Ok(file.clone());
        }
        let file = self.fs.open(&log_path(&self.dir, base))?;
        *lock(&self.cold) = Some((base, file.clone()));
        Ok(file)
    }

    /// Lets go of a segment that is being deleted.
    pub fn forget(&self, base: i64) {
        lock(&self.cold).take_if(|(at, _)| *at == base);
    }

    pub fn closed_view(&self, segment: &Segment) -> io::Result<SegmentView> {
        Ok(SegmentView {
            base: segment.base,
            end: segment.end,
            size: segment.size,
            file: self.open_closed(segment.base)?,
            max: segment.max,
            bad: segment.bad.clone(),
            entries: None,
        })
    }

    /// A position at or before the first batch that ends at or behind `offset`; 0 if need be. The
    /// entry used is checked against its batch; a closed segment's bad index is rebuilt.
    pub fn floor(&self, segment: &SegmentView, offset: i64) -> io::Result<u64> {
        match self.indexed_floor(segment, offset) {
            Ok(Some(position)) => return Ok(position),
            Ok(None) if segment.entries.is_some() => return Ok(0),
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        if segment.size > u64::from(self.interval()) && self.repair(segment) {
            return Ok(self.indexed_floor(segment, offset)?.unwrap_or(0));
        }
        Ok(0)
    }

    /// Rebuilds the indexes of a closed segment; false when that is not possible.
    fn repair(&self, segment: &SegmentView) -> bool {
        if segment.entries.is_some() {
            return false;
        }
        let _one = lock(&self.repair);
        match rebuild_index(&*self.fs, &self.dir, segment, self.interval()) {
            Ok((_, Ok(()))) => true,
            Ok((_, Err(e))) | Err(e) => {
                tracing::warn!(
                    dir = %self.dir.display(), segment = segment.base, error = %e,
                    "cannot rebuild an index; reads of this segment scan it until there is space"
                );
                false
            }
        }
    }

    /// `Ok(None)`: the index is missing or wrong.
    fn indexed_floor(&self, segment: &SegmentView, offset: i64) -> io::Result<Option<u64>> {
        if segment.entries == Some(0) {
            return Ok(Some(0));
        }
        let file = self.fs.open(&index_path(&self.dir, segment.base))?;
        let there = index::entry_count(Some(file.len()?), index::ENTRY_LEN);
        let Some(count) = segment.entries.or(there) else {
            return Ok(None);
        };
        match index::floor(&*file, segment.base, count, offset) {
            Ok(Some((slot, entry))) => {
                let right = (slot == 0 || entry.position > 0) && points_at_batch(segment, entry)?;
                Ok(right.then_some(entry.position))
            }
            Ok(None) => Ok(Some(0)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Like [`Shared::floor`], by time: every batch before the position returned has a smaller
    /// largest timestamp than `timestamp`.
    pub fn floor_by_time(&self, segment: &SegmentView, timestamp: i64) -> io::Result<u64> {
        if let Some(position) = self.timed_floor(segment, timestamp)? {
            return Ok(position);
        }
        if segment.size > u64::from(self.interval()) && self.repair(segment) {
            return Ok(self.timed_floor(segment, timestamp)?.unwrap_or(0));
        }
        Ok(0)
    }

    /// The time entry of the largest timestamp among the batches that end before `offset`, as far as
    /// the index knows; `None` when it is missing or wrong.
    pub fn stamp_before(
        &self,
        segment: &SegmentView,
        offset: i64,
    ) -> io::Result<Option<TimeEntry>> {
        let Some((file, count)) = self.open_time_index(segment)? else {
            return Ok(None);
        };
        let base = segment.base;
        let found = time_index::floor_by_offset(&*file, base, count, offset.saturating_sub(1))?;
        let Some((_, entry)) = found.filter(|(_, e)| e.offset >= base) else {
            return Ok(None);
        };
        let right = stamped_batch(segment, self.floor(segment, entry.offset)?, entry)?;
        Ok(right.then_some(entry))
    }

    fn open_time_index(
        &self,
        segment: &SegmentView,
    ) -> io::Result<Option<(Arc<dyn LogFile>, usize)>> {
        let file = match self.fs.open(&time_index_path(&self.dir, segment.base)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let count = index::entry_count(Some(file.len()?), time_index::ENTRY_LEN);
        Ok(count.map(|count| (file, count)))
    }

    /// `Ok(None)`: the time index is missing or wrong.
    fn timed_floor(&self, segment: &SegmentView, timestamp: i64) -> io::Result<Option<u64>> {
        let Some((file, count)) = self.open_time_index(segment)? else {
            return Ok(None);
        };
        let found = time_index::floor_by_time(&*file, segment.base, count, timestamp)?;
        let Some(entry) = found else {
            return Ok(Some(0));
        };
        if entry.offset < segment.base || entry.offset >= segment.end {
            return Ok(None);
        }
        let position = self.floor(segment, entry.offset)?;
        let right = stamped_batch(segment, position, entry)?;
        Ok(right.then_some(position))
    }
}

/// True when the batch the entry points to is there and ends where the entry says.
pub fn points_at_batch(segment: &SegmentView, entry: index::Entry) -> io::Result<bool> {
    if entry.position >= segment.size {
        return Ok(false);
    }
    let mut scanner = Scanner::new(&*segment.file, segment.size, HEADER_BLOCK);
    Ok(match scanner.header(entry.position)? {
        Found::Batch(header) => header.last_offset() == entry.offset,
        _ => false,
    })
}

/// True when the batch that ends at `entry.offset`, at or behind `position`, has its timestamp.
pub fn stamped_batch(segment: &SegmentView, position: u64, entry: TimeEntry) -> io::Result<bool> {
    let mut walk = Walk::new(segment, position);
    while let Step::Batch(_, header) = walk.step()? {
        if header.last_offset() >= entry.offset {
            return Ok(
                header.last_offset() == entry.offset && header.max_timestamp == entry.timestamp
            );
        }
    }
    Ok(false)
}

/// Writes both indexes of a closed segment anew from its batch headers. Returns its largest
/// timestamp, and whether the files could be written: a full disk prevents no reading.
pub fn rebuild_index(
    fs: &dyn Fs,
    dir: &Path,
    segment: &SegmentView,
    interval: u32,
) -> io::Result<(TimeEntry, io::Result<()>)> {
    let mut builder = IndexBuilder::new(segment.base);
    let mut written = Ok(());
    let mut walk = Walk::new(segment, 0);
    while let Step::Batch(position, header) = walk.step()? {
        builder.note(position, &header, interval);
        if builder.spill_due() {
            let spill = builder.prepare(false);
            written = written.and_then(|()| spill.write(fs, dir));
            builder.commit(&spill, true);
        }
    }
    let spill = builder.prepare(true);
    written = written.and_then(|()| spill.write(fs, dir));
    Ok((builder.max(), written))
}

/// Steps over the batches of a segment, around the ones known to be bad.
pub struct Walk<'a> {
    scanner: Scanner<'a>,
    bad: &'a [BadBatch],
    position: u64,
}

/// One step of a [`Walk`].
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A batch and its position.
    Batch(u64, BatchHeader),
    /// The end of the segment.
    End,
    /// What lies here is no batch, and nobody knew.
    Broken(u64),
}

impl<'a> Walk<'a> {
    pub fn new(segment: &'a SegmentView, position: u64) -> Walk<'a> {
        Walk {
            scanner: Scanner::new(&*segment.file, segment.size, HEADER_BLOCK),
            bad: &segment.bad,
            position,
        }
    }

    pub fn step(&mut self) -> io::Result<Step> {
        while let Some(bad) = self.bad.iter().find(|b| {
            b.position < b.end_position
                && b.position <= self.position
                && self.position < b.end_position
        }) {
            self.position = bad.end_position;
        }
        let position = self.position;
        Ok(match self.scanner.header(position)? {
            Found::Batch(header) => {
                self.position += header.size() as u64;
                Step::Batch(position, header)
            }
            Found::End => Step::End,
            Found::Bad => Step::Broken(position),
        })
    }
}
