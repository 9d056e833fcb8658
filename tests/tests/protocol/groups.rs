//! The group protocol step by step: who is waited for, who is refused, and with which error.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use tests::raw::{Raw, decode};

use crate::support::*;

const ILLEGAL_GENERATION: i16 = 22;
const INCONSISTENT_GROUP_PROTOCOL: i16 = 23;
const INVALID_GROUP_ID: i16 = 24;
const UNKNOWN_MEMBER_ID: i16 = 25;
const INVALID_SESSION_TIMEOUT: i16 = 26;
const REBALANCE_IN_PROGRESS: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;
const FENCED_INSTANCE_ID: i16 = 82;

struct Member {
    raw: Raw,
    group: GroupId,
    id: StrBytes,
    instance: Option<StrBytes>,
    generation: i32,
}

impl Member {
    fn new(group: &str, instance: Option<&str>) -> Member {
        let raw = connect();
        Member {
            raw,
            group: GroupId(text(group)),
            id: text(""),
            instance: instance.map(text),
            generation: -1,
        }
    }

    fn join_request(&self) -> JoinGroupRequest {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            // No topics, no user data.
            .with_metadata(Bytes::from_static(&[
                0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
            ]));
        JoinGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_session_timeout_ms(30_000)
            .with_rebalance_timeout_ms(30_000)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol])
    }

    fn send_join(&mut self) -> i32 {
        let frame = self.raw.frame(&self.join_request(), 7);
        self.raw.send(&frame).unwrap();
        i32::from_be_bytes(frame[8..12].try_into().unwrap())
    }

    fn joined(&mut self, correlation_id: i32) -> JoinGroupResponse {
        let answer = self.raw.receive().unwrap().expect("an answer");
        let joined = decode::<JoinGroupRequest>(answer, 7, correlation_id).unwrap();
        self.id = joined.member_id.clone();
        self.generation = joined.generation_id;
        joined
    }

    /// Joins; a new dynamic member is given its id first.
    fn join(&mut self) -> JoinGroupResponse {
        let id = self.send_join();
        let answer = self.joined(id);
        if answer.error_code != MEMBER_ID_REQUIRED {
            return answer;
        }
        let id = self.send_join();
        self.joined(id)
    }

    fn sync_request(&self, others: &[&Member]) -> SyncGroupRequest {
        let share = |m: &Member| {
            SyncGroupRequestAssignment::default()
                .with_member_id(m.id.clone())
                .with_assignment(Bytes::from(m.id.to_string()))
        };
        SyncGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            .with_assignments(others.iter().map(|m| share(m)).collect())
    }

    /// Syncs as the leader who gives itself everything.
    fn sync_alone(&mut self) -> i16 {
        let request = self.sync_request(&[self]);
        self.raw.call(&request, 3).error_code
    }

    fn heartbeat(&mut self) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone());
        self.raw.call(&request, 3).error_code
    }

    fn commit(&mut self, topic: &str) -> i16 {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(1);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(name(topic))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            .with_topics(vec![topic]);
        self.raw.call(&request, 7).topics[0].partitions[0].error_code
    }
}

/// Apache Kafka's coordinator is there only after it was asked for.
fn ready() {
    let mut raw = connect();
    let request = FindCoordinatorRequest::default().with_key(text("any"));
    tests::wait::until("the coordinator", || raw.call(&request, 3).error_code == 0);
    let list = HeartbeatRequest::default()
        .with_group_id(GroupId(text("none")))
        .with_member_id(text("x"));
    tests::wait::until("its groups", || {
        raw.call(&list, 3).error_code == UNKNOWN_MEMBER_ID
    });
}

#[test]
fn followers_wait_for_the_leader() {
    ready();
    let group = unique("g");
    let (mut a, mut b) = (Member::new(&group, None), Member::new(&group, None));
    assert_eq!(a.join().error_code, 0);
    assert_eq!(a.sync_alone(), 0);
    // The second member's join waits for the first one to join again.
    let id = b.send_join();
    assert_eq!(b.joined(id).error_code, MEMBER_ID_REQUIRED);
    let waiting = b.send_join();
    tests::wait::until("the rebalance", || a.heartbeat() == REBALANCE_IN_PROGRESS);
    let first = a.join();
    let second = b.joined(waiting);
    assert_eq!((first.error_code, second.error_code), (0, 0));
    assert_eq!((first.generation_id, second.generation_id), (2, 2));
    assert_eq!(first.leader, second.leader);
    assert_eq!(
        first.members.len() + second.members.len(),
        2,
        "only the leader is told who is there"
    );
    let (mut leader, mut follower) = if first.leader == a.id { (a, b) } else { (b, a) };
    let request = follower.sync_request(&[]);
    let frame = follower.raw.frame(&request, 3);
    follower.raw.send(&frame).unwrap();
    let request = leader.sync_request(&[&leader, &follower]);
    let answer = leader.raw.call(&request, 3);
    assert_eq!(
        (answer.error_code, &answer.assignment[..]),
        (0, leader.id.as_bytes())
    );
    let correlation_id = i32::from_be_bytes(frame[8..12].try_into().unwrap());
    let answer = follower.raw.receive().unwrap().unwrap();
    let answer = decode::<SyncGroupRequest>(answer, 3, correlation_id).unwrap();
    assert_eq!(
        (answer.error_code, &answer.assignment[..]),
        (0, follower.id.as_bytes())
    );
    assert_eq!((leader.heartbeat(), follower.heartbeat()), (0, 0));
}

