//! Holds the import rules of docs/ARCHITECTURE.md: each module may name only those below it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Module → the modules of this crate it may name. What is not listed may name nothing.
const RULES: &[(&str, &[&str])] = &[
    ("main", &[]),
    (
        "broker",
        &[
            "clock",
            "config",
            "coordinator",
            "data_dir",
            "log",
            "meta",
            "node",
            "server",
            "topics",
        ],
    ),
    ("server", &["config", "connection", "node"]),
    ("connection", &["api", "node", "reply"]),
    ("reply", &["log"]),
    // api names log for the types of its answers (file regions, stamps, errors), never to open one.
    (
        "api",
        &[
            "config",
            "coordinator",
            "fetch_session",
            "groups",
            "log",
            "meta",
            "node",
            "reply",
            "topics",
        ],
    ),
    (
        "node",
        &[
            "clock",
            "config",
            "coordinator",
            "fetch_session",
            "meta",
            "topics",
        ],
    ),
    (
        "coordinator",
        &["clock", "config", "groups", "log", "meta", "topics"],
    ),
    ("topics", &["clock", "config", "log", "meta"]),
    // meta.properties has the syntax of server.properties.
    ("meta", &["clock", "config", "log"]),
    ("log", &[]),
    ("groups", &[]),
    ("fetch_session", &[]),
    ("config", &[]),
    ("clock", &[]),
    ("data_dir", &[]),
    ("args", &["config", "tools"]),
    ("tools", &[]),
];

/// Words that only some modules may use.
const WORDS: &[(&str, &[&str])] = &[
    ("sled::", &["meta"]),
    (
        "std::net::",
        &[
            "server",
            "connection",
            "api",
            "node",
            "broker",
            "config",
            "tools",
        ],
    ),
    ("tokio::net", &["server", "connection", "reply", "tools"]),
    ("kafka_protocol::messages", &["api", "meta", "tools"]),
    ("std::fs", &["log", "meta", "data_dir", "config", "tools"]),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Top-level module, path below src and text without tests, of every source file.
fn modules() -> Vec<(String, String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut out = Vec::new();
    for file in files {
        let below = file
            .strip_prefix(&src)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        if below.contains("test") || below == "lib.rs" {
            continue;
        }
        let module = below
            .split('/')
            .next()
            .unwrap()
            .trim_end_matches(".rs")
            .to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap()
            .to_owned();
        out.push((module, below, text));
    }
    out
}

#[test]
fn modules_name_only_those_below_them() {
    let rules: BTreeMap<_, _> = RULES.iter().copied().collect();
    let mut broken = Vec::new();
    for (module, file, text) in modules() {
        let allowed = rules
            .get(module.as_str())
            .unwrap_or_else(|| panic!("{module} has no rule"));
        for line in text.lines().filter(|l| !l.trim_start().starts_with("//")) {
            for part in line.split("crate::").skip(1) {
                let named: String = part
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                if part.starts_with('{') {
                    broken.push(format!("{file}: name one module per use: {}", line.trim()));
                }
                let own = named == module;
                if !own && rules.contains_key(named.as_str()) && !allowed.contains(&named.as_str())
                {
                    broken.push(format!(
                        "{file}: {module} may not name {named}: {}",
                        line.trim()
                    ));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn only_their_modules_use_sockets_files_sled_and_messages() {
    let mut broken = Vec::new();
    for (module, file, text) in modules() {
        for line in text.lines().filter(|l| !l.trim_start().starts_with("//")) {
            for (word, allowed) in WORDS {
                if line.contains(word) && !allowed.contains(&module.as_str()) {
                    broken.push(format!("{file}: {word} in {module}: {}", line.trim()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    for (_, file, text) in modules() {
        assert!(
            text.starts_with("//!"),
            "{file} does not begin with what it is"
        );
    }
}
