//! The workspace's own client, `wire::client`, which `producer` and `consumer` are built on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, GroupId, OffsetFetchRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use wire::client::group::{
    CommitOffset, Event, GroupConfig, GroupConsumer, OffsetReset, TopicPartition,
};
use wire::client::producer::{Acks, Producer, ProducerConfig, ProducerRecord};
use wire::client::{Client, ClientConfig};
use wire::records::Header;

use super::seen::Shared;
use crate::driver::{
    Committed, Consume, Consumed, Driver, From, Hex, Open, Outcome, Produce, Read, State,
};

const LIMIT: Duration = Duration::from_secs(60);
const MAX_BYTES: usize = 64 << 20;
/// The newest Fetch that names topics, so that the reader needs no topic ids.
const FETCH_VERSION: i16 = 12;

pub struct Own {
    runtime: Runtime,
    bootstrap: String,
    members: HashMap<String, Member>,
}

struct Member {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<(Command, oneshot::Sender<Outcome<()>>)>,
}

enum Command {
    Commit(String),
    Close,
}

fn text(e: impl std::fmt::Display) -> String {
    format!("own client: {e}")
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

fn refused(code: i16) -> Outcome<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(text(wire::client::error_name(code)))
    }
}

impl Own {
    pub fn new() -> Own {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        Own {
            runtime: runtime.expect("a runtime"),
            bootstrap: String::new(),
            members: HashMap::new(),
        }
    }

    async fn client(&self) -> Outcome<Client> {
        Client::connect(ClientConfig::new(&self.bootstrap))
            .await
            .map_err(text)
    }

    fn ask(&mut self, member: &str, command: Command) -> Outcome<()> {
        let member = self.members.get(member).ok_or("no such member")?;
        let (answer, outcome) = oneshot::channel();
        member
            .commands
            .send((command, answer))
            .map_err(|_| "the member has ended".to_owned())?;
        self.runtime
            .block_on(async { tokio::time::timeout(LIMIT, outcome).await })
            .map_err(text)?
            .map_err(text)?
    }

    async fn send_all(&self, request: &Produce) -> Outcome<Vec<i64>> {
        let config = ProducerConfig {
            client: ClientConfig::new(&self.bootstrap),
            acks: match request.acks {
                "0" => Acks::None,
                "1" => Acks::Leader,
                _ => Acks::All,
            },
            compression: request.compression.parse().map_err(text)?,
            idempotent: request.idempotent,
            linger: Duration::from_millis(20),
            ..ProducerConfig::default()
        };
        let producer = Producer::new(config).await.map_err(text)?;
        let mut deliveries = Vec::new();
        for r in &request.records {
            let bytes = |hex: &Option<Hex>| hex.as_ref().map(|h| Bytes::from(h.0.clone()));
            let header = |(key, value): &(String, Option<Hex>)| Header {
                key: key.clone().into(),
                value: bytes(value),
            };
            let record = ProducerRecord {
                partition: r.partition,
                timestamp: Some(r.timestamp),
                key: bytes(&r.key),
                value: bytes(&r.value),
                headers: r.headers.iter().map(header).collect(),
            };
            deliveries.push(producer.send(&request.topic, record).await.map_err(text)?);
        }
        producer.flush().await.map_err(text)?;
        let mut offsets = Vec::new();
        for delivery in deliveries {
            let offset = delivery.await.map_err(text)?.offset;
            offsets.push(if request.acks == "0" { -1 } else { offset });
        }
        producer.close().await.map_err(text)?;
        Ok(offsets)
    }

    async fn start_of(client: &Client, topic: &str, from: &From) -> Outcome<i64> {
        let offset = |timestamp| client.list_offset(topic, from.partition, timestamp);
        match (from.offset, from.timestamp) {
            (Some(given), _) => Ok(given),
            (None, None) => offset(-2).await.map_err(text),
            (None, Some(timestamp)) => match offset(timestamp).await.map_err(text)? {
                -1 => offset(-1).await.map_err(text),
                found => Ok(found),
            },
        }
    }

