//! Drivers in other languages: a process that speaks `tests/drivers/PROTOCOL.md` on its stdin and stdout.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::driver::{Committed, Consume, Consumed, Driver, Open, Outcome, Produce, State};
use crate::env;

/// No request takes this long unless the client or the server hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(150);

pub struct External {
    name: String,
    child: Child,
    stdin: ChildStdin,
    answers: Receiver<String>,
}

pub fn python(venv: &str, client: &str) -> External {
    let mut command = Command::new(env::test_env(&format!("venv-{venv}")).join("bin/python"));
    command
        .arg(env::drivers_dir().join("python/driver.py"))
        .arg(client);
    External::start(command)
}

pub fn java(version: &str) -> External {
    let mut command = env::java(version, 256);
    command.arg("Driver");
    External::start(command)
}

impl External {
    fn start(mut command: Command) -> External {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if std::env::var_os("MINI_BROKER_TEST_VERBOSE").is_none() {
            command.stderr(Stdio::null());
        }
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (send, answers) = channel();
        std::thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| send.send(line))
        });
        let mut driver = External {
            name: format!("{command:?}"),
            child,
            stdin,
            answers,
        };
        let hello: Value = driver.answer().expect("a driver says that it is ready");
        driver.name = hello["ready"].as_str().expect("a driver's name").to_owned();
        driver
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Outcome<T> {
        let line = self
            .answers
            .recv_timeout(ANSWER_LIMIT)
            .map_err(|e| format!("{}: no answer: {e}", self.name))?;
        let value: Value =
            serde_json::from_str(&line).map_err(|e| format!("{}: {e}: {line}", self.name))?;
        match value.get("error") {
            Some(error) => Err(format!(
                "{}: {}",
                self.name,
                error.as_str().unwrap_or_default()
            )),
            None => {
                serde_json::from_value(value).map_err(|e| format!("{}: {e}: {line}", self.name))
            }
        }
    }

    fn ask<T: DeserializeOwned>(&mut self, op: &str, fields: impl serde::Serialize) -> Outcome<T> {
        let mut request = serde_json::to_value(fields).map_err(|e| e.to_string())?;
        request["op"] = op.into();
        writeln!(self.stdin, "{request}").map_err(|e| format!("{} is gone: {e}", self.name))?;
        self.answer()
    }
}

impl Drop for External {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Deserialize)]
struct Nothing {}

#[derive(Deserialize)]
struct Offsets<T> {
    offsets: Vec<T>,
}

impl Driver for External {
    fn connect(&mut self, bootstrap: &str) -> Outcome<()> {
        self.ask("connect", json!({ "bootstrap": bootstrap }))
            .map(|Nothing {}| ())
    }

    fn create_topic(
        &mut self,
        topic: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Outcome<()> {
        let configs: HashMap<_, _> = configs.iter().copied().collect();
        let fields = json!({ "topic": topic, "partitions": partitions, "configs": configs });
        self.ask("create_topic", fields).map(|Nothing {}| ())
    }

    fn delete_topic(&mut self, topic: &str) -> Outcome<()> {
        self.ask("delete_topic", json!({ "topic": topic }))
            .map(|Nothing {}| ())
    }

    fn produce(&mut self, request: &Produce) -> Outcome<Vec<i64>> {
        self.ask("produce", request)
            .map(|o: Offsets<i64>| o.offsets)
    }

    fn consume(&mut self, request: &Consume) -> Outcome<Consumed> {
        self.ask("consume", request)
    }

    fn open(&mut self, request: &Open) -> Outcome<()> {
        self.ask("open", request).map(|Nothing {}| ())
    }

    fn state(&mut self, member: &str, seen: u64, wait_ms: u64) -> Outcome<State> {
        self.ask(
            "state",
            json!({ "member": member, "seen": seen, "wait_ms": wait_ms }),
        )
    }

    fn commit(&mut self, member: &str, metadata: &str) -> Outcome<()> {
        self.ask("commit", json!({ "member": member, "metadata": metadata }))
            .map(|Nothing {}| ())
    }

    fn committed(
        &mut self,
        group: &str,
        topic: &str,
        partitions: &[i32],
    ) -> Outcome<Vec<Committed>> {
        let fields = json!({ "group": group, "topic": topic, "partitions": partitions });
        self.ask("committed", fields)
            .map(|o: Offsets<Committed>| o.offsets)
    }

    fn close(&mut self, member: &str) -> Outcome<()> {
        self.ask("close", json!({ "member": member }))
            .map(|Nothing {}| ())
    }
}
