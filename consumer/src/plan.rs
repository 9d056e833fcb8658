//! What of one partition is stored, being stored and still to be stored, and from that: which
//! object may be started next, which records are in the store already, and which offset may be
//! committed. Pure: no I/O, no clock.
//!
//! How this keeps "exactly once", with a store whose only promise is that an object is created
//! whole or not at all, and only if its name is free:
//!
//! 1. An object's name is its first offset; its end is kept with it. Whoever finds the name taken
//!    adopts that object: goes on behind its end.
//! 2. Within a cell (see `rotate`) an object is started only when its predecessor is stored. So every
//!    writer, also a second one that does not know yet that it lost the partition, goes
//!    along the same chain of objects: at each link one of them wins and the others adopt.
//!    Objects of different cells can not overlap and need no such order.
//! 3. After a restart the objects at and behind the committed offset are adopted first: those are
//!    what was stored but not committed. They may have holes between them, which are filled.

use std::collections::{BTreeMap, VecDeque};

use crate::rotate::Batch;

/// Offsets `first..next` that an object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub first: i64,
    pub next: i64,
}

/// Offset ranges known to be in the store.
#[derive(Debug, Default)]
pub struct Islands(BTreeMap<i64, i64>);

impl Islands {
    pub fn insert(&mut self, object: Stored) {
        if object.next > object.first {
            let end = self.0.entry(object.first).or_insert(object.next);
            *end = object.next.max(*end);
        }
    }

    /// Where the object that holds this offset ends, if there is one.
    pub fn end_of(&self, offset: i64) -> Option<i64> {
        let (_, &next) = self.0.range(..=offset).next_back()?;
        (next > offset).then_some(next)
    }

    /// The first offset from `offset` on that is not known to be stored.
    pub fn skip(&self, mut offset: i64) -> i64 {
        while let Some(next) = self.end_of(offset) {
            offset = next;
        }
        offset
    }

    fn forget_below(&mut self, offset: i64) {
        while self.0.first_entry().is_some_and(|e| *e.get() <= offset) {
            self.0.pop_first();
        }
    }
}

#[derive(Debug)]
enum State {
    Waiting(Batch),
    /// Being stored.
    Flying,
    Stored,
}

#[derive(Debug)]
struct Span {
    cell: i64,
    next: i64,
    weight_bytes: usize,
    state: State,
}

/// The objects of one partition in order of their offsets.
#[derive(Debug, Default)]
pub struct Lane {
    pub islands: Islands,
    spans: VecDeque<Span>,
    /// Number of the first span; they are numbered from 0 on.
    front: u64,
    /// Number of the first span that was not started.
    waiting: u64,
    /// Everything below is stored.
    done: i64,
    flying: usize,
    weight_bytes: usize,
}

/// A batch to store now, and the number under which to report on it.
#[derive(Debug)]
pub struct Start {
    pub id: u64,
    pub batch: Batch,
}

impl Lane {
    /// Everything below `position` is stored or never was.
    pub fn new(islands: Islands, position: i64) -> Self {
        Lane {
            islands,
            done: position,
            ..Lane::default()
        }
    }

    /// Queues a batch.
    pub fn push(&mut self, batch: Batch) {
        self.weight_bytes += batch.weight_bytes;
        self.spans.push_back(Span {
            cell: batch.cell,
            next: batch.next(),
            weight_bytes: batch.weight_bytes,
            state: State::Waiting(batch),
        });
    }

    /// Notes that everything up to `next`, behind what was queued so far, is in the store already.
    pub fn adopt(&mut self, next: i64) {
        match self.spans.back_mut() {
            Some(Span {
                next: end,
                state: State::Stored,
                ..
            }) => *end = next.max(*end),
            _ => self.spans.push_back(Span {
                cell: -1,
                next,
                weight_bytes: 0,
                state: State::Stored,
            }),
        }
        self.settle();
    }

    /// The next object that may be stored now, without the records found to be stored meanwhile;
    /// `skipped` is raised by those.
    pub fn start(&mut self, skipped: &mut u64) -> Option<Start> {
        loop {
            let place = usize::try_from(self.waiting.checked_sub(self.front)?).ok()?;
            let before = place.checked_sub(1).and_then(|i| self.spans.get(i));
            let before = before.and_then(|s| (!matches!(s.state, State::Stored)).then_some(s.cell));
            let span = self.spans.get_mut(place)?;
            if before == Some(span.cell) {
                return None;
            }
            let id = self.waiting;
            self.waiting += 1;
            let state = std::mem::replace(&mut span.state, State::Flying);
            let State::Waiting(mut batch) = state else {
                span.state = State::Stored;
                continue;
            };
            let count = batch.records.len();
            batch
                .records
                .retain(|r| self.islands.end_of(r.offset).is_none());
            *skipped += (count - batch.records.len()) as u64;
            if batch.records.is_empty() {
                self.finish_at(place, None);
                continue;
            }
            self.flying += 1;
            return Some(Start { id, batch });
        }
    }

    /// The object with this number is stored; if others had stored more than that, up to
    /// `covered_to`.
    pub fn finish(&mut self, id: u64, covered_to: i64) {
        let Some(place) = id
            .checked_sub(self.front)
            .and_then(|p| usize::try_from(p).ok())
        else {
            return;
        };
        if self
            .spans
            .get(place)
            .is_some_and(|s| matches!(s.state, State::Flying))
        {
            self.flying -= 1;
            self.finish_at(place, Some(covered_to));
        }
    }

    fn finish_at(&mut self, place: usize, covered_to: Option<i64>) {
        let Some(span) = self.spans.get_mut(place) else {
            return;
        };
        span.state = State::Stored;
        self.weight_bytes -= std::mem::take(&mut span.weight_bytes);
        if let Some(end) = covered_to {
            self.islands.insert(Stored {
                first: span.next,
                next: end,
            });
        }
        self.settle();
    }

    /// Drops what is stored from the front.
    fn settle(&mut self) {
        while self
            .spans
            .front()
            .is_some_and(|s| matches!(s.state, State::Stored))
        {
            if let Some(span) = self.spans.pop_front() {
                self.done = self.done.max(span.next);
                self.front += 1;
                self.waiting = self.waiting.max(self.front);
            }
        }
        self.islands.forget_below(self.done);
    }

    /// Everything below this offset is stored: the offset to commit.
    pub fn done(&self) -> i64 {
        self.done
    }

    /// Nothing is being stored or waits for it.
    pub fn is_idle(&self) -> bool {
        self.spans.is_empty()
    }

    /// How many objects are being stored.
    pub fn flying(&self) -> usize {
        self.flying
    }

    /// Memory of all records not stored yet.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// Forgets what was not started (it will be read again by whoever owns the partition next).
    pub fn drop_waiting(&mut self) {
        let keep = usize::try_from(self.waiting.saturating_sub(self.front)).unwrap_or(0);
        for span in self.spans.drain(keep.min(self.spans.len())..) {
            self.weight_bytes -= span.weight_bytes;
        }
    }
}

#[cfg(test)]
mod tests;
