//! Starting and stopping: one broker a directory, clean ends, and nothing lost by either.

use tests::drivers::Library;
use tests::process::{Process, run};
use tests::wait;

use crate::support::{connect, contents, fill, start, write};

#[test]
fn a_second_broker_on_the_same_directory_is_refused() {
    let server = start(&[]);
    fill(&server, &["t"]);
    let mut second = server.command();
    // The same directory, another port: it is the directory that is taken.
    second.args([
        "--listen",
        &format!("127.0.0.1:{}", tests::server::free_port()),
    ]);
    let log = server.scratch().join("second.log");
    let mut second = Process::start(without_first_listen(&second), &log, None);
    let status = second.wait();
    assert!(!status.success());
    let said = second.output();
    assert!(
        said.contains(&*server.data_dir().to_string_lossy()),
        "it names the directory: {said}"
    );
    assert!(!said.contains("panicked"), "{said}");
    let before = contents(&server, &["t"]);
    write(&mut Library::Rdkafka.driver(&server), "t", "none", 10_000);
    assert!(contents(&server, &["t"]) != before, "the first goes on");
}

/// `--listen` may be given once: drops the first of two.
fn without_first_listen(command: &std::process::Command) -> std::process::Command {
    let mut args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let first = args.iter().position(|a| a == "--listen").unwrap();
    args.drain(first..first + 2);
    let mut changed = std::process::Command::new(command.get_program());
    changed.args(args);
    changed
}

#[test]
fn sigterm_ends_cleanly_and_loses_nothing() {
    let mut server = start(&[]);
    fill(&server, &["t"]);
    let before = contents(&server, &["t"]);
    // Connections that are idle must not hold it up.
    let idle: Vec<_> = (0..20).map(|_| connect(&server)).collect();
    assert_eq!(server.stop().code(), Some(0), "{}", server.log());
    drop(idle);
    server.start_again();
    assert!(contents(&server, &["t"]) == before);
    // And once more without any work in between.
    assert_eq!(server.stop().code(), Some(0));
    server.start_again();
    assert!(contents(&server, &["t"]) == before);
}

#[test]
fn a_wrong_setting_is_refused_by_name() {
    for (setting, value) in [
        ("num.partitions", "many"),
        ("log.segment.bytes", "-5"),
        ("listeners", "PLAINTEXT://127.0.0.1:port"),
    ] {
        let mut command = std::process::Command::new(tests::env::binary("mini-broker"));
        let dir = tempfile::tempdir().unwrap();
        command
            .arg("--data-dir")
            .arg(dir.path())
            .arg("--override")
            .arg(format!("{setting}={value}"));
        let done = run(command, "");
        assert!(!done.status.success());
        assert!(
            done.stderr.contains(setting) && done.stderr.contains(value),
            "{setting}: {}",
            done.stderr
        );
    }
}

#[test]
fn an_unknown_setting_is_a_warning_that_names_it() {
    let server = start(&[("no.such.setting", "1")]);
    // It may answer a moment before it says so.
    wait::until("the line with the address", || {
        let said = server.log();
        said.lines()
            .any(|l| l.contains("bootstrap server") && l.contains(&server.bootstrap()))
    });
    assert!(server.log().contains("no.such.setting"), "{}", server.log());
}

#[test]
fn without_a_word_it_listens_on_loopback_only() {
    let server = start(&[]);
    let port = format!("{:04X}", server.port());
    let listening = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let socket = listening.lines().find(|l| {
        l.split_whitespace()
            .nth(1)
            .is_some_and(|a| a.ends_with(&format!(":{port}")))
    });
    assert!(socket.unwrap().contains("0100007F:"), "{socket:?}");
}
