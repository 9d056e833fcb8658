//! The Fetch answer, versions 4–18, written as small buffers around file regions: the codec would
//! copy the records, this sends them from the segment as they lie. Fields and versions are those
//! of Kafka's `FetchResponse.json`; a test decodes every version with the codec.

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::{ApiKey, TopicName};
use uuid::Uuid;

use crate::log::Region;
use crate::reply::Part;

/// A topic in the answer: by name up to v12, by id from v13.
#[derive(Debug, Default)]
pub struct TopicData {
    pub name: TopicName,
    pub id: Uuid,
    pub partitions: Vec<PartitionData>,
}

/// A partition in the answer.
#[derive(Debug)]
pub struct PartitionData {
    pub index: i32,
    pub error_code: i16,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// read_committed gets a list of aborted transactions (empty here), read_uncommitted null.
    pub read_committed: bool,
    pub records: Option<Region>,
}

/// The head of the answer.
#[derive(Debug, Default, Clone, Copy)]
pub struct Head {
    pub correlation_id: i32,
    pub error_code: i16,
    pub session_id: i32,
}

/// The whole frame, length first. `None` when it would pass 2 GiB.
pub fn encode(version: i16, head: Head, topics: Vec<TopicData>) -> Option<Vec<Part>> {
    let mut out = Out {
        version,
        parts: Vec::new(),
        buffer: BytesMut::with_capacity(256),
    };
    out.buffer.put_i32(0);
    out.buffer.put_i32(head.correlation_id);
    if ApiKey::Fetch.response_header_version(version) >= 1 {
        out.tags();
    }
    out.buffer.put_i32(0); // throttle_time_ms
    if version >= 7 {
        out.buffer.put_i16(head.error_code);
        out.buffer.put_i32(head.session_id);
    }
    out.count(topics.len());
    for topic in topics {
        out.topic(topic);
    }
    out.tags();
    out.finish()
}

struct Out {
    version: i16,
    parts: Vec<Part>,
    buffer: BytesMut,
}

impl Out {
    fn flexible(&self) -> bool {
        self.version >= 12
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buffer.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.put_u8(value as u8);
    }

    /// An array's length. Counts here are bounded by the request's own size.
    fn count(&mut self, n: usize) {
        if self.flexible() {
            self.varint(n as u32 + 1);
        } else {
            self.buffer.put_i32(n as i32);
        }
    }

    /// No tagged fields.
    fn tags(&mut self) {
        if self.flexible() {
            self.buffer.put_u8(0);
        }
    }

    fn topic(&mut self, topic: TopicData) {
        if self.version >= 13 {
            self.buffer.put_slice(topic.id.as_bytes());
        } else {
            let name = topic.name.as_bytes();
            if self.flexible() {
                self.varint(name.len() as u32 + 1);
            } else {
                self.buffer.put_i16(name.len() as i16);
            }
            self.buffer.put_slice(name);
        }
        self.count(topic.partitions.len());
        for partition in topic.partitions {
            self.partition(partition);
        }
        self.tags();
    }

    fn partition(&mut self, p: PartitionData) {
        self.buffer.put_i32(p.index);
        self.buffer.put_i16(p.error_code);
        self.buffer.put_i64(p.high_watermark);
        self.buffer.put_i64(p.last_stable_offset);
        if self.version >= 5 {
            self.buffer.put_i64(p.log_start_offset);
        }
        match (p.read_committed, self.flexible()) {
            (true, true) => self.buffer.put_u8(1),
            (true, false) => self.buffer.put_i32(0),
            (false, true) => self.buffer.put_u8(0),
            (false, false) => self.buffer.put_i32(-1),
        }
        if self.version >= 11 {
            self.buffer.put_i32(-1); // preferred_read_replica
        }
        let len = p.records.as_ref().map_or(0, |r| r.len);
        if self.flexible() {
            self.varint(len as u32 + 1);
        } else {
            self.buffer.put_i32(len as i32);
        }
        if let Some(region) = p.records {
            self.parts.push(Part::Buffer(self.buffer.split().freeze()));
            self.parts.push(Part::File(region));
        }
        self.tags();
    }

    fn finish(mut self) -> Option<Vec<Part>> {
        let total: usize = self.parts.iter().map(Part::len).sum::<usize>() + self.buffer.len();
        let len = i32::try_from(total.checked_sub(4)?).ok()?;
        if !self.buffer.is_empty() {
            self.parts.push(Part::Buffer(self.buffer.freeze()));
        }
        if let Some(Part::Buffer(first)) = self.parts.first_mut() {
            let mut patched = BytesMut::from(&first[..]);
            patched.get_mut(..4)?.copy_from_slice(&len.to_be_bytes());
            *first = patched.freeze();
        }
        Some(self.parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kafka_protocol::messages::{FetchResponse, ResponseHeader};
    use kafka_protocol::protocol::{Decodable, Message};

    fn sample(version: i16) -> Bytes {
        let partition = |index, read_committed| PartitionData {
            index,
            error_code: 3,
            high_watermark: 44,
            last_stable_offset: 43,
            log_start_offset: 2,
            read_committed,
            records: None,
        };
        let topic = TopicData {
            name: TopicName::from(kafka_protocol::protocol::StrBytes::from_static_str("ticks")),
            id: Uuid::from_u128(77),
            partitions: vec![partition(5, true), partition(6, false)],
        };
        let head = Head {
            correlation_id: 9,
            error_code: 0,
            session_id: 12,
        };
        let parts = encode(version, head, vec![topic]).unwrap();
        let mut all = Vec::new();
        for part in parts {
            let Part::Buffer(b) = part else {
                panic!("no file was given")
            };
            all.extend_from_slice(&b);
        }
        all.into()
    }

    #[test]
    fn every_version_decodes_with_the_codec() {
        for version in FetchResponse::VERSIONS.min..=FetchResponse::VERSIONS.max {
            let mut frame = sample(version);
            let len = i32::from_be_bytes(frame.split_to(4)[..].try_into().unwrap());
            assert_eq!(len as usize, frame.len(), "v{version}");
            let header_version = ApiKey::Fetch.response_header_version(version);
            let header = ResponseHeader::decode(&mut frame, header_version).unwrap();
            assert_eq!(header.correlation_id, 9);
            let body = FetchResponse::decode(&mut frame, version).unwrap();
            assert!(frame.is_empty(), "v{version} leaves {} bytes", frame.len());
            let topic = &body.responses[0];
            let p = &topic.partitions[0];
            assert_eq!(
                (p.partition_index, p.error_code, p.high_watermark),
                (5, 3, 44)
            );
            assert_eq!(p.last_stable_offset, 43);
            assert_eq!(p.log_start_offset, if version >= 5 { 2 } else { -1 });
            assert_eq!(p.aborted_transactions.as_ref().map(Vec::len), Some(0));
            assert_eq!(topic.partitions[1].aborted_transactions, None);
            assert_eq!(
                p.records.as_ref().map(Bytes::len),
                Some(0),
                "empty, never null"
            );
            if version >= 13 {
                assert_eq!(topic.topic_id, Uuid::from_u128(77));
            } else {
                assert_eq!(&*topic.topic.0, "ticks");
            }
            assert_eq!(body.session_id, if version >= 7 { 12 } else { 0 });
        }
    }
}
