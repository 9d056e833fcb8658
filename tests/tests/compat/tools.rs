//! Kafka's own command line tools, as users of the tutorial run them: topics, console producer, console consumer.

use tests::process::{Finished, run};
use tests::{env, wait};

use crate::support::{server, unique};

#[test]
fn topics_and_console_tools_3_9() {
    topics_and_console("3.9", "kafka.tools.ConsoleProducer");
}

#[test]
fn topics_and_console_tools_4_1() {
    topics_and_console("4.1", "org.apache.kafka.tools.ConsoleProducer");
}

fn tool(version: &str, class: &str, args: &[&str], input: &str) -> Finished {
    let mut command = env::java(version, 128);
    command
        .arg(class)
        .args(["--bootstrap-server", &server().bootstrap()])
        .args(args);
    run(command, input)
}

fn topics_and_console(version: &str, producer: &str) {
    let topic = unique("demo_testing");
    let topics = |args: &[&str]| tool(version, "org.apache.kafka.tools.TopicCommand", args, "");
    let create = [
        "--create",
        "--topic",
        &topic,
        "--replication-factor",
        "1",
        "--partitions",
        "3",
    ];
    let made = topics(&create).success();
    assert!(
        made.stdout.contains(&format!("Created topic {topic}")),
        "{}",
        made.stdout
    );

    let lines: String = (0..100).map(|i| format!("key{i}:value {i}\n")).collect();
    let parse = [
        "--topic",
        &topic,
        "--property",
        "parse.key=true",
        "--property",
        "key.separator=:",
    ];
    tool(version, producer, &parse, &lines).success();

    let show = [
        "--topic",
        &topic,
        "--from-beginning",
        "--max-messages",
        "100",
        "--timeout-ms",
        "30000",
    ];
    let form = [
        "--property",
        "print.key=true",
        "--property",
        "key.separator=:",
        "--group",
        &topic,
    ];
    let consumed = tool(
        version,
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        &[&show[..], &form].concat(),
        "",
    )
    .success();
    let mut got: Vec<&str> = consumed.stdout.lines().collect();
    let mut want: Vec<&str> = lines.lines().collect();
    got.sort_unstable();
    want.sort_unstable();
    assert_eq!(got, want);

    let described = topics(&["--describe", "--topic", &topic]).success().stdout;
    assert!(
        described.contains("PartitionCount: 3") && described.contains("Leader: 1"),
        "{described}"
    );
    assert!(
        topics(&["--list"])
            .success()
            .stdout
            .lines()
            .any(|l| l == topic)
    );
    topics(&["--delete", "--topic", &topic]).success();
    wait::until("the topic to be gone from the list", || {
        !topics(&["--list"])
            .success()
            .stdout
            .lines()
            .any(|l| l == topic)
    });
    assert!(!topics(&["--describe", "--topic", &topic]).status.success());
}
