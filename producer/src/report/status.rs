//! Status lines for other programs: one JSON object a second on standard output, and a last one.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use super::{Counts, Tally};
use crate::stream::Stop;

#[derive(Debug, Serialize)]
struct Status {
    records_sent: u64,
    records_acked: u64,
    records_failed: u64,
    malformed_rows: u64,
    bytes: u64,
    r#final: bool,
}

impl Status {
    fn new(counts: Counts, last: bool) -> Status {
        Status {
            records_sent: counts.sent,
            records_acked: counts.acked,
            records_failed: counts.failed,
            malformed_rows: counts.malformed,
            bytes: counts.bytes,
            r#final: last,
        }
    }
}

/// Prints from a thread of its own, since a full pipe blocks.
pub struct StatusLines {
    finish: Sender<()>,
    thread: JoinHandle<()>,
}

impl StatusLines {
    /// When nobody reads any more, the stream is told to stop: whoever started it has gone.
    pub fn start(tally: Arc<Tally>, stop: watch::Sender<Stop>) -> io::Result<StatusLines> {
        let (finish, finished) = channel::<()>();
        let thread = thread::Builder::new()
            .name("status".into())
            .spawn(move || {
                loop {
                    let last = finished.recv_timeout(Duration::from_secs(1))
                        != Err(RecvTimeoutError::Timeout);
                    if write_line(io::stdout().lock(), &tally, last).is_err() {
                        stop.send_if_modified(|stop| {
                            let running = *stop == Stop::No;
                            if running {
                                *stop = Stop::Drain;
                            }
                            running
                        });
                        return;
                    }
                    if last {
                        return;
                    }
                }
            })?;
        Ok(StatusLines { finish, thread })
    }

    /// Prints the last line.
    pub fn finish(self) {
        let _ = self.finish.send(());
        let _ = self.thread.join();
    }
}

fn write_line(mut out: impl Write, tally: &Tally, last: bool) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Status::new(tally.counts(), last))?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_json_object() {
        let tally = Tally::default();
        tally.taken(10);
        tally.taken(5);
        tally.acknowledged(1);
        tally.malformed();
        let mut out = Vec::new();
        write_line(&mut out, &tally, true).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"records_sent\":2,\"records_acked\":1,\"records_failed\":0,\"malformed_rows\":1,\"bytes\":15,\"final\":true}\n"
        );
    }
}
