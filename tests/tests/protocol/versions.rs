//! Every advertised API answers a well-formed request in every advertised version with a response that decodes, and means it.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use tests::raw::{Raw, advertised, api_name};
use tests::server::Kind;
use tests::wait;
use uuid::Uuid;

use crate::support::*;

/// A topic with records, and what requests of all versions need to know of it.
struct Fixture {
    raw: Raw,
    topic: String,
    id: Uuid,
}

impl Fixture {
    fn new() -> Fixture {
        let mut raw = connect();
        let topic = topic(&mut raw);
        assert_eq!(produce(&mut raw, &topic, batch(3).build(0)).error_code, 0);
        let wanted = MetadataRequestTopic::default().with_name(Some(name(&topic)));
        let answer = raw.call(
            &MetadataRequest::default().with_topics(Some(vec![wanted])),
            12,
        );
        let id = answer.topics[0].topic_id;
        assert!(!id.is_nil());
        let mut fixture = Fixture { raw, topic, id };
        // Apache Kafka creates what holds the offsets, and the ids, when first asked, and wants to be asked again.
        wait::until("the group coordinator", || {
            find_coordinator(&mut fixture, 3).0 == 0 && commit(&mut fixture, 2) == 0
        });
        wait::until("producer ids", || {
            init_producer_id(&mut fixture, 0).error_code == 0
        });
        fixture
    }

    fn name(&self) -> TopicName {
        name(&self.topic)
    }

    /// Joins a new group as its only member: (group, member id, generation).
    fn join(&mut self) -> (GroupId, StrBytes, i32) {
        let group = GroupId(text(&unique("group")));
        let joined = self.raw.call(&join_request(&group, 3), 3);
        assert_eq!(joined.error_code, 0);
        (group, joined.member_id, joined.generation_id)
    }

    fn join_and_sync(&mut self) -> (GroupId, StrBytes, i32) {
        let (group, member, generation) = self.join();
        let answer = self.raw.call(&sync_request(&group, &member, generation), 3);
        assert_eq!(answer.error_code, 0);
        (group, member, generation)
    }
}

/// No topics, no user data. It is opaque to the protocol, but Apache Kafka looks inside and trusts the count it finds there.
const SUBSCRIPTION: &[u8] = &[0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];

fn join_request(group: &GroupId, version: i16) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(SUBSCRIPTION));
    JoinGroupRequest::default()
        .with_group_id(group.clone())
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(if version == 0 { -1 } else { 10_000 })
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

fn sync_request(group: &GroupId, member: &StrBytes, generation: i32) -> SyncGroupRequest {
    let mine = SyncGroupRequestAssignment::default()
        .with_member_id(member.clone())
        .with_assignment(Bytes::from_static(b"all"));
    SyncGroupRequest::default()
        .with_group_id(group.clone())
        .with_member_id(member.clone())
        .with_generation_id(generation)
        .with_assignments(vec![mine])
}

type Exercise = fn(&mut Fixture, i16);

/// What ordinary clients use, with the versions of Apache Kafka 4.1: (API key, advertised from, accepted from, to, exercise).
const ORDINARY: [(i16, i16, i16, i16, Exercise); 19] = [
    (0, 0, 3, 13, produce_version),
    (1, 4, 4, 18, fetch_version),
    (2, 1, 1, 10, list_offsets_version),
    (3, 0, 0, 13, metadata_version),
    (8, 2, 2, 9, offset_commit_version),
    (9, 1, 1, 9, offset_fetch_version),
    (10, 0, 0, 6, find_coordinator_version),
    (11, 0, 0, 9, join_group_version),
    (12, 0, 0, 4, heartbeat_version),
    (13, 0, 0, 5, leave_group_version),
    (14, 0, 0, 5, sync_group_version),
    (18, 0, 0, 4, api_versions_version),
    (19, 2, 2, 7, create_topics_version),
    (20, 1, 1, 6, delete_topics_version),
    (22, 0, 0, 5, init_producer_id_version),
    (23, 2, 2, 4, offset_for_leader_epoch_version),
    (32, 1, 1, 4, describe_configs_version),
    (60, 0, 0, 2, describe_cluster_version),
    (75, 0, 0, 0, describe_topic_partitions_version),
];

