//! The server that all tests of this binary share, and small helpers.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tests::driver::{Consume, From, Produce, Read, Record};
use tests::drivers::Library;
use tests::server::Server;

/// Records carry timestamps of long ago, which must not make them expire.
pub const SETTINGS: [(&str, &str); 1] = [("log.retention.ms", "-1")];

/// A moment in 2020 that test records are dated from.
pub const THEN_MS: i64 = 1_600_000_000_000;

pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(&SETTINGS))
}

/// A name nobody else in this run uses.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A new topic on the shared server.
pub fn topic(library: Library, partitions: i32, configs: &[(&str, &str)]) -> String {
    topic_on(server(), library, partitions, configs)
}

pub fn topic_on(
    server: &Server,
    library: Library,
    partitions: i32,
    configs: &[(&str, &str)],
) -> String {
    let topic = unique(library.name());
    library
        .driver(server)
        .create_topic(&topic, partitions, configs)
        .expect("create a topic");
    topic
}

pub fn produce(topic: &str, records: Vec<Record>) -> Produce {
    Produce {
        topic: topic.to_owned(),
        acks: "all",
        compression: "none",
        idempotent: false,
        records,
    }
}

/// Reads exactly `count` records from the beginning of every partition.
#[track_caller]
pub fn read_all(
    server: &Server,
    library: Library,
    topic: &str,
    partitions: i32,
    count: usize,
) -> Vec<Read> {
    let from = (0..partitions).map(From::beginning).collect();
    // One more than there should be would show as well: whoever reads asks for what it knows to be there.
    let request = Consume {
        topic: topic.to_owned(),
        from,
        count,
        timeout_ms: 30_000,
    };
    let mut records = library
        .driver(server)
        .consume(&request)
        .expect("consume")
        .records;
    records.sort();
    records
}
