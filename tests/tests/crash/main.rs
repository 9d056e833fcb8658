//! The broker as a process: its start, its addresses, its end. And what it keeps: kill -9 under load, damaged and deleted side files, torn and corrupt logs, restarts; and Kafka's own
//! tool over the files it leaves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod addresses;
mod corruption;
mod disposable;
mod dump;
mod embedded;
mod graduation;
mod kill;
mod load;
mod retention;
mod start_stop;
mod support;
