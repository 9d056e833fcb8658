//! A partition: one log, its high watermark, and who waits for it. Knows the log; never sockets
//! or protocol messages.
//!
//! Visibility: a record written with `acks=all` under `durability=disk` is shown to consumers once
//! it is on disk; any other record is shown as soon as the kernel has it. So no consumer can have
//! read an `acks=all` record that a power cut takes back.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use uuid::Uuid;
use wire::batch::BatchHeader;

use super::waiters::Waiters;
use crate::log::{
    AppendError, AppendOptions, Appended, Log, LogConfig, LogError, LogView, ReadError, Region,
    Stamp,
};

/// What a produce request asks for before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// `acks=0`: received; nobody waits.
    None,
    /// `acks=1`: in the kernel.
    Kernel,
    /// `acks=all`: on disk, unless durability is left to the operating system.
    Disk,
}

/// How far the log is on disk, as the waiting requests see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flushed {
    Upto(i64),
    /// A flush failed: nothing that waits will ever be acknowledged (reliability rule: a failed
    /// fsync is never retried).
    Failed,
}

/// Why an append was refused or could not be acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the partition's log failed to reach the disk; restart the broker to recover it")]
    FlushFailed,
    #[error("the partition was deleted")]
    Deleted,
}

/// When an append is fit to be shown and acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct AppendPlan {
    /// What the producer asked for.
    pub acks: Acks,
    /// `Some(time)` stamps the batch with the broker's time (LogAppendTime).
    pub log_append_time_ms: Option<i64>,
    /// `flush.messages`: at most so many records may be in the kernel only.
    pub flush_messages: i64,
    /// The broker's clock.
    pub now_ms: i64,
}

/// One partition of a topic. See the module's text.
pub struct Partition {
    topic: Arc<str>,
    topic_id: Uuid,
    index: i32,
    log: Mutex<Log>,
    log_start: AtomicI64,
    end: AtomicI64,
    high_watermark: AtomicI64,
    leader_epoch: AtomicI32,
    flushed: watch::Sender<Flushed>,
    flush_wanted: AtomicI64,
    flush_running: AtomicBool,
    flush_timer: AtomicBool,
    deleted: AtomicBool,
    waiters: Waiters,
}

