//! rdkafka (librdkafka) in this process.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{
    ClientConfig, FromClientConfig, FromClientConfigAndContext, RDKafkaLogLevel,
};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders, Timestamp};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use super::seen::Shared;
use crate::driver::{
    Committed, Consume, Consumed, Driver, Hex, Open, Outcome, Produce, Read, State,
};

const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

#[derive(Default)]
pub struct Rdkafka {
    bootstrap: String,
    members: HashMap<String, Member>,
}

fn text(e: impl std::fmt::Display) -> String {
    format!("rdkafka: {e}")
}

impl Rdkafka {
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set_log_level(RDKafkaLogLevel::Critical);
        config
    }

    fn consumer(&self, group: &str) -> Outcome<BaseConsumer> {
        let mut config = self.config();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error");
        BaseConsumer::from_config(&config).map_err(text)
    }

    /// Admin operations are futures only.
    fn admin<T>(
        &self,
        work: impl AsyncFnOnce(AdminClient<DefaultClientContext>) -> Outcome<T>,
    ) -> Outcome<T> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(text)?;
        let client = AdminClient::from_config(&self.config()).map_err(text)?;
        runtime.block_on(work(client))
    }
}

impl Driver for Rdkafka {
    fn connect(&mut self, bootstrap: &str) -> Outcome<()> {
        self.bootstrap = bootstrap.to_owned();
        Ok(())
    }

    fn create_topic(
        &mut self,
        topic: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Outcome<()> {
        self.admin(async |client| {
            let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
            for (name, value) in configs {
                new = new.set(name, value);
            }
            let made = client
                .create_topics([&new], &AdminOptions::new())
                .await
                .map_err(text)?;
            made.into_iter()
                .try_for_each(|r| r.map(drop).map_err(|(_, code)| text(code)))
        })
    }

    fn delete_topic(&mut self, topic: &str) -> Outcome<()> {
        self.admin(async |client| {
            let gone = client
                .delete_topics(&[topic], &AdminOptions::new())
                .await
                .map_err(text)?;
            gone.into_iter()
                .try_for_each(|r| r.map(drop).map_err(|(_, code)| text(code)))
        })
    }

    fn produce(&mut self, request: &Produce) -> Outcome<Vec<i64>> {
        let mut config = self.config();
        config
            .set("acks", request.acks)
            .set("compression.type", request.compression)
            .set("enable.idempotence", request.idempotent.to_string())
            .set("linger.ms", "20")
            .set("message.max.bytes", "2000000");
        let context = Deliveries::default();
        let results = context.0.clone();
        let producer = ThreadedProducer::from_config_and_context(&config, context).map_err(text)?;
        for (i, r) in request.records.iter().enumerate() {
            let mut headers = OwnedHeaders::new();
            for (key, value) in &r.headers {
                headers = headers.insert(Header {
                    key,
                    value: value.as_ref().map(|v| v.0.as_slice()),
                });
            }
            let record = BaseRecord::<[u8], [u8], Box<usize>> {
                topic: &request.topic,
                partition: r.partition,
                payload: r.value.as_ref().map(|v| v.0.as_slice()),
                key: r.key.as_ref().map(|v| v.0.as_slice()),
                timestamp: Some(r.timestamp),
                headers: Some(headers),
                delivery_opaque: Box::new(i),
            };
            producer.send(record).map_err(|(e, _)| text(e))?;
        }
        producer.flush(LIMIT).map_err(text)?;
        let results = results.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = |i| {
            results
                .get(&i)
                .cloned()
                .unwrap_or_else(|| Err("no delivery report".to_owned()))
        };
        let offsets: Vec<i64> = (0..request.records.len())
            .map(offset)
            .collect::<Outcome<_>>()?;
        Ok(if request.acks == "0" {
            vec![-1; offsets.len()]
        } else {
            offsets
        })
    }

    fn consume(&mut self, request: &Consume) -> Outcome<Consumed> {
        let consumer = self.consumer("unused")?;
        let mut assignment = TopicPartitionList::new();
        let mut starts = Vec::new();
        for from in &request.from {
            let watermarks = || {
                consumer
                    .fetch_watermarks(&request.topic, from.partition, LIMIT)
                    .map_err(text)
            };
            let start = match (from.offset, from.timestamp) {
                (Some(offset), _) => offset,
                (None, None) => watermarks()?.0,
                (None, Some(timestamp)) => {
                    let mut ask = TopicPartitionList::new();
                    ask.add_partition_offset(
                        &request.topic,
                        from.partition,
                        Offset::Offset(timestamp),
                    )
                    .map_err(text)?;
                    let found = consumer.offsets_for_times(ask, LIMIT).map_err(text)?;
                    match found.elements().first().map(|e| e.offset()) {
                        Some(Offset::Offset(offset)) => offset,
                        _ => watermarks()?.1,
                    }
                }
            };
            starts.push(start);
            assignment
                .add_partition_offset(&request.topic, from.partition, Offset::Offset(start))
                .map_err(text)?;
        }
        consumer.assign(&assignment).map_err(text)?;
        let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
        let mut records = Vec::new();
        while records.len() < request.count && Instant::now() < deadline {
            if let Some(message) = consumer.poll(POLL) {
                records.push(read(&message.map_err(text)?));
            }
        }
        Ok(Consumed { records, starts })
    }

    fn open(&mut self, request: &Open) -> Outcome<()> {
        let mut config = self.config();
        config
            .set("group.id", &request.group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "300")
            .set("partition.assignment.strategy", request.assignor);
        if let Some(instance) = &request.instance {
            config.set("group.instance.id", instance);
        }
        let context = Membership::default();
        let shared = context.0.clone();
        let consumer = BaseConsumer::from_config_and_context(&config, context).map_err(text)?;
        let topics: Vec<&str> = request.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(text)?;
        let (commands, inbox) = channel();
        let seen = shared.clone();
        std::thread::spawn(move || poll_loop(consumer, &seen, &inbox));
        self.members
            .insert(request.member.clone(), Member { shared, commands });
        Ok(())
    }

    fn state(&mut self, member: &str, seen: u64, wait_ms: u64) -> Outcome<State> {
        Ok(self
            .members
            .get(member)
            .ok_or("no such member")?
            .shared
            .state(seen, wait_ms))
    }

    fn commit(&mut self, member: &str, metadata: &str) -> Outcome<()> {
        self.members
            .get(member)
            .ok_or("no such member")?
            .ask(Command::Commit(metadata.to_owned()))
    }

    fn committed(
        &mut self,
        group: &str,
        topic: &str,
        partitions: &[i32],
    ) -> Outcome<Vec<Committed>> {
        let consumer = self.consumer(group)?;
        let mut ask = TopicPartitionList::new();
        for p in partitions {
            ask.add_partition(topic, *p);
        }
        let found = consumer.committed_offsets(ask, LIMIT).map_err(text)?;
        let entry = |e: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| Committed {
            partition: e.partition(),
            offset: e.offset().to_raw().filter(|o| *o >= 0),
            metadata: e.metadata().to_owned(),
        };
        Ok(found.elements().iter().map(entry).collect())
    }

    fn close(&mut self, member: &str) -> Outcome<()> {
        self.members
            .remove(member)
            .ok_or("no such member")?
            .ask(Command::Close)
    }
}

fn read<M: Message>(message: &M) -> Read {
    let hex = |bytes: Option<&[u8]>| bytes.map(|b| Hex(b.to_vec()));
    let (timestamp, append_time) = match message.timestamp() {
        Timestamp::CreateTime(t) => (t, false),
        Timestamp::LogAppendTime(t) => (t, true),
        Timestamp::NotAvailable => (-1, false),
    };
    let headers = message.headers().map(|all| {
        all.iter()
            .map(|h| (h.key.to_owned(), hex(h.value)))
            .collect()
    });
    Read {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp,
        append_time,
        key: hex(message.key()),
        value: hex(message.payload()),
        headers: headers.unwrap_or_default(),
    }
}

/// Delivery reports by the record's place in the request.
#[derive(Default)]
struct Deliveries(Arc<Mutex<HashMap<usize, Outcome<i64>>>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, record: Box<usize>) {
        let outcome = match result {
            Ok(message) => Ok(message.offset()),
            Err((e, _)) => Err(text(e)),
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(*record, outcome);
    }
}

enum Command {
    Commit(String),
    Close,
}

/// The harness's end of a group member; a thread of its own polls the consumer.
struct Member {
    shared: Arc<Shared>,
    commands: Sender<(Command, Sender<Outcome<()>>)>,
}

impl Member {
    fn ask(&self, command: Command) -> Outcome<()> {
        let (answer, outcome) = channel();
        self.commands
            .send((command, answer))
            .map_err(|_| "the member has ended".to_owned())?;
        outcome.recv_timeout(LIMIT).map_err(text)?
    }
}

#[derive(Default)]
struct Membership(Arc<Shared>);

impl ClientContext for Membership {}

impl ConsumerContext for Membership {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let pairs = |tpl: &TopicPartitionList| -> Vec<(String, i32)> {
            tpl.elements()
                .iter()
                .map(|e| (e.topic().to_owned(), e.partition()))
                .collect()
        };
        match rebalance {
            Rebalance::Assign(tpl) => self.0.assigned(pairs(tpl)),
            Rebalance::Revoke(tpl) => {
                let going = pairs(tpl);
                let failure = commit(consumer, &self.0, |tp| going.contains(tp), "").err();
                self.0.revoked(&going);
                if failure.is_some() {
                    self.0.change(|seen| seen.failure = failure);
                }
            }
            Rebalance::Error(e) => self.0.change(|seen| seen.failure = Some(text(e))),
        }
    }
}

