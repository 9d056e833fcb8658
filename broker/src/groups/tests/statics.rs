//! Static members (KIP-345): one that comes back without its member id takes its own place.

use super::*;
use GroupError::*;

#[test]
fn a_member_that_comes_back_to_a_stable_group_changes_nothing_for_the_others() {
    let mut b = Bench::new();
    let (ids, generation) = b.stable(vec![member(), fixed("i")]);
    let old =
        b.c.describe("g")
            .unwrap()
            .members
            .into_iter()
            .find(|m| m.group_instance_id.is_some())
            .unwrap();
    let records = b.log.len();
    let token = b.join(JoinRequest {
        new_member_id: "fresh".into(),
        ..fixed("i")
    });
    let joined = b.joined(token);
    assert_eq!(
        (joined.generation, joined.member_id.as_str()),
        (generation, "fresh")
    );
    assert!(joined.members.is_empty() && !joined.skip_assignment);
    assert_eq!(b.state(), Some(State::Stable));
    assert_eq!(b.log.len(), records + 1, "the new member id is written");
    let token = b.sync(SyncRequest {
        group_instance_id: Some("i".into()),
        ..sync_as("fresh", generation, vec![])
    });
    assert_eq!(
        b.assignment(token),
        format!("a-{}", old.member_id),
        "it has its old assignment"
    );
    assert_eq!(
        b.beat_as(&old.member_id, Some("i"), generation),
        Err(FencedInstanceId)
    );
    assert_eq!(b.beat_as("fresh", Some("i"), generation), Ok(()));
    assert!(ids.contains(&old.member_id));
}

#[test]
fn the_old_member_is_fenced_everywhere() {
    let mut b = Bench::new();
    let (ids, generation) = b.stable(vec![fixed("i")]);
    b.join(fixed("i"));
    let instance = Some("i".to_owned());
    let token = b.join(JoinRequest {
        member_id: ids[0].clone(),
        ..fixed("i")
    });
    assert_eq!(b.refused(token).0, FencedInstanceId);
    let token = b.sync(SyncRequest {
        group_instance_id: instance.clone(),
        ..sync_as(&ids[0], generation, vec![])
    });
    assert_eq!(b.synced(token), Err(FencedInstanceId));
    assert_eq!(
        b.beat_as(&ids[0], Some("i"), generation),
        Err(FencedInstanceId)
    );
    let commit = CommitRequest {
        group_instance_id: instance,
        ..commit_as(&ids[0], generation, "t", 0, 1)
    };
    assert_eq!(b.commit(commit), Err(FencedInstanceId));
    assert_eq!(b.leave(&[(&ids[0], Some("i"))]), [Some(FencedInstanceId)]);
    assert_eq!(
        b.beat_as(&ids[0], Some("other"), generation),
        Err(UnknownMemberId)
    );
    assert_eq!(b.beat(&ids[0], generation), Err(UnknownMemberId));
}

#[test]
fn a_leader_that_comes_back_must_not_assign_anew() {
    for (can_skip_assignment, leader_told, members) in [(false, "old", 0), (true, "fresh", 2)] {
        let mut b = Bench::new();
        let lead = JoinRequest {
            new_member_id: "old".into(),
            ..fixed("i")
        };
        let (ids, _) = b.stable(vec![lead, fixed("j")]);
        assert_eq!(ids[0], "old");
        let token = b.join(JoinRequest {
            new_member_id: "fresh".into(),
            can_skip_assignment,
            ..fixed("i")
        });
        let joined = b.joined(token);
        assert_eq!(
            joined.leader, leader_told,
            "before version 9 it is told its old id, so that it follows"
        );
        assert_eq!(
            (joined.skip_assignment, joined.members.len()),
            (can_skip_assignment, members)
        );
        let token = b.sync(SyncRequest {
            group_instance_id: Some("i".into()),
            ..sync_as("fresh", 1, vec![])
        });
        assert_eq!(b.assignment(token), "a-old");
    }
}

