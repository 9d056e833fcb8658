//! The state after a restart is what the log says.

use super::super::schema::{GroupValue, OffsetValue, group_key, offset_key};
use super::*;
use GroupError::*;

#[test]
fn a_stable_group_is_stable_again_and_its_members_need_not_rejoin() {
    let mut b = Bench::new();
    let (ids, generation) = b.stable(vec![member(), fixed("i")]);
    b.commit(commit_as(&ids[0], generation, "t", 3, 33))
        .unwrap_or_default();
    let before = b.c.describe("g").unwrap();
    let mut b = b.restarted(GroupsConfig::default());
    assert_eq!(b.c.describe("g").unwrap(), before);
    let dynamic = before
        .members
        .iter()
        .find(|m| m.group_instance_id.is_none())
        .unwrap()
        .member_id
        .clone();
    b.pass(SESSION - 1);
    assert_eq!(b.beat(&dynamic, generation), Ok(()));
    b.pass(1);
    assert_eq!(
        b.beat(&dynamic, generation),
        Err(RebalanceInProgress),
        "the other one was not heard of"
    );
}

#[test]
fn a_group_that_was_rebalancing_is_as_it_was_before() {
    let mut b = Bench::new();
    let (ids, generation) = b.stable(vec![member()]);
    b.join(member());
    let mut b = b.restarted(GroupsConfig::default());
    assert_eq!(b.state(), Some(State::Stable));
    assert_eq!(b.beat(&ids[0], generation), Ok(()));
}

#[test]
fn an_empty_group_keeps_its_generation() {
    let mut b = Bench::new();
    let (ids, generation) = b.stable(vec![member()]);
    b.leave(&[(&ids[0], None)]);
    let mut b = b.restarted(GroupsConfig::default());
    assert_eq!(b.state(), Some(State::Empty));
    let token = b.join(member());
    b.pass(3_000);
    assert_eq!(b.joined(token).generation, generation + 2);
}

#[test]
fn a_group_of_members_told_their_id_is_there_but_not_its_members() {
    let mut b = Bench::new();
    b.join(JoinRequest {
        require_known_member_id: true,
        ..member()
    });
    let mut b = b.restarted(GroupsConfig::default());
    assert_eq!(b.state(), Some(State::Empty));
    let token = b.join(again("m1"));
    assert_eq!(b.refused(token).0, UnknownMemberId);
}

#[test]
fn the_last_record_of_a_key_counts_and_tombstones_take_away() {
    let mut c = Coordinator::new(GroupsConfig::default());
    let value = |offset| OffsetValue {
        offset,
        leader_epoch: -1,
        metadata: String::new(),
        commit_timestamp_ms: START,
        expire_timestamp_ms: None,
    };
    for (partition, offset) in [
        (0, Some(1)),
        (1, Some(1)),
        (0, Some(2)),
        (1, None),
        (2, None),
    ] {
        let encoded = offset.map(|o| value(o).encode());
        c.load(START, &offset_key("g", "t", partition), encoded.as_deref())
            .unwrap();
    }
    c.finish_load(START);
    let all = c.fetch_offsets("g", None).unwrap();
    assert_eq!(
        all[0]
            .partitions
            .iter()
            .map(|p| (p.partition, p.offset))
            .collect::<Vec<_>>(),
        [(0, 2)]
    );
}

#[test]
fn a_groups_tombstone_takes_it_away_with_what_is_left_of_it() {
    let mut b = Bench::new();
    b.stable(vec![member()]);
    b.log.push((group_key("g"), None));
    let b = b.restarted(GroupsConfig::default());
    assert_eq!((b.state(), b.fetch("t", 0)), (None, -1));
}

#[test]
fn keys_of_other_protocols_are_passed_over_and_damage_is_told() {
    let mut c = Coordinator::new(GroupsConfig::default());
    for version in [3i16, 5, 8, 99, -1] {
        let key = [&version.to_be_bytes()[..], b"whatever"].concat();
        assert_eq!(c.load(START, &key, Some(b"x")), Ok(()));
    }
    assert!(c.load(START, &[0], None).is_err());
    assert!(c.load(START, &group_key("g"), Some(&[0, 3])).is_err());
    assert!(
        c.load(START, &offset_key("g", "t", 0), Some(&[0, 9]))
            .is_err()
    );
    c.finish_load(START);
    assert_eq!(c.list(&[], &[]).unwrap(), []);
}

#[test]
fn a_group_larger_than_the_limit_rebalances_and_the_last_stay_out() {
    let mut b = Bench::new();
    let (ids, generation) = b.stable(vec![member(), member(), member()]);
    let mut b = b.restarted(GroupsConfig {
        max_size: 2,
        ..GroupsConfig::default()
    });
    assert_eq!(b.beat(&ids[0], generation), Err(RebalanceInProgress));
    let tokens: Vec<Token> = ids.iter().map(|id| b.join(again(id))).collect();
    assert_eq!(b.refused(tokens[2]).0, GroupMaxSizeReached);
    b.pass(REBALANCE);
    assert_eq!(b.joined(tokens[0]).members.len(), 2);
    assert_eq!(b.joined(tokens[1]).generation, generation + 1);
}

#[test]
fn damaged_relations_in_a_record_do_no_harm() {
    let member = |id: &str, instance: &str| super::super::schema::MemberValue {
        member_id: id.into(),
        group_instance_id: Some(instance.into()),
        client_id: "c".into(),
        client_host: "/h".into(),
        rebalance_timeout_ms: -1,
        session_timeout_ms: SESSION as i32,
        subscription: Bytes::new(),
        assignment: Bytes::new(),
    };
    let value = GroupValue {
        protocol_type: "consumer".into(),
        generation: i32::MAX,
        protocol: None,
        leader: Some("nobody".into()),
        state_timestamp_ms: -1,
        members: vec![member("a", "i"), member("a", "i"), member("b", "i")],
    };
    let mut b = Bench::new();
    b.log.push((group_key("g"), Some(value.encode())));
    let mut b = b.restarted(GroupsConfig::default());
    let token = b.join(JoinRequest {
        member_id: "b".into(),
        ..fixed("i")
    });
    assert_eq!(b.refused(token).0, InconsistentGroupProtocol);
    b.pass(SESSION);
    assert_eq!(b.state(), Some(State::Empty));
    let token = b.join(super::member());
    b.pass(3_000);
    assert_eq!(
        b.joined(token).generation,
        2,
        "generations start over after the last number"
    );
}
