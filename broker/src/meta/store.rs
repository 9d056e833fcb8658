//! [`Meta`]: the catalogue's log, its image and its index in one. Every change is one batch, on
//! disk before the call returns, applied to the image only then.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use uuid::Uuid;

use super::entries::{self, Holder, SPACE};
use super::image::{Image, RESOURCE_TOPIC, TopicInfo};
use super::records::{ConfigChange, NO_LEADER_CHANGE, PartitionChange, Record};
use super::replay::Replay;
use super::{Index, MetaError, bootstrap, properties, topic_name, uuid64};
use crate::clock::wall_ms as now_ms;
use crate::log::{AppendOptions, Fs, Log, LogConfig, OpenFrom, RecoveryReport};

/// Where sled's files are. Apache Kafka takes every folder beside the partitions' for a partition and
/// refuses to start on one it cannot read; inside the catalogue's own it lets it be.
const INDEX_DIR: &str = "sled";
/// Partitions of one topic: what fits into one change of the catalogue (as in Kafka, where one
/// operation may write 10,000 records).
pub const PARTITIONS_MAX: i32 = 9_000;
/// Producer ids reserved with one record (Kafka's `ProducerIdsBlock`).
pub const PRODUCER_ID_BLOCK: i64 = 1_000;

/// The catalogue. All calls block; reading is [`Meta::image`], which does not wait for writers.
pub struct Meta {
    image: RwLock<Arc<Image>>,
    writer: Mutex<Writer>,
    cluster_id: String,
    holder: Holder,
    index: Index,
}

struct Writer {
    log: Log,
    epoch: i32,
    /// Producer ids that are reserved and not handed out yet.
    producer_ids: Range<i64>,
}

fn log_config() -> LogConfig {
    LogConfig {
        retention_ms: -1,
        retention_bytes: -1,
        ..LogConfig::default()
    }
}

impl Meta {
    /// Opens the catalogue of a data directory, or begins one. The texts are for the log: what was
    /// found broken and mended. The caller holds the directory's lock.
    pub fn open(
        fs: Arc<dyn Fs>,
        data_dir: &Path,
        node_id: i32,
        now_ms: i64,
    ) -> Result<(Meta, Vec<String>), MetaError> {
        let dir = data_dir.join(format!("{}-0", topic_name::CLUSTER_METADATA));
        let fail = |what: String| {
            MetaError::Open(format!(
                "cannot open the catalogue in {}: {what}; check the space and the permissions of \
                 the data directory",
                dir.display()
            ))
        };
        fs.create_dir_all(data_dir)
            .map_err(|e| fail(e.to_string()))?;
        let (identity, said) = properties::load_or_create(&*fs, data_dir, node_id)?;
        let mut say: Vec<String> = said.into_iter().collect();
        // The whole log is verified: it is small, and everything else hangs on it.
        let (log, report) = Log::open(fs.clone(), &dir, log_config(), OpenFrom::default(), now_ms)
            .map_err(|e| fail(e.to_string()))?;
        let holder = Holder {
            node_id,
            directory_id: identity.directory_id,
        };
        let mut writer = Writer {
            epoch: log.latest_epoch().unwrap_or(0).max(bootstrap::FIRST_EPOCH),
            log,
            producer_ids: 0..0,
        };
        begin_log(&*fs, &dir, &mut writer, holder, now_ms)?;
        let mark = first_batch_mark(&writer.log);
        let (index, said) = Index::open(
            &dir.join(INDEX_DIR),
            &format!("{}/{mark}", identity.cluster_id),
        );
        say.extend(said);
        let (replay, indexed) = load(&*fs, &dir, &writer.log, &index, &report, &mut say)?;
        let image = begin_records(&dir, &mut writer, replay, holder, now_ms)?;
        let applied = writer.log.end_offset() - 1;
        if indexed != Some(applied) {
            index.reset(SPACE);
            index.apply(SPACE, entries::everything(&image, holder), applied);
        }
        let meta = Meta {
            image: RwLock::new(Arc::new(image)),
            writer: Mutex::new(writer),
            cluster_id: identity.cluster_id,
            holder,
            index,
        };
        Ok((meta, say))
    }

