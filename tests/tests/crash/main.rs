//! What the broker keeps: kill -9 under load, damaged and deleted side files, torn and corrupt logs, restarts; and Kafka's own
//! tool over the files it leaves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod corruption;
mod disposable;
mod dump;
mod kill;
mod load;
mod retention;
mod start_stop;
mod support;
