//! Produce 3–13 (advertised from 0: KAFKA-18659). One v2 batch per partition, stored as it came.
//! Topics by id from v13 (KIP-516), record errors from v8 (KIP-467).
//! acks=0 has no answer; an error then closes the connection, which is how Kafka tells the client
//! to look at the metadata again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use wire::batch::{BatchError, BatchHeader};
use wire::compress::Compression;
use wire::records::Record;

use super::support::{partition_of, text};
use super::{Answer, Call, error_code};
use crate::config::{Durability, TimestampType};
use crate::topics::{Acked, Acks, AppendPlan, Partition, PartitionError, Topic};

/// What a batch may unfold to where its records have to be looked at.
const MAX_DECOMPRESSED_BYTES: usize = 256 * 1024 * 1024;
/// The client id under which Kafka lets its own tools write to internal topics.
const ADMIN_CLIENT: &str = "__admin_client";

pub async fn handle(call: Call, request: ProduceRequest) -> Answer {
    let acks = match (request.acks, call.node.config().durability) {
        (0, _) => Some(Acks::None),
        (1, _) | (-1, Durability::Os) => Some(Acks::Kernel),
        (-1, Durability::Disk) => Some(Acks::Disk),
        _ => None,
    };
    let mut pending = Vec::new();
    for topic_data in &request.topic_data {
        let topic = if call.version >= 13 {
            call.node.topics().by_id(topic_data.topic_id)
        } else {
            call.node.topics().by_name(&topic_data.name)
        };
        for data in &topic_data.partition_data {
            let missing = call.version >= 13 && topic.is_none();
            pending.push(if missing {
                Err(Refused::from(ResponseError::UnknownTopicId))
            } else {
                let records = data.records.as_ref();
                append(&call, &request, topic.as_ref(), data.index, records, acks)
            });
        }
    }
    let timeout = Duration::from_millis(request.timeout_ms.max(0) as u64);
    let deadline = tokio::time::Instant::now() + timeout;
    let mut results = Vec::with_capacity(pending.len());
    for one in pending {
        results.push(match one {
            Ok((partition, acked)) => finish(partition, acked, deadline).await,
            Err(refused) => Err(refused),
        });
    }
    answer(call, &request, results)
}

/// A partition's refusal: Kafka's code and words for the person who reads the client's log.
struct Refused {
    error: ResponseError,
    message: Option<String>,
    /// Which records are to blame, by their place in the batch (KIP-467).
    records: Vec<i32>,
    log_start_offset: i64,
}

impl Refused {
    fn new(error: ResponseError, message: Option<String>) -> Self {
        Refused {
            error,
            message,
            records: Vec::new(),
            log_start_offset: -1,
        }
    }

    /// Kafka tells where the log starts unless it cannot know the log or the batch.
    fn by(mut self, partition: &Partition) -> Self {
        let unknown = matches!(
            self.error,
            ResponseError::CorruptMessage
                | ResponseError::KafkaStorageError
                | ResponseError::MessageTooLarge
                | ResponseError::RecordListTooLarge
                | ResponseError::UnknownTopicOrPartition
        );
        if !unknown {
            self.log_start_offset = partition.log_start_offset();
        }
        self
    }
}

impl From<ResponseError> for Refused {
    fn from(error: ResponseError) -> Self {
        Refused::new(error, None)
    }
}

impl From<BatchError> for Refused {
    fn from(e: BatchError) -> Self {
        Refused::new(error_code::of_batch(&e), Some(e.to_string()))
    }
}

impl From<PartitionError> for Refused {
    fn from(e: PartitionError) -> Self {
        Refused::new(error_code::of_partition(&e), Some(e.to_string()))
    }
}

fn refuse<T>(error: ResponseError, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::new(error, Some(message.into())))
}

