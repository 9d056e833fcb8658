//! When the next record is due. Pure: it is told the time.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Slowest and fastest rate that can be asked for.
const LIMITS: std::ops::RangeInclusive<f64> = 1e-6..=1e9;
/// After a stall, as when the broker was away, at most this much is caught up.
const CATCH_UP: Duration = Duration::from_secs(1);

/// Records a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    Max,
    PerSecond(f64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        if text == "max" {
            return Ok(Rate::Max);
        }
        match text.parse::<f64>() {
            Ok(rate) if LIMITS.contains(&rate) => Ok(Rate::PerSecond(rate)),
            _ => Err(
                "use a number of records a second above 0, such as 1, 0.5 or 2000, or max".into(),
            ),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rate::Max => f.write_str("as fast as it goes"),
            Rate::PerSecond(rate) => write!(f, "{rate} a second"),
        }
    }
}

/// Spreads records evenly over time.
#[derive(Debug)]
pub struct Pacer {
    rate: Rate,
    base: Option<Instant>,
    /// Records let through since `base`.
    passed: u64,
}

impl Pacer {
    pub fn new(rate: Rate) -> Pacer {
        Pacer {
            rate,
            base: None,
            passed: 0,
        }
    }

    /// `None`: one record may go now. Otherwise how long to wait before asking again.
    pub fn wait(&mut self, now: Instant) -> Option<Duration> {
        let Rate::PerSecond(rate) = self.rate else {
            return None;
        };
        let base = *self.base.get_or_insert(now);
        let due = base + Duration::from_secs_f64(self.passed as f64 / rate);
        if let Some(wait) = due.checked_duration_since(now).filter(|d| !d.is_zero()) {
            return Some(wait);
        }
        // Too late for more than a burst: the schedule begins anew at the oldest record that
        // is still caught up.
        if now.duration_since(due) > CATCH_UP {
            self.base = Some(now - CATCH_UP);
            self.passed = 0;
        }
        self.passed += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(pacer: &mut Pacer, now: Instant) -> u32 {
        (0..1_000_000)
            .take_while(|_| pacer.wait(now).is_none())
            .count() as u32
    }

    #[test]
    fn records_are_spread_and_the_first_goes_at_once() {
        let start = Instant::now();
        let mut pacer = Pacer::new(Rate::PerSecond(2.0));
        assert_eq!(passes(&mut pacer, start), 1);
        assert_eq!(pacer.wait(start), Some(Duration::from_millis(500)));
        assert_eq!(passes(&mut pacer, start + Duration::from_millis(499)), 0);
        assert_eq!(passes(&mut pacer, start + Duration::from_millis(500)), 1);
        // A late wake-up does not slow the rate down.
        assert_eq!(passes(&mut pacer, start + Duration::from_millis(1_600)), 2);
        assert_eq!(
            pacer.wait(start + Duration::from_millis(1_600)),
            Some(Duration::from_millis(400))
        );
    }

    #[test]
    fn many_a_second_hold_their_rate_over_a_long_time() {
        let start = Instant::now();
        let mut pacer = Pacer::new(Rate::PerSecond(30_000.0));
        let mut all = 0;
        for millisecond in 0..=10_000 {
            all += passes(&mut pacer, start + Duration::from_millis(millisecond));
        }
        assert!((300_000..=300_001).contains(&all), "{all}");
    }

    #[test]
    fn a_stall_is_followed_by_a_short_burst_only() {
        let start = Instant::now();
        let mut pacer = Pacer::new(Rate::PerSecond(10.0));
        assert_eq!(passes(&mut pacer, start), 1);
        let after = start + Duration::from_secs(3_600);
        let burst = passes(&mut pacer, after);
        assert!((10..=11).contains(&burst), "{burst}");
        assert_eq!(passes(&mut pacer, after + Duration::from_secs(1)), 10);
    }

    #[test]
    fn rates_are_read() {
        assert_eq!("max".parse(), Ok(Rate::Max));
        assert_eq!("0.25".parse(), Ok(Rate::PerSecond(0.25)));
        for wrong in ["0", "-1", "fast", "", "NaN", "inf", "1e-9"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
