//! Malformed frames by the ten thousand, from a seed: whatever comes, the broker goes on serving others and its memory stays flat.

use std::net::Shutdown;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, HeaderVersion, Message, Request};
use tests::env;
use tests::random::Random;
use tests::raw::{Raw, frame};
use tests::server::{Kind, Server};

use crate::support::*;

/// A thread's share of connections between two looks at the broker.
const ROUND: u64 = 1000;

#[test]
fn malformed_frames_leave_the_broker_serving() {
    // Topics that a mutated request may create must not fill the disk, nor old ones be deleted by chance.
    let server = Server::start(&[("num.partitions", "1")]);
    let default = if server.kind() == Kind::Kafka {
        3_000
    } else {
        30_000
    };
    let frames = env::number("MINI_BROKER_TEST_MALFORMED_FRAMES", default);
    let seed = env::number("MINI_BROKER_TEST_SEED", 20_261_121);
    println!("seed {seed}, {frames} frames");
    let mut canary = Canary::new(&server);
    let valid = templates();
    let mut memory_kib = Vec::new();
    for round in 0..frames / (2 * ROUND) {
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let mut random = Random::new(seed + 2 * round + thread);
                let (server, valid) = (&server, &valid);
                scope.spawn(move || {
                    (0..ROUND).for_each(|_| send_one(server, &mutate(valid, &mut random)))
                });
            }
        });
        canary.sings();
        memory_kib.push(server.process().resident_kib());
    }
    assert!(!server.log().contains("panicked"), "{}", server.log());
    if server.kind() == Kind::MiniBroker {
        // The first rounds fill caches and create topics.
        let settled = memory_kib[memory_kib.len() / 3];
        let last = *memory_kib.last().unwrap();
        assert!(
            last < settled + 32 * 1024,
            "memory grows, in KiB after each round: {memory_kib:?}"
        );
        let peak = server.process().peak_resident_kib();
        assert!(peak < 256 * 1024, "a peak of {peak} KiB");
    }
}

#[test]
fn no_memory_is_taken_on_a_strangers_word() {
    if Kind::chosen() == Kind::Kafka {
        return; // It takes the memory, and its heap is full.
    }
    let server = Server::start(&[]);
    let mut canary = Canary::new(&server);
    let before = server.process().resident_kib();
    // Frames of 100 MiB are allowed. Here a hundred are announced, and hardly any of it is sent.
    let held: Vec<Raw> = (0..100)
        .map(|_| {
            let mut raw = Raw::connect(server.port()).unwrap();
            raw.send(&104_857_600i32.to_be_bytes()).unwrap();
            raw.send(&[0; 1000]).unwrap();
            raw
        })
        .collect();
    canary.sings();
    let taken = server.process().resident_kib().saturating_sub(before);
    assert!(taken < 32 * 1024, "{taken} KiB for announcements");
    drop(held);
    canary.sings();
}

/// Another client of the same broker, which must not notice anything.
struct Canary {
    raw: Raw,
    topic: String,
    sung: i64,
}

impl Canary {
    fn new(server: &Server) -> Canary {
        let mut raw = Raw::connect(server.port()).unwrap();
        let topic = topic(&mut raw);
        Canary {
            raw,
            topic,
            sung: 0,
        }
    }

    fn sings(&mut self) {
        let produced = produce(&mut self.raw, &self.topic, batch(1).build(0));
        assert_eq!((produced.error_code, produced.base_offset), (0, self.sung));
        let fetched = self.raw.call(&fetch_request(&self.topic, self.sung), 12);
        assert_eq!(fetched.responses[0].partitions[0].error_code, 0);
        self.sung += 1;
    }
}

fn send_one(server: &Server, bytes: &[u8]) {
    let mut raw = Raw::connect(server.port()).expect("the broker accepts connections");
    raw.set_limit(Duration::from_millis(20));
    // The broker may close while it is being written to.
    if raw.send(bytes).is_ok() && raw.stream().shutdown(Shutdown::Write).is_ok() {
        // An answer, a close, or nothing: all are right, as long as others are served.
        let _ = raw.receive();
    }
}

