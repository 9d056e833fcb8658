//! KRaft's metadata records: the kinds mini-broker writes and understands. Framing is Kafka's
//! `MetadataRecordSerde`: frame version 1, kind and version as varints, then a flexible body.
//! Schemas: Kafka's `metadata/src/main/resources/common/metadata`.

use uuid::Uuid;

use super::codec::{CodecError, Reader, Writer};

const FRAME_VERSION: u32 = 1;
/// PartitionChangeRecord's leader when it did not change.
pub const NO_LEADER_CHANGE: i32 = -2;

const REGISTER_BROKER: u32 = 0;
const TOPIC: u32 = 2;
const PARTITION: u32 = 3;
const CONFIG: u32 = 4;
const PARTITION_CHANGE: u32 = 5;
const REMOVE_TOPIC: u32 = 9;
const FEATURE_LEVEL: u32 = 12;
const PRODUCER_IDS: u32 = 15;
const BROKER_CHANGE: u32 = 17;
const NO_OP: u32 = 20;
const BEGIN_TRANSACTION: u32 = 23;
const END_TRANSACTION: u32 = 24;
const ABORT_TRANSACTION: u32 = 25;

/// Kinds Kafka 4.1 writes that stay in the log untouched and change nothing here yet, with the
/// highest version of each: unregistering and fencing of brokers, delegation tokens, SCRAM users,
/// quotas, ACLs, the ZooKeeper migration, controllers, ELR.
const KEPT: &[(u32, u32)] = &[
    (1, 0),
    (7, 0),
    (8, 0),
    (10, 0),
    (11, 0),
    (14, 0),
    (18, 0),
    (19, 0),
    (21, 0),
    (22, 0),
    (26, 0),
    (27, 0),
    (28, 0),
];

/// Kinds among [`KEPT`] somebody may rely on: tokens, users, quotas, ACLs.
const RELIED_ON: &[u32] = &[10, 11, 14, 18];

/// One metadata record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A broker and its addresses.
    RegisterBroker(BrokerRegistration),
    /// A change of a broker's fencing (-1 unfenced, 1 fenced).
    BrokerChange {
        /// The broker.
        broker_id: i32,
        /// The registration it belongs to.
        broker_epoch: i64,
        /// -1 unfenced, 0 as before, 1 fenced.
        fenced: i8,
    },
    /// A topic; its partitions follow.
    Topic {
        /// Its name.
        name: String,
        /// Its id.
        id: Uuid,
    },
    /// A partition.
    Partition(Partition),
    /// A change of a partition.
    PartitionChange(PartitionChange),
    /// A setting.
    Config(ConfigChange),
    /// A topic's end, with all that belongs to it.
    RemoveTopic {
        /// Its id.
        id: Uuid,
    },
    /// The finalized level of a feature; 0 removes it.
    FeatureLevel {
        /// Its name.
        name: String,
        /// Its level.
        level: i16,
    },
    /// A block of producer ids was given out.
    ProducerIds {
        /// To whom.
        broker_id: i32,
        /// The registration of that broker.
        broker_epoch: i64,
        /// First id of the next block.
        next: i64,
    },
    /// Nothing.
    NoOp,
    /// What follows holds only if an EndTransaction follows (KIP-868).
    BeginTransaction,
    /// What was begun holds.
    EndTransaction,
    /// What was begun does not hold.
    AbortTransaction,
    /// A kind of Kafka's that changes nothing here.
    Kept {
        /// The kind.
        api_key: u32,
    },
}

/// RegisterBrokerRecord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// The broker.
    pub broker_id: i32,
    /// This run of the broker.
    pub incarnation_id: Uuid,
    /// The registration: its own offset in the log.
    pub broker_epoch: i64,
    /// Name, host and port of plaintext listeners.
    pub endpoints: Vec<(String, String, u16)>,
    /// Name, lowest and highest level of the features it can do.
    pub features: Vec<(String, i16, i16)>,
    /// Whether it is fenced.
    pub fenced: bool,
    /// Its data directories.
    pub log_dirs: Vec<Uuid>,
}

/// PartitionRecord: on one node everything has one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub partition_id: i32,
    /// Its topic.
    pub topic_id: Uuid,
    /// Who holds it.
    pub replicas: Vec<i32>,
    /// Who holds all of it.
    pub isr: Vec<i32>,
    /// Who leads.
    pub leader: i32,
    /// Leadership's number.
    pub leader_epoch: i32,
    /// The partition's number of changes.
    pub partition_epoch: i32,
    /// The directory of each replica (KIP-858).
    pub directories: Vec<Uuid>,
}

/// PartitionChangeRecord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionChange {
    /// The partition.
    pub partition_id: i32,
    /// Its topic.
    pub topic_id: Uuid,
    /// The new in-sync replicas, if they changed.
    pub isr: Option<Vec<i32>>,
    /// The new leader, or [`NO_LEADER_CHANGE`].
    pub leader: i32,
}

