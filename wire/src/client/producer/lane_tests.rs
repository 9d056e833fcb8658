use std::time::Duration;

use super::super::ProducerConfig;
use super::super::accumulator::Accumulator;
use super::super::{ProducerRecord, accumulator};
use super::*;
use crate::client::{Cluster, PartitionMeta, TopicMeta};

const ME: Identity = Identity { id: 5, epoch: 0 };

/// An accumulator with one partition, to make batches with.
fn accumulator() -> Accumulator {
    let a = Accumulator::new(&ProducerConfig {
        batch_bytes: 1,
        ..ProducerConfig::default()
    });
    let partition = PartitionMeta {
        index: 0,
        leader: 1,
        leader_epoch: 0,
        replicas: vec![],
        isr: vec![],
        error: 0,
    };
    let topic = TopicMeta {
        name: "t".into(),
        id: uuid::Uuid::nil(),
        internal: false,
        error: 0,
        partitions: vec![partition],
    };
    a.learn(&Cluster {
        topics: [("t".to_owned(), topic)].into(),
        ..Cluster::default()
    });
    a
}

fn lane_of(batches: usize) -> (Lane, Vec<u64>) {
    let a = accumulator();
    let mut lane = Lane::default();
    for _ in 0..batches {
        a.append("t", &ProducerRecord::default(), 1, 0)
            .unwrap()
            .unwrap();
        let open: accumulator::Open = a.lock().parts[0].open.pop_front().unwrap();
        lane.seal(open, Some(ME));
    }
    lane.proven = true;
    let ids = lane.queue.iter().map(|b| b.ticket.id).collect();
    (lane, ids)
}

fn send_all(lane: &mut Lane) -> Vec<(u64, i16, i32)> {
    let now = Instant::now();
    let mut sent = Vec::new();
    while let Some(b) = lane.next(now) {
        let h = BatchHeader::parse(&b.bytes).unwrap();
        sent.push((b.ticket.id, h.producer_epoch, h.base_sequence));
        let id = b.ticket.id;
        lane.sent(id);
    }
    sent
}

fn oops() -> ClientError {
    ClientError::Closed
}

#[test]
fn sequences_count_records_and_wrap() {
    assert_eq!(advance(i32::MAX, 1), 0);
    assert_eq!(advance(i32::MAX - 2, 5), 2);
    let (mut lane, ids) = lane_of(3);
    assert_eq!(
        send_all(&mut lane),
        [(ids[0], 0, 0), (ids[1], 0, 1), (ids[2], 0, 2)]
    );
}

#[test]
fn what_comes_back_waits_for_the_rest_and_goes_in_order() {
    let (mut lane, ids) = lane_of(3);
    send_all(&mut lane);
    let now = Instant::now();
    lane.back(ids[1], true, oops(), now);
    assert!(lane.next(now).is_none(), "others are in flight");
    assert!(!lane.can_seal(5));
    lane.back(ids[0], true, oops(), now);
    lane.back(ids[2], true, oops(), now);
    assert_eq!(
        send_all(&mut lane),
        [(ids[0], 0, 0), (ids[1], 0, 1), (ids[2], 0, 2)]
    );
    assert!(!lane.can_seal(3) && lane.can_seal(4));
}

#[test]
fn the_broker_still_knows_the_oldest_without_an_end() {
    let (mut lane, ids) = lane_of(5);
    send_all(&mut lane);
    assert!(!lane.can_seal(5));
    for id in &ids[1..] {
        assert!(lane.take(*id, false).is_some());
    }
    assert!(
        !lane.can_seal(5),
        "a sixth would push the first out of the broker's memory"
    );
    assert!(lane.take(ids[0], false).is_some());
    assert!(lane.can_seal(5));
}

#[test]
fn after_a_failure_those_behind_are_refused_first_and_then_start_anew() {
    let (mut lane, ids) = lane_of(4);
    send_all(&mut lane);
    let now = Instant::now();
    assert!(lane.take(ids[0], true).is_some());
    assert_eq!(lane.refused(ids[1], 45, oops(), now), Verdict::Again);
    // This one's answer is lost: it has to be asked again under its old sequence.
    lane.back(ids[2], true, oops(), now);
    assert_eq!(lane.refused(ids[3], 45, oops(), now), Verdict::Again);
    assert_eq!(lane.wants_identity(), None);
    assert_eq!(send_all(&mut lane), [(ids[2], 0, 2)]);
    assert_eq!(lane.refused(ids[2], 45, oops(), now), Verdict::Again);
    assert_eq!(lane.wants_identity(), Some(ME));
    lane.renew(Identity { epoch: 1, ..ME });
    // One alone until the broker has taken it.
    assert_eq!(send_all(&mut lane), [(ids[1], 1, 0)]);
    assert!(lane.take(ids[1], false).is_some());
    assert_eq!(send_all(&mut lane), [(ids[2], 1, 1), (ids[3], 1, 2)]);
    assert!(lane.queue.iter().all(|b| batch::validate(&b.bytes).is_ok()));
}

#[test]
fn an_unexplained_refusal_fails_only_the_first() {
    let (mut lane, ids) = lane_of(2);
    send_all(&mut lane);
    let now = Instant::now();
    assert_eq!(lane.refused(ids[1], 45, oops(), now), Verdict::Again);
    assert_eq!(lane.refused(ids[0], 45, oops(), now), Verdict::Failed);
    assert!(lane.take(ids[0], true).is_some());
    assert_eq!(send_all(&mut lane), [(ids[1], 0, 1)]);
    assert_eq!(lane.refused(ids[1], 45, oops(), now), Verdict::Again);
    assert_eq!(lane.wants_identity(), Some(ME));
}

#[test]
fn a_forgotten_producer_starts_anew_unless_a_batch_is_in_doubt() {
    let (mut lane, ids) = lane_of(1);
    send_all(&mut lane);
    let now = Instant::now();
    assert_eq!(
        lane.refused(ids[0], codes::UNKNOWN_PRODUCER_ID, oops(), now),
        Verdict::Again
    );
    assert_eq!(lane.wants_identity(), Some(ME));
    let (mut lane, ids) = lane_of(1);
    send_all(&mut lane);
    lane.back(ids[0], true, oops(), now);
    send_all(&mut lane);
    assert_eq!(
        lane.refused(ids[0], codes::UNKNOWN_PRODUCER_ID, oops(), now),
        Verdict::Failed
    );
}

#[test]
fn what_was_never_sent_needs_no_refusal() {
    let (mut lane, ids) = lane_of(3);
    let now = Instant::now();
    lane.sent(ids[0]);
    assert!(lane.take(ids[0], true).is_some());
    assert_eq!(lane.wants_identity(), Some(ME));
    assert_eq!(
        lane.expired(now + Duration::from_secs(9), Duration::from_secs(1)),
        ids[1..]
    );
}
