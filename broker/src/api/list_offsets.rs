//! ListOffsets 1–10. −1 latest (the last stable offset under read_committed), −2 earliest, −3 the
//! record with the greatest timestamp (v7, KIP-734), −4 earliest local (v8, KIP-405), −5 latest
//! tiered (v9: nothing is tiered here); any other timestamp: the first record at or after it,
//! exact to the record inside a compressed batch.

use std::collections::HashMap;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::support::{check_leader_epoch, partition_of};
use super::{Answer, Call, error_code};
use crate::log::Stamp;
use crate::topics::{Partition, Topic};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

pub async fn handle(call: Call, request: ListOffsetsRequest) -> Answer {
    let topics = request.topics.iter().map(|topic| {
        let known = call.node.topics().by_name(&topic.name);
        let mut asked: HashMap<i32, usize> = HashMap::new();
        for p in &topic.partitions {
            *asked.entry(p.partition_index).or_default() += 1;
        }
        let partitions = topic.partitions.iter().map(|p| {
            let twice = asked.get(&p.partition_index).is_some_and(|n| *n > 1);
            let found = if twice {
                Err(ResponseError::InvalidRequest)
            } else {
                find(&call, known.as_ref(), p)
            };
            partition_answer(call.version, p.partition_index, found)
        });
        ListOffsetsTopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    let topics = topics.collect();
    call.answer(&ListOffsetsResponse::default().with_topics(topics))
}

/// Offset, timestamp and epoch; −1 for "there is none".
const NONE: Stamp = Stamp {
    offset: -1,
    timestamp: -1,
    leader_epoch: -1,
};

fn find(
    call: &Call,
    topic: Option<&Arc<Topic>>,
    asked: &ListOffsetsPartition,
) -> Result<Stamp, ResponseError> {
    let partition = partition_of(topic, asked.partition_index)?;
    check_leader_epoch(&partition, asked.current_leader_epoch)?;
    let needed_version = match asked.timestamp {
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        t if t < LATEST_TIERED => i16::MAX,
        _ => 0,
    };
    if call.version < needed_version {
        return Err(ResponseError::UnsupportedVersion);
    }
    by_timestamp(&partition, asked.timestamp)
}

fn by_timestamp(partition: &Arc<Partition>, timestamp: i64) -> Result<Stamp, ResponseError> {
    let at = |offset, leader_epoch| Stamp {
        offset,
        timestamp: -1,
        leader_epoch,
    };
    let found = match timestamp {
        LATEST => Some(at(partition.last_stable_offset(), partition.latest_epoch())),
        EARLIEST | EARLIEST_LOCAL => {
            let start = partition.log_start_offset();
            Some(at(start, partition.epoch_at(start)))
        }
        LATEST_TIERED => None,
        MAX_TIMESTAMP => partition
            .max_timestamp()
            .map_err(|e| error_code::of_read(&e))?,
        t => partition
            .offset_for_timestamp(t)
            .map_err(|e| error_code::of_read(&e))?,
    };
    Ok(found.unwrap_or(NONE))
}

fn partition_answer(
    version: i16,
    index: i32,
    found: Result<Stamp, ResponseError>,
) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
    match found {
        Ok(stamp) => {
            let response = response
                .with_offset(stamp.offset)
                .with_timestamp(stamp.timestamp);
            if version >= 4 {
                response.with_leader_epoch(stamp.leader_epoch)
            } else {
                response
            }
        }
        Err(error) => response
            .with_error_code(error.code())
            .with_offset(-1)
            .with_timestamp(-1),
    }
}
