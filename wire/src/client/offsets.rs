//! Offsets by timestamp (ListOffsets), asked of each partition's leader.

use std::collections::HashMap;
use std::sync::Arc;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest};

use super::group::TopicPartition;
use super::pool::Lane;
use super::{Client, ClientError, Cluster, Result, To, codes, topic_name};

/// After the last record.
pub const LATEST: i64 = -1;
/// The first record.
pub const EARLIEST: i64 = -2;

impl Client {
    /// Offset of the first record at or after `timestamp` (−1 latest, −2 earliest, −3 newest
    /// timestamp); −1 if there is none. Retried until the request timeout.
    pub async fn list_offset(&self, topic: &str, partition: i32, timestamp: i64) -> Result<i64> {
        let tp = TopicPartition::new(topic, partition);
        let found = self
            .list_offsets(std::slice::from_ref(&tp), timestamp, false)
            .await?;
        found.get(&tp).copied().ok_or_else(|| missing(&tp))
    }

    /// As [`Client::list_offset`], for many partitions; one request per leader.
    pub async fn list_offsets(
        &self,
        tps: &[TopicPartition],
        timestamp: i64,
        read_committed: bool,
    ) -> Result<HashMap<TopicPartition, i64>> {
        self.retrying(|| self.list_offsets_once(tps, timestamp, read_committed))
            .await
    }

    pub(crate) async fn list_offsets_once(
        &self,
        tps: &[TopicPartition],
        timestamp: i64,
        read_committed: bool,
    ) -> Result<HashMap<TopicPartition, i64>> {
        let mut found = HashMap::with_capacity(tps.len());
        if tps.is_empty() {
            return Ok(found);
        }
        let cluster = self.metadata_once(Some(&topics_of(tps)), false).await?;
        for (node, tps) in by_leader(&cluster, tps)? {
            // Version 10 adds a timeout for tiered storage; nothing here needs it.
            let make = |version| {
                let isolation = i8::from(read_committed && version >= 2);
                let topics = by_topic(&tps).into_iter().map(|(topic, partitions)| {
                    let partitions = partitions.into_iter().map(|p| {
                        ListOffsetsPartition::default()
                            .with_partition_index(p)
                            .with_current_leader_epoch(-1)
                            .with_timestamp(timestamp)
                    });
                    ListOffsetsTopic::default()
                        .with_name(topic_name(&topic))
                        .with_partitions(partitions.collect())
                });
                ListOffsetsRequest::default()
                    .with_replica_id(BrokerId(-1))
                    .with_isolation_level(isolation)
                    .with_topics(topics.collect())
            };
            let limit = self.config().request_timeout;
            let answer = self
                .send(To::Node(node), Lane::Main, 9, limit, make)
                .await?;
            for topic in answer.topics {
                let name: Arc<str> = Arc::from(topic.name.0.as_str());
                for p in topic.partitions {
                    let tp = TopicPartition {
                        topic: name.clone(),
                        partition: p.partition_index,
                    };
                    ClientError::check(p.error_code, || format!("asking for offsets of {tp}"))?;
                    found.insert(tp, p.offset);
                }
            }
        }
        match tps.iter().find(|tp| !found.contains_key(tp)) {
            Some(tp) => Err(missing(tp)),
            None => Ok(found),
        }
    }
}

fn missing(tp: &TopicPartition) -> ClientError {
    ClientError::Broker {
        code: codes::UNKNOWN_TOPIC_OR_PARTITION,
        context: format!("no offset told for {tp}"),
    }
}

pub(crate) fn topics_of(tps: &[TopicPartition]) -> Vec<String> {
    let mut topics: Vec<String> = tps.iter().map(|tp| tp.topic.to_string()).collect();
    topics.sort();
    topics.dedup();
    topics
}

pub(crate) fn by_topic<'a>(
    tps: impl IntoIterator<Item = &'a TopicPartition>,
) -> HashMap<Arc<str>, Vec<i32>> {
    let mut topics: HashMap<Arc<str>, Vec<i32>> = HashMap::new();
    for tp in tps {
        topics
            .entry(tp.topic.clone())
            .or_default()
            .push(tp.partition);
    }
    topics
}

/// Partitions by leader; an error (retriable) if one has none.
fn by_leader(
    cluster: &Cluster,
    tps: &[TopicPartition],
) -> Result<HashMap<i32, Vec<TopicPartition>>> {
    let mut nodes: HashMap<i32, Vec<TopicPartition>> = HashMap::new();
    for tp in tps {
        let Some(leader) = cluster.leader(&tp.topic, tp.partition) else {
            let code = match cluster.topics.get(&*tp.topic) {
                Some(t) if t.error != 0 => t.error,
                Some(t) if t.partitions.iter().any(|p| p.index == tp.partition) => {
                    codes::LEADER_NOT_AVAILABLE
                }
                _ => codes::UNKNOWN_TOPIC_OR_PARTITION,
            };
            return Err(ClientError::Broker {
                code,
                context: format!("looking for the leader of {tp}"),
            });
        };
        nodes.entry(leader).or_default().push(tp.clone());
    }
    Ok(nodes)
}
