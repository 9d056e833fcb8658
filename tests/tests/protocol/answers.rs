//! Which error wins when several would fit, and what an answer carries besides its error.

use std::time::{Duration, Instant};

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::*;
use tests::raw::Raw;

use crate::support::*;

const OFFSET_OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const INVALID_TOPIC_EXCEPTION: i16 = 17;
const ILLEGAL_GENERATION: i16 = 22;
const TOPIC_ALREADY_EXISTS: i16 = 36;
const INVALID_REQUEST: i16 = 42;
const INVALID_RECORD: i16 = 87;

/// A new topic that serves: Apache Kafka's metadata may name a leader a moment before it leads.
fn serving_topic(raw: &mut Raw) -> String {
    let topic = topic(raw);
    let request = fetch_request(&topic, 0).with_max_wait_ms(0);
    tests::wait::until("the leader to serve", || {
        raw.call(&request, 12).responses[0].partitions[0].error_code == 0
    });
    topic
}

fn configs(
    raw: &mut Raw,
    topic: &str,
    keys: Option<&[&str]>,
    documentation: bool,
) -> Vec<DescribeConfigsResourceResult> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(topic))
        .with_configuration_keys(keys.map(|keys| keys.iter().map(|k| text(k)).collect()));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_documentation(documentation);
    let result = raw.call(&request, 4).results.remove(0);
    assert_eq!(result.error_code, 0, "DescribeConfigs of {topic}");
    result.configs
}

fn created(raw: &mut Raw, topic: &str, partitions: i32) -> CreatableTopicResult {
    let new = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![new])
        .with_timeout_ms(30_000);
    raw.call(&request, 5).topics.remove(0)
}

#[test]
fn the_offsets_topic_made_by_metadata_is_compacted() {
    const OFFSETS: &str = "__consumer_offsets";
    let mut raw = connect();
    let wanted = MetadataRequestTopic::default().with_name(Some(name(OFFSETS)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![wanted]))
        .with_allow_auto_topic_creation(true);
    tests::wait::until("the offsets topic", || {
        raw.call(&request, 9).topics[0].error_code == 0
    });
    let found = configs(&mut raw, OFFSETS, Some(&["cleanup.policy"]), false);
    assert_eq!(found[0].value.as_deref(), Some("compact"));
}

#[test]
fn a_topic_named_twice_is_not_deleted() {
    let mut raw = connect();
    let topic = topic(&mut raw);
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![name(&topic), name(&topic)])
        .with_timeout_ms(30_000);
    let answer = raw.call(&request, 5);
    assert!(!answer.responses.is_empty());
    for response in &answer.responses {
        assert_eq!(response.error_code, INVALID_REQUEST);
    }
    assert_eq!(metadata_error(&mut raw, &topic), 0);
}

#[test]
fn create_topics_looks_at_the_name_before_the_partitions() {
    let mut raw = connect();
    let topic = topic(&mut raw);
    for partitions in [0, -2] {
        let existing = created(&mut raw, &topic, partitions);
        assert_eq!(existing.error_code, TOPIC_ALREADY_EXISTS);
        let wrong = created(&mut raw, "a/b", partitions);
        assert_eq!(wrong.error_code, INVALID_TOPIC_EXCEPTION);
    }
    let new = created(&mut raw, &unique("answers"), 1);
    assert_eq!((new.error_code, new.error_message), (0, None));
}

#[test]
fn an_empty_list_of_configs_means_all() {
    let mut raw = connect();
    let topic = topic(&mut raw);
    let mut names = |keys| {
        let found = configs(&mut raw, &topic, keys, false);
        let mut names: Vec<_> = found.into_iter().map(|c| c.name).collect();
        names.sort();
        names
    };
    let all = names(None);
    assert!(all.len() > 1);
    assert_eq!(names(Some(&[])), all);
    assert_eq!(names(Some(&["cleanup.policy"])), [text("cleanup.policy")]);
}

#[test]
fn configs_are_documented_only_when_asked() {
    let mut raw = connect();
    let topic = topic(&mut raw);
    let mut documentation = |asked| {
        let found = configs(&mut raw, &topic, Some(&["cleanup.policy"]), asked);
        found[0].documentation.clone()
    };
    assert_eq!(documentation(false), None);
    assert!(documentation(true).is_some());
}

