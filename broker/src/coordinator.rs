//! The group coordinator at work: the pure state machine of `groups`, the topic
//! `__consumer_offsets` beneath it, and the clock. A change is appended first and answered when it
//! is durable, so that no member ever knows more than the log.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::clock::{SteadyClock, wall_ms};
use crate::config::{BrokerConfig, Durability};
use crate::groups::{
    Coordinator, GroupError, GroupsConfig, HeartbeatRequest, Output, Reply, Token,
};
use crate::log::ReadError;
use crate::meta::{Meta, topic_name};
use crate::topics::{Acks, AppendPlan, NewTopic, Partition, PartitionError, Topics, TopicsError};
use wire::compress::Compression;
use wire::records::BatchBuilder;

/// The space of the index that holds the latest value of each key of `__consumer_offsets`.
const INDEX_SPACE: &str = "offsets";
/// Bytes of log replayed at once.
const REPLAY_BYTES: usize = 1 << 20;
/// What a batch of the coordinator's own topic may unfold to.
const MAX_DECOMPRESSED_BYTES: usize = 64 << 20;
/// The log of groups and offsets is compacted when it holds so many times what it adds up to.
const COMPACT_FACTOR: u64 = 4;
/// Records of one batch when everything is stated once more.
const RESTATE_BATCH: usize = 500;
/// Changes held for the index before it is written.
const INDEX_PENDING_MAX: usize = 10_000;

