//! The 61-byte header of a record batch (magic 2, KIP-98), read and checked where it lies, without
//! a copy or an allocation. Knows bytes only: no records ([`crate::records`]), no files, no sockets.

use bytes::Bytes;

use crate::compress::{CompressError, Compression};

/// Bytes in front of the records of a batch.
pub const HEADER_LEN: usize = 61;
/// Bytes that the length field does not count: base offset and the length itself.
pub const LOG_OVERHEAD: usize = 12;
/// First byte the CRC covers; base offset, length, leader epoch, magic and CRC lie before it, so a
/// broker assigns offsets and epochs without a new CRC.
pub const CRC_START: usize = 21;
/// No producer id, epoch or sequence: not an idempotent producer's batch.
pub const NO_PRODUCER_ID: i64 = -1;

const MIN_BATCH_LENGTH: i32 = (HEADER_LEN - LOG_OVERHEAD) as i32;
const COMPRESSION_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const DELETE_HORIZON: i16 = 0x40;

/// Why bytes are not a batch that can be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Fewer bytes than a header, or than the header says.
    #[error("batch cut short: {have} of {need} bytes")]
    TooShort {
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        need: usize,
    },
    /// Message formats 0 and 1 (before Kafka 0.11) and formats to come.
    #[error("record format {0} is not supported: only format 2 (Kafka 0.11 and later) is")]
    BadMagic(i8),
    /// A length no batch can have, or bytes left over behind the batch.
    #[error("batch length {length} does not fit: {have} bytes are there")]
    BadLength {
        /// The header's length field.
        length: i32,
        /// Bytes there are.
        have: usize,
    },
    /// The bytes changed since they were written.
    #[error("CRC mismatch: stored {stored:#010x}, computed {computed:#010x}")]
    BadCrc {
        /// The header's.
        stored: u32,
        /// The bytes'.
        computed: u32,
    },
    /// Count and last offset contradict each other.
    #[error("batch of {count} records with last offset delta {last_offset_delta}")]
    BadCount {
        /// The header's record count.
        count: i32,
        /// The header's last offset delta.
        last_offset_delta: i32,
    },
    /// A codec number nobody has given out.
    #[error("unknown compression codec {0}")]
    UnknownCompression(i16),
    /// Records that could not be decompressed, or not within the limit.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// A record that contradicts itself or the batch's header.
    #[error("record {index} of the batch is malformed: {what}")]
    BadRecord {
        /// Which, from 0.
        index: i32,
        /// What is wrong.
        what: &'static str,
    },
}

