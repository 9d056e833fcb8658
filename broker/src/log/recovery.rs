//! Opening a log, cleanly shut down or not:
//! 1. list the directory, remove leftovers, drop segments before the start offset;
//! 2. segments wholly below the recovery point: check the ends of their indexes, rebuild if wrong;
//! 3. from the recovery point on: check every CRC (`recovery_scan`); what was never written (missing
//!    or zero bytes not promised to anyone) ends the log, a bad batch before valid ones is kept on
//!    disk and never served; the last segment's torn tail is cut;
//! 4. load the newest valid producer snapshot and replay what follows it (`recovery_state`);
//! 5. check the leader epochs against the batches, rebuild if wrong.
//!
//! After a clean shutdown the recovery point is the end, so step 3 looks at a few KiB.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use super::file::Fs;
use super::index::{self, Entry};
use super::scan::{Found, HEADER_BLOCK, Scanner};
use super::segment::{
    self, Active, Published, Segment, SegmentView, Shared, Step, Walk, points_at_batch,
    stamped_batch,
};
use super::time_index::{self, TimeEntry};
use super::writer::{Log, remove_index};
use super::{BadBatch, LogConfig, LogError, OpenFrom, RecoveryReport};

/// Text file that remembers corrupt batches, so that a clean start does not serve them.
const BAD_FILE: &str = "bad-batches";
/// Side files larger than this are not believed.
pub(super) const SIDE_FILE_BYTES_MAX: u64 = 64 << 20;
/// A log behind the last index entry that is longer than this many intervals lacks entries.
const SPARSE_INTERVALS: u64 = 16;

/// One opening in progress.
pub(super) struct Recovery<'a> {
    pub fs: &'a Arc<dyn Fs>,
    pub dir: &'a Path,
    pub cfg: &'a LogConfig,
    /// Everything below was promised to be on disk.
    pub trust: i64,
    /// The recovery point is known; otherwise anything may have been promised.
    pub known: bool,
    /// File names and lengths.
    pub files: BTreeMap<String, u64>,
    /// Corrupt batches known from before.
    pub known_bad: Vec<BadBatch>,
    pub report: RecoveryReport,
}

/// The segments as found.
struct Segments {
    closed: Vec<Arc<Segment>>,
    /// Bases of closed segments that were scanned: not known to be on disk.
    unsynced: Vec<i64>,
    active: Active,
    end: i64,
}

impl Log {
    /// Opens the log in `dir`, creating the directory when it is missing.
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        cfg: LogConfig,
        start: OpenFrom,
        now_ms: i64,
    ) -> Result<(Log, RecoveryReport), LogError> {
        let failed = |e| LogError::io("opening the log", dir, e);
        let mut recovery = Recovery::begin(&fs, dir, &cfg, start).map_err(failed)?;
        let segments = recovery.segments(start.log_start_offset).map_err(failed)?;
        let (log, report) = recovery.finish(segments, start, now_ms).map_err(failed)?;
        Ok((log, report))
    }
}

