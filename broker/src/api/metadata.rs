//! Metadata 0–13. One broker that is leader and controller of everything; topics by id from v12
//! (KIP-516). A topic asked for by name is created when the client (from v4) and
//! `auto.create.topics.enable` allow it, and is usable in the same answer.

use std::collections::HashSet;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse};
use uuid::Uuid;

use super::support::{cluster_operations, endpoint, text, topic_operations};
use super::{Answer, Call, error_code, support};
use crate::meta::topic_name;
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
        let create = call.version < 4 || request.allow_auto_topic_creation;
        let mut told = HashSet::new();
        for asked in request.topics.iter().flatten() {
            // An id, where one is given, counts; the name beside it does not.
            let name = asked.name.as_ref().filter(|_| asked.topic_id.is_nil());
            let name = name.map(|n| &***n);
            // Each topic is told once, however often it is asked for.
            if !told.insert((name, asked.topic_id)) {
                continue;
            }
            let found = match name {
                Some(name) => by_name(&call, name, create).await,
                None => by_id(&call, asked.topic_id),
            };
            topics.push(match found {
                Ok(topic) => described(call.version, &topic, node_id, operations),
                Err(error) => missing(call.version, name, asked.topic_id, error),
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

/// By id from v12 on; the field is there from v10 for the answer's sake.
fn by_id(call: &Call, id: Uuid) -> Result<Arc<Topic>, ResponseError> {
    if call.version < 12 {
        return Err(ResponseError::InvalidRequest);
    }
    let topic = call.node.topics().by_id(id);
    topic.ok_or(ResponseError::UnknownTopicId)
}

async fn by_name(call: &Call, name: &str, create: bool) -> Result<Arc<Topic>, ResponseError> {
    if let Some(topic) = call.node.topics().by_name(name) {
        return Ok(topic);
    }
    topic_name::validate(name).map_err(|_| ResponseError::InvalidTopicException)?;
    if !create || !call.node.config().auto_create_topics_enable {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
    if topic_name::is_internal(name) {
        return internal(call, name).await;
    }
    let created = call.node.topics().create_on_use(name).await;
    created.map_err(|error| {
        tracing::warn!(topic = name, %error, "a topic could not be created on first use");
        error_code::of_topics(&error)
    })
}

/// The broker's own topics have settings of their own: whoever owns one creates it.
async fn internal(call: &Call, name: &str) -> Result<Arc<Topic>, ResponseError> {
    if name == topic_name::CONSUMER_OFFSETS {
        let ready = call.node.groups().ready().await;
        ready.map_err(|error| error_code::of_coordinator(&error))?;
    }
    let topic = call.node.topics().by_name(name);
    topic.ok_or(ResponseError::UnknownTopicOrPartition)
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
        .with_name(Some(support::topic_name(topic.name())))
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
        (name, _) => Some(support::topic_name(name.unwrap_or_default())),
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
