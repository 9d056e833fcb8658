//! The catalogue: topics, settings, producer ids. Its truth is `__cluster_metadata-0`, a log in
//! KRaft's own records; what it adds up to is an immutable [`Image`]. Behind it a disposable index
//! (`index`). Knows `log`, `wire` and files of its own directory; never sockets, requests or
//! partitions' data. Calls block: use a blocking thread.

mod bootstrap;
mod codec;
mod entries;
mod image;
pub mod index;
mod properties;
mod records;
mod replay;
mod store;
pub mod topic_name;
mod uuid64;

pub use image::{Image, PartitionInfo, RESOURCE_BROKER, RESOURCE_GROUP, RESOURCE_TOPIC, TopicInfo};
pub use index::Index;
pub use store::{Meta, PARTITIONS_MAX, PRODUCER_ID_BLOCK, check_new_topic};
pub use uuid64::{decode as uuid_from_base64, encode as uuid_to_base64, random as random_uuid};

use uuid::Uuid;

/// Why the catalogue refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// INVALID_TOPIC_EXCEPTION; the text says why.
    #[error("{0}")]
    InvalidTopicName(String),
    /// TOPIC_ALREADY_EXISTS.
    #[error("topic '{0}' already exists")]
    TopicExists(String),
    /// UNKNOWN_TOPIC_OR_PARTITION.
    #[error("there is no topic '{0}'")]
    UnknownTopic(String),
    /// UNKNOWN_TOPIC_ID.
    #[error("there is no topic with id {}", uuid_to_base64(.0))]
    UnknownTopicId(Uuid),
    /// INVALID_PARTITIONS; the text says why.
    #[error("{0}")]
    InvalidPartitions(String),
    /// INVALID_REQUEST: the request makes no sense as it is.
    #[error("{0}")]
    InvalidRequest(String),
    /// KAFKA_STORAGE_ERROR: the disk failed or is full.
    #[error("the catalogue cannot be written: {0}")]
    Storage(String),
    /// The data directory cannot be used; the text says what to do.
    #[error("{0}")]
    Open(String),
}