    /// The catalogue as it is now.
    pub fn image(&self) -> Arc<Image> {
        let guard = self.image.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&guard)
    }

    /// The cluster's id, as Kafka prints it.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The data directory's id.
    pub fn directory_id(&self) -> Uuid {
        self.holder.directory_id
    }

    /// The index, which other internal logs may use as well.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Creates a topic with its partitions and settings, all or nothing. The settings' values are
    /// the caller's to check. On disk on return.
    pub fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        configs: BTreeMap<String, String>,
    ) -> Result<Arc<TopicInfo>, MetaError> {
        let mut writer = self.lock();
        let image = self.image();
        check_new_topic(&image, name, partitions)?;
        let epochs = super::PartitionInfo {
            leader_epoch: 0,
            partition_epoch: 0,
        };
        let topic = TopicInfo {
            name: name.to_owned(),
            id: uuid64::random(),
            partitions: vec![epochs; usize::try_from(partitions).unwrap_or(0)],
            configs,
            internal: topic_name::is_internal(name),
        };
        let image = self.change(&mut writer, entries::topic(&topic, self.holder))?;
        found(&image, name)
    }

    /// Raises a topic's number of partitions to `total`.
    pub fn create_partitions(&self, name: &str, total: i32) -> Result<Arc<TopicInfo>, MetaError> {
        let mut writer = self.lock();
        let topic = found(&self.image(), name)?;
        let have = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        if total <= have {
            return Err(MetaError::InvalidPartitions(format!(
                "topic '{name}' has {have} partitions; the new number must be larger than that, not {total}"
            )));
        }
        check_partitions(total)?;
        let records = (have..total)
            .map(|number| entries::partition(topic.id, number, (0, 0), self.holder))
            .collect();
        let image = self.change(&mut writer, records)?;
        found(&image, name)
    }

    /// Removes a topic and all that belongs to it from the catalogue; returns what it was.
    pub fn delete_topic(&self, name: &str) -> Result<Arc<TopicInfo>, MetaError> {
        let mut writer = self.lock();
        let topic = found(&self.image(), name)?;
        self.change(&mut writer, vec![Record::RemoveTopic { id: topic.id }])?;
        Ok(topic)
    }

    /// As [`Meta::delete_topic`], by id: a topic created again under the same name stays.
    pub fn delete_topic_id(&self, id: Uuid) -> Result<Arc<TopicInfo>, MetaError> {
        let mut writer = self.lock();
        let topic = self.image().topic_by_id(id).cloned();
        let topic = topic.ok_or(MetaError::UnknownTopicId(id))?;
        self.change(&mut writer, vec![Record::RemoveTopic { id }])?;
        Ok(topic)
    }

    /// Sets (or, with `None`, removes) settings of a resource, all or nothing. The values are the
    /// caller's to check.
    pub fn set_configs(
        &self,
        resource_type: i8,
        resource: &str,
        changes: &[(String, Option<String>)],
    ) -> Result<(), MetaError> {
        let mut writer = self.lock();
        if resource_type == RESOURCE_TOPIC {
            found(&self.image(), resource)?;
        }
        let records = changes
            .iter()
            .map(|(name, value)| {
                Record::Config(ConfigChange {
                    resource_type,
                    resource_name: resource.to_owned(),
                    name: name.clone(),
                    value: value.clone(),
                })
            })
            .collect();
        self.change(&mut writer, records).map(drop)
    }

    /// Hands out `count` producer ids nobody ever had, reserving a block on disk when the last one
    /// is used up. What is left of a block is lost with the process.
    pub fn allocate_producer_ids(&self, count: i64) -> Result<Range<i64>, MetaError> {
        if !(1..=i64::from(i32::MAX)).contains(&count) {
            return Err(MetaError::InvalidRequest(format!(
                "cannot hand out {count} producer ids"
            )));
        }
        let mut writer = self.lock();
        if writer.producer_ids.end - writer.producer_ids.start < count {
            let image = self.image();
            let start = image.next_producer_id;
            let next = start
                .checked_add(count.max(PRODUCER_ID_BLOCK))
                .ok_or_else(|| MetaError::Storage("all producer ids are used up".into()))?;
            let record = Record::ProducerIds {
                broker_id: self.holder.node_id,
                broker_epoch: image.broker_epoch,
                next,
            };
            self.change(&mut writer, vec![record])?;
            writer.producer_ids = start..next;
        }
        let start = writer.producer_ids.start;
        writer.producer_ids.start += count;
        Ok(start..start + count)
    }

    /// Begins a new leader epoch of one partition and returns it.
    pub fn bump_leader_epoch(&self, topic: &str, partition: i32) -> Result<i32, MetaError> {
        let bumped = self.bump_leader_epochs(&[(topic.to_owned(), partition)])?;
        bumped
            .first()
            .copied()
            .ok_or_else(|| MetaError::UnknownTopic(topic.to_owned()))
    }

    /// Begins new leader epochs of many partitions with one write, and returns them in this order.
    pub fn bump_leader_epochs(&self, which: &[(String, i32)]) -> Result<Vec<i32>, MetaError> {
        let mut writer = self.lock();
        let image = self.image();
        let mut records = Vec::new();
        for (name, partition) in which {
            let topic = found(&image, name)?;
            at(&topic, *partition)?;
            records.push(Record::PartitionChange(PartitionChange {
                partition_id: *partition,
                topic_id: topic.id,
                isr: None,
                leader: self.holder.node_id,
            }));
        }
        debug_assert!(self.holder.node_id != NO_LEADER_CHANGE);
        let image = self.change(&mut writer, records)?;
        which
            .iter()
            .map(|(name, partition)| Ok(at(&*found(&image, name)?, *partition)?.leader_epoch))
            .collect()
    }

    /// Closes log and index after a clean end. Changes after this fail.
    pub fn close(&self) {
        let mut writer = self.lock();
        if let Err(e) = writer.log.close() {
            tracing::warn!("closing the catalogue: {e}; the next start will mend it");
        }
        self.index.close();
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        // A panic under the lock left either the old image or the new one.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One change: into the log, on disk, and then visible.
    fn change(&self, writer: &mut Writer, records: Vec<Record>) -> Result<Arc<Image>, MetaError> {
        if records.is_empty() {
            return Ok(self.image());
        }
        let mut image = (*self.image()).clone();
        for record in &records {
            image.apply(record).map_err(MetaError::InvalidRequest)?;
        }
        writer.append(&records, now_ms())?;
        let changes = entries::changes(&records, &image, self.holder);
        let image = Arc::new(image);
        *self.image.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&image);
        self.index
            .apply(SPACE, changes, writer.log.end_offset() - 1);
        Ok(image)
    }
}

