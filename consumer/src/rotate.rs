//! Which records of a partition go into one object. Pure: records and the time go in, finished
//! batches come out. Knows nothing of formats, stores or the group.
//!
//! An object never holds offsets from both sides of a multiple of `records`. So objects of
//! different such *cells* can not overlap, whoever writes them and whatever the clock said, and may
//! be stored at the same time; within a cell one is stored after the other (see `plan`).

use std::time::{Duration, Instant};

use wire::records::Record;

/// What a record costs beside its bytes, for the memory budget.
const RECORD_OVERHEAD_BYTES: usize = 160;

/// When an object is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Offsets per cell; 0 for no limit.
    pub records: u64,
    /// Bytes of record values after which an object is cut.
    pub bytes: usize,
    /// How long the first record of an object waits for others.
    pub interval: Duration,
}

impl Rules {
    fn cell(&self, offset: i64) -> i64 {
        match i64::try_from(self.records) {
            Ok(0) | Err(_) => 0,
            Ok(records) => offset.div_euclid(records),
        }
    }
}

/// The records of one object, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub records: Vec<Record>,
    /// Which cell all of them are in.
    pub cell: i64,
    /// Memory they take.
    pub weight_bytes: usize,
}

impl Batch {
    /// Offset of the first record.
    #[cfg(test)]
    pub fn first(&self) -> i64 {
        self.records.first().map_or(0, |r| r.offset)
    }

    /// The offset behind the last record.
    pub fn next(&self) -> i64 {
        self.records
            .last()
            .map_or(0, |r| r.offset.saturating_add(1))
    }
}

#[derive(Debug)]
struct Open {
    batch: Batch,
    value_bytes: usize,
    since: Instant,
}

/// Collects the records of one partition.
#[derive(Debug)]
pub struct Rotator {
    rules: Rules,
    open: Option<Open>,
}

impl Rotator {
    pub fn new(rules: Rules) -> Self {
        Rotator { rules, open: None }
    }

    /// Takes the next record; appends the batches it completes to `out`.
    pub fn push(&mut self, record: Record, now: Instant, out: &mut Vec<Batch>) {
        let offset = record.offset;
        let cell = self.rules.cell(offset);
        if self.open.as_ref().is_some_and(|o| o.batch.cell != cell) {
            out.extend(self.cut());
        }
        let open = self.open.get_or_insert_with(|| Open {
            batch: Batch {
                records: Vec::new(),
                cell,
                weight_bytes: 0,
            },
            value_bytes: 0,
            since: now,
        });
        open.value_bytes += record.value.as_ref().map_or(0, |v| v.len());
        open.batch.weight_bytes += weight_bytes(&record);
        open.batch.records.push(record);
        let full = open.value_bytes >= self.rules.bytes;
        let cell_ends = offset
            .checked_add(1)
            .is_none_or(|n| self.rules.cell(n) != cell);
        if full || cell_ends {
            out.extend(self.cut());
        }
    }

    /// Ends the open object, if there is one.
    pub fn cut(&mut self) -> Option<Batch> {
        self.open.take().map(|o| o.batch)
    }

    /// Ends the open object if its time is up.
    pub fn tick(&mut self, now: Instant) -> Option<Batch> {
        if self.deadline()? <= now {
            self.cut()
        } else {
            None
        }
    }

    /// When `tick` has something to do, if nothing comes before.
    pub fn deadline(&self) -> Option<Instant> {
        let since = self.open.as_ref()?.since;
        // An interval beyond what the clock can count never ends.
        since.checked_add(self.rules.interval)
    }

    /// Memory of the open records.
    pub fn weight_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |o| o.batch.weight_bytes)
    }
}

fn weight_bytes(record: &Record) -> usize {
    let part = |b: &Option<bytes::Bytes>| b.as_ref().map_or(0, |b| b.len());
    let headers: usize = record
        .headers
        .iter()
        .map(|h| h.key.len() + part(&h.value) + RECORD_OVERHEAD_BYTES / 2)
        .sum();
    part(&record.key) + part(&record.value) + headers + RECORD_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::testing::record;

    const RULES: Rules = Rules {
        records: 10,
        bytes: 1000,
        interval: Duration::from_secs(5),
    };

    fn spans(batches: &[Batch]) -> Vec<(i64, i64)> {
        batches.iter().map(|b| (b.first(), b.next())).collect()
    }

    fn run(
        rules: Rules,
        offsets: impl Iterator<Item = i64>,
        value: &str,
    ) -> (Vec<(i64, i64)>, Rotator) {
        let mut rotator = Rotator::new(rules);
        let mut out = Vec::new();
        for offset in offsets {
            rotator.push(record(offset, value), Instant::now(), &mut out);
        }
        (spans(&out), rotator)
    }

    #[test]
    fn cuts_at_multiples_wherever_it_starts() {
        let (cuts, mut rest) = run(RULES, 7..32, "x");
        assert_eq!(cuts, [(7, 10), (10, 20), (20, 30)]);
        assert_eq!(rest.cut().map(|b| (b.first(), b.next())), Some((30, 32)));
        assert!(rest.cut().is_none());
    }

    #[test]
    fn a_gap_at_the_border_does_not_join_two_cells() {
        let (cuts, _) = run(RULES, [3, 8, 12, 19, 25].into_iter(), "x");
        assert_eq!(cuts, [(3, 9), (12, 20)]);
    }

    #[test]
    fn one_record_each_and_no_limit() {
        let (cuts, _) = run(
            Rules {
                records: 1,
                ..RULES
            },
            0..3,
            "x",
        );
        assert_eq!(cuts, [(0, 1), (1, 2), (2, 3)]);
        let (cuts, rest) = run(
            Rules {
                records: 0,
                ..RULES
            },
            0..500,
            "x",
        );
        assert!(cuts.is_empty());
        assert!(rest.weight_bytes() > 500);
    }

    #[test]
    fn cuts_by_bytes_of_values() {
        let (cuts, _) = run(RULES, 0..10, &"x".repeat(400));
        assert_eq!(cuts, [(0, 3), (3, 6), (6, 9), (9, 10)]);
    }

    #[test]
    fn the_interval_counts_from_the_first_record() {
        let start = Instant::now();
        let mut rotator = Rotator::new(RULES);
        assert_eq!(rotator.deadline(), None);
        let mut out = Vec::new();
        rotator.push(record(0, "x"), start, &mut out);
        rotator.push(record(1, "x"), start + Duration::from_secs(4), &mut out);
        assert!(rotator.tick(start + Duration::from_millis(4999)).is_none());
        let batch = rotator.tick(start + Duration::from_secs(5)).unwrap();
        assert_eq!((batch.first(), batch.next(), out.len()), (0, 2, 0));
        assert_eq!(rotator.deadline(), None);
        let never = Rules {
            interval: Duration::MAX,
            ..RULES
        };
        let mut rotator = Rotator::new(never);
        rotator.push(record(0, "x"), start, &mut out);
        assert_eq!(rotator.deadline(), None);
    }
}
