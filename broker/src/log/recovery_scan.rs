//! Recovery's reading of one segment: every batch from the recovery point on, checksums and all, and
//! the search for valid batches behind a bad one. Knows `recovery`, `scan`, `segment`.

use std::io;
use std::sync::Arc;

use wire::batch::BatchHeader;

use super::BadBatch;
use super::index::IndexBuilder;
use super::recovery::{Indexed, Recovery};
use super::scan::{Found, HEADER_BLOCK, Scanner, WHOLE_BLOCK};
use super::segment::{self, Active, Segment, SegmentView};
use super::time_index::TimeEntry;

/// A segment as read: `active.size` is where its last good batch ends.
pub(super) struct Scanned {
    pub active: Active,
    /// Offset behind the last batch.
    pub end: i64,
    bad: Vec<BadBatch>,
}

impl Recovery<'_> {
    /// Reads a segment from the recovery point on.
    pub(super) fn scan(&mut self, base: i64, size: u64) -> io::Result<Scanned> {
        let file = self.fs.open(&segment::log_path(self.dir, base))?;
        let mut scanned = Scanned {
            active: Active::new(base, file.clone()),
            end: base,
            bad: Vec::new(),
        };
        if self.known && self.trust > base {
            self.resume(&mut scanned, size)?;
        }
        let from = scanned.active.size;
        let mut scanner = Scanner::new(&*file, size, WHOLE_BLOCK);
        loop {
            let position = scanned.active.size;
            match valid_at(&mut scanner, position, scanned.end, base)? {
                Valid::Batch(header) => self.take(&mut scanned, position, &header)?,
                Valid::End => break,
                Valid::Bad => {
                    if !self.step_over(&mut scanner, &mut scanned, size)? {
                        break;
                    }
                }
            }
        }
        self.report.scanned_bytes += scanned.active.size - from;
        self.report.bad.extend_from_slice(&scanned.bad);
        scanned.active.bad = Arc::new(scanned.bad.clone());
        Ok(scanned)
    }

    fn take(&self, scanned: &mut Scanned, position: u64, header: &BatchHeader) -> io::Result<()> {
        let active = &mut scanned.active;
        active.note(position, header, self.cfg.index_interval_bytes);
        scanned.end = header.last_offset().saturating_add(1);
        if active.index.spill_due() {
            let spill = active.index.prepare(false);
            let written = spill.write(&**self.fs, self.dir);
            if written.is_err() {
                super::writer::remove_index(&**self.fs, self.dir, active.base);
            }
            active.index.commit(&spill, written.is_ok());
        }
        Ok(())
    }

    /// Begins at the last index entry before the recovery point, when the indexes are right.
    fn resume(&mut self, scanned: &mut Scanned, size: u64) -> io::Result<()> {
        let view = SegmentView {
            base: scanned.active.base,
            end: i64::MAX,
            size,
            file: scanned.active.file.clone(),
            max: TimeEntry::none(scanned.active.base),
            bad: Arc::default(),
            entries: None,
        };
        let found = self.indexed(&view, Some(self.trust))?;
        let Some(Indexed {
            entries,
            floor: Some(floor),
            times,
            last_time,
        }) = found
        else {
            // Missing is normal: the entries of the active segment are written now and then.
            self.report.rebuilt_indexes +=
                usize::from(found.is_none() && self.has_index(view.base));
            return Ok(());
        };
        let mut scanner = Scanner::new(&*view.file, size, HEADER_BLOCK);
        let Found::Batch(header) = scanner.header(floor.position)? else {
            return Ok(());
        };
        let before = |b: &BadBatch| b.segment == view.base && b.end_position <= floor.position;
        scanned.bad = self.known_bad.iter().copied().filter(before).collect();
        scanned.end = header.base_offset;
        scanned.active.size = floor.position;
        scanned.active.index = IndexBuilder::resume(view.base, entries, times, last_time);
        Ok(())
    }

    /// At a bad batch: goes on behind it when something valid follows. False at the end of the log.
    fn step_over(
        &self,
        scanner: &mut Scanner<'_>,
        scanned: &mut Scanned,
        size: u64,
    ) -> io::Result<bool> {
        let position = scanned.active.size;
        let expected = scanned.end;
        let promised = !self.known || expected < self.trust;
        let base = scanned.active.base;
        let (next_position, next_offset) = match resync(scanner, position, expected, base)? {
            // A power cut left a block that never reached the disk; nothing behind was promised.
            Some((next, _)) if !promised && scanner.has_hole(position, next)? => return Ok(false),
            Some((next, header)) => (next, header.base_offset),
            None => match scanner.header(position)? {
                // The last batch, whole but garbled, and promised: its offsets stay taken.
                Found::Batch(h)
                    if self.known
                        && promised
                        && h.base_offset == expected
                        && position + h.size() as u64 == size =>
                {
                    (size, h.last_offset().saturating_add(1))
                }
                _ => return Ok(false),
            },
        };
        scanned.bad.push(BadBatch {
            segment: base,
            position,
            end_position: next_position,
            first_offset: expected,
            next_offset,
        });
        scanned.active.size = next_position;
        scanned.end = next_offset;
        Ok(true)
    }

    /// A scanned segment that is not the last: its indexes are completed, what is torn is not served.
    pub(super) fn close_scanned(
        &mut self,
        scanned: &mut Scanned,
        size: u64,
        next: i64,
    ) -> io::Result<Segment> {
        let active = &mut scanned.active;
        if active.size < size {
            let bad = BadBatch {
                segment: active.base,
                position: active.size,
                end_position: size,
                first_offset: scanned.end,
                next_offset: next.max(scanned.end),
            };
            scanned.bad.push(bad);
            self.report.bad.push(bad);
        }
        let spill = active.index.prepare(true);
        let written = spill.write(&**self.fs, self.dir);
        active.index.commit(&spill, written.is_ok());
        if active.index.has_gaps() {
            super::writer::remove_index(&**self.fs, self.dir, active.base);
        }
        Ok(Segment {
            base: active.base,
            end: next,
            size,
            max: active.index.max(),
            bad: Arc::new(scanned.bad.clone()),
        })
    }
}

