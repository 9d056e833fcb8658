//! The producer's task: decides which batches go to which broker now, sends them, and acts upon
//! the answers. At most five requests are in flight to a broker; nothing here blocks on one broker
//! while another could be served.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::FuturesUnordered;
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use tokio::time::Instant;

use super::accumulator::{Accumulator, Inner, Open, Part};
use super::lane::{Identity, Lane, Verdict};
use super::request::{self, Slice};
use super::{Acks, Counters, ProducerConfig};
use crate::client::connection::Connection;
use crate::client::pool::{self, Backoff};
use crate::client::{Client, ClientError, Cluster, Result, codes, is_retriable_code};

/// Requests in flight to one broker, and batches of one partition without an end: as many as the
/// broker remembers to recognise a repeated one.
const MAX_IN_FLIGHT: usize = 5;
/// Record bytes in one request, unless a single batch is larger.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Metadata is asked for again after this long even if nothing is wrong.
const METADATA_MAX_AGE: Duration = Duration::from_secs(300);

pub(super) struct Sender {
    pub(super) cfg: ProducerConfig,
    pub(super) client: Client,
    pub(super) accumulator: Arc<Accumulator>,
    pub(super) counters: Arc<Counters>,
    pub(super) lanes: Vec<Lane>,
    pub(super) nodes: HashMap<i32, Node>,
    pub(super) events: FuturesUnordered<BoxFuture<'static, Event>>,
    pub(super) identity: Option<Identity>,
    pub(super) asking_identity: bool,
    /// Not before this moment, if metadata is wanted.
    pub(super) refresh: Refresh,
    pub(super) backoff: Backoff,
    /// Where the round over partitions starts, so that none starves.
    pub(super) turn: usize,
    pub(super) last_error: Option<ClientError>,
}

#[derive(Default)]
pub(super) struct Node {
    pub(super) conn: Option<Arc<Connection>>,
    pub(super) connecting: bool,
    pub(super) in_flight: usize,
}

pub(super) struct Refresh {
    pub(super) asking: bool,
    pub(super) wanted: bool,
    pub(super) not_before: Instant,
    pub(super) last: Instant,
}

/// What a partition has to send: bytes of a batch sealed before, or of a fresh one.
enum Pick {
    None,
    Again(usize),
    Fresh(usize),
}

pub(super) enum Event {
    Connected {
        node: i32,
        result: Result<Arc<Connection>>,
    },
    Answered {
        node: i32,
        conn: Arc<Connection>,
        slices: Vec<Slice>,
        result: Result<Option<ProduceResponse>>,
    },
    Metadata(Result<Cluster>),
    Identity(Result<Identity>),
}

impl Sender {
    pub(super) fn new(
        cfg: ProducerConfig,
        client: Client,
        accumulator: Arc<Accumulator>,
        counters: Arc<Counters>,
    ) -> Sender {
        let now = Instant::now();
        let backoff = Backoff::new(&cfg.client);
        Sender {
            cfg,
            client,
            accumulator,
            counters,
            lanes: Vec::new(),
            nodes: HashMap::new(),
            events: FuturesUnordered::new(),
            identity: None,
            asking_identity: false,
            refresh: Refresh {
                asking: false,
                wanted: false,
                not_before: now,
                last: now,
            },
            backoff,
            turn: 0,
            last_error: None,
        }
    }