/// Why the coordinator cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    #[error("the topic of groups and offsets cannot be written: {0}")]
    Append(#[from] PartitionError),
    #[error("the topic of groups and offsets cannot be created: {0}")]
    Topics(#[from] TopicsError),
    #[error("the topic of groups and offsets cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("the topic of groups and offsets holds a batch that cannot be understood: {0}")]
    Batch(#[from] wire::batch::BatchError),
    #[error("the coordinator is not available")]
    Unavailable,
}

type Change = (Vec<u8>, Option<Vec<u8>>);

struct State {
    coordinator: Coordinator,
    partition: Option<Arc<Partition>>,
    waiting: HashMap<Token, oneshot::Sender<Reply>>,
    last_token: Token,
    /// Changes that are in the log and not yet in the index, and the offset they reach to.
    unindexed: Vec<Change>,
    logged_upto: i64,
    stopped: bool,
}

/// See the module's text.
pub struct GroupCoordinator {
    topics: Arc<Topics>,
    meta: Arc<Meta>,
    acks: Acks,
    segment_bytes: i32,
    clock: SteadyClock,
    state: Mutex<State>,
    creating: tokio::sync::Mutex<()>,
    changed: Notify,
}

impl GroupCoordinator {
    /// Brings back groups and offsets from the index and the log behind it (blocking).
    pub fn open(
        config: &BrokerConfig,
        topics: Arc<Topics>,
        meta: Arc<Meta>,
    ) -> Result<GroupCoordinator, CoordinatorError> {
        let clock = SteadyClock::start();
        let mut state = State {
            coordinator: Coordinator::new(groups_config(config)),
            partition: None,
            waiting: HashMap::new(),
            last_token: 0,
            unindexed: Vec::new(),
            logged_upto: 0,
            stopped: false,
        };
        let partition = topics
            .by_name(topic_name::CONSUMER_OFFSETS)
            .and_then(|topic| topic.partition(0).cloned());
        if let Some(partition) = partition {
            state.replay(&meta, &partition, clock.now_ms())?;
            state.partition = Some(partition);
        }
        state.coordinator.finish_load(clock.now_ms());
        Ok(GroupCoordinator {
            topics,
            meta,
            acks: match config.durability {
                Durability::Disk => Acks::Disk,
                Durability::Os => Acks::Kernel,
            },
            segment_bytes: config.offsets_topic_segment_bytes,
            clock,
            state: Mutex::new(state),
            creating: tokio::sync::Mutex::default(),
            changed: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure the topic beneath is there; the first use of a group creates it.
    pub async fn ready(&self) -> Result<(), CoordinatorError> {
        if self.lock().partition.is_some() {
            return Ok(());
        }
        let _one_at_a_time = self.creating.lock().await;
        if self.lock().partition.is_some() {
            return Ok(());
        }
        let setting = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let new = NewTopic {
            name: topic_name::CONSUMER_OFFSETS.into(),
            partitions: 1,
            configs: BTreeMap::from([
                setting("cleanup.policy", "compact"),
                setting("compression.type", "producer"),
                setting("segment.bytes", &self.segment_bytes.to_string()),
            ]),
        };
        let topic = self.topics.create_or_get(new).await?;
        let partition = topic
            .partition(0)
            .cloned()
            .ok_or(CoordinatorError::Unavailable)?;
        self.lock().partition = Some(partition);
        Ok(())
    }

    /// Hands one request to the state machine and waits for its reply, which may come with
    /// another member's request or with time.
    pub async fn submit(
        self: &Arc<Self>,
        request: impl FnOnce(&mut Coordinator, i64, Token) -> Output,
    ) -> Result<Reply, CoordinatorError> {
        self.ready().await?;
        let (waiting, reply) = {
            let mut state = self.lock();
            if state.stopped {
                return Err(CoordinatorError::Unavailable);
            }
            state.last_token += 1;
            let token = state.last_token;
            let (answer, reply) = oneshot::channel();
            state.waiting.insert(token, answer);
            let output = request(&mut state.coordinator, self.clock.now_ms(), token);
            self.carry_out(&mut state, output);
            (
                Waiting {
                    coordinator: self,
                    token,
                },
                reply,
            )
        };
        self.changed.notify_one();
        let reply = reply.await;
        drop(waiting);
        reply.map_err(|_| CoordinatorError::Unavailable)
    }

    /// A heartbeat is answered at once.
    pub fn heartbeat(
        self: &Arc<Self>,
        request: HeartbeatRequest,
    ) -> Result<Result<(), GroupError>, CoordinatorError> {
        let result = {
            let mut state = self.lock();
            if state.stopped {
                return Err(CoordinatorError::Unavailable);
            }
            let (result, output) = state.coordinator.heartbeat(self.clock.now_ms(), request);
            self.carry_out(&mut state, output);
            result
        };
        self.changed.notify_one();
        Ok(result)
    }

    /// Looks something up; nothing may change.
    pub fn look<T>(&self, ask: impl FnOnce(&Coordinator) -> T) -> T {
        ask(&self.lock().coordinator)
    }

    /// Forgets the offsets committed for a topic that is gone.
    pub async fn topic_deleted(self: &Arc<Self>, topic: &str) {
        let mut state = self.lock();
        if state.partition.is_some() {
            let output = state.coordinator.topic_deleted(topic);
            self.carry_out(&mut state, output);
        }
    }

    /// Appends what changed, and delivers the replies once that is durable. Called under the
    /// lock, so that the log has the changes in the order in which they were made.
    fn carry_out(self: &Arc<Self>, state: &mut State, output: Output) {
        if output.records.is_empty() {
            return deliver(state.take_waiting(output.replies));
        }
        match self.append(state, &output.records) {
            Ok(wait) => {
                state.unindexed.extend(output.records);
                let replies = state.take_waiting(output.replies);
                let Some((partition, offset)) = wait else {
                    return deliver(replies);
                };
                tokio::spawn(async move {
                    // A failed flush drops the replies: their clients are told that the
                    // coordinator is not available, never that all is well.
                    if partition.wait_durable(offset).await.is_ok() {
                        deliver(replies);
                    }
                });
            }
            Err(error) => {
                tracing::error!(%error, "a change of groups or offsets was not stored");
                let refusal = GroupError::CoordinatorNotAvailable;
                let replies = state
                    .coordinator
                    .revert(self.clock.now_ms(), output, refusal);
                deliver(state.take_waiting(replies));
            }
        }
    }

    fn append(
        &self,
        state: &mut State,
        records: &[Change],
    ) -> Result<Option<(Arc<Partition>, i64)>, CoordinatorError> {
        let partition = state
            .partition
            .clone()
            .ok_or(CoordinatorError::Unavailable)?;
        let now_ms = wall_ms();
        let mut batch = BatchBuilder::new(Compression::None);
        for (key, value) in records {
            batch.push(now_ms, Some(key), value.as_deref(), &[]);
        }
        let batch = batch.build(0);
        let header = wire::batch::BatchHeader::parse(&batch)?;
        let plan = AppendPlan {
            acks: self.acks,
            log_append_time_ms: None,
            flush_messages: i64::MAX,
            now_ms,
        };
        let acked = partition.append(&batch, &header, plan)?;
        state.logged_upto = acked.appended.last_offset + 1;
        Ok(acked.wait_offset.map(|offset| (partition, offset)))
    }

    /// Starts the task that fires session and rebalance timeouts. It sleeps until the next one.
    pub fn run_timers(self: &Arc<Self>) {
        let me = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let next = {
                    let mut state = me.lock();
                    if state.stopped {
                        return;
                    }
                    let output = state.coordinator.tick(me.clock.now_ms());
                    me.carry_out(&mut state, output);
                    if state.unindexed.len() >= INDEX_PENDING_MAX {
                        let me = Arc::clone(&me);
                        tokio::task::spawn_blocking(move || me.save_index());
                    }
                    state.coordinator.next_deadline()
                };
                match next {
                    Some(at_ms) => {
                        let at = tokio::time::Instant::from_std(me.clock.instant(at_ms));
                        tokio::select! {
                            _ = tokio::time::sleep_until(at) => {}
                            _ = me.changed.notified() => {}
                        }
                    }
                    None => me.changed.notified().await,
                }
            }
        });
    }

    /// Ends the timers and refuses what comes from now on.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.waiting.clear();
        drop(state);
        self.changed.notify_one();
    }

    /// Writes what the index lacks (blocking). Only what is on disk goes in: the index must never
    /// know more than the log.
    pub fn save_index(&self) {
        let (changes, upto) = {
            let mut state = self.lock();
            let Some(partition) = state.partition.clone() else {
                return;
            };
            if state.unindexed.is_empty() {
                return;
            }
            if self.acks == Acks::Disk && partition.flushed_offset() < state.logged_upto {
                return;
            }
            (std::mem::take(&mut state.unindexed), state.logged_upto)
        };
        self.meta.index().apply(INDEX_SPACE, changes, upto - 1);
    }
}

impl GroupCoordinator {
    /// Keeps `__consumer_offsets` from growing for ever (blocking). Once it has outgrown a segment
    /// and several times what it adds up to, everything that holds is appended once more and what
    /// lies before is deleted. After a crash in between both are there and add up to the same.
    pub fn compact(&self) {
        self.save_index();
        let restated = self.restate();
        let (partition, from, upto) = match restated {
            Ok(Some(restated)) => restated,
            Ok(None) => return,
            Err(error) => return tracing::error!(%error, "groups and offsets were not compacted"),
        };
        if partition.flush_blocking().is_err() {
            return;
        }
        self.meta.index().apply(INDEX_SPACE, Vec::new(), upto - 1);
        match partition.delete_records_before(from) {
            Ok(()) => tracing::info!(
                bytes = partition.size_bytes(),
                "groups and offsets compacted"
            ),
            Err(error) => tracing::error!(%error, "the old groups and offsets were not deleted"),
        }
    }

    /// Appends all that holds; tells from which offset to which, or `None` when it is not worth it.
    fn restate(&self) -> Result<Option<(Arc<Partition>, i64, i64)>, CoordinatorError> {
        let mut state = self.lock();
        let Some(partition) = state.partition.clone() else {
            return Ok(None);
        };
        let size = partition.size_bytes();
        if size <= self.segment_bytes.max(0) as u64 {
            return Ok(None);
        }
        // The index is at hand and holds the latest value of each key.
        let Some((applied, entries)) = self.meta.index().load(INDEX_SPACE) else {
            return Ok(None);
        };
        let live: usize = entries
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        if applied + 1 != state.logged_upto || size < live as u64 * COMPACT_FACTOR {
            return Ok(None);
        }
        let from = partition.end_offset();
        let changes: Vec<Change> = entries.into_iter().map(|(k, v)| (k, Some(v))).collect();
        for some in changes.chunks(RESTATE_BATCH) {
            self.append(&mut state, some)?;
        }
        Ok(Some((partition, from, state.logged_upto)))
    }
}

/// Takes a request out of the state machine when its client no longer waits.
struct Waiting<'a> {
    coordinator: &'a Arc<GroupCoordinator>,
    token: Token,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.coordinator.lock();
        if state.waiting.remove(&self.token).is_some() {
            state.coordinator.cancel(self.token);
        }
    }
}

