//! What can go wrong for a client, in words that say what to do next. Knows error codes by the
//! names Kafka gives them, nothing of sockets or requests.

use kafka_protocol::error::ResponseError;

use crate::batch::BatchError;

/// Result of every client operation.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// Why a client operation failed. Cheap to clone, because one failed batch fails many records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// None of the addresses answered.
    #[error(
        "no broker reachable ({tried}); check that the broker runs, that the bootstrap address is \
         right, and that the address the broker advertises (advertised.listeners, --advertise) can \
         be reached from this machine"
    )]
    NoBrokers {
        /// Address and reason of each attempt.
        tried: String,
    },
    /// A connection could not be made, or broke before the answer came.
    #[error("connection to {addr}: {reason}")]
    Connection {
        /// The broker's address.
        addr: String,
        /// What the system said.
        reason: String,
    },
    /// No answer in time.
    #[error(
        "no answer to {what} within {after_ms} ms; the broker may be overloaded or the network slow: raise the request timeout or retry"
    )]
    Timeout {
        /// The request.
        what: String,
        /// How long it was waited for.
        after_ms: u64,
    },
    /// The peer sent something that is not the protocol.
    #[error(
        "{addr} sent what is no Kafka answer ({reason}); check that this is the port of a plaintext Kafka listener"
    )]
    Protocol {
        /// The broker's address.
        addr: String,
        /// What was wrong.
        reason: String,
    },
    /// Broker and client have no version of this request in common.
    #[error(
        "{api} is not possible with this broker: it speaks {broker}, this client {client}; a newer broker or client is needed"
    )]
    UnsupportedVersion {
        /// Name of the request.
        api: String,
        /// The broker's version range.
        broker: String,
        /// This client's version range.
        client: String,
    },
    /// The broker refused.
    #[error("{context}: the broker answered {} ({code}){}", error_name(*code), advice(*code))]
    Broker {
        /// Kafka's error code.
        code: i16,
        /// What was asked, and what the broker added.
        context: String,
    },
    /// Another process uses the same `group.instance.id` (or producer id).
    #[error(
        "fenced: another process has taken over {who}; let only one process use it, or give this one another instance id"
    )]
    Fenced {
        /// The identity that was taken over.
        who: String,
    },
    /// The group went on to a new generation without this member.
    #[error("the group has moved on (ILLEGAL_GENERATION); poll again to join its new generation")]
    IllegalGeneration,
    /// The group does not know this member any more.
    #[error(
        "the group dropped this member (UNKNOWN_MEMBER_ID), usually after a silence longer than the session timeout; poll again to rejoin"
    )]
    UnknownMember,
    /// A rebalance is under way.
    #[error("the group is rebalancing; poll again, then retry")]
    RebalanceInProgress,
    /// A record was not acknowledged before its delivery timeout.
    #[error("{records} record(s) for {topic}-{partition} were not acknowledged within {after_ms} ms{}; last problem: {cause}",
        if *in_doubt { " (they may have been stored all the same: the answer is missing)" } else { " (they were not stored)" })]
    DeliveryTimeout {
        /// Topic of the batch.
        topic: String,
        /// Partition of the batch.
        partition: i32,
        /// How many records the batch held.
        records: u32,
        /// How long it was tried.
        after_ms: u64,
        /// Whether a copy may have reached the log.
        in_doubt: bool,
        /// What kept it from being delivered.
        cause: String,
    },
    /// The position lies outside of the log.
    #[error("{}{}", no_such_offset(topic, *partition, *offset), where_next(*reset_to))]
    OffsetOutOfRange {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// The position that was asked for (−1: none was ever committed).
        offset: i64,
        /// Where reading goes on, if anywhere.
        reset_to: Option<i64>,
    },
    /// Stored or transmitted records are damaged.
    #[error(
        "records of {topic}-{partition} at offset {offset} are damaged ({reason}); the broker's log has to be looked at"
    )]
    Corrupt {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Position at which reading stopped.
        offset: i64,
        /// What the check found.
        reason: String,
    },
    /// A setting or argument makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl ClientError {
    /// A broker's error code, with what was asked; the group errors get their own variants.
    pub fn from_code(code: i16, context: impl Into<String>) -> ClientError {
        match code {
            codes::ILLEGAL_GENERATION => ClientError::IllegalGeneration,
            codes::UNKNOWN_MEMBER_ID => ClientError::UnknownMember,
            codes::REBALANCE_IN_PROGRESS => ClientError::RebalanceInProgress,
            codes::FENCED_INSTANCE_ID => ClientError::Fenced {
                who: context.into(),
            },
            _ => ClientError::Broker {
                code,
                context: context.into(),
            },
        }
    }

    /// Ok for code 0, else [`ClientError::from_code`].
    pub fn check(code: i16, context: impl FnOnce() -> String) -> Result<()> {
        if code == 0 {
            Ok(())
        } else {
            Err(ClientError::from_code(code, context()))
        }
    }

    /// Whether the same request may succeed later without anybody doing anything.
    pub fn is_retriable(&self) -> bool {
        match self {
            ClientError::Broker { code, .. } => is_retriable_code(*code),
            e => e.is_unreachable(),
        }
    }

    /// Kafka's error code, where the broker gave one.
    pub fn code(&self) -> Option<i16> {
        match self {
            ClientError::Broker { code, .. } => Some(*code),
            ClientError::IllegalGeneration => Some(codes::ILLEGAL_GENERATION),
            ClientError::UnknownMember => Some(codes::UNKNOWN_MEMBER_ID),
            ClientError::RebalanceInProgress => Some(codes::REBALANCE_IN_PROGRESS),
            ClientError::Fenced { .. } => Some(codes::FENCED_INSTANCE_ID),
            _ => None,
        }
    }

    /// Whether the broker could not be reached, in whatever way.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            ClientError::NoBrokers { .. }
                | ClientError::Connection { .. }
                | ClientError::Timeout { .. }
        )
    }

    pub(crate) fn invalid(text: impl Into<String>) -> ClientError {
        ClientError::Invalid(text.into())
    }
}

