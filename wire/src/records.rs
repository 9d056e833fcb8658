//! The records inside a batch: reading them, bounded everywhere, and building batches. Knows
//! [`crate::batch`] and [`crate::compress`]; no protocol messages, no files.

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use bytes::{Buf, Bytes};

use crate::batch::{BatchError, BatchHeader, HEADER_LEN, LOG_OVERHEAD, NO_PRODUCER_ID};
use crate::compress::{self, Compression};

/// Fewest bytes a record takes: length, attributes, two deltas, two lengths, header count.
const MIN_RECORD_LEN: usize = 7;

/// A record's header: any bytes as key, and the same key as often as the producer likes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Usually UTF-8, not always.
    pub key: Bytes,
    /// `None` is null, not empty.
    pub value: Option<Bytes>,
}

/// A record with offset and time stamp worked out. Slices share the batch's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970, by the producer's clock or (log append time) the broker's.
    pub timestamp: i64,
    /// `None` is null, not empty.
    pub key: Option<Bytes>,
    /// `None` is null: a tombstone on a compacted topic.
    pub value: Option<Bytes>,
    /// In the producer's order.
    pub headers: Vec<Header>,
}

/// A record as [`for_each`] shows it, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// `None` is null.
    pub key: Option<&'a [u8]>,
    /// `None` is null.
    pub value: Option<&'a [u8]>,
}

/// All records of one batch (its CRC is the caller's to check: [`crate::batch::validate`]).
/// Compressed records may unpack to `max_decompressed` bytes, no more.
pub fn decode(batch: &Bytes, max_decompressed: usize) -> Result<Vec<Record>, BatchError> {
    let header = whole(batch)?;
    let packed = batch.slice(HEADER_LEN..header.size());
    let plain = match header.compression()? {
        Compression::None => packed,
        codec => Bytes::from(compress::decompress(codec, &packed, max_decompressed)?),
    };
    let mut walk = Walk::new(&header, &plain)?;
    let mut out = Vec::with_capacity(walk.left as usize);
    while let Some(mut raw) = walk.next()? {
        let mut headers = Vec::with_capacity(raw.header_count);
        for _ in 0..raw.header_count {
            let (key, value) = raw.header()?;
            headers.push(Header {
                key: plain.slice_ref(key),
                value: value.map(|v| plain.slice_ref(v)),
            });
        }
        raw.end()?;
        out.push(Record {
            offset: raw.view.offset,
            timestamp: raw.view.timestamp,
            key: raw.view.key.map(|k| plain.slice_ref(k)),
            value: raw.view.value.map(|v| plain.slice_ref(v)),
            headers,
        });
    }
    Ok(out)
}

/// Shows every record of a batch, until `f` breaks. Headers are checked, not shown.
pub fn for_each(
    batch: &[u8],
    max_decompressed: usize,
    mut f: impl FnMut(RecordView<'_>) -> ControlFlow<()>,
) -> Result<(), BatchError> {
    let header = whole(batch)?;
    let packed = batch.get(HEADER_LEN..header.size()).unwrap_or_default();
    let unpacked;
    let plain = match header.compression()? {
        Compression::None => packed,
        codec => {
            unpacked = compress::decompress(codec, packed, max_decompressed)?;
            &unpacked
        }
    };
    let mut walk = Walk::new(&header, plain)?;
    while let Some(mut raw) = walk.next()? {
        for _ in 0..raw.header_count {
            raw.header()?;
        }
        raw.end()?;
        if f(raw.view).is_break() {
            break;
        }
    }
    Ok(())
}

/// Shows offset and time stamp of every record of a batch, until `f` breaks.
pub fn for_each_stamp(
    batch: &[u8],
    max_decompressed: usize,
    mut f: impl FnMut(i64, i64) -> ControlFlow<()>,
) -> Result<(), BatchError> {
    for_each(batch, max_decompressed, |r| f(r.offset, r.timestamp))
}

/// The header of a batch that is all there; bytes behind it are the caller's affair.
fn whole(batch: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(batch)?;
    if header.size() > batch.len() {
        return Err(BatchError::TooShort {
            have: batch.len(),
            need: header.size(),
        });
    }
    Ok(header)
}

/// Steps through uncompressed records.
struct Walk<'a> {
    header: &'a BatchHeader,
    rest: &'a [u8],
    index: i32,
    left: i32,
}

/// One record, its headers still ahead.
struct Raw<'a> {
    view: RecordView<'a>,
    header_count: usize,
    rest: &'a [u8],
    index: i32,
}