enum Valid {
    Batch(BatchHeader),
    End,
    Bad,
}

/// A batch at `position` that is whole, has its CRC, and whose offsets can follow `expected`.
fn valid_at(
    scanner: &mut Scanner<'_>,
    position: u64,
    expected: i64,
    base: i64,
) -> io::Result<Valid> {
    let header = match scanner.header(position)? {
        Found::End => return Ok(Valid::End),
        Found::Bad => return Ok(Valid::Bad),
        Found::Batch(header) => header,
    };
    let in_order = header.base_offset >= expected
        && header.last_offset().saturating_sub(base) <= i64::from(i32::MAX);
    if !in_order || !scanner.crc_matches(position, &header)? {
        return Ok(Valid::Bad);
    }
    // The CRC does not cover the base offset. After compaction offsets may be missing, but then
    // the next batch lies behind this one.
    if header.base_offset > expected
        && let Found::Batch(next) = scanner.header(position + header.size() as u64)?
        && next.base_offset <= header.last_offset()
    {
        return Ok(Valid::Bad);
    }
    Ok(Valid::Batch(header))
}

/// The next valid batch behind a bad one: where the bad one's length points to, or else anywhere.
fn resync(
    scanner: &mut Scanner<'_>,
    bad: u64,
    expected: i64,
    base: i64,
) -> io::Result<Option<(u64, BatchHeader)>> {
    // What is bad had at least one offset.
    let expected = expected.saturating_add(1);
    if let Found::Batch(header) = scanner.header(bad)? {
        let next = bad + header.size() as u64;
        if let Valid::Batch(found) = valid_at(scanner, next, expected, base)? {
            return Ok(Some((next, found)));
        }
    }
    let mut at = bad + 1;
    while at < scanner.end() {
        let window = scanner.bytes(at, WHOLE_BLOCK)?;
        let Some(skip) = first_candidate(window, expected, base) else {
            // The last bytes may begin a header that goes on behind the window.
            at += (window.len() as u64).saturating_sub(16).max(1);
            continue;
        };
        at += skip as u64;
        if let Valid::Batch(found) = valid_at(scanner, at, expected, base)? {
            return Ok(Some((at, found)));
        }
        at += 1;
    }
    Ok(None)
}

/// Cheap test before a CRC: base offset within the segment's range, and magic 2.
fn first_candidate(window: &[u8], expected: i64, base: i64) -> Option<usize> {
    let last = base.saturating_add(i64::from(i32::MAX));
    window.windows(17).position(|w| match w.first_chunk::<8>() {
        Some(offset) => {
            let offset = i64::from_be_bytes(*offset);
            w.last() == Some(&2) && offset >= expected && offset <= last
        }
        None => false,
    })
}