type Deliveries = Vec<(oneshot::Sender<Reply>, Reply)>;

fn deliver(replies: Deliveries) {
    for (to, reply) in replies {
        // A client that has gone needs no answer.
        let _ = to.send(reply);
    }
}

impl State {
    fn take_waiting(&mut self, replies: Vec<(Token, Reply)>) -> Deliveries {
        replies
            .into_iter()
            .filter_map(|(token, reply)| Some((self.waiting.remove(&token)?, reply)))
            .collect()
    }

    fn replay(
        &mut self,
        meta: &Meta,
        partition: &Partition,
        now_ms: i64,
    ) -> Result<(), CoordinatorError> {
        let mut from = partition.log_start_offset();
        if let Some((applied, entries)) = meta.index().load(INDEX_SPACE)
            && applied + 1 >= from
            && applied < partition.end_offset()
        {
            from = applied + 1;
            for (key, value) in entries {
                self.load(now_ms, &key, Some(&value));
            }
        }
        let indexed = from;
        while from < partition.end_offset() {
            let batches = partition.read_batches(from, REPLAY_BYTES)?;
            if batches.is_empty() {
                break;
            }
            for (header, bytes) in batches {
                if !header.is_control() {
                    for record in wire::records::decode(&bytes, MAX_DECOMPRESSED_BYTES)? {
                        if record.offset < indexed {
                            continue;
                        }
                        let key = record.key.unwrap_or_default();
                        self.load(now_ms, &key, record.value.as_deref());
                        let value = record.value.map(|v| v.to_vec());
                        self.unindexed.push((key.to_vec(), value));
                    }
                }
                from = header.last_offset() + 1;
            }
        }
        self.logged_upto = from;
        Ok(())
    }

    fn load(&mut self, now_ms: i64, key: &[u8], value: Option<&[u8]>) {
        if let Err(error) = self.coordinator.load(now_ms, key, value) {
            tracing::warn!(%error, "a record of groups or offsets is not understood and is left out");
        }
    }
}

fn groups_config(config: &BrokerConfig) -> GroupsConfig {
    GroupsConfig {
        min_session_ms: config.group_min_session_timeout_ms,
        max_session_ms: config.group_max_session_timeout_ms,
        initial_rebalance_delay_ms: config.group_initial_rebalance_delay_ms,
        max_size: config.group_max_size.max(1) as usize,
        offset_metadata_max_bytes: config.offset_metadata_max_bytes.max(0) as usize,
        offsets_retention_ms: i64::from(config.offsets_retention_minutes) * 60_000,
        offsets_retention_check_interval_ms: config.offsets_retention_check_interval_ms,
        ..GroupsConfig::default()
    }
}

#[cfg(test)]
#[path = "coordinator_tests.rs"]
mod tests;
