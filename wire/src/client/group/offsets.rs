//! The group's committed offsets: OffsetCommit and OffsetFetch, to and from the protocol's shape.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{OffsetCommitRequest, OffsetFetchRequest};
use kafka_protocol::protocol::StrBytes;

use super::member::{Coordinator, Membership};
use super::{CommitOffset, TopicPartition};
use crate::client::offsets::by_topic;
use crate::client::pool::Lane;
use crate::client::{ClientError, Result, topic_name};

/// Asks once.
pub(super) async fn fetch_committed(
    coordinator: &Coordinator,
    tps: &[TopicPartition],
    limit: Duration,
) -> Result<HashMap<TopicPartition, Option<CommitOffset>>> {
    let topics = by_topic(tps).into_iter().map(|(topic, partitions)| {
        OffsetFetchRequestTopic::default()
            .with_name(topic_name(&topic))
            .with_partition_indexes(partitions)
    });
    let topics: Vec<OffsetFetchRequestTopic> = topics.collect();
    // Version 8 on asks for many groups at once: one is enough here.
    let make = |version| {
        let req = OffsetFetchRequest::default()
            .with_group_id(coordinator.group_id())
            .with_topics(Some(topics));
        // KIP-447: offsets of a transaction that may still abort are worth waiting for.
        req.with_require_stable(version >= 7)
    };
    let answer = coordinator.ask(Lane::Group, 7, limit, make).await?;
    coordinator.check(answer.error_code, "asking for committed offsets")?;
    let mut found: HashMap<TopicPartition, Option<CommitOffset>> =
        tps.iter().map(|tp| (tp.clone(), None)).collect();
    for topic in answer.topics {
        let name: Arc<str> = Arc::from(topic.name.0.as_str());
        for p in topic.partitions {
            coordinator.check(
                p.error_code,
                &format!(
                    "asking for the committed offset of {name}-{}",
                    p.partition_index
                ),
            )?;
            let tp = TopicPartition {
                topic: name.clone(),
                partition: p.partition_index,
            };
            let committed = CommitOffset {
                offset: p.committed_offset,
                leader_epoch: p.committed_leader_epoch,
                metadata: p.metadata.map_or_else(String::new, |m| m.to_string()),
            };
            found.insert(tp, (committed.offset >= 0).then_some(committed));
        }
    }
    Ok(found)
}

/// Commits once; the first partition's error counts.
pub(super) async fn commit(
    coordinator: &Coordinator,
    membership: &Membership,
    instance_id: Option<&str>,
    offsets: &[(TopicPartition, CommitOffset)],
    limit: Duration,
) -> Result<()> {
    let by_tp: HashMap<&TopicPartition, &CommitOffset> =
        offsets.iter().map(|(tp, c)| (tp, c)).collect();
    let make = |version| {
        let topics = by_topic(by_tp.keys().copied())
            .into_iter()
            .map(|(topic, partitions)| {
                let partitions = partitions.into_iter().filter_map(|p| {
                    let c = by_tp.get(&TopicPartition {
                        topic: topic.clone(),
                        partition: p,
                    })?;
                    let partition = OffsetCommitRequestPartition::default()
                        .with_partition_index(p)
                        .with_committed_offset(c.offset)
                        .with_committed_metadata(Some(StrBytes::from_string(c.metadata.clone())));
                    Some(if version >= 6 {
                        partition.with_committed_leader_epoch(c.leader_epoch)
                    } else {
                        partition
                    })
                });
                OffsetCommitRequestTopic::default()
                    .with_name(topic_name(&topic))
                    .with_partitions(partitions.collect())
            });
        OffsetCommitRequest::default()
            .with_group_id(coordinator.group_id())
            .with_generation_id_or_member_epoch(membership.generation)
            .with_member_id(StrBytes::from_string(membership.member_id.clone()))
            .with_group_instance_id(instance_id.map(|i| StrBytes::from_string(i.to_owned())))
            .with_topics(topics.collect())
    };
    let answer = coordinator.ask(Lane::Group, i16::MAX, limit, make).await?;
    let answers = answer
        .topics
        .iter()
        .flat_map(|t| t.partitions.iter().map(move |p| (t, p)));
    for (topic, p) in answers {
        if p.error_code != 0 {
            let what = format!("committing {}-{}", topic.name.0.as_str(), p.partition_index);
            coordinator.check(p.error_code, &what)?;
            return Err(ClientError::from_code(p.error_code, what));
        }
    }
    Ok(())
}
