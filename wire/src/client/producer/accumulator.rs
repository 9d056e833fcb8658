//! Records waiting to be sent, in batches by partition, and the memory they may take. Knows no
//! sockets; filled by `send`, emptied by the sender.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::delivery::{Delivery, Outcome};
use super::{ProducerConfig, ProducerRecord, partitioner};
use crate::client::pool::random_u32;
use crate::client::{ClientError, Cluster, Result};
use crate::compress::Compression;
use crate::records::BatchBuilder;

/// Bytes a record takes in a batch beside key, value and headers, at most.
const RECORD_OVERHEAD: usize = 32;

pub(super) struct Accumulator {
    inner: Mutex<Inner>,
    memory: Semaphore,
    /// Senders waiting for memory: then nothing lingers.
    starved: AtomicUsize,
    /// Something to do for the sender.
    pub(super) work: Notify,
    /// A batch was resolved.
    resolved: Notify,
    compression: Compression,
    batch_bytes: usize,
    buffer_bytes: usize,
    linger: Duration,
}

pub(super) struct Inner {
    topics: HashMap<Arc<str>, Topic>,
    pub(super) parts: Vec<Part>,
    next_id: u64,
    unresolved: BTreeSet<u64>,
    /// Batches older than this do not linger.
    flush_below: u64,
    first_error: Option<ClientError>,
    pub(super) closing: bool,
    pub(super) abort: bool,
    /// Why no record can be sent any more.
    pub(super) dead: Option<ClientError>,
}

struct Topic {
    /// Place in `parts`, by number of the partition.
    parts: Vec<usize>,
    /// Partition that records without a key go to until its batch is full (KIP-480).
    sticky: usize,
}

/// One partition.
pub(super) struct Part {
    pub(super) topic: Arc<str>,
    pub(super) index: i32,
    pub(super) leader: i32,
    /// Oldest first; the last one is being filled.
    pub(super) open: VecDeque<Open>,
}

/// A batch that is not sealed yet.
pub(super) struct Open {
    pub(super) builder: BatchBuilder,
    pub(super) ticket: Ticket,
}

/// What is left of a batch once it is built: whom to tell, and what to give back.
pub(super) struct Ticket {
    pub(super) id: u64,
    pub(super) outcome: Arc<Outcome>,
    pub(super) created: Instant,
    pub(super) records: u32,
    reserved: usize,
}