impl Writer {
    fn append(&mut self, records: &[Record], now_ms: i64) -> Result<(), MetaError> {
        self.append_batch(&bootstrap::batch(records, now_ms), now_ms)
    }

    fn append_batch(&mut self, batch: &[u8], now_ms: i64) -> Result<(), MetaError> {
        let fail = |e: &dyn std::fmt::Display| MetaError::Storage(e.to_string());
        let header = wire::batch::BatchHeader::parse(batch).map_err(|e| fail(&e))?;
        let options = AppendOptions {
            leader_epoch: self.epoch,
            log_append_time: None,
            now_ms,
        };
        self.log
            .append(batch, &header, options)
            .map_err(|e| fail(&e))?;
        let synced = self.log.begin_flush().run();
        self.log.finish_flush(synced).map_err(|e| fail(&e))?;
        Ok(())
    }
}

fn found(image: &Image, name: &str) -> Result<Arc<TopicInfo>, MetaError> {
    let topic = image.topic(name).cloned();
    topic.ok_or_else(|| MetaError::UnknownTopic(name.to_owned()))
}

fn at(topic: &TopicInfo, partition: i32) -> Result<super::PartitionInfo, MetaError> {
    let info = usize::try_from(partition)
        .ok()
        .and_then(|at| topic.partitions.get(at));
    info.copied()
        .ok_or_else(|| MetaError::UnknownTopic(format!("{}-{partition}", topic.name)))
}

/// Whether [`Meta::create_topic`] would refuse, without creating anything: CreateTopics'
/// `validate_only` asks this.
pub fn check_new_topic(image: &Image, name: &str, partitions: i32) -> Result<(), MetaError> {
    topic_name::validate(name).map_err(MetaError::InvalidTopicName)?;
    if image.topic(name).is_some() {
        return Err(MetaError::TopicExists(name.to_owned()));
    }
    if let Some(other) = image.colliding(name) {
        return Err(MetaError::InvalidTopicName(format!(
            "topic '{name}' collides with existing topic '{other}': '.' and '_' are the same in \
             names of metrics"
        )));
    }
    check_partitions(partitions)
}

fn check_partitions(partitions: i32) -> Result<(), MetaError> {
    if (1..=PARTITIONS_MAX).contains(&partitions) {
        return Ok(());
    }
    Err(MetaError::InvalidPartitions(format!(
        "number of partitions was {partitions}; allowed is 1 to {PARTITIONS_MAX}"
    )))
}

/// Tells one log from another: the checksum of its first batch; 0 is an empty log.
fn first_batch_mark(log: &Log) -> u32 {
    let view = log.view();
    let first = view.read_batches(log.start_offset(), log.end_offset(), 1);
    first
        .ok()
        .and_then(|batches| batches.first().map(|(header, _)| header.crc.max(1)))
        .unwrap_or(0)
}