    pub(super) async fn run(mut self) {
        let accumulator = self.accumulator.clone();
        loop {
            let wake = self.step().await;
            {
                let inner = accumulator.lock();
                let done = inner.abort || inner.dead.is_some();
                let closing = inner.closing;
                drop(inner);
                if done || (closing && accumulator.is_idle()) {
                    break;
                }
            }
            tokio::select! {
                biased;
                Some(event) = self.events.next(), if !self.events.is_empty() => self.on_event(event),
                () = accumulator.work.notified() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
            while let Some(Some(event)) = self.events.next().now_or_never() {
                self.on_event(event);
            }
        }
        self.stop();
    }

    /// Whatever is left has failed.
    fn stop(&mut self) {
        let why = self
            .accumulator
            .lock()
            .dead
            .clone()
            .unwrap_or(ClientError::Closed);
        let open = self.accumulator.shut(why.clone());
        let sealed = self
            .lanes
            .iter_mut()
            .flat_map(Lane::drain)
            .map(|b| b.ticket);
        for ticket in open
            .into_iter()
            .map(|o| o.ticket)
            .chain(sealed.collect::<Vec<_>>())
        {
            self.counters.failed(ticket.records);
            self.accumulator.resolve(&ticket, Err(why.clone()));
        }
    }

    /// Sends what can be sent; tells when to look again.
    async fn step(&mut self) -> Instant {
        let now = Instant::now();
        self.expire(now);
        self.renew();
        let mut wake;
        loop {
            let (work, wanted, next) = self.collect(now);
            wake = next;
            for node in wanted {
                self.connect(node);
            }
            if work.is_empty() {
                break;
            }
            for (node, picked) in work {
                self.dispatch(node, picked).await;
            }
        }
        if now >= self.refresh.last + METADATA_MAX_AGE {
            self.refresh.wanted = true;
        }
        if self.refresh.wanted && !self.refresh.asking {
            if now >= self.refresh.not_before {
                self.ask_metadata();
            } else {
                wake = wake.min(self.refresh.not_before);
            }
        }
        wake.min(self.refresh.last + METADATA_MAX_AGE)
    }

    /// One request's worth of batches for each broker that can take one; the brokers to connect
    /// to; and when to look again.
    #[allow(clippy::type_complexity)]
    fn collect(&mut self, now: Instant) -> (HashMap<i32, Vec<usize>>, Vec<i32>, Instant) {
        let mut wake = now + METADATA_MAX_AGE;
        let mut work: HashMap<i32, (usize, Vec<usize>)> = HashMap::new();
        let mut connect = Vec::new();
        let mut sealed: Vec<(usize, Open)> = Vec::new();
        let needs_identity = self.cfg.idempotent && self.identity.is_none();
        let mut ask_identity = false;
        {
            let mut inner = self.accumulator.lock();
            let count = inner.parts.len();
            self.lanes.resize_with(count, Lane::default);
            self.turn = (self.turn + 1) % count.max(1);
            for i in (0..count).map(|i| (i + self.turn) % count) {
                let (part, lane) = (&inner.parts[i], &self.lanes[i]);
                let (pick, look) = self.pick(&inner, part, lane, now);
                wake = look.map_or(wake, |t| wake.min(t));
                let (size, fresh) = match pick {
                    Pick::None => continue,
                    Pick::Again(size) => (size, false),
                    Pick::Fresh(size) => (size, true),
                };
                if fresh && needs_identity {
                    ask_identity = true;
                    continue;
                }
                if part.leader < 0 {
                    self.refresh.wanted = true;
                    continue;
                }
                let node = self.nodes.entry(part.leader).or_default();
                if !node.conn.as_ref().is_some_and(|c| c.is_alive()) {
                    connect.push(part.leader);
                    continue;
                }
                let (bytes, picked) = work.entry(part.leader).or_default();
                let full = !picked.is_empty() && *bytes + size > MAX_REQUEST_BYTES;
                if full || node.in_flight >= MAX_IN_FLIGHT {
                    continue;
                }
                *bytes += size;
                picked.push(i);
                if fresh {
                    sealed.extend(inner.parts[i].open.pop_front().map(|open| (i, open)));
                }
            }
        }
        if ask_identity {
            self.ask_identity();
        }
        // Compression and CRC, outside of the lock that `send` needs.
        for (i, open) in sealed {
            self.lanes[i].seal(open, self.identity);
        }
        work.retain(|_, (_, picked)| !picked.is_empty());
        (
            work.into_iter()
                .map(|(node, (_, picked))| (node, picked))
                .collect(),
            connect,
            wake,
        )
    }

    /// What of a partition could be sent now, and when to look again.
    fn pick(
        &self,
        inner: &Inner,
        part: &Part,
        lane: &Lane,
        now: Instant,
    ) -> (Pick, Option<Instant>) {
        let oldest = lane
            .oldest_waiting()
            .or_else(|| part.open.front().map(|o| o.ticket.created));
        let Some(expires) = oldest.map(|created| created + self.cfg.delivery_timeout) else {
            return (Pick::None, None);
        };
        if let Some(batch) = lane.next(now) {
            return (Pick::Again(batch.bytes.len()), Some(expires));
        }
        if let Some(pause) = lane.not_before.filter(|t| *t > now) {
            return (Pick::None, Some(pause.min(expires)));
        }
        if !lane.can_seal(self.max_in_flight()) {
            return (Pick::None, Some(expires));
        }
        match self.accumulator.ready(inner, part, now) {
            Ok(()) => {
                let size = part.open.front().map_or(0, |o| o.builder.size_estimate());
                (Pick::Fresh(size), Some(expires))
            }
            Err(due) => (
                Pick::None,
                Some(due.map_or(expires, |due| due.min(expires))),
            ),
        }
    }

    fn max_in_flight(&self) -> usize {
        // Without sequences only one at a time keeps the order when one has to be sent again.
        if self.cfg.idempotent || self.cfg.acks == Acks::None {
            MAX_IN_FLIGHT
        } else {
            1
        }
    }

    async fn dispatch(&mut self, node_id: i32, picked: Vec<usize>) {
        let now = Instant::now();
        let Some(conn) = self.nodes.get(&node_id).and_then(|n| n.conn.clone()) else {
            return;
        };
        let mut slices = Vec::with_capacity(picked.len());
        {
            let inner = self.accumulator.lock();
            for i in picked {
                let (Some(part), Some(batch)) = (inner.parts.get(i), self.lanes[i].next(now))
                else {
                    continue;
                };
                self.counters
                    .batch_sent(batch.bytes.len(), batch.attempts > 0);
                slices.push(Slice {
                    part: i,
                    batch: batch.ticket.id,
                    topic: part.topic.clone(),
                    partition: part.index,
                    bytes: batch.bytes.clone(),
                });
            }
        }
        for s in &slices {
            self.lanes[s.part].sent(s.batch);
        }
        let limit = self.cfg.client.request_timeout;
        let answered = self.cfg.acks != Acks::None;
        let started = match conn.version::<ProduceRequest>(request::MAX_VERSION) {
            Ok(version) => {
                let body = request::produce(&mut slices, self.cfg.acks, limit);
                if answered {
                    conn.start(&body, version).await
                } else {
                    conn.start_unanswered(&body, version).await
                }
            }
            Err(e) => Err(e),
        };
        let node = self.nodes.entry(node_id).or_default();
        node.in_flight += 1;
        let event = async move {
            let result = match started {
                Ok(call) if answered => call.wait(limit).await.map(Some),
                Ok(call) => call.written(limit).await.map(|()| None),
                Err(e) => Err(e),
            };
            Event::Answered {
                node: node_id,
                conn,
                slices,
                result,
            }
        };
        self.events.push(event.boxed());
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Connected { node, result } => {
                let entry = self.nodes.entry(node).or_default();
                entry.connecting = false;
                match result {
                    Ok(conn) => entry.conn = Some(conn),
                    Err(e) => self.trouble(e),
                }
            }
            Event::Answered {
                node,
                conn,
                slices,
                result,
            } => self.on_answer(node, &conn, slices, result),
            Event::Metadata(result) => {
                self.refresh.asking = false;
                match result {
                    Ok(cluster) => {
                        self.refresh.wanted = false;
                        self.refresh.last = Instant::now();
                        self.backoff.reset();
                        self.accumulator.learn(&cluster);
                    }
                    Err(e) => self.trouble(e),
                }
                self.refresh.not_before = Instant::now() + self.backoff.next();
            }
            Event::Identity(result) => {
                self.asking_identity = false;
                match result {
                    Ok(me) => self.identity = Some(me),
                    Err(e) if e.is_retriable() => self.trouble(e),
                    Err(e) => {
                        self.accumulator.lock().dead.get_or_insert(e);
                    }
                }
            }
        }
    }

