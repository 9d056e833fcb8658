//! Fetch 4–18. Waits for min_bytes or max_wait without polling; sessions from v7 (KIP-227), topic
//! ids from v13 (KIP-516), leader epochs from v9 (KIP-320). The first batch is returned even when
//! it is larger than the limits (KIP-74), and a batch that contains the offset is returned whole.
//! Followers, rack-aware replicas and diverging epochs do not exist on one node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;
use uuid::Uuid;

use super::fetch_response::{Head, PartitionData, TopicData, encode};
use super::support::check_leader_epoch;
use super::{Answer, Call, error_code};
use crate::fetch_session::{Asked, Context, Key, News, TopicKey, Want};
use crate::topics::{Partition, Waiter};

pub async fn handle(call: Call, request: FetchRequest) -> Answer {
    let (wants, forgotten) = (wants(&call, &request), forgotten(&call, &request));
    let asked = Asked {
        session_id: request.session_id,
        session_epoch: request.session_epoch,
        by_id: call.version >= 13,
        now_ms: call.node.now_ms(),
    };
    let context = match call.node.fetch_sessions().begin(asked, wants, &forgotten) {
        Ok(context) => context,
        Err(error) => return refuse(&call, error_code::of_session(error)),
    };
    let targets: Vec<Target> = context.wants.iter().map(|w| target(&call, w)).collect();
    let limits = Limits {
        min_bytes: request.min_bytes.max(0) as usize,
        max_bytes: (request.max_bytes.max(0) as usize)
            .min(call.node.config().fetch_max_bytes.max(0) as usize),
    };
    let found = wait_for_data(&call, &context, &targets, limits, request.max_wait_ms).await;
    answer(&call, &request, &context, found)
}

#[derive(Clone, Copy)]
struct Limits {
    min_bytes: usize,
    max_bytes: usize,
}

/// A partition that is asked for, or why it cannot be.
type Target = Result<Arc<Partition>, ResponseError>;

fn topic_key(call: &Call, name: &StrBytes, id: Uuid) -> TopicKey {
    if call.version >= 13 {
        TopicKey::Id(id)
    } else {
        TopicKey::Name(name.to_string())
    }
}

fn wants(call: &Call, request: &FetchRequest) -> Vec<Want> {
    let mut all = Vec::new();
    for topic in &request.topics {
        let key = topic_key(call, &topic.topic.0, topic.topic_id);
        all.extend(topic.partitions.iter().map(|p| Want {
            key: Key {
                topic: key.clone(),
                partition: p.partition,
            },
            fetch_offset: p.fetch_offset,
            max_bytes: p.partition_max_bytes,
            leader_epoch: p.current_leader_epoch,
        }));
    }
    all
}

fn forgotten(call: &Call, request: &FetchRequest) -> Vec<Key> {
    let mut all = Vec::new();
    for topic in &request.forgotten_topics_data {
        let key = topic_key(call, &topic.topic.0, topic.topic_id);
        all.extend(topic.partitions.iter().map(|&p| Key {
            topic: key.clone(),
            partition: p,
        }));
    }
    all
}

fn target(call: &Call, want: &Want) -> Target {
    let (topic, missing) = match &want.key.topic {
        TopicKey::Name(name) => (
            call.node.topics().by_name(name),
            ResponseError::UnknownTopicOrPartition,
        ),
        TopicKey::Id(id) => (call.node.topics().by_id(*id), ResponseError::UnknownTopicId),
    };
    let topic = topic.ok_or(missing)?;
    let partition = topic
        .partition(want.key.partition)
        .cloned()
        .ok_or(ResponseError::UnknownTopicOrPartition)?;
    check_leader_epoch(&partition, want.leader_epoch)?;
    Ok(partition)
}

/// Looks, and looks again whenever a partition grows, until there is enough or time is up.
async fn wait_for_data(
    call: &Call,
    context: &Context,
    targets: &[Target],
    limits: Limits,
    max_wait_ms: i32,
) -> Vec<PartitionData> {
    let first = look(context, targets, limits);
    if first.complete || max_wait_ms <= 0 || targets.is_empty() {
        return first.partitions;
    }
    let registered = Registered::new(targets);
    let deadline = Instant::now() + Duration::from_millis(max_wait_ms as u64);
    loop {
        // Looked again after registering: nothing that came in between is missed.
        let found = look(context, targets, limits);
        if found.complete {
            return found.partitions;
        }
        tokio::select! {
            _ = registered.waiter.woken() => {}
            _ = tokio::time::sleep_until(deadline) => return look(context, targets, limits).partitions,
            _ = call.node.stopping() => return found.partitions,
        }
    }
}

/// Keeps a waiter in the lists of its partitions for as long as it lives.
struct Registered<'a> {
    waiter: Arc<Waiter>,
    targets: &'a [Target],
}

