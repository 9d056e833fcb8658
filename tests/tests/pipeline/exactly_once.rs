//! kill -9 of the consumer at random moments, while records keep coming: every record is in the objects exactly once.

use std::fmt::Write as _;

use tests::process::{self, Process};
use tests::random::Random;
use tests::server::{Kind, Server};
use tests::{env, wait};

use crate::lake::{Lake, producer, status_number};

const TOPIC: &str = "ticks";
const RECORDS_PER_ROUND: u64 = 400;

fn rounds() -> u64 {
    env::number("MINI_BROKER_TEST_CONSUMER_KILLS", 20)
}

/// Produces the rows numbered `from` to `to`, each with a value of its own.
fn produce(server: &Server, from: u64, to: u64) {
    let mut csv = String::from("Index,n\n");
    for n in from..to {
        writeln!(csv, "I{},{n}", n % 7).expect("write to a string");
    }
    let file = server.scratch().join("rows.csv");
    std::fs::write(&file, csv).expect("write the rows");
    let mut command = producer(&server.bootstrap(), TOPIC, "max");
    command.arg("--data").arg(&file).args(["--count", &(to - from).to_string()]);
    process::run(command, "").success();
}

fn kill_at_random(lake: &Lake, server: &Server, seed: u64) {
    let mut random = Random::new(seed);
    let start = |log: &str| {
        let mut command = lake.consumer(&server.bootstrap(), TOPIC);
        // Static membership: a restarted consumer has its partitions at once.
        command.args(["--instance-id", "one", "--rotate-records", "20", "--rotate-interval", "100ms"]);
        let log = server.scratch().join(log);
        (Process::start(command, &log, None), log)
    };
    let mut before_the_first_object = 0;
    for round in 0..rounds() {
        produce(server, round * RECORDS_PER_ROUND, (round + 1) * RECORDS_PER_ROUND);
        let (mut consumer, _) = start(&format!("consumer-{round}.log"));
        let limit = random.below(RECORDS_PER_ROUND as usize) as i64;
        let mut stored = 0;
        wait::until("the consumer to get so far", || {
            assert!(consumer.exited().is_none(), "the consumer ended: {}", consumer.output());
            stored = status_number(&consumer.output(), "records_stored").unwrap_or(0);
            stored >= limit
        });
        before_the_first_object += u64::from(stored == 0);
        consumer.kill();
    }
    assert!(before_the_first_object < rounds(), "the kills came while something was stored");

    let mut last = lake.consumer(&server.bootstrap(), TOPIC);
    last.args(["--instance-id", "one", "--once", "--rotate-records", "20"]);
    process::run(last, "").success();
    let mut numbers: Vec<u64> = lake
        .lines()
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["n"].as_u64().expect("a number"))
        .collect();
    numbers.sort_unstable();
    let all: Vec<u64> = (0..rounds() * RECORDS_PER_ROUND).collect();
    let missing: Vec<_> = all.iter().filter(|n| numbers.binary_search(n).is_err()).take(5).collect();
    let twice: Vec<_> = numbers.windows(2).filter(|w| w[0] == w[1]).map(|w| w[0]).take(5).collect();
    assert!(missing.is_empty() && twice.is_empty(), "missing {missing:?}…, twice {twice:?}… (seed {seed})");
    assert_eq!(numbers.len(), all.len());
}

#[test]
fn killed_consumers_leave_every_record_once_in_a_folder() {
    let server = Server::start_kind(Kind::MiniBroker, &[("num.partitions", "3")]);
    kill_at_random(&Lake::folder(server.scratch()), &server, 11);
}

#[test]
fn killed_consumers_leave_every_record_once_in_s3() {
    let server = Server::start_kind(Kind::MiniBroker, &[("num.partitions", "3")]);
    kill_at_random(&Lake::s3(), &server, 12);
}