    /// Something that keeps us from the broker; the broker may have moved.
    fn trouble(&mut self, error: ClientError) {
        tracing::debug!(%error, "producer keeps trying");
        self.last_error = Some(error);
        self.refresh.wanted = true;
    }

    fn on_answer(
        &mut self,
        node: i32,
        conn: &Arc<Connection>,
        slices: Vec<Slice>,
        result: Result<Option<ProduceResponse>>,
    ) {
        let entry = self.nodes.entry(node).or_default();
        entry.in_flight = entry.in_flight.saturating_sub(1);
        match result {
            Ok(Some(answer)) => {
                let mut answers = request::by_partition(answer);
                for s in slices {
                    match answers.remove(&(s.topic.clone(), s.partition)) {
                        Some(answer) => self.on_partition(&s, &answer),
                        None => {
                            let context = format!(
                                "produce to {}-{}: no word of it in the answer",
                                s.topic, s.partition
                            );
                            self.again(&s, true, ClientError::Broker { code: -1, context });
                        }
                    }
                }
            }
            Ok(None) => {
                for s in slices {
                    self.acknowledged(&s, -1);
                }
            }
            Err(e) => {
                if entry.conn.as_ref().is_some_and(|c| Arc::ptr_eq(c, conn)) && !conn.is_alive() {
                    entry.conn = None;
                }
                let passes = matches!(
                    e,
                    ClientError::Connection { .. }
                        | ClientError::Timeout { .. }
                        | ClientError::Protocol { .. }
                );
                if passes {
                    self.trouble(e.clone());
                }
                for s in slices {
                    if passes {
                        self.again(&s, true, e.clone())
                    } else {
                        self.failed(&s, e.clone())
                    }
                }
            }
        }
    }