    async fn fetch(
        client: &Client,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Outcome<Vec<Read>> {
        let wanted = FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(1 << 20);
        let request = FetchRequest::default()
            .with_max_wait_ms(100)
            .with_min_bytes(1)
            .with_max_bytes(16 << 20)
            .with_topics(vec![
                FetchTopic::default()
                    .with_topic(name(topic))
                    .with_partitions(vec![wanted]),
            ]);
        let answer = client
            .request_with(None, FETCH_VERSION, |_| request)
            .await
            .map_err(text)?;
        refused(answer.error_code)?;
        let mut read = Vec::new();
        for data in answer.responses.into_iter().flat_map(|t| t.partitions) {
            refused(data.error_code)?;
            for batch in wire::batch::split(&data.records.unwrap_or_default()) {
                let (header, bytes) = batch.map_err(text)?;
                wire::batch::validate_stored(&bytes).map_err(text)?;
                let records = wire::records::decode(&bytes, MAX_BYTES).map_err(text)?;
                let append_time = header.is_log_append_time();
                read.extend(
                    records
                        .into_iter()
                        .map(|r| as_read(topic, partition, append_time, r)),
                );
            }
        }
        // The batch that holds `offset` comes whole.
        read.retain(|r| r.offset >= offset);
        Ok(read)
    }
}

fn as_read(topic: &str, partition: i32, append_time: bool, r: wire::records::Record) -> Read {
    let hex = |bytes: Option<Bytes>| bytes.map(|b| Hex(b.to_vec()));
    let header = |h: Header| (String::from_utf8_lossy(&h.key).into_owned(), hex(h.value));
    Read {
        topic: topic.to_owned(),
        partition,
        offset: r.offset,
        timestamp: r.timestamp,
        append_time,
        key: hex(r.key),
        value: hex(r.value),
        headers: r.headers.into_iter().map(header).collect(),
    }
}

impl Driver for Own {
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
        let config = |(key, value): &(&str, &str)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_string((*key).to_owned()))
                .with_value(Some(StrBytes::from_string((*value).to_owned())))
        };
        let new = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.iter().map(config).collect());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![new])
            .with_timeout_ms(30_000);
        self.runtime.block_on(async {
            let answer = self
                .client()
                .await?
                .request_any(request)
                .await
                .map_err(text)?;
            answer.topics.iter().try_for_each(|t| refused(t.error_code))
        })
    }

    fn delete_topic(&mut self, topic: &str) -> Outcome<()> {
        // Up to version 5 topics are deleted by name in a list of their own.
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![name(topic)])
            .with_timeout_ms(30_000);
        self.runtime.block_on(async {
            let client = self.client().await?;
            let answer = client
                .request_with(None, 5, |_| request)
                .await
                .map_err(text)?;
            answer
                .responses
                .iter()
                .try_for_each(|t| refused(t.error_code))
        })
    }

    fn produce(&mut self, request: &Produce) -> Outcome<Vec<i64>> {
        self.runtime.block_on(self.send_all(request))
    }

    fn consume(&mut self, request: &Consume) -> Outcome<Consumed> {
        self.runtime.block_on(async {
            let client = self.client().await?;
            let mut positions = Vec::new();
            for from in &request.from {
                positions.push((
                    from.partition,
                    Own::start_of(&client, &request.topic, from).await?,
                ));
            }
            let starts = positions.iter().map(|(_, offset)| *offset).collect();
            let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
            let mut records = Vec::new();
            while records.len() < request.count && Instant::now() < deadline {
                for (partition, position) in &mut positions {
                    let read = Own::fetch(&client, &request.topic, *partition, *position).await?;
                    *position = read.last().map_or(*position, |r| r.offset + 1);
                    records.extend(read);
                }
            }
            records.truncate(request.count);
            Ok(Consumed { records, starts })
        })
    }

    fn open(&mut self, request: &Open) -> Outcome<()> {
        let config = GroupConfig {
            client: ClientConfig::new(&self.bootstrap),
            group_id: request.group.clone(),
            instance_id: request.instance.clone(),
            topics: request.topics.clone(),
            session_timeout: Duration::from_secs(6),
            auto_offset_reset: OffsetReset::Earliest,
            fetch_max_wait: Duration::from_millis(100),
            ..GroupConfig::default()
        };
        let shared = Arc::new(Shared::default());
        let (commands, inbox) = mpsc::unbounded_channel();
        let seen = shared.clone();
        self.runtime.spawn(async move {
            let failure = match GroupConsumer::new(config).await {
                Ok(consumer) => poll_loop(consumer, &seen, inbox).await.err(),
                Err(e) => Some(text(e)),
            };
            seen.change(|seen| seen.failure = failure);
        });
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
        self.ask(member, Command::Commit(metadata.to_owned()))
    }

    fn committed(
        &mut self,
        group: &str,
        topic: &str,
        partitions: &[i32],
    ) -> Outcome<Vec<Committed>> {
        let wanted = OffsetFetchRequestTopic::default()
            .with_name(name(topic))
            .with_partition_indexes(partitions.to_vec());
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
            .with_topics(Some(vec![wanted]));
        self.runtime.block_on(async {
            let client = self.client().await?;
            let coordinator = client.coordinator(group).await.map_err(text)?;
            let answer = client.request_with(Some(coordinator), 7, |_| request).await.map_err(text)?;
            refused(answer.error_code)?;
            let found = answer.topics.into_iter().flat_map(|t| t.partitions);
            let entry = |p: kafka_protocol::messages::offset_fetch_response::OffsetFetchResponsePartition| Committed {
                partition: p.partition_index,
                offset: Some(p.committed_offset).filter(|o| *o >= 0),
                metadata: p.metadata.map(|m| m.to_string()).unwrap_or_default(),
            };
            Ok(found.map(entry).collect())
        })
    }

    fn close(&mut self, member: &str) -> Outcome<()> {
        let outcome = self.ask(member, Command::Close);
        self.members.remove(member);
        outcome
    }
}

