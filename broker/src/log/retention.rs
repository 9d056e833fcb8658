//! Deleting from the front: by time, by size, and on request (`deleteOldSegments` and
//! `deleteRecords` of Kafka's `UnifiedLog`). Whole segments go, oldest first. Knows `writer`.

use std::io::ErrorKind;
use std::sync::Arc;

use super::segment::{self, Segment};
use super::writer::{Log, remove_index};
use super::{LogError, Retained};

impl Log {
    /// Deletes the segments that are too old or too much, and those before the start offset. The
    /// active one goes only when it is too old as a whole; then another takes its place.
    pub fn retain(&mut self, now_ms: i64) -> Result<Retained, LogError> {
        let mut deleted = self.delete_before_start()?;
        let all_old = self.first_kept_by_time(now_ms)?;
        if self.size > 0 && all_old == self.closed().len() && self.active_is_old(now_ms) {
            self.roll(now_ms)
                .map_err(|e| self.io_error("beginning a new segment", e))?;
        }
        let by_time = self.first_kept_by_time(now_ms)?;
        let count = by_time.max(self.first_kept_by_size());
        deleted += self.delete_oldest(count)?;
        Ok(Retained {
            deleted_segments: deleted,
            new_start: self.start,
        })
    }

    /// Serves nothing below `offset` any more (DeleteRecords, KIP-107). Returns the new start, which
    /// is larger when more was deleted before.
    pub fn delete_records_before(&mut self, offset: i64) -> Result<i64, LogError> {
        if offset > self.end || offset < 0 {
            return Err(LogError::OffsetOutOfRange {
                offset,
                start: self.start,
                end: self.end,
            });
        }
        self.raise_start(offset);
        self.delete_before_start()?;
        Ok(self.start)
    }

    fn closed(&self) -> Arc<Vec<Arc<Segment>>> {
        self.shared.published().closed.clone()
    }

    fn raise_start(&mut self, offset: i64) {
        if offset <= self.start {
            return;
        }
        self.start = offset;
        self.shared.published().start_offset = offset;
        if self.epochs.truncate_start(offset) {
            self.write_epochs();
        }
    }

    fn delete_before_start(&mut self) -> Result<usize, LogError> {
        let start = self.start;
        let count = self.closed().partition_point(|s| s.end <= start);
        self.delete_oldest(count)
    }

    /// How many of the oldest segments have only records older than `retention.ms`.
    fn first_kept_by_time(&self, now_ms: i64) -> Result<usize, LogError> {
        if self.cfg.retention_ms < 0 {
            return Ok(0);
        }
        let mut count = 0;
        for segment in self.closed().iter() {
            let newest = match segment.max.timestamp {
                // Batches without timestamps: the file's age counts.
                ..0 => self.modified_ms(segment.base)?,
                timestamp => timestamp,
            };
            if now_ms.saturating_sub(newest) <= self.cfg.retention_ms {
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    fn active_is_old(&self, now_ms: i64) -> bool {
        let newest = match self.shared.published().active.index.max().timestamp {
            ..0 => self.created_ms,
            timestamp => timestamp,
        };
        self.cfg.retention_ms >= 0 && now_ms.saturating_sub(newest) > self.cfg.retention_ms
    }

    fn modified_ms(&self, base: i64) -> Result<i64, LogError> {
        let path = segment::log_path(&self.shared.dir, base);
        self.shared
            .fs
            .modified_ms(&path)
            .map_err(|e| LogError::io("looking at", &path, e))
    }

    /// How many of the oldest segments the log can lose and still hold `retention.bytes`.
    fn first_kept_by_size(&self) -> usize {
        let Ok(limit) = u64::try_from(self.cfg.retention_bytes) else {
            return 0;
        };
        let mut excess = self.size_bytes().saturating_sub(limit);
        let mut count = 0;
        for segment in self.closed().iter() {
            if excess < segment.size {
                break;
            }
            excess -= segment.size;
            count += 1;
        }
        count
    }

    /// Readers first see the new start, then the files go: oldest first, so that a crash never
    /// leaves a gap.
    fn delete_oldest(&mut self, count: usize) -> Result<usize, LogError> {
        let closed = self.closed();
        let (doomed, kept) = closed.split_at(count.min(closed.len()));
        if doomed.is_empty() {
            return Ok(0);
        }
        let first = kept.first().map_or(self.base, |s| s.base);
        self.shared.published().closed = Arc::new(kept.to_vec());
        self.raise_start(first);
        for segment in doomed {
            self.closed_bytes -= segment.size;
            self.unsynced.retain(|(base, _)| *base != segment.base);
            self.delete_files(segment.base)?;
        }
        let old: Vec<i64> = self.snapshots.range(..first).copied().collect();
        for offset in old {
            self.remove_snapshot(offset);
        }
        self.dir_changes += 1;
        Ok(doomed.len())
    }

    fn delete_files(&mut self, base: i64) -> Result<(), LogError> {
        let (fs, dir) = (&*self.shared.fs, &self.shared.dir);
        self.shared.forget(base);
        let path = segment::log_path(dir, base);
        match fs.remove(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(LogError::io("removing", &path, e));
            }
            _ => remove_index(fs, dir, base),
        }
        Ok(())
    }
}