impl<'a> Recovery<'a> {
    fn begin(
        fs: &'a Arc<dyn Fs>,
        dir: &'a Path,
        cfg: &'a LogConfig,
        start: OpenFrom,
    ) -> io::Result<Recovery<'a>> {
        if !fs.exists(dir) {
            fs.create_dir_all(dir)?;
        }
        let mut files = BTreeMap::new();
        for entry in fs.list(dir)?.into_iter().filter(|e| !e.is_dir) {
            // Half-written replacements and Kafka's deletions in progress.
            if entry.name.ends_with(".tmp") || entry.name.ends_with(".deleted") {
                fs.remove(&dir.join(&entry.name))?;
            } else {
                files.insert(entry.name, entry.len);
            }
        }
        let trust = if start.clean {
            Some(i64::MAX)
        } else {
            start.recovery_point
        };
        let mut recovery = Recovery {
            fs,
            dir,
            cfg,
            trust: trust.unwrap_or(0),
            known: trust.is_some(),
            files,
            known_bad: Vec::new(),
            report: RecoveryReport::default(),
        };
        recovery.known_bad = recovery.read_bad();
        Ok(recovery)
    }

    /// Steps 1 to 3.
    fn segments(&mut self, log_start: Option<i64>) -> io::Result<Segments> {
        let mut bases: Vec<(i64, u64)> = self
            .files
            .iter()
            .filter_map(|(name, len)| Some((segment::offset_of(name, "log")?, *len)))
            .collect();
        bases.sort_unstable();
        self.remove_orphans(&bases)?;
        let start = log_start.unwrap_or(0);
        // Deleted before, as far as anybody was told.
        while let [(base, _), (next, _), ..] = bases[..] {
            if next > start {
                break;
            }
            self.remove_segment(base)?;
            bases.remove(0);
        }
        let found = self.walk_segments(&bases)?;
        match found {
            Some(segments) if segments.end >= start => Ok(segments),
            // Records below the start offset are gone by request, those above by accident.
            _ => self.start_anew(&bases, start),
        }
    }

    /// An empty log that begins at `start`. The first flush makes its directory durable.
    fn start_anew(&mut self, bases: &[(i64, u64)], start: i64) -> io::Result<Segments> {
        for (base, _) in bases {
            self.remove_segment(*base)?;
        }
        let file = self.fs.create(&segment::log_path(self.dir, start))?;
        Ok(Segments {
            closed: Vec::new(),
            unsynced: Vec::new(),
            active: Active::new(start, file),
            end: start,
        })
    }

    fn walk_segments(&mut self, bases: &[(i64, u64)]) -> io::Result<Option<Segments>> {
        let mut closed = Vec::new();
        let mut unsynced = Vec::new();
        for (i, (base, size)) in bases.iter().copied().enumerate() {
            let next = bases.get(i + 1).map(|(next, _)| *next);
            if let Some(next) = next
                && self.known
                && next <= self.trust
            {
                closed.push(Arc::new(self.trusted(base, size, next)?));
                continue;
            }
            let mut scanned = self.scan(base, size)?;
            let torn = scanned.active.size < size;
            if let Some(next) = next {
                let promised = !self.known || scanned.end < self.trust;
                if promised || (!torn && scanned.end >= next) {
                    // Kept as it is: what is torn in the middle of a log is not served.
                    closed.push(Arc::new(self.close_scanned(&mut scanned, size, next)?));
                    unsynced.push(base);
                    continue;
                }
                for (doomed, _) in bases.iter().skip(i + 1).rev() {
                    self.remove_segment(*doomed)?;
                    self.report.dropped_segments += 1;
                }
                // They must not come back behind what is appended now.
                self.fs.sync_dir(self.dir)?;
            }
            self.cut_tail(&mut scanned.active, size)?;
            if self.known && self.trust != i64::MAX && scanned.end < self.trust {
                self.report.lost_below_recovery_point = true;
            }
            return Ok(Some(Segments {
                closed,
                unsynced,
                active: scanned.active,
                end: scanned.end,
            }));
        }
        Ok(None)
    }

    /// The last segment: cuts what lies behind the last batch, in the log and in its indexes.
    fn cut_tail(&mut self, active: &mut Active, size: u64) -> io::Result<()> {
        if active.size < size {
            active.file.truncate(active.size)?;
            self.report.truncated_bytes += size - active.size;
        }
        if self.has_index(active.base) {
            let spill = active.index.prepare(false);
            let written = spill.write(&**self.fs, self.dir);
            if written.is_err() {
                remove_index(&**self.fs, self.dir, active.base);
            }
            active.index.commit(&spill, written.is_ok());
        }
        Ok(())
    }

    pub(super) fn has_index(&self, base: i64) -> bool {
        [
            segment::index_path(self.dir, base),
            segment::time_index_path(self.dir, base),
        ]
        .iter()
        .filter_map(|path| path.file_name()?.to_str())
        .any(|name| self.files.contains_key(name))
    }

    /// A segment wholly below the recovery point: its batches are believed, its indexes checked.
    fn trusted(&mut self, base: i64, size: u64, next: i64) -> io::Result<Segment> {
        let bad: Vec<BadBatch> = self
            .known_bad
            .iter()
            .copied()
            .filter(|b| b.segment == base)
            .collect();
        self.report.bad.extend_from_slice(&bad);
        let view = SegmentView {
            base,
            end: next,
            size,
            file: self.fs.open(&segment::log_path(self.dir, base))?,
            max: TimeEntry::none(base),
            bad: Arc::new(bad),
            entries: None,
        };
        let max = match self.indexed(&view, None)? {
            Some(indexed) => indexed.last_time,
            None => {
                self.report.rebuilt_indexes += 1;
                self.rebuild(&view)?
            }
        };
        Ok(Segment {
            base,
            end: next,
            size,
            max,
            bad: view.bad,
        })
    }

    /// A full disk must not prevent a start: then the index is built by the first reader.
    fn rebuild(&self, view: &SegmentView) -> io::Result<TimeEntry> {
        let interval = self.cfg.index_interval_bytes;
        let (max, written) = segment::rebuild_index(&**self.fs, self.dir, view, interval)?;
        if let Err(e) = written {
            tracing::warn!(
                dir = %self.dir.display(), segment = view.base, error = %e,
                "cannot rebuild an index; reads of this segment scan it until there is space"
            );
            remove_index(&**self.fs, self.dir, view.base);
        }
        Ok(max)
    }

    /// What a segment's index files hold: up to the entry before `upto`, or all. `None` when one is
    /// missing or wrong.
    pub(super) fn indexed(
        &self,
        view: &SegmentView,
        upto: Option<i64>,
    ) -> io::Result<Option<Indexed>> {
        let base = view.base;
        let index = open_if_there(&**self.fs, &segment::index_path(self.dir, base))?;
        let times = open_if_there(&**self.fs, &segment::time_index_path(self.dir, base))?;
        let (Some(index), Some(times)) = (index, times) else {
            return Ok(None);
        };
        let count = index::entry_count(Some(index.len()?), index::ENTRY_LEN);
        let time_count = index::entry_count(Some(times.len()?), time_index::ENTRY_LEN);
        let (Some(count), Some(time_count)) = (count, time_count) else {
            return Ok(None);
        };
        let floor = index::floor(&*index, base, count, upto.unwrap_or(i64::MAX))?;
        if let Some((slot, entry)) = floor {
            let possible = entry.offset >= base && (slot == 0 || entry.position > 0);
            if !possible || !points_at_batch(view, entry)? {
                return Ok(None);
            }
        }
        let time_upto = match (upto, floor) {
            (None, _) => i64::MAX,
            (Some(_), Some((_, entry))) => entry.offset,
            (Some(_), None) => i64::MIN,
        };
        let time = time_index::floor_by_offset(&*times, base, time_count, time_upto)?;
        if let Some((_, time)) = time {
            let possible = time.offset >= base && time.timestamp >= 0;
            let near = index::floor(&*index, base, count, time.offset)?;
            let position = near.map_or(0, |(_, entry)| entry.position);
            if !possible || position >= view.size || !stamped_batch(view, position, time)? {
                return Ok(None);
            }
        }
        let indexed = Indexed {
            entries: floor.map_or(0, |(slot, _)| slot + 1),
            floor: floor.map(|(_, entry)| entry),
            times: time.map_or(0, |(slot, _)| slot + 1),
            last_time: time.map_or(TimeEntry::none(base), |(_, entry)| entry),
        };
        let complete = upto.is_some() || self.reaches_end(view, &indexed)?;
        Ok(complete.then_some(indexed))
    }

    /// False when entries are missing at the end of an index.
    fn reaches_end(&self, view: &SegmentView, indexed: &Indexed) -> io::Result<bool> {
        let from = indexed.floor.map_or(0, |entry| entry.position);
        let interval = u64::from(self.cfg.index_interval_bytes.max(4096));
        let limit = from + interval * SPARSE_INTERVALS;
        let mut walk = Walk::new(view, from);
        let mut stamped = indexed.times > 0;
        while let Step::Batch(position, header) = walk.step()? {
            if position > limit {
                return Ok(false);
            }
            if header.max_timestamp > indexed.last_time.timestamp {
                stamped = false;
                break;
            }
            stamped = stamped || header.max_timestamp < 0;
        }
        Ok(stamped || view.size == 0)
    }

    fn remove_orphans(&mut self, bases: &[(i64, u64)]) -> io::Result<()> {
        let names: Vec<String> = self.files.keys().cloned().collect();
        for name in names {
            let base =
                segment::offset_of(&name, "index").or(segment::offset_of(&name, "timeindex"));
            if let Some(base) = base
                && bases.binary_search_by_key(&base, |(b, _)| *b).is_err()
            {
                self.fs.remove(&self.dir.join(&name))?;
                self.files.remove(&name);
            }
        }
        Ok(())
    }

    fn remove_segment(&mut self, base: i64) -> io::Result<()> {
        self.fs.remove(&segment::log_path(self.dir, base))?;
        remove_index(&**self.fs, self.dir, base);
        self.known_bad.retain(|b| b.segment != base);
        Ok(())
    }

    fn read_bad(&self) -> Vec<BadBatch> {
        let bytes = self.fs.read(&self.dir.join(BAD_FILE), SIDE_FILE_BYTES_MAX);
        bytes.ok().and_then(|b| decode_bad(&b)).unwrap_or_default()
    }

    fn write_bad(&self) {
        let path = self.dir.join(BAD_FILE);
        if self.report.bad == self.known_bad {
            return;
        }
        let written = if self.report.bad.is_empty() {
            self.fs.remove(&path)
        } else {
            self.fs
                .write_atomic(&path, encode_bad(&self.report.bad).as_bytes(), true)
        };
        if let Err(e) = written {
            tracing::warn!(path = %path.display(), error = %e, "cannot note corrupt batches");
        }
    }

    /// Steps 4 and 5, and the log itself.
    fn finish(
        mut self,
        segments: Segments,
        start: OpenFrom,
        now_ms: i64,
    ) -> io::Result<(Log, RecoveryReport)> {
        let Segments {
            closed,
            unsynced,
            active,
            end,
        } = segments;
        let first = closed.first().map_or(active.base, |s| s.base);
        let log_start = start.log_start_offset.unwrap_or(first).max(first);
        let file = active.file.clone();
        let (base, size) = (active.base, active.size);
        let published = Published {
            closed: Arc::new(closed),
            active,
            start_offset: log_start,
            end_offset: end,
        };
        self.write_bad();
        let interval = self.cfg.index_interval_bytes;
        let shared = Shared::new(self.fs.clone(), self.dir.to_path_buf(), interval, published);
        let closed_bytes = shared.published().closed.iter().map(|s| s.size).sum();
        let first_timestamp = match Scanner::new(&*file, size, HEADER_BLOCK).header(0)? {
            Found::Batch(header) => Some(header.max_timestamp),
            _ => None,
        };
        let flushed = if self.known {
            self.trust.min(end)
        } else {
            log_start.min(end)
        };
        let mut log = Log {
            shared: Arc::new(shared),
            cfg: self.cfg.clone(),
            file,
            base,
            size,
            start: log_start,
            end,
            closed_bytes,
            flushed,
            unsynced: unsynced.into_iter().map(|base| (base, None)).collect(),
            // A new directory, and after a crash any, may be in memory only.
            dir_changes: 1,
            dir_synced: u64::from(start.clean && self.files.contains_key(&log_name(base))),
            producers: Default::default(),
            epochs: Default::default(),
            snapshots: BTreeSet::new(),
            bytes_since_snapshot: 0,
            first_timestamp,
            created_ms: now_ms,
            poisoned: false,
        };
        log.load_producers(&mut self, now_ms)?;
        log.load_epochs(&mut self)?;
        Ok((log, self.report))
    }
}