#[test]
fn ordinary_apis_are_advertised_as_kafka_does() {
    let advertised = advertised(server().port());
    for (key, min, _, max, _) in ORDINARY {
        let found = advertised.iter().find(|(k, _, _)| *k == key);
        assert_eq!(found, Some(&(key, min, max)), "{}", api_name(key));
    }
}

#[test]
fn nothing_is_advertised_that_no_test_exercises() {
    let known: BTreeSet<i16> = ORDINARY.iter().map(|(key, ..)| *key).collect();
    let all = advertised(server().port())
        .into_iter()
        .map(|(key, _, _)| key);
    let untested: Vec<String> = all.filter(|k| !known.contains(k)).map(api_name).collect();
    // Apache Kafka knows many more.
    assert!(
        server().kind() == Kind::Kafka || untested.is_empty(),
        "add an exercise for {untested:?}"
    );
}

#[test]
fn every_version_answers() {
    let mut fixture = Fixture::new();
    for (_, _, min, max, exercise) in ORDINARY {
        for version in min..=max {
            exercise(&mut fixture, version);
        }
    }
}

fn produce_version(f: &mut Fixture, v: i16) {
    let mut request = produce_request(&f.topic, batch(2).build(0));
    if v >= 13 {
        request.topic_data[0].name = name("");
        request.topic_data[0].topic_id = f.id;
    }
    let answer = f.raw.call(&request, v);
    let partition = &answer.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, 0, "Produce {v}");
    assert!(partition.base_offset > 0, "Produce {v}");
}

fn fetch_version(f: &mut Fixture, v: i16) {
    let mut request = fetch_request(&f.topic, 1);
    if v >= 13 {
        request.topics[0].topic = name("");
        request.topics[0].topic_id = f.id;
    }
    let answer = f.raw.call(&request, v);
    assert_eq!(answer.error_code, 0, "Fetch {v}");
    let partition = &answer.responses[0].partitions[0];
    assert_eq!(
        (partition.partition_index, partition.error_code),
        (0, 0),
        "Fetch {v}"
    );
    assert!(partition.high_watermark >= 3, "Fetch {v}");
    let records = partition.records.clone().unwrap();
    let (first, _) = wire::batch::split(&records).next().unwrap().unwrap();
    assert_eq!(
        (first.base_offset, first.last_offset()),
        (0, 2),
        "the whole batch that holds offset 1"
    );
}

fn list_offsets_version(f: &mut Fixture, v: i16) {
    for (timestamp, wanted) in [(-2, 0), (now_ms(), 0)] {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(0)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(f.name())
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![topic]);
        let answer = f.raw.call(&request, v);
        let partition = &answer.topics[0].partitions[0];
        assert_eq!(
            (partition.error_code, partition.offset),
            (0, wanted),
            "ListOffsets {v}"
        );
    }
}

fn metadata_version(f: &mut Fixture, v: i16) {
    let wanted = MetadataRequestTopic::default().with_name(Some(f.name()));
    let answer = f.raw.call(
        &MetadataRequest::default().with_topics(Some(vec![wanted])),
        v,
    );
    assert_eq!(answer.brokers.len(), 1, "Metadata {v}");
    assert_eq!(
        answer.brokers[0].port,
        i32::from(server().port()),
        "Metadata {v}"
    );
    let topic = &answer.topics[0];
    assert_eq!(
        (topic.error_code, topic.partitions.len()),
        (0, 1),
        "Metadata {v}"
    );
    assert_eq!(
        topic.partitions[0].leader_id, answer.brokers[0].node_id,
        "Metadata {v}"
    );
    assert_eq!(
        topic.topic_id,
        if v >= 10 { f.id } else { Uuid::nil() },
        "Metadata {v}"
    );
}

fn offset_commit_version(f: &mut Fixture, v: i16) {
    assert_eq!(commit(f, v), 0, "OffsetCommit {v}");
}

fn commit(f: &mut Fixture, v: i16) -> i16 {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(i64::from(v))
        .with_committed_metadata(Some(text("m")));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(f.name())
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text("simple")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    f.raw.call(&request, v).topics[0].partitions[0].error_code
}

