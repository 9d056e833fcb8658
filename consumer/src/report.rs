//! What people and programs see: the live view and the summary on standard error, status lines on
//! standard output. Knows numbers only.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{
    HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle,
};
use serde::Serialize;

/// How often the state is said when nothing changes.
const STEADY: Duration = Duration::from_secs(1);
/// How soon a change is said after the last word.
const QUICK: Duration = Duration::from_millis(100);

/// What this process did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub records_stored: u64,
    pub objects_written: u64,
    pub bytes_written: u64,
    /// Records found in the store that an earlier run or another member had put there.
    pub skipped_existing: u64,
}

#[derive(Serialize)]
struct StatusLine {
    records_stored: u64,
    objects_written: u64,
    bytes_written: u64,
    lag: i64,
    #[serde(rename = "final")]
    last: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped_existing: Option<u64>,
}

/// Tells the state, not too often.
pub struct Report {
    status: bool,
    bar: ProgressBar,
    started: Instant,
    said_at: Option<Instant>,
    said: (Totals, Option<i64>),
    /// Time and records of some seconds ago, for the rate.
    mark: (Instant, u64),
    rate: f64,
}

impl Report {
    /// With a live view if standard error is a terminal.
    pub fn new(status: bool, now: Instant) -> Self {
        let live = std::io::stderr().is_terminal();
        let bar = match live {
            true => ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10)),
            false => ProgressBar::hidden(),
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Report {
            status,
            bar,
            started: now,
            said_at: None,
            said: (Totals::default(), None),
            mark: (now, 0),
            rate: 0.0,
        }
    }

    /// Something that brings a line before people's eyes without breaking the live view.
    pub fn voice(&self) -> impl Fn(&str) + Clone + Send + Sync + 'static {
        let bar = self.bar.clone();
        move |line: &str| bar.suspend(|| complain(line))
    }

    /// Says how things stand, if it is time to.
    pub fn tick(&mut self, totals: Totals, lag: Option<i64>, now: Instant) {
        let changed = self.said != (totals, lag);
        let due = self
            .said_at
            .is_none_or(|at| at + if changed { QUICK } else { STEADY } <= now);
        if due {
            self.measure(totals, now);
            self.said = (totals, lag);
            self.said_at = Some(now);
            self.bar.set_message(live_line(totals, lag, self.rate));
            self.bar.tick();
            self.print(totals, lag, false);
        }
    }

    /// When `tick` has something to say at the latest, if nothing changes.
    pub fn deadline(&self, totals: Totals, lag: Option<i64>) -> Option<Instant> {
        let changed = self.said != (totals, lag);
        self.said_at
            .map(|at| at + if changed { QUICK } else { STEADY })
    }

    /// The last words.
    pub fn finish(
        &mut self,
        totals: Totals,
        lag: Option<i64>,
        place: &str,
        look: &str,
        now: Instant,
    ) {
        self.bar.finish_and_clear();
        complain(&summary(
            totals,
            lag,
            place,
            now.duration_since(self.started),
        ));
        if totals.objects_written > 0 {
            complain(&format!("Look: {look}"));
        }
        self.print(totals, lag, true);
    }

    fn measure(&mut self, totals: Totals, now: Instant) {
        let seconds = now.duration_since(self.mark.0).as_secs_f64();
        if seconds >= 1.0 {
            self.rate = totals.records_stored.saturating_sub(self.mark.1) as f64 / seconds;
            self.mark = (now, totals.records_stored);
        }
    }

    fn print(&self, totals: Totals, lag: Option<i64>, last: bool) {
        if self.status {
            let mut out = std::io::stdout().lock();
            // Nobody listening is no reason to stop storing.
            let _ = writeln!(out, "{}", status_line(totals, lag, last)).and_then(|()| out.flush());
        }
    }
}

/// A line on standard error; if that is closed, nobody wants to know.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn status_line(totals: Totals, lag: Option<i64>, last: bool) -> String {
    let Totals {
        records_stored,
        objects_written,
        bytes_written,
        skipped_existing,
    } = totals;
    let line = StatusLine {
        records_stored,
        objects_written,
        bytes_written,
        lag: lag.unwrap_or(-1),
        last,
        skipped_existing: last.then_some(skipped_existing),
    };
    serde_json::to_string(&line).unwrap_or_default()
}

fn lag_text(lag: Option<i64>) -> String {
    lag.and_then(|l| u64::try_from(l).ok())
        .map_or("?".to_owned(), |l| HumanCount(l).to_string())
}

fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", HumanCount(number))
}

fn live_line(totals: Totals, lag: Option<i64>, rate: f64) -> String {
    format!(
        "{} stored · {} · {} · {rate:.0} records/s · lag {}",
        counted(totals.records_stored, "record"),
        counted(totals.objects_written, "object"),
        HumanBytes(totals.bytes_written),
        lag_text(lag),
    )
}

fn summary(totals: Totals, lag: Option<i64>, place: &str, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    let already = match totals.skipped_existing {
        0 => String::new(),
        n => format!("; {} were there already", HumanCount(n)),
    };
    let took = if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        HumanDuration(took).to_string()
    };
    format!(
        "Stored {} in {} ({}) in {place}{already}; lag {}; took {took}.",
        counted(totals.records_stored, "record"),
        counted(totals.objects_written, "object"),
        HumanBytes(totals.bytes_written),
        lag_text(lag),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTALS: Totals = Totals {
        records_stored: 1000,
        objects_written: 3,
        bytes_written: 2048,
        skipped_existing: 7,
    };

    #[test]
    fn status_lines_have_the_agreed_fields() {
        assert_eq!(
            status_line(TOTALS, Some(5), false),
            r#"{"records_stored":1000,"objects_written":3,"bytes_written":2048,"lag":5,"final":false}"#
        );
        let last = status_line(TOTALS, None, true);
        assert!(
            last.contains(r#""lag":-1,"final":true,"skipped_existing":7"#),
            "{last}"
        );
    }

    #[test]
    fn changes_are_said_soon_and_the_same_once_a_second() {
        let start = Instant::now();
        let mut report = Report::new(false, start);
        report.tick(TOTALS, Some(0), start);
        assert_eq!(report.deadline(TOTALS, Some(0)), Some(start + STEADY));
        let more = Totals {
            records_stored: 2000,
            ..TOTALS
        };
        assert_eq!(report.deadline(more, Some(0)), Some(start + QUICK));
        report.tick(more, Some(0), start + QUICK / 2);
        assert_eq!(report.said.0, TOTALS);
        report.tick(more, Some(0), start + QUICK);
        assert_eq!(report.said.0, more);
    }

    #[test]
    fn the_summary_says_what_was_found() {
        let text = summary(TOTALS, Some(0), "./lake", Duration::from_millis(2500));
        assert_eq!(
            text,
            "Stored 1,000 records in 3 objects (2.00 KiB) in ./lake; 7 were there already; lag 0; took 2.5 s."
        );
        let one = Totals {
            records_stored: 1,
            objects_written: 1,
            ..Totals::default()
        };
        let text = summary(one, None, "./lake", Duration::ZERO);
        assert!(text.starts_with("Stored 1 record in 1 object ("), "{text}");
    }
}