impl<'a> Registered<'a> {
    fn new(targets: &'a [Target]) -> Self {
        let waiter = Arc::new(Waiter::default());
        for partition in targets.iter().flatten() {
            partition.waiters().add(&waiter);
        }
        Registered { waiter, targets }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        for partition in self.targets.iter().flatten() {
            partition.waiters().remove(&self.waiter);
        }
    }
}

struct Found {
    partitions: Vec<PartitionData>,
    complete: bool,
}

fn look(context: &Context, targets: &[Target], limits: Limits) -> Found {
    let (mut left, mut total) = (limits.max_bytes, 0);
    let (mut failed, mut any_known) = (false, false);
    let mut partitions = Vec::with_capacity(targets.len());
    for (want, target) in context.wants.iter().zip(targets) {
        let max = left.min(want.max_bytes.max(0) as usize);
        let data = match target {
            Ok(partition) => read(want, partition, max, total == 0),
            Err(error) => error_data(want.key.partition, *error),
        };
        let bytes = data.records.as_ref().map_or(0, |r| r.len);
        total += bytes;
        left = left.saturating_sub(bytes);
        // A partition that is not there is told, but is no reason not to wait for the others: a
        // consumer of a deleted topic would spin.
        let unknown = matches!(
            target,
            Err(ResponseError::UnknownTopicOrPartition | ResponseError::UnknownTopicId)
        );
        any_known |= !unknown;
        failed |= data.error_code != 0 && !unknown;
        partitions.push(data);
    }
    Found {
        partitions,
        complete: failed || !any_known || total >= limits.min_bytes,
    }
}

fn read(want: &Want, partition: &Arc<Partition>, max_bytes: usize, first: bool) -> PartitionData {
    if partition.is_deleted() {
        return error_data(want.key.partition, ResponseError::UnknownTopicOrPartition);
    }
    match partition.read(want.fetch_offset, max_bytes, first) {
        Ok(records) => PartitionData {
            index: want.key.partition,
            error_code: 0,
            high_watermark: partition.high_watermark(),
            last_stable_offset: partition.last_stable_offset(),
            log_start_offset: partition.log_start_offset(),
            read_committed: false,
            records,
        },
        Err(error) => {
            let code = error_code::of_read(&error);
            if !matches!(code, ResponseError::OffsetOutOfRange) {
                tracing::error!(
                    topic = partition.topic(), partition = partition.index(),
                    offset = want.fetch_offset, %error, "a fetch could not be read"
                );
            }
            error_data(want.key.partition, code)
        }
    }
}

/// Kafka tells nothing of the log with an error, not even with OFFSET_OUT_OF_RANGE.
fn error_data(index: i32, error: ResponseError) -> PartitionData {
    PartitionData {
        index,
        error_code: error.code(),
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        read_committed: false,
        records: None,
    }
}

fn answer(
    call: &Call,
    request: &FetchRequest,
    context: &Context,
    found: Vec<PartitionData>,
) -> Answer {
    let news: Vec<News> = context
        .wants
        .iter()
        .zip(&found)
        .map(|(want, data)| News {
            key: want.key.clone(),
            high_watermark: data.high_watermark,
            log_start_offset: data.log_start_offset,
            has_data: data.records.is_some(),
            is_error: data.error_code != 0,
        })
        .collect();
    let included = call.node.fetch_sessions().say(context, &news);
    let mut topics: Vec<TopicData> = Vec::new();
    let mut places: HashMap<TopicKey, usize> = HashMap::new();
    for ((news, mut data), included) in news.into_iter().zip(found).zip(included) {
        if !included {
            continue;
        }
        data.read_committed = request.isolation_level == 1;
        let place = *places.entry(news.key.topic.clone()).or_insert_with(|| {
            topics.push(topic_data(&news.key.topic));
            topics.len() - 1
        });
        topics[place].partitions.push(data);
    }
    let head = Head {
        correlation_id: call.correlation_id(),
        error_code: 0,
        session_id: context.session_id,
    };
    send(call, head, topics)
}

fn topic_data(key: &TopicKey) -> TopicData {
    match key {
        TopicKey::Name(name) => TopicData {
            name: super::support::topic_name(name),
            ..TopicData::default()
        },
        TopicKey::Id(id) => TopicData {
            id: *id,
            ..TopicData::default()
        },
    }
}

fn refuse(call: &Call, error: ResponseError) -> Answer {
    let head = Head {
        correlation_id: call.correlation_id(),
        error_code: error.code(),
        session_id: 0,
    };
    send(call, head, Vec::new())
}

fn send(call: &Call, head: Head, topics: Vec<TopicData>) -> Answer {
    match encode(call.version, head, topics) {
        Some(parts) => call.parts(parts),
        None => call.close("a fetch answer of more than 2 GiB"),
    }
}
