//! Membership in a group: finding the coordinator, joining, heartbeats, rebalances. Runs as a task
//! of its own, so that the group hears of us while the caller works; tells the caller what
//! happens by notices, and waits for its word before it gives partitions back.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    SyncGroupRequest,
};
use kafka_protocol::protocol::{Request, StrBytes};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::protocol::{self, Subscriber};
use super::{GroupConfig, TopicPartition};
use crate::client::pool::{Backoff, Lane};
use crate::client::{Client, ClientError, Result, To, codes};

/// How often the leader looks for new partitions.
const WATCH: Duration = Duration::from_secs(30);
/// How often it looks for topics that do not exist yet.
const WATCH_MISSING: Duration = Duration::from_secs(1);
/// What a rebalance may take beyond its timeout before we stop waiting.
const GRACE: Duration = Duration::from_secs(5);
const PROTOCOL_TYPE: &str = "consumer";
const PROTOCOL: &str = "range";

/// What the caller has to hear of.
#[derive(Debug)]
pub(super) enum Notice {
    Assigned {
        membership: Membership,
        tps: Vec<TopicPartition>,
    },
    /// Rejoining waits for the caller's word.
    Revoked,
    /// Likewise.
    Lost,
    Trouble(ClientError),
    Fatal(ClientError),
}

/// Who we are to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    pub(super) generation: i32,
    pub(super) member_id: String,
}

/// The way to the group's coordinator, shared by everybody who asks it for something.
pub(super) struct Coordinator {
    pub(super) client: Client,
    pub(super) group: String,
    node: Mutex<Option<i32>>,
    /// For leaving, whatever the task is at.
    pub(super) member_id: Mutex<String>,
}

impl Coordinator {
    pub(super) fn new(client: Client, group: String) -> Coordinator {
        Coordinator {
            client,
            group,
            node: Mutex::default(),
            member_id: Mutex::default(),
        }
    }

    /// Asks the coordinator, once; an answer's own error code is the caller's to look at.
    pub(super) async fn ask<R: Request>(
        &self,
        lane: Lane,
        max_version: i16,
        limit: Duration,
        make: impl FnOnce(i16) -> R,
    ) -> Result<R::Response> {
        let known = *self.node.lock().unwrap_or_else(PoisonError::into_inner);
        let node = match known {
            Some(node) => node,
            None => {
                let node = self.client.coordinator_once(&self.group).await?;
                *self.node.lock().unwrap_or_else(PoisonError::into_inner) = Some(node);
                node
            }
        };
        let answer = self
            .client
            .send(To::Node(node), lane, max_version, limit, make)
            .await;
        if answer.is_err() {
            self.forget();
        }
        answer
    }

    /// The code of an answer; forgets a coordinator that says it is none.
    pub(super) fn check(&self, code: i16, what: &str) -> Result<()> {
        if matches!(
            code,
            codes::NOT_COORDINATOR | codes::COORDINATOR_NOT_AVAILABLE
        ) {
            self.forget();
        }
        if code == codes::FENCED_INSTANCE_ID {
            return Err(ClientError::Fenced {
                who: format!("this member's instance id in group '{}'", self.group),
            });
        }
        ClientError::check(code, || format!("{what} (group '{}')", self.group))
    }

    pub(super) fn group_id(&self) -> GroupId {
        GroupId(StrBytes::from_string(self.group.clone()))
    }

    /// Leaves, if the group knows us.
    pub(super) async fn leave(&self, limit: Duration) -> Result<()> {
        let member_id = self
            .member_id
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if member_id.is_empty() {
            return Ok(());
        }
        let member_id = StrBytes::from_string(member_id);
        let make = |version| {
            let req = LeaveGroupRequest::default().with_group_id(self.group_id());
            if version < 3 {
                return req.with_member_id(member_id);
            }
            req.with_members(vec![MemberIdentity::default().with_member_id(member_id)])
        };
        let answer = self.ask(Lane::Group, i16::MAX, limit, make).await?;
        let code = answer
            .members
            .iter()
            .map(|m| m.error_code)
            .find(|c| *c != 0)
            .unwrap_or(answer.error_code);
        if code == codes::UNKNOWN_MEMBER_ID {
            Ok(())
        } else {
            self.check(code, "leaving")
        }
    }

