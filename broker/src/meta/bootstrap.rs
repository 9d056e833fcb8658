//! What a new catalogue begins with: the batches a KRaft controller writes when it first leads,
//! and the checkpoint that tells Apache Kafka who votes. Pure: makes bytes.

use bytes::Bytes;
use kafka_protocol::messages::leader_change_message::Voter as LeaderVoter;
use kafka_protocol::messages::voters_record::{Endpoint, KRaftVersionFeature, Voter};
use kafka_protocol::messages::{
    BrokerId, KRaftVersionRecord, LeaderChangeMessage, SnapshotFooterRecord, SnapshotHeaderRecord,
    VotersRecord,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use uuid::Uuid;
use wire::compress::Compression;
use wire::records::BatchBuilder;

use super::records::{BrokerRegistration, Record};

/// `metadata.version` of Apache Kafka 4.1 (4.1-IV1).
const METADATA_VERSION: i16 = 27;
/// Epoch of the first leader.
pub const FIRST_EPOCH: i32 = 1;
/// The one checkpoint every KRaft log begins with.
pub const CHECKPOINT_FILE: &str = "00000000000000000000-0000000000.checkpoint";
/// `partition.metadata` of the catalogue's log: the topic id is the same everywhere.
pub const PARTITION_METADATA: &str = "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ";

/// Types of control records (Kafka's `ControlRecordType`).
const LEADER_CHANGE: i16 = 2;
const SNAPSHOT_HEADER: i16 = 3;
const SNAPSHOT_FOOTER: i16 = 4;
const KRAFT_VERSION: i16 = 5;
const KRAFT_VOTERS: i16 = 6;

struct Control {
    builder: BatchBuilder,
    now_ms: i64,
}

impl Control {
    fn new(now_ms: i64) -> Control {
        Control {
            builder: BatchBuilder::new(Compression::None).control(),
            now_ms,
        }
    }

    fn push(mut self, kind: i16, message: &impl Encodable) -> Result<Control, String> {
        // Key: version 0 and the type (`ControlRecordUtils`).
        let key = [[0, 0], kind.to_be_bytes()].concat();
        let mut value = Vec::new();
        message
            .encode(&mut value, 0)
            .map_err(|e| format!("encoding a control record: {e}"))?;
        self.builder
            .push(self.now_ms, Some(&key), Some(&value), &[]);
        Ok(self)
    }
}

fn voters(node_id: i32, directory_id: Uuid) -> VotersRecord {
    let endpoint = Endpoint::default()
        .with_name(StrBytes::from_static_str("CONTROLLER"))
        .with_host(StrBytes::from_static_str("localhost"))
        .with_port(9093);
    let voter = Voter::default()
        .with_voter_id(BrokerId(node_id))
        .with_voter_directory_id(directory_id)
        .with_endpoints(vec![endpoint])
        .with_k_raft_version_feature(KRaftVersionFeature::default().with_max_supported_version(1));
    VotersRecord::default().with_voters(vec![voter])
}

/// The first batch: this node leads, and is the only voter.
pub fn leadership(node_id: i32, directory_id: Uuid, now_ms: i64) -> Result<Bytes, String> {
    let me = || vec![LeaderVoter::default().with_voter_id(node_id)];
    let leader = LeaderChangeMessage::default()
        .with_leader_id(BrokerId(node_id))
        .with_voters(me())
        .with_granting_voters(me());
    let control = Control::new(now_ms)
        .push(LEADER_CHANGE, &leader)?
        .push(
            KRAFT_VERSION,
            &KRaftVersionRecord::default().with_k_raft_version(1),
        )?
        .push(KRAFT_VOTERS, &voters(node_id, directory_id))?;
    Ok(control.builder.build(0))
}

/// The features that are finalized: the version of the records, and no more, as long as the
/// protocols behind the others are not spoken.
pub fn features() -> Vec<Record> {
    vec![Record::FeatureLevel {
        name: "metadata.version".into(),
        level: METADATA_VERSION,
    }]
}

/// The registration of this broker, to be written at `offset`, and that it is not fenced.
pub fn registration(node_id: i32, directory_id: Uuid, offset: i64) -> Vec<Record> {
    vec![
        Record::RegisterBroker(BrokerRegistration {
            broker_id: node_id,
            incarnation_id: super::uuid64::random(),
            broker_epoch: offset,
            // Clients are told what `advertised.listeners` says at the time they ask.
            endpoints: vec![("PLAINTEXT".into(), "localhost".into(), 9092)],
            features: vec![("metadata.version".into(), 7, METADATA_VERSION)],
            fenced: true,
            log_dirs: vec![directory_id],
        }),
        Record::BrokerChange {
            broker_id: node_id,
            broker_epoch: offset,
            fenced: -1,
        },
    ]
}

/// Content of [`CHECKPOINT_FILE`]: an empty snapshot with the voters.
pub fn checkpoint(node_id: i32, directory_id: Uuid, now_ms: i64) -> Result<Vec<u8>, String> {
    let header = SnapshotHeaderRecord::default().with_last_contained_log_timestamp(now_ms);
    let head = Control::new(now_ms)
        .push(SNAPSHOT_HEADER, &header)?
        .push(
            KRAFT_VERSION,
            &KRaftVersionRecord::default().with_k_raft_version(1),
        )?
        .push(KRAFT_VOTERS, &voters(node_id, directory_id))?;
    let foot = Control::new(now_ms).push(SNAPSHOT_FOOTER, &SnapshotFooterRecord::default())?;
    let head = head.builder.with_leader_epoch(0).build(0);
    let foot = foot.builder.with_leader_epoch(0).build(3);
    Ok([head, foot].concat())
}

/// One batch of records, which is all or nothing.
pub fn batch(records: &[Record], now_ms: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for record in records {
        builder.push(now_ms, None, Some(&record.encode()), &[]);
    }
    builder.build(0)
}
