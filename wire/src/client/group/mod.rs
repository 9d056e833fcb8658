//! A consumer group member of the classic protocol: membership in the background (`member`),
//! reading ahead (`fetcher`, `ahead`), offsets. The caller sees one stream of events.

mod ahead;
mod chunk;
mod fetcher;
mod member;
mod offsets;
mod protocol;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use ahead::Shared;
use fetcher::Fetcher;
use member::{Coordinator, Member, Membership, Notice};

use super::offsets::{EARLIEST, LATEST};
use super::{Client, ClientConfig, ClientError, Result};
use crate::records::Record;

/// How long a broker that does not answer may hold up leaving.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);

/// How often the same problem is shown.
const SHOW_AGAIN: Duration = Duration::from_secs(10);

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Topic.
    pub topic: Arc<str>,
    /// Number of the partition.
    pub partition: i32,
}

impl TopicPartition {
    /// From its parts.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        TopicPartition {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Where to start when no valid offset is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OffsetReset {
    /// At the first record there is.
    #[default]
    Earliest,
    /// After the last one.
    Latest,
    /// Nowhere: `poll` fails.
    None,
}

/// How to consume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// How to reach the cluster.
    pub client: ClientConfig,
    /// The group.
    pub group_id: String,
    /// Static membership (KIP-345): a name for this member that survives restarts.
    pub instance_id: Option<String>,
    /// Topics to read.
    pub topics: Vec<String>,
    /// Silence after which the broker gives the partitions to others.
    pub session_timeout: Duration,
    /// How long a rebalance waits for a member to give back its partitions.
    pub rebalance_timeout: Duration,
    /// Where to start when no valid offset is committed.
    pub auto_offset_reset: OffsetReset,
    /// Bytes of one fetch, and of records prefetched.
    pub fetch_max_bytes: usize,
    /// Bytes per partition of one fetch.
    pub partition_max_bytes: usize,
    /// How long the broker waits for `fetch_min_bytes`.
    pub fetch_max_wait: Duration,
    /// Bytes the broker waits for.
    pub fetch_min_bytes: usize,
    /// Only records of committed transactions.
    pub read_committed: bool,
}

impl Default for GroupConfig {
    fn default() -> Self {
        GroupConfig {
            client: ClientConfig::default(),
            group_id: String::new(),
            instance_id: None,
            topics: Vec::new(),
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(300),
            auto_offset_reset: OffsetReset::Earliest,
            fetch_max_bytes: 16 << 20,
            partition_max_bytes: 1 << 20,
            fetch_max_wait: Duration::from_millis(500),
            fetch_min_bytes: 1,
            read_committed: false,
        }
    }
}

/// What `poll` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// These partitions are now this member's (all of them; may be none).
    Assigned(Vec<TopicPartition>),
    /// These partitions will be taken away with the next `poll`: commit now what is done.
    Revoked(Vec<TopicPartition>),
    /// These partitions were taken away already: nothing can be committed for them.
    Lost(Vec<TopicPartition>),
    /// Records of one partition, in order. They share the memory of the fetch they came with.
    Records {
        /// Where from.
        tp: TopicPartition,
        /// Never empty.
        records: Vec<Record>,
        /// End of the partition that consumers can see.
        high_watermark: i64,
        /// Offset to commit once all of these are done.
        next_offset: i64,
    },
    /// Something went wrong that is retried by itself; for showing.
    Error(ClientError),
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitOffset {
    /// Next offset to read.
    pub offset: i64,
    /// Leader epoch of the last record, −1 if unknown.
    pub leader_epoch: i32,
    /// Anything.
    pub metadata: String,
}

impl CommitOffset {
    /// An offset alone.
    pub fn at(offset: i64) -> Self {
        CommitOffset {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
        }
    }
}

/// A member of a consumer group. Dropping it without [`GroupConsumer::close`] leaves the group to
/// notice by itself, after the session timeout.
pub struct GroupConsumer {
    cfg: GroupConfig,
    coordinator: Arc<Coordinator>,
    shared: Arc<Shared>,
    notices: mpsc::Receiver<Notice>,
    go: mpsc::Sender<()>,
    /// The member waits for the next `poll` before it rejoins.
    owes_word: bool,
    /// As the caller knows it: commits must not speak for a generation it has not heard of.
    membership: Option<Membership>,
    fatal: Option<ClientError>,
    /// The problem shown last, and when.
    shown: Option<(ClientError, Instant)>,
    tasks: [AbortHandle; 2],
}

impl GroupConsumer {
    /// Connects and starts joining the group.
    pub async fn new(cfg: GroupConfig) -> Result<GroupConsumer> {
        if cfg.group_id.is_empty() || cfg.topics.is_empty() {
            return Err(ClientError::invalid(
                "a consumer needs the name of a group and at least one topic",
            ));
        }
        let client = Client::connect(cfg.client.clone()).await?;
        let coordinator = Arc::new(Coordinator::new(client, cfg.group_id.clone()));
        let shared = Arc::new(Shared::new());
        let (tell, notices) = mpsc::channel(16);
        let (go, word) = mpsc::channel(1);
        let member = Member {
            cfg: cfg.clone(),
            coordinator: coordinator.clone(),
            notices: tell,
            go: word,
            id: String::new(),
            generation: -1,
        };
        let fetcher = Fetcher::new(cfg.clone(), coordinator.clone(), shared.clone());
        let member = tokio::spawn(member.run()).abort_handle();
        let fetcher = tokio::spawn(fetcher.run()).abort_handle();
        let tasks = [member, fetcher];
        Ok(GroupConsumer {
            cfg,
            coordinator,
            shared,
            notices,
            go,
            owes_word: false,
            membership: None,
            fatal: None,
            shown: None,
            tasks,
        })
    }

