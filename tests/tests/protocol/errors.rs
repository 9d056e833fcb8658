//! What is refused, and with which of Kafka's errors; and that it harms nobody else.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiVersionsRequest, ProduceRequest};
use tests::raw::{Raw, decode, frame};

use crate::support::*;

const OFFSET_OUT_OF_RANGE: i16 = 1;
const CORRUPT_MESSAGE: i16 = 2;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const MESSAGE_TOO_LARGE: i16 = 10;
const INVALID_TOPIC_EXCEPTION: i16 = 17;
const INVALID_REQUIRED_ACKS: i16 = 21;
const UNSUPPORTED_VERSION: i16 = 35;
const TOPIC_ALREADY_EXISTS: i16 = 36;
const INVALID_PARTITIONS: i16 = 37;

#[test]
fn a_version_that_is_too_new_is_answered_with_the_range() {
    let mut raw = connect();
    let mut bytes = frame(&ApiVersionsRequest::default(), 4, 77);
    bytes[6..8].copy_from_slice(&99i16.to_be_bytes());
    raw.send(&bytes).unwrap();
    let answer = decode::<ApiVersionsRequest>(raw.receive().unwrap().unwrap(), 0, 77).unwrap();
    assert_eq!(answer.error_code, UNSUPPORTED_VERSION);
    let own = answer.api_keys.iter().find(|k| k.api_key == 18).unwrap();
    assert_eq!((own.min_version, own.max_version), (0, 4));
    // The connection lives on, and the client tries again with a version it was told.
    assert_eq!(
        raw.call(&ApiVersionsRequest::default(), 3).error_code,
        UNSUPPORTED_OR_INVALID
    );
    assert_eq!(raw.call(&ApiVersionsRequest::default(), 0).error_code, 0);
}

/// ApiVersions 3 with an empty client name is an INVALID_REQUEST in Kafka.
const UNSUPPORTED_OR_INVALID: i16 = 42;

#[test]
fn unknown_apis_and_versions_close_the_connection() {
    for (key, version) in [(999i16, 0i16), (-1, 0), (3, 99), (3, -1), (1, 0), (4, 0)] {
        let mut raw = connect();
        let mut bytes = frame(&ApiVersionsRequest::default(), 0, 1);
        bytes[4..6].copy_from_slice(&key.to_be_bytes());
        bytes[6..8].copy_from_slice(&version.to_be_bytes());
        raw.send(&bytes).unwrap();
        assert_eq!(raw.receive().unwrap(), None, "API {key} version {version}");
    }
    assert_eq!(
        connect().call(&ApiVersionsRequest::default(), 0).error_code,
        0
    );
}

#[test]
fn impossible_frame_lengths_close_the_connection() {
    for length in [-1i32, i32::MIN, i32::MAX, 104_857_601] {
        let mut raw = connect();
        raw.send(&length.to_be_bytes()).unwrap();
        // Some bytes more may meet a closed connection already.
        let _ = raw.send(&[0; 100]);
        assert_eq!(raw.receive().unwrap_or(None), None, "length {length}");
    }
}

#[test]
fn a_corrupt_batch_is_refused_and_its_neighbour_is_not() {
    let mut raw = connect();
    let (broken, sound) = (topic(&mut raw), topic(&mut raw));
    let good = batch(2).build(0);
    let mut bad = BytesMut::from(&good[..]);
    let last = bad.len() - 1;
    bad[last] ^= 1;
    let data = |records: Bytes| {
        vec![
            PartitionProduceData::default()
                .with_index(0)
                .with_records(Some(records)),
        ]
    };
    let part = |topic: &str, records| {
        TopicProduceData::default()
            .with_name(name(topic))
            .with_partition_data(data(records))
    };
    let topics = vec![part(&broken, bad.freeze()), part(&sound, good)];
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(topics);
    let answer = raw.call(&request, 9);
    let error = |topic: &str| {
        let found = answer
            .responses
            .iter()
            .find(|r| &*r.name.0 == topic)
            .unwrap();
        found.partition_responses[0].error_code
    };
    assert_eq!((error(&broken), error(&sound)), (CORRUPT_MESSAGE, 0));
}

