//! The records of `__consumer_offsets`, byte for byte Kafka's: OffsetCommitKey 0–1, OffsetCommitValue 0–4,
//! GroupMetadataKey 2, GroupMetadataValue 0–4; written are key 1 / value 3 (1 with an expiry) and key 2 / value 3.
//! Also the one part of the consumer protocol a coordinator looks into: the subscribed topics.

use bytes::Bytes;

/// Why a record could not be read. The log is damaged there, or was written by something newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    #[error(
        "a record of __consumer_offsets ends too early; look at it with kafka-dump-log --offsets-decoder"
    )]
    TooShort,
    #[error(
        "a record of __consumer_offsets holds an impossible length; look at it with kafka-dump-log --offsets-decoder"
    )]
    BadLength,
    #[error(
        "a record of __consumer_offsets holds text that is not UTF-8; look at it with kafka-dump-log --offsets-decoder"
    )]
    BadText,
    #[error(
        "a record of __consumer_offsets has value version {0}, which this release does not know; use a newer one"
    )]
    UnknownValueVersion(i16),
}

/// A key, as far as the classic coordinator knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Offset {
        group: String,
        topic: String,
        partition: i32,
    },
    Group {
        group: String,
    },
    /// Of another protocol or a later Kafka.
    Unknown(i16),
}

/// A committed offset (OffsetCommitValue).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetValue {
    pub offset: i64,
    /// −1 when unknown.
    pub leader_epoch: i32,
    pub metadata: String,
    pub commit_timestamp_ms: i64,
    /// Only of commits that asked for their own retention (v2–4).
    pub expire_timestamp_ms: Option<i64>,
}

/// A generation of a group (GroupMetadataValue).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupValue {
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// −1 when unknown.
    pub state_timestamp_ms: i64,
    pub members: Vec<MemberValue>,
}

/// A member in the record of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberValue {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// −1 before version 1.
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

// --- writing ---

/// Key of a committed offset.
pub fn offset_key(group: &str, topic: &str, partition: i32) -> Vec<u8> {
    let mut b = Vec::with_capacity(10 + group.len() + topic.len());
    b.extend(1i16.to_be_bytes());
    put_str(&mut b, group);
    put_str(&mut b, topic);
    b.extend(partition.to_be_bytes());
    b
}

/// Key of a group's metadata.
pub fn group_key(group: &str) -> Vec<u8> {
    let mut b = Vec::with_capacity(4 + group.len());
    b.extend(2i16.to_be_bytes());
    put_str(&mut b, group);
    b
}

impl OffsetValue {
    pub fn encode(&self) -> Vec<u8> {
        let mut b = Vec::with_capacity(32 + self.metadata.len());
        // Only version 1 has an expiry, and it has no leader epoch (Kafka's MetadataVersion.offsetCommitValueVersion).
        let version: i16 = if self.expire_timestamp_ms.is_some() {
            1
        } else {
            3
        };
        b.extend(version.to_be_bytes());
        b.extend(self.offset.to_be_bytes());
        if version == 3 {
            b.extend(self.leader_epoch.to_be_bytes());
        }
        put_str(&mut b, &self.metadata);
        b.extend(self.commit_timestamp_ms.to_be_bytes());
        if let Some(expire) = self.expire_timestamp_ms {
            b.extend(expire.to_be_bytes());
        }
        b
    }
}

impl GroupValue {
    pub fn encode(&self) -> Vec<u8> {
        let mut b = Vec::new();
        b.extend(3i16.to_be_bytes());
        put_str(&mut b, &self.protocol_type);
        b.extend(self.generation.to_be_bytes());
        put_opt_str(&mut b, self.protocol.as_deref());
        put_opt_str(&mut b, self.leader.as_deref());
        b.extend(self.state_timestamp_ms.to_be_bytes());
        b.extend((self.members.len() as i32).to_be_bytes());
        for m in &self.members {
            put_str(&mut b, &m.member_id);
            put_opt_str(&mut b, m.group_instance_id.as_deref());
            put_str(&mut b, &m.client_id);
            put_str(&mut b, &m.client_host);
            b.extend(m.rebalance_timeout_ms.to_be_bytes());
            b.extend(m.session_timeout_ms.to_be_bytes());
            put_bytes(&mut b, &m.subscription);
            put_bytes(&mut b, &m.assignment);
        }
        b
    }
}

/// The coordinator refuses longer strings before they come here; the cut only keeps the record well formed.
fn put_str(b: &mut Vec<u8>, s: &str) {
    let s = s
        .get(..s.floor_char_boundary(i16::MAX as usize))
        .unwrap_or_default();
    b.extend((s.len() as i16).to_be_bytes());
    b.extend(s.as_bytes());
}

fn put_opt_str(b: &mut Vec<u8>, s: Option<&str>) {
    match s {
        Some(s) => put_str(b, s),
        None => b.extend((-1i16).to_be_bytes()),
    }
}

fn put_bytes(b: &mut Vec<u8>, bytes: &[u8]) {
    b.extend((bytes.len() as i32).to_be_bytes());
    b.extend(bytes);
}

// --- reading ---

