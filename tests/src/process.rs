//! Child processes that never outlive the tests, with their output in a file.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal};

use crate::wait;

/// A running program. Killed when dropped, and also when the test process dies without dropping it.
pub struct Process {
    child: Child,
    watchdog: Watchdog,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, appending what it prints to `log`. `scratch` is removed if the test process dies first.
    pub fn start(mut command: Command, log: &Path, scratch: Option<&Path>) -> Process {
        let out = append_to(log);
        command
            .stdin(Stdio::null())
            .stderr(out.try_clone().expect("duplicate a file handle"))
            .stdout(out);
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let watchdog = Watchdog::start(child.id(), scratch);
        Process {
            child,
            watchdog,
            log: log.to_path_buf(),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the program has printed so far.
    pub fn output(&self) -> String {
        read_lossy(&self.log)
    }

    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("ask for a child's state")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a process id");
        rustix::process::kill_process(pid, signal).expect("signal a child that was not waited for");
    }

    /// Waits for the end of a program that ends by itself, or was asked to.
    pub fn wait(&mut self) -> ExitStatus {
        let log = self.log.clone();
        let name = format!(
            "process {} to end; it printed:\n{}",
            self.child.id(),
            read_lossy(&log)
        );
        wait::until_some(&name, || self.exited())
    }

    /// As `wait`, for work whose length depends on the machine.
    pub fn wait_long(&mut self) -> ExitStatus {
        self.child.wait().expect("wait for a child")
    }

    /// SIGTERM, then the exit status.
    pub fn terminate(&mut self) -> ExitStatus {
        if self.exited().is_none() {
            self.signal(Signal::TERM);
        }
        self.wait()
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Resident memory in KiB, from /proc.
    pub fn resident_kib(&self) -> u64 {
        self.status_number("VmRSS:")
    }

    pub fn peak_resident_kib(&self) -> u64 {
        self.status_number("VmHWM:")
    }

    fn status_number(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("a live process");
        let line = status
            .lines()
            .find(|l| l.starts_with(field))
            .expect("a field of /proc/PID/status");
        line.split_whitespace()
            .nth(1)
            .and_then(|n| n.parse().ok())
            .expect("a number of KiB")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.watchdog.dismiss();
    }
}

/// A shell that waits for the end of its input, which comes when the test process ends in whatever way, and then kills `pid`.
struct Watchdog(Child);

impl Watchdog {
    fn start(pid: u32, scratch: Option<&Path>) -> Watchdog {
        let child = Command::new("sh")
            .args([
                "-c",
                r#"read -r _; kill -9 "$0"; [ -z "$1" ] || { sleep 1; rm -rf -- "$1"; }"#,
            ])
            .arg(pid.to_string())
            .arg(scratch.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start sh");
        Watchdog(child)
    }

    fn dismiss(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a program that ran to its end said.
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    #[track_caller]
    pub fn success(self) -> Finished {
        assert!(
            self.status.success(),
            "{}\nstdout:\n{}\nstderr:\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }
}

/// Runs a program to its end with `input` on its stdin.
pub fn run(mut command: Command, input: &str) -> Finished {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A program may end without reading all of it.
        let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
    });
    let output = child.wait_with_output().expect("wait for a child");
    writer.join().expect("the writer does not panic");
    Finished {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn append_to(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn read_lossy(path: &Path) -> String {
    std::fs::read(path)
        .map(|b| String::from_utf8_lossy(&b).into_owned())
        .unwrap_or_default()
}