    fn forget(&self) {
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The task.
pub(super) struct Member {
    pub(super) cfg: GroupConfig,
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) notices: mpsc::Sender<Notice>,
    /// The caller's word that it has let go of its partitions.
    pub(super) go: mpsc::Receiver<()>,
    pub(super) id: String,
    pub(super) generation: i32,
}

/// What one round of joining came to.
struct Joined {
    tps: Vec<TopicPartition>,
    /// Partitions of each topic as the assignment saw them; for the leader.
    watch: Option<HashMap<String, usize>>,
}

enum End {
    Rebalance,
    Lost,
}

impl Member {
    pub(super) async fn run(mut self) {
        if let Err(fatal) = self.live().await {
            let _ = self.notices.send(Notice::Fatal(fatal)).await;
        }
    }

    /// Joins again and again; ends with what nobody can retry.
    async fn live(&mut self) -> Result<()> {
        let mut backoff = Backoff::new(&self.cfg.client);
        loop {
            let joined = match self.join().await {
                Ok(joined) => joined,
                Err(e) => {
                    self.survive(e).await?;
                    tokio::time::sleep(backoff.next()).await;
                    continue;
                }
            };
            backoff.reset();
            let idle = joined.tps.is_empty();
            let membership = Membership {
                generation: self.generation,
                member_id: self.id.clone(),
            };
            self.tell(Notice::Assigned {
                membership,
                tps: joined.tps,
            })
            .await?;
            match self.stay(joined.watch).await? {
                End::Rebalance if idle => {}
                End::Rebalance => {
                    self.tell(Notice::Revoked).await?;
                    self.wait_for_caller().await?;
                }
                End::Lost => {
                    self.tell(Notice::Lost).await?;
                    self.go.recv().await.ok_or(ClientError::Closed)?;
                }
            }
        }
    }

    /// Ok if joining may work next time; tells the caller of what it should see.
    async fn survive(&mut self, e: ClientError) -> Result<()> {
        match e {
            ClientError::UnknownMember => self.rename(String::new()),
            ClientError::IllegalGeneration | ClientError::RebalanceInProgress => {}
            e if e.is_retriable() => self.trouble(e),
            e => return Err(e),
        }
        Ok(())
    }

    /// JoinGroup and SyncGroup.
    async fn join(&mut self) -> Result<Joined> {
        let mut answer = self.join_group().await?;
        if answer.error_code == codes::MEMBER_ID_REQUIRED {
            // KIP-394: the broker names us, then wants to hear the name.
            self.rename(answer.member_id.to_string());
            answer = self.join_group().await?;
        }
        self.coordinator.check(answer.error_code, "joining")?;
        self.rename(answer.member_id.to_string());
        self.generation = answer.generation_id;
        let leads = answer.leader == answer.member_id;
        let (assignments, watch) = if leads {
            let (assignments, counts) = self.assign(&answer).await?;
            // KIP-814: the leader came back and nothing changed; the broker keeps what it has.
            (
                if answer.skip_assignment {
                    Vec::new()
                } else {
                    assignments
                },
                Some(counts),
            )
        } else {
            (Vec::new(), None)
        };
        let tps = self.sync(assignments).await?;
        Ok(Joined { tps, watch })
    }

