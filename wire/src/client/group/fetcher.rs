//! The task that reads ahead: finds out where to start, and fetches from the leaders while the caller
//! works. Memory is bounded by
//! `fetch_max_bytes` waiting plus as much in flight per broker.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::FuturesUnordered;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse};
use tokio::time::Instant;

use super::ahead::{Aim, Shared, State, Want, corrupt};
use super::chunk::{self, Aborts, Checked, Chunk};
use super::member::Coordinator;
use super::offsets::fetch_committed;
use super::{CommitOffset, GroupConfig, OffsetReset, TopicPartition};
use crate::client::offsets::{EARLIEST, LATEST, by_topic, topics_of};
use crate::client::pool::{Backoff, Lane};
use crate::client::{
    Client, ClientError, Cluster, Result, To, codes, is_retriable_code, topic_name,
};

/// Version 13 names topics by id; names are enough here.
const MAX_VERSION: i16 = 12;
/// Fetches in a row that bring bytes but no whole batch before we say so.
const FRUITLESS: u32 = 20;

enum Done {
    Committed {
        wants: Vec<Want>,
        result: Result<HashMap<TopicPartition, Option<CommitOffset>>>,
    },
    Reset {
        want: Want,
        result: Result<i64>,
    },
    Fetched {
        node: i32,
        wants: Vec<Want>,
        result: Result<FetchResponse>,
    },
    Metadata(Result<Cluster>),
}

/// The task.
pub(super) struct Fetcher {
    cfg: GroupConfig,
    client: Client,
    coordinator: Arc<Coordinator>,
    shared: Arc<Shared>,
    leaders: HashMap<TopicPartition, i32>,
    fetching: HashSet<i32>,
    refresh: bool,
    refreshing: bool,
    refresh_not_before: Instant,
    backoff: Backoff,
    turn: usize,
    under_way: FuturesUnordered<BoxFuture<'static, Done>>,
}

