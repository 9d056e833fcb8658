//! Where things are: the binaries under test, and what `make setup` laid out.

use std::path::{Path, PathBuf};

/// `target/debug` or `target/release`: the directory of the profile the tests were built with.
pub fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its own executable");
    // target/<profile>/deps/<test>-<hash>
    exe.ancestors()
        .nth(2)
        .expect("test executables lie in target/<profile>/deps")
        .to_path_buf()
}

/// A binary of the workspace, built beforehand by `make test`.
pub fn binary(name: &str) -> PathBuf {
    let path = profile_dir().join(name);
    assert!(
        path.exists(),
        "{} is missing: run `make test`, or `cargo build` first",
        path.display()
    );
    path
}

/// A part of the test environment that `make setup` lays out.
pub fn test_env(part: &str) -> PathBuf {
    let path = profile_dir()
        .parent()
        .expect("target")
        .join("test-env")
        .join(part);
    assert!(
        path.exists(),
        "{} is missing: run `make setup`",
        path.display()
    );
    path
}

/// The folder of client drivers in the source tree.
pub fn drivers_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers")
}

/// `java` with the jars of Apache Kafka `version` (`3.9` or `4.1`), quiet, and quick to start.
pub fn java(version: &str, heap_mib: u32) -> std::process::Command {
    let jars = test_env(&format!("kafka-{version}"));
    let driver = test_env(&format!("java-driver-{version}"));
    let logging = drivers_dir().join("java");
    let mut command = std::process::Command::new("java");
    command
        .arg(format!("-Xmx{heap_mib}m"))
        .args([
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xshare:auto",
        ])
        .arg(format!(
            "-Dlog4j.configuration=file:{}",
            logging.join("log4j.properties").display()
        ))
        .arg(format!(
            "-Dlog4j2.configurationFile={}",
            logging.join("log4j2.properties").display()
        ))
        .arg("-cp")
        .arg(format!("{}:{}/*", driver.display(), jars.display()));
    command
}

/// A number from the environment, for a longer or shorter run.
pub fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}
