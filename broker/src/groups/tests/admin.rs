//! List, describe, delete.

use super::*;
use GroupError::*;

fn delete(b: &mut Bench, ids: &[&str]) -> Vec<Option<GroupError>> {
    let token = b.token();
    let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    let out = b.c.delete_groups(token, &ids);
    b.take(out);
    match b.answers.get(&token) {
        Some(Reply::DeleteGroups(results)) => results.iter().map(|(_, e)| *e).collect(),
        other => panic!("{other:?}"),
    }
}

fn delete_offset(b: &mut Bench, topic: &str) -> Result<Option<GroupError>, GroupError> {
    let token = b.token();
    let out =
        b.c.delete_offsets(token, "g", &[(topic.to_owned(), vec![0])]);
    b.take(out);
    match b.answers.get(&token) {
        Some(Reply::DeleteOffsets(result)) => {
            result.clone().map(|topics| topics[0].partitions[0].1)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn groups_are_listed_by_state_and_type() {
    let mut b = Bench::new();
    b.stable(vec![member()]);
    b.commit(CommitRequest {
        group_id: "a".into(),
        ..simple_commit("t", 0, 1)
    })
    .unwrap();
    let names = |states: &[&str], types: &[&str]| -> Vec<(String, String)> {
        let own = |s: &[&str]| s.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let all = b.c.list(&own(states), &own(types)).unwrap();
        all.into_iter()
            .map(|g| (g.group_id, g.protocol_type))
            .collect()
    };
    let (a, g) = (
        ("a".to_owned(), String::new()),
        ("g".to_owned(), "consumer".to_owned()),
    );
    assert_eq!(names(&[], &[]), [a.clone(), g.clone()]);
    assert_eq!(names(&["STABLE"], &[]), std::slice::from_ref(&g));
    assert_eq!(names(&["Empty", " stable"], &["Classic"]), [a, g]);
    assert_eq!(names(&["Dead"], &[]), []);
    assert_eq!(names(&[], &["consumer", "share"]), []);
}

#[test]
fn metadata_is_described_only_of_a_stable_group() {
    let mut b = Bench::new();
    assert_eq!(b.c.describe("g"), Err(GroupIdNotFound));
    let (ids, generation) = b.form(vec![fixed("i")]);
    let described = b.c.describe("g").unwrap();
    assert_eq!(
        (described.state, described.protocol_data.as_str()),
        (State::CompletingRebalance, "")
    );
    assert_eq!(described.members[0].metadata, "");
    b.sync(SyncRequest {
        group_instance_id: Some("i".into()),
        ..sync_as(&ids[0], generation, vec![(ids[0].clone(), "x".into())])
    });
    let described = b.c.describe("g").unwrap();
    assert_eq!(
        (
            described.state.to_string().as_str(),
            described.protocol_data.as_str()
        ),
        ("Stable", "range")
    );
    assert_eq!(described.protocol_type, "consumer");
    let member = &described.members[0];
    assert_eq!(
        (member.metadata.clone(), member.assignment.clone()),
        (subscription(&["t"]), "x".into())
    );
    assert_eq!(
        (member.client_id.as_str(), member.client_host.as_str()),
        ("client", "/127.0.0.1")
    );
    assert_eq!(member.group_instance_id.as_deref(), Some("i"));
}

#[test]
fn only_groups_without_members_are_deleted() {
    let mut b = Bench::new();
    b.stable(vec![member()]);
    b.commit(CommitRequest {
        group_id: "s".into(),
        ..simple_commit("t", 0, 1)
    })
    .unwrap();
    assert_eq!(
        delete(&mut b, &["g", "s", "nobody"]),
        [Some(NonEmptyGroup), None, Some(GroupIdNotFound)]
    );
    b.pass(SESSION);
    b.commit(simple_commit("t", 1, 1)).unwrap();
    assert_eq!(delete(&mut b, &["g", "g"]), [None, Some(GroupIdNotFound)]);
    assert_eq!((b.state(), b.fetch("t", 1)), (None, -1));
    let after = b.restarted(GroupsConfig::default());
    assert_eq!(
        (after.c.list(&[], &[]).unwrap(), after.fetch("t", 1)),
        (vec![], -1)
    );
}

#[test]
fn offsets_of_subscribed_topics_are_not_deleted() {
    let mut b = Bench::new();
    assert_eq!(delete_offset(&mut b, "t"), Err(GroupIdNotFound));
    let (ids, generation) = b.stable(vec![member()]);
    for topic in ["t", "u"] {
        b.commit(commit_as(&ids[0], generation, topic, 0, 5))
            .unwrap();
    }
    assert_eq!(delete_offset(&mut b, "t"), Ok(Some(GroupSubscribedToTopic)));
    assert_eq!(delete_offset(&mut b, "u"), Ok(None));
    assert_eq!((b.fetch("t", 0), b.fetch("u", 0)), (5, -1));
    b.leave(&[(&ids[0], None)]);
    assert_eq!(delete_offset(&mut b, "t"), Ok(None));
    let records = b.log.len();
    assert_eq!(
        delete_offset(&mut b, "t"),
        Ok(None),
        "nothing there is no error"
    );
    assert_eq!(b.log.len(), records);
}

#[test]
fn of_other_protocol_types_no_offsets_are_deleted_while_there_are_members() {
    let mut b = Bench::new();
    b.form(vec![JoinRequest {
        protocol_type: "connect".into(),
        ..member()
    }]);
    assert_eq!(delete_offset(&mut b, "t"), Err(NonEmptyGroup));
}

#[test]
fn a_deleted_topic_takes_its_offsets_along_in_every_group() {
    let mut b = Bench::new();
    for (group, topic) in [("g", "t"), ("g", "u"), ("h", "t")] {
        b.commit(CommitRequest {
            group_id: group.into(),
            ..simple_commit(topic, 0, 5)
        })
        .unwrap();
    }
    let out = b.c.topic_deleted("t");
    assert_eq!(out.records.len(), 2);
    b.take(out);
    assert_eq!((b.fetch("t", 0), b.fetch("u", 0)), (-1, 5));
    assert_eq!(b.c.fetch_offsets("h", None).unwrap(), []);
}
