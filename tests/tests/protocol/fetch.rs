//! Fetch: waiting for records, incremental sessions (KIP-227), size limits (KIP-74), and ids of topics that were made anew.

use kafka_protocol::messages::fetch_request::FetchTopic;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{DeleteTopicsRequest, FetchRequest, FetchResponse, MetadataRequest};
use tests::raw::Raw;
use uuid::Uuid;

use crate::support::*;

const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
const UNKNOWN_TOPIC_ID: i16 = 100;

/// Longer than any test waits for an answer.
const FOREVER_MS: i32 = 3_600_000;

#[test]
fn a_waiting_fetch_is_woken_by_a_record() {
    let (mut waiting, mut other) = (connect(), connect());
    let topic = topic(&mut other);
    let mut request = fetch_request(&topic, 0);
    request.max_wait_ms = FOREVER_MS;
    let frame = waiting.frame(&request, 12);
    waiting.send(&frame).unwrap();
    assert_eq!(produce(&mut other, &topic, batch(1).build(0)).error_code, 0);
    assert!(
        waiting.receive().unwrap().unwrap().len() > 61,
        "an answer with the record"
    );
}

#[test]
fn a_fetch_waits_for_as_many_bytes_as_it_asked_for() {
    let (mut waiting, mut other) = (connect(), connect());
    let topic = topic(&mut other);
    let one = batch(1).build(0);
    let mut request = fetch_request(&topic, 0);
    request.max_wait_ms = FOREVER_MS;
    request.min_bytes = 2 * one.len() as i32;
    let frame = waiting.frame(&request, 12);
    waiting.send(&frame).unwrap();
    for _ in 0..2 {
        assert_eq!(produce(&mut other, &topic, one.clone()).error_code, 0);
    }
    assert!(
        waiting.receive().unwrap().unwrap().len() > 2 * one.len(),
        "both records"
    );
}

#[test]
fn the_first_batch_comes_even_over_the_limit() {
    let mut raw = connect();
    let topic = topic(&mut raw);
    let mut large = batch(0);
    large.push(now_ms(), None, Some(&vec![7; 500_000]), &[]);
    for _ in 0..2 {
        assert_eq!(
            produce(&mut raw, &topic, large.clone().build(0)).error_code,
            0
        );
    }
    let mut request = fetch_request(&topic, 0);
    request.max_bytes = 1000;
    request.topics[0].partitions[0].partition_max_bytes = 1000;
    let records = raw.call(&request, 12).responses[0].partitions[0]
        .records
        .clone()
        .unwrap();
    let batches: Vec<_> = wire::batch::split(&records).collect();
    assert_eq!(batches.len(), 1);
}

/// Continues a session: only what changed is asked for.
fn next(raw: &mut Raw, session: i32, epoch: i32, topics: Vec<FetchTopic>) -> FetchResponse {
    let request = FetchRequest::default()
        .with_max_wait_ms(100)
        .with_min_bytes(1)
        .with_max_bytes(16 << 20)
        .with_session_id(session)
        .with_session_epoch(epoch)
        .with_topics(topics);
    raw.call(&request, 12)
}

#[test]
fn sessions_tell_only_what_is_new() {
    let mut raw = connect();
    let (quiet, busy) = (topic(&mut raw), topic(&mut raw));
    let mut request = fetch_request(&quiet, 0);
    request.topics.extend(fetch_request(&busy, 0).topics);
    let topics = request.topics.clone();
    let first = next(&mut raw, 0, 0, topics);
    assert_ne!(first.session_id, 0, "a session is offered");
    assert_eq!(first.responses.len(), 2, "the first answer is full");
    let session = first.session_id;
    assert_eq!(
        next(&mut raw, session, 1, vec![]).responses.len(),
        0,
        "nothing is new"
    );
    assert_eq!(produce(&mut raw, &busy, batch(1).build(0)).error_code, 0);
    let news = next(&mut raw, session, 2, vec![]);
    assert_eq!(news.responses.len(), 1);
    assert_eq!(&*news.responses[0].topic.0, busy.as_str());
    // Moved on to offset 1, there is nothing more, and the session knows where it was.
    let moved = fetch_request(&busy, 1).topics;
    assert_eq!(next(&mut raw, session, 3, moved).responses.len(), 0);
    assert_eq!(
        next(&mut raw, session, 7, vec![]).error_code,
        INVALID_FETCH_SESSION_EPOCH
    );
    assert_eq!(
        next(&mut raw, session ^ 0x55, 4, vec![]).error_code,
        FETCH_SESSION_ID_NOT_FOUND
    );
    // Closed with the last epoch, the session is gone.
    assert_eq!(next(&mut raw, session, -1, vec![]).error_code, 0);
    assert_eq!(
        next(&mut raw, session, 4, vec![]).error_code,
        FETCH_SESSION_ID_NOT_FOUND
    );
}

fn topic_id(raw: &mut Raw, topic: &str) -> Uuid {
    let wanted = MetadataRequestTopic::default().with_name(Some(name(topic)));
    raw.call(
        &MetadataRequest::default().with_topics(Some(vec![wanted])),
        12,
    )
    .topics[0]
        .topic_id
}

#[test]
fn the_id_of_a_topic_that_was_made_anew_is_unknown() {
    let mut raw = connect();
    let topic = topic(&mut raw);
    let old = topic_id(&mut raw, &topic);
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![name(&topic)])
        .with_timeout_ms(30_000);
    assert_eq!(raw.call(&request, 5).responses[0].error_code, 0);
    tests::wait::until("the name to be free", || create(&mut raw, &topic, 1) == 0);
    tests::wait::until("the topic to have a leader", || {
        metadata_error(&mut raw, &topic) == 0
    });
    assert_ne!(topic_id(&mut raw, &topic), old);
    let mut request = fetch_request("", 0);
    request.topics[0].topic_id = old;
    assert_eq!(
        raw.call(&request, 13).responses[0].partitions[0].error_code,
        UNKNOWN_TOPIC_ID
    );
}
