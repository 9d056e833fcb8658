//! `consumer`: a sink from Kafka topics to objects in a folder or in S3. Thin: arguments, signals,
//! exit codes.

mod args;
mod encode;
mod part;
mod plan;
mod report;
mod rotate;
mod sink;
mod store;
mod upload;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use wire::client::group::{GroupConfig, GroupConsumer, OffsetReset};
use wire::client::{Client, ClientConfig, ClientError};

use args::{Args, Target};
use report::{Report, Totals, complain};
use sink::{Settings, Sink};
use store::{LocalStore, Notices, S3Options, S3Store, Store, retrying};
use upload::Uploader;

/// How long a broker may take to appear at the start.
const PATIENCE: Duration = Duration::from_secs(30);
/// Objects being encoded at the same time.
const ENCODERS: usize = 2;
/// `timeout`, shells and supervisors send a signal to the process and again to its group: signals
/// so close to each other are one.
const ONE_PRESS: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(reason) = args.check() {
        complain(&format!("error: {reason}"));
        return ExitCode::from(2);
    }
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(args));
            // A write that hangs must not hold up the end; the next start recognises it.
            runtime.shutdown_timeout(Duration::from_secs(1));
            result
        }
        Err(e) => Err(format!("cannot start: {e}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            complain(&format!("error: {reason}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), String> {
    let mut report = Report::new(args.status.is_some(), Instant::now());
    let voice = report.voice();
    let stop = listen_for_signals(voice.clone())?;
    let mut stopped = stop.clone();
    let started = tokio::select! {
        started = start(&args, Notices::new(voice)) => started,
        // Nothing was read yet.
        _ = stopped.wait_for(|stop| *stop) => Ok(None),
    };
    match started {
        Ok(Some((consumer, client, uploader))) => {
            if args.status.is_none() {
                complain(&args.welcome());
            }
            let settings = Settings {
                rules: args.rules(),
                once: args.once,
                memory_budget: args.memory_budget,
                max_in_flight: usize::from(args.max_in_flight),
            };
            let sink = Sink::new(consumer, client, uploader, settings, report);
            sink.run(stop).await.map_err(|e| e.to_string())
        }
        other => {
            report.finish(
                Totals::default(),
                None,
                &args.to.to_string(),
                "",
                Instant::now(),
            );
            other.map(drop)
        }
    }
}

type Started = (GroupConsumer, Client, Arc<Uploader>);

async fn start(args: &Args, notices: Notices) -> Result<Option<Started>, String> {
    let store = open_store(args).await;
    let what = format!("looking at {}", store.location());
    retrying(&notices, &what, || store.check())
        .await
        .map_err(|e| e.to_string())?;
    let (client, consumer) = connect(&group_config(args), &notices)
        .await
        .map_err(|e| e.to_string())?;
    let uploader = Uploader {
        store,
        format: args.format,
        notices,
        writer: format!("{:016x}", uuid::Uuid::new_v4().as_u64_pair().0),
        encoders: Semaphore::new(ENCODERS),
    };
    Ok(Some((consumer, client, Arc::new(uploader))))
}

async fn open_store(args: &Args) -> Store {
    match &args.to {
        Target::Folder(path) => Store::Local(LocalStore::new(path)),
        Target::S3 { bucket, prefix } => {
            let options = S3Options {
                bucket: bucket.clone(),
                prefix: prefix.clone(),
                endpoint_url: args.endpoint_url.clone(),
                region: args.region.clone(),
            };
            Store::S3(S3Store::new(options).await)
        }
    }
}

fn group_config(args: &Args) -> GroupConfig {
    let client = ClientConfig {
        client_id: "mini-broker-consumer".to_owned(),
        ..ClientConfig::new(&args.bootstrap_server)
    };
    let mut topics = args.topic.clone();
    topics.sort_unstable();
    topics.dedup();
    GroupConfig {
        client,
        group_id: args.group.clone(),
        instance_id: args.instance_id.clone(),
        topics,
        session_timeout: args.session_timeout,
        rebalance_timeout: Duration::from_secs(60),
        auto_offset_reset: OffsetReset::Earliest,
        fetch_max_bytes: 8 << 20,
        partition_max_bytes: 1 << 20,
        // Records of aborted transactions do not belong in the lake.
        read_committed: true,
        ..GroupConfig::default()
    }
}

/// The broker may be starting at the same moment.
async fn connect(
    config: &GroupConfig,
    notices: &Notices,
) -> Result<(Client, GroupConsumer), ClientError> {
    let started = Instant::now();
    loop {
        let attempt = async {
            let client = Client::connect(config.client.clone()).await?;
            Ok((client, GroupConsumer::new(config.clone()).await?))
        };
        match attempt.await {
            Err(e) if matches!(&e, ClientError::NoBrokers { .. }) || e.is_retriable() => {
                if started.elapsed() > PATIENCE {
                    return Err(e);
                }
                notices.tell("connect", &format!("{e}; tried again"));
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            done => return done,
        }
    }
}

/// The first signal asks for an orderly end, the second ends.
fn listen_for_signals(
    voice: impl Fn(&str) + Send + 'static,
) -> Result<watch::Receiver<bool>, String> {
    let listen = |kind| signal(kind).map_err(|e| format!("cannot listen for signals: {e}"));
    let (mut interrupt, mut terminate) = (
        listen(SignalKind::interrupt())?,
        listen(SignalKind::terminate())?,
    );
    let (tx, rx) = watch::channel(false);
    tokio::spawn(async move {
        let mut asked: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            match asked {
                Some(at) if at.elapsed() < ONE_PRESS => continue,
                Some(_) => std::process::exit(130),
                None => asked = Some(Instant::now()),
            }
            voice("Stopping: storing and committing what was read (Ctrl-C again to end at once)");
            let _ = tx.send(true);
        }
    });
    Ok(rx)
}
