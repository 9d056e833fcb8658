//! `mini-broker demo`: broker, producer and consumer together, with a live view. Knows the three
//! programs by their command lines and the broker by its protocol, nothing of their insides.
//!
//! Each program is a process of its own, as in real life. What is stored is not believed of the
//! consumer alone: the group's committed offsets are asked of the broker, and a lake in a folder
//! is counted object by object.

mod child;
mod lake;
mod probe;
mod session;
mod view;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::ValueEnum;

/// The topic that is streamed, as the tutorial calls it.
const TOPIC: &str = "stock_market_data";
/// The consumer's group.
const GROUP: &str = "demo";

/// Arguments of `mini-broker demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// Stop by itself after this many new records; exit code 0 only if all of them are stored
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Records a second, fractions allowed, or `max`
    #[arg(long, value_name = "N|max", default_value = "10", value_parser = rate)]
    pub rate: String,
    /// Where objects are stored: a folder, or s3://BUCKET/PREFIX
    #[arg(long, value_name = "DIR|s3://…", default_value = "./lake")]
    pub lake: String,
    /// Where the broker keeps its data
    #[arg(long, value_name = "DIR", default_value = "./mini-broker-data")]
    pub data_dir: PathBuf,
    /// What the objects are
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub format: Format,
    /// An S3-compatible store that is not Amazon's
    #[arg(long, value_name = "URL")]
    pub endpoint_url: Option<String>,

    /// Become the program after `--`, and end when this process does (used by the demo itself)
    #[arg(long, hide = true, value_name = "PID", requires = "program")]
    child_of: Option<i32>,
    #[arg(last = true, hide = true)]
    program: Vec<OsString>,
}

/// Formats the consumer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object a line
    Json,
    /// With a header
    Csv,
    /// Columns
    Parquet,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Csv => "csv",
            Format::Parquet => "parquet",
        }
    }
}

/// The producer reads it again; here a slip is found before anything is started.
fn rate(text: &str) -> Result<String, String> {
    match text.parse::<f64>() {
        _ if text == "max" => Ok(text.to_string()),
        Ok(rate) if (1e-6..=1e9).contains(&rate) => Ok(text.to_string()),
        _ => Err("use a number of records a second above 0, such as 1, 0.5 or 2000, or max".into()),
    }
}

/// Why the demo ended before its end.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("{0} was not found next to {1}. Build all three programs: cargo build --release")]
    NoProgram(&'static str, String),
    #[error("cannot start {0}: {1}")]
    Start(&'static str, std::io::Error),
    #[error("{name} ended too early ({status}){said}")]
    Died {
        name: &'static str,
        status: String,
        /// Its last words, each on a line.
        said: String,
    },
    #[error("no free port on 127.0.0.1: {0}")]
    NoPort(std::io::Error),
    #[error("the broker did not answer on {address} within {seconds} s{said}")]
    NotReady {
        address: String,
        seconds: u64,
        said: String,
    },
    #[error(
        "another broker answers on {0}, not this demo's: nothing was sent to it. Run the demo again"
    )]
    Stranger(String),
    #[error("asking the broker: {0}")]
    Client(#[from] wire::client::ClientError),
    #[error("{name} did not end within {seconds} s and was killed{said}")]
    Stuck {
        name: &'static str,
        seconds: u64,
        said: String,
    },
    #[error(
        "nothing was stored for {seconds} s while {left} records wait; run the demo again to store them{said}"
    )]
    NothingStored {
        seconds: u64,
        left: i64,
        said: String,
    },
    #[error("given up; run the demo again to store what is not stored yet")]
    GivenUp,
    #[error("not all is well: {0}")]
    NotStored(String),
    #[error("cannot run: {0}")]
    System(#[from] std::io::Error),
}

/// Runs the demo to its end. Blocking: builds its own runtime on its own thread, so it may be
/// called with or without a runtime around it.
pub fn run(args: DemoArgs) -> ExitCode {
    if let Some(parent) = args.child_of {
        return child::become_program(parent, &args.program);
    }
    let work = move || -> Result<(), DemoError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(session::demo(args))
    };
    let done = thread::Builder::new()
        .name("demo".into())
        .spawn(work)
        .map_err(DemoError::System)
        .and_then(|thread| {
            let ended = thread.join();
            ended.unwrap_or_else(|_| Err(DemoError::System(std::io::Error::other("a bug"))))
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            view::complain(&format!("demo: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, FromArgMatches};

    fn parse(arguments: &[&str]) -> Result<DemoArgs, clap::Error> {
        let command = DemoArgs::augment_args(clap::Command::new("demo"));
        let all = std::iter::once(&"demo").chain(arguments);
        DemoArgs::from_arg_matches(&command.try_get_matches_from(all)?)
    }

    #[test]
    fn what_the_demo_cannot_do_is_refused_before_it_starts() {
        let args = parse(&["--count", "10", "--rate", "max", "--format", "parquet"]).unwrap();
        assert_eq!((args.count, args.format), (Some(10), Format::Parquet));
        for wrong in [
            ["--rate", "fast"],
            ["--rate", "0"],
            ["--format", "xml"],
            ["--count", "-1"],
        ] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn help_does_not_mention_what_only_the_demo_itself_uses() {
        let mut command = DemoArgs::augment_args(clap::Command::new("demo"));
        let help = command.render_long_help().to_string();
        assert!(help.contains("--lake") && !help.contains("child"), "{help}");
        assert!(!help.to_lowercase().contains("[program]"), "{help}");
    }
}
