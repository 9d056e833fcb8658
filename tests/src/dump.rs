//! Apache Kafka's own `DumpLogSegments` over a data directory: a foreign tool's judgement of the files.

use std::path::{Path, PathBuf};

use crate::{env, process};

/// Files of a data directory whose name ends with `suffix`, in folders whose name passes `wanted`.
pub fn files(data_dir: &Path, suffix: &str, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in std::fs::read_dir(data_dir)
        .expect("a data directory")
        .map(|e| e.expect("an entry").path())
    {
        let name = dir
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        if dir.is_dir() && wanted(&name) {
            let entries = std::fs::read_dir(&dir)
                .expect("a partition's folder")
                .map(|e| e.expect("an entry").path());
            found.extend(entries.filter(|p| p.to_string_lossy().ends_with(suffix)));
        }
    }
    found.sort();
    found
}

/// Runs the tool and returns what it printed; panics if it complains.
pub fn dump(options: &[&str], files: &[PathBuf]) -> String {
    assert!(!files.is_empty(), "nothing to look at");
    let list = files
        .iter()
        .map(|f| f.display().to_string())
        .collect::<Vec<_>>()
        .join(",");
    let mut command = env::java("4.1", 512);
    command
        .arg("kafka.tools.DumpLogSegments")
        .args(options)
        .arg("--files")
        .arg(&list);
    let done = process::run(command, "").success();
    let complaints = complaints(&done.stdout, &done.stderr);
    assert!(
        complaints.is_empty(),
        "DumpLogSegments {options:?} {list}:\n{}",
        complaints.join("\n")
    );
    done.stdout
}

fn complaints(stdout: &str, stderr: &str) -> Vec<String> {
    const WORDS: [&str; 8] = [
        "mismatch",
        "corrupt",
        "non-consecutive",
        "invalid",
        "out of order",
        "isvalid: false",
        "could not",
        "failed to",
    ];
    let suspicious = |l: &&str| {
        let line = l.to_lowercase();
        WORDS.iter().any(|w| line.contains(w)) && !line.contains("isvalid: true")
    };
    let exceptions = stderr
        .lines()
        .filter(|l| l.contains("Exception") || suspicious(l));
    stdout
        .lines()
        .filter(suspicious)
        .chain(exceptions)
        .map(str::to_owned)
        .collect()
}

/// Every kind of file a broker's data directory holds, each with the decoder for it. Returns what was printed for
/// `__cluster_metadata` and `__consumer_offsets`.
pub fn whole_directory(data_dir: &Path) -> (String, String) {
    let ordinary = |name: &str| !name.starts_with("__");
    let mut all = files(data_dir, ".log", ordinary);
    for suffix in [".index", ".timeindex", ".snapshot"] {
        // An empty index says nothing, and the tool takes it for a broken one.
        let filled = |f: &PathBuf| std::fs::metadata(f).is_ok_and(|m| m.len() > 0);
        all.extend(files(data_dir, suffix, ordinary).into_iter().filter(filled));
    }
    if !all.is_empty() {
        dump(&["--deep-iteration"], &all);
    }
    let metadata = dump(
        &["--cluster-metadata-decoder"],
        &files(data_dir, ".log", |n| n.starts_with("__cluster_metadata")),
    );
    let offset_files = files(data_dir, ".log", |n| n.starts_with("__consumer_offsets"));
    let offsets = if offset_files.is_empty() {
        String::new()
    } else {
        dump(&["--offsets-decoder"], &offset_files)
    };
    (metadata, offsets)
}
