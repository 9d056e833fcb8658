//! The main job with the real programs: `producer` → broker → `consumer` → objects, in a folder and in S3, through kill -9 of
//! each of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod demo;
mod exactly_once;
mod formats;
mod lake;
mod main_job;
mod restarts;
