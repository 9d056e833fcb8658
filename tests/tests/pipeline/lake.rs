//! A lake to fill, in a folder or in S3, and what is in it afterwards.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::env;
use tests::s3::S3;

pub const BUCKET: &str = "lake";

pub enum Lake {
    Folder(PathBuf),
    S3(S3),
}

impl Lake {
    pub fn folder(dir: &Path) -> Lake {
        Lake::Folder(dir.join("lake"))
    }

    pub fn s3() -> Lake {
        let s3 = S3::start();
        s3.create_bucket(BUCKET);
        Lake::S3(s3)
    }

    /// A `consumer` that fills this lake, as the member of a group named like the topic.
    pub fn consumer(&self, bootstrap: &str, topic: &str) -> Command {
        self.consumer_of(topic, bootstrap, topic)
    }

    pub fn consumer_of(&self, group: &str, bootstrap: &str, topic: &str) -> Command {
        let mut command = Command::new(env::binary("consumer"));
        command.args(["--bootstrap-server", bootstrap, "--topic", topic, "--group", group, "--status", "json"]);
        match self {
            Lake::Folder(dir) => command.arg("--to").arg(dir),
            Lake::S3(s3) => command
                .args(["--to", &format!("s3://{BUCKET}/ticks"), "--endpoint-url", &s3.endpoint()])
                .envs(S3::credentials()),
        };
        command
    }

    /// Every finished object: its name and content.
    pub fn objects(&self) -> Vec<(String, Vec<u8>)> {
        match self {
            Lake::Folder(dir) => {
                let mut found = Vec::new();
                walk(dir, &mut found);
                found.sort();
                found.into_iter().map(|p| (p.display().to_string(), std::fs::read(&p).expect("an object"))).collect()
            }
            Lake::S3(s3) => s3.objects(BUCKET, "ticks/"),
        }
    }

    /// The lines of all JSON objects.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, content) in self.objects() {
            if name.ends_with(".json") {
                let text = String::from_utf8(content).expect("JSON is UTF-8");
                assert!(text.ends_with('\n'), "{name} ends in the middle of a line");
                lines.extend(text.lines().map(str::to_owned));
            }
        }
        lines
    }
}

/// Objects, without what the consumer keeps for itself in files and folders that begin with a dot or underscore.
fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.expect("an entry of the lake").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.starts_with('.') || name.starts_with('_') {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// A number of the last status line that has it.
pub fn status_number(output: &str, field: &str) -> Option<i64> {
    output.lines().rev().find_map(|line| {
        let status: serde_json::Value = serde_json::from_str(line).ok()?;
        status.get(field)?.as_i64()
    })
}

/// `producer` for a topic.
pub fn producer(bootstrap: &str, topic: &str, rate: &str) -> Command {
    let mut command = Command::new(env::binary("producer"));
    command.args(["--bootstrap-server", bootstrap, "--topic", topic, "--rate", rate]);
    command
}
