//! Keeps lines that strangers can cause from filling the disk: a few per minute, the rest counted.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);
const LINES_PER_WINDOW: u32 = 10;

/// One kind of line.
#[derive(Debug, Default)]
pub struct LogLimit {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl LogLimit {
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
        if state.lines >= LINES_PER_WINDOW {
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
        let (limit, start) = (LogLimit::default(), Instant::now());
        let written = (0..1000).filter(|_| limit.admit(start).is_some()).count();
        assert_eq!(written, LINES_PER_WINDOW as usize);
        let left_out = 1000 - u64::from(LINES_PER_WINDOW);
        assert_eq!(limit.admit(start + WINDOW), Some(left_out));
        assert_eq!(limit.admit(start + WINDOW), Some(0));
    }
}
