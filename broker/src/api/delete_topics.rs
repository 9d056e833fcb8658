//! DeleteTopics 1–6; by id from v6 (KIP-516). The committed offsets of a deleted topic go with it.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use uuid::Uuid;

use super::support::{text, topic_name};
use super::{Answer, Call, error_code};

/// A topic as the request names it.
enum Named {
    Name(String),
    Id(Uuid),
    Both,
}

pub async fn handle(call: Call, request: DeleteTopicsRequest) -> Answer {
    let asked: Vec<Named> = if call.version >= 6 {
        let by_state = request.topics.iter().map(|t| match &t.name {
            Some(_) if !t.topic_id.is_nil() => Named::Both,
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
    let mut responses = Vec::with_capacity(asked.len());
    for named in asked {
        responses.push(delete(&call, named).await);
    }
    call.answer(&DeleteTopicsResponse::default().with_responses(responses))
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
            ResponseError::UnknownTopicId,
            None,
            *id,
        ),
        Named::Both => (None, ResponseError::InvalidRequest, None, Uuid::nil()),
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
