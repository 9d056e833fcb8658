//! Idempotent producers: duplicates, gaps, old epochs, sequences that wrap, and all of it after a restart.

use kafka_protocol::messages::InitProducerIdRequest;
use tests::raw::Raw;
use tests::server::Server;

use crate::support::*;

const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const INVALID_PRODUCER_EPOCH: i16 = 47;

fn producer_id(raw: &mut Raw) -> i64 {
    tests::wait::until_some("a producer id", || {
        let answer = raw.call(
            &InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_transaction_timeout_ms(60_000),
            4,
        );
        // Apache Kafka asks for a retry until its first block of ids is there.
        (answer.error_code == 0).then_some(answer.producer_id.0)
    })
}

/// Sends `count` records as the producer; (error, base offset).
fn send(
    raw: &mut Raw,
    topic: &str,
    (id, epoch, sequence): (i64, i16, i32),
    count: usize,
) -> (i16, i64) {
    let answer = produce(
        raw,
        topic,
        batch(count).with_producer(id, epoch, sequence).build(0),
    );
    (answer.error_code, answer.base_offset)
}

#[test]
fn producer_ids_are_never_given_twice() {
    let mut raw = connect();
    let mut ids: Vec<i64> = (0..50).map(|_| producer_id(&mut raw)).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 50);
}

#[test]
fn duplicates_gaps_and_old_epochs() {
    let mut raw = connect();
    let topic = topic(&mut raw);
    let id = producer_id(&mut raw);
    for i in 0..5 {
        assert_eq!(
            send(&mut raw, &topic, (id, 0, i * 2), 2),
            (0, i64::from(i) * 2)
        );
    }
    // The last five batches are known again.
    for i in 0..5 {
        assert_eq!(
            send(&mut raw, &topic, (id, 0, i * 2), 2),
            (0, i64::from(i) * 2),
            "a duplicate gets its first offset"
        );
    }
    assert_eq!(
        send(&mut raw, &topic, (id, 0, 12), 1).0,
        OUT_OF_ORDER_SEQUENCE_NUMBER,
        "a gap"
    );
    assert_eq!(send(&mut raw, &topic, (id, 0, 10), 1), (0, 10));
    assert_eq!(
        send(&mut raw, &topic, (id, 1, 0), 1),
        (0, 11),
        "a new epoch begins at 0"
    );
    assert_eq!(
        send(&mut raw, &topic, (id, 0, 11), 1).0,
        INVALID_PRODUCER_EPOCH
    );
}

#[test]
fn sequences_wrap() {
    let mut raw = connect();
    let topic = topic(&mut raw);
    let id = producer_id(&mut raw);
    assert_eq!(
        send(&mut raw, &topic, (id, 0, i32::MAX - 1), 3),
        (0, 0),
        "an unknown producer may begin anywhere"
    );
    assert_eq!(send(&mut raw, &topic, (id, 0, 1), 1), (0, 3));
    assert_eq!(
        send(&mut raw, &topic, (id, 0, i32::MAX - 1), 3),
        (0, 0),
        "a duplicate across the wrap"
    );
}

#[test]
fn the_state_survives_restarts() {
    let mut server = Server::start(&[]);
    let mut raw = Raw::connect(server.port()).unwrap();
    let topic = topic(&mut raw);
    let id = producer_id(&mut raw);
    assert_eq!(send(&mut raw, &topic, (id, 0, 0), 3), (0, 0));
    for (round, kill) in [false, true].into_iter().enumerate() {
        let (sequence, offset) = (3 + 2 * round as i32, 3 + 2 * round as i64);
        assert_eq!(send(&mut raw, &topic, (id, 0, sequence), 2), (0, offset));
        if kill {
            server.kill();
        } else {
            server.stop();
        }
        server.start_again();
        raw = Raw::connect(server.port()).unwrap();
        tests::wait::until("the topic to have its leader again", || {
            metadata_error(&mut raw, &topic) == 0
        });
        assert_eq!(
            send(&mut raw, &topic, (id, 0, sequence), 2),
            (0, offset),
            "a duplicate after a restart, kill: {kill}"
        );
        assert_eq!(
            send(&mut raw, &topic, (id, 0, sequence + 3), 1).0,
            OUT_OF_ORDER_SEQUENCE_NUMBER
        );
        assert!(producer_id(&mut raw) > id);
    }
}
