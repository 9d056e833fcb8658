//! Making the log durable: what to sync is captured under the owner's lock, the syncing runs
//! outside, the result is noted under the lock again (group commit). Also the clean close and the
//! removal of a whole log. Knows `writer`.

use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use super::LogError;
use super::file::{Fs, LogFile};
use super::segment;
use super::writer::Log;

/// What has to be synced for everything below [`FlushJob::end_offset`] to be on disk.
pub struct FlushJob {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    closed: Vec<(i64, Option<Arc<dyn LogFile>>)>,
    active: Option<Arc<dyn LogFile>>,
    dir_changes: Option<u64>,
    /// Never synced since it was opened: its own name may not be on disk either.
    dir_is_new: bool,
    end: i64,
}

/// What a [`FlushJob`] has made durable.
#[derive(Debug)]
pub struct Flushed {
    closed: Vec<i64>,
    dir_changes: Option<u64>,
    end: i64,
}

impl FlushJob {
    /// Everything below it will be on disk.
    pub fn end_offset(&self) -> i64 {
        self.end
    }

    /// Syncs, blocking: rolled segments oldest first, the active one, the directory.
    pub fn run(self) -> io::Result<Flushed> {
        for (base, file) in &self.closed {
            let opened = match file {
                Some(file) => Ok(file.clone()),
                None => self.fs.open(&segment::log_path(&self.dir, *base)),
            };
            match opened {
                Ok(file) => file.sync()?,
                // Retention was faster.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            }
            self.sync_index(*base);
        }
        if let Some(active) = &self.active {
            active.sync()?;
        }
        if self.dir_changes.is_some() {
            self.fs.sync_dir(&self.dir)?;
            let parent = self.dir.parent().filter(|p| !p.as_os_str().is_empty());
            if let (true, Some(parent)) = (self.dir_is_new, parent) {
                self.fs.sync_dir(parent)?;
            }
        }
        Ok(Flushed {
            closed: self.closed.iter().map(|(base, _)| *base).collect(),
            dir_changes: self.dir_changes,
            end: self.end,
        })
    }

    /// Recovery will not look at this segment again, so its indexes should be there. If not, they
    /// are rebuilt.
    fn sync_index(&self, base: i64) {
        for path in [
            segment::index_path(&self.dir, base),
            segment::time_index_path(&self.dir, base),
        ] {
            if let Err(e) = self.fs.open(&path).and_then(|file| file.sync()) {
                tracing::debug!(path = %path.display(), error = %e, "cannot sync an index");
            }
        }
    }
}

impl Log {
    /// Captures what is not on disk yet. Then [`FlushJob::run`] without the lock, then
    /// [`Log::finish_flush`].
    pub fn begin_flush(&self) -> FlushJob {
        FlushJob {
            fs: self.shared.fs.clone(),
            dir: self.shared.dir.clone(),
            closed: self.unsynced.clone(),
            active: (self.end > self.flushed).then(|| self.file.clone()),
            dir_changes: (self.dir_changes > self.dir_synced).then_some(self.dir_changes),
            dir_is_new: self.dir_synced == 0,
            end: self.end,
        }
    }

    /// Notes the result of a flush. After a failed one nobody knows what is on disk (the kernel may
    /// have dropped the pages and forgotten the error): the log is poisoned and never retries.
    pub fn finish_flush(&mut self, result: io::Result<Flushed>) -> Result<i64, LogError> {
        let flushed = match result {
            Ok(flushed) => flushed,
            Err(e) => {
                self.poison("a flush failed", &e);
                return Err(self.io_error("flushing", e));
            }
        };
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        self.unsynced
            .retain(|(base, _)| !flushed.closed.contains(base));
        if let Some(changes) = flushed.dir_changes {
            self.dir_synced = self.dir_synced.max(changes);
        }
        self.flushed = self.flushed.max(flushed.end);
        Ok(self.flushed)
    }

    /// Clean shutdown: everything on disk, indexes complete, producers in a snapshot. Afterwards the
    /// log only reads. An error means that the next start must not believe the shutdown was clean.
    pub fn close(&mut self) -> Result<(), LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        if self.size > 0 {
            self.spill_index(true);
        }
        // Neither has to be on disk: torn ones are recognised, and rebuilt from the batches.
        if self.end > self.start && self.snapshots.last() != Some(&self.end) {
            self.snapshot_producers();
        }
        let job = self.begin_flush();
        self.finish_flush(job.run())?;
        self.poisoned = true;
        Ok(())
    }

    /// Deletes the log. The directory is renamed first, as Kafka does, so that what is left after a
    /// crash is recognised (`*-delete`) and not taken for the log.
    pub fn destroy(&mut self) -> Result<(), LogError> {
        self.poisoned = true;
        let (fs, dir) = (&self.shared.fs, &self.shared.dir);
        let mut name = dir.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{:016x}{:016x}-delete", random(), random()));
        let doomed = dir.with_file_name(name);
        fs.rename(dir, &doomed)
            .map_err(|e| self.io_error("renaming", e))?;
        if let Some(parent) = dir.parent() {
            fs.sync_dir(parent)
                .map_err(|e| self.io_error("syncing the parent of", e))?;
        }
        fs.remove_dir_all(&doomed)
            .map_err(|e| self.io_error("removing", e))
    }
}

/// Random enough for a name that must not be taken yet.
fn random() -> u64 {
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}
