//! Who waits for new records: fetch requests that have not enough yet. A waiter registers with
//! every partition it asks for, and one wake is enough for it to look again.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// One waiting fetch.
#[derive(Debug, Default)]
pub struct Waiter {
    notify: Notify,
}

impl Waiter {
    /// Resolves when any partition it is registered with has grown since the last call.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

/// The waiters of one partition.
#[derive(Debug, Default)]
pub struct Waiters {
    list: Mutex<Vec<Arc<Waiter>>>,
}

impl Waiters {
    /// Adds a waiter; [`Self::remove`] takes it out.
    pub fn add(&self, waiter: &Arc<Waiter>) {
        self.lock().push(Arc::clone(waiter));
    }

    /// Takes a waiter out.
    pub fn remove(&self, waiter: &Arc<Waiter>) {
        let mut list = self.lock();
        if let Some(at) = list.iter().position(|w| Arc::ptr_eq(w, waiter)) {
            list.swap_remove(at);
        }
    }

    /// Wakes all; they stay registered until they leave.
    pub fn wake_all(&self) {
        for waiter in self.lock().iter() {
            // notify_one stores a permit: a waiter that is just looking is not missed.
            waiter.notify.notify_one();
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// True when nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Waiter>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