impl<'a> Walk<'a> {
    fn new(header: &'a BatchHeader, plain: &'a [u8]) -> Result<Walk<'a>, BatchError> {
        // Checked before anyone takes memory for that many.
        let possible = plain.len() / MIN_RECORD_LEN;
        match usize::try_from(header.record_count) {
            Ok(count) if count <= possible => {}
            _ => {
                return Err(BatchError::BadCount {
                    count: header.record_count,
                    last_offset_delta: header.last_offset_delta,
                });
            }
        }
        Ok(Walk {
            header,
            rest: plain,
            index: 0,
            left: header.record_count,
        })
    }

    fn next(&mut self) -> Result<Option<Raw<'a>>, BatchError> {
        let index = self.index;
        let bad = |what| BatchError::BadRecord { index, what };
        if self.left == 0 {
            // Kafka refuses these too: bytes nobody accounts for.
            return if self.rest.is_empty() {
                Ok(None)
            } else {
                Err(bad("bytes left over"))
            };
        }
        let len = varint(&mut self.rest).ok_or_else(|| bad("length"))?;
        let (mut body, rest) = usize::try_from(len)
            .ok()
            .and_then(|len| self.rest.split_at_checked(len))
            .ok_or_else(|| bad("length beyond the batch"))?;
        self.rest = rest;
        self.index += 1;
        self.left -= 1;
        let b = &mut body;
        b.try_get_u8().map_err(|_| bad("attributes"))?;
        let stamp = varlong(b).ok_or_else(|| bad("time stamp"))?;
        let delta = varint(b).ok_or_else(|| bad("offset"))?;
        if delta < 0 || delta > self.header.last_offset_delta {
            return Err(bad("offset outside the batch"));
        }
        let key = sized(b).ok_or_else(|| bad("key"))?;
        let value = sized(b).ok_or_else(|| bad("value"))?;
        let headers = varint(b).ok_or_else(|| bad("header count"))?;
        // A header takes two bytes at least.
        let header_count = usize::try_from(headers)
            .ok()
            .filter(|n| *n <= b.len() / 2)
            .ok_or_else(|| bad("header count"))?;
        let timestamp = if self.header.is_log_append_time() {
            self.header.max_timestamp
        } else {
            self.header.base_timestamp.wrapping_add(stamp)
        };
        let offset = self.header.base_offset.wrapping_add(i64::from(delta));
        let view = RecordView {
            offset,
            timestamp,
            key,
            value,
        };
        Ok(Some(Raw {
            view,
            header_count,
            rest: body,
            index,
        }))
    }
}

impl<'a> Raw<'a> {
    fn header(&mut self) -> Result<(&'a [u8], Option<&'a [u8]>), BatchError> {
        let bad = BatchError::BadRecord {
            index: self.index,
            what: "header",
        };
        match (sized(&mut self.rest), sized(&mut self.rest)) {
            (Some(Some(key)), Some(value)) => Ok((key, value)),
            _ => Err(bad),
        }
    }

    fn end(&self) -> Result<(), BatchError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(BatchError::BadRecord {
                index: self.index,
                what: "length",
            })
        }
    }
}

/// Bytes behind their length; -1 is null. The outer `None`: malformed.
fn sized<'a>(b: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let len = varint(b)?;
    if len == -1 {
        return Some(None);
    }
    let (head, rest) = b.split_at_checked(usize::try_from(len).ok()?)?;
    *b = rest;
    Some(Some(head))
}

/// A zigzag number of at most five bytes.
fn varint(b: &mut &[u8]) -> Option<i32> {
    let n = u32::try_from(unsigned(b, 5)?).ok()?;
    Some((n >> 1) as i32 ^ -((n & 1) as i32))
}

/// A zigzag number of at most ten bytes.
fn varlong(b: &mut &[u8]) -> Option<i64> {
    let n = unsigned(b, 10)?;
    Some((n >> 1) as i64 ^ -((n & 1) as i64))
}

