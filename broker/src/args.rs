//! The command line of `mini-broker`: what was typed, and how it becomes settings. Knows clap and
//! `config`; starts nothing.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{BrokerConfig, ConfigError, Layers};
use crate::tools::demo::DemoArgs;

const EXAMPLES: &str = "\
Examples:
  mini-broker                                 for this machine, on 127.0.0.1:9092
  mini-broker config/server.properties        with the file of Apache Kafka, as it is
  mini-broker --listen 9192 --data-dir two    a second broker beside it
  mini-broker --listen 0.0.0.0:9092 --advertise 3.91.7.20
                                              for others: 3.91.7.20 is how they reach this machine.
                                              Nothing but your firewall protects it
  mini-broker --override num.partitions=3 --override log.retention.hours=24
  mini-broker demo                            see it work: records stream into ./lake

Ctrl-C ends it cleanly; kill -9 loses nothing that was acknowledged. It logs to standard error.
Exit code: 0 after a clean end, 1 if it could not start or go on, 2 for wrong arguments or settings,
130 if a second Ctrl-C cut the end short.";

/// A Kafka broker in one small process: clients of Apache Kafka connect unchanged.
///
/// Without a word it listens on 127.0.0.1:9092, is node 1 and keeps its data in
/// ./mini-broker-data. Stronger settings win: --override over short flags over the file over the
/// defaults.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "mini-broker",
    version,
    args_conflicts_with_subcommands = true,
    after_long_help = EXAMPLES,
    after_help = "More and examples: --help"
)]
pub struct Args {
    /// Settings as Kafka's server.properties has them; none are needed
    #[arg(value_name = "server.properties")]
    pub config_file: Option<PathBuf>,

    /// Address to listen on: HOST:PORT, HOST or PORT; a PORT alone is one on this machine only, and
    /// 0.0.0.0:PORT one for the whole world (`listeners`)
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,

    /// Address clients are told: `auto`, the default, is the one they used to reach us; behind a
    /// NAT, as on EC2, name the public one (`advertised.listeners`)
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
    #[arg(long, value_name = "LEVEL", value_parser = log_level)]
    pub log_level: Option<String>,

    /// Log more: -v is debug, -vv is trace
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Print every setting with its meaning and default, and end
    #[arg(
        long,
        value_name = "FORM",
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text"
    )]
    pub help_settings: Option<HelpForm>,

    /// What to run instead of the broker
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// How settings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HelpForm {
    /// For reading on a terminal
    Text,
    /// The page docs/CONFIG.md
    Markdown,
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

/// A misspelt level would be taken for the name of a module, and nothing be logged at all.
fn log_level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let good = |part: &str| {
        part.contains(['=', ':', '[']) || LEVELS.iter().any(|l| l.eq_ignore_ascii_case(part))
    };
    match text.split(',').all(|part| good(part.trim())) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "use one of {}, or a filter such as info,mini_broker=debug",
            LEVELS.join(", ")
        )),
    }
}

impl Args {
    /// What is wrong, in the words the settings were given in: a flag by its name.
    pub fn explain(&self, error: &ConfigError) -> String {
        match error {
            ConfigError::File { .. } => format!(
                "{error}. Check the path; no file is needed: `mini-broker` alone starts with the defaults"
            ),
            ConfigError::Value {
                key,
                value,
                allowed,
            } => {
                let overridden = self.overrides.iter().any(|(k, _)| k == key);
                let flags = [
                    ("listeners", "--listen", self.listen.is_some()),
                    (
                        "advertised.listeners",
                        "--advertise",
                        self.advertise.is_some(),
                    ),
                    ("log.dirs", "--data-dir", self.data_dir.is_some()),
                    ("durability", "--durability", self.durability.is_some()),
                ];
                let flag = flags.iter().find(|(name, _, given)| name == key && *given);
                match flag {
                    Some((_, flag, _)) if !overridden => {
                        format!("bad value for {flag} ({key}): '{value}'; allowed is {allowed}")
                    }
                    _ => error.to_string(),
                }
            }
            _ => error.to_string(),
        }
    }

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
    fn what_is_wrong_is_said_in_the_words_it_was_typed_in() {
        let explained = |list: &[&str]| {
            let args = args(list).unwrap();
            args.explain(&args.config().unwrap_err())
        };
        assert!(explained(&["--listen", "99999"]).contains("--listen (listeners): '99999'"));
        let overridden = explained(&["--listen", "1", "--override", "listeners=99999"]);
        assert!(!overridden.contains("--listen"), "{overridden}");
        assert!(explained(&["/nonexistent/x"]).contains("no file is needed"));
    }

    #[test]
    fn a_misspelt_log_level_is_refused() {
        for good in [
            "info",
            "WARN",
            "info,mini_broker=debug",
            "mini_broker::log=trace",
        ] {
            assert!(args(&["--log-level", good]).is_ok(), "{good}");
        }
        for bad in ["blah", "info,verbos", ""] {
            assert!(args(&["--log-level", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn help_for_settings_is_a_flag_with_an_optional_form() {
        let form = |list: &[&str]| args(list).unwrap().help_settings;
        assert_eq!(form(&[]), None);
        assert_eq!(form(&["--help-settings"]), Some(HelpForm::Text));
        let markdown = form(&["--help-settings=markdown"]);
        assert_eq!(markdown, Some(HelpForm::Markdown));
        let help = <Args as clap::CommandFactory>::command()
            .render_long_help()
            .to_string();
        assert!(help.contains("--advertise 3.91.7.20") && help.contains("Exit code"));
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
