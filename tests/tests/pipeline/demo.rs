//! `mini-broker demo`, which is what `make demo` runs.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;
use tests::process::{self, Process};
use tests::{env, wait};

use crate::lake::Lake;

/// One at a time: the demo's broker listens on the port that the README tells people.
fn alone() -> MutexGuard<'static, ()> {
    static PORT: Mutex<()> = Mutex::new(());
    PORT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn demo(dir: &std::path::Path) -> Command {
    let mut command = Command::new(env::binary("mini-broker"));
    command
        .arg("demo")
        .arg("--data-dir")
        .arg(dir.join("data"))
        .arg("--lake")
        .arg(dir.join("lake"))
        .current_dir(dir);
    command
}

fn numbered_rows(dir: &std::path::Path) -> Vec<String> {
    Lake::Folder(dir.join("lake")).lines()
}

#[test]
fn it_ends_by_itself_when_all_are_stored_and_carries_on_the_next_time() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a temporary directory");
    for times in 1..=2 {
        let mut command = demo(dir.path());
        command.args(["--count", "1000", "--rate", "max"]);
        process::run(command, "").success();
        assert_eq!(numbered_rows(dir.path()).len(), times * 1000);
    }
    let mut rows = numbered_rows(dir.path());
    rows.sort();
    rows.dedup();
    assert_eq!(
        rows.len(),
        2000,
        "the second run went on where the first one stopped"
    );
}

#[test]
fn ctrl_c_ends_it_cleanly_with_everything_stored() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = demo(dir.path());
    command.args(["--rate", "500"]);
    let mut running = Process::start(command, &dir.path().join("demo.log"), None);
    wait::until("ticks in the lake", || {
        assert!(running.exited().is_none(), "{}", running.output());
        !numbered_rows(dir.path()).is_empty()
    });
    running.signal(Signal::INT);
    assert!(running.wait().success(), "{}", running.output());
    assert!(
        running.output().contains("lake"),
        "it says where the ticks are: {}",
        running.output()
    );
}