#[inline]
fn unsigned(b: &mut &[u8], max_bytes: usize) -> Option<u64> {
    let mut n: u64 = 0;
    for i in 0..max_bytes {
        let (byte, rest) = b.split_first()?;
        *b = rest;
        n |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

fn put_unsigned(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn put_varlong(out: &mut Vec<u8>, n: i64) {
    put_unsigned(out, ((n << 1) ^ (n >> 63)) as u64);
}

fn put_sized(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varlong(out, -1),
        Some(b) => {
            put_varlong(out, b.len() as i64);
            out.extend_from_slice(b);
        }
    }
}

/// Gathers records into one batch.
///
/// ```
/// use wire::{batch, compress::Compression, records::BatchBuilder};
/// let mut b = BatchBuilder::new(Compression::Lz4).with_producer(7, 0, 0);
/// b.push(1_700_000_000_000, Some(b"key"), Some(b"value"), &[]);
/// let batch = b.build(0);
/// assert_eq!(batch::validate(&batch).unwrap().record_count, 1);
/// ```
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    header: BatchHeader,
    codec: Compression,
    /// Room for the header, then the records: without compression nothing is copied again.
    buf: Vec<u8>,
    scratch: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch of format 2, of no producer, with time stamps of the producer's clock.
    pub fn new(codec: Compression) -> BatchBuilder {
        BatchBuilder {
            header: BatchHeader {
                base_offset: 0,
                batch_length: 0,
                partition_leader_epoch: -1,
                magic: 2,
                crc: 0,
                attributes: 0,
                last_offset_delta: -1,
                base_timestamp: -1,
                max_timestamp: -1,
                producer_id: NO_PRODUCER_ID,
                producer_epoch: -1,
                base_sequence: -1,
                record_count: 0,
            },
            codec,
            buf: vec![0; HEADER_LEN],
            scratch: Vec::new(),
        }
    }

    /// The batch is an idempotent producer's (KIP-98).
    pub fn with_producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.set_producer(id, epoch, base_sequence);
        self
    }

    /// As [`with_producer`](Self::with_producer), for a builder that is kept somewhere.
    pub fn set_producer(&mut self, id: i64, epoch: i16, base_sequence: i32) {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
    }

    /// The leader epoch to write; -1 otherwise, as producers do.
    pub fn with_leader_epoch(mut self, epoch: i32) -> Self {
        self.header.partition_leader_epoch = epoch;
        self
    }

    /// The batch is part of a transaction.
    pub fn transactional(mut self) -> Self {
        self.header.set_transactional();
        self
    }

    /// The batch holds markers (end of transaction, leader change, …), not users' data.
    pub fn control(mut self) -> Self {
        self.header.set_control();
        self
    }

    /// Every record carries the broker's time instead of its own.
    pub fn with_log_append_time(mut self, timestamp_ms: i64) -> Self {
        self.header.set_log_append_time(timestamp_ms);
        self
    }

    /// Adds a record; its offset is one more than the last one's.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) {
        let h = &mut self.header;
        if h.record_count == 0 {
            h.base_timestamp = timestamp;
        }
        if !h.is_log_append_time() {
            h.max_timestamp = h.max_timestamp.max(timestamp);
        }
        h.record_count += 1;
        h.last_offset_delta += 1;
        let body = &mut self.scratch;
        body.clear();
        body.push(0);
        put_varlong(body, timestamp.wrapping_sub(h.base_timestamp));
        put_varlong(body, i64::from(h.last_offset_delta));
        put_sized(body, key);
        put_sized(body, value);
        put_varlong(body, headers.len() as i64);
        for header in headers {
            put_sized(body, Some(&header.key));
            put_sized(body, header.value.as_deref());
        }
        put_sized(&mut self.buf, Some(body));
    }

    /// Records so far.
    pub fn len(&self) -> usize {
        self.header.record_count as usize
    }

    /// True before the first record.
    pub fn is_empty(&self) -> bool {
        self.header.record_count == 0
    }

    /// Bytes the batch would have uncompressed.
    pub fn size_estimate(&self) -> usize {
        self.buf.len()
    }

    /// The finished batch, CRC and all. Without a record it is one no broker takes.
    pub fn build(self, base_offset: i64) -> Bytes {
        let BatchBuilder {
            mut header,
            codec,
            mut buf,
            ..
        } = self;
        header.base_offset = base_offset;
        if codec != Compression::None {
            // A codec that fails on memory (snappy beyond 4 GiB) leaves the records as they are.
            if let Ok(packed) = compress::compress(codec, buf.get(HEADER_LEN..).unwrap_or_default())
            {
                header.set_compression(codec);
                buf.truncate(HEADER_LEN);
                buf.extend_from_slice(&packed);
            }
        }
        header.batch_length = (buf.len() - LOG_OVERHEAD) as i32;
        header.crc = header.crc_with(buf.get(HEADER_LEN..).unwrap_or_default());
        if let Some(head) = buf.first_chunk_mut::<HEADER_LEN>() {
            *head = header.encode();
        }
        Bytes::from(buf)
    }
}
