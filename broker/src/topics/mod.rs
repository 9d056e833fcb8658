//! The topics that are there: partitions opened from the catalogue, created, deleted, kept in
//! bounds by retention. Knows the catalogue, the log and the settings; never sockets or protocol
//! messages.

mod checkpoint;
mod partition;
#[cfg(test)]
mod partition_tests;
mod waiters;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use uuid::Uuid;

pub use checkpoint::Checkpoints;
pub use partition::{Acked, Acks, AppendPlan, Partition, PartitionError};
pub use waiters::{Waiter, Waiters};

use crate::config::{BrokerConfig, ConfigError, TopicConfig};
use crate::log::{Fs, Log, LogConfig, LogError, OpenFrom};
use crate::meta::{Meta, MetaError, TopicInfo, topic_name};

/// Partitions the broker holds at most; a bound on what one request can make it create.
pub const MAX_PARTITIONS: usize = 200_000;
/// A topic and its open partitions.
pub struct Topic {
    name: Arc<str>,
    id: Uuid,
    overrides: BTreeMap<String, String>,
    config: TopicConfig,
    partitions: Vec<Arc<Partition>>,
}

impl Topic {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The id, which a topic of the same name created later does not share.
    pub fn id(&self) -> Uuid {
        self.id
    }
    /// One of the broker's own topics.
    pub fn is_internal(&self) -> bool {
        topic_name::is_internal(&self.name)
    }
    /// Settings given for this topic.
    pub fn overrides(&self) -> &BTreeMap<String, String> {
        &self.overrides
    }
    /// Settings that hold.
    pub fn config(&self) -> &TopicConfig {
        &self.config
    }
    /// All partitions, by number.
    pub fn partitions(&self) -> &[Arc<Partition>] {
        &self.partitions
    }
    /// One partition.
    pub fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
    /// `flush.ms`: what was appended goes to disk within that time.
    pub fn schedule_flush(&self, partition: &Arc<Partition>) {
        if self.config.flush_ms != i64::MAX {
            partition.flush_after(self.config.flush_ms.max(0) as u64);
        }
    }
}

/// A topic to be created.
#[derive(Clone, Debug)]
pub struct NewTopic {
    pub name: String,
    pub partitions: i32,
    pub configs: BTreeMap<String, String>,
}

/// Why a topic was not created, deleted or opened.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    #[error("{0}")]
    InvalidName(String),
    #[error("Topic '{0}' already exists.")]
    Exists(String),
    #[error("{0}")]
    InvalidPartitions(String),
    #[error("there is no such topic")]
    Unknown,
    #[error("the topic is the broker's own and stays")]
    Internal,
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{path}: {source}; check the data directory's permissions and space")]
    Io {
        path: String,
        source: std::io::Error,
    },
    #[error("the broker is stopping")]
    Stopping,
}

#[derive(Default)]
struct Maps {
    by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
    partitions: usize,
}

/// All topics of the broker.
pub struct Topics {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    config: Arc<BrokerConfig>,
    meta: Arc<Meta>,
    maps: RwLock<Maps>,
    /// Creations and deletions happen one at a time.
    admin: Mutex<()>,
}

impl Topics {
    /// Opens every topic of the catalogue. `checkpoints` come from the last run.
    pub fn open(
        fs: Arc<dyn Fs>,
        config: Arc<BrokerConfig>,
        meta: Arc<Meta>,
        checkpoints: &Checkpoints,
        now_ms: i64,
    ) -> Result<Topics, TopicsError> {
        let topics = Topics {
            fs,
            dir: config.data_dir.clone(),
            config,
            meta,
            maps: RwLock::default(),
            admin: Mutex::default(),
        };
        if !checkpoints.clean {
            // Whatever a crash took is cut off from a new epoch on: consumers can tell (KIP-320).
            let image = topics.meta.image();
            let all = image.topics().flat_map(|t| {
                (0..t.partitions.len() as i32).map(|partition| (t.name.clone(), partition))
            });
            topics.meta.bump_leader_epochs(&all.collect::<Vec<_>>())?;
        }
        for info in topics.meta.image().topics() {
            let topic = topics.open_topic(info, checkpoints, now_ms)?;
            topics.insert(topic);
        }
        checkpoint::remove_leftovers(&*topics.fs, &topics.dir);
        Ok(topics)
    }

