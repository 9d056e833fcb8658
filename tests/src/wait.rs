//! Waiting for a condition, with a limit that only a broken program reaches.

use std::time::{Duration, Instant};

/// How long the tests wait for anything before they call it broken. Generous: a loaded machine is not a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Checks `condition` until it holds. Panics with `what` when it does not come true.
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    let mut condition = condition;
    until_some(what, || condition().then_some(()));
}

/// Asks until there is an answer. Panics with `what` when there is none.
pub fn until_some<T>(what: &str, mut question: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "waited {PATIENCE:?} in vain for {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
