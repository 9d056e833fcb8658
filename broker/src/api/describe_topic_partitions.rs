//! DescribeTopicPartitions 0 (KIP-966): topics in order of their names, a page at a time.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_request::Cursor as RequestCursor;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
};

use super::support::{topic_name, topic_operations};
use super::{Answer, Call};
use crate::topics::{Partition, Topic};

/// Partitions in one answer at most (`max.request.partition.size.limit`).
const MAX_PARTITIONS: usize = 2000;

pub async fn handle(call: Call, request: DescribeTopicPartitionsRequest) -> Answer {
    let mut names: Vec<String> = if request.topics.is_empty() {
        call.node
            .topics()
            .all()
            .iter()
            .map(|t| t.name().to_owned())
            .collect()
    } else {
        request.topics.iter().map(|t| t.name.to_string()).collect()
    };
    names.sort_unstable();
    names.dedup();
    if let Some(cursor) = &request.cursor
        && !fits(cursor, &names, request.topics.is_empty())
    {
        let refused = names.iter().map(|name| {
            DescribeTopicPartitionsResponseTopic::default()
                .with_error_code(ResponseError::InvalidRequest.code())
                .with_name(Some(topic_name(name)))
        });
        let refused = DescribeTopicPartitionsResponse::default().with_topics(refused.collect());
        return call.answer(&refused);
    }
    let (from_topic, from_partition) = match &request.cursor {
        Some(cursor) => (
            cursor.topic_name.to_string(),
            cursor.partition_index.max(0) as usize,
        ),
        None => (String::new(), 0),
    };
    let mut left = (request.response_partition_limit.max(1) as usize).min(MAX_PARTITIONS);
    let (mut topics, mut next) = (Vec::new(), None);
    for name in names.iter().filter(|n| **n >= from_topic) {
        if left == 0 {
            next = Some(cursor(name, 0));
            break;
        }
        let skip = if *name == from_topic {
            from_partition
        } else {
            0
        };
        let Some(topic) = call.node.topics().by_name(name) else {
            topics.push(missing(name));
            continue;
        };
        let (described, taken) = describe(&call, &topic, skip, left);
        topics.push(described);
        left -= taken;
        if skip + taken < topic.partitions().len() {
            next = Some(cursor(name, skip + taken));
            break;
        }
    }
    let response = DescribeTopicPartitionsResponse::default()
        .with_topics(topics)
        .with_next_cursor(next);
    call.answer(&response)
}

/// A cursor is one an answer has given out: it names a topic that was asked for.
fn fits(cursor: &RequestCursor, names: &[String], everything: bool) -> bool {
    let named = names.iter().any(|n| **n == *cursor.topic_name.0);
    cursor.partition_index >= 0 && (everything || named)
}

fn cursor(name: &str, partition: usize) -> Cursor {
    Cursor::default()
        .with_topic_name(topic_name(name))
        .with_partition_index(partition as i32)
}

fn missing(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let error = match crate::meta::topic_name::validate(name) {
        Ok(()) => ResponseError::UnknownTopicOrPartition,
        Err(_) => ResponseError::InvalidTopicException,
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(topic_name(name)))
        .with_topic_authorized_operations(topic_operations(true))
}

fn describe(
    call: &Call,
    topic: &Arc<Topic>,
    skip: usize,
    limit: usize,
) -> (DescribeTopicPartitionsResponseTopic, usize) {
    let me = BrokerId(call.node.node_id());
    let one = |p: &Arc<Partition>| {
        DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(p.index())
            .with_leader_id(me)
            .with_leader_epoch(p.leader_epoch())
            .with_replica_nodes(vec![me])
            .with_isr_nodes(vec![me])
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
    };
    let partitions: Vec<_> = topic
        .partitions()
        .iter()
        .skip(skip)
        .take(limit)
        .map(one)
        .collect();
    let taken = partitions.len();
    let described = DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name(topic.name())))
        .with_topic_id(topic.id())
        .with_is_internal(topic.is_internal())
        .with_partitions(partitions)
        .with_topic_authorized_operations(topic_operations(true));
    (described, taken)
}
