//! Connections by address and purpose, made on demand, with pauses that grow between attempts.
//! Knows connections; nothing of topics or groups.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::ClientConfig;
use super::connection::Connection;
use super::error::Result;

/// What a connection is for: answers come in order, so a request that waits on purpose (a fetch,
/// a join) must not share one with those that others wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    Main,
    Produce,
    Fetch,
    Group,
    Join,
}

/// Pauses that double, with jitter (KIP-144, KIP-580).
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    base: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(cfg: &ClientConfig) -> Backoff {
        Backoff {
            base: cfg.retry_backoff,
            max: cfg.retry_backoff_max.max(cfg.retry_backoff),
            failures: 0,
        }
    }

    /// The pause after one more failure: ±20 % around base · 2ⁿ.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self
            .base
            .saturating_mul(1 << self.failures.min(20))
            .min(self.max);
        self.failures += 1;
        pause.mul_f64(0.8 + 0.4 * f64::from(random_u32()) / f64::from(u32::MAX))
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

pub(crate) fn random_u32() -> u32 {
    uuid::Uuid::new_v4().as_u128() as u32
}

type Slots = HashMap<(String, Lane), Arc<AsyncMutex<Slot>>>;

struct Slot {
    conn: Option<Arc<Connection>>,
    /// There was a connection once.
    again: bool,
    backoff: Backoff,
    not_before: Option<Instant>,
}

pub(crate) struct Pool {
    cfg: ClientConfig,
    slots: Mutex<Slots>,
    reconnects: AtomicU64,
}

impl Pool {
    pub(crate) fn new(cfg: ClientConfig) -> Pool {
        Pool {
            cfg,
            slots: Mutex::new(HashMap::new()),
            reconnects: AtomicU64::new(0),
        }
    }

    /// Connections that were made again after one to the same address had been lost.
    pub(crate) fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// The connection to an address, made if there is none. After failures it first waits for
    /// its back-off; one attempt is made by each call.
    pub(crate) async fn get(&self, addr: &str, lane: Lane) -> Result<Arc<Connection>> {
        let slot = self.slot(addr, lane);
        let mut slot = slot.lock().await;
        if let Some(conn) = slot.conn.as_ref().filter(|c| c.is_alive()) {
            return Ok(conn.clone());
        }
        slot.conn = None;
        if let Some(when) = slot.not_before {
            tokio::time::sleep_until(when).await;
        }
        // Set before the attempt, so that one cut off by its caller counts as a failure.
        slot.not_before = Some(Instant::now() + slot.backoff.next());
        let conn = Arc::new(Connection::open(addr, &self.cfg).await?);
        slot.backoff.reset();
        slot.not_before = None;
        slot.conn = Some(conn.clone());
        if std::mem::replace(&mut slot.again, true) {
            self.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        Ok(conn)
    }

    /// Whether a live connection exists, without waiting.
    pub(crate) fn is_up(&self, addr: &str, lane: Lane) -> bool {
        let slot = self.slot(addr, lane);
        match slot.try_lock() {
            Ok(slot) => slot.conn.as_ref().is_some_and(|c| c.is_alive()),
            Err(_) => false,
        }
    }

    /// Forgets addresses that are no longer anybody's.
    pub(crate) fn retain(&self, addrs: &HashSet<String>) {
        self.lock().retain(|(addr, _), _| addrs.contains(addr));
    }

    fn slot(&self, addr: &str, lane: Lane) -> Arc<AsyncMutex<Slot>> {
        let fresh = || {
            let backoff = Backoff::new(&self.cfg);
            Arc::new(AsyncMutex::new(Slot {
                conn: None,
                again: false,
                backoff,
                not_before: None,
            }))
        };
        self.lock()
            .entry((addr.to_owned(), lane))
            .or_insert_with(fresh)
            .clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit() {
        let mut b = Backoff::new(&ClientConfig::default());
        let pauses: Vec<u128> = (0..12).map(|_| b.next().as_millis()).collect();
        assert!((80..=120).contains(&pauses[0]), "{pauses:?}");
        assert!((320..=480).contains(&pauses[2]), "{pauses:?}");
        assert!(
            pauses[6..].iter().all(|p| (800..=1200).contains(p)),
            "{pauses:?}"
        );
        b.reset();
        assert!(b.next().as_millis() <= 120);
    }
}
