//! JoinGroup: who gets in, when the answer comes, and what it says.

use super::*;
use GroupError::*;

#[test]
fn requests_that_cannot_be_joins_are_refused() {
    let long = "x".repeat(MAX_STRING_BYTES + 1);
    let cases: Vec<(&str, JoinRequest, GroupError)> = vec![
        (
            "empty group id",
            JoinRequest {
                group_id: String::new(),
                ..member()
            },
            InvalidGroupId,
        ),
        (
            "session too short",
            JoinRequest {
                session_timeout_ms: 5_999,
                ..member()
            },
            InvalidSessionTimeout,
        ),
        (
            "session too long",
            JoinRequest {
                session_timeout_ms: 1_800_001,
                ..member()
            },
            InvalidSessionTimeout,
        ),
        ("member id of no group", again("who"), UnknownMemberId),
        (
            "no protocols",
            JoinRequest {
                protocols: vec![],
                ..member()
            },
            InconsistentGroupProtocol,
        ),
        (
            "no protocol type",
            JoinRequest {
                protocol_type: String::new(),
                ..member()
            },
            InconsistentGroupProtocol,
        ),
        (
            "too long a group id",
            JoinRequest {
                group_id: long.clone(),
                ..member()
            },
            InvalidRequest,
        ),
        (
            "too long a protocol",
            JoinRequest {
                protocols: protocols(&[&long]),
                ..member()
            },
            InvalidRequest,
        ),
        ("too long an instance id", fixed(&long), InvalidRequest),
    ];
    for (rule, req, error) in cases {
        let mut b = Bench::new();
        let token = b.join(req);
        assert_eq!(b.refused(token).0, error, "{rule}");
        assert_eq!(
            (b.state(), b.log.len()),
            (None, 0),
            "{rule}: no group comes of it"
        );
    }
}

#[test]
fn session_timeouts_at_the_limits_are_accepted() {
    for session_timeout_ms in [6_000, 1_800_000] {
        let mut b = Bench::new();
        let token = b.join(JoinRequest {
            session_timeout_ms,
            ..member()
        });
        assert!(b.waits(token));
    }
}

#[test]
fn while_loading_joins_are_refused_and_heartbeats_succeed() {
    let mut b = Bench::new();
    b.c = Coordinator::new(GroupsConfig::default());
    let token = b.join(member());
    assert_eq!(b.refused(token).0, CoordinatorLoadInProgress);
    assert_eq!(b.beat("m", 1), Ok(()));
    assert_eq!(
        b.commit(simple_commit("t", 0, 1)),
        Err(CoordinatorLoadInProgress)
    );
    assert_eq!(b.c.next_deadline(), None);
}