impl Fetcher {
    pub(super) fn new(
        cfg: GroupConfig,
        coordinator: Arc<Coordinator>,
        shared: Arc<Shared>,
    ) -> Fetcher {
        Fetcher {
            client: coordinator.client.clone(),
            backoff: Backoff::new(&cfg.client),
            cfg,
            coordinator,
            shared,
            leaders: HashMap::new(),
            fetching: HashSet::new(),
            refresh: false,
            refreshing: false,
            refresh_not_before: Instant::now(),
            turn: 0,
            under_way: FuturesUnordered::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let shared = self.shared.clone();
        loop {
            let wake = self.step();
            tokio::select! {
                biased;
                Some(done) = self.under_way.next(), if !self.under_way.is_empty() => self.on_done(done),
                () = shared.work.notified() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Starts what can be started; tells when to look again.
    fn step(&mut self) -> Instant {
        let now = Instant::now();
        let mut wake = now + Duration::from_secs(3600);
        let (mut committed, mut resets) = (Vec::new(), Vec::new());
        let mut fetches: HashMap<i32, Vec<Want>> = HashMap::new();
        let shared = self.shared.clone();
        {
            let mut s = shared.lock();
            if s.halted {
                return wake;
            }
            let room = s.buffered < self.cfg.fetch_max_bytes;
            for (tp, part) in s.parts.iter_mut().filter(|(_, p)| !p.busy && !p.paused) {
                if let Some(t) = part.not_before.filter(|t| *t > now) {
                    wake = wake.min(t);
                    continue;
                }
                let want = Want {
                    tp: tp.clone(),
                    life: part.life,
                    offset: part.fetch_from,
                };
                match part.aim {
                    Aim::Committed => committed.push(want),
                    Aim::Reset(_) => resets.push(want),
                    Aim::At(_) if room => match self.leaders.get(tp) {
                        Some(node) if self.fetching.contains(node) => continue,
                        Some(node) => {
                            fetches.entry(*node).or_default().push(want);
                            continue;
                        }
                        None => {
                            self.refresh = true;
                            continue;
                        }
                    },
                    Aim::At(_) | Aim::Stuck => continue,
                }
                part.busy = true;
            }
            for want in fetches.values().flatten() {
                if let Some(part) = s.alive(want) {
                    part.busy = true;
                }
            }
        }
        self.ask_committed(committed);
        for want in resets {
            self.ask_reset(want);
        }
        for (node, wants) in fetches {
            self.fetch(node, wants);
        }
        if self.refresh && !self.refreshing {
            if now >= self.refresh_not_before {
                self.ask_metadata();
            } else {
                wake = wake.min(self.refresh_not_before);
            }
        }
        wake
    }

    fn ask_committed(&mut self, wants: Vec<Want>) {
        if wants.is_empty() {
            return;
        }
        let coordinator = self.coordinator.clone();
        let limit = self.cfg.client.request_timeout;
        let ask = async move {
            let tps: Vec<TopicPartition> = wants.iter().map(|w| w.tp.clone()).collect();
            Done::Committed {
                result: fetch_committed(&coordinator, &tps, limit).await,
                wants,
            }
        };
        self.under_way.push(ask.boxed());
    }

    fn ask_reset(&mut self, want: Want) {
        let at = match self.cfg.auto_offset_reset {
            OffsetReset::Earliest => EARLIEST,
            OffsetReset::Latest => LATEST,
            OffsetReset::None => {
                self.on_done(Done::Reset {
                    want,
                    result: Ok(-1),
                });
                return;
            }
        };
        let (client, read_committed) = (self.client.clone(), self.cfg.read_committed);
        let ask = async move {
            let found = client
                .list_offsets_once(std::slice::from_ref(&want.tp), at, read_committed)
                .await;
            Done::Reset {
                result: found.map(|f| f.get(&want.tp).copied().unwrap_or(0)),
                want,
            }
        };
        self.under_way.push(ask.boxed());
    }

    fn ask_metadata(&mut self) {
        let tps: Vec<TopicPartition> = self.shared.lock().parts.keys().cloned().collect();
        let client = self.client.clone();
        self.refreshing = true;
        let ask = async move {
            Done::Metadata(client.metadata_once(Some(&topics_of(&tps)), false).await)
        };
        self.under_way.push(ask.boxed());
    }

    /// Without a session (KIP-227): every request names its partitions, in turns, because the
    /// broker fills its answer in that order.
    fn fetch(&mut self, node: i32, mut wants: Vec<Want>) {
        wants.sort_by(|a, b| a.tp.cmp(&b.tp));
        self.turn = self.turn.wrapping_add(1);
        let by = self.turn % wants.len().max(1);
        wants.rotate_left(by);
        self.fetching.insert(node);
        let (client, cfg) = (self.client.clone(), self.cfg.clone());
        let limit = cfg.client.request_timeout + cfg.fetch_max_wait;
        let fetch = async move {
            let make = |version| fetch_request(&cfg, &wants, version);
            let result = client
                .send(To::Node(node), Lane::Fetch, MAX_VERSION, limit, make)
                .await;
            Done::Fetched {
                node,
                wants,
                result,
            }
        };
        self.under_way.push(fetch.boxed());
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Committed { wants, result } => self.on_committed(wants, result),
            Done::Reset { want, result } => self.on_reset(&want, result),
            Done::Metadata(result) => {
                self.refreshing = false;
                match result {
                    Ok(cluster) => {
                        self.refresh = false;
                        self.backoff.reset();
                        let s = self.shared.lock();
                        let led = s.parts.keys().filter_map(|tp| {
                            Some((tp.clone(), cluster.leader(&tp.topic, tp.partition)?))
                        });
                        self.leaders = led.collect();
                    }
                    Err(e) => self.shared_trouble(e),
                }
                self.refresh_not_before = Instant::now() + self.backoff.next();
            }
            Done::Fetched {
                node,
                wants,
                result,
            } => {
                self.fetching.remove(&node);
                match result {
                    Ok(answer) if answer.error_code == 0 => self.on_fetched(&wants, answer),
                    Ok(answer) => {
                        let e = ClientError::from_code(answer.error_code, "fetch");
                        self.fetch_failed(&wants, e);
                    }
                    Err(e) => self.fetch_failed(&wants, e),
                }
            }
        }
    }

    fn on_committed(
        &mut self,
        wants: Vec<Want>,
        result: Result<HashMap<TopicPartition, Option<CommitOffset>>>,
    ) {
        let shared = self.shared.clone();
        let mut s = shared.lock();
        for want in &wants {
            let Some(part) = s.alive(want) else {
                continue;
            };
            part.busy = false;
            match &result {
                Ok(found) => match found.get(&want.tp) {
                    Some(Some(c)) => part.go_to(c.offset),
                    _ => part.aim = Aim::Reset(None),
                },
                Err(_) => part.later(),
            }
        }
        if let Err(e) = result {
            s.trouble(e);
            drop(s);
            shared.ready.notify_one();
        }
    }

    fn on_reset(&mut self, want: &Want, result: Result<i64>) {
        let shared = self.shared.clone();
        let mut s = shared.lock();
        let Some(part) = s.alive(want) else {
            return;
        };
        part.busy = false;
        let Aim::Reset(from) = part.aim else {
            return;
        };
        let out_of_range = |reset_to| ClientError::OffsetOutOfRange {
            topic: want.tp.topic.to_string(),
            partition: want.tp.partition,
            offset: from.unwrap_or(-1),
            reset_to,
        };
        match result {
            Ok(-1) => {
                part.aim = Aim::Stuck;
                s.fatal.get_or_insert(out_of_range(None));
            }
            Ok(offset) => {
                part.go_to(offset);
                if from.is_some() {
                    s.trouble(out_of_range(Some(offset)));
                }
            }
            Err(e) => {
                part.later();
                s.trouble(e);
            }
        }
        drop(s);
        shared.ready.notify_one();
    }

    fn fetch_failed(&mut self, wants: &[Want], e: ClientError) {
        let mut s = self.shared.lock();
        for want in wants {
            if let Some(part) = s.alive(want) {
                part.busy = false;
                part.later();
            }
        }
        drop(s);
        // The leader may be another one by now.
        self.refresh = true;
        self.shared_trouble(e);
    }

    fn on_fetched(&mut self, wants: &[Want], answer: FetchResponse) {
        let mut parts: HashMap<(String, i32), PartitionData> = HashMap::new();
        for topic in answer.responses {
            for p in topic.partitions {
                parts.insert((topic.topic.0.to_string(), p.partition_index), p);
            }
        }
        for want in wants {
            let data = parts.remove(&(want.tp.topic.to_string(), want.tp.partition));
            self.on_partition(want, data);
        }
        self.shared.ready.notify_one();
    }

    fn on_partition(&mut self, want: &Want, data: Option<PartitionData>) {
        let code = data
            .as_ref()
            .map_or(codes::UNKNOWN_TOPIC_OR_PARTITION, |d| d.error_code);
        // Checksums are verified before the lock is taken.
        let checked = data
            .as_ref()
            .filter(|_| code == 0)
            .and_then(|d| d.records.as_ref());
        let checked = checked
            .filter(|bytes| !bytes.is_empty())
            .map(|bytes| (chunk::check(bytes, want.offset), bytes.len()));
        let shared = self.shared.clone();
        let mut s = shared.lock();
        let Some(part) = s.alive(want) else {
            return;
        };
        part.busy = false;
        match code {
            0 => {}
            codes::OFFSET_OUT_OF_RANGE => {
                // Later batches may wait unread: they go first, then this is met again.
                if part.aim == Aim::At(want.offset) {
                    part.aim = Aim::Reset(Some(want.offset));
                } else {
                    part.later();
                }
                return;
            }
            _ => {
                part.later();
                self.refresh |= is_retriable_code(code) && code != codes::CORRUPT_MESSAGE;
                let e = ClientError::from_code(code, format!("fetch of {}", want.tp));
                tracing::debug!(error = %e, "fetch is retried");
                s.trouble(e);
                return;
            }
        }
        match (data, checked) {
            (Some(data), Some((checked, len))) => self.keep(&mut s, want, data, checked, len),
            _ => part.backoff.reset(),
        }
    }

    /// Puts intact batches where the caller finds them.
    fn keep(&self, s: &mut State, want: &Want, data: PartitionData, checked: Checked, len: usize) {
        let halted = s.halted;
        let Some(part) = s.alive(want) else {
            return;
        };
        part.fetch_from = checked.next;
        let mut problem = checked.damage.map(|e| corrupt(&want.tp, checked.next, &e));
        if !checked.batches.is_empty() {
            part.fruitless = 0;
        } else {
            part.fruitless += 1;
            if part.fruitless >= FRUITLESS {
                let reason = format!(
                    "{len} bytes hold no whole batch; partition_max_bytes may be too small"
                );
                problem = problem.or(Some(corrupt(&want.tp, want.offset, &reason)));
            }
        }
        match problem {
            Some(e) => {
                part.later();
                s.trouble(e);
            }
            None => part.backoff.reset(),
        }
        if checked.batches.is_empty() || halted {
            return;
        }
        let end = if self.cfg.read_committed {
            data.last_stable_offset
        } else {
            data.high_watermark
        };
        let aborted = data.aborted_transactions.unwrap_or_default();
        let aborts = aborted
            .iter()
            .map(|a| (a.producer_id.0, a.first_offset))
            .collect();
        let chunk = Chunk::new(
            want.tp.clone(),
            want.life,
            end,
            checked.batches,
            Aborts::new(aborts),
        );
        s.buffered += chunk.size;
        s.chunks.push_back(chunk);
    }

    fn shared_trouble(&self, e: ClientError) {
        tracing::debug!(error = %e, "consumer keeps trying");
        self.shared.lock().trouble(e);
        self.shared.ready.notify_one();
    }
}

fn fetch_request(cfg: &GroupConfig, wants: &[Want], version: i16) -> FetchRequest {
    let bytes = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let mut topics: Vec<FetchTopic> = Vec::new();
    let offsets: HashMap<&TopicPartition, i64> = wants.iter().map(|w| (&w.tp, w.offset)).collect();
    let grouped = by_topic(wants.iter().map(|w| &w.tp));
    // In the order of their first partition, so that the turns are kept.
    for want in wants {
        if topics.iter().any(|t| t.topic.0.as_str() == &*want.tp.topic) {
            continue;
        }
        let partitions = grouped.get(&want.tp.topic).into_iter().flatten().map(|p| {
            let tp = TopicPartition {
                topic: want.tp.topic.clone(),
                partition: *p,
            };
            FetchPartition::default()
                .with_partition(*p)
                .with_current_leader_epoch(-1)
                .with_fetch_offset(offsets.get(&tp).copied().unwrap_or(0))
                .with_log_start_offset(-1)
                .with_partition_max_bytes(bytes(cfg.partition_max_bytes))
        });
        topics.push(
            FetchTopic::default()
                .with_topic(topic_name(&want.tp.topic))
                .with_partitions(partitions.collect()),
        );
    }
    let mut req = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(i32::try_from(cfg.fetch_max_wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(bytes(cfg.fetch_min_bytes))
        .with_max_bytes(bytes(cfg.fetch_max_bytes))
        .with_isolation_level(i8::from(cfg.read_committed))
        .with_topics(topics);
    if version >= 7 {
        req.session_epoch = -1;
    }
    req
}
