//! DescribeConfigs 1–4: topics and the broker, with sources, synonyms, types and documentation.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::support::text;
use super::{Answer, Call};
use crate::config::describe::{self, Described};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;

pub async fn handle(call: Call, request: DescribeConfigsRequest) -> Answer {
    let results = request.resources.iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match describe(&call, resource) {
            Ok(all) => {
                // No list and an empty one both ask for everything.
                let wanted = resource.configuration_keys.as_ref();
                let wanted = wanted.filter(|keys| !keys.is_empty());
                let configs = all
                    .into_iter()
                    .filter(|d| wanted.is_none_or(|keys| keys.iter().any(|k| **k == *d.name)))
                    .map(|d| entry(&call, &request, d));
                result.with_configs(configs.collect())
            }
            Err((error, message)) => result
                .with_error_code(error.code())
                .with_error_message(Some(text(message))),
        }
    });
    let results = results.collect();
    call.answer(&DescribeConfigsResponse::default().with_results(results))
}

fn describe(
    call: &Call,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Described>, (ResponseError, String)> {
    let name = &*resource.resource_name;
    match resource.resource_type {
        TOPIC => match call.node.topics().by_name(name) {
            Some(topic) => Ok(describe::topic(call.node.config(), topic.overrides())),
            None => match crate::meta::topic_name::validate(name) {
                Ok(()) => Err((
                    ResponseError::UnknownTopicOrPartition,
                    format!("there is no topic '{name}'"),
                )),
                Err(why) => Err((ResponseError::InvalidTopicException, why)),
            },
        },
        // The empty name is the cluster-wide default, of which nothing is set.
        BROKER if name.is_empty() => Ok(Vec::new()),
        BROKER if name == call.node.node_id().to_string() => {
            Ok(describe::broker(call.node.config()))
        }
        BROKER_LOGGER if name == call.node.node_id().to_string() => Ok(Vec::new()),
        BROKER | BROKER_LOGGER => Err((
            ResponseError::InvalidRequest,
            format!(
                "Unexpected broker id, expected {}, but received {name}",
                call.node.node_id()
            ),
        )),
        other => Err((
            ResponseError::InvalidRequest,
            format!("settings of resource type {other} are not served"),
        )),
    }
}

fn entry(
    call: &Call,
    request: &DescribeConfigsRequest,
    d: Described,
) -> DescribeConfigsResourceResult {
    let mut entry = DescribeConfigsResourceResult::default()
        .with_name(text(d.name))
        .with_value(d.value.map(text))
        .with_read_only(d.read_only)
        .with_config_source(d.source as i8);
    if request.include_synonyms {
        let synonyms = d.synonyms.into_iter().map(|s| {
            DescribeConfigsSynonym::default()
                .with_name(text(s.name))
                .with_value(s.value.map(text))
                .with_source(s.source as i8)
        });
        entry.synonyms = synonyms.collect();
    }
    if call.version >= 3 {
        entry.config_type = d.config_type;
        entry.documentation = request.include_documentation.then(|| text(d.doc));
    }
    entry
}
