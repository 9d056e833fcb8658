//! `max.connections` and `max.connections.per.ip`, and what the limit of open files leaves.

use std::any::Any;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, getrlimit};

use crate::config::BrokerConfig;

/// The least number of files left to logs and listeners when connections take the rest.
const FILES_KEPT_MIN: u64 = 32;

/// Counts the connections of one broker.
pub struct Limits {
    max: usize,
    max_per_ip: usize,
    counts: Mutex<(usize, HashMap<IpAddr, usize>)>,
    /// Lives as long as any connection: what must not be given back while one may still write.
    _keep: Arc<dyn Any + Send + Sync>,
}

/// A connection's place among the counted; given back when dropped.
pub struct Place {
    limits: Arc<Limits>,
    ip: IpAddr,
}

impl Limits {
    /// As configured, but never so many that no file is left for the logs.
    pub fn new(config: &BrokerConfig, keep: Arc<dyn Any + Send + Sync>) -> Limits {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Limits {
            max: (config.max_connections.max(0) as usize).min(beside_files(files)),
            max_per_ip: config.max_connections_per_ip.max(0) as usize,
            counts: Mutex::default(),
            _keep: keep,
        }
    }

    /// A place for a connection from `ip`, if there is one.
    pub fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let ip = ip.to_canonical();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let from_ip = counts.1.get(&ip).copied().unwrap_or(0);
        if counts.0 >= self.max || from_ip >= self.max_per_ip {
            return None;
        }
        counts.0 += 1;
        counts.1.insert(ip, from_ip + 1);
        Some(Place {
            limits: Arc::clone(self),
            ip,
        })
    }
}

/// Connections that leave a quarter of the open files to the logs.
fn beside_files(files: u64) -> usize {
    let kept = (files / 4).max(FILES_KEPT_MIN);
    usize::try_from(files.saturating_sub(kept)).unwrap_or(usize::MAX)
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self
            .limits
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        counts.0 = counts.0.saturating_sub(1);
        if let Some(n) = counts.1.get_mut(&self.ip) {
            *n -= 1;
            if *n == 0 {
                counts.1.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_per_address_and_given_back() {
        let config = BrokerConfig {
            max_connections: 3,
            max_connections_per_ip: 2,
            ..BrokerConfig::default()
        };
        let limits = Arc::new(Limits::new(&config, Arc::new(())));
        let one: IpAddr = "10.0.0.1".parse().unwrap();
        let same: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let other: IpAddr = "10.0.0.2".parse().unwrap();
        let held = (limits.admit(one).unwrap(), limits.admit(same).unwrap());
        assert!(limits.admit(one).is_none());
        let third = limits.admit(other).unwrap();
        assert!(limits.admit(other).is_none());
        drop(held);
        drop(third);
        assert!(limits.admit(one).is_some());
        assert!(limits.counts.lock().unwrap().1.is_empty());
    }

    #[test]
    fn the_logs_keep_a_share_of_the_files() {
        assert_eq!(beside_files(1024), 768);
        assert_eq!(beside_files(40), 8);
        assert_eq!(beside_files(10), 0);
        assert!(beside_files(u64::MAX) > 1_000_000);
    }
}
