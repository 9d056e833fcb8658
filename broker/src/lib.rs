//! mini-broker: a single-node broker that speaks Kafka's protocol, as a library.
//!
//! ```no_run
//! # async fn example() -> Result<(), mini_broker::StartError> {
//! let config = mini_broker::BrokerConfig::in_dir("/tmp/my-broker");
//! let broker = mini_broker::Broker::start(config).await?;
//! println!("clients use {}", broker.bootstrap_servers());
//! broker.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Dependencies point down: server → connection → api → (topics, coordinator, meta) → log; groups
//! and fetch_session are pure. docs/ARCHITECTURE.md tells the way of a record.

pub mod api;
pub mod args;
mod broker;
mod clock;
pub mod config;
mod connection;
mod coordinator;
mod data_dir;
mod fetch_session;
pub mod groups;
pub mod log;
pub mod meta;
mod node;
mod reply;
mod server;
#[cfg(test)]
mod structure_test;
pub mod tools;
pub mod topics;

pub use broker::{Broker, StartError, start_lines};
pub use config::BrokerConfig;
