//! From the source to the broker: takes ticks at the rate asked for, hands them to the client,
//! and watches what becomes of each. Knows the client only through [`Sink`].

pub mod rate;
pub mod sink;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use self::rate::Pacer;
use self::sink::{Problem, Sink};
use crate::report::{Console, Tally, records};
use crate::source::{Item, Tick};

/// Deliveries waited for in order; the client's own buffer is usually the tighter limit.
const WATCHED: usize = 1 << 16;

/// How urgently the stream is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    No,
    /// Take no more; wait for what was taken.
    Drain,
    /// Do not even wait.
    Abandon,
}

/// Why the stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The source ended, or the count was reached.
    Complete,
    /// Somebody asked for it.
    Stopped,
    /// Asked for it twice.
    Abandoned,
    /// The source broke.
    Source(String),
    /// The broker refused for good.
    Refused(String),
}

/// Streams until an end, then waits for everything taken. The tally then says what came of it.
pub async fn run<S: Sink>(
    sink: &S,
    mut items: mpsc::Receiver<Item>,
    mut pacer: Pacer,
    mut stop: watch::Receiver<Stop>,
    tally: &Arc<Tally>,
    console: &Console,
) -> End {
    let (deliveries, watched) = mpsc::channel(WATCHED);
    let (refused, mut refusal) = watch::channel(None);
    let watcher = watch_deliveries::<S>(watched, Arc::clone(tally), console.clone(), refused);
    let mut stopping = stop.clone();
    let pump = async {
        let pump = Pump {
            sink,
            items: &mut items,
            pacer: &mut pacer,
            tally,
            console,
            deliveries,
        };
        let end = tokio::select! {
            biased;
            Ok(_) = stopping.wait_for(|stop| *stop > Stop::No) => End::Stopped,
            Some(reason) = told(&mut refusal) => End::Refused(reason),
            end = pump.run() => end,
        };
        let open = tally.outstanding();
        if end == End::Stopped && open > 0 {
            console.note(&format!(
                "stopping: waiting for the broker to acknowledge {} already taken (once more to give them up)",
                records(open)
            ));
        }
        sink.flush().await;
        end
    };
    let all = async { tokio::join!(pump, watcher).0 };
    tokio::select! {
        biased;
        end = all => end,
        Ok(_) = stop.wait_for(|stop| *stop == Stop::Abandon) => End::Abandoned,
    }
}

/// The reason once there is one; never, if there will be none.
async fn told(refusal: &mut watch::Receiver<Option<String>>) -> Option<String> {
    match refusal.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone(),
        Err(_) => std::future::pending().await,
    }
}

struct Pump<'a, S: Sink> {
    sink: &'a S,
    items: &'a mut mpsc::Receiver<Item>,
    pacer: &'a mut Pacer,
    tally: &'a Tally,
    console: &'a Console,
    deliveries: mpsc::Sender<S::Delivery>,
}

impl<S: Sink> Pump<'_, S> {
    /// Dropping this future takes no record half: one is counted before it is handed over.
    async fn run(self) -> End {
        loop {
            if let Some(wait) = self.pacer.wait(Instant::now()) {
                sleep(wait).await;
                continue;
            }
            // Room for the delivery comes first, so that none goes unwatched.
            let Ok(watched) = self.deliveries.reserve().await else {
                return End::Abandoned;
            };
            let tick = loop {
                match self.items.recv().await {
                    None => return End::Complete,
                    Some(Item::Failed(error)) => return End::Source(error.to_string()),
                    Some(Item::Bad(bad)) => {
                        self.tally.malformed();
                        let (line, reason) = (bad.line, bad.reason);
                        self.console
                            .warn(&format!("line {line} is left out: {reason}"));
                    }
                    Some(Item::Tick(tick)) => break tick,
                }
            };
            if let Some(end) = self.hand_over(tick, watched).await {
                return end;
            }
        }
    }

    async fn hand_over(&self, tick: Tick, watched: mpsc::Permit<'_, S::Delivery>) -> Option<End> {
        let bytes = tick.value.len() + tick.key.as_ref().map_or(0, bytes::Bytes::len);
        let mut taken = Taken::new(self.tally, bytes as u64);
        match self.sink.send(tick).await {
            Ok(delivery) => {
                taken.handed_over = true;
                watched.send(delivery);
                None
            }
            Err(Problem { text, fatal }) => {
                taken.handed_over = true;
                self.tally.failed(1);
                if fatal {
                    return Some(End::Refused(text));
                }
                self.console.error(&text);
                None
            }
        }
    }
}

/// Takes a record back that was not handed over because waiting for the client's buffer was
/// broken off.
struct Taken<'a> {
    tally: &'a Tally,
    bytes: u64,
    handed_over: bool,
}

impl Taken<'_> {
    fn new(tally: &Tally, bytes: u64) -> Taken<'_> {
        tally.taken(bytes);
        Taken {
            tally,
            bytes,
            handed_over: false,
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.handed_over {
            self.tally.given_back(self.bytes);
        }
    }
}

/// Awaits each delivery in order. A refusal for good is told, and ends the stream.
async fn watch_deliveries<S: Sink>(
    mut deliveries: mpsc::Receiver<S::Delivery>,
    tally: Arc<Tally>,
    console: Console,
    refused: watch::Sender<Option<String>>,
) {
    let mut last_problem = String::new();
    while let Some(delivery) = deliveries.recv().await {
        match delivery.await {
            Ok(()) => tally.acknowledged(1),
            Err(Problem { text, fatal }) => {
                tally.failed(1);
                // One failed batch fails many records with the same words.
                if text != last_problem {
                    console.error(&text);
                    last_problem.clone_from(&text);
                }
                if fatal {
                    refused.send_replace(Some(text));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
