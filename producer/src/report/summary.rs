//! The last word, for people.

use std::time::Duration;

use wire::client::producer::Acks;

use super::{Counts, byte_size, grouped, records};
use crate::stream::End;

/// What came of the whole stream.
pub fn summary(counts: &Counts, end: &End, topic: &str, acks: Acks, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(0.001);
    let mut text = format!(
        "{} ({}) to {topic} in {seconds:.1} s, {} a second: ",
        records(counts.sent),
        byte_size(counts.bytes),
        rate(counts.acked as f64 / seconds),
    );
    if counts.sent == 0 {
        text = format!("no record was sent to {topic}");
    } else if counts.all_acknowledged() && acks == Acks::None {
        text += "all sent, none acknowledged (--acks 0)";
    } else if counts.all_acknowledged() {
        text += "all acknowledged";
    } else {
        text += &format!("{} acknowledged", grouped(counts.acked));
        if counts.failed > 0 {
            text += &format!(", {} FAILED", grouped(counts.failed));
        }
        if counts.outstanding() > 0 {
            text += &format!(
                ", {} given up without an answer (the broker may hold them or not)",
                grouped(counts.outstanding())
            );
        }
    }
    if counts.malformed > 0 {
        let rows = if counts.malformed == 1 { "row" } else { "rows" };
        text += &format!("; {} malformed {rows} left out", grouped(counts.malformed));
    }
    if *end == End::Stopped {
        text += "; stopped before the end";
    }
    text
}

fn rate(per_second: f64) -> String {
    if per_second < 10.0 {
        format!("{per_second:.1}")
    } else {
        grouped(per_second as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(sent: u64, acked: u64, failed: u64, malformed: u64, end: End) -> String {
        let counts = Counts {
            sent,
            acked,
            failed,
            malformed,
            bytes: 1_234_567,
        };
        summary(&counts, &end, "t", Acks::All, Duration::from_secs(2))
    }

    #[test]
    fn says_what_happened() {
        assert_eq!(
            text(104_224, 104_224, 0, 0, End::Complete),
            "104,224 records (1.2 MB) to t in 2.0 s, 52,112 a second: all acknowledged"
        );
        assert_eq!(
            text(10, 7, 2, 1, End::Abandoned),
            "10 records (1.2 MB) to t in 2.0 s, 3.5 a second: 7 acknowledged, 2 FAILED, 1 given up without an answer (the broker may hold them or not); 1 malformed row left out"
        );
        assert_eq!(
            text(0, 0, 0, 3, End::Stopped),
            "no record was sent to t; 3 malformed rows left out; stopped before the end"
        );
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(byte_size(999), "999 bytes");
        assert_eq!(byte_size(1_000), "1.0 kB");
        assert_eq!(byte_size(999_999), "1.0 MB");
        assert_eq!(byte_size(12_345_678_901_234), "12345.7 GB");
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_000), "1,000");
    }
}
