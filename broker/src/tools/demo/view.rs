//! What the demo shows: a few lines redrawn in place on a terminal, one line a second elsewhere.

use std::io::{self, IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

/// The numbers of this run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Records acknowledged, as the producer said last.
    pub acknowledged: u64,
    /// Records in objects.
    pub stored: u64,
    pub objects: u64,
    pub bytes: u64,
    /// Records that were in the topic, but not stored, at the start.
    pub backlog: u64,
}

impl Numbers {
    /// New records in the broker. The consumer may have seen some that the producer, which
    /// speaks once a second, has not told of yet.
    pub fn produced(&self) -> u64 {
        self.acknowledged
            .max(self.stored.saturating_sub(self.backlog))
    }

    /// Records in the broker that are not stored yet.
    pub fn lag(&self) -> u64 {
        (self.backlog + self.produced()).saturating_sub(self.stored)
    }
}

/// Standard output.
pub struct Screen {
    terminal: bool,
    /// Lines of the view now on the screen, to be drawn over.
    drawn: Vec<String>,
    started: Instant,
    last_plain: Option<Duration>,
}

impl Screen {
    pub fn new(now: Instant) -> Screen {
        Screen {
            terminal: stdout().is_terminal(),
            drawn: Vec::new(),
            started: now,
            last_plain: None,
        }
    }

    /// Shows the numbers. An error means that nobody looks any more.
    pub fn show(&mut self, numbers: &Numbers, doing: &str, now: Instant) -> io::Result<()> {
        let age = now.duration_since(self.started);
        if self.terminal {
            let lines = panel(numbers, doing, age);
            if lines == self.drawn {
                return Ok(());
            }
            let text = format!("{}{}\n", self.erase(), lines.join("\n"));
            self.drawn = lines;
            return put(&text);
        }
        let due = self.last_plain.map(|last| last + Duration::from_secs(1));
        if due.is_some_and(|due| age < due) {
            return Ok(());
        }
        self.last_plain = Some(age);
        put(&format!("{}\n", plain(numbers, doing)))
    }

    /// Says something above the view.
    pub fn say(&mut self, text: &str) -> io::Result<()> {
        let text = format!("{}{text}\n", self.erase());
        self.drawn.clear();
        put(&text)
    }

    /// Leaves the view as it is.
    pub fn settle(&mut self) {
        self.drawn.clear();
    }

    fn erase(&self) -> String {
        match self.drawn.len() {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }
}

fn put(text: &str) -> io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A message on standard error; if that is closed, nobody is left to tell.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn panel(numbers: &Numbers, doing: &str, age: Duration) -> Vec<String> {
    let seconds = age.as_secs();
    vec![
        format!("  records produced  {:>12}", grouped(numbers.produced())),
        format!("  records stored    {:>12}", grouped(numbers.stored)),
        format!(
            "  objects written   {:>12}  {}",
            grouped(numbers.objects),
            byte_size(numbers.bytes)
        ),
        format!("  lag               {:>12}", grouped(numbers.lag())),
        format!("  {:02}:{:02} {doing}", seconds / 60, seconds % 60),
    ]
}

fn plain(numbers: &Numbers, doing: &str) -> String {
    format!(
        "records produced {}, records stored {}, objects written {}, lag {} ({doing})",
        grouped(numbers.produced()),
        grouped(numbers.stored),
        grouped(numbers.objects),
        grouped(numbers.lag())
    )
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

/// A number and its noun.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!(
        "{} {}",
        grouped(number),
        if number == 1 { one } else { many }
    )
}

/// Bytes with a unit of 1000.
pub fn byte_size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["bytes", "kB", "MB"] {
        if size < 999.95 {
            let decimals = usize::from(unit != "bytes");
            return format!("{size:.decimals$} {unit}");
        }
        size /= 1000.0;
    }
    format!("{size:.1} GB")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: Numbers = Numbers {
        acknowledged: 1_234,
        stored: 1_200,
        objects: 12,
        bytes: 240_000,
        backlog: 6,
    };

    #[test]
    fn the_view_shows_all_four_numbers() {
        assert_eq!(NUMBERS.lag(), 40);
        assert_eq!(
            plain(&NUMBERS, "streaming"),
            "records produced 1,234, records stored 1,200, objects written 12, lag 40 (streaming)"
        );
        let lines = panel(&NUMBERS, "streaming", Duration::from_secs(75)).join("\n");
        for part in ["1,234", "1,200", "12  240.0 kB", "40", "01:15 streaming"] {
            assert!(lines.contains(part), "{part} in {lines}");
        }
        let widest = lines.lines().map(str::len).max().unwrap();
        assert!(widest < 60, "a wrapped line would spoil the redraw");
    }

    #[test]
    fn what_is_stored_was_produced_whoever_speaks_first() {
        let numbers = Numbers {
            acknowledged: 10,
            stored: 15,
            backlog: 2,
            ..Numbers::default()
        };
        assert_eq!((numbers.produced(), numbers.lag()), (13, 0));
    }
}
