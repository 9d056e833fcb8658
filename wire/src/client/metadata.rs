//! What the cluster looks like: brokers, topics, leaders. Plain data made from a Metadata response.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::messages::MetadataResponse;
use uuid::Uuid;

/// The cluster as one Metadata response showed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster's id, where the broker tells it.
    pub cluster_id: Option<String>,
    /// Node id of the controller, −1 if unknown.
    pub controller: i32,
    /// Brokers by node id.
    pub brokers: HashMap<i32, BrokerInfo>,
    /// Topics by name; with `error` set where the broker could not describe one.
    pub topics: BTreeMap<String, TopicMeta>,
}

/// One broker's advertised address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerInfo {
    /// Node id.
    pub node_id: i32,
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: i32,
    /// Rack, if told.
    pub rack: Option<String>,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMeta {
    /// Name.
    pub name: String,
    /// Topic id, nil before Metadata v10.
    pub id: Uuid,
    /// Whether it is one of Kafka's internal topics.
    pub internal: bool,
    /// Kafka's error code for this topic, 0 if none.
    pub error: i16,
    /// Partitions in order of their index.
    pub partitions: Vec<PartitionMeta>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMeta {
    /// Number of the partition.
    pub index: i32,
    /// Node id of the leader, −1 if there is none.
    pub leader: i32,
    /// Leader epoch, −1 if unknown.
    pub leader_epoch: i32,
    /// Nodes that hold a replica.
    pub replicas: Vec<i32>,
    /// Nodes whose replica is in sync.
    pub isr: Vec<i32>,
    /// Kafka's error code, 0 if none.
    pub error: i16,
}

impl Cluster {
    /// The leader of a partition, if there is one.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        let t = self.topics.get(topic)?;
        let p = t.partitions.iter().find(|p| p.index == partition)?;
        (p.leader >= 0).then_some(p.leader)
    }

    pub(crate) fn from_response(r: MetadataResponse) -> Cluster {
        let brokers = r.brokers.into_iter().map(|b| {
            let info = BrokerInfo {
                node_id: b.node_id.0,
                host: b.host.to_string(),
                port: b.port,
                rack: b.rack.map(|s| s.to_string()),
            };
            (info.node_id, info)
        });
        let topics = r.topics.into_iter().filter_map(|t| {
            let name = t.name.as_ref()?.0.to_string();
            let mut partitions: Vec<PartitionMeta> = t
                .partitions
                .into_iter()
                .map(|p| PartitionMeta {
                    index: p.partition_index,
                    leader: p.leader_id.0,
                    leader_epoch: p.leader_epoch,
                    replicas: p.replica_nodes.iter().map(|n| n.0).collect(),
                    isr: p.isr_nodes.iter().map(|n| n.0).collect(),
                    error: p.error_code,
                })
                .collect();
            partitions.sort_by_key(|p| p.index);
            let id = t.topic_id;
            Some((
                name.clone(),
                TopicMeta {
                    name,
                    id,
                    internal: t.is_internal,
                    error: t.error_code,
                    partitions,
                },
            ))
        });
        Cluster {
            cluster_id: r.cluster_id.map(|s| s.to_string()),
            controller: r.controller_id.0,
            brokers: brokers.collect(),
            topics: topics.collect(),
        }
    }
}