fn offset_fetch_version(f: &mut Fixture, v: i16) {
    offset_commit_version(f, 9);
    let group = GroupId(text("simple"));
    let found = if v < 8 {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(f.name())
            .with_partition_indexes(vec![0]);
        let answer = f.raw.call(
            &OffsetFetchRequest::default()
                .with_group_id(group)
                .with_topics(Some(vec![topic])),
            v,
        );
        let partition = &answer.topics[0].partitions[0];
        (partition.error_code, partition.committed_offset)
    } else {
        let topic = OffsetFetchRequestTopics::default()
            .with_name(f.name())
            .with_partition_indexes(vec![0]);
        let wanted = OffsetFetchRequestGroup::default()
            .with_group_id(group)
            .with_topics(Some(vec![topic]));
        let answer = f
            .raw
            .call(&OffsetFetchRequest::default().with_groups(vec![wanted]), v);
        let partition = &answer.groups[0].topics[0].partitions[0];
        (partition.error_code, partition.committed_offset)
    };
    assert_eq!(found, (0, 9), "OffsetFetch {v}");
}

fn find_coordinator_version(f: &mut Fixture, v: i16) {
    assert_eq!(
        find_coordinator(f, v),
        (0, i32::from(server().port())),
        "FindCoordinator {v}"
    );
}

/// (error, port)
fn find_coordinator(f: &mut Fixture, v: i16) -> (i16, i32) {
    let mut request = FindCoordinatorRequest::default();
    if v < 4 {
        request.key = text("some group")
    } else {
        request.coordinator_keys = vec![text("some group")]
    }
    let answer = f.raw.call(&request, v);
    match answer.coordinators.first() {
        Some(coordinator) => (coordinator.error_code, coordinator.port),
        None => (answer.error_code, answer.port),
    }
}

fn join_group_version(f: &mut Fixture, v: i16) {
    const MEMBER_ID_REQUIRED: i16 = 79;
    let group = GroupId(text(&unique("group")));
    let mut request = join_request(&group, v);
    let mut answer = f.raw.call(&request, v);
    if v >= 4 {
        assert_eq!(answer.error_code, MEMBER_ID_REQUIRED, "JoinGroup {v}");
        request.member_id = answer.member_id;
        answer = f.raw.call(&request, v);
    }
    assert_eq!(
        (answer.error_code, answer.generation_id),
        (0, 1),
        "JoinGroup {v}"
    );
    assert_eq!(answer.leader, answer.member_id, "JoinGroup {v}");
    assert_eq!(answer.members.len(), 1, "JoinGroup {v}");
    assert_eq!(answer.members[0].metadata, SUBSCRIPTION, "JoinGroup {v}");
}

fn sync_group_version(f: &mut Fixture, v: i16) {
    let (group, member, generation) = f.join();
    let mut request = sync_request(&group, &member, generation);
    if v >= 5 {
        request.protocol_type = Some(text("consumer"));
        request.protocol_name = Some(text("range"));
    }
    let answer = f.raw.call(&request, v);
    assert_eq!(
        (answer.error_code, &answer.assignment[..]),
        (0, &b"all"[..]),
        "SyncGroup {v}"
    );
}

fn heartbeat_version(f: &mut Fixture, v: i16) {
    let (group, member, generation) = f.join_and_sync();
    let request = HeartbeatRequest::default()
        .with_group_id(group)
        .with_member_id(member)
        .with_generation_id(generation);
    assert_eq!(f.raw.call(&request, v).error_code, 0, "Heartbeat {v}");
}

fn leave_group_version(f: &mut Fixture, v: i16) {
    let (group, member, _) = f.join_and_sync();
    let mut request = LeaveGroupRequest::default().with_group_id(group);
    if v < 3 {
        request.member_id = member
    } else {
        request.members = vec![MemberIdentity::default().with_member_id(member)]
    }
    let answer = f.raw.call(&request, v);
    assert_eq!(answer.error_code, 0, "LeaveGroup {v}");
    assert!(
        answer.members.iter().all(|m| m.error_code == 0),
        "LeaveGroup {v}"
    );
}

fn api_versions_version(f: &mut Fixture, v: i16) {
    let mut request = ApiVersionsRequest::default();
    if v >= 3 {
        request.client_software_name = text("tests");
        request.client_software_version = text("1");
    }
    let answer = f.raw.call(&request, v);
    assert_eq!(answer.error_code, 0, "ApiVersions {v}");
    assert!(answer.api_keys.len() >= ORDINARY.len(), "ApiVersions {v}");
}

