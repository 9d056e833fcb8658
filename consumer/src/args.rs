//! The command line. Knows what can be asked for; does nothing.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::encode::Format;
use crate::rotate::Rules;

const EXAMPLES: &str = "\
Examples:
  consumer
      every record of stock_market_data into ./lake, 10,000 to an object or what came in 10 seconds
  consumer --topic ticks --to s3://my-bucket/lake --rotate-records 1
      one object per record, as the tutorial does it
  consumer --topic ticks --to s3://lake --endpoint-url http://127.0.0.1:7070 --format parquet
      a store that speaks S3, on this machine
  consumer --topic ticks --once
      what is there now, then end

Objects are named <topic>/partition=<n>/<topic>+<n>+<first offset>.<format>. Every record ends up in
exactly one of them, through crashes of this program, the broker or the store: offsets are committed
only after the object is stored, and after a restart what was stored but not committed is recognised.

Credentials for S3 come from the usual places: environment, ~/.aws, container or instance role. (AWS
IAM Identity Center logins: export them first with `aws configure export-credentials --format env`.)
They need s3:PutObject, s3:GetObject and s3:ListBucket.

Exit codes: 0 all that was read is stored and committed · 1 something has to be done first, the last
line says what · 2 wrong arguments · 130 a second Ctrl-C (nothing is lost, only read again).";

/// Reads topics as a member of a group and stores every record exactly once, as objects in a folder
/// or in S3.
#[derive(Clone, Debug, Parser)]
#[command(name = "consumer", version, after_help = EXAMPLES)]
pub struct Args {
    /// Brokers to ask first: host:port, several with commas
    #[arg(
        long,
        short = 'b',
        visible_alias = "brokers",
        default_value = "127.0.0.1:9092",
        value_name = "HOST:PORT"
    )]
    pub bootstrap_server: String,

    /// Topic to read; may be given several times, or several with commas
    #[arg(
        long,
        short = 't',
        default_value = "stock_market_data",
        value_delimiter = ',',
        value_name = "TOPIC"
    )]
    pub topic: Vec<String>,

    /// Consumer group: remembers how far was stored, and shares the partitions among its members
    #[arg(long, short = 'g', default_value = "lake", value_name = "NAME")]
    pub group: String,

    /// Name of this member that stays the same over restarts (static membership): after a crash it
    /// has its partitions back at once. No two running members may share it
    #[arg(long, value_name = "NAME")]
    pub instance_id: Option<String>,

    /// Where objects go: a folder, or s3://bucket/prefix
    #[arg(long, default_value = "./lake", value_name = "PLACE", value_parser = parse_target)]
    pub to: Target,

    /// URL of an S3-compatible store; the bucket is then addressed in the path
    #[arg(long, value_name = "URL")]
    pub endpoint_url: Option<String>,

    /// AWS region of the bucket [default: from the environment or profile, else us-east-1]
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,

    /// What objects are written as
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub format: Format,

    /// Records per object, at most; objects end at offsets that are multiples of it. 0: no limit
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub rotate_records: u64,

    /// Bytes of record values after which an object ends (k, M, G: units of 1024)
    #[arg(long, default_value = "8M", value_name = "BYTES", value_parser = parse_bytes)]
    pub rotate_bytes: usize,

    /// How long the first record of an object waits for others (ms, s, m, h)
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_time)]
    pub rotate_interval: Duration,

    /// Stop at the ends the partitions have at the start, with everything stored and committed
    #[arg(long)]
    pub once: bool,

    /// Memory for records that are not stored yet; reading pauses beyond it
    #[arg(long, default_value = "48M", value_name = "BYTES", value_parser = parse_bytes)]
    pub memory_budget: usize,

    /// Objects being stored at the same time
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub max_in_flight: u16,

    /// Silence after which the group gives this member's partitions to others (6s to 30m)
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_time)]
    pub session_timeout: Duration,

    /// Say on standard output what is going on, a line of JSON each second and at changes
    #[arg(long, value_enum, value_name = "HOW")]
    pub status: Option<Status>,
}

/// How the state is told to programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Status {
    /// {"records_stored":N,"objects_written":N,"bytes_written":N,"lag":N,"final":false}; lag is -1
    /// until it is known; the last line has "final":true and "skipped_existing"
    Json,
}

