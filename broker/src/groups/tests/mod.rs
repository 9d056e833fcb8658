//! Tests of the coordinator. Each names the rule it holds; time is a number, nothing waits.

mod admin;
mod commit;
mod expiry;
mod join;
mod limits;
mod load;
mod membership;
mod model;
mod revert;
mod schema;
mod statics;
mod sync;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;

/// The start of time, well away from 0.
const START: i64 = 1_000_000;
const SESSION: i64 = 10_000;
const REBALANCE: i64 = 60_000;

/// A coordinator with its clock, its log and the answers it gave.
struct Bench {
    c: Coordinator,
    now: i64,
    last_token: Token,
    answers: BTreeMap<Token, Reply>,
    log: Vec<OffsetsRecord>,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(GroupsConfig::default())
    }

    fn with(cfg: GroupsConfig) -> Bench {
        let mut c = Coordinator::new(cfg);
        c.finish_load(START);
        Bench {
            c,
            now: START,
            last_token: 0,
            answers: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    fn take(&mut self, out: Output) {
        self.log.extend(out.records);
        for (token, reply) in out.replies {
            assert!(
                self.answers.insert(token, reply).is_none(),
                "request {token} answered twice"
            );
        }
    }

    fn token(&mut self) -> Token {
        self.last_token += 1;
        self.last_token
    }

    /// Lets time pass, ticking whenever the coordinator asks for it.
    fn pass(&mut self, ms: i64) {
        let until = self.now + ms;
        while let Some(at) = self.c.next_deadline().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            let out = self.c.tick(self.now);
            self.take(out);
        }
        self.now = until;
    }

    fn join(&mut self, mut req: JoinRequest) -> Token {
        let token = self.token();
        if req.new_member_id.is_empty() {
            req.new_member_id = format!("m{token}");
        }
        let out = self.c.join(self.now, token, req);
        self.take(out);
        token
    }

    fn sync(&mut self, req: SyncRequest) -> Token {
        let token = self.token();
        let out = self.c.sync(self.now, token, req);
        self.take(out);
        token
    }

    fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<Option<GroupError>> {
        let token = self.token();
        let members = members
            .iter()
            .map(|(id, instance)| LeavingMember {
                member_id: (*id).to_owned(),
                group_instance_id: instance.map(str::to_owned),
            })
            .collect();
        let out = self.c.leave(
            self.now,
            token,
            LeaveRequest {
                group_id: "g".into(),
                members,
            },
        );
        self.take(out);
        match self.answers.get(&token) {
            Some(Reply::Leave(Ok(left))) => left.iter().map(|m| m.error).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn beat(&mut self, member: &str, generation: i32) -> Result<(), GroupError> {
        self.beat_as(member, None, generation)
    }

    fn beat_as(
        &mut self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        let req = HeartbeatRequest {
            group_id: "g".into(),
            generation,
            member_id: member.into(),
            group_instance_id: instance.map(str::to_owned),
        };
        let (result, out) = self.c.heartbeat(self.now, req);
        self.take(out);
        result
    }

    fn commit(&mut self, req: CommitRequest) -> Result<Vec<TopicResults>, GroupError> {
        let token = self.token();
        let out = self.c.commit(self.now, token, req);
        self.take(out);
        match self.answers.get(&token) {
            Some(Reply::Commit(result)) => result.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn waits(&self, token: Token) -> bool {
        !self.answers.contains_key(&token)
    }

    fn joined(&self, token: Token) -> Joined {
        match self.answers.get(&token) {
            Some(Reply::Join(Ok(joined))) => joined.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn refused(&self, token: Token) -> (GroupError, String) {
        match self.answers.get(&token) {
            Some(Reply::Join(Err(r))) => (r.error, r.member_id.clone()),
            other => panic!("{other:?}"),
        }
    }

    fn synced(&self, token: Token) -> Result<Synced, GroupError> {
        match self.answers.get(&token) {
            Some(Reply::Sync(result)) => result.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn assignment(&self, token: Token) -> Bytes {
        self.synced(token).unwrap().assignment
    }

    fn state(&self) -> Option<State> {
        self.c.state("g")
    }

    /// Lets `requests` form one generation; their member ids, the leader first.
    fn form(&mut self, requests: Vec<JoinRequest>) -> (Vec<String>, i32) {
        let tokens: Vec<Token> = requests.into_iter().map(|r| self.join(r)).collect();
        self.pass(3_000);
        if tokens.iter().any(|t| self.waits(*t)) {
            self.pass(3_000);
        }
        let joined: Vec<Joined> = tokens.iter().map(|t| self.joined(*t)).collect();
        let leader = joined[0].leader.clone();
        let mut ids: Vec<String> = joined.iter().map(|j| j.member_id.clone()).collect();
        ids.sort_by_key(|id| *id != leader);
        (ids, joined[0].generation)
    }

    /// A stable group "g"; member ids, the leader first, and the generation. `x` is assigned `a-x`.
    fn stable(&mut self, requests: Vec<JoinRequest>) -> (Vec<String>, i32) {
        let (ids, generation) = self.form(requests);
        let own: Vec<(String, Bytes)> = ids
            .iter()
            .map(|id| (id.clone(), Bytes::from(format!("a-{id}"))))
            .collect();
        for id in &ids {
            let instance = self
                .c
                .describe("g")
                .unwrap()
                .members
                .into_iter()
                .find(|m| m.member_id == *id);
            let instance = instance.unwrap().group_instance_id;
            let given = if *id == ids[0] {
                own.clone()
            } else {
                Vec::new()
            };
            let token = self.sync(SyncRequest {
                group_instance_id: instance,
                ..sync_as(id, generation, given)
            });
            assert_eq!(self.assignment(token), format!("a-{id}"));
        }
        assert_eq!(self.state(), Some(State::Stable));
        (ids, generation)
    }

    /// A coordinator that was started on this one's log.
    fn restarted(&self, cfg: GroupsConfig) -> Bench {
        let mut c = Coordinator::new(cfg);
        for (key, value) in &self.log {
            c.load(self.now, key, value.as_deref()).unwrap();
        }
        c.finish_load(self.now);
        Bench {
            c,
            now: self.now,
            last_token: 1_000,
            answers: BTreeMap::new(),
            log: self.log.clone(),
        }
    }

    fn fetch(&self, topic: &str, partition: i32) -> i64 {
        let asked = [(topic.to_owned(), vec![partition])];
        self.c.fetch_offsets("g", Some(&asked)).unwrap()[0].partitions[0].offset
    }
}

/// A member of version 3 and older: it gets its id with its first generation.
fn member() -> JoinRequest {
    JoinRequest {
        group_id: "g".into(),
        member_id: String::new(),
        group_instance_id: None,
        protocol_type: "consumer".into(),
        protocols: protocols(&["range"]),
        session_timeout_ms: SESSION as i32,
        rebalance_timeout_ms: REBALANCE as i32,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        new_member_id: String::new(),
        require_known_member_id: false,
        can_skip_assignment: false,
    }
}

fn again(member_id: &str) -> JoinRequest {
    JoinRequest {
        member_id: member_id.into(),
        ..member()
    }
}

fn fixed(instance: &str) -> JoinRequest {
    JoinRequest {
        group_instance_id: Some(instance.into()),
        ..member()
    }
}

fn protocols(names: &[&str]) -> Vec<Protocol> {
    names
        .iter()
        .map(|n| Protocol {
            name: (*n).into(),
            metadata: subscription(&["t"]),
        })
        .collect()
}

/// A `ConsumerProtocolSubscription` of version 0.
fn subscription(topics: &[&str]) -> Bytes {
    let mut b = vec![0, 0];
    b.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        b.extend((topic.len() as i16).to_be_bytes());
        b.extend(topic.as_bytes());
    }
    b.extend((-1i32).to_be_bytes());
    Bytes::from(b)
}

fn sync_as(member: &str, generation: i32, assignments: Vec<(String, Bytes)>) -> SyncRequest {
    SyncRequest {
        group_id: "g".into(),
        generation,
        member_id: member.into(),
        group_instance_id: None,
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        protocol_mandatory: true,
        assignments,
    }
}

/// A commit by nobody in particular: generation −1, no member id.
fn simple_commit(topic: &str, partition: i32, offset: i64) -> CommitRequest {
    commit_as("", -1, topic, partition, offset)
}

fn commit_as(
    member: &str,
    generation: i32,
    topic: &str,
    partition: i32,
    offset: i64,
) -> CommitRequest {
    let one = CommitPartition {
        partition,
        offset,
        leader_epoch: 7,
        metadata: Some("note".into()),
    };
    CommitRequest {
        group_id: "g".into(),
        generation,
        member_id: member.into(),
        group_instance_id: None,
        retention_time_ms: -1,
        group_not_found_allowed: true,
        topics: vec![CommitTopic {
            name: topic.into(),
            partitions: vec![one],
        }],
    }
}

fn ok(topic: &str, partition: i32) -> Result<Vec<TopicResults>, GroupError> {
    Ok(vec![TopicResults {
        name: topic.into(),
        partitions: vec![(partition, None)],
    }])
}
