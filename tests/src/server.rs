//! The server under test: the real `mini-broker` binary, or Apache Kafka 4.1 (KRaft, one node) from Maven artifacts.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use tempfile::TempDir;

use crate::process::{self, Process};
use crate::{env, raw, wait};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    MiniBroker,
    Kafka,
}

impl Kind {
    /// What `MINI_BROKER_TEST_AGAINST` says; `mini-broker` without it.
    pub fn chosen() -> Kind {
        match std::env::var("MINI_BROKER_TEST_AGAINST").as_deref() {
            Err(_) | Ok("" | "mini-broker") => Kind::MiniBroker,
            Ok("kafka") => Kind::Kafka,
            Ok(other) => panic!("MINI_BROKER_TEST_AGAINST={other}: mini-broker or kafka"),
        }
    }
}

/// Settings that hold for every server here: quick groups, and what Apache Kafka needs on one node.
const COMMON: [(&str, &str); 5] = [
    ("group.initial.rebalance.delay.ms", "0"),
    ("offsets.topic.num.partitions", "1"),
    ("offsets.topic.replication.factor", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
];

/// A server with its own port and directory. It can be stopped, killed, and started again in place.
pub struct Server {
    kind: Kind,
    settings: Vec<(String, String)>,
    port: u16,
    controller_port: u16,
    process: Option<Process>,
    scratch: TempDir,
}

impl Server {
    /// Starts a server of the chosen kind and waits until it answers.
    pub fn start(settings: &[(&str, &str)]) -> Server {
        Server::start_kind(Kind::chosen(), settings)
    }

    pub fn start_kind(kind: Kind, settings: &[(&str, &str)]) -> Server {
        let scratch = tempfile::Builder::new()
            .prefix("mini-broker-test-")
            .tempdir()
            .expect("a temporary directory");
        let settings = COMMON
            .iter()
            .chain(settings)
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        let mut server = Server {
            kind,
            settings,
            port: free_port(),
            controller_port: free_port(),
            process: None,
            scratch,
        };
        if kind == Kind::Kafka {
            server.format_kafka();
        }
        server.start_again();
        server
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn data_dir(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// Room for a test's own files, gone with the server.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("a running server")
    }

    /// Everything the server has printed, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.path().join("server.log")
    }

    /// Changes a setting for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(n, _)| n != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Another broker takes over the directory with the next start.
    pub fn hand_over_to(&mut self, kind: Kind) {
        self.kind = kind;
    }

    /// Starts on the same directory and port, and waits until it answers.
    pub fn start_again(&mut self) {
        self.launch();
        self.wait_until_serving();
    }

    /// Starts without waiting.
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "the server runs already");
        let command = self.command();
        self.process = Some(Process::start(
            command,
            &self.log_path(),
            Some(self.scratch.path()),
        ));
    }

    pub fn wait_until_serving(&mut self) {
        let started = Instant::now();
        loop {
            if raw::answers(self.port) {
                return;
            }
            let process = self.process.as_mut().expect("a started server");
            if let Some(status) = process.exited() {
                panic!(
                    "the server ended while starting ({status}):\n{}",
                    tail(&process.output())
                );
            }
            assert!(
                started.elapsed() < wait::PATIENCE,
                "the server does not answer:\n{}",
                tail(&process.output())
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// SIGTERM, and wait: a clean shutdown.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.take().expect("a running server").terminate()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process.take().expect("a running server").kill();
    }

    /// The command that starts this server; a second one from it runs on the same directory.
    pub fn command(&self) -> Command {
        match self.kind {
            Kind::MiniBroker => {
                let mut command = Command::new(env::binary("mini-broker"));
                command
                    .arg("--listen")
                    .arg(self.bootstrap())
                    .arg("--data-dir")
                    .arg(self.data_dir());
                for (name, value) in &self.settings {
                    command.arg("--override").arg(format!("{name}={value}"));
                }
                command.current_dir(self.scratch.path());
                command
            }
            Kind::Kafka => {
                let mut command = env::java("4.1", 512);
                command
                    .arg("kafka.Kafka")
                    .arg(self.write_properties())
                    .current_dir(self.scratch.path());
                command
            }
        }
    }

    fn write_properties(&self) -> PathBuf {
        let path = self.scratch.path().join("server.properties");
        let (port, controller) = (self.port, self.controller_port);
        let mut text = format!(
            "process.roles=broker,controller\nnode.id=1\nlog.dirs={}\n\
             controller.quorum.bootstrap.servers=127.0.0.1:{controller}\ncontroller.listener.names=CONTROLLER\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n",
            self.data_dir().display()
        );
        for (name, value) in &self.settings {
            text.push_str(&format!("{name}={value}\n"));
        }
        std::fs::write(&path, text).expect("write server.properties");
        path
    }

    fn format_kafka(&self) {
        let mut command = env::java("4.1", 256);
        command.args([
            "kafka.tools.StorageTool",
            "format",
            "--standalone",
            "-t",
            "bWluaS1icm9rZXItdGVzdA",
            "-c",
        ]);
        command.arg(self.write_properties());
        process::run(command, "").success();
    }
}

fn tail(text: &str) -> &str {
    let cut = text.len().saturating_sub(6000);
    text.get(cut..).unwrap_or(text)
}

/// A port that was free a moment ago, from below the range that outgoing connections take theirs from.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let spread = (std::process::id() * 61 % 11_000) as u16;
    for _ in 0..1000 {
        let port = 20_000 + (spread + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 20000 and 32000");
}