fn commit<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    shared: &Shared,
    wanted: impl Fn(&(String, i32)) -> bool,
    metadata: &str,
) -> Outcome<()> {
    let mut offsets = TopicPartitionList::new();
    for (tp, position) in shared.lock().positions.iter().filter(|(tp, _)| wanted(tp)) {
        let mut entry = offsets.add_partition(&tp.0, tp.1);
        entry.set_offset(Offset::Offset(*position)).map_err(text)?;
        entry.set_metadata(metadata);
    }
    if offsets.count() == 0 {
        Ok(())
    } else {
        consumer.commit(&offsets, CommitMode::Sync).map_err(text)
    }
}

fn poll_loop(
    consumer: BaseConsumer<Membership>,
    shared: &Shared,
    inbox: &Receiver<(Command, Sender<Outcome<()>>)>,
) {
    loop {
        match inbox.try_recv() {
            Ok((Command::Commit(metadata), answer)) => {
                let _ = answer.send(commit(&consumer, shared, |_| true, &metadata));
            }
            Ok((Command::Close, answer)) => {
                // Closing hands the partitions back through the rebalance callback; a static member does not leave.
                drop(consumer);
                let _ = answer.send(Ok(()));
                return;
            }
            Err(_) => {}
        }
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => keep(shared, &message),
            // Errors other than fatal ones are for showing: librdkafka goes on by itself.
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                shared.change(|seen| seen.failure = Some(text(code)));
                return;
            }
            Some(Err(_)) => {}
        }
    }
}

fn keep(shared: &Shared, message: &BorrowedMessage<'_>) {
    let record = read(message);
    shared.keep(vec![record]);
}
