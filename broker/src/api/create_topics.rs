//! CreateTopics 2–7. Kafka's validation: names, duplicates, partitions, replication factor (only
//! 1 exists here; −1 means the default, KIP-464), manual assignments, settings with their ranges,
//! validate_only. The topic is on disk and usable when the answer leaves.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use uuid::Uuid;

use super::support::text;
use super::{Answer, Call, error_code};
use crate::topics::NewTopic;

pub async fn handle(call: Call, request: CreateTopicsRequest) -> Answer {
    let mut times: HashMap<&str, usize> = HashMap::new();
    for topic in &request.topics {
        *times.entry(&topic.name).or_default() += 1;
    }
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let made = match times.remove(&*topic.name.0) {
            Some(1) => create(&call, topic, request.validate_only).await,
            Some(_) => Err(Refused::new(
                ResponseError::InvalidRequest,
                "Duplicate topic name.",
            )),
            // Told already.
            None => continue,
        };
        results.push(result(&call, topic, made));
    }
    call.answer(&CreateTopicsResponse::default().with_topics(results))
}

struct Refused {
    error: ResponseError,
    message: String,
}

impl Refused {
    fn new(error: ResponseError, message: impl Into<String>) -> Self {
        Refused {
            error,
            message: message.into(),
        }
    }
}

struct Made {
    id: Uuid,
    partitions: i32,
    overrides: BTreeMap<String, String>,
}

async fn create(call: &Call, topic: &CreatableTopic, dry: bool) -> Result<Made, Refused> {
    let refused =
        |e: crate::topics::TopicsError| Refused::new(error_code::of_topics(&e), e.to_string());
    // As in Kafka, the name comes before everything else that may be wrong.
    let topics = call.node.topics();
    topics.check_name(&topic.name).map_err(refused)?;
    let mut overrides = BTreeMap::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            let text = format!(
                "Null value not supported for topic configs: {}",
                &*config.name
            );
            return Err(Refused::new(ResponseError::InvalidConfig, text));
        };
        overrides.insert(config.name.to_string(), value.to_string());
    }
    let new = NewTopic {
        name: topic.name.to_string(),
        partitions: partitions(call, topic)?,
        configs: overrides.clone(),
    };
    let partitions = new.partitions;
    if dry {
        topics.check_new(&new).map_err(refused)?;
        return Ok(Made {
            id: Uuid::nil(),
            partitions,
            overrides,
        });
    }
    let created = topics.create(new).await.map_err(refused)?;
    Ok(Made {
        id: created.id(),
        partitions,
        overrides,
    })
}

/// How many partitions, by count or by assignment.
fn partitions(call: &Call, topic: &CreatableTopic) -> Result<i32, Refused> {
    if topic.assignments.is_empty() {
        // In the order in which Kafka looks.
        return match (topic.replication_factor, topic.num_partitions) {
            (f, _) if f == 0 || f < -1 => Err(Refused::new(
                ResponseError::InvalidReplicationFactor,
                "Replication factor must be larger than 0, or -1 to use the default value.",
            )),
            (_, n) if n == 0 || n < -1 => Err(Refused::new(
                ResponseError::InvalidPartitions,
                "Number of partitions must be larger than 0, or -1 to use the default value.",
            )),
            (f, _) if f > 1 => Err(Refused::new(
                ResponseError::InvalidReplicationFactor,
                format!(
                    "Unable to replicate the partition {f} time(s): there is one broker. Use 1, or -1 for the default."
                ),
            )),
            (_, -1) => Ok(call.node.config().num_partitions),
            (_, n) => Ok(n),
        };
    }
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        return Err(Refused::new(
            ResponseError::InvalidRequest,
            "A manual partition assignment was given together with a partition count or replication factor.",
        ));
    }
    let node_id = call.node.node_id();
    let mut indexes: Vec<i32> = topic
        .assignments
        .iter()
        .map(|a| a.partition_index)
        .collect();
    indexes.sort_unstable();
    let consecutive = indexes.iter().enumerate().all(|(at, &i)| i as usize == at);
    let here = topic
        .assignments
        .iter()
        .all(|a| a.broker_ids.len() == 1 && a.broker_ids[0].0 == node_id);
    if !(consecutive && here) {
        return Err(Refused::new(
            ResponseError::InvalidReplicaAssignment,
            format!(
                "Partitions must be numbered from 0 and each be assigned to broker {node_id} alone."
            ),
        ));
    }
    Ok(indexes.len() as i32)
}

fn result(
    call: &Call,
    topic: &CreatableTopic,
    made: Result<Made, Refused>,
) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(topic.name.clone());
    match made {
        Err(refused) => {
            let result = result
                .with_error_code(refused.error.code())
                .with_error_message(Some(text(refused.message)));
            if call.version >= 5 {
                result
                    .with_num_partitions(-1)
                    .with_replication_factor(-1)
                    .with_configs(Some(Vec::new()))
            } else {
                result
            }
        }
        Ok(made) => {
            let mut result = result.with_error_message(None);
            if call.version >= 5 {
                result.num_partitions = made.partitions;
                result.replication_factor = 1;
                result.configs = Some(configs(call, &made.overrides));
            }
            if call.version >= 7 {
                result.topic_id = made.id;
            }
            result
        }
    }
}

/// The settings the topic now has, as DescribeConfigs would tell them.
fn configs(call: &Call, overrides: &BTreeMap<String, String>) -> Vec<CreatableTopicConfigs> {
    crate::config::describe::topic(call.node.config(), overrides)
        .into_iter()
        .map(|setting| {
            CreatableTopicConfigs::default()
                .with_name(text(setting.name))
                .with_value(setting.value.map(text))
                .with_read_only(false)
                .with_config_source(setting.source as i8)
                .with_is_sensitive(false)
        })
        .collect()
}
