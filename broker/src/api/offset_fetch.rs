//! OffsetFetch 1–9. All partitions of a group when the topics are null (v2), many groups at once
//! from v8 (KIP-709). Member id and epoch of v9 are for KIP-848's groups; classic ones ignore them.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};

use super::support::{text, topic_name};
use super::{Answer, Call, error_code};
use crate::groups::FetchedTopic;

type Asked = Option<Vec<(String, Vec<i32>)>>;

pub async fn handle(call: Call, request: OffsetFetchRequest) -> Answer {
    if call.version >= 8 {
        return many_groups(call, request);
    }
    let asked: Asked = request.topics.map(|topics| {
        topics
            .into_iter()
            .map(|t| (t.name.to_string(), t.partition_indexes))
            .collect()
    });
    let found = fetch(&call, &request.group_id, asked.as_ref());
    let mut response = OffsetFetchResponse::default();
    match found {
        Ok(topics) => {
            let topics = topics.into_iter().map(|t| single_topic(call.version, t));
            response.topics = topics.collect();
        }
        Err(error) if call.version >= 2 => response.error_code = error.code(),
        // v1 has room for errors in partitions only.
        Err(error) => {
            for (name, partitions) in asked.into_iter().flatten() {
                let partitions = partitions.into_iter().map(|p| {
                    OffsetFetchResponsePartition::default()
                        .with_partition_index(p)
                        .with_committed_offset(-1)
                        .with_metadata(Some(text("")))
                        .with_error_code(error.code())
                });
                let topic = OffsetFetchResponseTopic::default()
                    .with_name(topic_name(name))
                    .with_partitions(partitions.collect());
                response.topics.push(topic);
            }
        }
    }
    call.answer(&response)
}

fn fetch(
    call: &Call,
    group: &str,
    asked: Option<&Vec<(String, Vec<i32>)>>,
) -> Result<Vec<FetchedTopic>, ResponseError> {
    call.node
        .groups()
        .look(|groups| groups.fetch_offsets(group, asked.map(Vec::as_slice)))
        .map_err(error_code::of_group)
}

fn single_topic(version: i16, topic: FetchedTopic) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(|p| {
        let answer = OffsetFetchResponsePartition::default()
            .with_partition_index(p.partition)
            .with_committed_offset(p.offset)
            .with_metadata(Some(text(p.metadata)))
            .with_error_code(p.error.map_or(0, |e| error_code::of_group(e).code()));
        if version >= 5 {
            answer.with_committed_leader_epoch(p.leader_epoch)
        } else {
            answer
        }
    });
    OffsetFetchResponseTopic::default()
        .with_name(topic_name(topic.name))
        .with_partitions(partitions.collect())
}

fn many_groups(call: Call, request: OffsetFetchRequest) -> Answer {
    let groups = request.groups.into_iter().map(|asked| {
        let topics: Asked = asked.topics.map(|topics| {
            topics
                .into_iter()
                .map(|t| (t.name.to_string(), t.partition_indexes))
                .collect()
        });
        let found = fetch(&call, &asked.group_id, topics.as_ref());
        let group = OffsetFetchResponseGroup::default().with_group_id(asked.group_id);
        match found {
            Ok(topics) => group.with_topics(topics.into_iter().map(group_topic).collect()),
            Err(error) => group.with_error_code(error.code()),
        }
    });
    let groups = groups.collect();
    call.answer(&OffsetFetchResponse::default().with_groups(groups))
}

fn group_topic(topic: FetchedTopic) -> OffsetFetchResponseTopics {
    let partitions = topic.partitions.into_iter().map(|p| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(p.partition)
            .with_committed_offset(p.offset)
            .with_committed_leader_epoch(p.leader_epoch)
            .with_metadata(Some(text(p.metadata)))
            .with_error_code(p.error.map_or(0, |e| error_code::of_group(e).code()))
    });
    OffsetFetchResponseTopics::default()
        .with_name(topic_name(topic.name))
        .with_partitions(partitions.collect())
}
