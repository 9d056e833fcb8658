//! A broker with something in it, and the questions that show whether it is all still there.

use std::collections::BTreeMap;

use tests::driver::{Hex, Open, Produce, Record};
use tests::drivers::{Lease, Library};
use tests::raw::Raw;
use tests::reader::read_partition;
use tests::server::{Kind, Server};
use tests::wait;

/// The broker under test: these tests damage its files, so it is always ours.
pub fn start(settings: &[(&str, &str)]) -> Server {
    Server::start_kind(Kind::MiniBroker, settings)
}

pub fn connect(server: &Server) -> Raw {
    Raw::connect(server.port()).unwrap()
}

/// Offset, timestamp and value.
type Kept = (i64, i64, Option<Vec<u8>>);

/// What a broker held at one moment, as clients see it.
#[derive(Debug, PartialEq)]
pub struct Contents {
    records: BTreeMap<(String, i32), Vec<Kept>>,
    committed: BTreeMap<String, Vec<(Option<i64>, String)>>,
}

pub const PARTITIONS: i32 = 2;
const COMPRESSIONS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Topics with several segments, every compression, an idempotent producer's state, and groups with committed offsets.
pub fn fill(server: &Server, topics: &[&str]) {
    let mut driver = Library::Rdkafka.driver(server);
    for topic in topics {
        driver
            .create_topic(
                topic,
                PARTITIONS,
                &[("segment.bytes", "1048576"), ("retention.ms", "-1")],
            )
            .unwrap();
        for (i, compression) in COMPRESSIONS.into_iter().enumerate() {
            write(&mut driver, topic, compression, i * 1000);
        }
        commit(&mut driver, topic);
    }
}

/// 200 records of 4 KiB that do not compress well, and 200 that do.
pub fn write(driver: &mut Lease, topic: &str, compression: &'static str, first: usize) {
    let mut random = tests::random::Random::new(first as u64);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64;
    let records = (first..first + 400)
        .map(|i| {
            let mut record = Record::new((i % 2) as i32, now, &i.to_string(), "");
            record.value = Some(Hex(if i % 4 < 2 {
                random.bytes(4096)
            } else {
                random.text(1000)
            }));
            record
        })
        .collect();
    let request = Produce {
        topic: topic.to_owned(),
        acks: "all",
        compression,
        idempotent: true,
        records,
    };
    driver.produce(&request).unwrap();
}

/// A group named as the topic reads some of it and commits.
fn commit(driver: &mut Lease, topic: &str) {
    let open = Open {
        member: "m".into(),
        group: topic.into(),
        topics: vec![topic.into()],
        assignor: "range",
        instance: None,
    };
    driver.open(&open).unwrap();
    let mut read = 0;
    wait::until("records for the group", || {
        read += driver.state("m", 0, 100).unwrap().records.len();
        read > 100
    });
    driver.commit("m", "metadata").unwrap();
    driver.close("m").unwrap();
}

pub fn contents(server: &Server, topics: &[&str]) -> Contents {
    let mut raw = connect(server);
    let mut driver = Library::Rdkafka.driver(server);
    let mut contents = Contents {
        records: BTreeMap::new(),
        committed: BTreeMap::new(),
    };
    for topic in topics {
        for partition in 0..PARTITIONS {
            let read = read_partition(&mut raw, topic, partition);
            let records = read
                .into_iter()
                .map(|r| (r.offset, r.timestamp, r.value.map(|v| v.to_vec())))
                .collect();
            contents
                .records
                .insert(((*topic).to_owned(), partition), records);
        }
        let committed = driver
            .committed(topic, topic, &(0..PARTITIONS).collect::<Vec<_>>())
            .unwrap();
        assert!(
            committed.iter().all(|c| c.offset.is_some()),
            "{topic}: {committed:?}"
        );
        let committed = committed
            .into_iter()
            .map(|c| (c.offset, c.metadata))
            .collect();
        contents.committed.insert((*topic).to_owned(), committed);
    }
    contents
}