/// ConfigRecord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// Kind of the resource.
    pub resource_type: i8,
    /// Its name.
    pub resource_name: String,
    /// The setting.
    pub name: String,
    /// Its value; `None` removes it.
    pub value: Option<String>,
}

impl Record {
    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        let (api_key, version) = self.kind();
        w.varint(FRAME_VERSION);
        w.varint(api_key);
        w.varint(version);
        self.write_body(&mut w);
        w.0
    }

    /// Kind and the version we write: those of metadata.version 4.1.
    fn kind(&self) -> (u32, u32) {
        match self {
            Record::RegisterBroker(_) => (REGISTER_BROKER, 3),
            Record::BrokerChange { .. } => (BROKER_CHANGE, 0),
            Record::Topic { .. } => (TOPIC, 0),
            Record::Partition(_) => (PARTITION, 1),
            Record::PartitionChange(_) => (PARTITION_CHANGE, 1),
            Record::Config(_) => (CONFIG, 0),
            Record::RemoveTopic { .. } => (REMOVE_TOPIC, 0),
            Record::FeatureLevel { .. } => (FEATURE_LEVEL, 0),
            Record::ProducerIds { .. } => (PRODUCER_IDS, 0),
            Record::NoOp => (NO_OP, 0),
            Record::BeginTransaction => (BEGIN_TRANSACTION, 0),
            Record::EndTransaction => (END_TRANSACTION, 0),
            Record::AbortTransaction => (ABORT_TRANSACTION, 0),
            Record::Kept { api_key } => (*api_key, 0),
        }
    }

    fn write_body(&self, w: &mut Writer) {
        match self {
            Record::RegisterBroker(b) => return b.write(w),
            Record::Partition(p) => p.write(w),
            Record::PartitionChange(c) => return c.write(w),
            Record::BrokerChange {
                broker_id,
                broker_epoch,
                fenced,
            } => {
                w.i32(*broker_id);
                w.i64(*broker_epoch);
                return match fenced {
                    0 => w.tags(&[]),
                    fenced => w.tags(&[(0, fenced.to_be_bytes().to_vec())]),
                };
            }
            Record::Topic { name, id } => {
                w.string(name);
                w.uuid(id);
            }
            Record::Config(c) => {
                w.i8(c.resource_type);
                w.string(&c.resource_name);
                w.string(&c.name);
                w.nullable_string(c.value.as_deref());
            }
            Record::RemoveTopic { id } => w.uuid(id),
            Record::FeatureLevel { name, level } => {
                w.string(name);
                w.i16(*level);
            }
            Record::ProducerIds {
                broker_id,
                broker_epoch,
                next,
            } => {
                w.i32(*broker_id);
                w.i64(*broker_epoch);
                w.i64(*next);
            }
            Record::NoOp
            | Record::BeginTransaction
            | Record::EndTransaction
            | Record::AbortTransaction
            | Record::Kept { .. } => {}
        }
        w.tags(&[]);
    }

    /// Reads a record as it lies in the log. Never panics, never reserves on a stranger's word.
    pub fn decode(bytes: &[u8]) -> Result<Record, CodecError> {
        let mut r = Reader(bytes);
        match r.varint()? {
            FRAME_VERSION => {}
            other => return Err(CodecError::Frame(other)),
        }
        let (api_key, version) = (r.varint()?, r.varint()?);
        if KEPT.contains(&(api_key, version)) {
            return Ok(Record::Kept { api_key });
        }
        let record = Record::read_body(&mut r, api_key, version)?;
        r.end()?;
        Ok(record)
    }

    fn read_body(r: &mut Reader<'_>, api_key: u32, version: u32) -> Result<Record, CodecError> {
        let record = match (api_key, version) {
            (REGISTER_BROKER, 0..=3) => return BrokerRegistration::read(r, version),
            (PARTITION, 0..=2) => return Partition::read(r, version),
            (PARTITION_CHANGE, 0..=2) => return PartitionChange::read(r),
            (BROKER_CHANGE, 0..=2) => return read_broker_change(r),
            (TOPIC, 0) => Record::Topic {
                name: r.string()?,
                id: r.uuid()?,
            },
            (CONFIG, 0) => Record::Config(ConfigChange {
                resource_type: r.i8()?,
                resource_name: r.string()?,
                name: r.string()?,
                value: r.nullable_string()?,
            }),
            (REMOVE_TOPIC, 0) => Record::RemoveTopic { id: r.uuid()? },
            (FEATURE_LEVEL, 0) => Record::FeatureLevel {
                name: r.string()?,
                level: r.i16()?,
            },
            (PRODUCER_IDS, 0) => Record::ProducerIds {
                broker_id: r.i32()?,
                broker_epoch: r.i64()?,
                next: r.i64()?,
            },
            (NO_OP, 0) => Record::NoOp,
            (BEGIN_TRANSACTION, 0) => Record::BeginTransaction,
            (END_TRANSACTION, 0) => Record::EndTransaction,
            (ABORT_TRANSACTION, 0) => Record::AbortTransaction,
            (api_key, version) => return Err(CodecError::Unknown { api_key, version }),
        };
        r.skip_tags()?;
        Ok(record)
    }

    /// What somebody may rely on although it changes nothing here.
    pub fn is_relied_on(&self) -> bool {
        matches!(self, Record::Kept { api_key } if RELIED_ON.contains(api_key))
    }
}

