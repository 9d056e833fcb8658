//! The broker as a library.
pub mod api;
pub mod args;
pub mod config;
pub mod groups;
pub mod log;
pub mod meta;
pub mod tools;
pub mod topics;
