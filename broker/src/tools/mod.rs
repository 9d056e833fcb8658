//! Subcommands of the `mini-broker` binary. They are clients: they know the wire client and the
//! command line, never the broker's insides.

pub mod demo;
