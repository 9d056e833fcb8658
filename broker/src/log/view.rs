//! Readers: from an offset to a region of a file, without the writer's lock. Near the end of the
//! log no file is touched to find it. Knows `segment`; records only as whole batches.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use bytes::Bytes;
use wire::batch::{self, BatchHeader};

use super::file::LogFile;
use super::segment::{SegmentView, Shared, Step, Walk};
use super::{BadBatch, ReadError};

/// Reads a log while it is being written to. Cheap to clone.
#[derive(Clone)]
pub struct LogView {
    pub(super) shared: Arc<Shared>,
}

/// Bytes of a segment file that hold whole batches, the last one perhaps cut short (KIP-74).
#[derive(Clone)]
pub struct Region {
    /// Stays readable after the segment was deleted.
    pub file: Arc<dyn LogFile>,
    pub position: u64,
    pub len: usize,
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({} bytes at {})", self.len, self.position)
    }
}

impl Region {
    /// The bytes themselves.
    pub fn bytes(&self) -> io::Result<Bytes> {
        let mut buf = vec![0; self.len];
        self.file.read_exact_at(&mut buf, self.position)?;
        Ok(Bytes::from(buf))
    }
}

impl LogView {
    /// First offset that is served.
    pub fn start_offset(&self) -> i64 {
        self.shared.published().start_offset
    }

    /// Offset the next record gets.
    pub fn end_offset(&self) -> i64 {
        self.shared.published().end_offset
    }

    /// Batches from the one that holds `offset` on, up to `max_bytes`, none that reaches `upper` (the
    /// high watermark or last stable offset). Empty at `upper`, and when the first batch is larger
    /// than `max_bytes`, unless `min_one_batch`. Ends before a corrupt batch; at one it is an error.
    pub fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        upper: i64,
        min_one_batch: bool,
    ) -> Result<Region, ReadError> {
        self.retry_deleted(
            || match self.read_recent(offset, max_bytes, upper, min_one_batch)? {
                Some(region) => Ok(region),
                None => self.read_files(offset, max_bytes, upper, min_one_batch),
            },
        )
    }

    /// Looks again when retention deleted a segment between look-up and open.
    pub(super) fn retry_deleted<T>(
        &self,
        look: impl Fn() -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        loop {
            let start = self.start_offset();
            match look() {
                Err(ReadError::Io(e))
                    if e.kind() == ErrorKind::NotFound && self.start_offset() > start => {}
                result => return result,
            }
        }
    }

    /// The common case: a reader that keeps up. Answers from memory, or says what is wrong with the
    /// request; `None` when files have to be searched.
    fn read_recent(
        &self,
        offset: i64,
        max_bytes: usize,
        upper: i64,
        min_one_batch: bool,
    ) -> Result<Option<Region>, ReadError> {
        let p = self.shared.published();
        let (start, end) = (p.start_offset, p.end_offset);
        if offset < start || offset > end {
            return Err(ReadError::OffsetOutOfRange { offset, start, end });
        }
        let active = &p.active;
        let region = |position: u64, len: usize| Region {
            file: active.file.clone(),
            position,
            len,
        };
        if offset >= upper.min(end) {
            return Ok(Some(region(active.size, 0)));
        }
        let first = match active.recent(offset) {
            Some(first) if active.bad.is_empty() => first,
            _ => return Ok(None),
        };
        let limit = if upper >= end {
            active.size
        } else {
            active.recent(upper).map_or(active.size, |r| r.position)
        };
        let len = length(first.position, first.size, limit, max_bytes, min_one_batch);
        Ok(Some(region(first.position, len)))
    }

    fn read_files(
        &self,
        offset: i64,
        max_bytes: usize,
        upper: i64,
        min_one_batch: bool,
    ) -> Result<Region, ReadError> {
        let Some(found) = self.locate(offset)? else {
            // The rest of the log holds no batch at or behind `offset`.
            let p = self.shared.published();
            return Ok(Region {
                file: p.active.file.clone(),
                position: p.active.size,
                len: 0,
            });
        };
        let segment = &found.segment;
        let mut limit = if upper >= segment.end {
            segment.size
        } else if upper <= found.header.last_offset() {
            found.position
        } else {
            self.position_of(segment, upper, found.position)?
        };
        for bad in segment.bad.iter().filter(|b| b.position >= found.position) {
            limit = limit.min(bad.position);
        }
        let size = found.header.size() as u64;
        Ok(Region {
            file: segment.file.clone(),
            position: found.position,
            len: length(found.position, size, limit, max_bytes, min_one_batch),
        })
    }

    /// Batches for replay, checked; at least one when there is one.
    pub fn read_batches(
        &self,
        from: i64,
        upper: i64,
        max_bytes: usize,
    ) -> Result<Vec<(BatchHeader, Bytes)>, ReadError> {
        let region = self.read(from, max_bytes, upper, true)?;
        let mut batches = Vec::new();
        for item in batch::split(&region.bytes()?) {
            let good = item
                .ok()
                .filter(|(_, bytes)| batch::validate_stored(bytes).is_ok());
            match good {
                Some(found) => batches.push(found),
                None if batches.is_empty() => return Err(self.corrupt_at(from, &region)?),
                // The next call begins at it and says so.
                None => break,
            }
        }
        Ok(batches)
    }

    /// The error for a batch that nobody knew to be corrupt.
    fn corrupt_at(&self, offset: i64, region: &Region) -> Result<ReadError, ReadError> {
        let found = self.locate(offset)?;
        Ok(ReadError::Corrupt {
            offset,
            segment: found.as_ref().map_or(0, |f| f.segment.base),
            position: region.position,
            next_offset: found.map_or(self.end_offset(), |f| f.header.last_offset() + 1),
        })
    }

    /// All segments that hold something at or behind `offset`, oldest first.
    pub(super) fn segments_from(&self, offset: i64) -> Vec<Lazy> {
        let p = self.shared.published();
        let first = p.closed.partition_point(|s| s.end <= offset);
        let closed = p.closed.iter().skip(first).cloned().map(Lazy::Closed);
        let active = Lazy::Active(SegmentView {
            base: p.active.base,
            end: p.end_offset,
            size: p.active.size,
            file: p.active.file.clone(),
            max: p.active.index.max(),
            bad: p.active.bad.clone(),
            entries: Some(p.active.index.on_file()),
        });
        closed.chain([active]).collect()
    }

    pub(super) fn open(&self, lazy: &Lazy) -> io::Result<SegmentView> {
        match lazy {
            Lazy::Closed(segment) => self.shared.closed_view(segment),
            Lazy::Active(view) => Ok(view.clone()),
        }
    }

    /// The first batch that ends at or behind `offset`.
    pub(super) fn locate(&self, offset: i64) -> Result<Option<Located>, ReadError> {
        for lazy in self.segments_from(offset) {
            let segment = self.open(&lazy)?;
            if let Some(bad) = segment.bad.iter().find(|b| holds(b, offset)) {
                return Err(corrupt(offset, bad));
            }
            let floor = self.floor(&segment, offset)?;
            let mut walk = Walk::new(&segment, floor);
            loop {
                match walk.step()? {
                    Step::Batch(position, header) if header.last_offset() >= offset => {
                        return Ok(Some(Located {
                            segment,
                            position,
                            header,
                        }));
                    }
                    Step::Batch(..) => {}
                    Step::End => break,
                    Step::Broken(position) => {
                        return Err(ReadError::Corrupt {
                            offset,
                            segment: segment.base,
                            position,
                            next_offset: segment.end,
                        });
                    }
                }
            }
        }
        Ok(None)
    }

    /// As [`Shared::floor`], with the entries of the active segment that are not on file yet.
    pub(super) fn floor(&self, segment: &SegmentView, offset: i64) -> io::Result<u64> {
        if segment.entries.is_some() {
            let p = self.shared.published();
            if p.active.base == segment.base
                && let Some(entry) = p.active.index.pending_floor(offset)
                && entry.position < segment.size
            {
                return Ok(entry.position);
            }
        }
        self.shared.floor(segment, offset)
    }

    /// Where the first batch begins that reaches `offset`, or the end of the segment.
    fn position_of(&self, segment: &SegmentView, offset: i64, from: u64) -> io::Result<u64> {
        let recent = {
            let p = self.shared.published();
            let same = p.active.base == segment.base;
            same.then(|| p.active.recent(offset)).flatten()
        };
        if let Some(recent) = recent {
            return Ok(recent.position.min(segment.size));
        }
        let mut walk = Walk::new(segment, self.floor(segment, offset)?.max(from));
        loop {
            match walk.step()? {
                Step::Batch(position, header) if header.last_offset() >= offset => {
                    return Ok(position);
                }
                Step::Batch(..) => {}
                Step::End => return Ok(segment.size),
                Step::Broken(position) => return Ok(position),
            }
        }
    }
}

