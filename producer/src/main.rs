//! `producer`: streams stock market ticks from a CSV file or a generator into a Kafka topic.
//! This file ties the parts together: source → stream → client, with reports on the side.

mod args;
mod report;
mod source;
mod stream;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;
use wire::client::producer::{Acks, Producer, ProducerConfig};
use wire::client::{ClientConfig, ClientError};

use crate::args::Args;
use crate::report::status::StatusLines;
use crate::report::{Console, Tally, grouped, progress, summary};
use crate::source::{Source, generator};
use crate::stream::rate::Pacer;
use crate::stream::sink::TopicSink;
use crate::stream::{End, Stop};

/// How long a broker may take to appear.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two attempts meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// `timeout`, shells and supervisors send a signal to the process and again to its group: signals
/// so close to each other are one.
const ONE_PRESS: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(path) = &args.generate_csv {
        return generate_csv(path, &args);
    }
    let bar = progress::bar(expected_records(&args), args.quiet);
    let console = Console::new(bar.clone(), args.quiet);
    start_logging(&args, console.clone());
    let done = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))
        .and_then(|runtime| {
            let done = runtime.block_on(produce(&args, &console, bar));
            // The source's thread may hang in a read: it is left behind.
            runtime.shutdown_background();
            done
        });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            console.error(&problem);
            ExitCode::FAILURE
        }
    }
}

/// Runs the whole stream. True if everything taken was acknowledged and nothing else went wrong.
async fn produce(
    args: &Args,
    console: &Console,
    bar: indicatif::ProgressBar,
) -> Result<bool, String> {
    let source = Source::open(&args.source_options()).map_err(|error| error.to_string())?;
    if let Some(note) = &source.note {
        console.note(note);
    }
    let source_name = source.name.clone();
    let items = source
        .spawn()
        .map_err(|error| format!("cannot start the reader: {error}"))?;
    let sink = connect(args, console).await?;
    console.note(&format!(
        "streaming {source_name} to {} at {}, {}; Ctrl-C stops",
        args.topic, args.bootstrap_server, args.rate
    ));

    let tally = Arc::new(Tally::default());
    let (stopper, stop) = watch::channel(Stop::No);
    watch_signals(stopper.clone())?;
    let status = match args.status {
        Some(_) => Some(
            StatusLines::start(Arc::clone(&tally), stopper.clone())
                .map_err(|error| format!("cannot start the status lines: {error}"))?,
        ),
        None => None,
    };
    let follower = tokio::spawn(progress::follow(
        bar.clone(),
        Arc::clone(&tally),
        console.clone(),
    ));
    let started = Instant::now();
    let pacer = Pacer::new(args.rate);
    let end = stream::run(&sink, items, pacer, stop, &tally, console).await;
    let took = started.elapsed();
    follower.abort();
    bar.finish_and_clear();
    if end != End::Abandoned {
        let _ = sink.producer.close().await;
    }
    if let Some(status) = status {
        status.finish();
    }

    let counts = tally.counts();
    let good = counts.all_acknowledged() && matches!(end, End::Complete | End::Stopped);
    if let End::Source(problem) | End::Refused(problem) = &end {
        console.error(problem);
    }
    let last_word = summary::summary(&counts, &end, &args.topic, args.acks, took);
    if good {
        console.note(&last_word);
    } else {
        console.error(&last_word);
    }
    Ok(good)
}

async fn connect(args: &Args, console: &Console) -> Result<TopicSink, String> {
    let config = ProducerConfig {
        client: ClientConfig {
            client_id: args.client_id.clone(),
            ..ClientConfig::new(&args.bootstrap_server)
        },
        acks: args.acks,
        compression: args.compression,
        idempotent: args.acks == Acks::All && !args.no_idempotence,
        delivery_timeout: args.delivery_timeout,
        ..ProducerConfig::default()
    };
    let producer = first_answer(config, console).await?;
    Ok(TopicSink {
        producer,
        topic: args.topic.clone(),
    })
}

/// A broker that is just starting, or starting again, is waited for.
async fn first_answer(config: ProducerConfig, console: &Console) -> Result<Producer, String> {
    let asked = Instant::now();
    let mut told = false;
    loop {
        let error = match Producer::new(config.clone()).await {
            Ok(producer) => return Ok(producer),
            Err(error) => error,
        };
        let ClientError::NoBrokers { tried } = &error else {
            return Err(error.to_string());
        };
        if asked.elapsed() > PATIENCE {
            return Err(format!(
                "{error}\nNo broker yet? Start one with: mini-broker\nIs it elsewhere? Name it: producer --bootstrap-server HOST:PORT"
            ));
        }
        if !std::mem::replace(&mut told, true) {
            let seconds = PATIENCE.as_secs();
            console.note(&format!(
                "no broker answers ({tried}); trying again for {seconds} s"
            ));
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// The first signal ends the stream in good order, the second at once.
fn watch_signals(stopper: watch::Sender<Stop>) -> Result<(), String> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    tokio::spawn(async move {
        let mut last: Option<Instant> = None;
        loop {
            tokio::select! {
                Some(()) = interrupt.recv() => {}
                Some(()) = terminate.recv() => {}
                else => return,
            }
            if last.is_some_and(|at| at.elapsed() < ONE_PRESS) {
                continue;
            }
            last = Some(Instant::now());
            stopper.send_modify(|stop| {
                *stop = match *stop {
                    Stop::No => Stop::Drain,
                    Stop::Drain | Stop::Abandon => Stop::Abandon,
                };
            });
        }
    });
    Ok(())
}

/// How many records there will be, where that is known beforehand.
fn expected_records(args: &Args) -> Option<u64> {
    let all = match (&args.data, args.repeat) {
        (None, false) => Some(generator::ROWS.saturating_sub(args.start_row)),
        _ => None,
    };
    match (all, args.count) {
        (Some(all), Some(count)) => Some(all.min(count)),
        (all, count) => count.or(all),
    }
}

fn start_logging(args: &Args, console: Console) {
    let level = match args.verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(console)
        .without_time()
        .with_target(false)
        .init();
}

fn generate_csv(path: &Path, args: &Args) -> ExitCode {
    let to_stdout = path == Path::new("-");
    let write = |out: &mut dyn Write| {
        let mut out = BufWriter::new(out);
        let rows = generator::write_csv(&mut out, args.seed, args.count)?;
        out.flush()?;
        Ok(rows)
    };
    let written: io::Result<u64> = if to_stdout {
        write(&mut io::stdout().lock())
    } else {
        File::create(path).and_then(|mut file| write(&mut file))
    };
    let console = Console::new(indicatif::ProgressBar::hidden(), args.quiet);
    match written {
        Ok(rows) => {
            if !to_stdout {
                let (rows, path) = (grouped(rows), path.display());
                console.note(&format!(
                    "{rows} rows in {path}; stream them with: producer --data {path}"
                ));
            }
            ExitCode::SUCCESS
        }
        // `producer --generate-csv - | head` has read enough.
        Err(error) if to_stdout && error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            console.error(&format!("cannot write {}: {error}", path.display()));
            ExitCode::FAILURE
        }
    }
}
