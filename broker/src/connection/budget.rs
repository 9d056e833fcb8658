//! `queued.max.request.bytes`: what large requests of all connections may take in memory together.
//! Small frames need no leave, so a flood of large ones never keeps heartbeats and fetches out.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Up to here a frame is read without asking.
pub const FREE_FRAME_BYTES: usize = 64 * 1024;
/// Where the setting leaves the choice to the broker: a few of the largest batches, on a machine
/// with 1 GiB.
const DEFAULT_BYTES: usize = 128 << 20;
const UNIT_BYTES: usize = 1024;

/// Memory set aside for one request; given back when dropped.
pub type Reserved = OwnedSemaphorePermit;

/// The budget of one broker.
#[derive(Clone, Debug)]
pub struct Budget {
    free: Arc<Semaphore>,
    total: u32,
}

impl Budget {
    /// `bytes` as the setting has it (-1: by the broker). The largest frame always fits.
    pub fn new(bytes: i64, largest_frame: usize) -> Budget {
        let bytes = usize::try_from(bytes).unwrap_or(DEFAULT_BYTES);
        let total = units(bytes.max(largest_frame + 4)).min(Semaphore::MAX_PERMITS as u32);
        Budget {
            free: Arc::new(Semaphore::new(total as usize)),
            total,
        }
    }

    /// Sets `bytes` aside if they are free now.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reserved> {
        let wanted = units(bytes).min(self.total);
        Arc::clone(&self.free).try_acquire_many_owned(wanted).ok()
    }

    /// Waits until `bytes` can be set aside, first come first served. The whole frame at once: two
    /// halves that wait for each other could wait for ever.
    pub async fn reserve(self, bytes: usize) -> Option<Reserved> {
        let wanted = units(bytes).min(self.total);
        self.free.acquire_many_owned(wanted).await.ok()
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_comes_back() {
        let budget = Budget::new(1 << 20, 512 << 10);
        let first = budget.try_reserve(600 << 10).unwrap();
        assert!(budget.try_reserve(600 << 10).is_none());
        assert!(budget.try_reserve(300 << 10).is_some());
        drop(first);
        assert!(budget.try_reserve(600 << 10).is_some());
    }

    #[test]
    fn the_largest_frame_fits_whatever_is_configured() {
        for configured in [-1, 0, 1, i64::MAX] {
            let budget = Budget::new(configured, 300 << 20);
            assert!(budget.try_reserve(300 << 20).is_some(), "{configured}");
        }
    }
}
