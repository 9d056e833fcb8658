//! Where objects go: a folder or a bucket. A store creates an object whole or not at all, only if
//! its name is free, and remembers with it which offsets it holds. Knows object names and bytes;
//! nothing of Kafka or formats.

mod local;
mod name;
mod retry;
mod s3;
#[cfg(test)]
pub mod testing;

use bytes::Bytes;

use crate::encode::Format;
pub use local::LocalStore;
pub use name::{ObjectName, Place, is_safe_topic};
pub use retry::{Notices, retrying};
pub use s3::{S3Options, S3Store};

/// What is kept with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The offset behind the last one it holds.
    pub next: i64,
    /// How many records it holds.
    pub records: u64,
    /// The process that stored it.
    pub writer: String,
    /// Id of the topic, `-` where the broker has none: a topic deleted and created again starts
    /// at offset 0 again, and its records must not be taken for the old ones.
    pub topic_id: String,
}

/// An object the store has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub first: i64,
    pub tag: Tag,
}

/// How an attempt to create an object ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is there now, durably.
    Created,
    /// The name was taken: by an earlier attempt, or by another writer.
    Taken(Tag),
}

/// Why a store did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store wants fewer requests.
    #[error("{0}")]
    Throttled(String),
    /// May work later.
    #[error("{0}")]
    Transient(String),
    /// Somebody has to do something.
    #[error("{0}")]
    Fatal(String),
}

/// The store objects go to.
pub enum Store {
    Local(LocalStore),
    S3(S3Store),
    #[cfg(test)]
    Test(std::sync::Arc<testing::TestStore>),
}

impl Store {
    /// Looks whether the store is there and may be used.
    pub async fn check(&self) -> Result<(), StoreError> {
        match self {
            Store::Local(s) => s.check().await,
            Store::S3(s) => s.check().await,
            #[cfg(test)]
            Store::Test(_) => Ok(()),
        }
    }

    /// Creates an object if its name is free.
    pub async fn put(
        &self,
        name: &ObjectName,
        tag: &Tag,
        format: Format,
        body: Bytes,
    ) -> Result<Put, StoreError> {
        match self {
            Store::Local(s) => s.put(name, tag, body).await,
            Store::S3(s) => s.put(name, tag, format.content_type(), body).await,
            #[cfg(test)]
            Store::Test(s) => s.put(name, tag, &body),
        }
    }

    /// The objects of a partition, of any format, that begin at `from` or behind.
    pub async fn list(&self, place: &Place, from: i64) -> Result<Vec<Found>, StoreError> {
        match self {
            Store::Local(s) => s.list(place, from).await,
            Store::S3(s) => s.list(place, from).await,
            #[cfg(test)]
            Store::Test(s) => Ok(s.list(place, from)),
        }
    }

    /// For people: where the objects are.
    pub fn location(&self) -> String {
        match self {
            Store::Local(s) => s.location(),
            Store::S3(s) => s.location(),
            #[cfg(test)]
            Store::Test(_) => "a test".to_owned(),
        }
    }

    /// For people: how to look at the objects.
    pub fn how_to_look(&self, format: Format) -> String {
        match self {
            Store::Local(s) => s.how_to_look(format.extension()),
            Store::S3(s) => s.how_to_look(),
            #[cfg(test)]
            Store::Test(_) => String::new(),
        }
    }
}
