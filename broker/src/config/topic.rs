//! A topic's settings: Kafka's names, ranges and defaults, and the broker settings they fall back
//! to. Knows the table and the broker's settings, nothing of logs.

use std::collections::BTreeMap;

use super::table::{ConfigError, Kind, Setting, Value, choice, int, int_in, long, settings};
use super::{BrokerConfig, find};

choice! {
    /// Who sets a record's timestamp.
    pub enum TimestampType {
        /// The producer.
        CreateTime = "CreateTime",
        /// The broker, when it appends.
        LogAppendTime = "LogAppendTime",
    }
}

choice! {
    /// `compression.type`: what the log keeps batches in.
    pub enum CompressionSetting {
        /// Leave it as the producer sent it.
        Producer = "producer",
        /// No compression.
        Uncompressed = "uncompressed",
        /// gzip.
        Gzip = "gzip",
        /// snappy.
        Snappy = "snappy",
        /// lz4.
        Lz4 = "lz4",
        /// zstd.
        Zstd = "zstd",
    }
}

/// `cleanup.policy`: what becomes of old records. At least one of the two is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Old segments are deleted by time and size.
    pub delete: bool,
    /// Of each key only the latest value is kept.
    pub compact: bool,
}

impl CleanupPolicy {
    /// The allowed words.
    pub const WORDS: &'static [&'static str] = &["compact", "delete"];
    /// `delete` alone, the default.
    pub const DELETE: CleanupPolicy = CleanupPolicy {
        delete: true,
        compact: false,
    };
    /// `compact` alone.
    pub const COMPACT: CleanupPolicy = CleanupPolicy {
        delete: false,
        compact: true,
    };
}

impl Value for CleanupPolicy {
    fn read(text: &str, _: &Kind) -> Option<Self> {
        let mut policy = CleanupPolicy {
            delete: false,
            compact: false,
        };
        for word in text.split(',').map(str::trim) {
            match word {
                "delete" => policy.delete = true,
                "compact" => policy.compact = true,
                _ => return None,
            }
        }
        Some(policy)
    }
    fn show(&self) -> Option<String> {
        let text = match (self.compact, self.delete) {
            (true, true) => "compact,delete",
            (true, false) => "compact",
            (false, true) => "delete",
            (false, false) => "",
        };
        Some(text.to_owned())
    }
}

settings! {
    /// What holds for one topic: its own overrides over the broker's settings over the defaults.
    pub struct TopicConfig, table TOPIC_SETTINGS, extra {}

    /// What becomes of old records: `delete` them by time and size, `compact` them to the latest value of each key, or both.
    cleanup_policy: CleanupPolicy = CleanupPolicy::DELETE, "cleanup.policy", Kind::List(CleanupPolicy::WORDS), from ["log.cleanup.policy"];
    /// Level used when the broker itself compresses with gzip.
    compression_gzip_level: i32 = -1, "compression.gzip.level", int_in(-1, 9), from ["compression.gzip.level"];
    /// Level used when the broker itself compresses with lz4.
    compression_lz4_level: i32 = 9, "compression.lz4.level", int_in(1, 17), from ["compression.lz4.level"];
    /// Codec of the stored batches; `producer` leaves them as they came.
    compression_type: CompressionSetting = CompressionSetting::Producer, "compression.type", Kind::Choice(CompressionSetting::WORDS), from ["compression.type"];
    /// Level used when the broker itself compresses with zstd.
    compression_zstd_level: i32 = 3, "compression.zstd.level", int_in(-131_072, 22), from ["compression.zstd.level"];
    /// How long compaction keeps tombstones, in ms.
    delete_retention_ms: i64 = 86_400_000, "delete.retention.ms", long(0), from ["log.cleaner.delete.retention.ms"];
    /// How long a deleted segment's file stays, in ms.
    file_delete_delay_ms: i64 = 60_000, "file.delete.delay.ms", long(0), from ["log.segment.delete.delay.ms"];
    /// Force the log to disk after so many records; 1 is after every write.
    flush_messages: i64 = i64::MAX, "flush.messages", long(1), from ["log.flush.interval.messages"];
    /// Force the log to disk when the oldest unforced record is so old, in ms.
    flush_ms: i64 = i64::MAX, "flush.ms", long(0), from ["log.flush.interval.ms", "log.flush.scheduler.interval.ms"];
    /// Replication throttle of followers; kept for tools, without effect on one node.
    follower_replication_throttled_replicas: String = String::new(), "follower.replication.throttled.replicas", Kind::List(&[]);
    /// Bytes of log between two entries of the offset index.
    index_interval_bytes: i32 = 4096, "index.interval.bytes", int(0), from ["log.index.interval.bytes"];
    /// Replication throttle of leaders; kept for tools, without effect on one node.
    leader_replication_throttled_replicas: String = String::new(), "leader.replication.throttled.replicas", Kind::List(&[]);
    /// Tiered storage's local size; there is no tiered storage here.
    local_retention_bytes: i64 = -2, "local.retention.bytes", long(-2), from ["log.local.retention.bytes"];
    /// Tiered storage's local time; there is no tiered storage here.
    local_retention_ms: i64 = -2, "local.retention.ms", long(-2), from ["log.local.retention.ms"];
    /// A record must be compacted at the latest after so long, in ms.
    max_compaction_lag_ms: i64 = i64::MAX, "max.compaction.lag.ms", long(1), from ["log.cleaner.max.compaction.lag.ms"];
    /// Largest batch a producer may send, after compression.
    max_message_bytes: i32 = 1_048_588, "max.message.bytes", int(0), from ["message.max.bytes"];
    /// How far a producer's timestamp may lie in the future, in ms.
    message_timestamp_after_max_ms: i64 = 3_600_000, "message.timestamp.after.max.ms", long(0), from ["log.message.timestamp.after.max.ms"];
    /// How far a producer's timestamp may lie in the past, in ms.
    message_timestamp_before_max_ms: i64 = i64::MAX, "message.timestamp.before.max.ms", long(0), from ["log.message.timestamp.before.max.ms"];
    /// Whether a record's timestamp is the producer's or the time of the append.
    message_timestamp_type: TimestampType = TimestampType::CreateTime, "message.timestamp.type", Kind::Choice(TimestampType::WORDS), from ["log.message.timestamp.type"];
    /// Share of uncompacted log at which compaction begins.
    min_cleanable_dirty_ratio: f64 = 0.5, "min.cleanable.dirty.ratio", Kind::Double { min: 0.0, max: 1.0 }, from ["log.cleaner.min.cleanable.ratio"];
    /// A record stays uncompacted at least so long, in ms.
    min_compaction_lag_ms: i64 = 0, "min.compaction.lag.ms", long(0), from ["log.cleaner.min.compaction.lag.ms"];
    /// In-sync replicas acks=all asks for; with one node, more than 1 refuses every such produce.
    min_insync_replicas: i32 = 1, "min.insync.replicas", int(1), from ["min.insync.replicas"];
    /// Reserve a segment's file in advance; without effect here.
    preallocate: bool = false, "preallocate", Kind::Bool, from ["log.preallocate"];
    /// Tiered storage; there is none here.
    remote_log_copy_disable: bool = false, "remote.log.copy.disable", Kind::Bool;
    /// Tiered storage; there is none here.
    remote_log_delete_on_disable: bool = false, "remote.log.delete.on.disable", Kind::Bool;
    /// Tiered storage; there is none here.
    remote_storage_enable: bool = false, "remote.storage.enable", Kind::Bool;
    /// Delete old segments when the partition is larger; -1 is without limit.
    retention_bytes: i64 = -1, "retention.bytes", long(i64::MIN), from ["log.retention.bytes"];
    /// Delete segments whose newest record is older, in ms; -1 is without limit.
    retention_ms: i64 = 604_800_000, "retention.ms", long(-1), from ["log.retention.ms", "log.retention.minutes", "log.retention.hours"];
    /// Size at which a new segment begins.
    segment_bytes: i32 = 1_073_741_824, "segment.bytes", int(1_048_576), from ["log.segment.bytes"];
    /// Largest index of one segment.
    segment_index_bytes: i32 = 10_485_760, "segment.index.bytes", int(4), from ["log.index.size.max.bytes"];
    /// Random part taken off `segment.ms`, in ms.
    segment_jitter_ms: i64 = 0, "segment.jitter.ms", long(0), from ["log.roll.jitter.ms", "log.roll.jitter.hours"];
    /// Age at which a new segment begins, in ms.
    segment_ms: i64 = 604_800_000, "segment.ms", long(1), from ["log.roll.ms", "log.roll.hours"];
    /// Whether an out-of-sync replica may lead; without effect on one node.
    unclean_leader_election_enable: bool = false, "unclean.leader.election.enable", Kind::Bool, from ["unclean.leader.election.enable"];
    /// Segment size below `segment.bytes`' floor, for tests (Kafka 4.1 has it too).
    internal_segment_bytes: Option<i32> = None, "internal.segment.bytes", int(1), from ["internal.log.segment.bytes"];
}