fn append(
    call: &Call,
    request: &ProduceRequest,
    topic: Option<&Arc<Topic>>,
    index: i32,
    records: Option<&Bytes>,
    acks: Option<Acks>,
) -> Result<(Arc<Partition>, Acked), Refused> {
    let partition = partition_of(topic, index)?;
    let Some(topic) = topic else {
        return Err(ResponseError::UnknownTopicOrPartition.into());
    };
    let Some(acks) = acks else {
        return Err(ResponseError::InvalidRequiredAcks.into());
    };
    if topic.is_internal() && &*call.client_id != ADMIN_CLIENT {
        return refuse(
            ResponseError::InvalidTopicException,
            "clients may not write to internal topics",
        );
    }
    let records = one_batch(call, records)?;
    let acked = append_batch(call, request, topic, &partition, records, acks)
        .map_err(|refused| refused.by(&partition))?;
    topic.schedule_flush(&partition);
    Ok((partition, acked))
}

/// What Kafka's `ProduceRequest.validateRecords` refuses: anything but one whole v2 batch.
fn one_batch<'a>(call: &Call, records: Option<&'a Bytes>) -> Result<&'a Bytes, Refused> {
    let not_one = "a produce request holds exactly one record batch";
    let Some(records) = records.filter(|r| !r.is_empty()) else {
        return refuse(ResponseError::InvalidRecord, not_one);
    };
    let header = BatchHeader::parse(records)?;
    if records.len() != header.size() {
        return refuse(ResponseError::InvalidRecord, not_one);
    }
    if header.compression()? == Compression::Zstd && call.version < 7 {
        return refuse(
            ResponseError::UnsupportedCompressionType,
            "zstd needs Produce v7",
        );
    }
    Ok(records)
}

fn append_batch(
    call: &Call,
    request: &ProduceRequest,
    topic: &Topic,
    partition: &Arc<Partition>,
    records: &Bytes,
    acks: Acks,
) -> Result<Acked, Refused> {
    let config = topic.config();
    if request.acks == -1 && config.min_insync_replicas > 1 {
        return refuse(
            ResponseError::NotEnoughReplicas,
            "min.insync.replicas is above 1 on a single node",
        );
    }
    if records.len() > config.max_message_bytes.max(0) as usize {
        return refuse(
            ResponseError::MessageTooLarge,
            format!(
                "a batch of {} bytes; max.message.bytes of the topic is {}",
                records.len(),
                config.max_message_bytes
            ),
        );
    }
    let header = wire::batch::validate(records)?;
    check_batch(request, &header, topic, records)?;
    let now_ms = call.node.now_ms();
    let stamped = config.message_timestamp_type == TimestampType::LogAppendTime;
    check_time(topic, &header, records, now_ms)?;
    let plan = AppendPlan {
        acks,
        log_append_time_ms: stamped.then_some(now_ms),
        flush_messages: config.flush_messages,
        now_ms,
    };
    Ok(partition.append(records, &header, plan)?)
}

/// Refuses timestamps outside of what the topic allows, and those a producer may not set.
fn check_time(
    topic: &Topic,
    header: &BatchHeader,
    records: &Bytes,
    now_ms: i64,
) -> Result<(), Refused> {
    let config = topic.config();
    if config.message_timestamp_type == TimestampType::LogAppendTime {
        if header.is_log_append_time() {
            return refuse(
                ResponseError::InvalidTimestamp,
                "a producer may not mark its batch as stamped by the log",
            );
        }
        return Ok(());
    }
    let oldest = now_ms.saturating_sub(config.message_timestamp_before_max_ms);
    let newest = now_ms.saturating_add(config.message_timestamp_after_max_ms);
    // The header's word is enough to let a batch pass; records are looked at to name the culprits.
    let too_old = header.base_timestamp >= 0 && header.base_timestamp < oldest;
    if !too_old && header.max_timestamp <= newest {
        return Ok(());
    }
    let outside = |r: &Record| r.timestamp >= 0 && !(oldest..=newest).contains(&r.timestamp);
    let records = wire::records::decode(records, MAX_DECOMPRESSED_BYTES);
    Err(Refused {
        records: places(&records.unwrap_or_default(), outside),
        ..Refused::new(
            ResponseError::InvalidTimestamp,
            Some(format!(
                "a timestamp is outside of {oldest} to {newest} \
                 (message.timestamp.before.max.ms, message.timestamp.after.max.ms)"
            )),
        )
    })
}

