//! The protocol of `tests/drivers/PROTOCOL.md` in Rust types: what every client driver can be asked.

use serde::{Deserialize, Serialize};

pub type Outcome<T> = Result<T, String>;

/// Bytes, written as hex in JSON.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex(pub Vec<u8>);

impl std::fmt::Debug for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.0[..self.0.len().min(40)];
        write!(f, "b\"{}\"", shown.escape_ascii())?;
        if shown.len() < self.0.len() {
            write!(f, "…{} bytes", self.0.len())
        } else {
            Ok(())
        }
    }
}

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let text: String = self
            .0
            .iter()
            .flat_map(|b| {
                [
                    DIGITS[usize::from(b >> 4)] as char,
                    DIGITS[usize::from(b & 15)] as char,
                ]
            })
            .collect();
        s.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Hex, D::Error> {
        let text = String::deserialize(d)?;
        let pair = |i| {
            u8::from_str_radix(text.get(i..i + 2).unwrap_or("?"), 16)
                .map_err(serde::de::Error::custom)
        };
        (0..text.len())
            .step_by(2)
            .map(pair)
            .collect::<Result<_, _>>()
            .map(Hex)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    pub partition: Option<i32>,
    pub timestamp: i64,
    pub key: Option<Hex>,
    pub value: Option<Hex>,
    pub headers: Vec<(String, Option<Hex>)>,
}

impl Record {
    pub fn new(partition: i32, timestamp: i64, key: &str, value: &str) -> Record {
        Record {
            partition: Some(partition),
            timestamp,
            key: Some(Hex(key.into())),
            value: Some(Hex(value.into())),
            headers: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Read {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub append_time: bool,
    pub key: Option<Hex>,
    pub value: Option<Hex>,
    pub headers: Vec<(String, Option<Hex>)>,
}

impl Read {
    pub fn text(&self) -> String {
        self.value
            .as_ref()
            .map(|v| String::from_utf8_lossy(&v.0).into_owned())
            .unwrap_or_default()
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Produce {
    pub topic: String,
    pub acks: &'static str,
    pub compression: &'static str,
    pub idempotent: bool,
    pub records: Vec<Record>,
}

#[derive(Clone, Debug, Serialize)]
pub struct From {
    pub partition: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
}

impl From {
    pub fn beginning(partition: i32) -> From {
        From {
            partition,
            offset: None,
            timestamp: None,
        }
    }

    pub fn offset(partition: i32, offset: i64) -> From {
        From {
            partition,
            offset: Some(offset),
            timestamp: None,
        }
    }

    pub fn timestamp(partition: i32, timestamp: i64) -> From {
        From {
            partition,
            offset: None,
            timestamp: Some(timestamp),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Consume {
    pub topic: String,
    pub from: Vec<From>,
    pub count: usize,
    pub timeout_ms: u64,
}

#[derive(Debug, Deserialize)]
pub struct Consumed {
    pub records: Vec<Read>,
    pub starts: Vec<i64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Open {
    pub member: String,
    pub group: String,
    pub topics: Vec<String>,
    pub assignor: &'static str,
    pub instance: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub struct State {
    pub version: u64,
    pub assignment: Vec<(String, i32)>,
    pub records: Vec<Read>,
    pub assigned: u64,
    pub revoked: u64,
    pub lost: u64,
    pub failure: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Committed {
    pub partition: i32,
    pub offset: Option<i64>,
    pub metadata: String,
}

/// One client library.
pub trait Driver: Send {
    fn connect(&mut self, bootstrap: &str) -> Outcome<()>;
    fn create_topic(
        &mut self,
        topic: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Outcome<()>;
    fn delete_topic(&mut self, topic: &str) -> Outcome<()>;
    /// The offsets of the records, or −1 each with acks 0.
    fn produce(&mut self, request: &Produce) -> Outcome<Vec<i64>>;
    fn consume(&mut self, request: &Consume) -> Outcome<Consumed>;
    /// Joins a group in the background.
    fn open(&mut self, request: &Open) -> Outcome<()>;
    /// Waits until something happened after version `seen`, or `wait_ms` passed.
    fn state(&mut self, member: &str, seen: u64, wait_ms: u64) -> Outcome<State>;
    /// Commits what the member has read.
    fn commit(&mut self, member: &str, metadata: &str) -> Outcome<()>;
    fn committed(
        &mut self,
        group: &str,
        topic: &str,
        partitions: &[i32],
    ) -> Outcome<Vec<Committed>>;
    fn close(&mut self, member: &str) -> Outcome<()>;
}
