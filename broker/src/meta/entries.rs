//! The catalogue as entries of the index, and back: each entry is a list of metadata records that
//! build one thing. Pure.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::codec::{Reader, Writer};
use super::image::{Image, RESOURCE_TOPIC, TopicInfo};
use super::index::{Changes, Entries};
use super::records::{BrokerRegistration, ConfigChange, Partition, Record};

/// The space of the index.
pub const SPACE: &str = "catalogue";

/// Who holds every partition: this node, in this directory.
#[derive(Debug, Clone, Copy)]
pub struct Holder {
    pub node_id: i32,
    pub directory_id: Uuid,
}

/// The record of one partition of a topic.
pub fn partition(topic: Uuid, number: i32, epochs: (i32, i32), holder: Holder) -> Record {
    Record::Partition(Partition {
        partition_id: number,
        topic_id: topic,
        replicas: vec![holder.node_id],
        isr: vec![holder.node_id],
        leader: holder.node_id,
        leader_epoch: epochs.0,
        partition_epoch: epochs.1,
        directories: vec![holder.directory_id],
    })
}

/// The records that make a topic: itself, its settings, its partitions, as Kafka orders them.
pub fn topic(topic: &TopicInfo, holder: Holder) -> Vec<Record> {
    let mut records = vec![Record::Topic {
        name: topic.name.clone(),
        id: topic.id,
    }];
    records.extend(topic.configs.iter().map(|(name, value)| {
        Record::Config(ConfigChange {
            resource_type: RESOURCE_TOPIC,
            resource_name: topic.name.clone(),
            name: name.clone(),
            value: Some(value.clone()),
        })
    }));
    records.extend((0..).zip(&topic.partitions).map(|(number, p)| {
        partition(
            topic.id,
            number,
            (p.leader_epoch, p.partition_epoch),
            holder,
        )
    }));
    records
}

/// Things of the catalogue that have an entry of their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Topic(Uuid),
    Config(i8, String),
    Feature(String),
    ProducerIds,
    Broker,
}

impl Thing {
    /// Order of the keys is order of the loading: anything may come before the topics.
    fn key(&self) -> Vec<u8> {
        match self {
            Thing::Broker => b"b".to_vec(),
            Thing::Config(kind, name) => {
                [b"c", kind.to_be_bytes().as_slice(), name.as_bytes()].concat()
            }
            Thing::Feature(name) => [b"f", name.as_bytes()].concat(),
            Thing::ProducerIds => b"p".to_vec(),
            Thing::Topic(id) => [b"t", id.as_bytes().as_slice()].concat(),
        }
    }

    /// The records that make it; none when it is gone.
    fn records(&self, image: &Image, holder: Holder) -> Vec<Record> {
        match self {
            Thing::Topic(id) => image
                .topic_by_id(*id)
                .map(|t| topic(t, holder))
                .unwrap_or_default(),
            Thing::Config(kind, name) => image
                .configs(*kind, name)
                .into_iter()
                .flatten()
                .map(|(key, value)| {
                    Record::Config(ConfigChange {
                        resource_type: *kind,
                        resource_name: name.clone(),
                        name: key.clone(),
                        value: Some(value.clone()),
                    })
                })
                .collect(),
            Thing::Feature(name) => image
                .features()
                .get(name)
                .map(|level| Record::FeatureLevel {
                    name: name.clone(),
                    level: *level,
                })
                .into_iter()
                .collect(),
            Thing::ProducerIds => vec![Record::ProducerIds {
                broker_id: holder.node_id,
                broker_epoch: image.broker_epoch,
                next: image.next_producer_id,
            }],
            Thing::Broker => vec![Record::RegisterBroker(BrokerRegistration {
                broker_id: holder.node_id,
                incarnation_id: Uuid::nil(),
                broker_epoch: image.broker_epoch,
                endpoints: vec![],
                features: vec![],
                fenced: false,
                log_dirs: vec![],
            })],
        }
    }
}

/// What of the index changes when `records` were applied and gave `image`.
pub fn changes(records: &[Record], image: &Image, holder: Holder) -> Changes {
    let things: BTreeSet<Thing> = records
        .iter()
        .filter_map(|record| thing_of(record, image))
        .collect();
    to_changes(things, image, holder)
}

/// All of the index, from an image.
pub fn everything(image: &Image, holder: Holder) -> Changes {
    let mut things: BTreeSet<Thing> = image.topics().map(|t| Thing::Topic(t.id)).collect();
    things.extend(
        image
            .config_resources()
            .map(|(kind, name)| Thing::Config(kind, name.to_owned())),
    );
    things.extend(image.features().keys().cloned().map(Thing::Feature));
    things.extend([Thing::ProducerIds, Thing::Broker]);
    to_changes(things, image, holder)
}

fn thing_of(record: &Record, image: &Image) -> Option<Thing> {
    match record {
        Record::Topic { id, .. } | Record::RemoveTopic { id } => Some(Thing::Topic(*id)),
        Record::Partition(p) => Some(Thing::Topic(p.topic_id)),
        Record::PartitionChange(c) => Some(Thing::Topic(c.topic_id)),
        Record::Config(c) if c.resource_type == RESOURCE_TOPIC => {
            Some(Thing::Topic(image.topic(&c.resource_name)?.id))
        }
        Record::Config(c) => Some(Thing::Config(c.resource_type, c.resource_name.clone())),
        Record::FeatureLevel { name, .. } => Some(Thing::Feature(name.clone())),
        Record::ProducerIds { .. } => Some(Thing::ProducerIds),
        Record::RegisterBroker(_) => Some(Thing::Broker),
        _ => None,
    }
}

fn to_changes(things: BTreeSet<Thing>, image: &Image, holder: Holder) -> Changes {
    things
        .into_iter()
        .map(|thing| {
            let records = thing.records(image, holder);
            let value = (!records.is_empty()).then(|| {
                let mut w = Writer::default();
                for record in &records {
                    let bytes = record.encode();
                    w.varint(bytes.len() as u32);
                    w.0.extend(bytes);
                }
                w.0
            });
            (thing.key(), value)
        })
        .collect()
}

/// The image the entries make; `None` when they make none, and the log must be read instead.
pub fn image(entries: &Entries) -> Option<Image> {
    let mut image = Image::default();
    for (_, value) in entries {
        let mut r = Reader(value);
        while !r.0.is_empty() {
            let len = r.varint().ok()? as usize;
            let record = Record::decode(r.bytes(len).ok()?).ok()?;
            image.apply(&record).ok()?;
        }
    }
    Some(image)
}
