//! The programs under test, the lake they fill, and what is in it afterwards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::drivers::Library;
use tests::env;
use tests::raw::Raw;
use tests::reader::read_partition;
use tests::s3::S3;
use tests::server::Server;

pub const PARTITIONS: i32 = 3;

pub fn create_topic(server: &Server, topic: &str) {
    Library::Rdkafka
        .driver(server)
        .create_topic(topic, PARTITIONS, &[("retention.ms", "-1")])
        .unwrap();
}

pub fn producer(bootstrap: &str, topic: &str) -> Command {
    let mut command = Command::new(env::binary("producer"));
    command.args(["--bootstrap-server", bootstrap, "--topic", topic]);
    command
}

pub fn consumer(bootstrap: &str, topic: &str, group: &str) -> Command {
    let mut command = Command::new(env::binary("consumer"));
    command.args([
        "--bootstrap-server",
        bootstrap,
        "--topic",
        topic,
        "--group",
        group,
        "--status",
        "json",
    ]);
    command
}

/// Where objects go.
pub enum Lake {
    Folder(PathBuf),
    Bucket(S3),
}

impl Lake {
    pub fn folder(server: &Server) -> Lake {
        Lake::Folder(server.scratch().join("lake"))
    }

    pub fn bucket() -> Lake {
        let s3 = S3::start();
        s3.create_bucket("lake");
        Lake::Bucket(s3)
    }

    /// Makes a consumer write here.
    pub fn receive(&self, command: &mut Command) {
        match self {
            Lake::Folder(path) => command.arg("--to").arg(path),
            Lake::Bucket(s3) => command
                .args([
                    "--to",
                    "s3://lake/some/prefix",
                    "--endpoint-url",
                    &s3.endpoint(),
                ])
                .envs(S3::credentials()),
        };
    }

    /// The lines of all objects.
    pub fn lines(&self) -> Vec<String> {
        let objects = self.objects();
        let text = objects
            .values()
            .map(|content| String::from_utf8_lossy(content));
        text.flat_map(|t| t.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    /// The finished objects: path below the lake → content.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        match self {
            Lake::Folder(path) => {
                let mut found = BTreeMap::new();
                collect(path, path, &mut found);
                found
            }
            Lake::Bucket(s3) => {
                let below = |(key, body): (String, Vec<u8>)| {
                    (key.trim_start_matches("some/prefix/").to_owned(), body)
                };
                s3.objects("lake", "some/prefix/")
                    .into_iter()
                    .map(below)
                    .collect()
            }
        }
    }
}

fn collect(root: &Path, dir: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for path in std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|e| e.unwrap().path())
    {
        if path.is_dir() {
            collect(root, &path, found);
        } else if let Ok(content) = std::fs::read(&path) {
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_string_lossy()
                .into_owned();
            // What is being written has a name of its own until it is whole.
            if name.contains("partition=") && !name.rsplit('/').next().unwrap().starts_with('.') {
                found.insert(name, content);
            }
        }
    }
}

/// Checks the JSON objects of a topic against the broker's log: every record once, in order, in the object that its offset names.
/// The number of records.
#[track_caller]
pub fn assert_every_record_once(server: &Server, topic: &str, lake: &Lake) -> usize {
    let objects = lake.objects();
    let mut raw = Raw::connect(server.port()).unwrap();
    let mut total = 0;
    for partition in 0..PARTITIONS {
        let log = read_partition(&mut raw, topic, partition);
        let prefix = format!("{topic}/partition={partition}/{topic}+{partition}+");
        let mut parts: Vec<(i64, &[u8])> = Vec::new();
        for (name, content) in objects.iter().filter(|(name, _)| name.starts_with(&prefix)) {
            let offset = name[prefix.len()..].trim_end_matches(".json");
            parts.push((
                offset
                    .parse()
                    .unwrap_or_else(|_| panic!("an offset in {name}")),
                content,
            ));
        }
        parts.sort_unstable();
        let mut next = 0;
        for (first, content) in parts {
            assert_eq!(
                first, next,
                "partition {partition}: the object at {first} follows one that ends before {next}"
            );
            for line in content.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
                let record = log
                    .get(next as usize)
                    .unwrap_or_else(|| panic!("partition {partition}: more than the log"));
                assert_eq!(record.offset, next);
                assert_eq!(
                    record.value.as_deref(),
                    Some(line),
                    "partition {partition}, offset {next}"
                );
                next += 1;
            }
        }
        assert_eq!(
            next as usize,
            log.len(),
            "partition {partition}: records in the lake and in the log"
        );
        total += log.len();
    }
    let known = objects
        .keys()
        .filter(|name| name.starts_with(&format!("{topic}/partition=")))
        .count();
    assert_eq!(
        known,
        objects.len(),
        "nothing else lies in the lake: {:?}",
        objects.keys()
    );
    total
}

/// A number of the last status line that has it.
pub fn status_number(output: &str, field: &str) -> Option<i64> {
    output.lines().rev().find_map(|line| {
        let status: serde_json::Value = serde_json::from_str(line).ok()?;
        status.get(field)?.as_i64()
    })
}

/// The last status line of a consumer that has ended.
pub fn last_status(stdout: &str) -> serde_json::Value {
    let status: serde_json::Value =
        serde_json::from_str(stdout.lines().last().expect("a status line")).expect("JSON");
    assert_eq!(status["final"], true, "{status}");
    status
}
