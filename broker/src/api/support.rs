//! Small things several handlers need: strings into the codec's type, the broker's own endpoint,
//! the leader-epoch fence, the operations everyone may do.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;

use super::Call;
use crate::topics::{Partition, Topic};

/// What a topic allows when no authorizer is set (Kafka's `AclEntry.supportedOperations`): read,
/// write, create, delete, alter, describe, describe configs, alter configs.
const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// The same for the cluster: create, alter, describe, cluster action, describe and alter configs,
/// idempotent write.
const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;
/// "Not asked for".
const NO_OPERATIONS: i32 = i32::MIN;

/// The topic operations for an answer.
pub fn topic_operations(asked: bool) -> i32 {
    if asked {
        TOPIC_OPERATIONS
    } else {
        NO_OPERATIONS
    }
}

/// The cluster operations for an answer.
pub fn cluster_operations(asked: bool) -> i32 {
    if asked {
        CLUSTER_OPERATIONS
    } else {
        NO_OPERATIONS
    }
}

/// A string for the codec.
pub fn text(s: impl AsRef<str>) -> StrBytes {
    StrBytes::from_string(s.as_ref().to_owned())
}

/// A topic name for the codec.
pub fn topic_name(s: impl AsRef<str>) -> TopicName {
    TopicName(text(s))
}

/// A codec string that may be null, as an owned one.
pub fn optional(s: Option<StrBytes>) -> Option<String> {
    s.map(|s| s.to_string())
}

/// The host and port this client should use.
pub fn endpoint(call: &Call) -> (StrBytes, i32) {
    let (host, port) = call.node.advertised(call.client.local);
    (StrBytes::from_string(host), i32::from(port))
}

/// A partition of a topic, or the error Kafka has for a missing one.
pub fn partition_of(
    topic: Option<&Arc<Topic>>,
    index: i32,
) -> Result<Arc<Partition>, ResponseError> {
    topic
        .and_then(|t| t.partition(index))
        .cloned()
        .ok_or(ResponseError::UnknownTopicOrPartition)
}

/// Refuses a client whose view of the leader epoch is older or newer than ours (KIP-320). −1: the
/// client does not know.
pub fn check_leader_epoch(partition: &Partition, told: i32) -> Result<(), ResponseError> {
    let current = partition.leader_epoch();
    match told {
        told if told < 0 || told == current => Ok(()),
        told if told < current => Err(ResponseError::FencedLeaderEpoch),
        _ => Err(ResponseError::UnknownLeaderEpoch),
    }
}

/// 0 for no error.
pub fn code(result: Result<(), ResponseError>) -> i16 {
    result.err().map_or(0, |e| e.code())
}