/// Where objects go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Folder(PathBuf),
    S3 { bucket: String, prefix: String },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Folder(path) => write!(f, "{}", path.display()),
            Target::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl Args {
    pub fn rules(&self) -> Rules {
        Rules {
            records: self.rotate_records,
            bytes: self.rotate_bytes.max(1),
            interval: self.rotate_interval,
        }
    }

    /// What will happen, for people: without it a quiet start looks like a fault.
    pub fn welcome(&self) -> String {
        let records = match self.rotate_records {
            0 => String::new(),
            1 => "each record, ".into(),
            n => format!("{n} records, "),
        };
        format!(
            "storing {} from {} in {}, group {}; an object ends after {records}{} or {:?}; {}",
            self.topic.join(", "),
            self.bootstrap_server,
            self.to,
            self.group,
            indicatif::HumanBytes(self.rotate_bytes as u64),
            self.rotate_interval,
            match self.once {
                true => "ends by itself",
                false => "Ctrl-C stops",
            }
        )
    }

    /// Arguments that are right each for itself, but not together.
    pub fn check(&self) -> Result<(), String> {
        if matches!(self.to, Target::Folder(_))
            && (self.endpoint_url.is_some() || self.region.is_some())
        {
            return Err(
                "--endpoint-url and --region are for S3: give --to s3://bucket/prefix as well"
                    .into(),
            );
        }
        if let Some(topic) = self.topic.iter().find(|t| !crate::store::is_safe_topic(t)) {
            return Err(format!(
                "--topic {topic:?}: names of topics have letters, digits, '.', '_' and '-', at most 249 of them"
            ));
        }
        Ok(())
    }
}

fn parse_target(text: &str) -> Result<Target, String> {
    let Some(rest) = text.strip_prefix("s3://") else {
        return match text {
            "" => Err("give a folder, or s3://bucket/prefix".into()),
            _ if text.contains("://") => Err("give a folder, or s3://bucket/prefix".into()),
            _ => Ok(Target::Folder(text.into())),
        };
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err("the bucket's name is missing: s3://bucket/prefix".into());
    }
    Ok(Target::S3 {
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
    })
}

fn split_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    Some((number.parse().ok()?, unit.trim()))
}

fn parse_bytes(text: &str) -> Result<usize, String> {
    let bytes = split_unit(text).and_then(|(number, unit)| {
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            _ => return None,
        };
        let bytes = number * factor as f64;
        (1.0..=(4u64 << 30) as f64)
            .contains(&bytes)
            .then_some(bytes as usize)
    });
    bytes.ok_or_else(|| "give a size from 1 to 4G, like 500000, 64k, 8M".into())
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let time = split_unit(text).and_then(|(number, unit)| {
        let ms = match unit {
            "ms" => 1.0,
            "" | "s" => 1000.0,
            "m" | "min" => 60_000.0,
            "h" => 3_600_000.0,
            _ => return None,
        };
        let ms = number * ms;
        (1.0..=366.0 * 86_400_000.0)
            .contains(&ms)
            .then(|| Duration::from_millis(ms as u64))
    });
    time.ok_or_else(|| "give a time from 1ms to a year, like 500ms, 10s, 5m, 1h".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_sizes_and_times() {
        assert_eq!(parse_target("./lake"), Ok(Target::Folder("./lake".into())));
        let s3 = |bucket: &str, prefix: &str| {
            Ok(Target::S3 {
                bucket: bucket.into(),
                prefix: prefix.into(),
            })
        };
        assert_eq!(parse_target("s3://b/a/c/"), s3("b", "a/c"));
        assert_eq!(parse_target("s3://b"), s3("b", ""));
        assert!(
            parse_target("s3:///x").is_err()
                && parse_target("gs://b").is_err()
                && parse_target("").is_err()
        );
        assert_eq!(parse_bytes("8M"), Ok(8 << 20));
        assert_eq!(parse_bytes("1.5 k"), Ok(1536));
        assert_eq!(parse_time("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_time("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "x", "-1", "5 y", "0", "1e99", "99999999h"] {
            assert!(
                parse_bytes(bad).is_err() && parse_time(bad).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn flags_as_people_give_them() {
        let args = Args::try_parse_from([
            "consumer",
            "--topic",
            "a,b",
            "--topic",
            "c",
            "--rotate-records",
            "1",
        ]);
        let args = args.unwrap();
        assert_eq!(args.topic, ["a", "b", "c"]);
        assert_eq!(args.rules().records, 1);
        assert!(args.check().is_ok());
        let bad = Args::try_parse_from(["consumer", "--topic", "../x"]).unwrap();
        assert!(bad.check().unwrap_err().contains("../x"));
        let bad = Args::try_parse_from(["consumer", "--topic", "x", "--endpoint-url", "http://h"])
            .unwrap();
        assert!(bad.check().unwrap_err().contains("s3://"));
        let plain = Args::try_parse_from(["consumer"]).unwrap();
        assert_eq!(plain.topic, ["stock_market_data"], "what producer sends to");
        assert_eq!(
            plain.welcome(),
            "storing stock_market_data from 127.0.0.1:9092 in ./lake, group lake; an object ends \
             after 10000 records, 8.00 MiB or 10s; Ctrl-C stops"
        );
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
