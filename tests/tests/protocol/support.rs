//! The shared server, and requests that most tests here need.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    CreateTopicsRequest, FetchRequest, MetadataRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tests::raw::Raw;
use tests::server::Server;
use wire::compress::Compression;
use wire::records::BatchBuilder;

/// One moment for all records of this run: a broker forgets producers whose last record is older than a day.
pub fn now_ms() -> i64 {
    static NOW: OnceLock<i64> = OnceLock::new();
    *NOW.get_or_init(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock after 1970")
            .as_millis() as i64
    })
}

pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(&[("log.retention.ms", "-1")]))
}

pub fn connect() -> Raw {
    Raw::connect(server().port()).unwrap()
}

pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_owned())
}

pub fn name(s: &str) -> TopicName {
    TopicName(text(s))
}

/// Creates a topic of one partition and returns its name.
pub fn topic(raw: &mut Raw) -> String {
    let topic = unique("raw");
    assert_eq!(create(raw, &topic, 1), 0);
    // Apache Kafka answers a moment before the partition has its leader.
    tests::wait::until("the topic to have a leader", || {
        metadata_error(raw, &topic) == 0
    });
    topic
}

/// The error code that CreateTopics answers with.
pub fn create(raw: &mut Raw, topic: &str, partitions: i32) -> i16 {
    let new = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![new])
        .with_timeout_ms(30_000);
    raw.call(&request, 5).topics[0].error_code
}

/// The topic's error code, or else its first partition's.
pub fn metadata_error(raw: &mut Raw, topic: &str) -> i16 {
    let wanted = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![wanted]))
        .with_allow_auto_topic_creation(false);
    let answer = &raw.call(&request, 9).topics[0];
    if answer.error_code != 0 {
        answer.error_code
    } else {
        answer.partitions.first().map_or(-1, |p| p.error_code)
    }
}

pub fn batch(count: usize) -> BatchBuilder {
    let mut batch = BatchBuilder::new(Compression::None);
    for i in 0..count {
        batch.push(
            now_ms(),
            Some(b"key"),
            Some(format!("value {i}").as_bytes()),
            &[],
        );
    }
    batch
}

/// A Produce request with acks=all for one partition, by name: up to version 12.
pub fn produce_request(topic: &str, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(0)
        .with_records(Some(records));
    let topic = TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic])
}

pub fn produce(raw: &mut Raw, topic: &str, records: Bytes) -> PartitionProduceResponse {
    raw.call(&produce_request(topic, records), 9).responses[0].partition_responses[0].clone()
}

/// A Fetch request of one partition from an offset, by name: up to version 12.
pub fn fetch_request(topic: &str, offset: i64) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    FetchRequest::default()
        .with_max_wait_ms(100)
        .with_min_bytes(1)
        .with_max_bytes(16 << 20)
        .with_topics(vec![
            FetchTopic::default()
                .with_topic(name(topic))
                .with_partitions(vec![partition]),
        ])
}
