//! Random members against the coordinator: whatever they do, the promises to them hold.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::*;

/// A small generator of numbers (splitmix64), so that a failing seed can be run again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// What a client knows about itself.
#[derive(Clone, Default)]
struct Client {
    instance: Option<String>,
    member_id: String,
    generation: i32,
    protocol: Option<String>,
    members: Vec<String>,
    waits_for: Option<Token>,
    /// Its connection broke: it does not hear the answer.
    deaf: bool,
}

#[derive(Default)]
struct Seen {
    answered: HashSet<Token>,
    cancelled: HashSet<Token>,
    asked: HashSet<Token>,
    /// Per generation: leader as told, and protocol.
    generations: BTreeMap<i32, (Option<String>, String)>,
    /// What leaders assigned, by generation and member.
    assigned: HashMap<(i32, String), Bytes>,
}

struct World {
    b: Bench,
    dice: Dice,
    clients: Vec<Client>,
    seen: Seen,
}

impl World {
    fn new(seed: u64) -> World {
        let cfg = GroupsConfig {
            max_size: 6,
            initial_rebalance_delay_ms: 100,
            ..GroupsConfig::default()
        };
        let clients = (0..8).map(|i| Client {
            instance: (i % 3 == 0).then(|| format!("i{i}")),
            generation: -1,
            ..Client::default()
        });
        World {
            b: Bench::with(cfg),
            dice: Dice(seed),
            clients: clients.collect(),
            seen: Seen::default(),
        }
    }

    fn step(&mut self) {
        let who = self.dice.roll(self.clients.len() as u64) as usize;
        let client = self.clients[who].clone();
        match self.dice.roll(100) {
            _ if client.waits_for.is_some() && self.dice.roll(20) > 0 => {}
            0..30 => self.join(who, &client),
            30..55 => self.sync(who, &client),
            55..75 => drop(self.b.beat_as(
                &client.member_id,
                client.instance.as_deref(),
                client.generation,
            )),
            75..82 => {
                let id = client.member_id.clone();
                self.b.leave(&[(&id, client.instance.as_deref())]);
            }
            82..86 => self.clients[who].member_id.clear(),
            86..92 => {
                drop(
                    self.b
                        .commit(commit_as(&client.member_id, client.generation, "t", 0, 1)),
                )
            }
            _ => {
                if let Some(token) = client.waits_for {
                    self.b.c.cancel(token);
                    self.seen.cancelled.insert(token);
                    self.clients[who].waits_for = None;
                    self.clients[who].deaf = true;
                }
            }
        }
        let ms = [0, 0, 1, 50, 500, 2_000, 7_000, 30_000][self.dice.roll(8) as usize];
        self.b.pass(ms);
        self.listen();
        self.check();
    }

    fn join(&mut self, who: usize, client: &Client) {
        let names: &[&str] = [&["a", "b"][..], &["b", "a"], &["b"]][self.dice.roll(3) as usize];
        let token = self.b.join(JoinRequest {
            member_id: client.member_id.clone(),
            group_instance_id: client.instance.clone(),
            protocols: protocols(names),
            require_known_member_id: self.dice.roll(2) == 0,
            can_skip_assignment: self.dice.roll(2) == 0,
            rebalance_timeout_ms: 20_000,
            ..member()
        });
        self.ask(who, token);
    }

    fn sync(&mut self, who: usize, client: &Client) {
        let generation = client.generation;
        let own: Vec<(String, Bytes)> = client
            .members
            .iter()
            .map(|id| {
                (
                    id.clone(),
                    Bytes::from(format!("{generation}/{id}/{}", self.b.last_token + 1)),
                )
            })
            .collect();
        let token = self.b.sync(SyncRequest {
            group_instance_id: client.instance.clone(),
            protocol_name: client.protocol.clone(),
            protocol_mandatory: false,
            ..sync_as(&client.member_id, generation, own.clone())
        });
        let leads = self
            .seen
            .generations
            .get(&generation)
            .is_some_and(|(l, _)| l.as_ref() == Some(&client.member_id));
        if leads {
            for (id, assignment) in own {
                self.seen
                    .assigned
                    .entry((generation, id))
                    .or_insert(assignment);
            }
        }
        self.ask(who, token);
    }

    fn ask(&mut self, who: usize, token: Token) {
        self.seen.asked.insert(token);
        self.clients[who].waits_for = Some(token);
        self.clients[who].deaf = false;
    }

    /// Clients hear their answers; all answers are held against the promises.
    fn listen(&mut self) {
        for (token, reply) in std::mem::take(&mut self.b.answers) {
            if !self.seen.asked.contains(&token) {
                continue;
            }
            assert!(
                self.seen.answered.insert(token),
                "request {token} answered twice"
            );
            assert!(
                !self.seen.cancelled.contains(&token),
                "cancelled request {token} answered"
            );
            match &reply {
                Reply::Join(Ok(joined)) => self.hold_joined(joined),
                Reply::Sync(Ok(synced)) => self.hold_synced(token, synced),
                _ => {}
            }
            let Some(client) = self.clients.iter_mut().find(|c| c.waits_for == Some(token)) else {
                continue;
            };
            client.waits_for = None;
            match reply {
                Reply::Join(Ok(joined)) => {
                    client.member_id = joined.member_id.clone();
                    client.generation = joined.generation;
                    client.protocol = joined.protocol_name;
                    client.members = joined.members.into_iter().map(|m| m.member_id).collect();
                }
                Reply::Join(Err(r)) if r.error == GroupError::MemberIdRequired => {
                    client.member_id = r.member_id
                }
                Reply::Join(Err(r)) if r.error == GroupError::UnknownMemberId => {
                    client.member_id.clear()
                }
                _ => {}
            }
        }
    }