async fn poll_loop(
    mut consumer: GroupConsumer,
    shared: &Shared,
    mut inbox: mpsc::UnboundedReceiver<(Command, oneshot::Sender<Outcome<()>>)>,
) -> Outcome<()> {
    let pairs = |tps: &[TopicPartition]| -> Vec<(String, i32)> {
        tps.iter()
            .map(|tp| (tp.topic.to_string(), tp.partition))
            .collect()
    };
    loop {
        match inbox.try_recv() {
            Ok((Command::Commit(metadata), answer)) => {
                let _ = answer.send(commit(&mut consumer, shared, |_| true, &metadata).await);
            }
            Ok((Command::Close, answer)) => {
                let committed = commit(&mut consumer, shared, |_| true, "").await;
                let closed = consumer.close().await.map_err(text);
                let _ = answer.send(committed.and(closed));
                return Ok(());
            }
            Err(_) => {}
        }
        match consumer
            .poll(Duration::from_millis(50))
            .await
            .map_err(text)?
        {
            Some(Event::Assigned(tps)) => shared.assigned(pairs(&tps)),
            Some(Event::Revoked(tps)) => {
                let going = pairs(&tps);
                commit(&mut consumer, shared, |tp| going.contains(tp), "").await?;
                shared.revoked(&going);
            }
            Some(Event::Lost(tps)) => shared.lost(&pairs(&tps)),
            Some(Event::Records { tp, records, .. }) => {
                // The event does not say whose clock a timestamp is.
                shared.keep(
                    records
                        .into_iter()
                        .map(|r| as_read(&tp.topic, tp.partition, false, r))
                        .collect(),
                );
            }
            Some(Event::Error(_)) | None => {}
        }
    }
}

async fn commit(
    consumer: &mut GroupConsumer,
    shared: &Shared,
    wanted: impl Fn(&(String, i32)) -> bool,
    metadata: &str,
) -> Outcome<()> {
    let entry = |(tp, offset): (&(String, i32), &i64)| {
        let offset = CommitOffset {
            metadata: metadata.to_owned(),
            ..CommitOffset::at(*offset)
        };
        (TopicPartition::new(tp.0.as_str(), tp.1), offset)
    };
    let offsets: Vec<_> = shared
        .lock()
        .positions
        .iter()
        .filter(|(tp, _)| wanted(tp))
        .map(entry)
        .collect();
    if offsets.is_empty() {
        Ok(())
    } else {
        consumer.commit(&offsets).await.map_err(text)
    }
}
