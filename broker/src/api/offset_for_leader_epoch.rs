//! OffsetForLeaderEpoch 2–4 (KIP-320): where an epoch ended, so that a consumer notices what a
//! crash has cut off.

use std::sync::Arc;

use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::support::{check_leader_epoch, partition_of};
use super::{Answer, Call};
use crate::topics::Topic;

pub async fn handle(call: Call, request: OffsetForLeaderEpochRequest) -> Answer {
    let topics = request.topics.iter().map(|asked| {
        let topic = call.node.topics().by_name(&asked.topic);
        let partitions = asked.partitions.iter().map(|p| end_of(topic.as_ref(), p));
        OffsetForLeaderTopicResult::default()
            .with_topic(asked.topic.clone())
            .with_partitions(partitions.collect())
    });
    let topics = topics.collect();
    call.answer(&OffsetForLeaderEpochResponse::default().with_topics(topics))
}

fn end_of(topic: Option<&Arc<Topic>>, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let found = partition_of(topic, asked.partition).and_then(|partition| {
        check_leader_epoch(&partition, asked.current_leader_epoch)?;
        Ok(partition
            .epoch_end_offset(asked.leader_epoch)
            .unwrap_or((-1, -1)))
    });
    let (error, (epoch, end)) = match found {
        Ok(found) => (0, found),
        Err(error) => (error.code(), (-1, -1)),
    };
    EpochEndOffset::default()
        .with_error_code(error)
        .with_partition(asked.partition)
        .with_leader_epoch(epoch)
        .with_end_offset(end)
}
