//! What a partition remembers of idempotent and transactional producers: the last five batches of
//! each (KIP-98, Kafka's `ProducerStateManager` and `ProducerAppendInfo`), and its snapshot file.
//! Pure but for encoding: no I/O, no clock.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use wire::batch::BatchHeader;
use wire::records;

use super::{AppendError, ProducerInfo};

/// Batches remembered per producer, hence retries that are recognised (KIP-98: 5 in flight).
const BATCHES: usize = 5;
/// More producers than this push out the ones that have not written for longest.
const PRODUCERS_MAX: usize = 100_000;
/// Snapshot format of Kafka 0.11 to 4.x.
const VERSION: i16 = 1;
const ENTRY_LEN: usize = 46;
const HEAD_LEN: usize = 10;

/// One batch a producer wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchMeta {
    pub last_sequence: i32,
    pub last_offset: i64,
    pub offset_delta: i32,
    pub timestamp: i64,
}

impl BatchMeta {
    fn first_sequence(&self) -> i32 {
        let first = i64::from(self.last_sequence) - i64::from(self.offset_delta);
        (first & i64::from(i32::MAX)) as i32
    }

    pub fn first_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }
}

/// What is known of one producer id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    coordinator_epoch: i32,
    last_timestamp: i64,
    /// First offset of the open transaction, or -1.
    txn_first_offset: i64,
    batches: [BatchMeta; BATCHES],
    count: usize,
}

impl Producer {
    fn new(epoch: i16) -> Producer {
        Producer {
            epoch,
            coordinator_epoch: -1,
            last_timestamp: -1,
            txn_first_offset: -1,
            batches: [BatchMeta::default(); BATCHES],
            count: 0,
        }
    }

    fn known(&self) -> &[BatchMeta] {
        self.batches.get(..self.count).unwrap_or_default()
    }

    fn last(&self) -> Option<&BatchMeta> {
        self.known().last()
    }

    fn push(&mut self, batch: BatchMeta) {
        if self.count == BATCHES {
            self.batches.rotate_left(1);
            self.count -= 1;
        }
        if let Some(slot) = self.batches.get_mut(self.count) {
            *slot = batch;
            self.count += 1;
        }
    }

    fn set_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.count = 0;
        }
    }
}

/// An end-of-transaction marker (`EndTransactionMarker`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    pub commit: bool,
    pub coordinator_epoch: i32,
}

impl Marker {
    /// The marker in a control batch; `None` when it holds another kind of control record.
    pub fn read(batch: &[u8]) -> Option<Marker> {
        // Markers are a few bytes; anything larger is not copied.
        let bytes = batch
            .get(..batch.len().min(4096))
            .map(Bytes::copy_from_slice)?;
        let records = records::decode(&bytes, 4096).ok()?;
        let record = records.first()?;
        let [0, 0, 0, kind] = *record.key.as_deref()?.first_chunk::<4>()? else {
            return None;
        };
        let [_, _, a, b, c, d] = *record.value.as_deref()?.first_chunk::<6>()?;
        (kind <= 1).then_some(Marker {
            commit: kind == 1,
            coordinator_epoch: i32::from_be_bytes([a, b, c, d]),
        })
    }
}

/// All producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    map: HashMap<i64, Producer>,
    /// Open transactions: first offset → producer id.
    open: BTreeMap<i64, i64>,
}

impl Producers {
    /// Checks a batch of a producer before it is written. `Ok(Some(..))`: it is in the log already.
    pub fn check(
        &self,
        header: &BatchHeader,
        marker: Option<Marker>,
    ) -> Result<Option<BatchMeta>, AppendError> {
        let producer_id = header.producer_id;
        let Some(producer) = self.map.get(&producer_id) else {
            // Never seen, expired or deleted with its data: any sequence may come first.
            return Ok(None);
        };
        if header.producer_epoch < producer.epoch {
            return Err(AppendError::InvalidProducerEpoch {
                producer_id,
                current: producer.epoch,
                got: header.producer_epoch,
            });
        }
        if header.is_control() {
            return match marker {
                Some(m) if m.coordinator_epoch < producer.coordinator_epoch => {
                    Err(AppendError::CoordinatorFenced {
                        current: producer.coordinator_epoch,
                        got: m.coordinator_epoch,
                    })
                }
                _ => Ok(None),
            };
        }
        // Batches written by a coordinator carry an id but no sequence: only the epoch counts.
        if header.base_sequence >= 0 {
            if let Some(known) = producer.duplicate(header) {
                return Ok(Some(known));
            }
            producer.check_sequence(header)?;
        }
        if producer.txn_first_offset >= 0 && !header.is_transactional() {
            return Err(AppendError::InvalidTxnState { producer_id });
        }
        Ok(None)
    }