/// Valid frames of every API that ordinary clients use, in every version.
fn templates() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let t = || name("mutated");
    let g = || GroupId(text("mutated"));
    every(&mut all, |v| {
        let mut r = produce_request(if v < 13 { "mutated" } else { "" }, batch(3).build(0));
        r.transactional_id = Some(TransactionalId(text("tx"))).filter(|_| v % 2 == 0);
        r
    });
    every(&mut all, |v| {
        fetch_request(if v < 13 { "mutated" } else { "" }, 0)
    });
    every(&mut all, |_| {
        let p = ListOffsetsPartition::default().with_timestamp(-1);
        let topic = ListOffsetsTopic::default()
            .with_name(t())
            .with_partitions(vec![p]);
        ListOffsetsRequest::default().with_topics(vec![topic])
    });
    every(&mut all, |_| {
        let topics = (0..3)
            .map(|_| MetadataRequestTopic::default().with_name(Some(t())))
            .collect();
        MetadataRequest::default().with_topics(Some(topics))
    });
    every(&mut all, |v| {
        let p = OffsetCommitRequestPartition::default()
            .with_committed_metadata(Some(text("some metadata")));
        let topic = OffsetCommitRequestTopic::default().with_partitions(vec![p]);
        let topic = if v < 10 { topic.with_name(t()) } else { topic };
        OffsetCommitRequest::default()
            .with_group_id(g())
            .with_topics(vec![topic])
    });
    every(&mut all, |v| {
        if v < 8 {
            OffsetFetchRequest::default()
                .with_group_id(g())
                .with_topics(None.filter(|_| v > 1).or(Some(vec![])))
        } else {
            let group = offset_fetch_request::OffsetFetchRequestGroup::default().with_group_id(g());
            OffsetFetchRequest::default().with_groups(vec![group.clone(), group])
        }
    });
    every(&mut all, |v| {
        let r = FindCoordinatorRequest::default();
        if v < 4 {
            r.with_key(text("mutated"))
        } else {
            r.with_coordinator_keys(vec![text("a"), text("b")])
        }
    });
    every(&mut all, |v| {
        let p = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(Bytes::from_static(&[1; 40]));
        let r = JoinGroupRequest::default()
            .with_group_id(g())
            .with_session_timeout_ms(6000)
            .with_protocols(vec![p]);
        r.with_rebalance_timeout_ms(if v == 0 { -1 } else { 6000 })
            .with_protocol_type(text("consumer"))
    });
    every(&mut all, |_| {
        HeartbeatRequest::default()
            .with_group_id(g())
            .with_member_id(text("member"))
    });
    every(&mut all, |v| {
        let r = LeaveGroupRequest::default().with_group_id(g());
        if v < 3 {
            r.with_member_id(text("member"))
        } else {
            r.with_members(vec![Default::default(), Default::default()])
        }
    });
    every(&mut all, |_| {
        let a = sync_group_request::SyncGroupRequestAssignment::default()
            .with_assignment(Bytes::from_static(&[2; 40]));
        SyncGroupRequest::default()
            .with_group_id(g())
            .with_assignments(vec![a])
    });
    every(&mut all, |v| {
        let r = ApiVersionsRequest::default();
        if v < 3 {
            r
        } else {
            r.with_client_software_name(text("tests"))
                .with_client_software_version(text("1.0"))
        }
    });
    every(&mut all, |_| {
        let new = CreatableTopic::default()
            .with_name(t())
            .with_num_partitions(1)
            .with_replication_factor(1);
        CreateTopicsRequest::default()
            .with_topics(vec![new])
            .with_validate_only(true)
    });
    every(&mut all, |v| {
        let r = DeleteTopicsRequest::default();
        if v < 6 {
            r.with_topic_names(vec![t()])
        } else {
            r.with_topics(vec![Default::default()])
        }
    });
    every(&mut all, |_| {
        InitProducerIdRequest::default().with_transactional_id(Some(TransactionalId(text("tx"))))
    });
    every(&mut all, |_| {
        let p = offset_for_leader_epoch_request::OffsetForLeaderPartition::default();
        let topic =
            offset_for_leader_epoch_request::OffsetForLeaderTopic::default().with_topic(t());
        OffsetForLeaderEpochRequest::default().with_topics(vec![topic.with_partitions(vec![p])])
    });
    every(&mut all, |_| {
        let resource = describe_configs_request::DescribeConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("mutated"))
            .with_configuration_keys(Some(vec![text("retention.ms")]));
        DescribeConfigsRequest::default().with_resources(vec![resource])
    });
    every(&mut all, |_| DescribeClusterRequest::default());
    every(&mut all, |_| {
        let topic = describe_topic_partitions_request::TopicRequest::default().with_name(t());
        DescribeTopicPartitionsRequest::default().with_topics(vec![topic])
    });
    all
}

