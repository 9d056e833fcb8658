//! The command line of `mini-broker`: what was typed, and how it becomes settings. Knows clap and
//! `config`; starts nothing.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::{BrokerConfig, ConfigError, Layers};
use crate::tools::demo::DemoArgs;

/// A Kafka broker in one small process.
///
/// Without a word it listens on 127.0.0.1:9092, is node 1 and keeps its data in
/// ./mini-broker-data. Stronger settings win: --override over short flags over the file over the
/// defaults.
#[derive(Debug, Clone, Parser)]
#[command(name = "mini-broker", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Settings as Kafka's server.properties has them
    #[arg(value_name = "server.properties")]
    pub config_file: Option<PathBuf>,

    /// Address to listen on: HOST:PORT, HOST or PORT; 0.0.0.0 is the whole world (`listeners`)
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,

    /// Address clients are told: `auto` is the one they used to reach us (`advertised.listeners`)
    #[arg(long, value_name = "auto|HOST[:PORT]")]
    pub advertise: Option<String>,

    /// Where the data is kept (`log.dirs`)
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// What acks=all means: `disk` survives a power cut, `os` is faster and survives a crash of
    /// the broker (`durability`)
    #[arg(long, value_name = "disk|os")]
    pub durability: Option<String>,

    /// Any setting, once or more
    #[arg(long = "override", value_name = "KEY=VALUE", value_parser = key_value)]
    pub overrides: Vec<(String, String)>,

    /// What to log: off, error, warn, info, debug, trace, or a filter such as `info,mini_broker=debug`
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// Log more: -v is debug, -vv is trace
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Print every setting with its meaning and default, and end
    #[arg(long)]
    pub help_settings: bool,

    /// What to run instead of the broker
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the binary can do besides being a broker.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Broker, producer and consumer together, with a live view
    Demo(DemoArgs),
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("write it as KEY=VALUE, such as num.partitions=3".into()),
    }
}

impl Args {
    /// The configuration that was asked for, and what there is to warn of.
    pub fn config(&self) -> Result<(BrokerConfig, Vec<String>), ConfigError> {
        let mut layers = Layers::default();
        if let Some(file) = &self.config_file {
            layers.push_file(file)?;
        }
        let data_dir = self.data_dir.as_ref().map(|d| d.display().to_string());
        let flags = [
            ("listeners", &self.listen),
            ("advertised.listeners", &self.advertise),
            ("log.dirs", &data_dir),
            ("durability", &self.durability),
        ];
        layers.push(
            flags
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)))
                .collect(),
        );
        layers.push(self.overrides.clone());
        layers.resolve()
    }

    /// The filter for the log, as tracing's `EnvFilter` takes it.
    pub fn log_filter(&self) -> &str {
        match (&self.log_level, self.verbose) {
            (Some(level), _) => level,
            (None, 0) => "info",
            (None, 1) => "info,mini_broker=debug",
            (None, _) => "info,mini_broker=trace",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(list: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["mini-broker"], list].concat())
    }

    fn config(list: &[&str]) -> BrokerConfig {
        let (config, warnings) = args(list).unwrap().config().unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        config
    }

    #[test]
    fn nothing_is_the_defaults() {
        assert_eq!(config(&[]), BrokerConfig::default());
        assert_eq!(args(&[]).unwrap().log_filter(), "info");
    }

    #[test]
    fn override_over_flag_over_file_over_default() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("server.properties");
        let text = "num.partitions=2\nlog.dirs=/file\nlisteners=PLAINTEXT://:1\ndurability=os\n";
        std::fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let config = config(&[
            file,
            "--listen",
            "127.0.0.1:3",
            "--data-dir",
            "/flag",
            "--advertise",
            "h.example",
            "--override",
            "log.dirs=/override",
            "--override",
            "broker.rack=a=b",
        ]);
        assert_eq!(config.num_partitions, 2);
        assert_eq!(config.listeners.show_text(), "PLAINTEXT://127.0.0.1:3");
        assert_eq!(config.data_dir, std::path::Path::new("/override"));
        assert_eq!(config.durability, crate::config::Durability::Os);
        assert_eq!(config.broker_rack.as_deref(), Some("a=b"));
        let told = config
            .advertised_listeners
            .for_listener(&config.listeners[0]);
        assert_eq!(told, Some(("h.example", 3)));
    }

    #[test]
    fn refusals() {
        assert!(args(&["--override", "novalue"]).is_err());
        assert!(args(&["--nonsense"]).is_err());
        let bad = args(&["--durability", "never"]).unwrap().config();
        assert!(bad.unwrap_err().to_string().contains("disk, os"));
        let missing = args(&["/nonexistent/server.properties"]).unwrap().config();
        assert!(missing.unwrap_err().to_string().contains("/nonexistent"));
    }

    #[test]
    fn demo_is_a_command() {
        let args = args(&["demo"]).unwrap();
        assert!(matches!(args.command, Some(Command::Demo(_))));
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
