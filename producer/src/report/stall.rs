//! Says when the broker falls silent and when it answers again. Pure: it is told the time.

use std::time::{Duration, Instant};

use super::Counts;

/// Silence that is worth a word.
const SILENCE: Duration = Duration::from_secs(3);

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Records wait, and none was answered for a while.
    Silent,
    /// The broker answers again, after so long.
    Answers(Duration),
}

/// Watches the answers.
#[derive(Debug)]
pub struct Stall {
    answered: u64,
    since: Instant,
    told: bool,
}

impl Stall {
    pub fn new(now: Instant) -> Stall {
        Stall {
            answered: 0,
            since: now,
            told: false,
        }
    }

    /// To be asked a few times a second.
    pub fn look(&mut self, counts: &Counts, now: Instant) -> Option<Change> {
        let answered = counts.acked + counts.failed;
        let silent_for = now.duration_since(self.since);
        if answered != self.answered || counts.outstanding() == 0 {
            self.answered = answered;
            self.since = now;
            let told = std::mem::take(&mut self.told);
            return told.then_some(Change::Answers(silent_for));
        }
        if silent_for >= SILENCE && !self.told {
            self.told = true;
            return Some(Change::Silent);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_once_and_so_is_its_end() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let counts = |sent, acked| Counts {
            sent,
            acked,
            ..Counts::default()
        };
        let mut stall = Stall::new(start);
        // Nothing waits: silence is fine.
        assert_eq!(stall.look(&counts(5, 5), at(60)), None);
        assert_eq!(stall.look(&counts(6, 5), at(62)), None);
        assert_eq!(stall.look(&counts(7, 5), at(63)), Some(Change::Silent));
        assert_eq!(stall.look(&counts(8, 5), at(70)), None);
        let ten = Duration::from_secs(10);
        assert_eq!(
            stall.look(&counts(8, 6), at(70)),
            Some(Change::Answers(ten))
        );
        assert_eq!(stall.look(&counts(8, 7), at(71)), None);
        assert_eq!(stall.look(&counts(8, 7), at(74)), Some(Change::Silent));
    }
}