#[test]
fn coming_back_with_another_choice_of_protocols_makes_a_rebalance() {
    let mut b = Bench::new();
    let both = protocols(&["range", "sticky"]);
    let one = JoinRequest {
        protocols: both.clone(),
        ..fixed("i")
    };
    let (ids, _) = b.stable(vec![
        one.clone(),
        JoinRequest {
            protocols: both,
            ..fixed("j")
        },
    ]);
    let token = b.join(JoinRequest {
        protocols: protocols(&["sticky"]),
        ..one
    });
    assert!(b.waits(token));
    assert_eq!(b.state(), Some(State::PreparingRebalance));
    assert_eq!(ids.len(), 2);
}

#[test]
fn during_a_rebalance_the_waiting_old_member_is_fenced_and_the_new_one_waits() {
    let mut b = Bench::new();
    let (ids, generation) = b.stable(vec![member(), fixed("i")]);
    b.join(member());
    let old_id = ids
        .iter()
        .find(|id| b.beat_as(id, Some("i"), generation) == Err(RebalanceInProgress))
        .unwrap()
        .clone();
    let old = b.join(JoinRequest {
        member_id: old_id.clone(),
        ..fixed("i")
    });
    let new = b.join(fixed("i"));
    assert_eq!(b.refused(old), (FencedInstanceId, old_id.clone()));
    assert!(b.waits(new));
    let other = ids.iter().find(|id| **id != old_id).unwrap();
    b.join(again(other));
    assert_eq!(b.joined(new).generation, generation + 1);
}

#[test]
fn coming_back_before_the_assignment_starts_over() {
    let mut b = Bench::new();
    let (ids, generation) = b.form(vec![member(), fixed("i"), fixed("j")]);
    let sync_of = |id: &str, instance: &str| SyncRequest {
        group_instance_id: Some(instance.into()),
        ..sync_as(id, generation, vec![])
    };
    let (replaced, other) = (b.sync(sync_of(&ids[1], "i")), b.sync(sync_of(&ids[2], "j")));
    let token = b.join(fixed("i"));
    assert!(b.waits(token));
    assert_eq!(b.state(), Some(State::PreparingRebalance));
    assert_eq!(b.synced(replaced), Err(FencedInstanceId));
    assert_eq!(b.synced(other), Err(RebalanceInProgress));
}

#[test]
fn an_absent_static_member_keeps_its_place_through_a_rebalance() {
    let mut b = Bench::new();
    let long = JoinRequest {
        session_timeout_ms: 300_000,
        ..fixed("i")
    };
    let (ids, generation) = b.stable(vec![member(), long]);
    let dynamic = ids
        .iter()
        .find(|id| b.beat(id, generation).is_ok() && b.beat_as(id, Some("i"), generation).is_err());
    let dynamic = dynamic.unwrap().clone();
    let token = b.join(JoinRequest {
        protocols: protocols(&["range", "x"]),
        ..again(&dynamic)
    });
    b.pass(REBALANCE);
    let joined = b.joined(token);
    assert_eq!(
        (joined.generation, joined.leader, joined.members.len()),
        (generation + 1, dynamic, 2)
    );
}

#[test]
fn a_group_of_absent_static_members_waits_until_their_sessions_end() {
    let mut b = Bench::new();
    let long = JoinRequest {
        session_timeout_ms: 300_000,
        rebalance_timeout_ms: 10_000,
        ..fixed("i")
    };
    let short = JoinRequest {
        rebalance_timeout_ms: 10_000,
        ..fixed("j")
    };
    let (_, generation) = b.stable(vec![long, short]);
    b.pass(SESSION);
    assert_eq!(
        b.state(),
        Some(State::PreparingRebalance),
        "one session has ended"
    );
    b.pass(200_000);
    assert_eq!(
        b.state(),
        Some(State::PreparingRebalance),
        "nobody rejoined, somebody may"
    );
    b.pass(100_000);
    assert_eq!(b.state(), Some(State::Empty));
    assert_eq!(b.c.describe("g").unwrap().members.len(), 0);
    assert_eq!(generation, 1);
}

#[test]
fn an_administrator_removes_a_static_member_by_its_instance_id() {
    let mut b = Bench::new();
    b.stable(vec![fixed("i"), fixed("j")]);
    assert_eq!(
        b.leave(&[("", Some("i")), ("", Some("nobody")), ("", None)]),
        [None, Some(UnknownMemberId), Some(UnknownMemberId)]
    );
    assert_eq!(b.c.describe("g").unwrap().members.len(), 1);
    assert_eq!(b.state(), Some(State::PreparingRebalance));
}
