//! What could not be written has not happened.

use super::*;
use GroupError::*;

fn revert(b: &mut Bench, out: Output) {
    for (token, reply) in b.c.revert(b.now, out, CoordinatorNotAvailable) {
        assert!(
            b.answers.insert(token, reply).is_none(),
            "request {token} answered twice"
        );
    }
}

#[test]
fn commits_are_taken_back() {
    let mut b = Bench::new();
    let out = b.c.commit(b.now, 1, simple_commit("t", 0, 1));
    revert(&mut b, out);
    assert_eq!(
        b.answers.get(&1),
        Some(&Reply::Commit(Err(CoordinatorNotAvailable)))
    );
    assert_eq!((b.state(), b.fetch("t", 0)), (None, -1));
    b.last_token = 10;
    b.commit(simple_commit("t", 0, 1)).unwrap();
    let mut req = simple_commit("t", 0, 2);
    req.topics.push(simple_commit("t", 0, 3).topics.remove(0));
    let out = b.c.commit(b.now, 2, req);
    revert(&mut b, out);
    assert_eq!(b.fetch("t", 0), 1);
}

#[test]
fn an_assignment_is_taken_back_and_the_members_find_together_again() {
    let mut b = Bench::new();
    let (ids, generation) = b.form(vec![member(), member()]);
    let follower = b.sync(sync_as(&ids[1], generation, vec![]));
    let assignment = vec![(ids[1].clone(), Bytes::from("y"))];
    let out =
        b.c.sync(b.now, 500, sync_as(&ids[0], generation, assignment.clone()));
    revert(&mut b, out);
    assert_eq!(
        (b.synced(follower), b.synced(500)),
        (Err(CoordinatorNotAvailable), Err(CoordinatorNotAvailable))
    );
    assert_eq!(b.state(), Some(State::CompletingRebalance));
    for id in &ids {
        let token = b.join(again(id));
        assert_eq!(b.joined(token).generation, generation);
    }
    let follower = b.sync(sync_as(&ids[1], generation, vec![]));
    b.sync(sync_as(&ids[0], generation, assignment));
    assert_eq!(b.assignment(follower), "y");
}

#[test]
fn a_new_group_is_taken_back_and_who_waits_in_it_is_told() {
    for require_known_member_id in [false, true] {
        let mut b = Bench::new();
        let req = JoinRequest {
            require_known_member_id,
            new_member_id: "m".into(),
            ..member()
        };
        let out = b.c.join(b.now, 1, req);
        revert(&mut b, out);
        assert_eq!(b.refused(1), (CoordinatorNotAvailable, String::new()));
        assert_eq!((b.state(), b.c.waiting(), b.c.groups_bytes), (None, 0, 0));
        b.pass(1_000_000);
    }
}

#[test]
fn a_replaced_static_member_has_its_place_back() {
    let mut b = Bench::new();
    let (ids, generation) = b.stable(vec![fixed("i")]);
    let out = b.c.join(
        b.now,
        500,
        JoinRequest {
            new_member_id: "fresh".into(),
            ..fixed("i")
        },
    );
    revert(&mut b, out);
    assert_eq!(b.refused(500).0, CoordinatorNotAvailable);
    assert_eq!(b.beat_as(&ids[0], Some("i"), generation), Ok(()));
    assert_eq!(
        b.beat_as("fresh", Some("i"), generation),
        Err(FencedInstanceId)
    );
}

#[test]
fn deleted_groups_and_offsets_are_there_again() {
    let mut b = Bench::new();
    b.commit(simple_commit("t", 0, 1)).unwrap();
    let out =
        b.c.delete_groups(500, &["g".to_owned(), "nobody".to_owned()]);
    revert(&mut b, out);
    let results = vec![
        ("g".to_owned(), Some(CoordinatorNotAvailable)),
        ("nobody".to_owned(), Some(GroupIdNotFound)),
    ];
    assert_eq!(b.answers.get(&500), Some(&Reply::DeleteGroups(results)));
    assert_eq!((b.state(), b.fetch("t", 0)), (Some(State::Empty), 1));
}