#[test]
fn the_first_rebalance_waits_for_its_delay() {
    let mut b = Bench::new();
    let token = b.join(member());
    assert_eq!(b.state(), Some(State::PreparingRebalance));
    b.pass(2_999);
    assert!(b.waits(token));
    b.pass(1);
    let joined = b.joined(token);
    assert_eq!((joined.generation, joined.leader.as_str()), (1, "m1"));
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    assert_eq!(joined.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(joined.members.len(), 1);
    assert_eq!(joined.members[0].metadata, subscription(&["t"]));
    assert_eq!(b.state(), Some(State::CompletingRebalance));
}

#[test]
fn the_first_rebalance_waits_on_while_members_come_but_no_longer_than_the_rebalance_timeout() {
    let mut b = Bench::new();
    let first = b.join(JoinRequest {
        rebalance_timeout_ms: 7_000,
        ..member()
    });
    let mut later = Vec::new();
    // Delays of 3000, 3000 and the remaining 1000.
    for _ in 0..3 {
        assert!(b.waits(first));
        b.pass(1_000);
        later.push(b.join(JoinRequest {
            rebalance_timeout_ms: 7_000,
            ..member()
        }));
        b.pass(1_000);
    }
    b.pass(999);
    assert!(b.waits(first));
    b.pass(1);
    assert_eq!(b.joined(first).members.len(), 4);
    assert!(later.iter().all(|t| b.joined(*t).generation == 1));
}

#[test]
fn without_newcomers_the_first_rebalance_is_not_extended() {
    let mut b = Bench::new();
    let tokens = [b.join(member()), b.join(member())];
    b.pass(3_000);
    // The second member came during the delay: one more delay, then it is enough.
    assert!(b.waits(tokens[0]));
    b.pass(3_000);
    assert_eq!(b.joined(tokens[0]).generation, 1);
    assert_eq!(b.joined(tokens[1]).generation, 1);
}

#[test]
fn only_the_leader_gets_the_members() {
    let mut b = Bench::new();
    let tokens = [b.join(member()), b.join(member()), b.join(member())];
    b.pass(6_000);
    let all: Vec<Joined> = tokens.iter().map(|t| b.joined(*t)).collect();
    for joined in all {
        let expected = if joined.member_id == joined.leader {
            3
        } else {
            0
        };
        assert_eq!(joined.members.len(), expected, "{}", joined.member_id);
    }
}

#[test]
fn a_new_dynamic_member_is_told_its_id_from_version_4_and_comes_back_with_it() {
    let mut b = Bench::new();
    let ask = JoinRequest {
        require_known_member_id: true,
        ..member()
    };
    let token = b.join(ask.clone());
    assert_eq!(b.refused(token), (MemberIdRequired, "m1".to_owned()));
    assert_eq!(b.state(), Some(State::Empty));
    let token = b.join(JoinRequest {
        member_id: "m1".into(),
        ..ask
    });
    b.pass(3_000);
    assert_eq!(b.joined(token).member_id, "m1");
}

#[test]
fn a_static_member_need_not_come_back_with_its_id() {
    let mut b = Bench::new();
    let token = b.join(JoinRequest {
        require_known_member_id: true,
        ..fixed("i")
    });
    b.pass(3_000);
    assert_eq!(b.joined(token).member_id, "m1");
}

#[test]
fn a_member_that_does_not_come_back_is_forgotten_after_its_session() {
    let mut b = Bench::new();
    b.join(JoinRequest {
        require_known_member_id: true,
        ..member()
    });
    b.pass(SESSION);
    let token = b.join(again("m1"));
    assert_eq!(b.refused(token), (UnknownMemberId, "m1".to_owned()));
}

#[test]
fn a_rebalance_waits_for_members_that_were_told_their_id() {
    let mut b = Bench::new();
    let (ids, _) = b.stable(vec![member()]);
    b.join(JoinRequest {
        require_known_member_id: true,
        ..member()
    });
    let token = b.join(again(&ids[0]));
    assert!(b.waits(token), "one is still expected");
    b.pass(SESSION);
    assert_eq!(b.joined(token).generation, 2, "it did not come");
}

#[test]
fn a_pending_member_may_not_come_back_with_an_instance_id() {
    let mut b = Bench::new();
    b.join(JoinRequest {
        require_known_member_id: true,
        ..member()
    });
    let token = b.join(JoinRequest {
        member_id: "m1".into(),
        ..fixed("i")
    });
    assert_eq!(b.refused(token).0, UnknownServerError);
}

#[test]
fn members_must_share_type_and_a_protocol() {
    let mut b = Bench::new();
    b.stable(vec![member()]);
    for req in [
        JoinRequest {
            protocol_type: "connect".into(),
            ..member()
        },
        JoinRequest {
            protocols: protocols(&["sticky"]),
            ..member()
        },
        JoinRequest {
            protocols: vec![],
            ..member()
        },
    ] {
        let token = b.join(req);
        assert_eq!(b.refused(token), (InconsistentGroupProtocol, String::new()));
    }
    let token = b.join(JoinRequest {
        protocols: protocols(&["sticky", "range"]),
        ..member()
    });
    assert!(b.waits(token));
}

#[test]
fn an_empty_group_takes_a_new_protocol_type() {
    let mut b = Bench::new();
    let (ids, _) = b.stable(vec![member()]);
    b.leave(&[(&ids[0], None)]);
    let connect = JoinRequest {
        protocol_type: "connect".into(),
        protocols: protocols(&["compatible"]),
        ..member()
    };
    let token = b.join(connect);
    b.pass(3_000);
    let joined = b.joined(token);
    assert_eq!(joined.protocol_type.as_deref(), Some("connect"));
    assert_eq!(joined.generation, 3, "being empty was a generation too");
}

#[test]
fn the_protocol_is_chosen_by_votes_among_those_all_support() {
    let cases: [(&[&[&str]], &str); 4] = [
        (&[&["a", "b"], &["b", "a"], &["b", "a"]], "b"),
        (&[&["a", "b", "c"], &["c", "a"], &["c", "a"]], "c"),
        (&[&["a", "b"], &["b"]], "b"),
        (&[&["x", "x", "y"], &["y", "x"], &["x", "y"]], "x"),
    ];
    for (members, chosen) in cases {
        let mut b = Bench::new();
        let req = |names: &&[&str]| JoinRequest {
            protocols: protocols(names),
            ..member()
        };
        let tokens: Vec<Token> = members.iter().map(|names| b.join(req(names))).collect();
        b.pass(6_000);
        for token in tokens {
            assert_eq!(
                b.joined(token).protocol_name.as_deref(),
                Some(chosen),
                "{members:?}"
            );
        }
    }
}

#[test]
fn who_rejoins_a_stable_group_makes_a_rebalance_or_not() {
    let other = JoinRequest {
        protocols: vec![Protocol {
            name: "range".into(),
            metadata: subscription(&["u"]),
        }],
        ..member()
    };
    for (rule, leader, req, rebalances) in [
        (
            "a follower that says the same does not",
            false,
            member(),
            false,
        ),
        (
            "a follower that says something else does",
            false,
            other.clone(),
            true,
        ),
        ("the leader always does", true, member(), true),
    ] {
        let mut b = Bench::new();
        let (ids, generation) = b.stable(vec![member(), member()]);
        let id = &ids[usize::from(!leader)];
        let token = b.join(JoinRequest {
            member_id: id.clone(),
            ..req
        });
        assert_eq!(b.waits(token), rebalances, "{rule}");
        if !rebalances {
            let joined = b.joined(token);
            assert_eq!(
                (joined.generation, joined.leader, joined.members.len()),
                (generation, ids[0].clone(), 0)
            );
            assert_eq!(b.state(), Some(State::Stable));
        }
    }
}

#[test]
fn while_completing_a_member_that_asks_the_same_again_gets_the_generation_again() {
    let mut b = Bench::new();
    let (ids, generation) = b.form(vec![member(), member()]);
    for (id, members) in [(&ids[0], 2), (&ids[1], 0)] {
        let token = b.join(again(id));
        let joined = b.joined(token);
        assert_eq!(
            (joined.generation, joined.members.len()),
            (generation, members)
        );
    }
    let token = b.join(JoinRequest {
        protocols: protocols(&["range", "sticky"]),
        ..again(&ids[1])
    });
    assert!(b.waits(token), "something else means a rebalance");
    assert_eq!(b.state(), Some(State::PreparingRebalance));
}

#[test]
fn a_rebalance_ends_as_soon_as_all_have_rejoined() {
    let mut b = Bench::new();
    let (ids, generation) = b.stable(vec![member(), member()]);
    let newcomer = b.join(member());
    assert_eq!(b.beat(&ids[0], generation), Err(RebalanceInProgress));
    let first = b.join(again(&ids[0]));
    assert!(b.waits(newcomer) && b.waits(first));
    let second = b.join(again(&ids[1]));
    for token in [newcomer, first, second] {
        assert_eq!(b.joined(token).generation, generation + 1);
    }
}

#[test]
fn who_does_not_rejoin_within_the_rebalance_timeout_is_out() {
    let mut b = Bench::new();
    let (ids, generation) = b.stable(vec![member(), member()]);
    let token = b.join(member());
    let other = b.join(again(&ids[1]));
    for _ in 0..(REBALANCE / 5_000 - 1) {
        b.pass(5_000);
        assert_eq!(
            b.beat(&ids[0], generation),
            Err(RebalanceInProgress),
            "alive, but it does not rejoin"
        );
    }
    b.pass(5_000);
    assert_eq!(
        (b.joined(token).generation, b.joined(other).generation),
        (generation + 1, generation + 1)
    );
    assert_eq!(b.beat(&ids[0], generation), Err(UnknownMemberId));
    let leader = b.joined(token).leader;
    assert!(
        leader == "m5" || leader == ids[1],
        "the lost leader has a successor: {leader}"
    );
}

#[test]
fn a_new_member_nobody_hears_of_is_out_after_five_minutes() {
    let mut b = Bench::new();
    let (ids, generation) = b.stable(vec![JoinRequest {
        rebalance_timeout_ms: 900_000,
        ..member()
    }]);
    let token = b.join(member());
    for _ in 0..59 {
        b.pass(5_000);
        assert_eq!(b.beat(&ids[0], generation), Err(RebalanceInProgress));
    }
    assert!(b.waits(token));
    b.pass(5_000);
    assert_eq!(b.refused(token), (UnknownMemberId, String::new()));
}

#[test]
fn a_member_that_asks_twice_has_its_older_request_refused() {
    let mut b = Bench::new();
    let (ids, _) = b.stable(vec![member(), member()]);
    let older = b.join(again(&ids[0]));
    let newer = b.join(again(&ids[0]));
    assert_eq!(b.refused(older), (RebalanceInProgress, ids[0].clone()));
    b.join(again(&ids[1]));
    assert_eq!(b.joined(newer).generation, 2);
}

#[test]
fn a_cancelled_request_is_not_answered_but_its_member_counts() {
    let mut b = Bench::new();
    let gone = b.join(member());
    b.c.cancel(gone);
    let token = b.join(member());
    b.pass(6_000);
    assert!(b.waits(gone));
    assert_eq!(b.joined(token).generation, 1);
    assert_eq!(b.c.waiting(), 0);
    b.pass(SESSION);
    assert_eq!(
        b.c.describe("g").unwrap().members.len(),
        0,
        "silent members time out"
    );
}

#[test]
fn version_0_waits_for_a_rebalance_as_long_as_for_a_session() {
    let mut b = Bench::new();
    let (ids, generation) = b.stable(vec![JoinRequest {
        rebalance_timeout_ms: -1,
        ..member()
    }]);
    b.join(JoinRequest {
        rebalance_timeout_ms: -1,
        ..member()
    });
    b.pass(SESSION - 1);
    assert_eq!(b.beat(&ids[0], generation), Err(RebalanceInProgress));
    b.pass(1);
    assert_eq!(b.beat(&ids[0], generation), Err(UnknownMemberId));
}