/// The line of the table with this name.
pub fn topic_setting(name: &str) -> Option<&'static Setting<TopicConfig>> {
    find(TOPIC_SETTINGS, name)
}

impl TopicConfig {
    /// What holds for a topic with these overrides, or why they are refused (Kafka's
    /// INVALID_CONFIG). Unknown names are refused as well, as Kafka does.
    pub fn resolve(
        broker: &BrokerConfig,
        overrides: &BTreeMap<String, String>,
    ) -> Result<TopicConfig, ConfigError> {
        let mut config = broker.topic_defaults();
        for (name, value) in overrides {
            let setting = topic_setting(name)
                .ok_or_else(|| ConfigError::UnknownTopicSetting(name.clone()))?;
            setting.set(&mut config, value)?;
        }
        config.check()?;
        Ok(config)
    }

    /// As [`TopicConfig::resolve`], but for what is stored already: what is not understood (written
    /// by another version) is skipped and named instead of making the topic unusable.
    pub fn resolve_stored(
        broker: &BrokerConfig,
        overrides: &BTreeMap<String, String>,
    ) -> (TopicConfig, Vec<String>) {
        let mut config = broker.topic_defaults();
        let mut skipped = Vec::new();
        for (name, value) in overrides {
            let done = topic_setting(name).map(|s| s.set(&mut config, value));
            if !matches!(done, Some(Ok(()))) {
                skipped.push(name.clone());
            }
        }
        (config, skipped)
    }

    /// Rules over more than one setting (Kafka's `LogConfig.validateValues`).
    fn check(&self) -> Result<(), ConfigError> {
        if self.min_compaction_lag_ms > self.max_compaction_lag_ms {
            return Err(ConfigError::Conflict(format!(
                "min.compaction.lag.ms {} is larger than max.compaction.lag.ms {}; make it the smaller one",
                self.min_compaction_lag_ms, self.max_compaction_lag_ms
            )));
        }
        if self.remote_storage_enable {
            return Err(ConfigError::Value {
                key: "remote.storage.enable".into(),
                value: "true".into(),
                allowed: "false: there is no tiered storage".into(),
            });
        }
        Ok(())
    }

    /// The segment size that holds, `internal.segment.bytes` first.
    pub fn effective_segment_bytes(&self) -> i32 {
        self.internal_segment_bytes.unwrap_or(self.segment_bytes)
    }
}