/// A batch's header, field by field in the order of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Bytes after this field.
    pub batch_length: i32,
    /// Leader epoch in which the batch was appended.
    pub partition_leader_epoch: i32,
    /// Format; always 2 here.
    pub magic: i8,
    /// CRC32C of everything from the attributes on.
    pub crc: u32,
    /// Codec, time stamp type, transactional, control, delete horizon.
    pub attributes: i16,
    /// Last record's offset less the base offset.
    pub last_offset_delta: i32,
    /// What the records' time stamp deltas count from; with a delete horizon, that.
    pub base_timestamp: i64,
    /// Greatest time stamp; with log append time, every record's.
    pub max_timestamp: i64,
    /// -1 unless the producer is idempotent.
    pub producer_id: i64,
    /// -1 unless the producer is idempotent.
    pub producer_epoch: i16,
    /// -1 unless the producer is idempotent.
    pub base_sequence: i32,
    /// Records inside; fewer than the offsets cover once compacted.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the front of `b`; what follows need not be there yet.
    #[inline]
    pub fn parse(b: &[u8]) -> Result<BatchHeader, BatchError> {
        let Some(h) = b.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::TooShort {
                have: b.len(),
                need: HEADER_LEN,
            });
        };
        let header = BatchHeader {
            base_offset: i64::from_be_bytes(at(h, 0)),
            batch_length: i32::from_be_bytes(at(h, 8)),
            partition_leader_epoch: i32::from_be_bytes(at(h, 12)),
            magic: i8::from_be_bytes(at(h, 16)),
            crc: u32::from_be_bytes(at(h, 17)),
            attributes: i16::from_be_bytes(at(h, 21)),
            last_offset_delta: i32::from_be_bytes(at(h, 23)),
            base_timestamp: i64::from_be_bytes(at(h, 27)),
            max_timestamp: i64::from_be_bytes(at(h, 35)),
            producer_id: i64::from_be_bytes(at(h, 43)),
            producer_epoch: i16::from_be_bytes(at(h, 51)),
            base_sequence: i32::from_be_bytes(at(h, 53)),
            record_count: i32::from_be_bytes(at(h, 57)),
        };
        if header.magic != 2 {
            return Err(BatchError::BadMagic(header.magic));
        }
        if header.batch_length < MIN_BATCH_LENGTH {
            return Err(BatchError::BadLength {
                length: header.batch_length,
                have: b.len(),
            });
        }
        Ok(header)
    }

    /// Bytes of the whole batch, on disk and on the wire.
    #[inline]
    pub fn size(&self) -> usize {
        LOG_OVERHEAD + self.batch_length.max(MIN_BATCH_LENGTH) as usize
    }

    /// Offset of the last record, also when compaction has removed it.
    #[inline]
    pub fn last_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }

    /// Sequence of the last record; 0 follows `i32::MAX`. -1 without a producer id.
    #[inline]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last & i64::from(i32::MAX)) as i32
    }

    /// The codec of the records.
    #[inline]
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let id = self.attributes & COMPRESSION_MASK;
        Compression::from_id(id).ok_or(BatchError::UnknownCompression(id))
    }

    /// True when the broker stamped the batch (`message.timestamp.type=LogAppendTime`).
    #[inline]
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// True when the batch belongs to a transaction.
    #[inline]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// True when the records are markers, not users' data.
    #[inline]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// True when the base time stamp is the time from which tombstones may go (KIP-534).
    #[inline]
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON != 0
    }

    /// True when an idempotent producer wrote it.
    #[inline]
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// Sets the codec.
    pub fn set_compression(&mut self, codec: Compression) {
        self.attributes = (self.attributes & !COMPRESSION_MASK) | codec.id();
    }

    /// Stamps the batch with the broker's time; its CRC has to be computed anew.
    pub fn set_log_append_time(&mut self, timestamp_ms: i64) {
        self.attributes |= LOG_APPEND_TIME;
        self.max_timestamp = timestamp_ms;
    }

    /// Marks the batch as part of a transaction.
    pub fn set_transactional(&mut self) {
        self.attributes |= TRANSACTIONAL;
    }

    /// Marks the batch as one of markers.
    pub fn set_control(&mut self) {
        self.attributes |= CONTROL;
    }

    /// The CRC this header has in front of `records`.
    pub fn crc_with(&self, records: &[u8]) -> u32 {
        let head = self.encode();
        crc32c::crc32c_append(crc32c::crc32c(&head[CRC_START..]), records)
    }

    /// The header as on the wire, with the CRC as it stands in the field.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut h = [0; HEADER_LEN];
        put(&mut h, 0, self.base_offset.to_be_bytes());
        put(&mut h, 8, self.batch_length.to_be_bytes());
        put(&mut h, 12, self.partition_leader_epoch.to_be_bytes());
        put(&mut h, 16, self.magic.to_be_bytes());
        put(&mut h, 17, self.crc.to_be_bytes());
        put(&mut h, 21, self.attributes.to_be_bytes());
        put(&mut h, 23, self.last_offset_delta.to_be_bytes());
        put(&mut h, 27, self.base_timestamp.to_be_bytes());
        put(&mut h, 35, self.max_timestamp.to_be_bytes());
        put(&mut h, 43, self.producer_id.to_be_bytes());
        put(&mut h, 51, self.producer_epoch.to_be_bytes());
        put(&mut h, 53, self.base_sequence.to_be_bytes());
        put(&mut h, 57, self.record_count.to_be_bytes());
        h
    }
}

/// `N` bytes at a constant position: never out of bounds for the positions above.
#[inline(always)]
fn at<const N: usize>(h: &[u8; HEADER_LEN], pos: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&h[pos..pos + N]);
    out
}

#[inline(always)]
fn put<const N: usize>(h: &mut [u8; HEADER_LEN], pos: usize, v: [u8; N]) {
    h[pos..pos + N].copy_from_slice(&v);
}

/// Computes the CRC32C a batch should carry; 0 for bytes that end before the attributes.
#[inline]
pub fn crc_of(batch: &[u8]) -> u32 {
    batch.get(CRC_START..).map_or(0, crc32c::crc32c)
}

/// Checks exactly one whole batch as a producer sends it: length, CRC, codec, and as many records as
/// offsets, at least one. Bits of the attributes that have no meaning yet pass, as with Kafka.
#[inline]
pub fn validate(batch: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = validate_stored(batch)?;
    if header.record_count < 1
        || i64::from(header.record_count) != i64::from(header.last_offset_delta) + 1
    {
        return Err(bad_count(&header));
    }
    Ok(header)
}

