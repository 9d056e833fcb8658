//! Load that goes on through the broker's deaths: idempotent producers with acks=all that note the fate of every record.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};
use rdkafka::{ClientContext, Message};
use tests::checker::{Fate, History};
use tests::wait;
use wire::client::producer::{Producer, ProducerConfig, ProducerRecord};

/// The histories of one producer, by partition, and how much of it was acknowledged.
#[derive(Default)]
pub struct Notes {
    histories: Mutex<Vec<History>>,
    acknowledged: AtomicU64,
    enough: AtomicBool,
}

impl Notes {
    fn new(partitions: usize) -> Arc<Notes> {
        let notes = Notes::default();
        *notes.lock() = vec![History::default(); partitions];
        Arc::new(notes)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<History>> {
        self.histories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a value is about to be sent; its place in the history.
    fn invoke(&self, partition: usize, value: u64) -> usize {
        let sent = &mut self.lock()[partition].sent;
        sent.push((value, Fate::Unknown));
        sent.len() - 1
    }

    fn settle(&self, partition: usize, place: usize, fate: Fate) {
        self.lock()[partition].sent[place].1 = fate;
        if matches!(fate, Fate::Acknowledged(_)) {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A producer at work in its own thread.
pub struct Load {
    notes: Arc<Notes>,
    thread: JoinHandle<()>,
}

impl Load {
    /// librdkafka's idempotent producer.
    pub fn rdkafka(bootstrap: &str, topic: &str, partitions: usize, first: u64) -> Load {
        let notes = Notes::new(partitions);
        let (mine, bootstrap, topic) = (notes.clone(), bootstrap.to_owned(), topic.to_owned());
        let thread =
            std::thread::spawn(move || run_rdkafka(&mine, &bootstrap, &topic, partitions, first));
        Load { notes, thread }
    }

    /// This workspace's own producer.
    pub fn own(bootstrap: &str, topic: &str, partitions: usize, first: u64) -> Load {
        let notes = Notes::new(partitions);
        let (mine, bootstrap, topic) = (notes.clone(), bootstrap.to_owned(), topic.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(run_own(mine, &bootstrap, &topic, partitions, first));
        });
        Load { notes, thread }
    }

    pub fn acknowledged(&self) -> u64 {
        self.notes.acknowledged.load(Ordering::Relaxed)
    }

    pub fn wait_for(&self, more: u64) {
        let wanted = self.acknowledged() + more;
        wait::until("acknowledgements", || self.acknowledged() >= wanted);
    }

    /// Stops sending, waits for what is on its way, and hands out the histories by partition.
    pub fn finish(self) -> Vec<History> {
        self.notes.enough.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load does not panic");
        self.notes.lock().clone()
    }
}

struct Deliveries(Arc<Notes>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<(usize, usize)>;

    fn delivery(&self, result: &DeliveryResult<'_>, place: Box<(usize, usize)>) {
        let fate = match result {
            Ok(message) => Fate::Acknowledged(message.offset()),
            Err(_) => Fate::Unknown,
        };
        self.0.settle(place.0, place.1, fate);
    }
}

fn run_rdkafka(notes: &Arc<Notes>, bootstrap: &str, topic: &str, partitions: usize, first: u64) {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .set("queue.buffering.max.messages", "500")
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "100")
        .set("retry.backoff.ms", "20")
        .set("retry.backoff.max.ms", "100")
        .set_log_level(RDKafkaLogLevel::Critical);
    let producer: ThreadedProducer<Deliveries> =
        ThreadedProducer::from_config_and_context(&config, Deliveries(notes.clone())).unwrap();
    let mut value = first;
    while !notes.enough.load(Ordering::Relaxed) {
        let partition = value as usize % partitions;
        let place = notes.invoke(partition, value);
        let payload = value.to_string();
        let mut record = BaseRecord::<(), str, Box<(usize, usize)>> {
            topic,
            partition: Some(partition as i32),
            payload: Some(&payload),
            key: None,
            timestamp: None,
            headers: None,
            delivery_opaque: Box::new((partition, place)),
        };
        while let Err((error, unsent)) = producer.send(record) {
            assert_eq!(
                error,
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull),
                "a fatal error"
            );
            std::thread::sleep(Duration::from_millis(1)); // until the queue has room again
            record = unsent;
        }
        value += 1;
    }
    producer
        .flush(wait::PATIENCE)
        .expect("everything is answered in the end");
}

async fn run_own(notes: Arc<Notes>, bootstrap: &str, topic: &str, partitions: usize, first: u64) {
    let mut client = wire::client::ClientConfig::new(bootstrap);
    client.retry_backoff = Duration::from_millis(20);
    client.retry_backoff_max = Duration::from_millis(100);
    let config = ProducerConfig {
        client,
        linger: Duration::from_millis(1),
        buffer_bytes: 256 << 10,
        ..ProducerConfig::default()
    };
    assert!(config.idempotent);
    let producer = Producer::new(config)
        .await
        .expect("the own producer starts");
    let (send, mut deliveries) = tokio::sync::mpsc::unbounded_channel();
    let settled = tokio::spawn({
        let notes = notes.clone();
        async move {
            while let Some((partition, place, delivery)) = deliveries.recv().await {
                let delivery: wire::client::producer::Delivery = delivery;
                let fate = delivery
                    .await
                    .map_or(Fate::Unknown, |meta| Fate::Acknowledged(meta.offset));
                notes.settle(partition, place, fate);
            }
        }
    });
    let mut value = first;
    while !notes.enough.load(Ordering::Relaxed) {
        let partition = value as usize % partitions;
        let place = notes.invoke(partition, value);
        let record = ProducerRecord {
            partition: Some(partition as i32),
            value: Some(Bytes::from(value.to_string())),
            ..ProducerRecord::default()
        };
        let delivery = producer
            .send(topic, record)
            .await
            .expect("a record is taken");
        send.send((partition, place, delivery))
            .expect("the receiver lives");
        value += 1;
    }
    producer
        .flush()
        .await
        .expect("everything is answered in the end");
    drop(send);
    settled.await.expect("deliveries are noted");
    producer.close().await.expect("the own producer ends");
}
