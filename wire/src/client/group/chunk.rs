//! The records of one partition out of one fetch: checked, then handed out in portions. Pure.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;

use super::TopicPartition;
use crate::batch::{self, BatchError};
use crate::records::{self, Record};

/// A portion ends after the batch that reaches this many records.
const PORTION_RECORDS: usize = 1000;
/// What one batch may unpack to.
const MAX_DECOMPRESSED: usize = 128 << 20;

/// Whole, intact batches of one partition.
pub(super) struct Chunk {
    pub(super) tp: TopicPartition,
    /// Which life of the partition's position this belongs to.
    pub(super) life: u64,
    pub(super) high_watermark: i64,
    /// Bytes it holds on to.
    pub(super) size: usize,
    batches: VecDeque<Bytes>,
    aborts: Aborts,
}

/// What a fetched piece of log holds.
pub(super) struct Checked {
    pub(super) batches: VecDeque<Bytes>,
    /// The offset to fetch next.
    pub(super) next: i64,
    /// What is wrong with the batch there.
    pub(super) damage: Option<BatchError>,
}

/// Splits fetched bytes into whole batches with intact checksums. The last one may be cut off by
/// the fetch's limit; that is no damage.
pub(super) fn check(bytes: &Bytes, position: i64) -> Checked {
    let mut out = Checked {
        batches: VecDeque::new(),
        next: position,
        damage: None,
    };
    for batch in batch::split(bytes) {
        let checked = batch
            .and_then(|(_, bytes)| batch::validate_stored(&bytes).map(|header| (header, bytes)));
        match checked {
            // A broker may begin with batches before the one asked for.
            Ok((header, _)) if header.last_offset() < position => {}
            Ok((header, bytes)) => {
                out.next = header.last_offset().saturating_add(1);
                out.batches.push_back(bytes);
            }
            Err(e) => {
                out.damage = Some(e);
                break;
            }
        }
    }
    out
}

impl Chunk {
    pub(super) fn new(
        tp: TopicPartition,
        life: u64,
        high_watermark: i64,
        batches: VecDeque<Bytes>,
        aborts: Aborts,
    ) -> Chunk {
        let size = batches.iter().map(Bytes::len).sum();
        Chunk {
            tp,
            life,
            high_watermark,
            size,
            batches,
            aborts,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The next records from `position` on, and the position after them. Without control records,
    /// and without those of aborted transactions.
    pub(super) fn portion(&mut self, position: i64) -> Result<(Vec<Record>, i64), BatchError> {
        let (mut out, mut next) = (Vec::new(), position);
        while out.len() < PORTION_RECORDS {
            let Some(batch) = self.batches.front() else {
                break;
            };
            let header = batch::BatchHeader::parse(batch)?;
            let records = records::decode(batch, MAX_DECOMPRESSED)?;
            self.batches.pop_front();
            self.aborts.up_to(header.last_offset());
            if header.is_control() {
                // Key: version, then type; type 0 ends an aborted transaction.
                if records
                    .iter()
                    .any(|r| r.key.as_ref().is_some_and(|k| k.get(2..4) == Some(&[0, 0])))
                {
                    self.aborts.ended(header.producer_id);
                }
            } else if !(header.is_transactional() && self.aborts.contains(header.producer_id)) {
                let wanted = records.into_iter().filter(|r| r.offset >= position);
                if out.is_empty() {
                    out = wanted.collect()
                } else {
                    out.extend(wanted)
                }
            }
            next = next.max(header.last_offset().saturating_add(1));
        }
        Ok((out, next))
    }
}

/// Aborted transactions within a chunk, as the broker listed them.
#[derive(Default)]
pub(super) struct Aborts {
    /// Producer and first offset, by offset.
    to_come: VecDeque<(i64, i64)>,
    open: HashSet<i64>,
}

impl Aborts {
    /// From pairs of producer id and first offset.
    pub(super) fn new(mut list: Vec<(i64, i64)>) -> Aborts {
        list.sort_by_key(|(_, first)| *first);
        Aborts {
            to_come: list.into(),
            open: HashSet::new(),
        }
    }

    fn up_to(&mut self, offset: i64) {
        while let Some((producer, _)) = self.to_come.pop_front_if(|(_, first)| *first <= offset) {
            self.open.insert(producer);
        }
    }

    fn ended(&mut self, producer: i64) {
        self.open.remove(&producer);
    }

    fn contains(&self, producer: i64) -> bool {
        self.open.contains(&producer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::Compression;
    use crate::records::BatchBuilder;

    fn batch(base: i64, values: &[&str], shape: impl Fn(BatchBuilder) -> BatchBuilder) -> Vec<u8> {
        let mut b = shape(BatchBuilder::new(Compression::None));
        for v in values {
            b.push(1, None, Some(v.as_bytes()), &[]);
        }
        b.build(base).to_vec()
    }

    fn values(records: &[Record]) -> Vec<&[u8]> {
        records.iter().filter_map(|r| r.value.as_deref()).collect()
    }

    fn chunk(bytes: Vec<u8>, position: i64, aborts: Aborts) -> Chunk {
        let checked = check(&Bytes::from(bytes), position);
        Chunk::new(TopicPartition::new("t", 0), 0, 100, checked.batches, aborts)
    }

    #[test]
    fn a_position_within_a_batch_trims_it_and_a_cut_off_batch_is_left() {
        let mut bytes = batch(0, &["a", "b"], |b| b);
        bytes.extend(batch(2, &["c", "d", "e"], |b| b));
        bytes.extend(&batch(5, &["f"], |b| b)[..20]);
        let checked = check(&Bytes::from(bytes.clone()), 3);
        assert_eq!((checked.batches.len(), checked.next), (1, 5));
        assert!(checked.damage.is_none());
        let (records, next) = chunk(bytes, 3, Aborts::default()).portion(3).unwrap();
        assert_eq!((values(&records), next), (vec![&b"d"[..], b"e"], 5));
    }

    #[test]
    fn a_flipped_bit_stops_before_the_damage() {
        let mut bytes = batch(0, &["a"], |b| b);
        let good = bytes.len();
        bytes.extend(batch(1, &["b"], |b| b));
        for at in good + 17..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            let checked = check(&Bytes::from(bad), 0);
            assert_eq!((checked.batches.len(), checked.next), (1, 1), "byte {at}");
            assert!(checked.damage.is_some(), "byte {at}");
        }
    }

    #[test]
    fn aborted_transactions_and_markers_are_left_out() {
        let txn = |id: i64| move |b: BatchBuilder| b.with_producer(id, 0, 0).transactional();
        let marker = |base: i64, id: i64, kind: u8| {
            let mut b = BatchBuilder::new(Compression::None)
                .with_producer(id, 0, -1)
                .transactional()
                .control();
            b.push(1, Some(&[0, 0, 0, kind]), Some(&[0; 6]), &[]);
            b.build(base).to_vec()
        };
        let mut bytes = batch(0, &["bad"], txn(7));
        bytes.extend(batch(1, &["good"], txn(8)));
        bytes.extend(marker(2, 7, 0));
        bytes.extend(marker(3, 8, 1));
        bytes.extend(batch(4, &["later"], txn(7)));
        let (records, next) = chunk(bytes.clone(), 0, Aborts::new(vec![(7, 0)]))
            .portion(0)
            .unwrap();
        assert_eq!((values(&records), next), (vec![&b"good"[..], b"later"], 5));
        let (records, _) = chunk(bytes, 0, Aborts::default()).portion(0).unwrap();
        assert_eq!(values(&records), [&b"bad"[..], b"good", b"later"]);
    }
}
