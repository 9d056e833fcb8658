//! acks 0, 1 and all, with and without a partition named by the client.

use tests::driver::{Produce, Record};
use tests::drivers::Library;

use crate::support::{THEN_MS, read_all, server, topic};

for_each_library!(every_level_arrives);

fn every_level_arrives(library: Library) {
    let topic = topic(library, 1, &[]);
    let mut sent = Vec::new();
    for acks in ["0", "1", "all"] {
        let values: Vec<String> = (0..30).map(|i| format!("{acks}-{i}")).collect();
        let mut records: Vec<Record> = values
            .iter()
            .map(|v| Record::new(0, THEN_MS, "k", v))
            .collect();
        records.iter_mut().skip(10).for_each(|r| r.partition = None);
        let request = Produce {
            topic: topic.clone(),
            acks,
            compression: "none",
            idempotent: false,
            records,
        };
        let offsets = library.driver(server()).produce(&request).unwrap();
        if acks == "0" {
            assert_eq!(offsets, vec![-1; 30]);
            // Nothing tells the client when they are in: wait for them, or they may mix with what comes next.
            assert_eq!(read_all(server(), library, &topic, 1, 30).len(), 30);
        } else {
            let base = sent.len() as i64;
            assert_eq!(
                offsets,
                (base..base + 30).collect::<Vec<_>>(),
                "acks={acks}"
            );
        }
        sent.extend(values);
    }
    let read: Vec<String> = read_all(server(), library, &topic, 1, 90)
        .iter()
        .map(|r| r.text())
        .collect();
    assert_eq!(read, sent);
}
