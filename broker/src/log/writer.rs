//! The one writer of a log: append and roll. Append is the hot path: sequence check, a 61-byte
//! header on the stack, one vectored write, and a short lock to publish. Knows `segment`, `index`,
//! `producer_state`, `leader_epochs`.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use wire::batch::{BatchHeader, HEADER_LEN};

use super::file::{Fs, LogFile};
use super::leader_epochs::{self, LeaderEpochs};
use super::producer_state::{Marker, Producers};
use super::segment::{self, Active, Segment, Shared};
use super::view::LogView;
use super::{AppendError, AppendOptions, Appended, LogConfig, LogError, ProducerInfo};

/// A producer snapshot is due after this many bytes, so that a start after a crash replays little.
const SNAPSHOT_EVERY_BYTES: u64 = 32 << 20;
/// Offsets in a segment are relative in 31 bits (Kafka's index formats).
const RELATIVE_OFFSET_MAX: i64 = i32::MAX as i64;
/// Positions in a segment are 31 bits too.
const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;
/// Rolled segments whose file is kept open until it is flushed, to see the errors of write-back.
const UNSYNCED_OPEN_MAX: usize = 4;

/// One partition's log. One owner writes; any number of [`LogView`]s read meanwhile.
pub struct Log {
    pub(super) shared: Arc<Shared>,
    pub(super) cfg: LogConfig,
    /// The writer's own copies, so that it takes the lock once per append.
    pub(super) file: Arc<dyn LogFile>,
    pub(super) base: i64,
    pub(super) size: u64,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) closed_bytes: u64,
    /// Everything below is on disk.
    pub(super) flushed: i64,
    /// Rolled segments not known to be on disk, oldest first.
    pub(super) unsynced: Vec<(i64, Option<Arc<dyn LogFile>>)>,
    /// Counts files created or removed; `flush` syncs the directory when it moved.
    pub(super) dir_changes: u64,
    pub(super) dir_synced: u64,
    pub(super) producers: Producers,
    pub(super) epochs: LeaderEpochs,
    /// Offsets of the snapshot files there are.
    pub(super) snapshots: BTreeSet<i64>,
    pub(super) bytes_since_snapshot: u64,
    /// Largest timestamp of the first batch of the active segment, for `segment.ms`.
    pub(super) first_timestamp: Option<i64>,
    pub(super) created_ms: i64,
    pub(super) poisoned: bool,
}

impl Log {
    /// A reader; independent of this value's lifetime.
    pub fn view(&self) -> LogView {
        LogView {
            shared: self.shared.clone(),
        }
    }

    /// First offset that is served.
    pub fn start_offset(&self) -> i64 {
        self.start
    }

    /// Offset the next record gets.
    pub fn end_offset(&self) -> i64 {
        self.end
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        self.closed_bytes + self.size
    }

    /// Everything below is known to be on disk: the recovery point.
    pub fn flushed_offset(&self) -> i64 {
        self.flushed
    }

    /// True after a failed write or flush, and after `close`: nothing is appended any more.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Everything below is decided: the first offset of the oldest open transaction, or the end.
    pub fn last_stable_offset(&self) -> i64 {
        self.producers.first_open_offset().unwrap_or(self.end)
    }

    pub fn set_config(&mut self, cfg: LogConfig) {
        self.shared
            .interval
            .store(cfg.index_interval_bytes, Ordering::Relaxed);
        self.cfg = cfg;
    }

    /// The greatest epoch up to the one asked for, and its end offset.
    pub fn epoch_end_offset(&self, epoch: i32) -> Option<(i32, i64)> {
        self.epochs.end_offset_for(epoch, self.end)
    }

