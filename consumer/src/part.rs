//! One partition this process reads: the open object, what is stored and waits for it, and the
//! position. Pure: events and the time go in.

use std::time::Instant;

use wire::records::Record;

use crate::plan::{Lane, Start};
use crate::rotate::{Rotator, Rules};

/// A partition that is being read.
#[derive(Debug)]
pub struct Part {
    rotator: Rotator,
    lane: Lane,
    /// The next offset to read.
    position: i64,
    committed: i64,
    high_watermark: i64,
    /// Where to stop reading, with `--once`.
    target: Option<i64>,
}

/// Where a partition's reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    pub position: i64,
    pub committed: i64,
    pub high_watermark: i64,
    pub target: Option<i64>,
}

impl Part {
    pub fn new(rules: Rules, lane: Lane, begin: Begin) -> Self {
        let Begin {
            position,
            committed,
            high_watermark,
            target,
        } = begin;
        Part {
            rotator: Rotator::new(rules),
            lane,
            position,
            committed,
            high_watermark,
            target,
        }
    }

    /// Takes records as they were read; returns how many of them the store has already.
    pub fn accept(
        &mut self,
        records: Vec<Record>,
        high_watermark: i64,
        next_offset: i64,
        now: Instant,
    ) -> u64 {
        let mut skipped = 0;
        let mut cuts = Vec::new();
        self.high_watermark = high_watermark;
        for record in records {
            let offset = record.offset;
            if self.is_read() {
                return skipped;
            }
            // Rests of a fetch from before a seek.
            if offset < self.position {
                continue;
            }
            if self.target.is_some_and(|t| offset >= t) {
                self.position = offset;
                return skipped;
            }
            match self.lane.islands.end_of(offset) {
                Some(end) => {
                    cuts.extend(self.rotator.cut());
                    cuts.drain(..).for_each(|b| self.lane.push(b));
                    self.lane.adopt(end);
                    skipped += 1;
                }
                None => {
                    self.rotator.push(record, now, &mut cuts);
                    cuts.drain(..).for_each(|b| self.lane.push(b));
                }
            }
            self.position = offset.saturating_add(1);
        }
        self.advance(next_offset);
        skipped
    }

    /// Notes that there are no records (for readers) below this offset that were not read.
    pub fn advance(&mut self, position: i64) {
        self.position = self.position.max(position);
    }

    /// Whether reading is to stop here.
    pub fn is_read(&self) -> bool {
        self.target.is_some_and(|t| self.position >= t)
    }

    /// Ends the open object if its time is up.
    pub fn tick(&mut self, now: Instant) {
        if let Some(batch) = self.rotator.tick(now) {
            self.lane.push(batch);
        }
    }

    /// Ends the open object.
    pub fn cut(&mut self) {
        if let Some(batch) = self.rotator.cut() {
            self.lane.push(batch);
        }
    }

