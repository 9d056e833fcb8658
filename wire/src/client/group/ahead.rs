//! What was read ahead: the positions of the assigned partitions and the records waiting for `poll`.
//! The task of `fetcher` brings records in, the caller takes them out. No I/O.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::chunk::Chunk;
use super::{Event, GroupConfig, TopicPartition};
use crate::client::pool::Backoff;
use crate::client::{ClientError, Result};

/// Problems kept for showing.
const MAX_TROUBLES: usize = 16;
/// Between the caller, who takes records out, and the task, which brings them in.
pub(super) struct Shared {
    state: Mutex<State>,
    /// For the task.
    pub(super) work: Notify,
    /// For the caller.
    pub(super) ready: Notify,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) parts: HashMap<TopicPartition, Part>,
    pub(super) chunks: VecDeque<Chunk>,
    pub(super) buffered: usize,
    pub(super) halted: bool,
    lives: u64,
    troubles: VecDeque<ClientError>,
    pub(super) fatal: Option<ClientError>,
}

pub(super) struct Part {
    /// Changes whenever what is under way for this partition becomes stale.
    pub(super) life: u64,
    pub(super) aim: Aim,
    /// Next offset to fetch; ahead of the caller's position by what is buffered.
    pub(super) fetch_from: i64,
    pub(super) paused: bool,
    pub(super) busy: bool,
    pub(super) not_before: Option<Instant>,
    pub(super) backoff: Backoff,
    pub(super) fruitless: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// Ask the group where to start.
    Committed,
    /// Ask the log; the offset that turned out to be none, if there was one.
    Reset(Option<i64>),
    /// The caller's position.
    At(i64),
    /// Nowhere to go without a seek.
    Stuck,
}

/// One partition of something under way.
#[derive(Clone)]
pub(super) struct Want {
    pub(super) tp: TopicPartition,
    pub(super) life: u64,
    pub(super) offset: i64,
}

