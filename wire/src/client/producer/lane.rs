//! One partition's sealed batches: their sequence numbers, their order through retries, and what
//! each answer means for them. Pure: no clock, no sockets.
//!
//! Rules that keep an idempotent producer exact (KIP-98, KIP-360):
//! - From the oldest batch without an end on, at most five have a sequence, those acknowledged
//!   meanwhile included: that many the broker remembers, and it must recognise the oldest.
//! - A batch that comes back holds up the partition until all in flight are back; then they go
//!   again, oldest first, with the sequences they had.
//! - Until the broker has taken a first batch under an identity, only one is in flight: knowing nothing
//!   of us, it would take a second one without the first.
//! - A batch that fails for good leaves a gap. Those behind it keep their sequences until the broker
//!   has refused them (which shows that they are not in the log); only then they start anew,
//!   under the next epoch.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use super::accumulator::{Open, Ticket};
use crate::batch::{self, BatchHeader};
use crate::client::{ClientError, codes};

/// Who we are to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be sent, with the sequence it has.
    Queued,
    InFlight,
    /// Refused because of a gap before it: to be sent under a new epoch.
    Unsequenced,
}

/// A finished batch.
pub(super) struct Sealed {
    pub(super) ticket: Ticket,
    pub(super) bytes: Bytes,
    state: State,
    /// How many were sealed before it.
    ordinal: u64,
    pub(super) attempts: u32,
    /// An attempt was not answered: the batch may be in the log.
    pub(super) in_doubt: bool,
    pub(super) last_error: Option<ClientError>,
}

/// What to do with a batch the broker refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It will be sent again.
    Again,
    /// It has failed: take it out with [`Lane::take`].
    Failed,
}

#[derive(Default)]
pub(super) struct Lane {
    identity: Option<Identity>,
    next_sequence: i32,
    sealed: u64,
    queue: VecDeque<Sealed>,
    in_flight: usize,
    /// A batch came back while others are in flight.
    held: bool,
    /// There is a gap in the sequences.
    gap: bool,
    /// The broker has taken a batch under this identity.
    proven: bool,
    pub(super) not_before: Option<Instant>,
}

impl Lane {
    /// Whether another batch may be sealed: nothing waits before it, and fewer than `max` were
    /// sealed since the oldest without an end.
    pub(super) fn can_seal(&self, max: usize) -> bool {
        let max = if self.is_alone() { 1 } else { max };
        let room = self
            .queue
            .front()
            .is_none_or(|oldest| self.sealed - oldest.ordinal < max as u64);
        !self.gap && !self.held && room && self.queue.len() == self.in_flight
    }

    /// Builds a batch, with the next sequence if we have an identity.
    pub(super) fn seal(&mut self, open: Open, identity: Option<Identity>) {
        let Open {
            mut builder,
            ticket,
        } = open;
        self.identity = self.identity.or(identity);
        if let Some(me) = self.identity {
            builder.set_producer(me.id, me.epoch, self.next_sequence);
            self.next_sequence = advance(self.next_sequence, ticket.records);
        }
        let bytes = builder.build(0);
        self.queue.push_back(Sealed {
            ticket,
            bytes,
            state: State::Queued,
            ordinal: self.sealed,
            attempts: 0,
            in_doubt: false,
            last_error: None,
        });
        self.sealed += 1;
    }

    /// The batch to send next.
    pub(super) fn next(&self, now: Instant) -> Option<&Sealed> {
        if ((self.held || self.is_alone()) && self.in_flight > 0)
            || self.not_before.is_some_and(|t| t > now)
        {
            return None;
        }
        self.queue.iter().find(|b| b.state == State::Queued)
    }

    pub(super) fn sent(&mut self, id: u64) {
        if let Some(b) = self.queue.iter_mut().find(|b| b.ticket.id == id) {
            b.state = State::InFlight;
            b.attempts += 1;
            self.in_flight += 1;
        }
    }

    /// Takes a batch out: acknowledged, or failed. A failure leaves a gap.
    pub(super) fn take(&mut self, id: u64, failed: bool) -> Option<Sealed> {
        let at = self.queue.iter().position(|b| b.ticket.id == id)?;
        let batch = self.queue.remove(at)?;
        self.landed(batch.state);
        if failed && self.identity.is_some() && batch.state != State::Unsequenced {
            self.open_gap();
        }
        if !failed {
            self.not_before = None;
            self.proven = true;
        }
        Some(batch)
    }

