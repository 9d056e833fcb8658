//! What speaks Kafka's wire and storage formats, shared by the broker, its tools, `producer` and
//! `consumer`: record batches, compression, frames, the guard in front of the decoder, and a small
//! async client. Knows nothing of files, topics or groups on the broker's side.

pub mod batch;
pub mod client;
pub mod compress;
pub mod frame;
pub mod guard;
pub mod records;
