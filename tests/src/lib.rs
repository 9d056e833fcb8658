//! The harness of the tests: servers to test against, client drivers, a raw socket, and what the tests share.
//!
//! It knows the broker only from outside: its binary, its port, its files. So the same tests run against Apache Kafka, with
//! `MINI_BROKER_TEST_AGAINST=kafka` (`make test-kafka`).
//!
//! Whatever goes wrong here is a failed test, so this crate panics where a library would return an error.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod checker;
pub mod driver;
pub mod drivers;
pub mod dump;
pub mod env;
pub mod process;
pub mod random;
pub mod raw;
pub mod reader;
pub mod s3;
pub mod server;
pub mod wait;
