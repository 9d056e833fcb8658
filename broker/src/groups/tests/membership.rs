//! Heartbeats, sessions and leaving.

use super::*;
use GroupError::*;

#[test]
fn heartbeats_say_where_the_member_stands() {
    let mut b = Bench::new();
    assert_eq!(b.beat("m", 1), Err(UnknownMemberId), "no such group");
    let (ids, generation) = b.form(vec![member()]);
    assert_eq!(
        b.beat(&ids[0], generation),
        Ok(()),
        "also before the assignment is there"
    );
    assert_eq!(b.beat(&ids[0], generation - 1), Err(IllegalGeneration));
    assert_eq!(b.beat(&ids[0], generation + 1), Err(IllegalGeneration));
    assert_eq!(b.beat("other", generation), Err(UnknownMemberId));
    b.leave(&[(&ids[0], None)]);
    assert_eq!(
        b.beat(&ids[0], generation),
        Err(UnknownMemberId),
        "empty group"
    );
    let req = HeartbeatRequest {
        group_id: String::new(),
        generation: 1,
        member_id: "m".into(),
        group_instance_id: None,
    };
    assert_eq!(b.c.heartbeat(b.now, req).0, Err(InvalidGroupId));
}

#[test]
fn a_silent_member_is_out_after_its_session_and_the_others_rebalance() {
    let mut b = Bench::new();
    let (ids, generation) = b.stable(vec![member(), member()]);
    b.pass(SESSION - 1);
    assert_eq!(b.beat(&ids[0], generation), Ok(()));
    assert_eq!(b.state(), Some(State::Stable));
    b.pass(1);
    assert_eq!(b.beat(&ids[1], generation), Err(UnknownMemberId));
    assert_eq!(b.beat(&ids[0], generation), Err(RebalanceInProgress));
}

#[test]
fn the_last_silent_member_leaves_an_empty_generation_behind() {
    let mut b = Bench::new();
    let (_, generation) = b.stable(vec![member()]);
    b.pass(SESSION);
    assert_eq!(b.state(), Some(State::Empty));
    let value =
        super::super::schema::GroupValue::decode(b.log.last().unwrap().1.as_deref().unwrap())
            .unwrap();
    assert_eq!((value.generation, value.members.len()), (generation + 1, 0));
    assert_eq!(
        (value.protocol_type.as_str(), value.protocol, value.leader),
        ("consumer", None, None)
    );
    assert_eq!(value.state_timestamp_ms, b.now);
}

#[test]
fn commits_and_heartbeats_keep_a_session() {
    let mut b = Bench::new();
    let (ids, generation) = b.stable(vec![member()]);
    for turn in 0..6 {
        b.pass(SESSION - 1);
        match turn % 2 {
            0 => assert_eq!(b.beat(&ids[0], generation), Ok(())),
            _ => assert_eq!(
                b.commit(commit_as(&ids[0], generation, "t", 0, 5)),
                ok("t", 0)
            ),
        }
    }
    assert_eq!(b.state(), Some(State::Stable));
}

#[test]
fn leaving_starts_a_rebalance_at_once() {
    let mut b = Bench::new();
    let (ids, generation) = b.stable(vec![member(), member()]);
    assert_eq!(b.leave(&[(&ids[1], None)]), [None]);
    assert_eq!(b.beat(&ids[0], generation), Err(RebalanceInProgress));
    let token = b.join(again(&ids[0]));
    assert_eq!(b.joined(token).generation, generation + 1);
}

#[test]
fn many_may_leave_at_once_and_each_has_its_result() {
    let mut b = Bench::new();
    let (ids, _) = b.stable(vec![member(), member(), fixed("i")]);
    let dynamic: Vec<&String> = ids
        .iter()
        .filter(|id| b.beat_as(id, Some("i"), 1).is_err())
        .collect();
    let (first, second) = (dynamic[0].clone(), dynamic[1].clone());
    let results = b.leave(&[
        (&first, None),
        ("nobody", None),
        (&first, None),
        (&second, Some("other")),
        (&second, Some("i")),
    ]);
    assert_eq!(
        results,
        [
            None,
            Some(UnknownMemberId),
            Some(UnknownMemberId),
            Some(UnknownMemberId),
            Some(FencedInstanceId)
        ]
    );
    assert_eq!(b.c.describe("g").unwrap().members.len(), 2);
}

#[test]
fn members_of_an_unknown_group_are_unknown() {
    let mut b = Bench::new();
    assert_eq!(
        b.leave(&[("a", None), ("", Some("i"))]),
        [Some(UnknownMemberId), Some(UnknownMemberId)]
    );
    let out = b.c.leave(
        b.now,
        99,
        LeaveRequest {
            group_id: String::new(),
            members: vec![],
        },
    );
    assert_eq!(out.replies, [(99, Reply::Leave(Err(InvalidGroupId)))]);
}

#[test]
fn a_member_that_was_told_its_id_may_leave_before_it_came_back() {
    let mut b = Bench::new();
    let (ids, _) = b.stable(vec![member()]);
    b.join(JoinRequest {
        require_known_member_id: true,
        new_member_id: "asked".into(),
        ..member()
    });
    let token = b.join(again(&ids[0]));
    assert!(b.waits(token), "it is waited for");
    assert_eq!(b.leave(&[("asked", None)]), [None]);
    assert_eq!(b.joined(token).generation, 2);
}

#[test]
fn who_leaves_while_its_request_waits_is_answered() {
    let mut b = Bench::new();
    let (ids, generation) = b.form(vec![member(), member()]);
    let syncing = b.sync(sync_as(&ids[1], generation, vec![]));
    b.leave(&[(&ids[1], None)]);
    assert_eq!(b.synced(syncing), Err(UnknownMemberId));
    let joining = b.join(JoinRequest {
        new_member_id: "new".into(),
        ..member()
    });
    b.leave(&[("new", None)]);
    assert_eq!(b.refused(joining), (UnknownMemberId, String::new()));
}

#[test]
fn when_all_leave_during_the_first_rebalance_the_group_is_empty_after_its_delay() {
    let mut b = Bench::new();
    let token = b.join(JoinRequest {
        new_member_id: "new".into(),
        ..member()
    });
    b.leave(&[("new", None)]);
    assert_eq!(b.refused(token).0, UnknownMemberId);
    assert_eq!(b.state(), Some(State::PreparingRebalance));
    b.pass(3_000);
    assert_eq!(b.state(), Some(State::Empty));
}

#[test]
fn an_idle_group_asks_for_no_time_but_its_deadlines() {
    let mut b = Bench::new();
    assert_eq!(b.c.next_deadline(), None);
    let (ids, generation) = b.stable(vec![member()]);
    let mut wakes = 0;
    for _ in 0..10 {
        let until = b.now + 3_000;
        while b.c.next_deadline().is_some_and(|at| at <= until) {
            b.now = b.c.next_deadline().unwrap();
            let out = b.c.tick(b.now);
            b.take(out);
            wakes += 1;
        }
        b.now = until;
        assert_eq!(b.beat(&ids[0], generation), Ok(()));
    }
    assert!(
        wakes <= 4,
        "{wakes} wakes in 30 s: about one per session, not one per heartbeat"
    );
}
