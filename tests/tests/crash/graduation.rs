//! The data directory is Kafka's: Apache Kafka goes on where mini-broker stopped, and mini-broker where Apache Kafka stopped.

use tests::drivers::Library;
use tests::server::{Kind, Server};
use tests::wait;

use crate::support::{Contents, contents, fill, start, write};

#[test]
fn apache_kafka_takes_over_and_hands_back() {
    let topics = ["one", "two"];
    let mut server = start(&[]);
    fill(&server, &topics);
    let before = contents(&server, &topics);
    assert!(server.stop().success());
    server.hand_over_to(Kind::Kafka);
    server.start_again();
    assert_holds(&server, &topics, &before, "Apache Kafka");
    write(&mut Library::Rdkafka.driver(&server), "one", "lz4", 70_000);
    let grown = contents(&server, &topics);
    server.stop();
    server.hand_over_to(Kind::MiniBroker);
    server.start_again();
    assert_holds(&server, &topics, &grown, "mini-broker again");
    write(&mut Library::Rdkafka.driver(&server), "two", "none", 80_000);
}

fn assert_holds(server: &Server, topics: &[&str], wanted: &Contents, who: &str) {
    // Apache Kafka answers before its partitions have leaders and its coordinator is loaded.
    let mut driver = Library::Rdkafka.driver(server);
    wait::until("committed offsets", || {
        let found = driver.committed(topics[0], topics[0], &[0]);
        found.is_ok_and(|c| c.iter().all(|c| c.offset.is_some()))
    });
    assert!(
        contents(server, topics) == *wanted,
        "{who} does not hold what was there:\n{}",
        server.log()
    );
}