impl Shared {
    pub(super) fn new() -> Shared {
        Shared {
            state: Mutex::default(),
            work: Notify::new(),
            ready: Notify::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts reading these partitions, and only these, where the group left off.
    pub(super) fn assign(&self, tps: &[TopicPartition], cfg: &GroupConfig) {
        let mut s = self.lock();
        s.clear_chunks();
        s.parts.clear();
        s.halted = false;
        s.fatal = None;
        for tp in tps {
            let part = Part {
                life: s.next_life(),
                aim: Aim::Committed,
                fetch_from: -1,
                paused: false,
                busy: false,
                not_before: None,
                backoff: Backoff::new(&cfg.client),
                fruitless: 0,
            };
            s.parts.insert(tp.clone(), part);
        }
        drop(s);
        self.work.notify_one();
    }

    /// No more records; positions stay known. Returns what was assigned.
    pub(super) fn halt(&self) -> Vec<TopicPartition> {
        let mut s = self.lock();
        s.halted = true;
        s.clear_chunks();
        let mut tps: Vec<TopicPartition> = s.parts.keys().cloned().collect();
        tps.sort();
        tps
    }

    pub(super) fn seek(&self, tp: &TopicPartition, offset: i64) {
        self.restart(tp, |part| part.aim = Aim::At(offset));
    }

    pub(super) fn pause(&self, tp: &TopicPartition, paused: bool) {
        if self
            .lock()
            .parts
            .get(tp)
            .is_some_and(|p| p.paused != paused)
        {
            // What was read ahead is dropped and read again later, so that it takes no memory.
            self.restart(tp, |part| part.paused = paused);
        }
    }

    fn restart(&self, tp: &TopicPartition, change: impl FnOnce(&mut Part)) {
        let mut s = self.lock();
        let life = s.next_life();
        let Some(part) = s.parts.get_mut(tp) else {
            return;
        };
        part.life = life;
        part.busy = false;
        part.not_before = None;
        change(part);
        if let Aim::At(offset) = part.aim {
            part.fetch_from = offset;
        }
        s.chunks.retain(|c| c.tp != *tp);
        s.buffered = s.chunks.iter().map(|c| c.size).sum();
        drop(s);
        self.work.notify_one();
    }

    pub(super) fn positions(&self) -> HashMap<TopicPartition, i64> {
        let s = self.lock();
        let known = s.parts.iter().filter_map(|(tp, p)| match p.aim {
            Aim::At(offset) => Some((tp.clone(), offset)),
            _ => None,
        });
        known.collect()
    }

    /// Records or a problem, if there are any.
    pub(super) fn next(&self) -> Result<Option<Event>> {
        let mut guard = self.lock();
        let s = &mut *guard;
        if let Some(e) = s.troubles.pop_front() {
            return Ok(Some(Event::Error(e)));
        }
        if s.halted {
            return Ok(None);
        }
        if let Some(e) = s.fatal.take() {
            return Err(e);
        }
        while let Some(chunk) = s.chunks.front_mut() {
            let part = s.parts.get_mut(&chunk.tp).filter(|p| p.life == chunk.life);
            let Some((part, position)) = part.and_then(|p| match p.aim {
                Aim::At(position) => Some((p, position)),
                _ => None,
            }) else {
                s.drop_front();
                continue;
            };
            let (records, next) = match chunk.portion(position) {
                Ok(portion) => portion,
                Err(e) => {
                    let error = corrupt(&chunk.tp, position, &e);
                    part.not_before = Some(Instant::now() + part.backoff.next());
                    part.fetch_from = position;
                    s.lives += 1;
                    part.life = s.lives;
                    part.busy = false;
                    s.drop_front();
                    self.work.notify_one();
                    return Ok(Some(Event::Error(error)));
                }
            };
            part.aim = Aim::At(next);
            let (tp, high_watermark) = (chunk.tp.clone(), chunk.high_watermark);
            if chunk.is_empty() {
                s.drop_front();
                self.work.notify_one();
            }
            if !records.is_empty() {
                return Ok(Some(Event::Records {
                    tp,
                    records,
                    high_watermark,
                    next_offset: next,
                }));
            }
        }
        Ok(None)
    }
}

impl State {
    fn next_life(&mut self) -> u64 {
        self.lives += 1;
        self.lives
    }

    fn drop_front(&mut self) {
        if let Some(chunk) = self.chunks.pop_front() {
            self.buffered -= chunk.size;
        }
    }

    fn clear_chunks(&mut self) {
        self.chunks.clear();
        self.buffered = 0;
    }

    pub(super) fn trouble(&mut self, e: ClientError) {
        if self.troubles.len() < MAX_TROUBLES {
            self.troubles.push_back(e);
        }
    }

    /// The partition, unless it was taken away or moved since.
    pub(super) fn alive(&mut self, want: &Want) -> Option<&mut Part> {
        self.parts.get_mut(&want.tp).filter(|p| p.life == want.life)
    }
}

impl Part {
    pub(super) fn later(&mut self) {
        self.not_before = Some(Instant::now() + self.backoff.next());
    }

    pub(super) fn go_to(&mut self, offset: i64) {
        self.aim = Aim::At(offset);
        self.fetch_from = offset;
        self.backoff.reset();
    }
}

pub(super) fn corrupt(tp: &TopicPartition, offset: i64, e: &dyn std::fmt::Display) -> ClientError {
    ClientError::Corrupt {
        topic: tp.topic.to_string(),
        partition: tp.partition,
        offset,
        reason: e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use bytes::Bytes;

    use super::*;
    use crate::client::group::chunk::Aborts;
    use crate::compress::Compression;
    use crate::records::BatchBuilder;

    fn tp() -> TopicPartition {
        TopicPartition::new("t", 0)
    }

    /// One partition, assigned, with two batches of one record each read ahead from offset 0.
    fn filled() -> Shared {
        let shared = Shared::new();
        shared.assign(&[tp()], &GroupConfig::default());
        let mut s = shared.lock();
        let part = s.parts.get_mut(&tp()).unwrap();
        part.go_to(0);
        let life = part.life;
        for base in 0..2 {
            let mut b = BatchBuilder::new(Compression::None);
            b.push(1, None, Some(b"v"), &[]);
            let batches = VecDeque::from([b.build(base)]);
            let chunk = Chunk::new(tp(), life, 2, batches, Aborts::default());
            s.buffered += chunk.size;
            s.chunks.push_back(chunk);
        }
        drop(s);
        shared
    }

    fn offset(event: Result<Option<Event>>) -> Option<i64> {
        match event.unwrap() {
            Some(Event::Records { next_offset, .. }) => Some(next_offset),
            other => {
                assert_eq!(other, None);
                None
            }
        }
    }

    #[test]
    fn what_was_read_ahead_comes_in_order_and_frees_its_room() {
        let shared = filled();
        assert_eq!(offset(shared.next()), Some(1));
        assert_eq!(shared.positions()[&tp()], 1);
        assert!(shared.lock().buffered > 0);
        assert_eq!(offset(shared.next()), Some(2));
        assert_eq!(shared.lock().buffered, 0);
        assert_eq!(offset(shared.next()), None);
    }

    #[test]
    fn a_seek_or_a_pause_drops_it() {
        let shared = filled();
        shared.seek(&tp(), 7);
        assert_eq!(offset(shared.next()), None);
        let s = shared.lock();
        assert_eq!((s.buffered, s.parts[&tp()].fetch_from), (0, 7));
        drop(s);
        let shared = filled();
        assert_eq!(offset(shared.next()), Some(1));
        shared.pause(&tp(), true);
        assert_eq!(offset(shared.next()), None);
        assert_eq!(shared.lock().parts[&tp()].fetch_from, 1);
    }

    #[test]
    fn nothing_comes_once_partitions_are_given_back() {
        let shared = filled();
        assert_eq!(offset(shared.next()), Some(1));
        assert_eq!(shared.halt(), [tp()]);
        assert_eq!(offset(shared.next()), None);
        // For the last commit.
        assert_eq!(shared.positions()[&tp()], 1);
    }

    #[test]
    fn a_batch_nobody_can_unpack_is_told_and_fetched_again() {
        let shared = filled();
        {
            let mut s = shared.lock();
            s.clear_chunks();
            s.parts.get_mut(&tp()).unwrap().busy = true;
            let life = s.parts[&tp()].life;
            let batches = VecDeque::from([Bytes::from_static(&[0; 70])]);
            s.chunks
                .push_back(Chunk::new(tp(), life, 2, batches, Aborts::default()));
            s.buffered = 70;
        }
        assert!(matches!(
            shared.next(),
            Ok(Some(Event::Error(ClientError::Corrupt { offset: 0, .. })))
        ));
        let s = shared.lock();
        let part = &s.parts[&tp()];
        assert!(!part.busy && part.not_before.is_some());
        assert_eq!((s.buffered, part.fetch_from), (0, 0));
    }
}