    async fn join_group(&self) -> Result<JoinGroupResponse> {
        let cfg = &self.cfg;
        let metadata = protocol::subscription(&cfg.topics).into();
        let make = |version| {
            let protocol = JoinGroupRequestProtocol::default()
                .with_name(PROTOCOL.into())
                .with_metadata(metadata);
            let mut req = JoinGroupRequest::default()
                .with_group_id(self.coordinator.group_id())
                .with_session_timeout_ms(millis(cfg.session_timeout))
                .with_member_id(StrBytes::from_string(self.id.clone()))
                .with_protocol_type(PROTOCOL_TYPE.into())
                .with_protocols(vec![protocol]);
            if version >= 1 {
                req.rebalance_timeout_ms = millis(cfg.rebalance_timeout);
            }
            // Left in before version 5 too, where it must fail: the broker knows no static members.
            req.group_instance_id = self.instance_id();
            req
        };
        let limit = (cfg.rebalance_timeout + GRACE).max(cfg.client.request_timeout);
        self.coordinator
            .ask(Lane::Join, i16::MAX, limit, make)
            .await
    }

    /// The leader's part: who reads what.
    async fn assign(
        &self,
        answer: &JoinGroupResponse,
    ) -> Result<(Vec<SyncGroupRequestAssignment>, HashMap<String, usize>)> {
        let members: Vec<Subscriber> = answer
            .members
            .iter()
            .map(|m| Subscriber {
                member_id: m.member_id.to_string(),
                instance_id: m.group_instance_id.as_ref().map(|s| s.to_string()),
                // One we cannot read gets nothing.
                topics: protocol::read_subscription(&m.metadata).unwrap_or_default(),
            })
            .collect();
        let topics: HashSet<String> = members
            .iter()
            .flat_map(|m| m.topics.iter().cloned())
            .collect();
        let counts = self.partition_counts(topics.into_iter().collect()).await?;
        for (topic, _) in counts.iter().filter(|(_, n)| **n == 0) {
            let context = format!("group '{}' waits for topic '{topic}'", self.cfg.group_id);
            self.trouble(ClientError::Broker {
                code: codes::UNKNOWN_TOPIC_OR_PARTITION,
                context,
            });
        }
        let plan = protocol::assign_range(members, &counts)
            .into_iter()
            .map(|(member, topics)| {
                SyncGroupRequestAssignment::default()
                    .with_member_id(StrBytes::from_string(member))
                    .with_assignment(protocol::assignment(&topics).into())
            });
        Ok((plan.collect(), counts))
    }

    /// Partitions of each topic, 0 for one that does not exist.
    async fn partition_counts(&self, mut topics: Vec<String>) -> Result<HashMap<String, usize>> {
        topics.sort();
        let cluster = self
            .coordinator
            .client
            .metadata_once(Some(&topics), false)
            .await?;
        let count = |t: String| {
            let n = cluster
                .topics
                .get(&t)
                .map_or(0, |meta| meta.partitions.len());
            (t, n)
        };
        Ok(topics.into_iter().map(count).collect())
    }

    async fn sync(
        &self,
        assignments: Vec<SyncGroupRequestAssignment>,
    ) -> Result<Vec<TopicPartition>> {
        let make = |version| {
            let mut req = SyncGroupRequest::default()
                .with_group_id(self.coordinator.group_id())
                .with_generation_id(self.generation)
                .with_member_id(StrBytes::from_string(self.id.clone()))
                .with_group_instance_id(self.instance_id())
                .with_assignments(assignments);
            if version >= 5 {
                req.protocol_type = Some(PROTOCOL_TYPE.into());
                req.protocol_name = Some(PROTOCOL.into());
            }
            req
        };
        let limit = (self.cfg.rebalance_timeout + GRACE).max(self.cfg.client.request_timeout);
        let answer = self
            .coordinator
            .ask(Lane::Join, i16::MAX, limit, make)
            .await?;
        self.coordinator
            .check(answer.error_code, "waiting for an assignment")?;
        protocol::read_assignment(&answer.assignment).ok_or_else(|| {
            ClientError::invalid(format!(
                "the leader of group '{}' sent an assignment nobody can read; do all its members speak the range protocol?",
                self.cfg.group_id
            ))
        })
    }