impl Partition {
    /// Wraps an opened log; everything in it is visible.
    pub fn new(topic: Arc<str>, topic_id: Uuid, index: i32, leader_epoch: i32, log: Log) -> Self {
        let (end, start) = (log.end_offset(), log.start_offset());
        let (flushed, _) = watch::channel(Flushed::Upto(log.flushed_offset()));
        Partition {
            topic,
            topic_id,
            index,
            log_start: AtomicI64::new(start),
            end: AtomicI64::new(end),
            high_watermark: AtomicI64::new(end),
            leader_epoch: AtomicI32::new(leader_epoch),
            flush_wanted: AtomicI64::new(log.flushed_offset()),
            flushed,
            flush_running: AtomicBool::new(false),
            flush_timer: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
            waiters: Waiters::default(),
            log: Mutex::new(log),
        }
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }
    /// The topic's id.
    pub fn topic_id(&self) -> Uuid {
        self.topic_id
    }
    /// The partition's number.
    pub fn index(&self) -> i32 {
        self.index
    }
    /// The epoch that new batches carry.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch.load(Ordering::Acquire)
    }
    /// The first offset that can be read.
    pub fn log_start_offset(&self) -> i64 {
        self.log_start.load(Ordering::Acquire)
    }
    /// The offset the next record will get.
    pub fn end_offset(&self) -> i64 {
        self.end.load(Ordering::Acquire)
    }
    /// The first offset consumers may not see yet.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark.load(Ordering::Acquire)
    }
    /// The first offset a read_committed consumer may not see yet. Without transactions it is the
    /// high watermark.
    pub fn last_stable_offset(&self) -> i64 {
        self.high_watermark()
    }
    /// Who waits for new records.
    pub fn waiters(&self) -> &Waiters {
        &self.waiters
    }
    /// True once the topic is gone.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // A panic under the lock leaves a log that recovery knows how to read; going on is safe.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends one validated batch. What it returns says from which offset on
    /// [`Self::wait_durable`] has to wait before the producer is answered.
    pub fn append(
        self: &Arc<Self>,
        batch: &[u8],
        header: &BatchHeader,
        plan: AppendPlan,
    ) -> Result<Acked, PartitionError> {
        let mut log = self.lock();
        if self.is_deleted() {
            return Err(PartitionError::Deleted);
        }
        let appended = log.append(
            batch,
            header,
            AppendOptions {
                leader_epoch: self.leader_epoch(),
                log_append_time: plan.log_append_time_ms,
                now_ms: plan.now_ms,
            },
        )?;
        let end = log.end_offset();
        self.end.store(end, Ordering::Release);
        let unflushed = end - log.flushed_offset();
        drop(log);
        let wait = plan.acks == Acks::Disk || unflushed >= plan.flush_messages;
        if !wait {
            self.show_upto(end);
        } else {
            self.request_flush(end);
        }
        if appended.rolled && !wait {
            // As Kafka does: a segment that takes no more writes goes to disk in the background.
            self.request_flush(end);
        }
        let wait_offset = wait.then_some(appended.last_offset + 1);
        Ok(Acked {
            appended,
            wait_offset,
        })
    }

    /// Waits until everything below `offset` is on disk.
    pub async fn wait_durable(&self, offset: i64) -> Result<(), PartitionError> {
        let mut seen = self.flushed.subscribe();
        let state = seen
            .wait_for(|f| {
                matches!(f, Flushed::Failed) || matches!(f, Flushed::Upto(o) if *o >= offset)
            })
            .await
            .map(|f| *f);
        match state {
            Ok(Flushed::Upto(_)) => Ok(()),
            Ok(Flushed::Failed) | Err(_) => Err(PartitionError::FlushFailed),
        }
    }

    fn show_upto(&self, offset: i64) {
        if self.high_watermark.fetch_max(offset, Ordering::AcqRel) < offset {
            self.waiters.wake_all();
        }
    }

    /// Has everything below `upto` brought to disk soon. One flush serves all who wait (group
    /// commit); what arrives while it runs is served by the next.
    pub fn request_flush(self: &Arc<Self>, upto: i64) {
        self.flush_wanted.fetch_max(upto, Ordering::AcqRel);
        if self.flush_running.swap(true, Ordering::AcqRel) {
            return;
        }
        let me = Arc::clone(self);
        tokio::task::spawn_blocking(move || me.flush_until_satisfied());
    }

    /// Has what is appended now brought to disk within `ms` (`flush.ms`).
    pub fn flush_after(self: &Arc<Self>, ms: u64) {
        if self.flush_timer.swap(true, Ordering::AcqRel) {
            return;
        }
        let me = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
            me.flush_timer.store(false, Ordering::Release);
            me.request_flush(me.end_offset());
        });
    }

    fn flush_until_satisfied(self: Arc<Self>) {
        loop {
            if !self.flush_once() {
                self.flush_running.store(false, Ordering::Release);
                return;
            }
            if self.satisfied() {
                self.flush_running.store(false, Ordering::Release);
                // Someone may have asked between the check and the store.
                if self.satisfied() || self.flush_running.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        }
    }

    fn satisfied(&self) -> bool {
        match *self.flushed.borrow() {
            Flushed::Upto(o) => o >= self.flush_wanted.load(Ordering::Acquire),
            Flushed::Failed => true,
        }
    }

    /// One blocking flush of all that is written; false when the log is lost for writing.
    fn flush_once(&self) -> bool {
        if self.is_deleted() {
            self.flushed.send_replace(Flushed::Failed);
            return false;
        }
        let job = self.lock().begin_flush();
        let done = job.run();
        let finished = self.lock().finish_flush(done);
        match finished {
            Ok(offset) => {
                self.show_upto(offset);
                self.flushed.send_replace(Flushed::Upto(offset));
                true
            }
            Err(error) => {
                tracing::error!(
                    topic = %self.topic, partition = self.index, %error,
                    "flush failed: this partition takes no more writes until the broker is restarted"
                );
                self.flushed.send_replace(Flushed::Failed);
                false
            }
        }
    }

    /// Brings everything written to disk (blocking).
    pub fn flush_blocking(&self) -> Result<(), PartitionError> {
        if self.flush_once() {
            Ok(())
        } else {
            Err(PartitionError::FlushFailed)
        }
    }

    /// Everything below this offset is on disk.
    pub fn flushed_offset(&self) -> i64 {
        match *self.flushed.borrow() {
            Flushed::Upto(o) => o,
            Flushed::Failed => -1,
        }
    }

    fn view(&self) -> LogView {
        self.lock().view()
    }

    /// The file region for a fetch at `offset`: empty at the high watermark.
    pub fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        min_one_batch: bool,
    ) -> Result<Option<Region>, ReadError> {
        let (start, end, visible) = (
            self.log_start_offset(),
            self.end_offset(),
            self.high_watermark(),
        );
        if offset < start || offset > end {
            return Err(ReadError::OffsetOutOfRange { offset, start, end });
        }
        if offset >= visible || (max_bytes == 0 && !min_one_batch) {
            return Ok(None);
        }
        let region = self
            .view()
            .read(offset, max_bytes, visible, min_one_batch)?;
        Ok((region.len > 0).then_some(region))
    }

    /// Batches for a replay of an internal topic.
    pub fn read_batches(
        &self,
        from: i64,
        max_bytes: usize,
    ) -> Result<Vec<(BatchHeader, bytes::Bytes)>, ReadError> {
        self.view().read_batches(from, self.end_offset(), max_bytes)
    }

    /// The first record at or after `timestamp_ms` (ListOffsets).
    pub fn offset_for_timestamp(&self, timestamp_ms: i64) -> Result<Option<Stamp>, ReadError> {
        self.view()
            .lookup_timestamp(timestamp_ms, self.high_watermark())
    }

    /// The record with the greatest timestamp (ListOffsets −3, KIP-734).
    pub fn max_timestamp(&self) -> Result<Option<Stamp>, ReadError> {
        self.view().max_timestamp(self.high_watermark())
    }

    /// The end of `epoch`, as Kafka's `LeaderEpochFileCache.endOffsetFor` has it.
    pub fn epoch_end_offset(&self, epoch: i32) -> Option<(i32, i64)> {
        if epoch == self.leader_epoch() {
            return Some((epoch, self.end_offset()));
        }
        self.lock().epoch_end_offset(epoch)
    }

    /// The epoch of the batch at or before `offset`'s end, for ListOffsets' answers.
    pub fn latest_epoch(&self) -> i32 {
        self.lock()
            .latest_epoch()
            .unwrap_or_else(|| self.leader_epoch())
    }

    /// The epoch that wrote `offset`.
    pub fn epoch_at(&self, offset: i64) -> i32 {
        self.lock()
            .epoch_at(offset)
            .unwrap_or_else(|| self.leader_epoch())
    }

    /// Applies changed topic settings.
    pub fn set_config(&self, config: LogConfig) {
        self.lock().set_config(config);
    }

    /// Removes what retention no longer wants; returns how many segments went.
    pub fn retain(&self, now_ms: i64) -> Result<usize, PartitionError> {
        let mut log = self.lock();
        if self.is_deleted() {
            return Ok(0);
        }
        log.expire_producers(now_ms);
        let retained = log.retain(now_ms)?;
        self.log_start.store(log.start_offset(), Ordering::Release);
        Ok(retained.deleted_segments)
    }

    /// Serves nothing below `offset` any more, and deletes the segments that are all below it.
    pub fn delete_records_before(&self, offset: i64) -> Result<(), PartitionError> {
        let mut log = self.lock();
        log.delete_records_before(offset)?;
        self.log_start.store(log.start_offset(), Ordering::Release);
        Ok(())
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        self.lock().size_bytes()
    }

    /// Flushes and marks the log cleanly closed (blocking).
    pub fn close(&self) -> Result<(), PartitionError> {
        let mut log = self.lock();
        let closed = log.close();
        if closed.is_ok() {
            self.flushed
                .send_replace(Flushed::Upto(log.flushed_offset()));
        }
        Ok(closed?)
    }

    /// Deletes the log's folder (blocking); waiting requests are answered with an error.
    pub fn destroy(&self) -> Result<(), PartitionError> {
        let mut log = self.lock();
        self.deleted.store(true, Ordering::Release);
        let destroyed = log.destroy();
        drop(log);
        self.flushed.send_replace(Flushed::Failed);
        self.waiters.wake_all();
        Ok(destroyed?)
    }
}

/// An append that was taken, and what its acknowledgement waits for.
#[derive(Debug)]
pub struct Acked {
    /// Offsets and time given to the batch.
    pub appended: Appended,
    /// Everything below this offset has to be on disk first; `None`: answer now.
    pub wait_offset: Option<i64>,
}