    /// The client underneath, for look-ups.
    pub fn client(&self) -> &Client {
        &self.coordinator.client
    }

    /// The next event, or None after `wait`. Cancel-safe. A [`Event::Revoked`] or [`Event::Lost`]
    /// holds the member back from rejoining until `poll` is called again.
    pub async fn poll(&mut self, wait: Duration) -> Result<Option<Event>> {
        if std::mem::take(&mut self.owes_word) {
            let _ = self.go.try_send(());
        }
        let until = Instant::now() + wait;
        loop {
            if let Some(fatal) = &self.fatal {
                return Err(fatal.clone());
            }
            // What the group says goes before records.
            let found = match self.notices.try_recv() {
                Ok(notice) => Some(self.on_notice(notice)?),
                Err(_) => self.shared.next()?,
            };
            match found {
                Some(Event::Error(e)) if !self.is_news(&e) => continue,
                Some(event) => return Ok(Some(event)),
                None => {}
            }
            tokio::select! {
                biased;
                notice = self.notices.recv() => {
                    match self.on_notice(notice.unwrap_or(Notice::Fatal(ClientError::Closed)))? {
                        Event::Error(e) if !self.is_news(&e) => {}
                        event => return Ok(Some(event)),
                    }
                }
                () = self.shared.ready.notified() => {}
                () = tokio::time::sleep_until(until) => return Ok(None),
            }
        }
    }

    /// While a broker is away every part of us notices again and again: once in a while is enough.
    fn is_news(&mut self, e: &ClientError) -> bool {
        let same = |last: &ClientError| last == e || (last.is_unreachable() && e.is_unreachable());
        let stale = self
            .shown
            .as_ref()
            .is_none_or(|(last, at)| !same(last) || at.elapsed() > SHOW_AGAIN);
        if stale {
            self.shown = Some((e.clone(), Instant::now()));
        }
        stale
    }

    fn on_notice(&mut self, notice: Notice) -> Result<Event> {
        match notice {
            Notice::Assigned { membership, tps } => {
                self.membership = Some(membership);
                self.shared.assign(&tps, &self.cfg);
                Ok(Event::Assigned(tps))
            }
            Notice::Revoked => {
                self.owes_word = true;
                Ok(Event::Revoked(self.shared.halt()))
            }
            Notice::Lost => {
                self.owes_word = true;
                self.membership = None;
                Ok(Event::Lost(self.shared.halt()))
            }
            Notice::Trouble(e) => Ok(Event::Error(e)),
            Notice::Fatal(e) => {
                self.fatal = Some(e.clone());
                Err(e)
            }
        }
    }

    /// Commits offsets in the name of the generation `poll` told about last. Retried while the
    /// coordinator moves or restarts, until the request timeout.
    pub async fn commit(&mut self, offsets: &[(TopicPartition, CommitOffset)]) -> Result<()> {
        let membership = self.membership.as_ref().ok_or(ClientError::UnknownMember)?;
        if offsets.is_empty() {
            return Ok(());
        }
        let (coordinator, limit) = (&*self.coordinator, self.cfg.client.request_timeout);
        let instance_id = self.cfg.instance_id.as_deref();
        coordinator
            .client
            .retrying(|| offsets::commit(coordinator, membership, instance_id, offsets, limit))
            .await
    }

    /// Committed offsets of the group.
    pub async fn committed(
        &self,
        tps: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, Option<CommitOffset>>> {
        let (coordinator, limit) = (&*self.coordinator, self.cfg.client.request_timeout);
        coordinator
            .client
            .retrying(|| offsets::fetch_committed(coordinator, tps, limit))
            .await
    }

    /// Reads on from `offset`; ignored for a partition that is not assigned.
    pub fn seek(&mut self, tp: &TopicPartition, offset: i64) {
        self.shared.seek(tp, offset);
    }

    /// No more records of this partition until `resume`; what was read ahead is dropped.
    pub fn pause(&mut self, tp: &TopicPartition) {
        self.shared.pause(tp, true);
    }

    /// Undoes `pause`.
    pub fn resume(&mut self, tp: &TopicPartition) {
        self.shared.pause(tp, false);
    }

    /// Ends of partitions (of what this isolation level can see).
    pub async fn end_offsets(
        &self,
        tps: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, i64>> {
        self.client()
            .list_offsets(tps, LATEST, self.cfg.read_committed)
            .await
    }

    /// First offsets of partitions.
    pub async fn beginning_offsets(
        &self,
        tps: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, i64>> {
        self.client()
            .list_offsets(tps, EARLIEST, self.cfg.read_committed)
            .await
    }

    /// Next offset `poll` will hand out, of the assigned partitions where it is known. Passes over
    /// offsets that hold no record for a consumer (transaction markers, compacted ones), so at the
    /// end of a partition it equals the end offset.
    pub fn positions(&self) -> HashMap<TopicPartition, i64> {
        self.shared.positions()
    }

    /// Leaves the group (a static member does not: its partitions wait for it) and stops.
    pub async fn close(self) -> Result<()> {
        self.tasks.iter().for_each(AbortHandle::abort);
        if self.cfg.instance_id.is_some() {
            return Ok(());
        }
        self.coordinator
            .leave(self.cfg.client.request_timeout.min(LEAVE_LIMIT))
            .await
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}