    /// A batch is to be sent again as it is. `in_doubt`: it may be in the log already.
    pub(super) fn back(
        &mut self,
        id: u64,
        in_doubt: bool,
        error: ClientError,
        not_before: Instant,
    ) {
        let Some(batch) = self.queue.iter_mut().find(|b| b.ticket.id == id) else {
            return;
        };
        let was = std::mem::replace(&mut batch.state, State::Queued);
        batch.in_doubt |= in_doubt;
        batch.last_error = Some(error);
        self.held = true;
        self.not_before = Some(not_before);
        self.landed(was);
    }

    /// The broker's sequence check refused a batch, so it is not in the log under this sequence.
    pub(super) fn refused(
        &mut self,
        id: u64,
        code: i16,
        error: ClientError,
        not_before: Instant,
    ) -> Verdict {
        let Some(at) = self.queue.iter().position(|b| b.ticket.id == id) else {
            return Verdict::Again;
        };
        if at > 0 && !self.gap {
            // Those before it have not arrived yet.
            self.back(id, false, error, not_before);
            return Verdict::Again;
        }
        let gap = self.gap;
        let Some(batch) = self.queue.get_mut(at) else {
            return Verdict::Again;
        };
        // A gap explains it. Without one the broker has forgotten what it acknowledged; only if
        // it forgot us whole (UNKNOWN_PRODUCER_ID: retention took our last batch) and this batch was
        // never in doubt, starting anew can neither lose nor double anything.
        let explained = gap || (code == codes::UNKNOWN_PRODUCER_ID && !batch.in_doubt);
        if !explained {
            batch.last_error = Some(error);
            return Verdict::Failed;
        }
        let was = std::mem::replace(&mut batch.state, State::Unsequenced);
        batch.in_doubt = false;
        batch.last_error = Some(error);
        self.landed(was);
        if !gap {
            self.open_gap();
        }
        Verdict::Again
    }

    /// Whether everything that had a sequence has an end, so that sequences can start anew.
    pub(super) fn wants_identity(&self) -> Option<Identity> {
        let settled = self.gap && self.queue.iter().all(|b| b.state == State::Unsequenced);
        if settled { self.identity } else { None }
    }

    /// Starts anew: sequences from 0.
    pub(super) fn renew(&mut self, me: Identity) {
        self.identity = Some(me);
        self.gap = false;
        self.proven = false;
        self.next_sequence = 0;
        for batch in &mut self.queue {
            batch.bytes = restamp(&batch.bytes, me, self.next_sequence);
            batch.state = State::Queued;
            self.next_sequence = advance(self.next_sequence, batch.ticket.records);
        }
    }

    /// Batches that wait here (not in flight) and are older than their time.
    pub(super) fn expired(&self, now: Instant, limit: std::time::Duration) -> Vec<u64> {
        let old = self
            .queue
            .iter()
            .filter(|b| b.state != State::InFlight && b.ticket.created + limit <= now);
        old.map(|b| b.ticket.id).collect()
    }

    /// When the oldest batch that waits here was made.
    pub(super) fn oldest_waiting(&self) -> Option<Instant> {
        self.queue
            .iter()
            .find(|b| b.state != State::InFlight)
            .map(|b| b.ticket.created)
    }

    pub(super) fn attempts(&self, id: u64) -> u32 {
        self.queue
            .iter()
            .find(|b| b.ticket.id == id)
            .map_or(0, |b| b.attempts)
    }

    pub(super) fn drain(&mut self) -> VecDeque<Sealed> {
        self.in_flight = 0;
        std::mem::take(&mut self.queue)
    }

    fn is_alone(&self) -> bool {
        self.identity.is_some() && !self.proven
    }

    fn landed(&mut self, was: State) {
        if was == State::InFlight {
            self.in_flight -= 1;
        }
        if self.in_flight == 0 {
            self.held = false;
        }
    }

    fn open_gap(&mut self) {
        self.gap = true;
        // What never left cannot be in the log: no need to have it refused first.
        for batch in self.queue.iter_mut().filter(|b| b.attempts == 0) {
            batch.state = State::Unsequenced;
        }
    }
}

/// Sequences count records and wrap from 2³¹−1 to 0.
fn advance(sequence: i32, records: u32) -> i32 {
    ((i64::from(sequence) + i64::from(records)) & i64::from(i32::MAX)) as i32
}

/// The same batch under another identity.
fn restamp(bytes: &Bytes, me: Identity, sequence: i32) -> Bytes {
    match BatchHeader::parse(bytes) {
        Ok(mut header) => {
            header.producer_id = me.id;
            header.producer_epoch = me.epoch;
            header.base_sequence = sequence;
            batch::with_header(bytes, header)
        }
        // Not reached: we built it.
        Err(_) => bytes.clone(),
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