    /// When `tick` has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.rotator.deadline()
    }

    /// The next object that may be stored now; see [`Lane::start`].
    pub fn start(&mut self, skipped: &mut u64) -> Option<Start> {
        self.lane.start(skipped)
    }

    /// See [`Lane::finish`].
    pub fn finish(&mut self, id: u64, covered_to: i64) {
        self.lane.finish(id, covered_to);
    }

    /// How many objects are being stored.
    pub fn flying(&self) -> usize {
        self.lane.flying()
    }

    /// Forgets all records that are not being stored already.
    pub fn drop_unstarted(&mut self) {
        self.rotator.cut();
        self.lane.drop_waiting();
    }

    /// The offset to commit, if there is anything new to commit.
    pub fn commit_due(&self) -> Option<i64> {
        (self.lane.done() > self.committed).then(|| self.lane.done())
    }

    pub fn committed(&mut self, offset: i64) {
        self.committed = self.committed.max(offset);
    }

    /// Whether every record that was read is stored.
    pub fn is_idle(&self) -> bool {
        self.lane.is_idle() && self.rotator.weight_bytes() == 0
    }

    /// How many offsets the store is behind the partition's end.
    pub fn lag(&self) -> i64 {
        // Behind the last record there may be offsets without one (transaction markers).
        let at = if self.is_idle() {
            self.position.max(self.lane.done())
        } else {
            self.lane.done()
        };
        self.high_watermark.saturating_sub(at).max(0)
    }

    /// Memory of the open object.
    pub fn open_bytes(&self) -> usize {
        self.rotator.weight_bytes()
    }

    /// Memory of finished objects that are not stored yet.
    pub fn queued_bytes(&self) -> usize {
        self.lane.weight_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::testing::record;
    use crate::plan::{Islands, Stored};
    use std::time::Duration;

    const RULES: Rules = Rules {
        records: 10,
        bytes: 1 << 20,
        interval: Duration::from_secs(5),
    };

    fn part(islands: &[(i64, i64)], position: i64, target: Option<i64>) -> Part {
        let mut known = Islands::default();
        islands
            .iter()
            .for_each(|&(first, next)| known.insert(Stored { first, next }));
        let position = known.skip(position);
        let begin = Begin {
            position,
            committed: 0,
            high_watermark: 100,
            target,
        };
        Part::new(RULES, Lane::new(known, position), begin)
    }

    fn feed(part: &mut Part, offsets: std::ops::Range<i64>) -> u64 {
        let next = offsets.end;
        part.accept(
            offsets.map(|o| record(o, "x")).collect(),
            100,
            next,
            Instant::now(),
        )
    }

    fn started(part: &mut Part) -> Vec<(i64, i64)> {
        std::iter::from_fn(|| {
            part.start(&mut 0).map(|s| {
                let span = (s.batch.first(), s.batch.next());
                part.finish(s.id, span.1);
                span
            })
        })
        .collect()
    }

    #[test]
    fn holes_between_stored_objects_are_filled_and_nothing_is_repeated() {
        // Stored by an earlier run, none of it committed: 0..4 and, out of order, 12..20.
        let mut part = part(&[(0, 4), (12, 20)], 0, None);
        assert_eq!(part.position, 4);
        assert_eq!(part.commit_due(), Some(4));
        let skipped = feed(&mut part, 4..25);
        assert_eq!(skipped, 8);
        assert_eq!(started(&mut part), [(4, 10), (10, 12)]);
        assert_eq!(part.commit_due(), Some(20));
        part.cut();
        assert_eq!(started(&mut part), [(20, 25)]);
        assert_eq!((part.commit_due(), part.lag()), (Some(25), 75));
    }

    #[test]
    fn once_stops_at_the_end_seen_first() {
        let mut part = part(&[], 0, Some(7));
        feed(&mut part, 0..5);
        assert!(!part.is_read());
        feed(&mut part, 5..20);
        assert!(part.is_read());
        part.cut();
        assert_eq!(started(&mut part), [(0, 7)]);
        assert_eq!(part.commit_due(), Some(7));
    }

    #[test]
    fn offsets_without_records_at_the_end_count_as_read() {
        let mut part = part(&[], 0, Some(9));
        part.accept(vec![record(7, "x")], 9, 8, Instant::now());
        part.cut();
        assert_eq!(started(&mut part), [(7, 8)]);
        assert_eq!((part.lag(), part.is_read()), (1, false));
        part.advance(9);
        assert_eq!(
            (part.lag(), part.is_read(), part.commit_due()),
            (0, true, Some(8))
        );
    }

    #[test]
    fn rests_of_an_older_fetch_are_passed_over() {
        let mut part = part(&[(0, 4)], 0, None);
        feed(&mut part, 0..6);
        feed(&mut part, 3..8);
        part.cut();
        assert_eq!(started(&mut part), [(4, 8)]);
    }

    #[test]
    fn what_is_given_back_is_not_committed() {
        let mut part = part(&[], 0, None);
        feed(&mut part, 0..25);
        let flying = part.start(&mut 0).unwrap();
        part.drop_unstarted();
        part.finish(flying.id, 10);
        assert_eq!(
            (part.commit_due(), part.is_idle(), part.queued_bytes()),
            (Some(10), true, 0)
        );
        part.committed(10);
        assert_eq!(part.commit_due(), None);
    }
}
