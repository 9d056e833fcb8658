//! Every library writes with every compression; every library reads all of it, byte for byte.

use tests::driver::{Hex, Produce, Read, Record};
use tests::drivers::Library;
use tests::random::Random;

use crate::support::{THEN_MS, read_all, server, topic};

const COMPRESSIONS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

for_each_library!(every_library_reads_what_one_wrote);

fn every_library_reads_what_one_wrote(writer: Library) {
    let topic = topic(writer, 2, &[]);
    let mut expected = Vec::new();
    for (i, compression) in COMPRESSIONS.into_iter().enumerate() {
        let mut records = records(i as u64);
        if !writer.null_headers() {
            records
                .iter_mut()
                .for_each(|r| r.headers.retain(|(_, value)| value.is_some()));
        }
        let idempotent = writer.idempotent() && i % 2 == 0;
        let request = Produce {
            topic: topic.clone(),
            acks: "all",
            compression,
            idempotent,
            records: records.clone(),
        };
        let offsets = writer
            .driver(server())
            .produce(&request)
            .unwrap_or_else(|e| panic!("{compression}: {e}"));
        expected.extend(
            records
                .into_iter()
                .zip(offsets)
                .map(|(record, offset)| as_read(&topic, record, offset)),
        );
    }
    expected.sort();
    assert_offsets_are_dense(&expected);
    let mut failures = Vec::new();
    for reader in Library::ALL {
        let read = read_all(server(), reader, &topic, 2, expected.len());
        if let Some((want, got)) = expected.iter().zip(&read).find(|(want, got)| want != got) {
            failures.push(format!(
                "{} reads {got:?}\n   instead of {want:?}",
                reader.name()
            ));
        }
        if read.len() != expected.len() {
            failures.push(format!(
                "{} reads {} records of {}",
                reader.name(),
                read.len(),
                expected.len()
            ));
        }
    }
    assert!(
        failures.is_empty(),
        "written by {}:\n{}",
        writer.name(),
        failures.join("\n")
    );
}

/// Records of every shape that clients can send.
fn records(seed: u64) -> Vec<Record> {
    let mut random = Random::new(seed);
    let mut records: Vec<Record> = (0..40)
        .map(|i| {
            let len = 1 + random.below(2000);
            let mut record = Record::new(
                i % 2,
                THEN_MS + i64::from(i) * 10,
                &format!("key-{seed}-{i}"),
                "",
            );
            record.value = Some(Hex(random.text(len)));
            record
        })
        .collect();
    records[3].key = None;
    records[4].value = None;
    records[5].key = Some(Hex(Vec::new()));
    records[5].value = Some(Hex(Vec::new()));
    records[6].key = Some(Hex(random.bytes(30)));
    records[6].value = Some(Hex((0..=255).collect()));
    records[7].value = Some(Hex(random.text(300_000)));
    records[8].value = Some(Hex(random.bytes(100_000)));
    records[9].timestamp = THEN_MS - 86_400_000;
    let text = |t: &str| Some(Hex(t.into()));
    records[10].headers = vec![("one".into(), text("1"))];
    records[11].headers = vec![
        ("twice".into(), text("a")),
        ("other".into(), text("")),
        ("twice".into(), text("b")),
        ("none".into(), None),
    ];
    records[12].headers = vec![
        ("ключ".into(), Some(Hex(random.bytes(50)))),
        (String::new(), text("empty name")),
    ];
    records
}

fn as_read(topic: &str, record: Record, offset: i64) -> Read {
    Read {
        topic: topic.to_owned(),
        partition: record.partition.unwrap(),
        offset,
        timestamp: record.timestamp,
        append_time: false,
        key: record.key,
        value: record.value,
        headers: record.headers,
    }
}

fn assert_offsets_are_dense(sorted: &[Read]) {
    for partition in 0..2 {
        let offsets: Vec<i64> = sorted
            .iter()
            .filter(|r| r.partition == partition)
            .map(|r| r.offset)
            .collect();
        let dense: Vec<i64> = (0..offsets.len() as i64).collect();
        assert_eq!(
            offsets, dense,
            "acknowledged offsets of partition {partition}"
        );
    }
}