/// What was found right in a segment's index files.
pub(super) struct Indexed {
    pub entries: usize,
    pub floor: Option<Entry>,
    pub times: usize,
    pub last_time: TimeEntry,
}

fn log_name(base: i64) -> String {
    format!("{base:020}.log")
}

fn open_if_there(fs: &dyn Fs, path: &Path) -> io::Result<Option<Arc<dyn super::LogFile>>> {
    match fs.open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn encode_bad(bad: &[BadBatch]) -> String {
    let line = |b: &BadBatch| {
        format!(
            "{} {} {} {} {}\n",
            b.segment, b.position, b.end_position, b.first_offset, b.next_offset
        )
    };
    format!(
        "0\n{}\n{}",
        bad.len(),
        bad.iter().map(line).collect::<String>()
    )
}

fn decode_bad(bytes: &[u8]) -> Option<Vec<BadBatch>> {
    let mut lines = std::str::from_utf8(bytes).ok()?.lines();
    if lines.next()? != "0" {
        return None;
    }
    let count: usize = lines.next()?.parse().ok()?;
    let mut bad = Vec::new();
    for line in lines {
        let numbers: Vec<i64> = line.split(' ').map_while(|n| n.parse().ok()).collect();
        let [segment, position, end_position, first_offset, next_offset] = numbers[..] else {
            return None;
        };
        bad.push(BadBatch {
            segment,
            position: u64::try_from(position).ok()?,
            end_position: u64::try_from(end_position).ok()?,
            first_offset,
            next_offset,
        });
    }
    (bad.len() == count).then_some(bad)
}