#[test]
fn a_batch_above_the_limit_is_refused() {
    let mut raw = connect();
    let topic = topic(&mut raw);
    let mut large = batch(1);
    large.push(now_ms(), None, Some(&vec![7; 1_100_000]), &[]);
    assert_eq!(
        produce(&mut raw, &topic, large.build(0)).error_code,
        MESSAGE_TOO_LARGE
    );
    assert_eq!(produce(&mut raw, &topic, batch(1).build(0)).base_offset, 0);
}

#[test]
fn unknown_partitions_and_impossible_acks_are_refused() {
    let mut raw = connect();
    let topic = topic(&mut raw);
    let mut request = produce_request(&topic, batch(1).build(0));
    request.topic_data[0].partition_data[0].index = 7;
    let answer = raw.call(&request, 9);
    assert_eq!(
        answer.responses[0].partition_responses[0].error_code,
        UNKNOWN_TOPIC_OR_PARTITION
    );
    request.topic_data[0].partition_data[0].index = 0;
    request.acks = 5;
    let answer = raw.call(&request, 9);
    assert_eq!(
        answer.responses[0].partition_responses[0].error_code,
        INVALID_REQUIRED_ACKS
    );
}

#[test]
fn an_offset_outside_the_log_is_out_of_range() {
    let mut raw = connect();
    let topic = topic(&mut raw);
    assert_eq!(produce(&mut raw, &topic, batch(3).build(0)).error_code, 0);
    for (offset, error) in [
        (-1, OFFSET_OUT_OF_RANGE),
        (0, 0),
        (3, 0),
        (4, OFFSET_OUT_OF_RANGE),
    ] {
        let answer = raw.call(&fetch_request(&topic, offset), 12);
        assert_eq!(
            answer.responses[0].partitions[0].error_code, error,
            "offset {offset}"
        );
    }
}

#[test]
fn wrong_topic_names_never_reach_the_file_system() {
    let mut raw = connect();
    for wrong in [".", "..", "a/b", "../x", "", "a b", "ü", &"x".repeat(250)] {
        assert_eq!(
            create(&mut raw, wrong, 1),
            INVALID_TOPIC_EXCEPTION,
            "create {wrong:?}"
        );
        assert_eq!(
            metadata_error(&mut raw, wrong),
            INVALID_TOPIC_EXCEPTION,
            "metadata of {wrong:?}"
        );
    }
    assert!(!server().scratch().join("x-0").exists());
}

#[test]
fn topics_are_created_once_and_with_partitions() {
    let mut raw = connect();
    let topic = topic(&mut raw);
    assert_eq!(create(&mut raw, &topic, 1), TOPIC_ALREADY_EXISTS);
    assert_eq!(create(&mut raw, &unique("none"), 0), INVALID_PARTITIONS);
    assert_eq!(
        create(&mut raw, &unique("negative"), -2),
        INVALID_PARTITIONS
    );
}

#[test]
fn answers_come_in_the_order_of_the_requests() {
    let mut raw = connect();
    let topic = topic(&mut raw);
    let mut waiting = fetch_request(&topic, 0);
    waiting.max_wait_ms = 300;
    // A fetch that waits, and behind it on the same connection requests that do not.
    let first = raw.frame(&waiting, 12);
    let second = raw.frame(&ApiVersionsRequest::default(), 0);
    let third = raw.frame(&produce_request(&topic, batch(1).build(0)), 9);
    raw.send(&[first, second, third].concat()).unwrap();
    let ids: Vec<i32> = (0..3).map(|_| correlation_id(&mut raw)).collect();
    assert!(ids.windows(2).all(|w| w[1] == w[0] + 1), "{ids:?}");
}

fn correlation_id(raw: &mut Raw) -> i32 {
    let answer = raw.receive().unwrap().expect("an answer");
    i32::from_be_bytes(answer[..4].try_into().unwrap())
}
