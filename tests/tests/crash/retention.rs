//! Retention by size and by time: segments are rolled and old ones deleted, and reading begins where the log begins.

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use tests::drivers::Library;
use tests::dump::files;
use tests::raw::Raw;
use tests::reader::fetch;
use tests::wait;

use crate::support::{connect, start, write};

fn beginning(raw: &mut Raw, topic: &str) -> i64 {
    let partition = ListOffsetsPartition::default()
        .with_partition_index(0)
        .with_timestamp(-2);
    let name = TopicName(StrBytes::from_string(topic.to_owned()));
    let topic = ListOffsetsTopic::default()
        .with_name(name)
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic]);
    raw.call(&request, 5).topics[0].partitions[0].offset
}

#[test]
fn old_segments_go_by_size() {
    retained(&[("segment.bytes", "1048576"), ("retention.bytes", "1500000")]);
}

#[test]
fn old_segments_go_by_time() {
    retained(&[("segment.bytes", "1048576"), ("retention.ms", "1")]);
}

fn retained(configs: &[(&str, &str)]) {
    const OFFSET_OUT_OF_RANGE: i16 = 1;
    let mut server = start(&[("log.retention.check.interval.ms", "50")]);
    let mut driver = Library::Rdkafka.driver(&server);
    driver.create_topic("t", 2, configs).unwrap();
    for i in 0..6 {
        write(&mut driver, "t", "none", i * 1000);
    }
    let mut raw = connect(&server);
    wait::until("the first segment to be deleted", || {
        beginning(&mut raw, "t") > 0
    });
    wait::until("its files to be deleted", || {
        let first = files(&server.data_dir(), ".log", |n| n == "t-0")
            .into_iter()
            .next();
        first.is_some_and(|f| !f.ends_with("00000000000000000000.log"))
    });
    assert_eq!(fetch(&mut raw, "t", 0, 0).0, OFFSET_OUT_OF_RANGE);
    // The beginning is remembered, and appending goes on behind the end.
    let start = beginning(&mut raw, "t");
    server.kill();
    server.start_again();
    assert!(beginning(&mut connect(&server), "t") >= start);
    write(&mut driver, "t", "none", 50_000);
}