impl Accumulator {
    pub(super) fn new(cfg: &ProducerConfig) -> Accumulator {
        let inner = Inner {
            topics: HashMap::new(),
            parts: Vec::new(),
            next_id: 0,
            unresolved: BTreeSet::new(),
            flush_below: 0,
            first_error: None,
            closing: false,
            abort: false,
            dead: None,
        };
        Accumulator {
            inner: Mutex::new(inner),
            memory: Semaphore::new(cfg.buffer_bytes.min(Semaphore::MAX_PERMITS)),
            starved: AtomicUsize::new(0),
            work: Notify::new(),
            resolved: Notify::new(),
            compression: cfg.compression,
            batch_bytes: cfg.batch_bytes,
            buffer_bytes: cfg.buffer_bytes,
            linger: cfg.linger,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is memory for a record; `give_back` or a batch's end returns it.
    pub(super) async fn reserve(&self, record: &ProducerRecord) -> Result<usize> {
        let size = size_of(record);
        let permits = match u32::try_from(size) {
            Ok(permits) if size <= self.buffer_bytes => permits,
            _ => {
                return Err(ClientError::invalid(format!(
                    "a record of {size} bytes does not fit into buffer_bytes ({}); raise it",
                    self.buffer_bytes
                )));
            }
        };
        if let Ok(permit) = self.memory.try_acquire_many(permits) {
            permit.forget();
            return Ok(size);
        }
        let _starved = Starved::new(self);
        self.work.notify_one();
        match self.memory.acquire_many(permits).await {
            Ok(permit) => permit.forget(),
            Err(_) => return Err(self.lock().dead.clone().unwrap_or(ClientError::Closed)),
        }
        Ok(size)
    }

    pub(super) fn give_back(&self, size: usize) {
        self.memory.add_permits(size);
    }

    /// Puts a record into its partition's batch. None if the topic is not known yet.
    pub(super) fn append(
        &self,
        topic: &str,
        record: &ProducerRecord,
        timestamp: i64,
        reserved: usize,
    ) -> Result<Option<Delivery>> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        if let Some(dead) = &inner.dead {
            return Err(dead.clone());
        }
        let Some(known) = inner.topics.get_mut(topic) else {
            return Ok(None);
        };
        let sticks = record.partition.is_none() && record.key.is_none();
        let mut chosen = known.choose(record)?;
        let mut place = known.parts.get(chosen).copied().unwrap_or_default();
        if sticks
            && inner
                .parts
                .get(place)
                .is_some_and(|p| p.leader < 0 || p.is_full(reserved, self.batch_bytes))
        {
            chosen = known.another(&inner.parts);
            place = known.parts.get(chosen).copied().unwrap_or_default();
        }
        let Some(part) = inner.parts.get_mut(place) else {
            return Ok(None);
        };
        if part
            .open
            .back()
            .is_none_or(|open| open.is_full(reserved, self.batch_bytes))
        {
            let id = inner.next_id;
            inner.next_id += 1;
            inner.unresolved.insert(id);
            let outcome = Outcome::new(part.topic.clone(), part.index);
            let ticket = Ticket {
                id,
                outcome,
                created: Instant::now(),
                records: 0,
                reserved: 0,
            };
            part.open.push_back(Open {
                builder: BatchBuilder::new(self.compression),
                ticket,
            });
            // The sender has a linger to wait for, or the batch before to send.
            self.work.notify_one();
        }
        let Some(open) = part.open.back_mut() else {
            return Ok(None);
        };
        open.builder.push(
            timestamp,
            record.key.as_deref(),
            record.value.as_deref(),
            &record.headers,
        );
        let delivery = open.ticket.outcome.delivery(open.ticket.records);
        open.ticket.records += 1;
        open.ticket.reserved += reserved;
        if open.builder.size_estimate() >= self.batch_bytes {
            self.work.notify_one();
        }
        Ok(Some(delivery))
    }

    /// Whether a partition's oldest batch should be sent, or else when.
    pub(super) fn ready(
        &self,
        inner: &Inner,
        part: &Part,
        now: Instant,
    ) -> Result<(), Option<Instant>> {
        let Some(front) = part.open.front() else {
            return Err(None);
        };
        let due = front.ticket.created + self.linger;
        let hurry = part.open.len() > 1
            || inner.closing
            || front.ticket.id < inner.flush_below
            || front.builder.size_estimate() >= self.batch_bytes
            || self.starved.load(Ordering::Relaxed) > 0;
        if hurry || due <= now {
            Ok(())
        } else {
            Err(Some(due))
        }
    }

    /// Takes over topics and leaders from metadata.
    pub(super) fn learn(&self, cluster: &Cluster) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        for meta in cluster.topics.values().filter(|t| !t.partitions.is_empty()) {
            let name: Arc<str> = match inner.topics.get_key_value(meta.name.as_str()) {
                Some((name, _)) => name.clone(),
                None => Arc::from(meta.name.as_str()),
            };
            let topic = inner.topics.entry(name.clone()).or_insert_with(|| Topic {
                parts: Vec::new(),
                sticky: 0,
            });
            // Partitions are numbered from 0 without a gap.
            while topic.parts.len() < meta.partitions.len() {
                topic.parts.push(inner.parts.len());
                let index = topic.parts.len() as i32 - 1;
                inner.parts.push(Part {
                    topic: name.clone(),
                    index,
                    leader: -1,
                    open: VecDeque::new(),
                });
            }
            for p in &meta.partitions {
                let place = usize::try_from(p.index)
                    .ok()
                    .and_then(|i| topic.parts.get(i));
                if let Some(part) = place.and_then(|i| inner.parts.get_mut(*i)) {
                    part.leader = p.leader;
                }
            }
        }
        drop(guard);
        self.work.notify_one();
    }