fn create_topics_version(f: &mut Fixture, v: i16) {
    let new = create_topics_request::CreatableTopic::default()
        .with_name(name(&unique("versioned")))
        .with_num_partitions(if v >= 4 { -1 } else { 1 })
        .with_replication_factor(if v >= 4 { -1 } else { 1 });
    let answer = f.raw.call(
        &CreateTopicsRequest::default()
            .with_topics(vec![new])
            .with_timeout_ms(30_000),
        v,
    );
    assert_eq!(answer.topics[0].error_code, 0, "CreateTopics {v}");
    if v >= 5 {
        assert_eq!(
            (
                answer.topics[0].num_partitions,
                answer.topics[0].replication_factor
            ),
            (1, 1),
            "CreateTopics {v}"
        );
    }
}

fn delete_topics_version(f: &mut Fixture, v: i16) {
    let doomed = topic(&mut f.raw);
    let mut request = DeleteTopicsRequest::default().with_timeout_ms(30_000);
    if v < 6 {
        request.topic_names = vec![name(&doomed)];
    } else {
        request.topics = vec![DeleteTopicState::default().with_name(Some(name(&doomed)))];
    }
    assert_eq!(
        f.raw.call(&request, v).responses[0].error_code,
        0,
        "DeleteTopics {v}"
    );
}

fn init_producer_id(f: &mut Fixture, v: i16) -> InitProducerIdResponse {
    f.raw.call(
        &InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000),
        v,
    )
}

fn init_producer_id_version(f: &mut Fixture, v: i16) {
    let answer = init_producer_id(f, v);
    assert_eq!(
        (answer.error_code, answer.producer_epoch),
        (0, 0),
        "InitProducerId {v}"
    );
    assert!(answer.producer_id.0 >= 0, "InitProducerId {v}");
}

fn offset_for_leader_epoch_version(f: &mut Fixture, v: i16) {
    let partition = OffsetForLeaderPartition::default()
        .with_partition(0)
        .with_leader_epoch(0);
    let topic = OffsetForLeaderTopic::default()
        .with_topic(f.name())
        .with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic]);
    let mut request = request;
    if v < 3 {
        request.replica_id = BrokerId(-2);
    }
    let answer = f.raw.call(&request, v);
    let partition = &answer.topics[0].partitions[0];
    assert_eq!(
        (partition.error_code, partition.leader_epoch),
        (0, 0),
        "OffsetForLeaderEpoch {v}"
    );
    assert!(partition.end_offset >= 3, "OffsetForLeaderEpoch {v}");
}

fn describe_configs_version(f: &mut Fixture, v: i16) {
    const TOPIC: i8 = 2;
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(&f.topic))
        .with_configuration_keys(None);
    let answer = f.raw.call(
        &DescribeConfigsRequest::default().with_resources(vec![resource]),
        v,
    );
    let result = &answer.results[0];
    assert_eq!(result.error_code, 0, "DescribeConfigs {v}");
    let policy = result
        .configs
        .iter()
        .find(|c| &*c.name == "cleanup.policy")
        .unwrap();
    assert_eq!(
        policy.value.as_deref(),
        Some("delete"),
        "DescribeConfigs {v}"
    );
}

fn describe_cluster_version(f: &mut Fixture, v: i16) {
    let answer = f.raw.call(&DescribeClusterRequest::default(), v);
    assert_eq!(
        (answer.error_code, answer.brokers.len()),
        (0, 1),
        "DescribeCluster {v}"
    );
    assert!(!answer.cluster_id.is_empty(), "DescribeCluster {v}");
}

fn describe_topic_partitions_version(f: &mut Fixture, v: i16) {
    let wanted = TopicRequest::default().with_name(f.name());
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![wanted])
        .with_response_partition_limit(100);
    let answer = f.raw.call(&request, v);
    let topic = &answer.topics[0];
    assert_eq!(
        (topic.error_code, topic.topic_id, topic.partitions.len()),
        (0, f.id, 1),
        "DescribeTopicPartitions {v}"
    );
}
