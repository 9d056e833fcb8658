//! The `mini-broker` command: reads what was typed, starts the broker, ends it on a signal.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use mini_broker::args::{Args, Command};
use mini_broker::{Broker, config};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let args = Args::parse();
    if args.help_settings {
        print!("{}", config::help_text());
        return ExitCode::SUCCESS;
    }
    if let Some(Command::Demo(demo)) = args.command {
        return mini_broker::tools::demo::run(demo);
    }
    if let Err(error) = init_log(args.log_filter()) {
        eprintln!("mini-broker: --log-level: {error}");
        return ExitCode::from(2);
    }
    let (config, warnings) = match args.config() {
        Ok(resolved) => resolved,
        Err(error) => {
            eprintln!("mini-broker: {error}");
            return ExitCode::from(2);
        }
    };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime.block_on(run(config)),
        Err(error) => {
            eprintln!("mini-broker: the runtime did not start: {error}");
            ExitCode::FAILURE
        }
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
        _ = interrupt.recv() => {
            tracing::warn!("stopped at once; the next start recovers");
            ExitCode::from(130)
        }
    }
}