/// The places of the records that are `bad`.
fn places(records: &[Record], bad: impl Fn(&Record) -> bool) -> Vec<i32> {
    let with_place = (0..).zip(records);
    with_place
        .filter(|(_, r)| bad(r))
        .map(|(at, _)| at)
        .collect()
}

/// What Kafka's `LogValidator` refuses.
fn check_batch(
    request: &ProduceRequest,
    header: &BatchHeader,
    topic: &Topic,
    records: &Bytes,
) -> Result<(), Refused> {
    if header.is_control() {
        return refuse(
            ResponseError::InvalidRecord,
            "clients may not write control records",
        );
    }
    if header.base_offset != 0 {
        return refuse(
            ResponseError::InvalidRecord,
            format!("base offset {}: a producer's is 0", header.base_offset),
        );
    }
    if header.producer_id >= 0 && header.base_sequence < 0 {
        return refuse(
            ResponseError::InvalidRecord,
            format!(
                "sequence {} of an idempotent producer",
                header.base_sequence
            ),
        );
    }
    if header.is_transactional() || request.transactional_id.is_some() {
        return refuse(
            ResponseError::InvalidTxnState,
            "this broker does not serve transactions yet (docs/PROTOCOL.md)",
        );
    }
    if topic.config().cleanup_policy.compact {
        let keyless = places(
            &wire::records::decode(records, MAX_DECOMPRESSED_BYTES)?,
            |r| r.key.is_none(),
        );
        if !keyless.is_empty() {
            let message = "a record has no key, and the topic is compacted";
            return Err(Refused {
                records: keyless,
                ..Refused::new(ResponseError::InvalidRecord, Some(message.into()))
            });
        }
    }
    Ok(())
}

type Done = Result<(Arc<Partition>, Acked), Refused>;

async fn finish(partition: Arc<Partition>, acked: Acked, deadline: tokio::time::Instant) -> Done {
    if let Some(offset) = acked.wait_offset {
        match tokio::time::timeout_at(deadline, partition.wait_durable(offset)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(ResponseError::RequestTimedOut.into()),
        }
    }
    Ok((partition, acked))
}

fn answer(call: Call, request: &ProduceRequest, results: Vec<Done>) -> Answer {
    if request.acks == 0 {
        return match results.iter().find_map(|r| r.as_ref().err()) {
            Some(refused) => call.close(format!("a produce with acks=0 failed: {}", refused.error)),
            None => call.silence(),
        };
    }
    let mut results = results.into_iter();
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for data in &request.topic_data {
        let mut topic = TopicProduceResponse::default();
        if call.version >= 13 {
            topic.topic_id = data.topic_id;
        } else {
            topic.name = data.name.clone();
        }
        topic.partition_responses = data
            .partition_data
            .iter()
            .zip(&mut results)
            .map(|(p, result)| partition_answer(call.version, p.index, result))
            .collect();
        topics.push(topic);
    }
    call.answer(&ProduceResponse::default().with_responses(topics))
}

fn partition_answer(version: i16, index: i32, result: Done) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    match result {
        Ok((partition, acked)) => {
            let response = response
                .with_base_offset(acked.appended.base_offset)
                .with_log_append_time_ms(acked.appended.log_append_time);
            if version >= 5 {
                response.with_log_start_offset(partition.log_start_offset())
            } else {
                response
            }
        }
        Err(refused) => {
            let mut response = response
                .with_error_code(refused.error.code())
                .with_base_offset(-1)
                .with_log_append_time_ms(-1);
            if version >= 5 {
                response.log_start_offset = refused.log_start_offset;
            }
            if version >= 8 {
                let message = refused.message.map(text);
                let blamed = refused.records.into_iter().map(|place| {
                    BatchIndexAndErrorMessage::default()
                        .with_batch_index(place)
                        .with_batch_index_error_message(message.clone())
                });
                response.record_errors = blamed.collect();
                response.error_message = message;
            }
            response
        }
    }
}
