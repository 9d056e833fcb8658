//! DeleteTopics 1–6; by id from v6 (KIP-516). The committed offsets of a deleted topic go with it.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use uuid::Uuid;

use super::support::{text, topic_name};
use super::{Answer, Call, error_code};

/// A topic as the request names it.
#[derive(Clone)]
enum Named {
    Name(String),
    Id(Uuid),
    Both(String, Uuid),
}

pub async fn handle(call: Call, request: DeleteTopicsRequest) -> Answer {
    let asked: Vec<Named> = if call.version >= 6 {
        let by_state = request.topics.iter().map(|t| match &t.name {
            Some(name) if !t.topic_id.is_nil() => Named::Both(name.to_string(), t.topic_id),
            Some(name) => Named::Name(name.to_string()),
            None => Named::Id(t.topic_id),
        });
        by_state.collect()
    } else {
        request
            .topic_names
            .iter()
            .map(|n| Named::Name(n.to_string()))
            .collect()
    };
    // What is named twice, by name or id, is told once and deleted not at all.
    let mut times: BTreeMap<(Option<String>, Uuid), usize> = BTreeMap::new();
    for named in &asked {
        *times.entry(key(&call, named)).or_default() += 1;
    }
    let mut responses = Vec::with_capacity(asked.len());
    for named in asked {
        match times.remove(&key(&call, &named)) {
            Some(1) => responses.push(delete(&call, named).await),
            Some(_) => responses.push(twice(&call, named)),
            None => {}
        }
    }
    call.answer(&DeleteTopicsResponse::default().with_responses(responses))
}

/// The same for a topic's name and its id.
fn key(call: &Call, named: &Named) -> (Option<String>, Uuid) {
    match named {
        Named::Name(name) => match call.node.topics().by_name(name) {
            Some(topic) => (None, topic.id()),
            None => (Some(name.clone()), Uuid::nil()),
        },
        Named::Id(id) => (None, *id),
        Named::Both(name, id) => (Some(name.clone()), *id),
    }
}

fn twice(call: &Call, named: Named) -> DeletableTopicResult {
    let (name, id) = match named {
        Named::Name(name) => (Some(name), Uuid::nil()),
        Named::Id(id) => (None, id),
        Named::Both(name, id) => (Some(name), id),
    };
    let mut result = DeletableTopicResult::default()
        .with_name(name.map(topic_name))
        .with_error_code(ResponseError::InvalidRequest.code());
    if call.version >= 5 {
        result.error_message = Some(text("Duplicate topic."));
    }
    if call.version >= 6 {
        result.topic_id = id;
    }
    result
}

async fn delete(call: &Call, named: Named) -> DeletableTopicResult {
    let (topic, missing, name, id) = match &named {
        Named::Name(name) => (
            call.node.topics().by_name(name),
            ResponseError::UnknownTopicOrPartition,
            Some(name.clone()),
            Uuid::nil(),
        ),
        Named::Id(id) => (
            call.node.topics().by_id(*id),
            if id.is_nil() {
                ResponseError::InvalidRequest
            } else {
                ResponseError::UnknownTopicId
            },
            None,
            *id,
        ),
        Named::Both(name, id) => (None, ResponseError::InvalidRequest, Some(name.clone()), *id),
    };
    let mut result = DeletableTopicResult::default();
    result.name = name.map(topic_name);
    if call.version >= 6 {
        result.topic_id = id;
    }
    let refused = match &topic {
        _ if !call.node.config().delete_topic_enable => Some((
            ResponseError::TopicDeletionDisabled,
            "Topic deletion is disabled (delete.topic.enable).".to_owned(),
        )),
        None if missing == ResponseError::InvalidRequest => {
            let why = "A topic is named either by its name or by its id.";
            Some((missing, why.to_owned()))
        }
        None => Some((missing, "This server does not host this topic.".to_owned())),
        Some(topic) => call
            .node
            .delete_topic(topic)
            .await
            .err()
            .map(|e| (error_code::of_topics(&e), e.to_string())),
    };
    if let Some(topic) = &topic {
        result.name = Some(topic_name(topic.name()));
        if call.version >= 6 {
            result.topic_id = topic.id();
        }
    }
    if let Some((error, message)) = refused {
        result.error_code = error.code();
        if call.version >= 5 {
            result.error_message = Some(text(message));
        }
    }
    result
}