/// A segment that is opened only when it is needed.
pub(super) enum Lazy {
    Closed(Arc<super::segment::Segment>),
    Active(SegmentView),
}

impl Lazy {
    pub fn base(&self) -> i64 {
        match self {
            Lazy::Closed(s) => s.base,
            Lazy::Active(s) => s.base,
        }
    }

    pub fn max(&self) -> super::time_index::TimeEntry {
        match self {
            Lazy::Closed(s) => s.max,
            Lazy::Active(s) => s.max,
        }
    }
}

/// A batch found.
pub(super) struct Located {
    pub segment: SegmentView,
    pub position: u64,
    pub header: BatchHeader,
}

fn holds(bad: &BadBatch, offset: i64) -> bool {
    bad.first_offset <= offset && offset < bad.next_offset
}

fn corrupt(offset: i64, bad: &BadBatch) -> ReadError {
    ReadError::Corrupt {
        offset,
        segment: bad.segment,
        position: bad.position,
        next_offset: bad.next_offset,
    }
}

/// How much to read from a batch of `first` bytes at `position`, not beyond `limit`.
fn length(position: u64, first: u64, limit: u64, max_bytes: usize, min_one_batch: bool) -> usize {
    let there = limit.saturating_sub(position);
    if there < first {
        return 0;
    }
    let wanted = match (max_bytes as u64 >= first, min_one_batch) {
        (true, _) => max_bytes as u64,
        (false, true) => first,
        (false, false) => 0,
    };
    usize::try_from(wanted.min(there)).unwrap_or(0)
}
