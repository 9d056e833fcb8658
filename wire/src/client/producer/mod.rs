//! An idempotent, batching, pipelined producer (KIP-98, KIP-360, KIP-480). `send` puts records into
//! batches (`accumulator`); one task (`sender`) sends them; `lane` keeps each partition's order and
//! sequence numbers.

mod accumulator;
mod delivery;
mod lane;
mod partitioner;
mod request;
mod sender;
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use accumulator::Accumulator;
use sender::Sender;

pub use delivery::Delivery;

use super::pool::Backoff;
use super::{Client, ClientConfig, ClientError, Result, codes};
use crate::compress::Compression;
use crate::records::Header;

/// How long a topic that the broker calls unknown may take to appear: it may be being created.
const UNKNOWN_TOPIC_PATIENCE: Duration = Duration::from_secs(15);

/// Whose word a record waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Acks {
    /// Nobody's: handed to the socket is enough.
    None,
    /// The leader's.
    Leader,
    /// All in-sync replicas'.
    #[default]
    All,
}

/// How to produce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerConfig {
    /// How to reach the cluster.
    pub client: ClientConfig,
    /// Whose word a record waits for; idempotence needs [`Acks::All`].
    pub acks: Acks,
    /// How batches are compressed.
    pub compression: Compression,
    /// Exactly one copy of each record in the log, in order, through retries.
    pub idempotent: bool,
    /// A batch is sent when it has this size (uncompressed).
    pub batch_bytes: usize,
    /// A batch is sent at the latest this long after its first record.
    pub linger: Duration,
    /// Memory for records that are not acknowledged; `send` waits when it is used up.
    pub buffer_bytes: usize,
    /// How long a record is tried before it fails.
    pub delivery_timeout: Duration,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        ProducerConfig {
            client: ClientConfig::default(),
            acks: Acks::All,
            compression: Compression::None,
            idempotent: true,
            batch_bytes: 64 << 10,
            linger: Duration::from_millis(5),
            buffer_bytes: 32 << 20,
            delivery_timeout: Duration::from_secs(120),
        }
    }
}

/// What to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerRecord {
    /// Partition, or None: by key, or any.
    pub partition: Option<i32>,
    /// Milliseconds since 1970, or None: now.
    pub timestamp: Option<i64>,
    /// Key.
    pub key: Option<Bytes>,
    /// Value; None is a tombstone.
    pub value: Option<Bytes>,
    /// Headers.
    pub headers: Vec<Header>,
}

/// Where a record went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMeta {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Offset, −1 where the broker does not tell (acks 0).
    pub offset: i64,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerStats {
    /// Records accepted by `send`.
    pub sent: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Records failed.
    pub failed: u64,
    /// Bytes of record batches handed to the broker, retries included.
    pub bytes: u64,
    /// Batches sent again.
    pub retries: u64,
    /// Connections made again after one was lost.
    pub reconnects: u64,
}

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
    retries: AtomicU64,
}

impl Counters {
    fn acknowledged(&self, records: u32) {
        self.acknowledged.fetch_add(u64::from(records), Relaxed);
    }

    fn failed(&self, records: u32) {
        self.failed.fetch_add(u64::from(records), Relaxed);
    }

    fn batch_sent(&self, bytes: usize, again: bool) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.retries.fetch_add(u64::from(again), Relaxed);
    }
}

/// The producer. Dropping it without [`Producer::close`] fails what is not acknowledged.
pub struct Producer {
    cfg: ProducerConfig,
    client: Client,
    accumulator: Arc<Accumulator>,
    counters: Arc<Counters>,
    task: Option<JoinHandle<()>>,
}