/// Checks exactly one whole batch as a log may hold it: compaction takes records away (at times all
/// of them) but leaves the offsets.
#[inline]
pub fn validate_stored(batch: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(batch)?;
    if header.size() > batch.len() {
        return Err(BatchError::TooShort {
            have: batch.len(),
            need: header.size(),
        });
    }
    if header.size() < batch.len() {
        return Err(BatchError::BadLength {
            length: header.batch_length,
            have: batch.len(),
        });
    }
    let computed = crc_of(batch);
    if computed != header.crc {
        return Err(BatchError::BadCrc {
            stored: header.crc,
            computed,
        });
    }
    header.compression()?;
    if header.record_count < 0
        || i64::from(header.record_count) > i64::from(header.last_offset_delta) + 1
    {
        return Err(bad_count(&header));
    }
    Ok(header)
}

fn bad_count(header: &BatchHeader) -> BatchError {
    BatchError::BadCount {
        count: header.record_count,
        last_offset_delta: header.last_offset_delta,
    }
}

/// The successive batches of `bytes`, by their lengths; CRCs are not looked at. A batch cut short at
/// the end (a fetch answer may have one) ends the walk silently; anything else wrong, with an error.
pub fn split(
    bytes: &Bytes,
) -> impl Iterator<Item = Result<(BatchHeader, Bytes), BatchError>> + use<> {
    let mut rest = bytes.clone();
    std::iter::from_fn(move || {
        let header = match BatchHeader::parse(&rest) {
            Ok(header) if header.size() > rest.len() => return None,
            Ok(header) => header,
            Err(BatchError::TooShort { .. }) => return None,
            Err(e) => {
                rest.clear();
                return Some(Err(e));
            }
        };
        Some(Ok((header, rest.split_to(header.size()))))
    })
}

