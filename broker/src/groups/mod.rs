//! The classic group coordinator: consumer groups and their committed offsets.
//!
//! Pure state machines: every call takes the time (`now_ms`) and returns what is to be written and who is to be
//! answered ([`Output`]). May know nothing of sockets, files, clocks, runtimes or protocol message types.
//! The rules are those of Kafka's `ClassicGroup`, `GroupMetadataManager` and `OffsetMetadataManager`.
//!
//! How a shell drives it:
//! 1. `new`, then `load` for every record of `__consumer_offsets`, then `finish_load`.
//! 2. Under one lock: call a request method, append `records` to the log at once. If that append is refused, call
//!    `revert` before anything else.
//! 3. When the records are durable, deliver `replies`. Replies to tokens nobody waits for any more are dropped.
//! 4. Call `tick` at `next_deadline`, which may have moved after every call.

mod admin;
mod coordinator;
mod group;
mod join;
mod member;
mod offsets;
mod rebalance;
pub mod schema;
mod sync;
mod types;

#[cfg(test)]
mod tests;

pub use coordinator::Coordinator;
pub use group::State;
pub use types::*;
