//! The broker's settings: one list from which the struct, its defaults, parsing, help text and
//! DescribeConfigs come. Knows the table, the values' types and nothing else.

use std::path::PathBuf;

use super::listeners::{ADVERTISED_ALLOWED, Advertised, LISTENERS_ALLOWED, Listeners};
use super::table::{Kind, choice, int, int_in, long, settings};
use super::topic::{CleanupPolicy, CompressionSetting, TimestampType};

choice! {
    /// What acks=all promises on one node.
    pub enum Durability {
        /// On disk (fdatasync, shared by all waiters): survives a power cut.
        Disk = "disk",
        /// In the kernel, as Kafka does it: survives the death of the process.
        Os = "os",
    }
}

settings! {
    /// The broker's configuration. `BrokerConfig::default()` is complete; every field may be set.
    pub struct BrokerConfig, table BROKER_SETTINGS, extra {
        /// Names of the settings that were given (file, flags, overrides), for DescribeConfigs'
        /// STATIC_BROKER_CONFIG; a field that differs from its default counts as given as well.
        explicit: std::collections::BTreeSet<String>,
    }

    /// Number of this broker.
    node_id: i32 = 1, "node.id", int(0);
    /// Older name of `node.id`; -1 leaves the choice to the broker.
    broker_id: i32 = -1, "broker.id", int(-1);
    /// Rack of this broker, told to clients.
    broker_rack: Option<String> = None, "broker.rack", Kind::Text;
    /// Addresses to listen on. Without a word from the operator this machine only.
    listeners: Listeners = Listeners::default(), "listeners", Kind::Address(LISTENERS_ALLOWED);
    /// Addresses clients are told.
    advertised_listeners: Advertised = Advertised::default(), "advertised.listeners", Kind::Address(ADVERTISED_ALLOWED);
    /// Which protocol a listener of a given name speaks.
    listener_security_protocol_map: String = "PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL".into(), "listener.security.protocol.map", Kind::List(&[]);
    /// Names of the listeners of Kafka's controllers; mini-broker needs none and does not open them.
    controller_listener_names: String = String::new(), "controller.listener.names", Kind::List(&[]);
    /// The data directory: one.
    data_dir: PathBuf = PathBuf::from("./mini-broker-data"), "log.dirs", Kind::Address("one directory (mini-broker keeps everything in one)");
    /// What acks=all means: `disk` is an fdatasync before the answer, `os` leaves it to the system as Kafka does. Not one of Kafka's settings.
    durability: Durability = Durability::Disk, "durability", Kind::Choice(Durability::WORDS);

    /// Partitions of a topic created without a number.
    num_partitions: i32 = 1, "num.partitions", int(1);
    /// Create a topic when a client first asks for it.
    auto_create_topics_enable: bool = true, "auto.create.topics.enable", Kind::Bool;
    /// Whether topics can be deleted.
    delete_topic_enable: bool = true, "delete.topic.enable", Kind::Bool;
    /// Replication factor of a topic created without one. One node holds one replica.
    default_replication_factor: i32 = 1, "default.replication.factor", int(1);
    /// Default of the topic setting of the same name.
    min_insync_replicas: i32 = 1, "min.insync.replicas", int(1);
    /// Default of the topic setting of the same name.
    unclean_leader_election_enable: bool = false, "unclean.leader.election.enable", Kind::Bool;
    /// Largest batch a producer may send, after compression.
    message_max_bytes: i32 = 1_048_588, "message.max.bytes", int(0);
    /// Codec of the stored batches; `producer` leaves them as they came.
    compression_type: CompressionSetting = CompressionSetting::Producer, "compression.type", Kind::Choice(CompressionSetting::WORDS);
    /// Level used when the broker itself compresses with gzip.
    compression_gzip_level: i32 = -1, "compression.gzip.level", int_in(-1, 9);
    /// Level used when the broker itself compresses with lz4.
    compression_lz4_level: i32 = 9, "compression.lz4.level", int_in(1, 17);
    /// Level used when the broker itself compresses with zstd.
    compression_zstd_level: i32 = 3, "compression.zstd.level", int_in(-131_072, 22);

    /// Size at which a new segment begins. Kafka 4.1 asks for 1 MiB at least; files of 3.x with less are accepted.
    log_segment_bytes: i32 = 1_073_741_824, "log.segment.bytes", int(14);
    /// Segment size for tests, stronger than `log.segment.bytes`.
    internal_log_segment_bytes: Option<i32> = None, "internal.log.segment.bytes", int(1);
    /// Age at which a new segment begins, in ms; stronger than the hours.
    log_roll_ms: Option<i64> = None, "log.roll.ms", long(1);
    /// Age at which a new segment begins, in hours.
    log_roll_hours: i32 = 168, "log.roll.hours", int(1);
    /// Random part taken off the age, in ms; stronger than the hours.
    log_roll_jitter_ms: Option<i64> = None, "log.roll.jitter.ms", long(0);
    /// Random part taken off the age, in hours.
    log_roll_jitter_hours: i32 = 0, "log.roll.jitter.hours", int(0);
    /// How long records are kept, in ms; stronger than the minutes. -1 is without limit.
    log_retention_ms: Option<i64> = None, "log.retention.ms", long(-1);
    /// How long records are kept, in minutes; stronger than the hours.
    log_retention_minutes: Option<i32> = None, "log.retention.minutes", int(-1);
    /// How long records are kept, in hours.
    log_retention_hours: i32 = 168, "log.retention.hours", int(-1);
    /// Size of a partition beyond which old segments are deleted; -1 is without limit.
    log_retention_bytes: i64 = -1, "log.retention.bytes", long(i64::MIN);
    /// How often retention looks for segments to delete, in ms.
    log_retention_check_interval_ms: i64 = 300_000, "log.retention.check.interval.ms", long(1);
    /// How long a deleted segment's file stays, in ms.
    log_segment_delete_delay_ms: i64 = 60_000, "log.segment.delete.delay.ms", long(0);
    /// Default of the topic setting `cleanup.policy`.
    log_cleanup_policy: CleanupPolicy = CleanupPolicy::DELETE, "log.cleanup.policy", Kind::List(CleanupPolicy::WORDS);
    /// Bytes of log between two entries of the offset index.
    log_index_interval_bytes: i32 = 4096, "log.index.interval.bytes", int(0);
    /// Largest index of one segment.
    log_index_size_max_bytes: i32 = 10_485_760, "log.index.size.max.bytes", int(4);
    /// Force the log to disk after so many records.
    log_flush_interval_messages: i64 = i64::MAX, "log.flush.interval.messages", long(1);
    /// Force the log to disk when the oldest unforced record is so old, in ms.
    log_flush_interval_ms: Option<i64> = None, "log.flush.interval.ms", long(0);
    /// How often to look whether a log is due to be forced to disk, in ms.
    log_flush_scheduler_interval_ms: i64 = i64::MAX, "log.flush.scheduler.interval.ms", long(0);
    /// Whether a record's timestamp is the producer's or the time of the append.
    log_message_timestamp_type: TimestampType = TimestampType::CreateTime, "log.message.timestamp.type", Kind::Choice(TimestampType::WORDS);
    /// How far a producer's timestamp may lie in the past, in ms.
    log_message_timestamp_before_max_ms: i64 = i64::MAX, "log.message.timestamp.before.max.ms", long(0);
    /// How far a producer's timestamp may lie in the future, in ms.
    log_message_timestamp_after_max_ms: i64 = 3_600_000, "log.message.timestamp.after.max.ms", long(0);
    /// Reserve a segment's file in advance; without effect here.
    log_preallocate: bool = false, "log.preallocate", Kind::Bool;
    /// How long compaction keeps tombstones, in ms.
    log_cleaner_delete_retention_ms: i64 = 86_400_000, "log.cleaner.delete.retention.ms", long(0);
    /// A record stays uncompacted at least so long, in ms.
    log_cleaner_min_compaction_lag_ms: i64 = 0, "log.cleaner.min.compaction.lag.ms", long(0);
    /// A record must be compacted at the latest after so long, in ms.
    log_cleaner_max_compaction_lag_ms: i64 = i64::MAX, "log.cleaner.max.compaction.lag.ms", long(1);
    /// Share of uncompacted log at which compaction begins.
    log_cleaner_min_cleanable_ratio: f64 = 0.5, "log.cleaner.min.cleanable.ratio", Kind::Double { min: 0.0, max: 1.0 };
    /// How long the state of a silent idempotent producer is kept, in ms.
    producer_id_expiration_ms: i32 = 86_400_000, "producer.id.expiration.ms", int(1);

    /// Largest request.
    socket_request_max_bytes: i32 = 104_857_600, "socket.request.max.bytes", int(1);
    /// Connections that may wait to be accepted.
    socket_listen_backlog_size: i32 = 50, "socket.listen.backlog.size", int(1);
    /// Connections at one time.
    max_connections: i32 = i32::MAX, "max.connections", int(0);
    /// Connections at one time from one address.
    max_connections_per_ip: i32 = i32::MAX, "max.connections.per.ip", int(0);
    /// A silent connection is closed after so long, in ms; -1 is never.
    connections_max_idle_ms: i64 = 600_000, "connections.max.idle.ms", long(-1);
    /// Requests of one connection that may wait for their turn.
    queued_max_requests: i32 = 500, "queued.max.requests", int(1);
    /// Bytes of requests in memory at one time; -1 leaves the choice to the broker.
    queued_max_request_bytes: i64 = -1, "queued.max.request.bytes", long(-1);
    /// Partitions one DescribeTopicPartitions answers at most.
    max_request_partition_size_limit: i32 = 2000, "max.request.partition.size.limit", int(1);
    /// Fetch sessions at one time.
    max_incremental_fetch_session_cache_slots: i32 = 1000, "max.incremental.fetch.session.cache.slots", int(0);
    /// Largest answer to a fetch.
    fetch_max_bytes: i32 = 57_671_680, "fetch.max.bytes", int(1024);

    /// Shortest session timeout a group member may ask for, in ms.
    group_min_session_timeout_ms: i32 = 6_000, "group.min.session.timeout.ms", int(0);
    /// Longest session timeout a group member may ask for, in ms.
    group_max_session_timeout_ms: i32 = 1_800_000, "group.max.session.timeout.ms", int(0);
    /// How long a new group waits for more members before its first rebalance, in ms.
    group_initial_rebalance_delay_ms: i32 = 3_000, "group.initial.rebalance.delay.ms", int(0);
    /// Members of a group at most.
    group_max_size: i32 = i32::MAX, "group.max.size", int(1);
    /// Largest metadata text of a committed offset.
    offset_metadata_max_bytes: i32 = 4096, "offset.metadata.max.bytes", int(0);
    /// How long the offsets of a group without members are kept, in minutes.
    offsets_retention_minutes: i32 = 10_080, "offsets.retention.minutes", int(1);
    /// How often offsets are looked through for expired ones, in ms.
    offsets_retention_check_interval_ms: i64 = 600_000, "offsets.retention.check.interval.ms", long(1);
    /// How long a commit may wait for the disk, in ms.
    offsets_commit_timeout_ms: i32 = 5_000, "offsets.commit.timeout.ms", int(1);
    /// Partitions of `__consumer_offsets` when it is created. Kafka: 50, to spread them over brokers; one node has nothing to spread.
    offsets_topic_num_partitions: i32 = 1, "offsets.topic.num.partitions", int(1);
    /// Segment size of `__consumer_offsets`.
    offsets_topic_segment_bytes: i32 = 104_857_600, "offsets.topic.segment.bytes", int(1);

    /// Longest transaction timeout a producer may ask for, in ms.
    transaction_max_timeout_ms: i32 = 900_000, "transaction.max.timeout.ms", int(1);
    /// How long an unused transactional id is remembered, in ms.
    transactional_id_expiration_ms: i32 = 604_800_000, "transactional.id.expiration.ms", int(1);
    /// How often transactions are looked through for timed out ones, in ms.
    transaction_abort_timed_out_transaction_cleanup_interval_ms: i32 = 10_000, "transaction.abort.timed.out.transaction.cleanup.interval.ms", int(1);
    /// Partitions of `__transaction_state` when it is created. Kafka: 50.
    transaction_state_log_num_partitions: i32 = 1, "transaction.state.log.num.partitions", int(1);
    /// Segment size of `__transaction_state`.
    transaction_state_log_segment_bytes: i32 = 104_857_600, "transaction.state.log.segment.bytes", int(1);
}
