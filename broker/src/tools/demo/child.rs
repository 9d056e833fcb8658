//! The programs the demo runs: started in groups of their own, so that Ctrl-C reaches the demo
//! alone, which then ends them in the right order; and ended by the system if the demo dies.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;

use super::DemoError;

/// Lines of standard error kept to explain a failure.
const LAST_WORDS: usize = 12;

/// The three programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    Broker,
    Producer,
    Consumer,
}

impl Name {
    pub fn text(self) -> &'static str {
        match self {
            Name::Broker => "broker",
            Name::Producer => "producer",
            Name::Consumer => "consumer",
        }
    }
}

/// What a program wrote.
#[derive(Debug)]
pub enum Heard {
    /// A line of standard output.
    Status(Name, String),
    /// A line of standard error.
    Said(Name, String),
    /// One of the two has ended.
    Closed(Name),
}

/// A running program.
pub struct Program {
    pub name: Name,
    process: Child,
    exited: Option<ExitStatus>,
    open_pipes: u8,
    last_words: VecDeque<String>,
}

impl Program {
    /// Starts it. What it writes arrives as [`Heard`].
    pub fn start(
        name: Name,
        path: &Path,
        arguments: &[OsString],
        heard: &mpsc::Sender<Heard>,
    ) -> Result<Program, DemoError> {
        let mut command = guarded(path)?;
        let mut process = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| DemoError::Start(name.text(), error))?;
        let mut open_pipes = 0;
        if let Some(stdout) = process.stdout.take() {
            open_pipes += 1;
            listen(stdout, name, Heard::Status, heard.clone())?;
        }
        if let Some(stderr) = process.stderr.take() {
            open_pipes += 1;
            listen(stderr, name, Heard::Said, heard.clone())?;
        }
        Ok(Program {
            name,
            process,
            exited: None,
            open_pipes,
            last_words: VecDeque::new(),
        })
    }

    pub fn said(&mut self, line: String) {
        if self.last_words.len() == LAST_WORDS {
            self.last_words.pop_front();
        }
        self.last_words.push_back(line);
    }

    pub fn pipe_closed(&mut self) {
        self.open_pipes = self.open_pipes.saturating_sub(1);
    }

    /// Its exit status, once it has ended and everything it wrote was heard.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.poll();
        self.exited.filter(|_| self.open_pipes == 0)
    }

    fn poll(&mut self) {
        if self.exited.is_none() {
            self.exited = self.process.try_wait().ok().flatten();
        }
    }

    /// Asks it to end in good order.
    pub fn terminate(&mut self) {
        self.poll();
        // Not yet waited for, so the number is still its own.
        if self.exited.is_none() {
            let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        }
    }

    pub fn kill(&mut self) {
        self.poll();
        if self.exited.is_none() {
            let _ = self.process.kill();
            self.exited = self.process.wait().ok();
        }
    }

    /// Its last words, to be put behind a message.
    pub fn last_words(&self) -> String {
        let mut text = String::new();
        for line in &self.last_words {
            text += "\n  ";
            text += line;
        }
        if text.is_empty() {
            return text;
        }
        format!("; it said:{text}")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where the three programs are: together.
pub fn find(name: &'static str) -> Result<PathBuf, DemoError> {
    let own = std::env::current_exe()?;
    let path = own.with_file_name(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(DemoError::NoProgram(name, own.display().to_string()))
    }
}

/// On Linux the program is started by way of ourselves, to be ended with us.
fn guarded(path: &Path) -> io::Result<Command> {
    if !cfg!(target_os = "linux") {
        return Ok(Command::new(path));
    }
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["demo", "--child-of"])
        .arg(std::process::id().to_string())
        .arg("--")
        .arg(path);
    Ok(command)
}

/// In the new process: asks the system to end it with its parent, then becomes the program.
pub fn become_program(parent: i32, command: &[OsString]) -> ExitCode {
    let Some((path, arguments)) = command.split_first() else {
        return ExitCode::from(2);
    };
    #[cfg(target_os = "linux")]
    {
        let asked = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
        let still_there = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        // The parent may have died before we asked.
        if asked.is_err() || still_there != Some(parent) {
            return ExitCode::FAILURE;
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = parent;
    let error = Command::new(path).args(arguments).exec();
    super::view::complain(&format!(
        "cannot run {}: {error}",
        Path::new(path).display()
    ));
    ExitCode::FAILURE
}

fn listen(
    pipe: impl Read + Send + 'static,
    name: Name,
    wrap: fn(Name, String) -> Heard,
    heard: mpsc::Sender<Heard>,
) -> io::Result<()> {
    let read = move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_string();
            line.clear();
            if heard.blocking_send(wrap(name, text)).is_err() {
                return;
            }
        }
        let _ = heard.blocking_send(Heard::Closed(name));
    };
    thread::Builder::new()
        .name(format!("{}-output", name.text()))
        .spawn(read)
        .map(|_| ())
}

/// Arguments from texts and paths.
pub fn arguments<const N: usize>(all: [&dyn AsRef<OsStr>; N]) -> Vec<OsString> {
    all.iter().map(|one| one.as_ref().to_os_string()).collect()
}