fn read_broker_change(r: &mut Reader<'_>) -> Result<Record, CodecError> {
    let (broker_id, broker_epoch) = (r.i32()?, r.i64()?);
    let mut fenced = 0;
    r.tags(|tag, r| {
        if tag == 0 {
            fenced = r.i8()?;
        }
        Ok(())
    })?;
    Ok(Record::BrokerChange {
        broker_id,
        broker_epoch,
        fenced,
    })
}

impl BrokerRegistration {
    fn write(&self, w: &mut Writer) {
        w.i32(self.broker_id);
        w.bool(false); // is migrating from ZooKeeper
        w.uuid(&self.incarnation_id);
        w.i64(self.broker_epoch);
        w.array(&self.endpoints, |w, (name, host, port)| {
            w.string(name);
            w.string(host);
            w.u16(*port);
            w.i16(0); // PLAINTEXT
            w.tags(&[]);
        });
        w.array(&self.features, |w, (name, min, max)| {
            w.string(name);
            w.i16(*min);
            w.i16(*max);
            w.tags(&[]);
        });
        w.nullable_string(None); // rack
        w.bool(self.fenced);
        w.bool(false); // in controlled shutdown
        let mut dirs = Writer::default();
        dirs.array(&self.log_dirs, Writer::uuid);
        w.tags(&[(0, dirs.0)]);
    }

    fn read(r: &mut Reader<'_>, version: u32) -> Result<Record, CodecError> {
        let broker_id = r.i32()?;
        if version >= 2 {
            r.bool()?;
        }
        let (incarnation_id, broker_epoch) = (r.uuid()?, r.i64()?);
        let endpoints = r.array(|r| {
            let endpoint = (r.string()?, r.string()?, r.u16()?);
            r.i16()?;
            r.skip_tags()?;
            Ok(endpoint)
        })?;
        let features = r.array(|r| {
            let feature = (r.string()?, r.i16()?, r.i16()?);
            r.skip_tags()?;
            Ok(feature)
        })?;
        r.nullable_string()?;
        let fenced = r.bool()?;
        if version >= 1 {
            r.bool()?;
        }
        let mut log_dirs = Vec::new();
        r.tags(|tag, r| {
            if tag == 0 {
                log_dirs = r.array(Reader::uuid)?;
            }
            Ok(())
        })?;
        Ok(Record::RegisterBroker(BrokerRegistration {
            broker_id,
            incarnation_id,
            broker_epoch,
            endpoints,
            features,
            fenced,
            log_dirs,
        }))
    }
}

impl Partition {
    fn write(&self, w: &mut Writer) {
        let number = |w: &mut Writer, n: &i32| w.i32(*n);
        w.i32(self.partition_id);
        w.uuid(&self.topic_id);
        w.array(&self.replicas, number);
        w.array(&self.isr, number);
        w.array(&[], number); // removing replicas
        w.array(&[], number); // adding replicas
        w.i32(self.leader);
        w.i32(self.leader_epoch);
        w.i32(self.partition_epoch);
        w.array(&self.directories, Writer::uuid);
    }

    fn read(r: &mut Reader<'_>, version: u32) -> Result<Record, CodecError> {
        let (partition_id, topic_id) = (r.i32()?, r.uuid()?);
        let (replicas, isr) = (r.array(Reader::i32)?, r.array(Reader::i32)?);
        r.array(Reader::i32)?;
        r.array(Reader::i32)?;
        let (leader, leader_epoch, partition_epoch) = (r.i32()?, r.i32()?, r.i32()?);
        let directories = if version >= 1 {
            r.array(Reader::uuid)?
        } else {
            Vec::new()
        };
        r.skip_tags()?;
        Ok(Record::Partition(Partition {
            partition_id,
            topic_id,
            replicas,
            isr,
            leader,
            leader_epoch,
            partition_epoch,
            directories,
        }))
    }
}

impl PartitionChange {
    fn write(&self, w: &mut Writer) {
        w.i32(self.partition_id);
        w.uuid(&self.topic_id);
        let mut tags = Vec::new();
        if let Some(isr) = &self.isr {
            let mut content = Writer::default();
            content.array(isr, |w, n| w.i32(*n));
            tags.push((0, content.0));
        }
        if self.leader != NO_LEADER_CHANGE {
            tags.push((1, self.leader.to_be_bytes().to_vec()));
        }
        w.tags(&tags);
    }

    fn read(r: &mut Reader<'_>) -> Result<Record, CodecError> {
        let mut change = PartitionChange {
            partition_id: r.i32()?,
            topic_id: r.uuid()?,
            isr: None,
            leader: NO_LEADER_CHANGE,
        };
        r.tags(|tag, r| {
            match tag {
                0 => change.isr = r.nullable_array(Reader::i32)?,
                1 => change.leader = r.i32()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(Record::PartitionChange(change))
    }
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
