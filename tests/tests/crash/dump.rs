//! Apache Kafka's `DumpLogSegments` reads every file of the data directory without a complaint: under load, after kill -9, and
//! after a clean stop.

use tests::drivers::Library;
use tests::dump::{files, whole_directory};

use crate::support::{fill, start, write};

#[test]
fn kafkas_own_tool_reads_everything() {
    let mut server = start(&[]);
    fill(&server, &["one", "two"]);
    let partitions = |name: &str| name.starts_with("one-");
    assert!(
        files(&server.data_dir(), ".log", partitions).len() > 4,
        "the log was rolled"
    );
    look(&server.data_dir());
    write(
        &mut Library::Rdkafka.driver(&server),
        "one",
        "zstd",
        100_000,
    );
    server.kill();
    server.start_again();
    look(&server.data_dir());
    write(
        &mut Library::Rdkafka.driver(&server),
        "two",
        "none",
        200_000,
    );
    assert!(server.stop().success());
    look(&server.data_dir());
}

fn look(data_dir: &std::path::Path) {
    let (metadata, offsets) = whole_directory(data_dir);
    for record in [
        "FEATURE_LEVEL_RECORD",
        "REGISTER_BROKER_RECORD",
        "TOPIC_RECORD",
        "PARTITION_RECORD",
        "CONFIG_RECORD",
    ] {
        assert!(
            metadata.contains(record),
            "no {record} in the catalogue's log:\n{metadata}"
        );
    }
    for part in [
        "\"group\":\"one\"",
        "\"topic\":\"two\"",
        "\"metadata\":\"metadata\"",
        "\"protocolType\":\"consumer\"",
    ] {
        assert!(
            offsets.contains(part),
            "no {part} in the log of offsets:\n{offsets}"
        );
    }
}
