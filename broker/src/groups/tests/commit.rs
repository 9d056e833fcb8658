//! OffsetCommit and OffsetFetch.

use super::*;
use GroupError::*;

#[test]
fn whoever_is_no_member_commits_to_a_group_nobody_is_in() {
    let mut b = Bench::new();
    assert_eq!(b.commit(simple_commit("t", 0, 42)), ok("t", 0));
    assert_eq!(b.fetch("t", 0), 42);
    assert_eq!(b.state(), Some(State::Empty));
    assert_eq!(b.log.len(), 1, "a simple group has no record of its own");
    let (ids, generation) = b.stable(vec![member()]);
    assert_eq!(
        b.commit(simple_commit("t", 0, 43)),
        Err(UnknownMemberId),
        "somebody is in it"
    );
    assert_eq!(
        b.commit(commit_as(&ids[0], -1, "t", 0, 43)),
        Err(IllegalGeneration)
    );
    assert_eq!(
        b.commit(commit_as(&ids[0], generation, "t", 0, 44)),
        ok("t", 0)
    );
    b.leave(&[(&ids[0], None)]);
    assert_eq!(b.commit(simple_commit("t", 0, 45)), ok("t", 0));
    assert_eq!(b.fetch("t", 0), 45);
}

#[test]
fn the_empty_group_id_is_good_for_simple_commits() {
    let mut b = Bench::new();
    assert_eq!(
        b.commit(CommitRequest {
            group_id: String::new(),
            ..simple_commit("t", 0, 1)
        }),
        ok("t", 0)
    );
    let all = b.c.fetch_offsets("", None).unwrap();
    assert_eq!(all[0].partitions[0].offset, 1);
}

#[test]
fn a_generation_of_an_unknown_group_is_refused_by_version() {
    let mut b = Bench::new();
    let req = commit_as("m", 1, "t", 0, 1);
    assert_eq!(b.commit(req.clone()), Err(GroupIdNotFound));
    assert_eq!(
        b.commit(CommitRequest {
            group_not_found_allowed: false,
            ..req
        }),
        Err(IllegalGeneration)
    );
    assert_eq!(b.state(), None);
}

#[test]
fn members_commit_in_each_state_by_its_rule() {
    let mut b = Bench::new();
    let (ids, generation) = b.form(vec![member(), member()]);
    let commit =
        |b: &mut Bench, id: &str, generation| b.commit(commit_as(id, generation, "t", 0, 9));
    assert_eq!(
        commit(&mut b, &ids[1], generation),
        Err(RebalanceInProgress),
        "CompletingRebalance"
    );
    assert_eq!(
        commit(&mut b, &ids[1], generation - 1),
        Err(IllegalGeneration),
        "generations are looked at first"
    );
    b.sync(sync_as(&ids[0], generation, vec![]));
    assert_eq!(commit(&mut b, &ids[1], generation), ok("t", 0), "Stable");
    assert_eq!(
        commit(&mut b, &ids[1], generation + 1),
        Err(IllegalGeneration)
    );
    assert_eq!(commit(&mut b, "other", generation), Err(UnknownMemberId));
    b.join(member());
    assert_eq!(
        commit(&mut b, &ids[1], generation),
        ok("t", 0),
        "PreparingRebalance, to save work before rejoining"
    );
    b.leave(&[(&ids[0], None), (&ids[1], None)]);
    assert_eq!(
        commit(&mut b, &ids[1], generation),
        Err(UnknownMemberId),
        "no member any more"
    );
}

#[test]
fn metadata_is_limited_in_utf_16_units_and_only_its_partition_is_refused() {
    let mut b = Bench::with(GroupsConfig {
        offset_metadata_max_bytes: 4,
        ..GroupsConfig::default()
    });
    let mut req = simple_commit("t", 0, 1);
    let part = |partition, text: &str| CommitPartition {
        partition,
        offset: 1,
        leader_epoch: -1,
        metadata: Some(text.into()),
    };
    req.topics[0].partitions = vec![
        part(0, "äöüß"),
        part(1, "äöüße"),
        part(2, "😀😀"),
        part(3, "😀😀x"),
    ];
    req.topics[0].partitions.push(CommitPartition {
        partition: 4,
        offset: 1,
        leader_epoch: -1,
        metadata: None,
    });
    let too_large = Some(OffsetMetadataTooLarge);
    let partitions = vec![
        (0, None),
        (1, too_large),
        (2, None),
        (3, too_large),
        (4, None),
    ];
    assert_eq!(
        b.commit(req),
        Ok(vec![TopicResults {
            name: "t".into(),
            partitions
        }])
    );
    assert_eq!(
        (
            b.fetch("t", 0),
            b.fetch("t", 1),
            b.fetch("t", 2),
            b.fetch("t", 4)
        ),
        (1, -1, 1, 1)
    );
    assert_eq!(b.log.len(), 3);
}

#[test]
fn fetches_name_what_was_asked_and_minus_one_where_there_is_nothing() {
    let mut b = Bench::new();
    let asked = [("t".to_owned(), vec![1, 0]), ("u".to_owned(), vec![5])];
    let nothing = |partition| FetchedOffset {
        partition,
        offset: -1,
        leader_epoch: -1,
        metadata: String::new(),
        error: None,
    };
    let unknown_group = b.c.fetch_offsets("g", Some(&asked)).unwrap();
    assert_eq!(unknown_group[0].partitions, [nothing(1), nothing(0)]);
    assert_eq!(b.c.fetch_offsets("g", None).unwrap(), []);
    b.commit(simple_commit("t", 0, 42)).unwrap();
    let some = b.c.fetch_offsets("g", Some(&asked)).unwrap();
    let found = FetchedOffset {
        partition: 0,
        offset: 42,
        leader_epoch: 7,
        metadata: "note".into(),
        error: None,
    };
    assert_eq!(some[0].partitions, [nothing(1), found.clone()]);
    assert_eq!(some[1].partitions, [nothing(5)]);
    let all = b.c.fetch_offsets("g", None).unwrap();
    assert_eq!(
        all,
        [FetchedTopic {
            name: "t".into(),
            partitions: vec![found]
        }]
    );
}

#[test]
fn the_last_of_two_commits_to_one_partition_counts() {
    let mut b = Bench::new();
    let mut req = simple_commit("t", 0, 1);
    req.topics.push(simple_commit("t", 0, 2).topics.remove(0));
    assert_eq!(b.commit(req).unwrap().len(), 2);
    assert_eq!(b.fetch("t", 0), 2);
    assert_eq!(b.restarted(GroupsConfig::default()).fetch("t", 0), 2);
}