    /// Epoch of the newest batch.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.epochs.latest()
    }

    /// Epoch of the batch at `offset`.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        self.epochs.epoch_of(offset)
    }

    /// Records that `epoch` begins at the log's end, as Kafka does when a leader is elected.
    pub fn assign_epoch(&mut self, epoch: i32) {
        if self.epochs.assign(epoch, self.end) {
            self.write_epochs();
        }
    }

    /// All producers known, by id.
    pub fn producers(&self) -> Vec<ProducerInfo> {
        self.producers.infos()
    }

    /// Forgets producers idle for longer than `producer_id_expiration_ms`.
    pub fn expire_producers(&mut self, now_ms: i64) {
        self.producers
            .expire(now_ms, self.cfg.producer_id_expiration_ms);
    }

    /// Appends one batch that was validated (`wire::batch::validate`); `header` is its header.
    ///
    /// The batch gets the next offsets. After an error nothing of it is in the log; after
    /// [`AppendError::Poisoned`] nothing can be appended until the log is opened anew.
    pub fn append(
        &mut self,
        batch: &[u8],
        header: &BatchHeader,
        opt: AppendOptions,
    ) -> Result<Appended, AppendError> {
        if self.poisoned {
            return Err(AppendError::Poisoned);
        }
        let records = match batch.get(HEADER_LEN..) {
            Some(records) if batch.len() == header.size() && header.last_offset_delta >= 0 => {
                records
            }
            _ => return Err(AppendError::Malformed),
        };
        let marker = header.is_control().then(|| Marker::read(batch)).flatten();
        if header.has_producer_id()
            && let Some(known) = self.producers.check(header, marker)?
        {
            return Ok(Appended {
                base_offset: known.first_offset(),
                last_offset: known.last_offset,
                log_append_time: opt.log_append_time.map_or(-1, |_| known.timestamp),
                duplicate: true,
                rolled: false,
            });
        }
        let mut header = *header;
        if let Some(now) = opt.log_append_time {
            header.set_log_append_time(now);
            header.crc = header.crc_with(records);
        }
        let rolled = self.roll_if_due(&header, opt.now_ms)?;
        header.base_offset = self.end;
        header.partition_leader_epoch = opt.leader_epoch;
        self.write(&header, records)?;
        self.publish(&header, marker);
        Ok(Appended {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            log_append_time: opt.log_append_time.unwrap_or(-1),
            duplicate: false,
            rolled,
        })
    }

    /// One vectored write at the end. Whatever a failed one left behind is cut off again; when that
    /// fails too, nobody knows what the file holds, and the log takes no more writes.
    fn write(&mut self, header: &BatchHeader, records: &[u8]) -> Result<(), AppendError> {
        let Err(source) = self.file.write_all_at(&header.encode(), records, self.size) else {
            return Ok(());
        };
        if let Err(e) = self.file.truncate(self.size) {
            self.poison("cutting off a failed write", &e);
        }
        Err(AppendError::Io {
            what: "writing a batch",
            source,
        })
    }

    fn publish(&mut self, header: &BatchHeader, marker: Option<Marker>) {
        let position = self.size;
        self.size += header.size() as u64;
        self.end = header.last_offset().saturating_add(1);
        self.bytes_since_snapshot += header.size() as u64;
        if position == 0 {
            self.first_timestamp = Some(header.max_timestamp);
        }
        if header.has_producer_id() {
            self.producers.update(header, marker);
        }
        let spill = {
            let mut p = self.shared.published();
            p.active
                .note(position, header, self.cfg.index_interval_bytes);
            p.end_offset = self.end;
            p.active.index.spill_due()
        };
        if spill {
            self.spill_index(false);
        }
        if self
            .epochs
            .assign(header.partition_leader_epoch, header.base_offset)
        {
            self.write_epochs();
        }
        if self.bytes_since_snapshot >= SNAPSHOT_EVERY_BYTES {
            self.snapshot_producers();
        }
    }

    fn roll_if_due(&mut self, header: &BatchHeader, now_ms: i64) -> Result<bool, AppendError> {
        let len = header.size();
        let limit = self.cfg.segment_bytes.min(SEGMENT_BYTES_MAX);
        if len as u64 > limit {
            return Err(AppendError::TooLarge { size: len, limit });
        }
        if self.size == 0 {
            return Ok(false);
        }
        // Kafka's LogSegment.timeWaitedForRoll: by the batches' own clock when they have one.
        let waited = match self.first_timestamp {
            Some(first) if first >= 0 => header.max_timestamp.saturating_sub(first),
            _ => now_ms.saturating_sub(self.created_ms),
        };
        let last = self.end.saturating_add(i64::from(header.last_offset_delta));
        let due = self.size + len as u64 > limit
            || waited > self.cfg.segment_ms
            || last.saturating_sub(self.base) > RELATIVE_OFFSET_MAX
            || self.index_full();
        if due {
            self.roll(now_ms).map_err(|source| AppendError::Io {
                what: "beginning a new segment",
                source,
            })?;
        }
        Ok(due)
    }

    fn index_full(&self) -> bool {
        let p = self.shared.published();
        p.active.index.is_full(self.cfg.segment_index_bytes)
    }

    /// Closes the active segment and begins another at the log's end. On an error nothing changed.
    pub(super) fn roll(&mut self, now_ms: i64) -> io::Result<()> {
        let base = self.end;
        let file = self
            .shared
            .fs
            .create(&segment::log_path(&self.shared.dir, base))?;
        self.spill_index(true);
        self.snapshot_producers();
        let old = std::mem::replace(&mut self.file, file.clone());
        self.unsynced.push((self.base, Some(old)));
        // Where nobody flushes, descriptors go; they are opened again when somebody does.
        for (_, file) in self.unsynced.iter_mut().rev().skip(UNSYNCED_OPEN_MAX) {
            *file = None;
        }
        {
            let mut p = self.shared.published();
            let active = std::mem::replace(&mut p.active, Active::new(base, file));
            let mut closed = Vec::with_capacity(p.closed.len() + 1);
            closed.extend_from_slice(&p.closed);
            closed.push(Arc::new(Segment {
                base: active.base,
                end: base,
                size: active.size,
                max: active.index.max(),
                bad: active.bad,
            }));
            p.closed = Arc::new(closed);
        }
        self.closed_bytes += self.size;
        self.base = base;
        self.size = 0;
        self.first_timestamp = None;
        self.created_ms = now_ms;
        self.dir_changes += 1;
        Ok(())
    }

    /// Writes the index entries that wait. Failing is not fatal: the files are removed, and rebuilt
    /// when somebody needs them.
    pub(super) fn spill_index(&mut self, seal: bool) {
        let spill = self.shared.published().active.index.prepare(seal);
        let (fs, dir) = (&*self.shared.fs, &self.shared.dir);
        let written = spill.write(fs, dir);
        if let Err(e) = &written {
            tracing::warn!(
                dir = %dir.display(), segment = self.base, error = %e,
                "cannot write an index; it is rebuilt later"
            );
            remove_index(fs, dir, self.base);
        }
        let gaps = {
            let mut p = self.shared.published();
            p.active.index.commit(&spill, written.is_ok());
            p.active.index.has_gaps()
        };
        if seal && gaps {
            remove_index(fs, dir, self.base);
        }
    }

    /// Writes `<end>.snapshot`. Failing is not fatal: a start then replays from an older one.
    pub(super) fn snapshot_producers(&mut self) {
        self.bytes_since_snapshot = 0;
        let path = segment::snapshot_path(&self.shared.dir, self.end);
        let bytes = self.producers.encode();
        if let Err(e) = self.shared.fs.write_atomic(&path, &bytes, false) {
            tracing::warn!(path = %path.display(), error = %e, "cannot write a producer snapshot");
            return;
        }
        self.snapshots.insert(self.end);
        self.drop_extra_snapshots();
    }

    /// Keeps the snapshots at the bases of segments, as Kafka does, and the two newest.
    fn drop_extra_snapshots(&mut self) {
        let closed = self.shared.published().closed.clone();
        let is_base = |offset: i64| {
            offset == self.base || closed.binary_search_by_key(&offset, |s| s.base).is_ok()
        };
        let newest: Vec<i64> = self.snapshots.iter().rev().take(2).copied().collect();
        let extra: Vec<i64> = self
            .snapshots
            .iter()
            .copied()
            .filter(|o| !newest.contains(o) && !is_base(*o))
            .collect();
        for offset in extra {
            self.remove_snapshot(offset);
        }
    }

    pub(super) fn remove_snapshot(&mut self, offset: i64) {
        let path = segment::snapshot_path(&self.shared.dir, offset);
        match self.shared.fs.remove(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), error = %e, "cannot remove a snapshot");
            }
            _ => {
                self.snapshots.remove(&offset);
            }
        }
    }

    /// Failing is not fatal: the file is derived from the batches.
    pub(super) fn write_epochs(&self) {
        let path = self.shared.dir.join(leader_epochs::FILE_NAME);
        let text = self.epochs.encode();
        if let Err(e) = self.shared.fs.write_atomic(&path, text.as_bytes(), false) {
            tracing::warn!(path = %path.display(), error = %e, "cannot write the leader epochs");
        }
    }

    pub(super) fn poison(&mut self, what: &str, error: &io::Error) {
        self.poisoned = true;
        tracing::error!(
            dir = %self.shared.dir.display(), what, %error,
            "this log takes no more writes; check the disk, then restart the broker"
        );
    }

    pub(super) fn io_error(&self, what: &'static str, source: io::Error) -> LogError {
        LogError::io(what, &self.shared.dir, source)
    }
}

impl LogError {
    pub(super) fn io(what: &'static str, path: &Path, source: io::Error) -> LogError {
        LogError::Io {
            what,
            path: path.display().to_string(),
            source,
        }
    }
}

/// Removes what is there of a segment's indexes, best effort.
pub(super) fn remove_index(fs: &dyn Fs, dir: &Path, base: i64) {
    for path in [
        segment::index_path(dir, base),
        segment::time_index_path(dir, base),
    ] {
        if let Err(e) = fs.remove(&path)
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), error = %e, "cannot remove an index");
        }
    }
}