    /// Takes a batch that is in the log into account; `header` has its final offsets.
    pub fn update(&mut self, header: &BatchHeader, marker: Option<Marker>) {
        let producer = self
            .map
            .entry(header.producer_id)
            .or_insert_with(|| Producer::new(header.producer_epoch));
        producer.set_epoch(header.producer_epoch);
        producer.last_timestamp = header.max_timestamp;
        if header.is_control() {
            if let Some(marker) = marker {
                producer.coordinator_epoch = marker.coordinator_epoch;
                self.open.remove(&producer.txn_first_offset);
                producer.txn_first_offset = -1;
            }
        } else {
            producer.push(BatchMeta {
                last_sequence: header.last_sequence(),
                last_offset: header.last_offset(),
                offset_delta: header.last_offset_delta,
                timestamp: header.max_timestamp,
            });
            if header.is_transactional() && producer.txn_first_offset < 0 {
                producer.txn_first_offset = header.base_offset;
                self.open.insert(header.base_offset, header.producer_id);
            }
        }
        if self.map.len() > PRODUCERS_MAX {
            self.forget_idle();
        }
    }

    /// Drops the tenth that has not written for longest, open transactions excepted.
    fn forget_idle(&mut self) {
        let place = |p: &Producer| p.last().map_or(-1, |b| b.last_offset);
        let mut places: Vec<i64> = self.map.values().map(place).collect();
        let (_, limit, _) = places.select_nth_unstable(PRODUCERS_MAX / 10);
        let limit = *limit;
        self.map
            .retain(|_, p| p.txn_first_offset >= 0 || place(p) > limit);
    }

    /// Forgets producers that have been idle for `expiration_ms` (`producer.id.expiration.ms`).
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.map.retain(|_, p| {
            p.txn_first_offset >= 0 || now_ms.saturating_sub(p.last_timestamp) < expiration_ms
        });
    }

    /// First offset of the oldest open transaction.
    pub fn first_open_offset(&self) -> Option<i64> {
        self.open.keys().next().copied()
    }

    pub fn infos(&self) -> Vec<ProducerInfo> {
        let info = |(id, p): (&i64, &Producer)| ProducerInfo {
            producer_id: *id,
            producer_epoch: p.epoch,
            last_sequence: p.last().map_or(-1, |b| b.last_sequence),
            last_timestamp: p.last_timestamp,
            coordinator_epoch: p.coordinator_epoch,
            current_txn_start_offset: p.txn_first_offset,
        };
        let mut infos: Vec<ProducerInfo> = self.map.iter().map(info).collect();
        infos.sort_by_key(|i| i.producer_id);
        infos
    }

    /// The snapshot file: version, CRC32C of what follows, count, entries of 46 bytes each with the
    /// newest batch of a producer (Kafka's `ProducerSnapshot.json`).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_LEN + self.map.len() * ENTRY_LEN);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.map.len() as i32).to_be_bytes());
        for (id, p) in &self.map {
            let last = p.last();
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&p.epoch.to_be_bytes());
            out.extend_from_slice(&last.map_or(-1, |b| b.last_sequence).to_be_bytes());
            out.extend_from_slice(&last.map_or(-1, |b| b.last_offset).to_be_bytes());
            out.extend_from_slice(&last.map_or(0, |b| b.offset_delta).to_be_bytes());
            out.extend_from_slice(&p.last_timestamp.to_be_bytes());
            out.extend_from_slice(&p.coordinator_epoch.to_be_bytes());
            out.extend_from_slice(&p.txn_first_offset.to_be_bytes());
        }
        let crc = crc32c::crc32c(out.get(6..).unwrap_or_default());
        if let Some(field) = out.get_mut(2..6) {
            field.copy_from_slice(&crc.to_be_bytes());
        }
        out
    }

    /// Reads a snapshot; `None` unless it is whole and has its CRC.
    pub fn decode(bytes: &[u8]) -> Option<Producers> {
        let (head, entries) = bytes.split_first_chunk::<HEAD_LEN>()?;
        let [v0, v1, c0, c1, c2, c3, n0, n1, n2, n3] = *head;
        let crc = crc32c::crc32c(bytes.get(6..)?);
        let count = usize::try_from(i32::from_be_bytes([n0, n1, n2, n3])).ok()?;
        let (entries, rest) = entries.as_chunks::<ENTRY_LEN>();
        let right = i16::from_be_bytes([v0, v1]) == VERSION
            && u32::from_be_bytes([c0, c1, c2, c3]) == crc
            && entries.len() == count
            && rest.is_empty();
        if !right {
            return None;
        }
        let mut producers = Producers::default();
        for raw in entries {
            let (id, producer) = decode_entry(raw);
            if producer.txn_first_offset >= 0 {
                producers.open.insert(producer.txn_first_offset, id);
            }
            producers.map.insert(id, producer);
        }
        Some(producers)
    }
}

