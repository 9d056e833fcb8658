//! What clients are told to connect to, and Kafka's own properties file as the tutorial edits it.

use std::process::Command;

use kafka_protocol::messages::MetadataRequest;
use tests::process::Process;
use tests::raw::Raw;
use tests::server::free_port;
use tests::{env, wait};

/// A broker started with its own arguments, once it answers.
fn broker(dir: &std::path::Path, port: u16, args: &[&str]) -> Process {
    let mut command = Command::new(env::binary("mini-broker"));
    command.args(args).current_dir(dir);
    let process = Process::start(command, &dir.join("log"), None);
    wait::until("the broker to say its address", || {
        process.output().contains("bootstrap server") && tests::raw::answers(port)
    });
    process
}

/// The host and port that Metadata names to a client that came to this address.
fn told(host: &str, port: u16) -> (String, i32) {
    let mut raw = Raw::connect_to((host, port)).unwrap();
    let broker = raw
        .call(&MetadataRequest::default().with_topics(Some(vec![])), 9)
        .brokers
        .remove(0);
    (broker.host.to_string(), broker.port)
}

#[test]
fn clients_are_told_the_address_they_used() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let listen = format!("0.0.0.0:{port}");
    let broker = broker(
        dir.path(),
        port,
        &["--listen", &listen, "--data-dir", "data"],
    );
    for host in ["127.0.0.1", "127.0.0.2"] {
        assert_eq!(told(host, port), (host.to_owned(), i32::from(port)));
    }
    assert!(
        broker.output().contains("WARN"),
        "the whole world is warned of: {}",
        broker.output()
    );
}

#[test]
fn a_named_address_wins() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let listen = format!("127.0.0.1:{port}");
    let args = [
        "--listen",
        &listen,
        "--data-dir",
        "data",
        "--advertise",
        "kafka.example.org:19092",
    ];
    let _broker = broker(dir.path(), port, &args);
    assert_eq!(
        told("127.0.0.1", port),
        ("kafka.example.org".to_owned(), 19092)
    );
}

#[test]
fn the_tutorials_properties_file_is_understood() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let text = format!(
        "# The id of the broker.\nbroker.id=0\nlisteners=PLAINTEXT://127.0.0.1:{port}\n\
         advertised.listeners=PLAINTEXT://54.12.34.56:9092\nnum.network.threads=3\nnum.io.threads=8\n\
         socket.send.buffer.bytes=102400\nsocket.request.max.bytes=104857600\nlog.dirs=logs\n\
         num.partitions=4\nnum.recovery.threads.per.data.dir=1\noffsets.topic.replication.factor=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         log.retention.hours=168\n#log.segment.bytes=1073741824\nlog.retention.check.interval.ms=300000\n\
         zookeeper.connect=localhost:2181\nzookeeper.connection.timeout.ms=18000\n\
         group.initial.rebalance.delay.ms=0\nlog.segmnt.bytes=5\n"
    );
    std::fs::write(dir.path().join("server.properties"), text).unwrap();
    let broker = broker(
        dir.path(),
        port,
        &["server.properties", "--override", "num.partitions=2"],
    );
    assert_eq!(told("127.0.0.1", port), ("54.12.34.56".to_owned(), 9092));
    assert!(dir.path().join("logs/meta.properties").exists());
    let said = broker.output();
    let warnings: Vec<&str> = said.lines().filter(|l| l.contains("WARN")).collect();
    assert!(
        warnings.iter().any(|w| w.contains("log.segmnt.bytes")),
        "a slip is named: {said}"
    );
    assert!(
        !warnings
            .iter()
            .any(|w| w.contains("zookeeper") || w.contains("threads")),
        "{said}"
    );
    let mut raw = Raw::connect_to(("127.0.0.1", port)).unwrap();
    assert_eq!(
        partitions_of_new_topic(&mut raw),
        2,
        "an override is stronger than the file"
    );
}

fn partitions_of_new_topic(raw: &mut Raw) -> i32 {
    use kafka_protocol::messages::create_topics_request::CreatableTopic;
    use kafka_protocol::messages::{CreateTopicsRequest, TopicName};
    let name = TopicName(kafka_protocol::protocol::StrBytes::from_static_str("new"));
    let topic = CreatableTopic::default()
        .with_name(name)
        .with_num_partitions(-1)
        .with_replication_factor(-1);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(30_000);
    raw.call(&request, 5).topics[0].num_partitions
}
