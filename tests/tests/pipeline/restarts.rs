//! The producer and the consumer live through restarts of the broker.

use tests::process::{self, Process};
use tests::server::{Kind, Server};
use tests::wait;

use crate::lake::{
    Lake, assert_every_record_once, consumer, create_topic, producer, status_number,
};

#[test]
fn a_killed_broker_costs_neither_a_record_nor_a_second_copy() {
    const COUNT: i64 = 60_000;
    let mut server = Server::start_kind(Kind::MiniBroker, &[]);
    let lake = Lake::folder(&server);
    create_topic(&server, "ticks");
    let mut consume = consumer(&server.bootstrap(), "ticks", "lake");
    lake.receive(&mut consume);
    consume.args(["--rotate-records", "500", "--rotate-interval", "100ms"]);
    // Slow enough that the restarts fall into it.
    let mut produce = producer(&server.bootstrap(), "ticks");
    produce.args([
        "--rate",
        "15000",
        "--count",
        &COUNT.to_string(),
        "--status",
        "json",
    ]);
    let consumer_log = server.scratch().join("consumer.log");
    let mut producer = Process::start(produce, &server.scratch().join("producer.log"), None);
    let mut consumer = Process::start(consume, &consumer_log, None);
    for stop in 1..=3 {
        wait::until("the producer to get on", || {
            assert!(
                producer.exited().is_none(),
                "the producer ended early: {}",
                producer.output()
            );
            status_number(&producer.output(), "records_acked")
                .is_some_and(|n| n >= stop * COUNT / 6)
        });
        server.kill();
        server.start_again();
    }
    assert!(producer.wait_long().success(), "{}", producer.output());
    wait::until("everything to be stored", || {
        assert!(
            consumer.exited().is_none(),
            "the consumer ended: {}",
            consumer.output()
        );
        status_number(&consumer.output(), "records_stored") == Some(COUNT)
    });
    assert!(consumer.terminate().success(), "{}", consumer.output());
    assert_eq!(
        assert_every_record_once(&server, "ticks", &lake) as i64,
        COUNT
    );
}

#[test]
fn without_a_broker_both_say_what_to_do_and_fail() {
    let nobody = format!("127.0.0.1:{}", tests::server::free_port());
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let mut produce = producer(&nobody, "ticks");
    produce.args(["--rate", "max", "--count", "1"]);
    let mut consume = consumer(&nobody, "ticks", "lake");
    consume.arg("--once").current_dir(scratch.path());
    for command in [produce, consume] {
        let said = process::run(command, "");
        assert!(!said.status.success());
        assert!(
            said.stderr.contains(&nobody),
            "names the address: {}",
            said.stderr
        );
    }
}
