//! What the user and other programs are told: counts, messages, a progress bar, status lines
//! and the last word. Everything for people goes to standard error, status lines to standard
//! output, and a reader that has gone away is no error.

pub mod progress;
pub mod stall;
pub mod status;
pub mod summary;

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use indicatif::ProgressBar;
use tracing_subscriber::fmt::MakeWriter;

/// What became of the records so far.
#[derive(Debug, Default)]
pub struct Tally {
    sent: AtomicU64,
    bytes: AtomicU64,
    acked: AtomicU64,
    failed: AtomicU64,
    malformed: AtomicU64,
}

/// A look at the tally.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records handed to the client.
    pub sent: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    pub acked: u64,
    pub failed: u64,
    /// Rows that made no record.
    pub malformed: u64,
}

impl Tally {
    pub fn taken(&self, bytes: u64) {
        self.sent.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub fn given_back(&self, bytes: u64) {
        self.sent.fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    pub fn acknowledged(&self, records: u64) {
        self.acked.fetch_add(records, Relaxed);
    }

    pub fn failed(&self, records: u64) {
        self.failed.fetch_add(records, Relaxed);
    }

    pub fn malformed(&self) {
        self.malformed.fetch_add(1, Relaxed);
    }

    pub fn counts(&self) -> Counts {
        // Outcomes first: a record in between then looks outstanding, never answered early.
        let (acked, failed) = (self.acked.load(Relaxed), self.failed.load(Relaxed));
        Counts {
            acked,
            failed,
            sent: self.sent.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
        }
    }

    /// Records whose outcome is not known.
    pub fn outstanding(&self) -> u64 {
        self.counts().outstanding()
    }
}

impl Counts {
    pub fn outstanding(&self) -> u64 {
        self.sent.saturating_sub(self.acked + self.failed)
    }

    pub fn all_acknowledged(&self) -> bool {
        self.acked == self.sent
    }
}

/// Standard error, shared with the progress bar.
#[derive(Debug, Clone)]
pub struct Console {
    bar: ProgressBar,
    level: Level,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Silent,
    Quiet,
    Normal,
}

impl Console {
    pub fn new(bar: ProgressBar, quiet: bool) -> Console {
        let level = if quiet { Level::Quiet } else { Level::Normal };
        Console { bar, level }
    }

    /// Says nothing at all.
    #[cfg(test)]
    pub fn silent() -> Console {
        Console {
            bar: ProgressBar::hidden(),
            level: Level::Silent,
        }
    }

    /// What is good to know.
    pub fn note(&self, text: &str) {
        if self.level >= Level::Normal {
            self.print(text.as_bytes(), b"\n");
        }
    }

    pub fn warn(&self, text: &str) {
        self.print(b"warning: ", format!("{text}\n").as_bytes());
    }

    pub fn error(&self, text: &str) {
        self.print(b"error: ", format!("{text}\n").as_bytes());
    }

    fn print(&self, first: &[u8], second: &[u8]) {
        if self.level == Level::Silent {
            return;
        }
        self.bar.suspend(|| {
            let mut stderr = io::stderr().lock();
            // Nowhere is left to complain.
            let _ = stderr.write_all(&[first, second].concat());
        });
    }
}

/// Log lines of the client, between the redraws of the bar.
impl<'a> MakeWriter<'a> for Console {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        LogLine(self)
    }
}

/// One line of the log; the subscriber writes each with a single call.
pub struct LogLine<'a>(&'a Console);

impl Write for LogLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.print(bytes, b"");
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of records.
pub fn records(number: u64) -> String {
    let noun = if number == 1 { "record" } else { "records" };
    format!("{} {noun}", grouped(number))
}

/// Bytes with a unit of 1000.
pub fn byte_size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if size < 999.95 || unit == "GB" {
            let decimals = usize::from(unit != "bytes");
            return format!("{size:.decimals$} {unit}");
        }
        size /= 1000.0;
    }
    String::new()
}
