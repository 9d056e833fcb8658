//! How long offsets and empty groups are kept (KIP-211).

use super::*;

const DAY: i64 = 24 * 3_600_000;
const RETENTION: i64 = 7 * DAY;
/// Expiry looks every ten minutes.
const CHECK: i64 = 600_000;

/// Time with a living member: heartbeats every few seconds would take long here, so the session is the longest.
fn lasting() -> JoinRequest {
    JoinRequest {
        session_timeout_ms: 1_800_000,
        ..member()
    }
}

fn live(b: &mut Bench, id: &str, generation: i32, ms: i64) {
    let until = b.now + ms;
    while b.now < until {
        b.pass(1_200_000.min(until - b.now));
        assert_eq!(b.beat(id, generation), Ok(()));
    }
}

#[test]
fn simple_commits_expire_one_by_one_and_with_the_last_the_group() {
    let mut b = Bench::new();
    b.commit(simple_commit("t", 0, 1)).unwrap();
    b.pass(DAY);
    b.commit(simple_commit("t", 1, 1)).unwrap();
    b.pass(RETENTION - DAY - 1);
    assert_eq!(b.fetch("t", 0), 1);
    b.pass(CHECK + 1);
    assert_eq!((b.fetch("t", 0), b.fetch("t", 1)), (-1, 1));
    b.pass(DAY);
    assert_eq!((b.fetch("t", 1), b.state()), (-1, None));
    let after = b.restarted(GroupsConfig::default());
    assert_eq!(
        (after.fetch("t", 1), after.state()),
        (-1, None),
        "the tombstones are written"
    );
}

#[test]
fn offsets_of_a_group_count_from_when_it_became_empty() {
    let mut b = Bench::new();
    let (ids, generation) = b.stable(vec![lasting()]);
    b.commit(commit_as(&ids[0], generation, "t", 0, 5)).unwrap();
    live(&mut b, &ids[0], generation, 2 * RETENTION);
    assert_eq!(b.fetch("t", 0), 5, "its members subscribe to the topic");
    b.leave(&[(&ids[0], None)]);
    b.pass(RETENTION - 1);
    assert_eq!(b.fetch("t", 0), 5);
    b.pass(CHECK + 1);
    assert_eq!((b.fetch("t", 0), b.state()), (-1, None));
}

#[test]
fn a_stable_group_loses_offsets_of_topics_it_left() {
    let mut b = Bench::new();
    let (ids, generation) = b.stable(vec![lasting()]);
    b.commit(commit_as(&ids[0], generation, "t", 0, 5)).unwrap();
    b.commit(commit_as(&ids[0], generation, "left", 0, 5))
        .unwrap();
    live(&mut b, &ids[0], generation, RETENTION + CHECK);
    assert_eq!((b.fetch("t", 0), b.fetch("left", 0)), (5, -1));
    assert_eq!(b.state(), Some(State::Stable));
}

#[test]
fn of_other_protocol_types_nothing_expires_while_there_are_members() {
    let mut b = Bench::new();
    let connect = JoinRequest {
        protocol_type: "connect".into(),
        ..lasting()
    };
    let (ids, generation) = b.form(vec![connect]);
    b.sync(SyncRequest {
        protocol_type: Some("connect".into()),
        ..sync_as(&ids[0], generation, vec![])
    });
    b.commit(commit_as(&ids[0], generation, "any", 0, 5))
        .unwrap();
    live(&mut b, &ids[0], generation, RETENTION + CHECK);
    assert_eq!(b.fetch("any", 0), 5);
}

#[test]
fn a_commit_may_bring_its_own_retention() {
    let mut b = Bench::new();
    b.commit(CommitRequest {
        retention_time_ms: 3_600_000,
        ..simple_commit("t", 0, 1)
    })
    .unwrap();
    b.pass(3_600_000 - 1);
    assert_eq!(b.fetch("t", 0), 1);
    let mut b = b.restarted(GroupsConfig::default());
    b.pass(CHECK + 1);
    assert_eq!(b.fetch("t", 0), -1, "also after a restart");
}

#[test]
fn a_group_without_members_and_offsets_goes() {
    let mut b = Bench::new();
    let (ids, _) = b.stable(vec![member()]);
    b.leave(&[(&ids[0], None)]);
    assert_eq!(b.state(), Some(State::Empty));
    b.pass(CHECK);
    assert_eq!(b.state(), None);
    assert_eq!(b.restarted(GroupsConfig::default()).state(), None);
}

#[test]
fn a_group_somebody_is_about_to_join_stays() {
    let mut b = Bench::new();
    b.pass(CHECK - 1);
    b.join(JoinRequest {
        require_known_member_id: true,
        ..member()
    });
    b.pass(2);
    let token = b.join(again("m1"));
    assert!(b.waits(token), "its member id is still good");
}

#[test]
fn many_expired_offsets_go_in_passes() {
    let mut b = Bench::new();
    for group in 0..20 {
        let mut req = CommitRequest {
            group_id: format!("g{group}"),
            ..simple_commit("t", 0, 1)
        };
        let part = req.topics[0].partitions[0].clone();
        req.topics[0].partitions = (0..500)
            .map(|partition| CommitPartition {
                partition,
                ..part.clone()
            })
            .collect();
        b.commit(req).unwrap();
    }
    b.now += RETENTION;
    let first = b.c.tick(b.now);
    assert!(first.records.len() < 6_000, "{}", first.records.len());
    assert!(b.c.next_deadline().is_some_and(|at| at <= b.now + 1_000));
    b.take(first);
    b.pass(10_000);
    assert_eq!(b.c.list(&[], &[]).unwrap(), []);
}