#[test]
fn a_batch_from_a_producer_begins_at_offset_zero() {
    let mut raw = connect();
    let topic = serving_topic(&mut raw);
    let answer = produce(&mut raw, &topic, batch(1).build(5));
    assert_eq!(answer.error_code, INVALID_RECORD);
    assert_eq!(produce(&mut raw, &topic, batch(1).build(0)).base_offset, 0);
}

#[test]
fn a_batch_with_a_producer_id_needs_a_sequence() {
    let mut raw = connect();
    let topic = serving_topic(&mut raw);
    for sequence in [-1, -2] {
        let records = batch(1).with_producer(1, 0, sequence).build(0);
        let answer = produce(&mut raw, &topic, records);
        assert_eq!(answer.error_code, INVALID_RECORD, "sequence {sequence}");
    }
    assert_eq!(produce(&mut raw, &topic, batch(1).build(0)).base_offset, 0);
}

#[test]
fn a_fetch_out_of_range_tells_no_high_watermark() {
    let mut raw = connect();
    let topic = serving_topic(&mut raw);
    assert_eq!(produce(&mut raw, &topic, batch(3).build(0)).error_code, 0);
    let answer = raw.call(&fetch_request(&topic, 4), 12);
    let partition = &answer.responses[0].partitions[0];
    assert_eq!(
        (partition.error_code, partition.high_watermark),
        (OFFSET_OUT_OF_RANGE, -1)
    );
}

#[test]
fn an_unknown_topic_does_not_end_the_wait_of_a_fetch() {
    let mut raw = connect();
    let (known, unknown) = (serving_topic(&mut raw), unique("unknown"));
    let mut request = fetch_request(&known, 0);
    request.topics.extend(fetch_request(&unknown, 0).topics);
    request.max_wait_ms = 500;
    let begun = Instant::now();
    let answer = raw.call(&request, 12);
    // A little less: the two clocks need not agree on the last millisecond.
    let waited = begun.elapsed();
    assert!(
        waited >= Duration::from_millis(450),
        "{waited:?}: {answer:?}"
    );
    let partition = |topic: &str| {
        let found = answer.responses.iter().find(|r| &*r.topic.0 == topic);
        found.unwrap().partitions[0].clone()
    };
    assert_eq!(partition(&unknown).error_code, UNKNOWN_TOPIC_OR_PARTITION);
    let empty = partition(&known);
    assert_eq!((empty.error_code, empty.high_watermark), (0, 0));
    assert!(empty.records.is_none_or(|r| r.is_empty()));
}

#[test]
fn a_commit_to_an_unknown_partition_says_so_before_the_generation() {
    let mut raw = connect();
    let (known, unknown) = (topic(&mut raw), unique("unknown"));
    let group = unique("answers");
    let find = FindCoordinatorRequest::default().with_key(text(&group));
    tests::wait::until("a coordinator", || raw.call(&find, 3).error_code == 0);
    let part = |topic: &str, partitions: &[i32]| {
        let partition = |&i: &i32| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(i)
                .with_committed_offset(1)
        };
        OffsetCommitRequestTopic::default()
            .with_name(name(topic))
            .with_partitions(partitions.iter().map(partition).collect())
    };
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(&group)))
        .with_generation_id_or_member_epoch(7)
        .with_member_id(text("nobody"))
        .with_topics(vec![part(&known, &[0, 9]), part(&unknown, &[0])]);
    let mut errors = tests::wait::until_some("the group to be loaded", || {
        let answer = raw.call(&request, 7);
        let errors: Vec<_> = answer
            .topics
            .iter()
            .flat_map(|t| t.partitions.iter().map(|p| (&t.name, p)))
            .map(|(t, p)| (t.0.to_string(), p.partition_index, p.error_code))
            .collect();
        // COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR.
        let not_yet = errors.iter().any(|e| (14..=16).contains(&e.2));
        (!not_yet).then_some(errors)
    });
    errors.sort();
    let mut expected = vec![
        (known.clone(), 0, ILLEGAL_GENERATION),
        (known, 9, UNKNOWN_TOPIC_OR_PARTITION),
        (unknown, 0, UNKNOWN_TOPIC_OR_PARTITION),
    ];
    expected.sort();
    assert_eq!(errors, expected);
}
