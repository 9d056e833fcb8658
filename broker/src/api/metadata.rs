//! Metadata 0–13. One broker that is leader and controller of everything; topics by id from v12
//! (KIP-516). A topic asked for by name is created when the client (from v4) and
//! `auto.create.topics.enable` allow it, and is usable in the same answer.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse};
use uuid::Uuid;

use super::support::{cluster_operations, endpoint, text, topic_name, topic_operations};
use super::{Answer, Call, error_code};
use crate::topics::Topic;

pub async fn handle(call: Call, request: MetadataRequest) -> Answer {
    let operations = request.include_topic_authorized_operations;
    let node_id = call.node.node_id();
    let everything = match &request.topics {
        None => true,
        // Before v1 there was no null: an empty list asked for everything.
        Some(list) => call.version == 0 && list.is_empty(),
    };
    let mut topics = Vec::new();
    if everything {
        let all = call.node.topics().all();
        topics.extend(
            all.iter()
                .map(|t| described(call.version, t, node_id, operations)),
        );
    } else {
        for asked in request.topics.iter().flatten() {
            let name = asked.name.as_ref().map(|n| n.to_string());
            topics.push(match name {
                Some(name) => {
                    let create = call.version < 4 || request.allow_auto_topic_creation;
                    match by_name(&call, &name, create).await {
                        Ok(topic) => described(call.version, &topic, node_id, operations),
                        Err(error) => missing(call.version, Some(&name), Uuid::nil(), error),
                    }
                }
                None => match call.node.topics().by_id(asked.topic_id) {
                    Some(topic) => described(call.version, &topic, node_id, operations),
                    None => missing(
                        call.version,
                        None,
                        asked.topic_id,
                        ResponseError::UnknownTopicId,
                    ),
                },
            });
        }
    }
    let (host, port) = endpoint(&call);
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(node_id))
        .with_host(host)
        .with_port(port);
    let mut response = MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_topics(topics);
    if call.version >= 1 {
        response.controller_id = BrokerId(node_id);
    }
    if call.version >= 2 {
        response.cluster_id = Some(text(call.node.cluster_id()));
    }
    if (8..=10).contains(&call.version) {
        response.cluster_authorized_operations =
            cluster_operations(request.include_cluster_authorized_operations);
    }
    call.answer(&response)
}

async fn by_name(call: &Call, name: &str, create: bool) -> Result<Arc<Topic>, ResponseError> {
    if let Some(topic) = call.node.topics().by_name(name) {
        return Ok(topic);
    }
    crate::meta::topic_name::validate(name).map_err(|_| ResponseError::InvalidTopicException)?;
    if !create || !call.node.config().auto_create_topics_enable {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
    call.node
        .topics()
        .create_on_use(name)
        .await
        .map_err(|error| {
            tracing::warn!(topic = name, %error, "a topic could not be created on first use");
            error_code::of_topics(&error)
        })
}

fn described(version: i16, topic: &Topic, node_id: i32, operations: bool) -> MetadataResponseTopic {
    let partitions = topic.partitions().iter().map(|p| {
        let me = vec![BrokerId(node_id)];
        let described = MetadataResponsePartition::default()
            .with_partition_index(p.index())
            .with_leader_id(BrokerId(node_id))
            .with_replica_nodes(me.clone())
            .with_isr_nodes(me);
        if version >= 7 {
            described.with_leader_epoch(p.leader_epoch())
        } else {
            described
        }
    });
    let mut answer = MetadataResponseTopic::default()
        .with_name(Some(topic_name(topic.name())))
        .with_partitions(partitions.collect());
    if version >= 1 {
        answer.is_internal = topic.is_internal();
    }
    if version >= 8 {
        answer.topic_authorized_operations = topic_operations(operations);
    }
    if version >= 10 {
        answer.topic_id = topic.id();
    }
    answer
}

fn missing(
    version: i16,
    name: Option<&str>,
    id: Uuid,
    error: ResponseError,
) -> MetadataResponseTopic {
    // A null name exists from v12 on only.
    let name = match (name, version) {
        (None, 12..) => None,
        (name, _) => Some(topic_name(name.unwrap_or_default())),
    };
    let answer = MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_name(name);
    if version >= 10 {
        answer.with_topic_id(id)
    } else {
        answer
    }
}
