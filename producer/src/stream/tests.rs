//! The stream against a sink that answers as each test tells it.

use std::cell::RefCell;
use std::future::{pending, ready};
use std::pin::Pin;
use std::rc::Rc;

use tokio::sync::{Notify, Semaphore};

use super::rate::Rate;
use super::*;
use crate::source::{BadRow, SourceError};

type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;
type Outcome = dyn Fn(usize) -> Boxed<Result<(), Problem>>;

struct FakeSink {
    taken: RefCell<Vec<Tick>>,
    /// What becomes of record n.
    outcome: Option<Box<Outcome>>,
    /// From this record on there is no room.
    full_at: Option<usize>,
    /// One permit for each call of `send`.
    calls: Semaphore,
}

impl Default for FakeSink {
    fn default() -> FakeSink {
        FakeSink {
            taken: RefCell::default(),
            outcome: None,
            full_at: None,
            calls: Semaphore::new(0),
        }
    }
}

impl Sink for FakeSink {
    type Delivery = Boxed<Result<(), Problem>>;

    async fn send(&self, tick: Tick) -> Result<Self::Delivery, Problem> {
        let number = self.taken.borrow().len();
        self.calls.add_permits(1);
        if self.full_at.is_some_and(|at| number >= at) {
            return pending().await;
        }
        self.taken.borrow_mut().push(tick);
        Ok(match &self.outcome {
            Some(outcome) => outcome(number),
            None => Box::pin(ready(Ok(()))),
        })
    }

    async fn flush(&self) {}
}

fn tick(number: usize) -> Item {
    Item::Tick(Tick {
        key: Some("k".into()),
        value: number.to_string().into(),
    })
}

fn source(items: Vec<Item>) -> mpsc::Receiver<Item> {
    let (sender, receiver) = mpsc::channel(items.len().max(1));
    for item in items {
        sender.try_send(item).unwrap();
    }
    receiver
}

fn problem(fatal: bool) -> Problem {
    Problem {
        text: "no".into(),
        fatal,
    }
}

struct Run {
    end: End,
    tally: Arc<Tally>,
}

async fn stream(sink: &FakeSink, items: mpsc::Receiver<Item>, stop: watch::Receiver<Stop>) -> Run {
    let tally = Arc::new(Tally::default());
    let pacer = Pacer::new(Rate::Max);
    let end = run(sink, items, pacer, stop, &tally, &Console::silent()).await;
    Run { end, tally }
}

#[tokio::test]
async fn everything_goes_in_order_and_bad_rows_stop_nothing() {
    let sink = FakeSink::default();
    let bad = Item::Bad(BadRow {
        line: 3,
        reason: "odd".into(),
    });
    let (_keep, stop) = watch::channel(Stop::No);
    let run = stream(&sink, source(vec![tick(0), bad, tick(1), tick(2)]), stop).await;
    assert_eq!(run.end, End::Complete);
    let counts = run.tally.counts();
    assert_eq!(
        (counts.sent, counts.acked, counts.failed, counts.malformed),
        (3, 3, 0, 1)
    );
    assert_eq!(counts.bytes, 6);
    let values: Vec<_> = sink
        .taken
        .borrow()
        .iter()
        .map(|t| t.value.clone())
        .collect();
    assert_eq!(values, ["0", "1", "2"]);
}

#[tokio::test]
async fn a_failed_record_is_counted_and_the_stream_goes_on() {
    let sink = FakeSink {
        outcome: Some(Box::new(|number| {
            Box::pin(ready(if number == 1 {
                Err(problem(false))
            } else {
                Ok(())
            }))
        })),
        ..FakeSink::default()
    };
    let (_keep, stop) = watch::channel(Stop::No);
    let run = stream(&sink, source((0..4).map(tick).collect()), stop).await;
    assert_eq!(run.end, End::Complete);
    let counts = run.tally.counts();
    assert_eq!((counts.sent, counts.acked, counts.failed), (4, 3, 1));
}

#[tokio::test]
async fn a_refusal_for_good_ends_an_endless_stream() {
    let sink = FakeSink {
        outcome: Some(Box::new(|_| Box::pin(ready(Err(problem(true)))))),
        ..FakeSink::default()
    };
    let (_keep, stop) = watch::channel(Stop::No);
    // The sender is kept: this source never ends.
    let (sender, items) = mpsc::channel(8);
    sender.try_send(tick(0)).unwrap();
    let run = stream(&sink, items, stop).await;
    assert_eq!(run.end, End::Refused("no".into()));
    assert_eq!(run.tally.counts().failed, 1);
}

#[tokio::test]
async fn a_broken_source_still_waits_for_what_was_taken() {
    let sink = FakeSink::default();
    let (_keep, stop) = watch::channel(Stop::No);
    let items = source(vec![tick(0), Item::Failed(SourceError::NoRows("x".into()))]);
    let run = stream(&sink, items, stop).await;
    assert!(matches!(run.end, End::Source(_)));
    assert_eq!(run.tally.counts().acked, 1);
}

#[tokio::test]
async fn stopping_gives_the_waiting_record_back_and_waits_for_the_others() {
    let answer = Rc::new(Notify::new());
    let told = Rc::clone(&answer);
    let sink = FakeSink {
        outcome: Some(Box::new(move |_| {
            let told = Rc::clone(&told);
            Box::pin(async move {
                told.notified().await;
                Ok(())
            })
        })),
        full_at: Some(1),
        ..FakeSink::default()
    };
    let (stopper, stop) = watch::channel(Stop::No);
    let (sender, items) = mpsc::channel(8);
    sender.try_send(tick(0)).unwrap();
    sender.try_send(tick(1)).unwrap();
    let control = async {
        sink.calls.acquire_many(2).await.unwrap().forget();
        stopper.send_replace(Stop::Drain);
        answer.notify_one();
    };
    let (run, ()) = tokio::join!(stream(&sink, items, stop), control);
    assert_eq!(run.end, End::Stopped);
    let counts = run.tally.counts();
    assert_eq!((counts.sent, counts.acked, counts.bytes), (1, 1, 2));
}

#[tokio::test]
async fn a_second_stop_gives_up_what_is_not_acknowledged() {
    let sink = FakeSink {
        outcome: Some(Box::new(|_| Box::pin(pending()))),
        ..FakeSink::default()
    };
    let (stopper, stop) = watch::channel(Stop::No);
    let (sender, items) = mpsc::channel(8);
    sender.try_send(tick(0)).unwrap();
    let control = async {
        sink.calls.acquire().await.unwrap().forget();
        stopper.send_replace(Stop::Drain);
        stopper.send_replace(Stop::Abandon);
    };
    let (run, ()) = tokio::join!(stream(&sink, items, stop), control);
    assert_eq!(run.end, End::Abandoned);
    assert_eq!(run.tally.outstanding(), 1);
}