    pub(super) fn topics(&self) -> Vec<String> {
        self.lock().topics.keys().map(|t| t.to_string()).collect()
    }

    /// A batch's end: its records learn it, its memory is free again.
    pub(super) fn resolve(&self, ticket: &Ticket, result: Result<i64>) {
        {
            let mut inner = self.lock();
            inner.unresolved.remove(&ticket.id);
            if let (Err(e), None) = (&result, &inner.first_error) {
                inner.first_error = Some(e.clone());
            }
        }
        ticket.outcome.resolve(result);
        self.give_back(ticket.reserved);
        self.resolved.notify_waiters();
    }

    /// Everything there is now goes out without lingering; resolves once all of it has an end.
    pub(super) async fn flush(&self) -> Result<()> {
        let target = {
            let mut inner = self.lock();
            inner.flush_below = inner.next_id;
            inner.next_id
        };
        self.work.notify_one();
        loop {
            let resolved = self.resolved.notified();
            tokio::pin!(resolved);
            resolved.as_mut().enable();
            {
                let mut inner = self.lock();
                if inner
                    .unresolved
                    .first()
                    .is_none_or(|oldest| *oldest >= target)
                {
                    return inner.first_error.take().map_or(Ok(()), Err);
                }
            }
            resolved.await;
        }
    }

    /// Nothing is taken any more; everything open is handed out, to be failed.
    pub(super) fn shut(&self, why: ClientError) -> Vec<Open> {
        self.memory.close();
        let mut inner = self.lock();
        inner.dead.get_or_insert(why);
        inner
            .parts
            .iter_mut()
            .flat_map(|p| p.open.drain(..))
            .collect()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lock().unresolved.is_empty()
    }
}

impl Topic {
    fn choose(&self, record: &ProducerRecord) -> Result<usize> {
        let count = self.parts.len();
        match (record.partition, &record.key) {
            (Some(p), _) => usize::try_from(p)
                .ok()
                .filter(|p| *p < count)
                .ok_or_else(|| {
                    ClientError::invalid(format!(
                        "partition {p} does not exist: the topic has {count}"
                    ))
                }),
            (None, Some(key)) => Ok(partitioner::of_key(key, count)),
            (None, None) => Ok(self.sticky),
        }
    }

    /// Another partition for records without a key, with a leader if possible.
    fn another(&mut self, parts: &[Part]) -> usize {
        let led = |i: &usize| {
            self.parts
                .get(*i)
                .and_then(|p| parts.get(*p))
                .is_some_and(|p| p.leader >= 0)
        };
        let others = (0..self.parts.len()).filter(|i| *i != self.sticky);
        let candidates: Vec<usize> = others.filter(led).collect();
        if !candidates.is_empty() {
            self.sticky = candidates[random_u32() as usize % candidates.len()];
        }
        self.sticky
    }
}

impl Part {
    fn is_full(&self, more: usize, limit: usize) -> bool {
        self.open
            .back()
            .is_some_and(|open| open.is_full(more, limit))
    }
}

impl Open {
    fn is_full(&self, more: usize, limit: usize) -> bool {
        !self.builder.is_empty() && self.builder.size_estimate() + more > limit
    }
}

fn size_of(r: &ProducerRecord) -> usize {
    let part = |b: &Option<bytes::Bytes>| b.as_ref().map_or(0, |b| b.len());
    let headers = r.headers.iter().map(|h| h.key.len() + part(&h.value) + 10);
    RECORD_OVERHEAD + part(&r.key) + part(&r.value) + headers.sum::<usize>()
}

/// Counts a waiter for memory, also when its future is dropped.
struct Starved<'a>(&'a AtomicUsize);

impl<'a> Starved<'a> {
    fn new(accumulator: &'a Accumulator) -> Self {
        accumulator.starved.fetch_add(1, Ordering::Relaxed);
        Starved(&accumulator.starved)
    }
}

impl Drop for Starved<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
