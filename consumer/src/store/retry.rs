//! Trying again without end, with exponential back-off and jitter, and saying so, but not in every
//! breath. Knows store errors; nothing of what is retried.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::StoreError;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// How long one kind of notice stays unsaid after it was said.
const SILENCE: Duration = Duration::from_secs(10);

/// Tells people about trouble, each kind at most once in ten seconds.
#[derive(Clone)]
pub struct Notices {
    said: Arc<Mutex<HashMap<&'static str, (Instant, u64)>>>,
    say: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Notices {
    /// `say` brings a line before people's eyes.
    pub fn new(say: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Notices {
            said: Arc::default(),
            say: Arc::new(say),
        }
    }

    /// Says it, unless something of this kind was said just before.
    pub fn tell(&self, kind: &'static str, text: &str) {
        self.tell_at(Instant::now(), kind, text);
    }

    fn tell_at(&self, now: Instant, kind: &'static str, text: &str) {
        let unsaid = {
            let mut said = self.said.lock().unwrap_or_else(|e| e.into_inner());
            match said.get_mut(kind) {
                Some((at, unsaid)) if now.duration_since(*at) < SILENCE => {
                    *unsaid += 1;
                    return;
                }
                before => {
                    let unsaid = before.map_or(0, |(_, n)| *n);
                    said.insert(kind, (now, 0));
                    unsaid
                }
            }
        };
        match unsaid {
            0 => (self.say)(text),
            n => (self.say)(&format!("{text} (and {n} more like this)")),
        }
    }
}

/// Repeats `attempt` until it works or fails for good. What is thrown away by a crash or a rebalance
/// in between is only the attempt.
pub async fn retrying<T, F>(
    notices: &Notices,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        let (kind, reason) = match attempt().await {
            Ok(value) => return Ok(value),
            Err(fatal @ StoreError::Fatal(_)) => return Err(fatal),
            Err(StoreError::Throttled(reason)) => ("throttled", reason),
            Err(StoreError::Transient(reason)) => ("transient", reason),
        };
        let wait = jittered(pause);
        let told = match kind {
            "throttled" => format!(
                "the store asks to slow down ({reason}): {what} is tried again in {} ms",
                wait.as_millis()
            ),
            _ => format!("{what}: {reason}; tried again in {} ms", wait.as_millis()),
        };
        notices.tell(kind, &told);
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Between half of it and all of it, so that many writers do not come back at the same moment.
fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u64_pair().0 >> 32;
    let half = pause / 2;
    half + half.mul_f64(random as f64 / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test(start_paused = true)]
    async fn throttling_is_retried_and_a_fatal_error_is_not() {
        let (tx, rx) = mpsc::channel();
        let notices = Notices::new(move |line| {
            let _ = tx.send(line.to_owned());
        });
        let mut left = 20;
        let result = retrying(&notices, "storing x", || {
            left -= 1;
            let now = left;
            async move {
                if now > 0 {
                    Err(StoreError::Throttled("503 SlowDown".into()))
                } else {
                    Ok(7)
                }
            }
        })
        .await;
        assert_eq!((result, left), (Ok(7), 0));
        let said: Vec<String> = rx.try_iter().collect();
        assert!(
            said[0].contains("slow down") && said[0].contains("503 SlowDown"),
            "{said:?}"
        );
        assert!(said.len() < 20, "rate limited: {said:?}");

        let mut calls = 0;
        let result: Result<(), _> = retrying(&notices, "x", || {
            calls += 1;
            async { Err(StoreError::Fatal("no such bucket".into())) }
        })
        .await;
        assert_eq!(
            (calls, result),
            (1, Err(StoreError::Fatal("no such bucket".into())))
        );
    }

    #[test]
    fn what_was_left_unsaid_is_counted() {
        let (tx, rx) = mpsc::channel();
        let notices = Notices::new(move |line| {
            let _ = tx.send(line.to_owned());
        });
        let start = Instant::now();
        for s in [0, 1, 2, 11] {
            notices.tell_at(start + Duration::from_secs(s), "k", "trouble");
        }
        let said: Vec<String> = rx.try_iter().collect();
        assert_eq!(said, ["trouble", "trouble (and 2 more like this)"]);
    }

    #[test]
    fn jitter_stays_in_its_half() {
        for _ in 0..100 {
            let j = jittered(Duration::from_secs(2));
            assert!((1.0..=2.0).contains(&j.as_secs_f64()));
        }
    }
}
