//! SyncGroup: only the leader assigns, everybody gets what it assigned, and that is when a generation is written.

use super::*;
use GroupError::*;

fn given(pairs: &[(&str, &str)]) -> Vec<(String, Bytes)> {
    pairs
        .iter()
        .map(|(id, a)| ((*id).to_owned(), Bytes::copy_from_slice(a.as_bytes())))
        .collect()
}

#[test]
fn followers_wait_for_the_leader() {
    let mut b = Bench::new();
    let (ids, generation) = b.form(vec![member(), member()]);
    let follower = b.sync(sync_as(&ids[1], generation, given(&[(&ids[1], "stolen")])));
    assert!(b.waits(follower), "and what they assign does not count");
    let records = b.log.len();
    let leader = b.sync(sync_as(
        &ids[0],
        generation,
        given(&[(&ids[0], "x"), (&ids[1], "y"), ("nobody", "z")]),
    ));
    assert_eq!(
        (b.assignment(leader), b.assignment(follower)),
        ("x".into(), "y".into())
    );
    assert_eq!(b.state(), Some(State::Stable));
    assert_eq!(
        b.log.len(),
        records + 1,
        "the generation is written with its assignment"
    );
    let value =
        super::super::schema::GroupValue::decode(b.log.last().unwrap().1.as_deref().unwrap())
            .unwrap();
    assert_eq!(
        (value.generation, value.members.len(), value.leader),
        (generation, 2, Some(ids[0].clone()))
    );
    assert!(value.members.iter().any(|m| m.assignment == "y"));
}

#[test]
fn who_comes_late_gets_the_assignment_and_may_ask_again() {
    let mut b = Bench::new();
    let (ids, generation) = b.form(vec![member(), member()]);
    b.sync(sync_as(&ids[0], generation, given(&[(&ids[1], "y")])));
    for _ in 0..2 {
        let token = b.sync(sync_as(&ids[1], generation, vec![]));
        let synced = b.synced(token).unwrap();
        assert_eq!(synced.assignment, "y");
        assert_eq!(synced.protocol_name.as_deref(), Some("range"));
        assert_eq!(synced.protocol_type.as_deref(), Some("consumer"));
    }
    let token = b.sync(sync_as(&ids[0], generation, given(&[(&ids[1], "other")])));
    assert_eq!(
        b.assignment(token),
        "",
        "the leader gave itself nothing, and cannot assign twice"
    );
}

#[test]
fn syncs_that_do_not_fit_are_refused() {
    type Change = fn(&mut SyncRequest);
    let cases: [(&str, Change, GroupError); 8] = [
        ("empty group id", |r| r.group_id.clear(), InvalidGroupId),
        (
            "unknown group",
            |r| r.group_id = "other".into(),
            UnknownMemberId,
        ),
        (
            "unknown member",
            |r| r.member_id = "other".into(),
            UnknownMemberId,
        ),
        ("old generation", |r| r.generation -= 1, IllegalGeneration),
        (
            "future generation",
            |r| r.generation += 1,
            IllegalGeneration,
        ),
        (
            "other protocol type",
            |r| r.protocol_type = Some("connect".into()),
            InconsistentGroupProtocol,
        ),
        (
            "other protocol",
            |r| r.protocol_name = Some("sticky".into()),
            InconsistentGroupProtocol,
        ),
        (
            "no protocol in version 5",
            |r| r.protocol_name = None,
            InconsistentGroupProtocol,
        ),
    ];
    for (rule, change, error) in cases {
        let mut b = Bench::new();
        let (ids, generation) = b.form(vec![member()]);
        let mut req = sync_as(&ids[0], generation, vec![]);
        change(&mut req);
        let token = b.sync(req);
        assert_eq!(b.synced(token), Err(error), "{rule}");
    }
}

