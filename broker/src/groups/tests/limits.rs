//! Everything is bounded.

use super::*;
use GroupError::*;

#[test]
fn a_full_group_takes_nobody_but_its_members() {
    let mut b = Bench::with(GroupsConfig {
        max_size: 2,
        ..GroupsConfig::default()
    });
    let first = b.join(member());
    b.join(member());
    let third = b.join(member());
    assert_eq!(
        b.refused(third),
        (GroupMaxSizeReached, String::new()),
        "while it forms"
    );
    b.pass(6_000);
    let joined = b.joined(first);
    let late = b.join(member());
    assert_eq!(b.refused(late).0, GroupMaxSizeReached, "when it has formed");
    let back = b.join(again(&joined.leader));
    assert_eq!(b.joined(back).generation, 1);
}

#[test]
fn groups_and_members_told_their_id_are_limited() {
    let cfg = GroupsConfig {
        max_groups: 2,
        max_pending_members: 2,
        ..GroupsConfig::default()
    };
    let mut b = Bench::with(cfg);
    let ask = JoinRequest {
        require_known_member_id: true,
        ..member()
    };
    let tokens: Vec<Token> = (0..3).map(|_| b.join(ask.clone())).collect();
    let errors: Vec<GroupError> = tokens.into_iter().map(|t| b.refused(t).0).collect();
    assert_eq!(
        errors,
        [MemberIdRequired, MemberIdRequired, GroupMaxSizeReached]
    );
    b.commit(CommitRequest {
        group_id: "h".into(),
        ..simple_commit("t", 0, 1)
    })
    .unwrap();
    let token = b.join(JoinRequest {
        group_id: "i".into(),
        ..member()
    });
    assert_eq!(b.refused(token).0, GroupMaxSizeReached);
    let commit = CommitRequest {
        group_id: "i".into(),
        ..simple_commit("t", 0, 1)
    };
    assert_eq!(b.commit(commit), Err(InvalidCommitOffsetSize));
}

#[test]
fn what_members_say_and_are_assigned_is_limited_by_group() {
    let mut b = Bench::with(GroupsConfig {
        max_group_bytes: 4_000,
        ..GroupsConfig::default()
    });
    let big = |n: usize| JoinRequest {
        protocols: vec![Protocol {
            name: "range".into(),
            metadata: Bytes::from(vec![0; n]),
        }],
        ..member()
    };
    let token = b.join(big(4_000));
    assert_eq!(b.refused(token).0, GroupMaxSizeReached);
    let (ids, generation) = b.form(vec![big(100)]);
    let token = b.join(JoinRequest {
        member_id: ids[0].clone(),
        ..big(3_500)
    });
    assert_eq!(b.refused(token).0, GroupMaxSizeReached);
    let large = vec![(ids[0].clone(), Bytes::from(vec![0; 4_000]))];
    let token = b.sync(sync_as(&ids[0], generation, large));
    assert_eq!(b.synced(token), Err(UnknownServerError));
    assert_eq!(b.state(), Some(State::PreparingRebalance));
}

#[test]
fn offsets_are_limited_in_all_and_known_ones_can_still_be_committed() {
    let mut b = Bench::with(GroupsConfig {
        max_total_bytes: 3_000,
        ..GroupsConfig::default()
    });
    let taken = (0..100)
        .take_while(|p| b.commit(simple_commit("t", *p, 1)) == ok("t", *p))
        .count();
    assert!((5..30).contains(&taken), "{taken}");
    assert_eq!(b.commit(simple_commit("t", 0, 2)), ok("t", 0));
    assert_eq!(b.fetch("t", 0), 2);
    let mut req = simple_commit("t", 500, 1);
    req.topics[0].partitions[0].metadata = Some(String::new());
    let refused = vec![(500, Some(InvalidCommitOffsetSize))];
    assert_eq!(b.commit(req).unwrap()[0].partitions, refused);
}

#[test]
fn the_books_about_memory_balance() {
    let mut b = Bench::new();
    for turn in 0..3 {
        let (ids, generation) = b.stable(vec![member(), fixed("i"), member()]);
        b.join(JoinRequest {
            require_known_member_id: true,
            ..member()
        });
        b.join(fixed("i"));
        for id in &ids {
            b.commit(commit_as(id, generation, "t", turn, 1)).ok();
        }
        let left: Vec<(&str, Option<&str>)> = ids.iter().map(|id| (id.as_str(), None)).collect();
        b.leave(&left);
        b.leave(&[("", Some("i"))]);
        b.pass(2 * SESSION + REBALANCE);
    }
    assert_eq!(b.state(), Some(State::Empty));
    let token = b.token();
    let out = b.c.delete_groups(token, &["g".to_owned()]);
    b.take(out);
    assert_eq!(
        (b.c.groups_bytes, b.c.offsets.bytes(), b.c.waiting()),
        (0, 0, 0)
    );
}
