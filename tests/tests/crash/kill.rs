//! kill -9 in a loop under idempotent acks=all load: nothing acknowledged is lost, nothing is there twice, the order is kept.

use std::collections::BTreeMap;

use tests::checker::{Fate, check};
use tests::drivers::Library;
use tests::env;
use tests::random::Random;
use tests::reader::read_partition;

use crate::load::Load;
use crate::support::{connect, start};

const PARTITIONS: usize = 3;

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_there_twice() {
    let rounds = env::number("MINI_BROKER_TEST_CRASH_ROUNDS", 50);
    let seed = env::number("MINI_BROKER_TEST_SEED", 20_261_121);
    println!("seed {seed}, {rounds} rounds");
    let mut random = Random::new(seed);
    let mut server = start(&[("log.segment.bytes", "1048576")]);
    Library::Rdkafka
        .driver(&server)
        .create_topic("load", PARTITIONS as i32, &[])
        .unwrap();
    let loads = [
        Load::rdkafka(&server.bootstrap(), "load", PARTITIONS, 0),
        Load::own(&server.bootstrap(), "load", PARTITIONS, 1_000_000_000_000),
    ];
    for _ in 0..rounds {
        // A random moment, in the midst of the load of both.
        loads[random.below(2)].wait_for(1 + random.below(800) as u64);
        server.kill();
        server.start_again();
    }
    loads.iter().for_each(|load| load.wait_for(1));
    let by_producer: Vec<_> = loads.into_iter().map(Load::finish).collect();
    let mut raw = connect(&server);
    for partition in 0..PARTITIONS {
        let value = |v: &[u8]| std::str::from_utf8(v).unwrap().parse::<u64>().unwrap();
        let records = read_partition(&mut raw, "load", partition as i32);
        let read: BTreeMap<i64, u64> = records
            .iter()
            .map(|r| (r.offset, value(r.value.as_ref().unwrap())))
            .collect();
        let histories: Vec<_> = by_producer.iter().map(|h| h[partition].clone()).collect();
        let wrong = check(&histories, &read);
        assert!(
            wrong.is_empty(),
            "partition {partition}, seed {seed}:\n{}",
            wrong[..wrong.len().min(20)].join("\n")
        );
        let sent = histories.iter().flat_map(|h| &h.sent);
        let unknown = sent.filter(|(_, fate)| *fate == Fate::Unknown).count();
        assert_eq!(
            unknown, 0,
            "the producers retried until all was acknowledged"
        );
        println!("partition {partition}: {} records", read.len());
    }
}
