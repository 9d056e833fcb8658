//! What a group member in this process has seen so far, shared between its own thread and the harness.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::driver::{Read, State};

#[derive(Default)]
pub struct Seen {
    version: u64,
    pub assignment: BTreeSet<(String, i32)>,
    /// The offset after the last record read, by partition held.
    pub positions: HashMap<(String, i32), i64>,
    records: Vec<Read>,
    assigned: u64,
    revoked: u64,
    lost: u64,
    pub failure: Option<String>,
}

#[derive(Default)]
pub struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn change(&self, work: impl FnOnce(&mut Seen)) {
        let mut seen = self.lock();
        work(&mut seen);
        seen.version += 1;
        self.changed.notify_all();
    }

    pub fn keep(&self, records: Vec<Read>) {
        self.change(|seen| {
            for r in &records {
                seen.positions
                    .insert((r.topic.clone(), r.partition), r.offset + 1);
            }
            seen.records.extend(records);
        });
    }

    pub fn assigned(&self, partitions: Vec<(String, i32)>) {
        self.change(|seen| {
            seen.assignment.extend(partitions);
            seen.assigned += 1;
        });
    }

    pub fn revoked(&self, partitions: &[(String, i32)]) {
        self.change(|seen| {
            seen.forget(partitions);
            seen.revoked += u64::from(!partitions.is_empty());
        });
    }

    pub fn lost(&self, partitions: &[(String, i32)]) {
        self.change(|seen| {
            seen.forget(partitions);
            seen.lost += 1;
        });
    }

    /// What happened after version `seen`; waits for it, at most `wait_ms`.
    pub fn state(&self, seen: u64, wait_ms: u64) -> State {
        let limit = Duration::from_millis(wait_ms);
        let (mut state, _) = self
            .changed
            .wait_timeout_while(self.lock(), limit, |s| s.version <= seen)
            .unwrap_or_else(PoisonError::into_inner);
        State {
            version: state.version,
            assignment: state.assignment.iter().cloned().collect(),
            records: std::mem::take(&mut state.records),
            assigned: state.assigned,
            revoked: state.revoked,
            lost: state.lost,
            failure: state.failure.clone(),
        }
    }
}

impl Seen {
    fn forget(&mut self, partitions: &[(String, i32)]) {
        for tp in partitions {
            self.assignment.remove(tp);
            self.positions.remove(tp);
        }
    }
}