#[test]
fn strangers_and_latecomers_are_refused() {
    ready();
    let mut member = Member::new(&unique("g"), None);
    let topic = topic(&mut member.raw);
    assert_eq!(member.join().error_code, 0);
    assert_eq!(
        member.commit(&topic),
        REBALANCE_IN_PROGRESS,
        "before the assignment is known"
    );
    assert_eq!(member.sync_alone(), 0);
    assert_eq!((member.commit(&topic), member.heartbeat()), (0, 0));
    member.generation += 1;
    assert_eq!(
        (member.commit(&topic), member.heartbeat()),
        (ILLEGAL_GENERATION, ILLEGAL_GENERATION)
    );
    member.generation -= 1;
    let id = std::mem::replace(&mut member.id, text("nobody"));
    assert_eq!(
        (member.commit(&topic), member.heartbeat()),
        (UNKNOWN_MEMBER_ID, UNKNOWN_MEMBER_ID)
    );
    assert_eq!(member.join().error_code, UNKNOWN_MEMBER_ID);
    member.id = id;
    member.generation = 1;
    let mut simple = Member::new(&member.group.to_string(), None);
    assert_eq!(
        simple.commit(&topic),
        UNKNOWN_MEMBER_ID,
        "a simple consumer in a group with members"
    );
}

#[test]
fn impossible_joins_are_refused() {
    ready();
    let mut member = Member::new(&unique("g"), None);
    let mut request = member.join_request();
    request.session_timeout_ms = 1;
    assert_eq!(
        member.raw.call(&request, 5).error_code,
        INVALID_SESSION_TIMEOUT
    );
    let mut request = member.join_request();
    request.group_id = GroupId(text(""));
    assert_eq!(member.raw.call(&request, 5).error_code, INVALID_GROUP_ID);
    let mut request = member.join_request();
    request.protocols.clear();
    assert_eq!(
        member.raw.call(&request, 5).error_code,
        INCONSISTENT_GROUP_PROTOCOL
    );
    assert_eq!(member.join().error_code, 0);
    let other = Member::new(&member.group.to_string(), None);
    let mut request = other.join_request();
    request.protocol_type = text("connect");
    assert_eq!(
        member.raw.call(&request, 3).error_code,
        INCONSISTENT_GROUP_PROTOCOL
    );
}

#[test]
fn a_static_member_that_comes_back_fences_its_old_self() {
    ready();
    let group = unique("g");
    let mut old = Member::new(&group, Some("one"));
    assert_eq!(
        old.join().error_code,
        0,
        "a static member needs no id first"
    );
    assert_eq!(old.sync_alone(), 0);
    let mut new = Member::new(&group, Some("one"));
    let joined = new.join();
    assert_eq!(
        (joined.error_code, joined.generation_id),
        (0, 1),
        "no rebalance"
    );
    assert_ne!(new.id, old.id);
    assert_eq!(old.heartbeat(), FENCED_INSTANCE_ID);
    let topic = topic(&mut new.raw);
    assert_eq!(old.commit(&topic), FENCED_INSTANCE_ID);
    assert_eq!(new.heartbeat(), 0);
    assert_eq!(new.commit(&topic), 0);
}

#[test]
fn leaving_ends_a_membership() {
    ready();
    let mut member = Member::new(&unique("g"), None);
    assert_eq!(member.join().error_code, 0);
    assert_eq!(member.sync_alone(), 0);
    let leaving = MemberIdentity::default().with_member_id(member.id.clone());
    let stranger = MemberIdentity::default().with_member_id(text("nobody"));
    let request = LeaveGroupRequest::default()
        .with_group_id(member.group.clone())
        .with_members(vec![leaving, stranger]);
    let answer = member.raw.call(&request, 4);
    assert_eq!(answer.error_code, 0);
    let errors: Vec<i16> = answer.members.iter().map(|m| m.error_code).collect();
    assert_eq!(errors, [0, UNKNOWN_MEMBER_ID]);
    assert_eq!(member.heartbeat(), UNKNOWN_MEMBER_ID);
}
