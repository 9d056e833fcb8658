//! Time, read in one place.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 by the wall clock, which may jump.
pub fn wall_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// A clock that starts at the wall clock's time and never jumps: for session and rebalance
/// timeouts, which a changed wall clock must not fire.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    base_ms: i64,
    base: Instant,
}

impl SteadyClock {
    /// Starts now.
    pub fn start() -> Self {
        SteadyClock {
            base_ms: wall_ms(),
            base: Instant::now(),
        }
    }

    /// Milliseconds since 1970, as of the start, plus what has really passed.
    pub fn now_ms(&self) -> i64 {
        self.base_ms + i64::try_from(self.base.elapsed().as_millis()).unwrap_or(i64::MAX / 2)
    }

    /// When `at_ms` will be, for timers.
    pub fn instant(&self, at_ms: i64) -> Instant {
        let ahead = at_ms.saturating_sub(self.base_ms).max(0) as u64;
        self.base + std::time::Duration::from_millis(ahead.min(u64::from(u32::MAX)))
    }
}