impl From<BatchError> for ClientError {
    fn from(e: BatchError) -> ClientError {
        ClientError::Invalid(format!("record batch: {e}"))
    }
}

/// The codes the client acts upon (`org.apache.kafka.common.protocol.Errors`).
pub mod codes {
    #![allow(missing_docs)]
    pub const OFFSET_OUT_OF_RANGE: i16 = 1;
    pub const CORRUPT_MESSAGE: i16 = 2;
    pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    pub const LEADER_NOT_AVAILABLE: i16 = 5;
    pub const NOT_LEADER_OR_FOLLOWER: i16 = 6;
    pub const REQUEST_TIMED_OUT: i16 = 7;
    pub const MESSAGE_TOO_LARGE: i16 = 10;
    pub const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
    pub const COORDINATOR_NOT_AVAILABLE: i16 = 15;
    pub const NOT_COORDINATOR: i16 = 16;
    pub const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
    pub const ILLEGAL_GENERATION: i16 = 22;
    pub const UNKNOWN_MEMBER_ID: i16 = 25;
    pub const REBALANCE_IN_PROGRESS: i16 = 27;
    pub const UNSUPPORTED_VERSION: i16 = 35;
    pub const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
    pub const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
    pub const INVALID_PRODUCER_EPOCH: i16 = 47;
    pub const UNKNOWN_PRODUCER_ID: i16 = 59;
    pub const MEMBER_ID_REQUIRED: i16 = 79;
    pub const FENCED_INSTANCE_ID: i16 = 82;
    pub const UNSTABLE_OFFSET_COMMIT: i16 = 88;
    pub const PRODUCER_FENCED: i16 = 90;
}

/// Kafka's name of an error code.
pub fn error_name(code: i16) -> String {
    match ResponseError::try_from_code(code) {
        None => "NONE".to_owned(),
        Some(ResponseError::Unknown(_)) => "an error this client has no name for".to_owned(),
        Some(e) => upper_snake(&format!("{e:?}")),
    }
}

/// Whether Kafka calls this error retriable.
pub fn is_retriable_code(code: i16) -> bool {
    ResponseError::try_from_code(code).is_some_and(|e| e.is_retriable())
}

fn upper_snake(camel: &str) -> String {
    let mut out = String::with_capacity(camel.len() + 8);
    for (i, c) in camel.chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

fn no_such_offset(topic: &str, partition: i32, offset: i64) -> String {
    if offset < 0 {
        format!("the group has no committed offset for {topic}-{partition}")
    } else {
        format!("offset {offset} of {topic}-{partition} is not in the log")
    }
}

fn where_next(reset_to: Option<i64>) -> String {
    match reset_to {
        Some(to) => format!("; continuing at {to} as the reset policy says"),
        None => "; seek to an offset, or set a reset policy (earliest or latest)".to_owned(),
    }
}

/// What a person can do about an error code, where there is something to do.
fn advice(code: i16) -> &'static str {
    match code {
        codes::MESSAGE_TOO_LARGE => {
            "; use smaller batches or raise message.max.bytes (max.message.bytes of the topic)"
        }
        codes::UNKNOWN_TOPIC_OR_PARTITION => {
            "; create the topic, or let the broker create it (auto.create.topics.enable)"
        }
        17 => "; topic names may hold letters, digits, '.', '_' and '-', at most 249 of them",
        29..=31 => "; ask for the permission (ACL) this needs",
        38 => "; ask for fewer replicas: there are not that many brokers",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_kafkas_names() {
        assert_eq!(error_name(6), "NOT_LEADER_OR_FOLLOWER");
        assert_eq!(error_name(0), "NONE");
        assert!(error_name(12345).contains("no name"));
    }

    #[test]
    fn group_errors_are_distinct_and_retriability_follows_kafka() {
        assert_eq!(
            ClientError::from_code(22, "x"),
            ClientError::IllegalGeneration
        );
        assert_eq!(ClientError::from_code(27, "x").code(), Some(27));
        assert!(ClientError::from_code(6, "x").is_retriable());
        assert!(!ClientError::from_code(10, "x").is_retriable());
        assert!(
            ClientError::from_code(10, "produce")
                .to_string()
                .contains("message.max.bytes")
        );
    }
}