/// Reads a key; keys of other kinds are `Key::Unknown`.
pub fn decode_key(key: &[u8]) -> Result<Key, SchemaError> {
    let mut r = Reader {
        rest: key,
        flexible: false,
    };
    match r.i16()? {
        0 | 1 => Ok(Key::Offset {
            group: r.string()?,
            topic: r.string()?,
            partition: r.i32()?,
        }),
        2 => Ok(Key::Group { group: r.string()? }),
        other => Ok(Key::Unknown(other)),
    }
}

impl OffsetValue {
    pub fn decode(value: &[u8]) -> Result<OffsetValue, SchemaError> {
        let mut r = Reader {
            rest: value,
            flexible: false,
        };
        let version = r.version()?;
        let offset = r.i64()?;
        let leader_epoch = if version >= 3 { r.i32()? } else { -1 };
        let metadata = r.string()?;
        let commit_timestamp_ms = r.i64()?;
        let expire = if version == 1 { r.i64()? } else { -1 };
        // What follows are tagged fields (the topic id, since 4.1); none matters here.
        let expire_timestamp_ms = (expire != -1).then_some(expire);
        Ok(OffsetValue {
            offset,
            leader_epoch,
            metadata,
            commit_timestamp_ms,
            expire_timestamp_ms,
        })
    }
}

impl GroupValue {
    pub fn decode(value: &[u8]) -> Result<GroupValue, SchemaError> {
        let mut r = Reader {
            rest: value,
            flexible: false,
        };
        let version = r.version()?;
        let protocol_type = r.string()?;
        let generation = r.i32()?;
        let protocol = r.opt_string()?;
        let leader = r.opt_string()?;
        let state_timestamp_ms = if version >= 2 { r.i64()? } else { -1 };
        let count = r.array_len()?;
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(MemberValue {
                member_id: r.string()?,
                group_instance_id: if version >= 3 { r.opt_string()? } else { None },
                client_id: r.string()?,
                client_host: r.string()?,
                rebalance_timeout_ms: if version >= 1 { r.i32()? } else { -1 },
                session_timeout_ms: r.i32()?,
                subscription: Bytes::copy_from_slice(r.bytes()?),
                assignment: Bytes::copy_from_slice(r.bytes()?),
            });
            r.tagged_fields()?;
        }
        Ok(GroupValue {
            protocol_type,
            generation,
            protocol,
            leader,
            state_timestamp_ms,
            members,
        })
    }
}

/// The topics in a `ConsumerProtocolSubscription`; its version 0 is the head of every version. None if it is not one.
pub fn subscribed_topics(subscription: &[u8]) -> Option<Vec<String>> {
    let mut r = Reader {
        rest: subscription,
        flexible: false,
    };
    let version = r.i16().ok()?;
    if version < 0 {
        return None;
    }
    let count = r.array_len().ok()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(r.string().ok()?);
    }
    let user_data = r.i32().ok()?;
    (user_data < 0 || r.rest.len() >= user_data as usize).then_some(topics)
}

/// A cursor that never reads past its end nor takes memory on the word of a length.
struct Reader<'a> {
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], SchemaError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(SchemaError::TooShort)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SchemaError> {
        self.take(N)?.try_into().map_err(|_| SchemaError::TooShort)
    }

    fn i16(&mut self) -> Result<i16, SchemaError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32, SchemaError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, SchemaError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// The version of a value; from 4 on it is flexible.
    fn version(&mut self) -> Result<i16, SchemaError> {
        let version = self.i16()?;
        if !(0..=4).contains(&version) {
            return Err(SchemaError::UnknownValueVersion(version));
        }
        self.flexible = version >= 4;
        Ok(version)
    }

    fn uvarint(&mut self) -> Result<u32, SchemaError> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f)
                .checked_shl(shift)
                .ok_or(SchemaError::BadLength)?;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(SchemaError::BadLength)
    }

    /// None for null. `short` lengths are int16, others int32; both are varints + 1 in flexible versions.
    fn len(&mut self, short: bool) -> Result<Option<usize>, SchemaError> {
        let len = match (self.flexible, short) {
            (true, _) => i64::from(self.uvarint()?) - 1,
            (false, true) => i64::from(self.i16()?),
            (false, false) => i64::from(self.i32()?),
        };
        match len {
            -1 => Ok(None),
            n => usize::try_from(n)
                .map(Some)
                .map_err(|_| SchemaError::BadLength),
        }
    }

    fn opt_string(&mut self) -> Result<Option<String>, SchemaError> {
        let Some(len) = self.len(true)? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| SchemaError::BadText)?;
        Ok(Some(text.to_owned()))
    }

    fn string(&mut self) -> Result<String, SchemaError> {
        self.opt_string()?.ok_or(SchemaError::BadLength)
    }

    fn bytes(&mut self) -> Result<&'a [u8], SchemaError> {
        let len = self.len(false)?.ok_or(SchemaError::BadLength)?;
        self.take(len)
    }

    fn array_len(&mut self) -> Result<usize, SchemaError> {
        let len = self.len(false)?.ok_or(SchemaError::BadLength)?;
        // Every element takes at least a byte, so a greater count is refused before it is believed.
        if len > self.rest.len() {
            Err(SchemaError::TooShort)
        } else {
            Ok(len)
        }
    }

    fn tagged_fields(&mut self) -> Result<(), SchemaError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint()? {
            self.uvarint()?;
            let size = self.uvarint()? as usize;
            self.take(size)?;
        }
        Ok(())
    }
}