impl Producer {
    fn duplicate(&self, header: &BatchHeader) -> Option<BatchMeta> {
        let same = |b: &&BatchMeta| {
            b.first_sequence() == header.base_sequence && b.last_sequence == header.last_sequence()
        };
        let same_epoch = header.producer_epoch == self.epoch;
        same_epoch
            .then(|| self.known().iter().find(same).copied())
            .flatten()
    }

    fn check_sequence(&self, header: &BatchHeader) -> Result<(), AppendError> {
        let expected = match self.last() {
            _ if header.producer_epoch != self.epoch => 0,
            Some(b) if b.last_sequence == i32::MAX => 0,
            Some(b) => b.last_sequence.saturating_add(1),
            // Only a marker was seen in this epoch: sequences begin anew.
            None => 0,
        };
        if header.base_sequence == expected {
            return Ok(());
        }
        Err(AppendError::OutOfOrderSequence {
            producer_id: header.producer_id,
            expected,
            got: header.base_sequence,
        })
    }
}

fn decode_entry(raw: &[u8; ENTRY_LEN]) -> (i64, Producer) {
    let mut producer = Producer::new(i16::from_be_bytes(field(raw, 8)));
    producer.last_timestamp = i64::from_be_bytes(field(raw, 26));
    producer.coordinator_epoch = i32::from_be_bytes(field(raw, 34));
    producer.txn_first_offset = i64::from_be_bytes(field(raw, 38)).max(-1);
    let batch = BatchMeta {
        last_sequence: i32::from_be_bytes(field(raw, 10)),
        last_offset: i64::from_be_bytes(field(raw, 14)),
        offset_delta: i32::from_be_bytes(field(raw, 22)),
        timestamp: producer.last_timestamp,
    };
    if batch.last_offset >= 0 {
        producer.push(batch);
    }
    (i64::from_be_bytes(field(raw, 0)), producer)
}