/// The batch with another header: length and CRC of `header` are set to fit the records of `batch`.
/// For what lies inside the CRC: producer id, epoch, sequence, time stamps, attributes.
pub fn with_header(batch: &[u8], mut header: BatchHeader) -> Bytes {
    let records = batch.get(HEADER_LEN..).unwrap_or_default();
    header.batch_length = (records.len() + HEADER_LEN - LOG_OVERHEAD) as i32;
    header.crc = header.crc_with(records);
    let mut out = Vec::with_capacity(HEADER_LEN + records.len());
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(records);
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::BatchBuilder;

    fn sample(records: usize) -> Bytes {
        let mut b = BatchBuilder::new(Compression::None).with_producer(77, 3, 10);
        for i in 0..records {
            b.push(1_000 + i as i64, Some(b"k"), Some(b"value"), &[]);
        }
        b.build(500)
    }

    /// Changes the header and sets the CRC right, so that only the change can be the reason.
    fn changed(batch: &[u8], f: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
        let mut header = BatchHeader::parse(batch).unwrap();
        f(&mut header);
        let mut out = batch.to_vec();
        out[..HEADER_LEN].copy_from_slice(&header.encode());
        let crc = crc_of(&out);
        out[17..21].copy_from_slice(&crc.to_be_bytes());
        out
    }

    #[test]
    fn header_is_read_and_written_alike() {
        let batch = sample(3);
        let header = validate(&batch).unwrap();
        assert_eq!(header.encode(), batch[..HEADER_LEN]);
        assert_eq!(header.size(), batch.len());
        assert_eq!((header.base_offset, header.last_offset()), (500, 502));
        assert_eq!(
            (header.base_timestamp, header.max_timestamp),
            (1_000, 1_002)
        );
        assert_eq!((header.base_sequence, header.last_sequence()), (10, 12));
        assert_eq!((header.producer_id, header.producer_epoch), (77, 3));
        assert_eq!(header.crc, crc_of(&batch));
        assert!(header.has_producer_id() && !header.is_control() && !header.is_transactional());
    }

    #[test]
    fn kafkas_own_parser_takes_it() {
        use kafka_protocol::records::RecordBatchDecoder;
        let batch = sample(4);
        let got = RecordBatchDecoder::decode(&mut batch.clone()).unwrap();
        assert_eq!(got.records.len(), 4);
        assert_eq!(got.records[3].offset, 503);
    }

    #[test]
    fn sequences_wrap_after_the_greatest() {
        let mut h = BatchHeader::parse(&sample(3)).unwrap();
        h.base_sequence = i32::MAX - 1;
        assert_eq!(h.last_sequence(), 0);
        h.base_sequence = i32::MAX;
        assert_eq!(h.last_sequence(), 1);
        h.base_sequence = -1;
        assert_eq!(h.last_sequence(), -1);
    }

    #[test]
    fn every_cut_is_refused_and_bytes_left_over_too() {
        let batch = sample(2);
        for cut in 0..batch.len() {
            let got = validate(&batch[..cut]);
            assert!(
                matches!(got, Err(BatchError::TooShort { .. })),
                "{cut}: {got:?}"
            );
        }
        let long = [&batch[..], &[0]].concat();
        assert!(matches!(validate(&long), Err(BatchError::BadLength { .. })));
    }

    #[test]
    fn every_flipped_bit_behind_the_crc_is_found() {
        let batch = sample(1);
        for at in 17..batch.len() {
            for bit in 0..8 {
                let mut bad = batch.to_vec();
                bad[at] ^= 1 << bit;
                assert!(
                    matches!(validate(&bad), Err(BatchError::BadCrc { .. })),
                    "{at}.{bit}"
                );
            }
        }
    }

    #[test]
    fn offset_and_epoch_may_change_without_a_new_crc() {
        let mut batch = sample(2).to_vec();
        batch[..8].copy_from_slice(&9_000i64.to_be_bytes());
        batch[12..16].copy_from_slice(&5i32.to_be_bytes());
        let header = validate(&batch).unwrap();
        assert_eq!(
            (header.last_offset(), header.partition_leader_epoch),
            (9_001, 5)
        );
    }

    #[test]
    fn impossible_headers_are_refused_by_kind() {
        let batch = sample(2);
        for magic in [0, 1, 3, -1] {
            let got = validate(&changed(&batch, |h| h.magic = magic));
            assert!(
                matches!(got, Err(BatchError::BadMagic(m)) if m == magic),
                "{got:?}"
            );
        }
        for length in [i32::MIN, -1, 0, 48] {
            let got = validate(&changed(&batch, |h| h.batch_length = length));
            assert!(matches!(got, Err(BatchError::BadLength { .. })), "{got:?}");
        }
        let got = validate(&changed(&batch, |h| h.batch_length = i32::MAX));
        assert!(matches!(got, Err(BatchError::TooShort { .. })), "{got:?}");
        for (count, delta) in [(0, -1), (-1, -2), (2, 2), (3, 1), (i32::MIN, i32::MAX)] {
            let bad = changed(&batch, |h| {
                (h.record_count, h.last_offset_delta) = (count, delta)
            });
            assert!(
                matches!(validate(&bad), Err(BatchError::BadCount { .. })),
                "{count} {delta}"
            );
        }
        for codec in 5..=7 {
            let got = validate(&changed(&batch, |h| h.attributes = codec));
            assert!(matches!(got, Err(BatchError::UnknownCompression(c)) if c == codec));
        }
    }

    #[test]
    fn a_compacted_batch_is_stored_but_not_produced() {
        for (count, delta) in [(2, 9), (0, 9)] {
            let batch = changed(&sample(2), |h| {
                (h.record_count, h.last_offset_delta) = (count, delta)
            });
            assert_eq!(validate_stored(&batch).unwrap().last_offset(), 509);
            assert!(matches!(validate(&batch), Err(BatchError::BadCount { .. })));
        }
        let more = changed(&sample(2), |h| h.record_count = 3);
        assert!(matches!(
            validate_stored(&more),
            Err(BatchError::BadCount { .. })
        ));
    }

    #[test]
    fn split_gives_whole_batches_and_stops() {
        let (a, b) = (sample(1), sample(5));
        let joined = [&a[..], &b, &a].concat();
        for cut in 0..=joined.len() {
            let got: Vec<Bytes> = split(&Bytes::copy_from_slice(&joined[..cut]))
                .map(|r| r.unwrap().1)
                .collect();
            let want: &[&Bytes] = match cut {
                n if n < a.len() => &[],
                n if n < a.len() + b.len() => &[&a],
                n if n < joined.len() => &[&a, &b],
                _ => &[&a, &b, &a],
            };
            assert!(got.iter().eq(want.iter().copied()), "{cut}");
        }
        let mut bad = joined.clone();
        bad[a.len() + 16] = 1;
        let got: Vec<bool> = split(&Bytes::from(bad)).map(|r| r.is_ok()).collect();
        assert_eq!(got, [true, false]);
    }

    #[test]
    fn another_header_gets_its_crc_and_keeps_the_records() {
        let batch = sample(2);
        let mut header = validate(&batch).unwrap();
        header.producer_epoch = 9;
        header.set_log_append_time(5_000);
        let got = with_header(&batch, header);
        let after = validate(&got).unwrap();
        assert_eq!((after.producer_epoch, after.max_timestamp), (9, 5_000));
        assert!(after.is_log_append_time());
        assert_eq!(got[HEADER_LEN..], batch[HEADER_LEN..]);
    }
}
