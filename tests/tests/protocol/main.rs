//! The protocol on a bare socket: every API in every version, Kafka's errors, idempotence, and bytes that no client sends.
//! Runs against Apache Kafka too (`make test-kafka`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod errors;
mod fetch;
mod groups;
mod idempotence;
mod malformed;
mod support;
mod versions;
