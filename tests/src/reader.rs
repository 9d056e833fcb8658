//! Reads a whole partition on a bare socket, with every batch checked: what a test finds in the log after the faults.

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{FetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use wire::records::Record;

use crate::raw::Raw;

const MAX_BYTES: usize = 64 << 20;

/// One fetch: the error code, the high watermark, and the records from `offset` on. A batch with a wrong checksum panics.
pub fn fetch(raw: &mut Raw, topic: &str, partition: i32, offset: i64) -> (i16, i64, Vec<Record>) {
    let wanted = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partitions(vec![wanted]);
    let request = FetchRequest::default()
        .with_min_bytes(0)
        .with_max_bytes(16 << 20)
        .with_topics(vec![topic]);
    let answer = raw.call(&request, 12);
    assert_eq!(answer.error_code, 0, "a fetch as such");
    let data = &answer.responses[0].partitions[0];
    let mut records = Vec::new();
    for batch in wire::batch::split(&data.records.clone().unwrap_or_default()) {
        let (_, bytes) = batch.expect("a batch");
        wire::batch::validate_stored(&bytes).expect("a batch that is served is sound");
        records.extend(wire::records::decode(&bytes, MAX_BYTES).expect("records"));
    }
    records.retain(|r| r.offset >= offset);
    (data.error_code, data.high_watermark, records)
}

/// Every record of a partition, from its beginning to its end.
#[track_caller]
pub fn read_partition(raw: &mut Raw, topic: &str, partition: i32) -> Vec<Record> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let next = all.last().map_or(0, |r| r.offset + 1);
        let (error, high_watermark, records) = fetch(raw, topic, partition, next);
        assert_eq!(error, 0, "{topic}-{partition} from offset {next}");
        all.extend(records);
        let end = all.last().map_or(0, |r| r.offset + 1);
        if end >= high_watermark {
            return all;
        }
        assert!(
            end > next,
            "{topic}-{partition}: nothing at {next}, but the end is {high_watermark}"
        );
    }
}
