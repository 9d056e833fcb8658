//! Produce requests and answers, to and from the protocol's shape.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};

use super::Acks;
use crate::client::topic_name;

/// Version 13 names topics by id; names are enough here.
pub(super) const MAX_VERSION: i16 = 12;

/// One batch within a request.
pub(super) struct Slice {
    pub(super) part: usize,
    pub(super) batch: u64,
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    /// Moved into the request by [`produce`].
    pub(super) bytes: Bytes,
}

/// The request that carries these batches, one per partition.
pub(super) fn produce(slices: &mut [Slice], acks: Acks, timeout: Duration) -> ProduceRequest {
    let mut topics: HashMap<Arc<str>, Vec<PartitionProduceData>> = HashMap::new();
    for s in slices {
        let data = PartitionProduceData::default()
            .with_index(s.partition)
            .with_records(Some(std::mem::take(&mut s.bytes)));
        topics.entry(s.topic.clone()).or_default().push(data);
    }
    let topics = topics.into_iter().map(|(name, data)| {
        TopicProduceData::default()
            .with_name(topic_name(&name))
            .with_partition_data(data)
    });
    let acks = match acks {
        Acks::None => 0,
        Acks::Leader => 1,
        Acks::All => -1,
    };
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX))
        .with_topic_data(topics.collect())
}

pub(super) fn by_partition(
    answer: ProduceResponse,
) -> HashMap<(Arc<str>, i32), PartitionProduceResponse> {
    let mut found = HashMap::new();
    for topic in answer.responses {
        let name: Arc<str> = Arc::from(topic.name.0.as_str());
        for p in topic.partition_responses {
            found.insert((name.clone(), p.index), p);
        }
    }
    found
}
