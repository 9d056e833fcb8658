//! What the catalogue's log adds up to: topics, their settings, producer ids, features. A value;
//! knows the records and nothing of files.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use super::records::{NO_LEADER_CHANGE, Record};
use super::topic_name;

/// Resource types of ConfigRecord (`org.apache.kafka.common.config.ConfigResource.Type`).
pub const RESOURCE_TOPIC: i8 = 2;
/// A broker, by its number; the empty name is the default of all brokers.
pub const RESOURCE_BROKER: i8 = 4;
/// A group.
pub const RESOURCE_GROUP: i8 = 32;

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Its id: a topic created again under the same name has another one.
    pub id: Uuid,
    /// Its partitions, by number, without gaps.
    pub partitions: Vec<PartitionInfo>,
    /// Its own settings, as text.
    pub configs: BTreeMap<String, String>,
    /// Whether it is one of Kafka's internal topics.
    pub internal: bool,
}

/// One partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Grows with each change of leadership; stored with every batch.
    pub leader_epoch: i32,
    /// Grows with each change of the partition.
    pub partition_epoch: i32,
}

/// The catalogue at one offset of its log. Never changes; a change makes a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    topics: BTreeMap<String, Arc<TopicInfo>>,
    names: HashMap<Uuid, String>,
    configs: BTreeMap<(i8, String), BTreeMap<String, String>>,
    features: BTreeMap<String, i16>,
    /// First producer id that was never handed out in a block.
    pub next_producer_id: i64,
    /// Epoch of this broker: the offset of its registration.
    pub broker_epoch: i64,
}

impl Image {
    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicInfo>> {
        self.topics.values()
    }

    /// How many topics there are.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicInfo>> {
        self.topics.get(name)
    }

    /// The topic of this id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<TopicInfo>> {
        self.topics.get(self.names.get(&id)?)
    }

    /// Another topic whose name cannot be told from this one in metrics ('.' and '_').
    pub fn colliding(&self, name: &str) -> Option<&str> {
        // Only names with such a character can collide, and most have none.
        if !name.contains(['.', '_']) {
            return None;
        }
        self.topics
            .keys()
            .map(String::as_str)
            .find(|other| *other != name && topic_name::collide(name, other))
    }

    /// Settings of a resource that is no topic, such as a broker's dynamic ones.
    pub fn configs(&self, resource_type: i8, name: &str) -> Option<&BTreeMap<String, String>> {
        self.configs.get(&(resource_type, name.to_owned()))
    }

    /// Kind and name of every resource but topics that has settings.
    pub fn config_resources(&self) -> impl Iterator<Item = (i8, &str)> {
        self.configs
            .keys()
            .map(|(kind, name)| (*kind, name.as_str()))
    }

    /// Finalized features and their levels.
    pub fn features(&self) -> &BTreeMap<String, i16> {
        &self.features
    }

    /// Applies one record. The error says in words what does not fit.
    pub(super) fn apply(&mut self, record: &Record) -> Result<(), String> {
        match record {
            Record::Topic { name, id } => self.apply_topic(name, *id)?,
            Record::Partition(p) => {
                let topic = self.topic_mut(p.topic_id)?;
                // Partitions are written in order and never removed one by one.
                let at = usize::try_from(p.partition_id).unwrap_or(usize::MAX);
                let info = PartitionInfo {
                    leader_epoch: p.leader_epoch,
                    partition_epoch: p.partition_epoch,
                };
                if at == topic.partitions.len() {
                    topic.partitions.push(info);
                } else if let Some(there) = topic.partitions.get_mut(at) {
                    *there = info;
                } else {
                    return Err(format!("partition {} leaves a gap", p.partition_id));
                }
            }
            Record::PartitionChange(c) => {
                let topic = self.topic_mut(c.topic_id)?;
                let partition = usize::try_from(c.partition_id)
                    .ok()
                    .and_then(|at| topic.partitions.get_mut(at))
                    .ok_or_else(|| format!("change of unknown partition {}", c.partition_id))?;
                // Kafka's PartitionRegistration.merge: a named leader is a new leadership.
                if c.leader != NO_LEADER_CHANGE {
                    partition.leader_epoch = partition.leader_epoch.saturating_add(1);
                }
                partition.partition_epoch = partition.partition_epoch.saturating_add(1);
            }
            Record::RemoveTopic { id } => {
                let name = self
                    .names
                    .remove(id)
                    .ok_or_else(|| format!("removal of unknown topic id {id}"))?;
                self.topics.remove(&name);
            }
            Record::Config(c) => self.apply_config(c.clone())?,
            Record::FeatureLevel { name, level } => {
                match level {
                    0 => self.features.remove(name),
                    level => self.features.insert(name.clone(), *level),
                };
            }
            Record::ProducerIds { next, .. } => {
                self.next_producer_id = self.next_producer_id.max(*next);
            }
            Record::RegisterBroker(b) => self.broker_epoch = b.broker_epoch,
            Record::BrokerChange { .. } | Record::NoOp | Record::Kept { .. } => {}
            Record::BeginTransaction | Record::EndTransaction | Record::AbortTransaction => {
                return Err("a transaction mark where a change was expected".into());
            }
        }
        Ok(())
    }

    fn apply_topic(&mut self, name: &str, id: Uuid) -> Result<(), String> {
        topic_name::validate(name)?;
        if self.topics.contains_key(name) || self.names.contains_key(&id) {
            return Err(format!("topic {name} ({id}) exists twice"));
        }
        let topic = TopicInfo {
            name: name.to_owned(),
            id,
            partitions: Vec::new(),
            configs: BTreeMap::new(),
            internal: topic_name::is_internal(name),
        };
        self.names.insert(id, name.to_owned());
        self.topics.insert(name.to_owned(), Arc::new(topic));
        Ok(())
    }

    fn apply_config(&mut self, c: super::records::ConfigChange) -> Result<(), String> {
        let resource = (c.resource_type, c.resource_name);
        let configs = if resource.0 == RESOURCE_TOPIC {
            let topic = self
                .topics
                .get_mut(&resource.1)
                .ok_or_else(|| format!("setting of unknown topic {}", resource.1))?;
            &mut Arc::make_mut(topic).configs
        } else {
            self.configs.entry(resource.clone()).or_default()
        };
        match c.value {
            Some(value) => configs.insert(c.name, value),
            None => configs.remove(&c.name),
        };
        if resource.0 != RESOURCE_TOPIC && configs.is_empty() {
            self.configs.remove(&resource);
        }
        Ok(())
    }

    fn topic_mut(&mut self, id: Uuid) -> Result<&mut TopicInfo, String> {
        self.names
            .get(&id)
            .and_then(|name| self.topics.get_mut(name))
            .map(Arc::make_mut)
            .ok_or_else(|| format!("unknown topic id {id}"))
    }
}
