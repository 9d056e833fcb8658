//! The command line of `producer`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use wire::client::producer::Acks;
use wire::compress::Compression;

use crate::source::SourceOptions;
use crate::source::feed::Order;
use crate::stream::rate::Rate;

const EXAMPLES: &str = "\
Examples:
  producer                                   one generated tick a second, to 127.0.0.1:9092
  producer --rate max                        all 104,224 generated ticks, as fast as it goes
  producer --data prices.csv --rate 50       your own file, 50 records a second
  producer --order random --loop             random rows for ever, as the tutorial's notebook does
  producer --data trades.csv --key-column Symbol --topic trades
  producer --start-row 1000 --count 500      rows 1000 to 1499
  producer --generate-csv prices.csv         only write the generated ticks to a file

Exit code: 0 if the broker acknowledged every record that was taken from the source, 1 if not,
2 for a wrong command line. Rows that are no rows are reported by line, counted and left out;
they do not change the exit code.";

/// Streams stock market ticks into a Kafka topic, one JSON object a record.
///
/// The ticks come from a CSV file with any header (--data), or from a generator that makes daily
/// prices of 13 stock indices. Each row becomes one JSON object whose keys are the columns in
/// the header's order; numbers stay as they are written, empty fields become null. Ctrl-C stops,
/// after everything taken so far was acknowledged.
#[derive(Debug, Clone, Parser)]
#[command(name = "producer", version, after_long_help = EXAMPLES, after_help = "More and examples: --help")]
pub struct Args {
    /// Brokers to ask first, separated by commas
    #[arg(
        long,
        short = 'b',
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9092",
        help_heading = "Where to"
    )]
    pub bootstrap_server: String,
    /// Topic to send to
    #[arg(
        long,
        short = 't',
        value_name = "NAME",
        default_value = "stock_market_data",
        value_parser = parse_topic,
        help_heading = "Where to"
    )]
    pub topic: String,

    /// CSV file to stream, `-` for standard input; without it ticks are generated
    #[arg(long, value_name = "FILE", help_heading = "What")]
    pub data: Option<PathBuf>,
    /// Seed of the generated ticks and of the random order: equal seeds, equal streams
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "What")]
    pub seed: u64,
    /// Column whose text is the record's key; '' for no keys [default: Index, if there is one]
    #[arg(long, value_name = "COLUMN", help_heading = "What")]
    pub key_column: Option<String>,
    /// Order of the rows
    #[arg(long, value_enum, default_value_t = Order::Sequential, help_heading = "What")]
    pub order: Order,
    /// Skip this many rows: with the number of records sent so far, a stream goes on where it
    /// stopped, in either order
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "What")]
    pub start_row: u64,
    /// Stop after this many records
    #[arg(long, short = 'n', value_name = "N", help_heading = "What")]
    pub count: Option<u64>,
    /// Begin again when all rows were sent
    #[arg(long = "loop", help_heading = "What")]
    pub repeat: bool,

    /// Records a second, fractions allowed, or `max`
    #[arg(
        long,
        short = 'r',
        value_name = "N|max",
        default_value = "1",
        help_heading = "How"
    )]
    pub rate: Rate,
    /// Wait for nobody (0), for the broker's memory (1), or for its disk (all)
    #[arg(
        long,
        value_name = "0|1|all",
        default_value = "all",
        value_parser = parse_acks,
        allow_negative_numbers = true,
        help_heading = "How"
    )]
    pub acks: Acks,
    /// Compress batches: none, gzip, snappy, lz4 or zstd
    #[arg(long, value_name = "CODEC", default_value = "none", value_parser = parse_compression, help_heading = "How")]
    pub compression: Compression,
    /// Do not guard against duplicates when a batch is sent again (implied by acks 0 and 1)
    #[arg(long, help_heading = "How")]
    pub no_idempotence: bool,
    /// Give a record up when it was not acknowledged within this many seconds
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = parse_seconds, help_heading = "How")]
    pub delivery_timeout: Duration,
    /// Name under which the broker knows this client
    #[arg(
        long,
        value_name = "NAME",
        default_value = "producer",
        help_heading = "How"
    )]
    pub client_id: String,

    /// Print a status as one JSON line a second, and a last one, to standard output
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = "Reporting")]
    pub status: Option<StatusFormat>,
    /// Say nothing but warnings and errors
    #[arg(long, short = 'q', help_heading = "Reporting")]
    pub quiet: bool,
    /// Say what the client does; twice for every request
    #[arg(long, short = 'v', action = clap::ArgAction::Count, help_heading = "Reporting")]
    pub verbose: u8,

    /// Write the generated ticks (of --seed; --count evenly spread ones) to FILE, `-` for
    /// standard output, and stop
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "status"], help_heading = "Without a broker")]
    pub generate_csv: Option<PathBuf>,
}

