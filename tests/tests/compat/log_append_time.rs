//! `message.timestamp.type=LogAppendTime`: the broker's clock, in every record, also of compressed batches.

use std::time::{SystemTime, UNIX_EPOCH};

use tests::driver::{Produce, Record};
use tests::drivers::Library;

use crate::support::{THEN_MS, read_all, server, topic};

for_each_library!(records_carry_the_brokers_time);

fn records_carry_the_brokers_time(library: Library) {
    let topic = topic(library, 1, &[("message.timestamp.type", "LogAppendTime")]);
    for compression in ["none", "gzip"] {
        let records = (0..10)
            .map(|i| Record::new(0, THEN_MS + i, "k", "v"))
            .collect();
        let request = Produce {
            topic: topic.clone(),
            acks: "all",
            compression,
            idempotent: false,
            records,
        };
        library.driver(server()).produce(&request).unwrap();
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64;
    for record in read_all(server(), library, &topic, 1, 20) {
        assert!(record.append_time, "{record:?}");
        assert!(
            record.timestamp > THEN_MS + 1000 && record.timestamp <= now,
            "{record:?}"
        );
    }
}
