//! Seek by timestamp: the first record that is not earlier, exact to the record, also inside compressed batches.

use tests::driver::{Consume, From, Produce, Record};
use tests::drivers::Library;

use crate::support::{THEN_MS, server, topic};

for_each_library!(seeks_to_the_first_record_not_earlier);

fn seeks_to_the_first_record_not_earlier(library: Library) {
    let topic = topic(library, 2, &[]);
    let mut driver = library.driver(server());
    for (partition, compression) in [(0, "none"), (1, "gzip")] {
        // One second apart, but record 70 is dated as record 20: time need not rise.
        let at = |i: i64| THEN_MS + 1000 * if i == 70 { 20 } else { i };
        let records = (0..100)
            .map(|i| Record::new(partition, at(i), "k", &i.to_string()))
            .collect();
        let request = Produce {
            topic: topic.clone(),
            acks: "all",
            compression,
            idempotent: false,
            records,
        };
        driver.produce(&request).unwrap();
    }
    // (milliseconds after the first record, the offset to begin at)
    for (after, offset) in [
        (-5, 0),
        (0, 0),
        (1, 1),
        (40_000, 40),
        (40_500, 41),
        (70_000, 71),
        (99_000, 99),
        (99_001, 100),
    ] {
        let from = (0..2)
            .map(|p| From::timestamp(p, THEN_MS + after))
            .collect();
        let count = if offset == 100 { 0 } else { 2 };
        let request = Consume {
            topic: topic.clone(),
            from,
            count,
            timeout_ms: 30_000,
        };
        let consumed = driver.consume(&request).unwrap();
        assert_eq!(
            consumed.starts,
            [offset, offset],
            "{after} ms after the first"
        );
        for partition in 0..2 {
            // Either partition may come first; what comes first of a partition is the record sought.
            if let Some(first) = consumed.records.iter().find(|r| r.partition == partition) {
                assert_eq!((first.offset, first.text()), (offset, offset.to_string()));
            }
        }
        assert_eq!(consumed.records.len(), count);
    }
}
