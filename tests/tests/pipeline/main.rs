//! The main job, from a file of ticks to objects in a lake, with the real programs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod demo;
mod exactly_once;
mod lake;
mod main_job;
mod restarts;