/// The image: from the index (then also the offset that one was current to) and the rest of the
/// log, or else from checkpoint and whole log.
fn load(
    fs: &dyn Fs,
    dir: &Path,
    log: &Log,
    index: &Index,
    report: &RecoveryReport,
    say: &mut Vec<String>,
) -> Result<(Replay, Option<i64>), MetaError> {
    let (start, end) = (log.start_offset(), log.end_offset());
    let bad_end = report.bad.iter().map(|b| b.next_offset).max().unwrap_or(0);
    if report.truncated_bytes > 0 {
        say.push(format!(
            "the catalogue in {} ended in an unfinished write of {} bytes, which was never \
             acknowledged and is cut off",
            dir.display(),
            report.truncated_bytes
        ));
    }
    let indexed = index
        .load(SPACE)
        .filter(|(applied, _)| *applied < end && applied + 1 >= start.max(bad_end))
        .and_then(|(applied, entries)| Some((applied, entries::image(&entries)?)));
    if let Some((applied, image)) = indexed {
        if bad_end > 0 {
            say.push(format!(
                "the catalogue in {} is damaged below offset {bad_end}; the index still has all \
                 of it. Keep {} and make a copy",
                dir.display(),
                dir.join(INDEX_DIR).display()
            ));
        }
        let mut replay = Replay::from(image);
        replay.log(&log.view(), applied + 1, end, dir)?;
        return Ok((replay, Some(applied)));
    }
    let mut replay = Replay::default();
    if start > 0 {
        let checkpoint = newest_checkpoint(fs, dir, start)?;
        replay.checkpoint(fs, &checkpoint)?;
    }
    replay.log(&log.view(), start, end, dir)?;
    if replay.relied_on > 0 {
        say.push(format!(
            "the catalogue holds {} records of users, ACLs, quotas or delegation tokens: they are \
             kept but NOT enforced by this version",
            replay.relied_on
        ));
    }
    Ok((replay, None))
}

/// Kafka's snapshot that ends exactly where the log starts.
fn newest_checkpoint(fs: &dyn Fs, dir: &Path, start: i64) -> Result<PathBuf, MetaError> {
    let prefix = format!("{start:020}-");
    let files = fs.list(dir).unwrap_or_default();
    let name = files
        .into_iter()
        .map(|f| f.name)
        .filter(|name| name.starts_with(&prefix) && name.ends_with(".checkpoint"))
        .max();
    name.map(|name| dir.join(name)).ok_or_else(|| {
        MetaError::Open(format!(
            "the catalogue in {} begins at offset {start} and has no checkpoint of what came \
             before; put back a copy of that directory",
            dir.display()
        ))
    })
}

fn cannot_begin(dir: &Path, e: &dyn std::fmt::Display) -> MetaError {
    MetaError::Open(format!(
        "cannot begin the catalogue in {}: {e}; check the space and the permissions of the data \
         directory",
        dir.display()
    ))
}

/// An empty log gets the batch every KRaft log begins with, after the files that belong to it.
fn begin_log(
    fs: &dyn Fs,
    dir: &Path,
    writer: &mut Writer,
    holder: Holder,
    now_ms: i64,
) -> Result<(), MetaError> {
    if writer.log.end_offset() > 0 {
        return Ok(());
    }
    let fail = |e: &dyn std::fmt::Display| cannot_begin(dir, e);
    let (node_id, directory_id) = (holder.node_id, holder.directory_id);
    let checkpoint = bootstrap::checkpoint(node_id, directory_id, now_ms).map_err(|e| fail(&e))?;
    for (name, bytes) in [
        (bootstrap::CHECKPOINT_FILE, checkpoint.as_slice()),
        (
            "partition.metadata",
            bootstrap::PARTITION_METADATA.as_bytes(),
        ),
    ] {
        fs.write_atomic(&dir.join(name), bytes, true)
            .map_err(|e| fail(&e))?;
    }
    let first = bootstrap::leadership(node_id, directory_id, now_ms).map_err(|e| fail(&e))?;
    writer.append_batch(&first, now_ms).map_err(|e| fail(&e))
}

/// Writes the records a catalogue begins with, as far as they are not there: a first start may
/// have been cut short after any of the steps.
fn begin_records(
    dir: &Path,
    writer: &mut Writer,
    replay: Replay,
    holder: Holder,
    now_ms: i64,
) -> Result<Image, MetaError> {
    let fail = |e: &dyn std::fmt::Display| cannot_begin(dir, e);
    if replay.is_unfinished() {
        writer
            .append(&[Record::AbortTransaction], now_ms)
            .map_err(|e| fail(&e))?;
    }
    let mut image = replay.image;
    let mut step = |image: &mut Image, make: &dyn Fn(i64) -> Vec<Record>| {
        let records = make(writer.log.end_offset());
        writer.append(&records, now_ms).map_err(|e| fail(&e))?;
        let applied = records.iter().try_for_each(|record| image.apply(record));
        applied.map_err(|e| fail(&e))
    };
    if image.features().is_empty() {
        step(&mut image, &|_| bootstrap::features())?;
    }
    if image.broker_epoch == 0 {
        step(&mut image, &|offset| {
            bootstrap::registration(holder.node_id, holder.directory_id, offset)
        })?;
    }
    Ok(image)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