    fn open_topic(
        &self,
        info: &TopicInfo,
        checkpoints: &Checkpoints,
        now_ms: i64,
    ) -> Result<Topic, TopicsError> {
        let (config, skipped) = TopicConfig::resolve_stored(&self.config, &info.configs);
        for name in skipped {
            tracing::warn!(topic = %info.name, setting = %name, "a stored topic setting is not understood and is ignored");
        }
        let name: Arc<str> = info.name.as_str().into();
        let mut partitions = Vec::with_capacity(info.partitions.len());
        for (index, partition) in info.partitions.iter().enumerate() {
            let index = index as i32;
            let dir = self.dir.join(format!("{name}-{index}"));
            checkpoint::claim_partition_dir(&*self.fs, &dir, info.id)?;
            let from = checkpoints.of(&name, index);
            let log = self.open_log(&dir, &config, from, partition.leader_epoch, now_ms)?;
            let epoch = partition.leader_epoch;
            partitions.push(Arc::new(Partition::new(
                Arc::clone(&name),
                info.id,
                index,
                epoch,
                log,
            )));
        }
        Ok(Topic {
            name,
            id: info.id,
            overrides: info.configs.clone(),
            config,
            partitions,
        })
    }

    fn open_log(
        &self,
        dir: &Path,
        config: &TopicConfig,
        from: OpenFrom,
        epoch: i32,
        now_ms: i64,
    ) -> Result<Log, TopicsError> {
        let settings = log_config(&self.config, config);
        let (mut log, report) = Log::open(Arc::clone(&self.fs), dir, settings, from, now_ms)?;
        if report.truncated_bytes > 0 || report.dropped_segments > 0 {
            tracing::warn!(log = %dir.display(), bytes = report.truncated_bytes,
                segments = report.dropped_segments, "a torn end was cut off");
        }
        if report.lost_below_recovery_point {
            tracing::error!(log = %dir.display(), end = log.end_offset(),
                "the log is shorter than what had been brought to disk: the disk lost data");
        }
        for bad in &report.bad {
            tracing::error!(log = %dir.display(), segment = bad.segment, position = bad.position,
                first_offset = bad.first_offset, next_offset = bad.next_offset,
                "corrupt bytes in the middle of the log: kept, never served");
        }
        log.assign_epoch(epoch);
        if log.flushed_offset() < log.end_offset() {
            // What a killed broker left in the page cache is served from now on: a power cut must
            // not take it back after somebody has read it.
            let job = log.begin_flush();
            log.finish_flush(job.run())?;
        }
        Ok(log)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Maps> {
        self.maps.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, topic: Topic) -> Arc<Topic> {
        let topic = Arc::new(topic);
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        maps.partitions += topic.partitions.len();
        maps.by_id.insert(topic.id, Arc::clone(&topic));
        maps.by_name
            .insert(Arc::clone(&topic.name), Arc::clone(&topic));
        topic
    }

    /// A topic by its name.
    pub fn by_name(&self, name: &str) -> Option<Arc<Topic>> {
        self.read().by_name.get(name).cloned()
    }

    /// A topic by its id.
    pub fn by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.read().by_id.get(&id).cloned()
    }

