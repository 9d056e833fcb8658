//! OffsetCommit 2–9. Answered when the offsets are durable. Partitions that do not exist are
//! refused one by one; the others are committed.

use std::collections::{HashMap, HashSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::support::{optional, partition_of};
use super::{Answer, Call, error_code};
use crate::groups::{CommitPartition, CommitRequest, CommitTopic, Reply};

pub async fn handle(call: Call, request: OffsetCommitRequest) -> Answer {
    let topics = known_topics(&call, &request);
    // What is not there is told as such, whatever the group says of the rest.
    let known: HashSet<(String, i32)> = topics
        .iter()
        .flat_map(|t| t.partitions.iter().map(|p| (t.name.clone(), p.partition)))
        .collect();
    let commit = CommitRequest {
        group_id: request.group_id.to_string(),
        generation: request.generation_id_or_member_epoch,
        member_id: request.member_id.to_string(),
        group_instance_id: optional(request.group_instance_id.clone()),
        retention_time_ms: if call.version <= 4 {
            request.retention_time_ms
        } else {
            -1
        },
        group_not_found_allowed: call.version >= 9,
        topics,
    };
    let reply = call
        .node
        .groups()
        .submit(|groups, now, token| groups.commit(now, token, commit))
        .await;
    let mut results: HashMap<(String, i32), i16> = HashMap::new();
    let all = match reply {
        Ok(Reply::Commit(Ok(topics))) => {
            for topic in topics {
                for (partition, error) in topic.partitions {
                    let code = error.map_or(0, |e| error_code::of_group(e).code());
                    results.insert((topic.name.clone(), partition), code);
                }
            }
            None
        }
        Ok(Reply::Commit(Err(error))) => Some(error_code::of_group(error)),
        Ok(_) => Some(ResponseError::UnknownServerError),
        Err(error) => Some(error_code::of_coordinator(&error)),
    };
    // The answer follows the request, topic by topic.
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| {
            let key = (topic.name.to_string(), p.partition_index);
            let unknown = ResponseError::UnknownTopicOrPartition.code();
            let code = match all {
                _ if !known.contains(&key) => unknown,
                Some(error) => error.code(),
                None => results.get(&key).copied().unwrap_or(unknown),
            };
            OffsetCommitResponsePartition::default()
                .with_partition_index(p.partition_index)
                .with_error_code(code)
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    let topics = topics.collect();
    call.answer(&OffsetCommitResponse::default().with_topics(topics))
}

fn known_topics(call: &Call, request: &OffsetCommitRequest) -> Vec<CommitTopic> {
    let topics = request.topics.iter().map(|asked| {
        let topic = call.node.topics().by_name(&asked.name);
        let known = asked
            .partitions
            .iter()
            .filter(|p| partition_of(topic.as_ref(), p.partition_index).is_ok())
            .map(|p| CommitPartition {
                partition: p.partition_index,
                offset: p.committed_offset,
                leader_epoch: if call.version >= 6 {
                    p.committed_leader_epoch
                } else {
                    -1
                },
                metadata: optional(p.committed_metadata.clone()),
            });
        CommitTopic {
            name: asked.name.to_string(),
            partitions: known.collect(),
        }
    });
    topics.filter(|t| !t.partitions.is_empty()).collect()
}