    fn on_partition(&mut self, s: &Slice, answer: &PartitionProduceResponse) {
        let code = answer.error_code;
        let error = || {
            let more = answer.error_message.as_ref().map_or("", |m| m.as_str());
            let context = format!("produce to {}-{} {more}", s.topic, s.partition);
            ClientError::from_code(code, context.trim_end())
        };
        match code {
            0 | codes::DUPLICATE_SEQUENCE_NUMBER => self.acknowledged(s, answer.base_offset),
            codes::OUT_OF_ORDER_SEQUENCE_NUMBER
            | codes::UNKNOWN_PRODUCER_ID
            | codes::INVALID_PRODUCER_EPOCH
                if self.cfg.idempotent =>
            {
                let lane = &mut self.lanes[s.part];
                let again = Instant::now() + self.cfg.client.retry_backoff;
                if lane.refused(s.batch, code, error(), again) == Verdict::Failed {
                    tracing::warn!(topic = %s.topic, partition = s.partition, "the broker no longer knows what it acknowledged");
                    self.failed(s, error());
                }
            }
            _ if is_retriable_code(code) => {
                self.refresh.wanted = true;
                // Only these two leave it open whether the batch was appended.
                let in_doubt = matches!(
                    code,
                    codes::REQUEST_TIMED_OUT | codes::NOT_ENOUGH_REPLICAS_AFTER_APPEND
                );
                self.again(s, in_doubt, error());
            }
            _ => self.failed(s, error()),
        }
    }

    fn acknowledged(&mut self, s: &Slice, base_offset: i64) {
        if let Some(batch) = self.lanes[s.part].take(s.batch, false) {
            self.counters.acknowledged(batch.ticket.records);
            self.accumulator.resolve(&batch.ticket, Ok(base_offset));
        }
    }

    fn failed(&mut self, s: &Slice, mut error: ClientError) {
        if let Some(batch) = self.lanes[s.part].take(s.batch, true) {
            if let (true, ClientError::Broker { context, .. }) = (batch.in_doubt, &mut error) {
                context.push_str(" (tried before without an answer, so the records may be stored)");
            }
            self.counters.failed(batch.ticket.records);
            self.accumulator.resolve(&batch.ticket, Err(error));
        }
    }

    fn again(&mut self, s: &Slice, in_doubt: bool, error: ClientError) {
        let attempts = self.lanes[s.part].attempts(s.batch).min(10);
        let base = self
            .cfg
            .client
            .retry_backoff
            .saturating_mul(1 << attempts.saturating_sub(1));
        let pause = base.min(self.cfg.client.retry_backoff_max);
        let jitter = pause.mul_f64(0.2 * f64::from(pool::random_u32()) / f64::from(u32::MAX));
        self.lanes[s.part].back(s.batch, in_doubt, error, Instant::now() + pause + jitter);
    }
}