    /// Heartbeats until the group changes.
    async fn stay(&mut self, watch: Option<HashMap<String, usize>>) -> Result<End> {
        let mut look = Instant::now() + watch_interval(&watch);
        let (interval, mut backoff) = (self.heartbeat_interval(), Backoff::new(&self.cfg.client));
        let mut pause = interval;
        loop {
            tokio::time::sleep(pause).await;
            pause = interval;
            match self.heartbeat().await {
                Ok(()) => backoff.reset(),
                Err(ClientError::RebalanceInProgress) => return Ok(End::Rebalance),
                Err(ClientError::UnknownMember) => {
                    self.rename(String::new());
                    return Ok(End::Lost);
                }
                Err(ClientError::IllegalGeneration) => return Ok(End::Lost),
                Err(e) if e.is_retriable() => {
                    // A restarted coordinator counts the silence from its start.
                    pause = backoff.next().min(interval);
                    self.trouble(e);
                }
                Err(e) => return Err(e),
            }
            if let Some(seen) = &watch
                && Instant::now() >= look
            {
                look = Instant::now() + watch_interval(&watch);
                let now = self.partition_counts(seen.keys().cloned().collect()).await;
                if now.is_ok_and(|now| now != *seen) {
                    return Ok(End::Rebalance);
                }
            }
        }
    }

    /// Until the caller lets go, the group must go on hearing of us: it waits for our JoinGroup.
    async fn wait_for_caller(&mut self) -> Result<()> {
        loop {
            let pause = self.heartbeat_interval();
            tokio::select! {
                word = self.go.recv() => return word.ok_or(ClientError::Closed),
                () = tokio::time::sleep(pause) => {}
            }
            match self.heartbeat().await {
                Err(ClientError::UnknownMember) => {
                    // Too late for it: the group went on without us. We join as somebody new.
                    self.rename(String::new());
                    return self.go.recv().await.ok_or(ClientError::Closed);
                }
                Err(e @ ClientError::Fenced { .. }) => return Err(e),
                _ => {}
            }
        }
    }

    async fn heartbeat(&self) -> Result<()> {
        let make = |_| {
            HeartbeatRequest::default()
                .with_group_id(self.coordinator.group_id())
                .with_generation_id(self.generation)
                .with_member_id(StrBytes::from_string(self.id.clone()))
                .with_group_instance_id(self.instance_id())
        };
        let limit = (self.cfg.session_timeout / 2).min(self.cfg.client.request_timeout);
        let answer = self
            .coordinator
            .ask(Lane::Group, i16::MAX, limit, make)
            .await?;
        self.coordinator.check(answer.error_code, "heartbeat")
    }

    fn heartbeat_interval(&self) -> Duration {
        (self.cfg.session_timeout / 3).min(Duration::from_secs(3))
    }

    fn instance_id(&self) -> Option<StrBytes> {
        self.cfg.instance_id.clone().map(StrBytes::from_string)
    }

    fn rename(&mut self, id: String) {
        *self
            .coordinator
            .member_id
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = id.clone();
        self.id = id;
    }

    async fn tell(&self, notice: Notice) -> Result<()> {
        self.notices
            .send(notice)
            .await
            .map_err(|_| ClientError::Closed)
    }

    /// For showing only: left out when the caller does not look.
    fn trouble(&self, e: ClientError) {
        tracing::debug!(error = %e, "group member keeps trying");
        // Room is kept for what the caller must hear.
        if self.notices.capacity() > self.notices.max_capacity() / 2 {
            let _ = self.notices.try_send(Notice::Trouble(e));
        }
    }
}

fn watch_interval(watch: &Option<HashMap<String, usize>>) -> Duration {
    let missing = watch.as_ref().is_some_and(|w| w.values().any(|n| *n == 0));
    if missing { WATCH_MISSING } else { WATCH }
}

fn millis(d: Duration) -> i32 {
    i32::try_from(d.as_millis()).unwrap_or(i32::MAX)
}
