//! kill -9 of the consumer at random moments, and of the broker between them: every record is in the objects exactly once.

use std::time::Duration;

use rustix::process::Signal;
use tests::env;
use tests::process::{Process, run};
use tests::random::Random;
use tests::server::{Kind, Server};
use tests::wait;

use crate::lake::*;

#[test]
fn every_record_once_in_a_folder() {
    let server = Server::start(&[]);
    let lake = Lake::folder(&server);
    killed_again_and_again(server, &lake, true);
}

#[test]
fn every_record_once_in_s3() {
    killed_again_and_again(Server::start(&[]), &Lake::bucket(), false);
}

fn killed_again_and_again(mut server: Server, lake: &Lake, broker_too: bool) {
    let kills = env::number("MINI_BROKER_TEST_CONSUMER_KILLS", 24);
    let seed = env::number("MINI_BROKER_TEST_SEED", 20_261_121);
    println!("seed {seed}, {kills} kills");
    let mut random = Random::new(seed);
    create_topic(&server, "ticks");
    let mut produce = producer(&server.bootstrap(), "ticks");
    produce.args(["--rate", "2000", "--loop"]);
    let mut producing = Process::start(produce, &server.scratch().join("producer.log"), None);
    for kill in 0..kills {
        let mut consuming = start_consumer(&server, lake);
        // Every third dies while it starts; the others in the midst of their work.
        if kill % 3 != 0 {
            wait::until("records to be stored", || stored(&consuming) > 0);
        }
        std::thread::sleep(Duration::from_millis(random.below(400) as u64)); // the random moment
        assert!(
            consuming.exited().is_none(),
            "the consumer ended by itself:\n{}",
            consuming.output()
        );
        consuming.kill();
        if broker_too && kill % 6 == 5 && server.kind() == Kind::MiniBroker {
            server.kill();
            server.start_again();
        }
    }
    producing.signal(Signal::INT);
    let status = producing.wait();
    assert!(
        status.success() || status.code() == Some(130),
        "{status}: {}",
        producing.output()
    );
    let mut last = consumer_command(&server, lake);
    last.arg("--once");
    let status = last_status(&run(last, "").success().stdout);
    assert_eq!(status["lag"], 0);
    let records = assert_every_record_once(&server, "ticks", lake);
    println!("{records} records in {} objects", lake.objects().len());
    assert!(
        records > 1000,
        "the producer went on through all of it: {}",
        producing.output()
    );
}

fn consumer_command(server: &Server, lake: &Lake) -> std::process::Command {
    let mut command = consumer(&server.bootstrap(), "ticks", "lake");
    // A static member has its partitions back at once after a crash.
    command.args([
        "--instance-id",
        "one",
        "--rotate-records",
        "100",
        "--rotate-interval",
        "200ms",
    ]);
    lake.receive(&mut command);
    command
}

fn start_consumer(server: &Server, lake: &Lake) -> Process {
    let log = server.scratch().join("consumer.log");
    // Each run is judged by its own output.
    let _ = std::fs::remove_file(&log);
    Process::start(consumer_command(server, lake), &log, None)
}

/// How many records this run of the consumer says it has stored.
fn stored(consumer: &Process) -> i64 {
    status_number(&consumer.output(), "records_stored").unwrap_or(0)
}