impl Producer {
    /// Connects; fails if no broker can be reached.
    pub async fn new(cfg: ProducerConfig) -> Result<Producer> {
        if cfg.idempotent && cfg.acks != Acks::All {
            return Err(ClientError::invalid(
                "an idempotent producer needs acks=all; ask for that, or switch idempotence off",
            ));
        }
        if cfg.batch_bytes == 0 || cfg.buffer_bytes < cfg.batch_bytes {
            return Err(ClientError::invalid(
                "batch_bytes must be above 0 and at most buffer_bytes",
            ));
        }
        let client = Client::connect(cfg.client.clone()).await?;
        let accumulator = Arc::new(Accumulator::new(&cfg));
        let counters = Arc::new(Counters::default());
        let sender = Sender::new(
            cfg.clone(),
            client.clone(),
            accumulator.clone(),
            counters.clone(),
        );
        let task = Some(tokio::spawn(sender.run()));
        Ok(Producer {
            cfg,
            client,
            accumulator,
            counters,
            task,
        })
    }

    /// Queues a record. Waits while the buffer is full or the topic is not known yet.
    pub async fn send(&self, topic: &str, record: ProducerRecord) -> Result<Delivery> {
        let reserved = self.accumulator.reserve(&record).await?;
        // Given back if the record does not make it into a batch, also when this future is dropped.
        let mut reservation = Reservation {
            accumulator: &self.accumulator,
            size: reserved,
        };
        let timestamp = record.timestamp.unwrap_or_else(now_ms);
        loop {
            if let Some(delivery) = self
                .accumulator
                .append(topic, &record, timestamp, reserved)?
            {
                reservation.size = 0;
                self.counters.sent.fetch_add(1, Relaxed);
                return Ok(delivery);
            }
            self.learn(topic).await?;
        }
    }

    /// Asks for a topic's partitions until they are there. A topic the broker keeps calling
    /// unknown is given up sooner than a broker that cannot be reached.
    async fn learn(&self, topic: &str) -> Result<()> {
        let started = Instant::now();
        let mut backoff = Backoff::new(&self.cfg.client);
        let topics = [topic.to_owned()];
        loop {
            let (error, limit) = match self.client.metadata_once(Some(&topics), true).await {
                Ok(cluster) => match cluster.topics.get(topic) {
                    Some(t) if t.error == 0 && !t.partitions.is_empty() => {
                        self.accumulator.learn(&cluster);
                        return Ok(());
                    }
                    found => {
                        let code = found.map_or(codes::UNKNOWN_TOPIC_OR_PARTITION, |t| t.error);
                        let context = format!("looking for topic '{topic}'");
                        (
                            ClientError::Broker { code, context },
                            UNKNOWN_TOPIC_PATIENCE.min(self.cfg.delivery_timeout),
                        )
                    }
                },
                Err(e) => (e, self.cfg.delivery_timeout),
            };
            let pause = backoff.next();
            if !error.is_retriable() || started.elapsed() + pause > limit {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends everything queued and waits until all of it is acknowledged or failed. Returns the
    /// first failure since the last flush.
    pub async fn flush(&self) -> Result<()> {
        self.accumulator.flush().await
    }

    /// Flushes, then stops. Returns the first failure since the last flush.
    pub async fn close(mut self) -> Result<()> {
        let result = self.accumulator.flush().await;
        self.accumulator.lock().closing = true;
        self.accumulator.work.notify_one();
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
        result
    }

    /// Counters since the start.
    pub fn stats(&self) -> ProducerStats {
        let c = &self.counters;
        ProducerStats {
            sent: c.sent.load(Relaxed),
            acknowledged: c.acknowledged.load(Relaxed),
            failed: c.failed.load(Relaxed),
            bytes: c.bytes.load(Relaxed),
            retries: c.retries.load(Relaxed),
            reconnects: self.client.reconnects(),
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.accumulator.lock().abort = true;
        self.accumulator.work.notify_one();
    }
}

struct Reservation<'a> {
    accumulator: &'a Accumulator,
    size: usize,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.size > 0 {
            self.accumulator.give_back(self.size);
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as i64)
}

#[cfg(test)]
mod tests;