/// `N` bytes at a constant position within the entry.
fn field<const N: usize>(raw: &[u8; ENTRY_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&raw[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::compress::Compression;
    use wire::records::BatchBuilder;

    fn batch(epoch: i16, sequence: i32, records: usize, offset: i64) -> BatchHeader {
        let mut b = BatchBuilder::new(Compression::None).with_producer(7, epoch, sequence);
        for _ in 0..records {
            b.push(1000 + offset, None, Some(b"v"), &[]);
        }
        BatchHeader::parse(&b.build(offset)).unwrap()
    }

    /// Checks and, when fresh, notes a batch, as an append does.
    fn write(p: &mut Producers, h: &BatchHeader) -> Result<Option<i64>, AppendError> {
        let known = p.check(h, None)?;
        if known.is_none() {
            p.update(h, None);
        }
        Ok(known.map(|k| k.first_offset()))
    }

    #[test]
    fn five_batches_are_remembered() {
        let mut p = Producers::default();
        for i in 0..6 {
            assert_eq!(write(&mut p, &batch(0, i, 1, i64::from(i))).unwrap(), None);
        }
        for i in 1..6 {
            let again = batch(0, i, 1, 99);
            assert_eq!(write(&mut p, &again).unwrap(), Some(i64::from(i)));
        }
        let forgotten = write(&mut p, &batch(0, 0, 1, 99));
        assert!(matches!(
            forgotten,
            Err(AppendError::OutOfOrderSequence { .. })
        ));
    }

    #[test]
    fn a_gap_is_refused_and_any_first_sequence_of_an_unknown_id_accepted() {
        let mut p = Producers::default();
        assert_eq!(write(&mut p, &batch(0, 40, 2, 0)).unwrap(), None);
        let gap = write(&mut p, &batch(0, 43, 1, 2));
        let Err(AppendError::OutOfOrderSequence { expected, got, .. }) = gap else {
            panic!("{gap:?}");
        };
        assert_eq!((expected, got), (42, 43));
        // Same first sequence, other length: not the same batch.
        assert!(write(&mut p, &batch(0, 40, 1, 2)).is_err());
    }

    #[test]
    fn sequences_wrap_within_and_between_batches() {
        let mut p = Producers::default();
        let max = i32::MAX;
        assert_eq!(write(&mut p, &batch(0, max - 1, 4, 0)).unwrap(), None);
        assert_eq!(write(&mut p, &batch(0, max - 1, 4, 9)).unwrap(), Some(0));
        assert_eq!(write(&mut p, &batch(0, 2, 1, 4)).unwrap(), None);

        let mut p = Producers::default();
        assert_eq!(write(&mut p, &batch(0, max, 1, 0)).unwrap(), None);
        assert_eq!(write(&mut p, &batch(0, 0, 1, 1)).unwrap(), None);
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_fences_the_old() {
        let mut p = Producers::default();
        write(&mut p, &batch(3, 10, 1, 0)).unwrap();
        assert!(write(&mut p, &batch(4, 11, 1, 1)).is_err());
        assert_eq!(write(&mut p, &batch(4, 0, 1, 1)).unwrap(), None);
        let old = write(&mut p, &batch(3, 11, 1, 2));
        assert!(matches!(old, Err(AppendError::InvalidProducerEpoch { .. })));
    }

    #[test]
    fn snapshots_are_read_back_and_refused_when_garbled() {
        let mut p = Producers::default();
        write(&mut p, &batch(1, 5, 3, 100)).unwrap();
        let bytes = p.encode();
        assert_eq!(bytes.len(), HEAD_LEN + ENTRY_LEN);
        let back = Producers::decode(&bytes).unwrap();
        assert_eq!(back.infos(), p.infos());
        let again = back.check(&batch(1, 5, 3, 0), None).unwrap();
        assert_eq!(again.map(|b| b.first_offset()), Some(100));
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 0x10;
            assert!(Producers::decode(&bad).is_none(), "byte {i}");
            assert!(Producers::decode(&bytes[..i]).is_none(), "cut at {i}");
        }
    }

    #[test]
    fn an_open_transaction_is_tracked_until_its_marker() {
        let mut p = Producers::default();
        let mut data = BatchBuilder::new(Compression::None)
            .with_producer(7, 0, 0)
            .transactional();
        data.push(1, None, Some(b"v"), &[]);
        let data = BatchHeader::parse(&data.build(50)).unwrap();
        write(&mut p, &data).unwrap();
        assert_eq!(p.first_open_offset(), Some(50));
        let plain = write(&mut p, &batch(0, 1, 1, 51));
        assert!(matches!(plain, Err(AppendError::InvalidTxnState { .. })));
        p.expire(i64::MAX, 1);
        assert_eq!(
            Producers::decode(&p.encode()).unwrap().first_open_offset(),
            Some(50)
        );

        let mut end = BatchBuilder::new(Compression::None).with_producer(7, 0, -1);
        end = end.transactional().control();
        end.push(2, Some(&[0, 0, 0, 1]), Some(&[0, 0, 0, 0, 0, 9]), &[]);
        let end = end.build(51);
        let marker = Marker::read(&end);
        assert_eq!(
            marker,
            Some(Marker {
                commit: true,
                coordinator_epoch: 9
            })
        );
        let header = BatchHeader::parse(&end).unwrap();
        assert_eq!(p.check(&header, marker).unwrap(), None);
        p.update(&header, marker);
        assert_eq!(p.first_open_offset(), None);
        assert_eq!(p.infos()[0].coordinator_epoch, 9);
        p.expire(i64::MAX, 1);
        assert!(p.infos().is_empty());
    }

    #[test]
    fn the_number_of_producers_is_bounded() {
        let mut p = Producers::default();
        let mut header = batch(0, 0, 1, 0);
        for i in 0..=PRODUCERS_MAX as i64 {
            header.producer_id = i;
            header.base_offset = i;
            p.update(&header, None);
        }
        assert!(p.map.len() <= PRODUCERS_MAX);
        assert!(
            p.map.contains_key(&(PRODUCERS_MAX as i64)),
            "the newest stays"
        );
        assert!(!p.map.contains_key(&0), "the oldest goes");
    }
}