/// A frame for each version of a request that can be encoded.
fn every<R: Request + Message + Encodable + HeaderVersion>(
    all: &mut Vec<Vec<u8>>,
    make: impl Fn(i16) -> R,
) {
    for version in R::VERSIONS.min..=R::VERSIONS.max {
        let request = make(version);
        if request.compute_size(version).is_ok() {
            all.push(frame(&request, version, 1));
        }
    }
}

/// A frame that is wrong in one of the ways frames can be wrong.
fn mutate(valid: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = valid[random.below(valid.len())].clone();
    match random.below(8) {
        0 => flip_bits(&mut bytes, random),
        1 => giant_count(&mut bytes, random),
        2 => truncate(&mut bytes, random, true),
        3 => truncate(&mut bytes, random, false),
        4 => insert(&mut bytes, random),
        5 => lying_length(&mut bytes, random),
        6 => {
            let len = random.below(200);
            bytes = random.bytes(len);
        }
        _ => splice(&mut bytes, &valid[random.below(valid.len())], random),
    }
    bytes
}

fn flip_bits(bytes: &mut [u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = 4 + random.below(bytes.len() - 4);
        bytes[at] ^= 1 << random.below(8);
    }
}

/// A count or length of all ones, as 4 bytes or as a varint, somewhere in the body.
fn giant_count(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = 8 + random.below(bytes.len() - 8);
    let giant: &[u8] = if random.below(2) == 0 {
        &[0x7f, 0xff, 0xff, 0xff]
    } else {
        &[0xff, 0xff, 0xff, 0xff, 0x07]
    };
    let end = (at + giant.len()).min(bytes.len());
    bytes.splice(at..end, giant.iter().copied());
    fix_length(bytes);
}

/// Cut off, with a length that fits or that promises more.
fn truncate(bytes: &mut Vec<u8>, random: &mut Random, fits: bool) {
    bytes.truncate(4 + random.below(bytes.len() - 4));
    if fits {
        fix_length(bytes);
    }
}

fn insert(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = 4 + random.below(bytes.len() - 4);
    let len = 1 + random.below(20);
    let junk = random.bytes(len);
    bytes.splice(at..at, junk);
    fix_length(bytes);
}

fn lying_length(bytes: &mut [u8], random: &mut Random) {
    let length = match random.below(4) {
        0 => random.number() as u32,
        1 => random.below(64) as u32,
        2 => 104_857_600,
        _ => u32::MAX - random.below(16) as u32,
    };
    bytes[..4].copy_from_slice(&length.to_be_bytes());
}

/// One request's header and beginning, another's end.
fn splice(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    bytes.truncate(4 + random.below(bytes.len() - 4));
    bytes.extend_from_slice(&other[4 + random.below(other.len() - 4)..]);
    fix_length(bytes);
}

fn fix_length(bytes: &mut [u8]) {
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
}