#[test]
fn before_version_5_protocol_type_and_name_may_be_missing() {
    let mut b = Bench::new();
    let (ids, generation) = b.form(vec![member()]);
    let req = sync_as(&ids[0], generation, given(&[(&ids[0], "x")]));
    let token = b.sync(SyncRequest {
        protocol_type: None,
        protocol_name: None,
        protocol_mandatory: false,
        ..req
    });
    assert_eq!(b.assignment(token), "x");
}

#[test]
fn during_a_rebalance_members_are_sent_to_rejoin() {
    let mut b = Bench::new();
    let (ids, generation) = b.stable(vec![member()]);
    b.join(member());
    let token = b.sync(sync_as(&ids[0], generation, vec![]));
    assert_eq!(b.synced(token), Err(RebalanceInProgress));
}

#[test]
fn a_rebalance_ends_the_wait_for_an_assignment() {
    let mut b = Bench::new();
    let (ids, generation) = b.form(vec![member(), member()]);
    let follower = b.sync(sync_as(&ids[1], generation, vec![]));
    b.join(member());
    assert_eq!(b.synced(follower), Err(RebalanceInProgress));
    b.pass(SESSION - 1);
    assert_eq!(
        b.beat(&ids[1], generation),
        Err(RebalanceInProgress),
        "its session began anew with the answer"
    );
}

#[test]
fn who_joins_and_does_not_sync_is_out_after_the_rebalance_timeout() {
    let mut b = Bench::new();
    let (ids, generation) = b.form(vec![member(), member()]);
    let leader = b.sync(sync_as(&ids[0], generation, vec![]));
    assert!(b.synced(leader).is_ok());
    for _ in 0..(REBALANCE / 5_000 - 1) {
        b.pass(5_000);
        assert_eq!(
            (b.beat(&ids[0], generation), b.beat(&ids[1], generation)),
            (Ok(()), Ok(()))
        );
    }
    b.pass(5_000);
    assert_eq!(b.beat(&ids[0], generation), Err(RebalanceInProgress));
    assert_eq!(b.beat(&ids[1], generation), Err(UnknownMemberId));
}

#[test]
fn a_leader_that_never_assigns_is_replaced() {
    let mut b = Bench::new();
    let (ids, generation) = b.form(vec![member(), member()]);
    let follower = b.sync(sync_as(&ids[1], generation, vec![]));
    for _ in 0..(REBALANCE / 5_000) {
        assert_eq!(b.beat(&ids[0], generation), Ok(()));
        b.pass(5_000);
    }
    assert_eq!(b.synced(follower), Err(RebalanceInProgress));
    let token = b.join(again(&ids[1]));
    assert_eq!(
        (b.joined(token).leader, b.joined(token).generation),
        (ids[1].clone(), generation + 1)
    );
}

#[test]
fn a_member_that_asks_twice_has_its_older_request_refused() {
    let mut b = Bench::new();
    let (ids, generation) = b.form(vec![member(), member()]);
    let older = b.sync(sync_as(&ids[1], generation, vec![]));
    let newer = b.sync(sync_as(&ids[1], generation, vec![]));
    b.sync(sync_as(&ids[0], generation, given(&[(&ids[1], "y")])));
    assert_eq!(b.synced(older), Err(RebalanceInProgress));
    assert_eq!(b.assignment(newer), "y");
}

#[test]
fn waiting_for_the_assignment_is_a_sign_of_life() {
    let mut b = Bench::new();
    let (ids, generation) = b.form(vec![member(), member()]);
    let follower = b.sync(sync_as(&ids[1], generation, vec![]));
    for _ in 0..4 {
        b.pass(SESSION / 2);
        assert_eq!(b.beat(&ids[0], generation), Ok(()));
    }
    b.sync(sync_as(&ids[0], generation, given(&[(&ids[1], "y")])));
    assert_eq!(b.assignment(follower), "y");
    b.pass(SESSION);
    assert_eq!(
        b.beat(&ids[1], generation),
        Err(UnknownMemberId),
        "and then heartbeats are due again"
    );
}