impl Args {
    /// What the source needs to know.
    pub fn source_options(&self) -> SourceOptions {
        SourceOptions {
            data: self.data.clone(),
            seed: self.seed,
            key_column: self.key_column.clone(),
            order: self.order,
            repeat: self.repeat,
            start_row: self.start_row,
            count: self.count,
        }
    }
}

/// How the status is printed for other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatusFormat {
    /// One object a line
    Json,
}

/// Kafka's rule (`Topic.validate`), so that a slip is found before anything is read or sent.
fn parse_topic(text: &str) -> Result<String, String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let good = (1..=249).contains(&text.len()) && text.bytes().all(legal);
    match good && text != "." && text != ".." {
        true => Ok(text.to_owned()),
        false => {
            Err("topic names have letters, digits, '.', '_' and '-', at most 249 of them".into())
        }
    }
}

fn parse_acks(text: &str) -> Result<Acks, String> {
    match text {
        "0" => Ok(Acks::None),
        "1" => Ok(Acks::Leader),
        "all" | "-1" => Ok(Acks::All),
        _ => Err("use 0, 1 or all".into()),
    }
}

fn parse_compression(text: &str) -> Result<Compression, String> {
    Compression::from_str(text).map_err(|_| "use none, gzip, snappy, lz4 or zstd".into())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse::<f64>()
        .ok()
        .filter(|s| (0.1..=86_400.0).contains(s));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "use seconds from 0.1 to 86400".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound_and_the_help_explains() {
        Args::command().debug_assert();
        let help = Args::command().render_long_help().to_string();
        for word in ["--rate", "--start-row", "Exit code", "tutorial", "null"] {
            assert!(help.contains(word), "{word} is missing in {help}");
        }
    }

    #[test]
    fn defaults_are_the_tutorials() {
        let args = Args::parse_from(["producer"]);
        assert_eq!(args.bootstrap_server, "127.0.0.1:9092");
        assert_eq!(args.topic, "stock_market_data");
        assert_eq!(args.rate, Rate::PerSecond(1.0));
        assert_eq!(args.acks, Acks::All);
        assert_eq!(args.delivery_timeout, Duration::from_secs(120));
    }

    #[test]
    fn acks_are_taken_as_kafka_writes_them() {
        let acks = |text| Args::parse_from(["producer", "--acks", text]).acks;
        assert_eq!((acks("-1"), acks("all")), (Acks::All, Acks::All));
        assert_eq!((acks("1"), acks("0")), (Acks::Leader, Acks::None));
    }

    #[test]
    fn wrong_values_are_refused_with_what_is_allowed() {
        for (arguments, want) in [
            (["--acks", "2"], "0, 1 or all"),
            (["--compression", "rar"], "zstd"),
            (["--rate", "0"], "max"),
            (["--delivery-timeout", "soon"], "seconds"),
            (["--order", "upwards"], "sequential"),
            (["--topic", "bad topic"], "letters, digits"),
            (["--topic", ".."], "letters, digits"),
            (["--topic", ""], "letters, digits"),
        ] {
            let all = ["producer"].into_iter().chain(arguments);
            let error = Args::try_parse_from(all).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
