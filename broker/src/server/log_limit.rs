//! Keeps lines that strangers can cause from filling the disk: a few per minute, the rest counted.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);

/// One kind of line.
#[derive(Debug)]
pub struct LogLimit {
    lines_per_minute: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl LogLimit {
    /// So many lines a minute.
    pub fn new(lines_per_minute: u32) -> LogLimit {
        LogLimit {
            lines_per_minute,
            state: Mutex::default(),
        }
    }

    /// Whether the line may be written, and how many were left out before it.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = state
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= WINDOW);
        if fresh {
            state.since = Some(now);
            state.lines = 0;
        }
        if state.lines >= self.lines_per_minute {
            state.suppressed += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_a_few_lines_and_a_count() {
        let (limit, start) = (LogLimit::new(7), Instant::now());
        let written = (0..1000).filter(|_| limit.admit(start).is_some()).count();
        assert_eq!(written, 7);
        assert_eq!(limit.admit(start + WINDOW), Some(993));
        assert_eq!(limit.admit(start + WINDOW), Some(0));
    }
}
