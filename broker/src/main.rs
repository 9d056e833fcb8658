//! The `mini-broker` command: reads what was typed, starts the broker, ends it on a signal.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use mini_broker::args::{Args, Command, HelpForm};
use mini_broker::{Broker, config};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(form) = args.help_settings {
        let text = match form {
            HelpForm::Text => config::help_text(),
            HelpForm::Markdown => config::markdown(),
        };
        // Who pipes it into `head` has seen enough.
        let _ = std::io::stdout().write_all(text.as_bytes());
        return ExitCode::SUCCESS;
    }
    if let Some(Command::Demo(demo)) = args.command {
        return mini_broker::tools::demo::run(demo);
    }
    if let Err(error) = init_log(args.log_filter()) {
        eprintln!("mini-broker: the filter of --log-level cannot be read: {error}");
        return ExitCode::from(2);
    }
    let (config, warnings) = match args.config() {
        Ok(resolved) => resolved,
        Err(error) => {
            eprintln!("mini-broker: {}", args.explain(&error));
            return ExitCode::from(2);
        }
    };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    raise_open_files();
    match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => {
            let code = runtime.block_on(run(config));
            // "Stop at once" does not wait for blocking work; after a clean stop there is none.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            eprintln!("mini-broker: the runtime did not start: {error}");
            ExitCode::FAILURE
        }
    }
}

/// As many open files as this user may have, as the JVM does it for Kafka.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

fn init_log(filter: &str) -> Result<(), String> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).map_err(|e| e.to_string())?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}

async fn run(config: config::BrokerConfig) -> ExitCode {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        eprintln!("mini-broker: signals cannot be received");
        return ExitCode::FAILURE;
    };
    let started = std::time::Instant::now();
    let listeners = config.listeners.clone();
    let starting = tokio::select! {
        started = Broker::start(config) => started,
        _ = terminate.recv() => return ExitCode::SUCCESS,
        _ = interrupt.recv() => return ExitCode::SUCCESS,
    };
    let broker = match starting {
        Ok(broker) => broker,
        Err(error) => {
            eprintln!("mini-broker: {error}");
            return ExitCode::FAILURE;
        }
    };
    tracing::info!(
        cluster_id = broker.cluster_id(),
        took_ms = started.elapsed().as_millis() as u64,
        "started"
    );
    for line in mini_broker::start_lines(&broker, &listeners) {
        match line.strip_prefix("WARNING: ") {
            Some(warning) => tracing::warn!("{warning}"),
            None => tracing::info!("{line}"),
        }
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: finishing requests in flight and flushing (once more: stop at once)");
    tokio::select! {
        () = broker.shutdown() => {
            tracing::info!("stopped cleanly");
            ExitCode::SUCCESS
        }
        _ = async { tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} } } => {
            tracing::warn!("stopped at once; the next start recovers");
            ExitCode::from(130)
        }
    }
}