    /// All topics, by name.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        self.read().by_name.values().cloned().collect()
    }

    /// Whether a topic could have this name.
    pub fn check_name(&self, name: &str) -> Result<(), TopicsError> {
        topic_name::validate(name).map_err(TopicsError::InvalidName)?;
        if self.read().by_name.contains_key(name) {
            return Err(TopicsError::Exists(name.to_owned()));
        }
        match self.meta.image().colliding(name) {
            None => Ok(()),
            Some(other) => Err(TopicsError::InvalidName(format!(
                "Topic '{name}' collides with existing topics: {other}"
            ))),
        }
    }

    /// Whether `new` could be created (CreateTopics with validate_only).
    pub fn check_new(&self, new: &NewTopic) -> Result<(), TopicsError> {
        self.check_name(&new.name)?;
        let maps = self.read();
        if maps.partitions + new.partitions.max(0) as usize > MAX_PARTITIONS {
            return Err(TopicsError::InvalidPartitions(format!(
                "the broker holds {} partitions, and {MAX_PARTITIONS} at most",
                maps.partitions
            )));
        }
        TopicConfig::resolve(&self.config, &new.configs)?;
        Ok(())
    }

    /// Creates a topic; it is on disk and usable on return.
    pub async fn create(self: &Arc<Self>, new: NewTopic) -> Result<Arc<Topic>, TopicsError> {
        let me = Arc::clone(self);
        tokio::task::spawn_blocking(move || me.create_blocking(new))
            .await
            .unwrap_or(Err(TopicsError::Stopping))
    }

    /// Creates a topic on its first use, with the broker's defaults; one that somebody else has
    /// just created is as good.
    pub async fn create_on_use(self: &Arc<Self>, name: &str) -> Result<Arc<Topic>, TopicsError> {
        let new = NewTopic {
            name: name.to_owned(),
            partitions: self.config.num_partitions,
            configs: BTreeMap::new(),
        };
        self.create_or_get(new).await
    }

    /// Creates a topic unless it is there.
    pub async fn create_or_get(self: &Arc<Self>, new: NewTopic) -> Result<Arc<Topic>, TopicsError> {
        if let Some(topic) = self.by_name(&new.name) {
            return Ok(topic);
        }
        let name = new.name.clone();
        match self.create(new).await {
            Err(TopicsError::Exists(_)) => self.by_name(&name).ok_or(TopicsError::Unknown),
            other => other,
        }
    }

    fn create_blocking(&self, new: NewTopic) -> Result<Arc<Topic>, TopicsError> {
        let _one_at_a_time = self.admin.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_new(&new)?;
        let info = self
            .meta
            .create_topic(&new.name, new.partitions, new.configs.clone())?;
        let fresh = Checkpoints::of_new_topic();
        let topic = self.open_topic(&info, &fresh, crate::clock::wall_ms())?;
        tracing::info!(topic = %info.name, partitions = new.partitions, "topic created");
        Ok(self.insert(topic))
    }

    /// Deletes a topic and its data.
    pub async fn delete(self: &Arc<Self>, topic: &Arc<Topic>) -> Result<(), TopicsError> {
        let (me, topic) = (Arc::clone(self), Arc::clone(topic));
        tokio::task::spawn_blocking(move || me.delete_blocking(&topic))
            .await
            .unwrap_or(Err(TopicsError::Stopping))
    }

    fn delete_blocking(&self, topic: &Arc<Topic>) -> Result<(), TopicsError> {
        let _one_at_a_time = self.admin.lock().unwrap_or_else(PoisonError::into_inner);
        if topic.is_internal() {
            return Err(TopicsError::Internal);
        }
        if self.by_id(topic.id).is_none() {
            return Err(TopicsError::Unknown);
        }
        // The catalogue first: after a crash in between, leftovers are removed at the next start.
        self.meta.delete_topic(&topic.name)?;
        {
            let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
            maps.by_name.remove(&topic.name);
            maps.by_id.remove(&topic.id);
            maps.partitions = maps.partitions.saturating_sub(topic.partitions.len());
        }
        for partition in &topic.partitions {
            if let Err(error) = partition.destroy() {
                tracing::error!(topic = %topic.name, partition = partition.index(), %error,
                    "the topic is deleted, but its folder could not be removed");
            }
        }
        tracing::info!(topic = %topic.name, "topic deleted");
        Ok(())
    }

    /// Lets retention work on every partition (blocking).
    pub fn retain(&self, now_ms: i64) {
        for topic in self.all() {
            // The broker's own topics hold the latest of every key; none of it grows old.
            if !topic.config.cleanup_policy.delete || topic.is_internal() {
                continue;
            }
            for partition in &topic.partitions {
                match partition.retain(now_ms) {
                    Ok(0) => {}
                    Ok(segments) => {
                        tracing::info!(topic = %topic.name, partition = partition.index(),
                        segments, start = partition.log_start_offset(), "old segments deleted")
                    }
                    Err(error) => tracing::error!(topic = %topic.name,
                        partition = partition.index(), %error, "retention failed"),
                }
            }
        }
    }

    /// Writes what a start after a crash can save itself (blocking): how far each log is on disk
    /// and where it starts. A failure costs time at that start and nothing else.
    pub fn checkpoint(&self) {
        if let Err(error) = checkpoint::write(&*self.fs, &self.dir, &self.all()) {
            tracing::warn!(%error, "checkpoints could not be written; a start after a crash will take longer");
        }
    }

    /// Flushes and closes every log (blocking). True when all are cleanly closed.
    pub fn close(&self) -> bool {
        let mut clean = true;
        for topic in self.all() {
            for partition in &topic.partitions {
                if let Err(error) = partition.close() {
                    tracing::error!(topic = %topic.name, partition = partition.index(), %error,
                        "a log could not be closed cleanly; it will be recovered at the next start");
                    clean = false;
                }
            }
        }
        self.checkpoint();
        clean
    }
}

/// What of the topic's settings concerns its logs.
fn log_config(broker: &BrokerConfig, topic: &TopicConfig) -> LogConfig {
    // Retention is for topics that are deleted by it; compaction alone keeps everything.
    let delete = topic.cleanup_policy.delete;
    LogConfig {
        segment_bytes: topic.effective_segment_bytes().max(1) as u64,
        segment_ms: topic.segment_ms,
        index_interval_bytes: topic.index_interval_bytes.max(0) as u32,
        segment_index_bytes: topic.segment_index_bytes.max(0) as u32,
        retention_ms: if delete { topic.retention_ms } else { -1 },
        retention_bytes: if delete { topic.retention_bytes } else { -1 },
        producer_id_expiration_ms: broker.producer_id_expiration_ms.into(),
    }
}