    fn hold_joined(&mut self, joined: &Joined) {
        let protocol = joined.protocol_name.clone().unwrap();
        let said = self
            .seen
            .generations
            .entry(joined.generation)
            .or_insert_with(|| (None, protocol.clone()));
        assert_eq!(said.1, protocol, "one protocol per generation");
        if !joined.members.is_empty() {
            assert_eq!(
                joined.leader, joined.member_id,
                "members are for the leader only"
            );
            assert!(joined.members.iter().any(|m| m.member_id == joined.leader));
            assert!(joined.members.len() <= 6, "no more than group.max.size");
            // A static leader may be replaced within its generation, by its own instance only.
            if !joined.skip_assignment {
                let was = said.0.replace(joined.leader.clone());
                assert!(
                    was.is_none_or(|was| was == joined.leader),
                    "one leader per generation"
                );
            }
        }
    }

    fn hold_synced(&self, token: Token, synced: &Synced) {
        if synced.assignment.is_empty() {
            return;
        }
        let known = self.seen.assigned.values().any(|a| *a == synced.assignment);
        assert!(
            known,
            "request {token} got an assignment no leader gave: {:?}",
            synced.assignment
        );
    }

    fn check(&mut self) {
        if self.b.state().is_none() {
            // Expired: a group of that name counts its generations from 1 again.
            self.seen.generations.clear();
        }
        let waiting = self.seen.asked.len() - self.seen.answered.len() - self.seen.cancelled.len();
        assert_eq!(
            self.b.c.waiting(),
            waiting,
            "every request is answered, cancelled or waits"
        );
        let Some(group) = self.b.c.groups.get("g") else {
            return;
        };
        let leader = group.leader.as_ref();
        assert_eq!(
            leader.is_some(),
            !group.members.is_empty(),
            "a group with members has a leader, and only such"
        );
        assert!(leader.is_none_or(|l| group.members.contains_key(l)));
        let joining = group
            .members
            .values()
            .filter(|m| m.awaiting_join.is_waiting())
            .count();
        assert_eq!(group.joining(), joining);
        assert!(
            group
                .statics
                .iter()
                .all(|(i, id)| group.members[id].instance_id.as_ref() == Some(i))
        );
        assert!(
            group
                .pending_sync
                .iter()
                .all(|id| group.members.contains_key(id))
        );
        assert!(
            group
                .pending
                .keys()
                .all(|id| !group.members.contains_key(id))
        );
        let due = group.earliest_deadline();
        assert!(
            due.is_none_or(|at| self.b.c.next_deadline().is_some_and(|next| next <= at)),
            "no deadline is missed"
        );
        if matches!(group.state, State::Stable | State::CompletingRebalance) {
            assert!(!group.members.is_empty() && group.protocol_name.is_some());
        }
        if group.state == State::Empty {
            assert!(group.members.is_empty());
        }
        for m in group.members.values() {
            let safe = m.session_deadline.is_some() || m.has_satisfied_heartbeat();
            assert!(safe, "{} can never time out", m.id);
        }
    }

    /// The log alone brings back the same generation, assignments and offsets.
    fn check_restart(&self) {
        let Some(group) = self
            .b
            .c
            .groups
            .get("g")
            .filter(|g| g.state == State::Stable)
        else {
            return;
        };
        let again = self.b.restarted(GroupsConfig::default());
        let loaded = &again.c.groups["g"];
        assert_eq!(
            (loaded.generation, &loaded.leader),
            (group.generation, &group.leader)
        );
        let told = |g: &super::super::group::Group| -> Vec<(String, Bytes)> {
            g.members
                .values()
                .map(|m| (m.id.clone(), m.assignment.clone()))
                .collect()
        };
        assert_eq!(told(loaded), told(group));
        assert_eq!(again.fetch("t", 0), self.b.fetch("t", 0));
    }
}

#[test]
fn the_promises_hold_whatever_members_do() {
    let mut completed = 0;
    for seed in 0..150 {
        let mut world = World::new(seed);
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..300 {
                world.step();
            }
            world.check_restart();
        }));
        assert!(run.is_ok(), "seed {seed}");
        completed += world.seen.assigned.len();
        // In the end everybody falls silent: nobody waits for ever.
        world.b.pass(3_600_000);
        world.listen();
        world.check();
        assert_eq!(world.b.c.waiting(), 0, "seed {seed}");
    }
    assert!(
        completed > 1_000,
        "the members found together often: {completed}"
    );
}
