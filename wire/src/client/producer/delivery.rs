//! What became of a batch, and the futures of its records that wait for it. One allocation a
//! batch, none a record.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::RecordMeta;
use crate::client::error::Result;

/// The fate of one batch, shared by the futures of its records.
pub(super) struct Outcome {
    topic: Arc<str>,
    partition: i32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Base offset.
    result: Option<Result<i64>>,
    wakers: Vec<Waker>,
}

impl Outcome {
    pub(super) fn new(topic: Arc<str>, partition: i32) -> Arc<Outcome> {
        Arc::new(Outcome {
            topic,
            partition,
            state: Mutex::default(),
        })
    }

    /// Tells everybody; only the first word counts.
    pub(super) fn resolve(&self, result: Result<i64>) {
        let wakers = {
            let mut state = self.lock();
            state.result.get_or_insert(result);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(super) fn delivery(self: &Arc<Self>, index: u32) -> Delivery {
        Delivery {
            outcome: self.clone(),
            index,
            place: None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves when the record is acknowledged or has failed; may be dropped.
pub struct Delivery {
    outcome: Arc<Outcome>,
    index: u32,
    /// Where this future's waker is kept.
    place: Option<usize>,
}

impl Future for Delivery {
    type Output = Result<RecordMeta>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = self.outcome.clone();
        let mut state = outcome.lock();
        let Some(result) = &state.result else {
            match self.place.and_then(|i| state.wakers.get_mut(i)) {
                Some(waker) => waker.clone_from(cx.waker()),
                None => {
                    self.place = Some(state.wakers.len());
                    state.wakers.push(cx.waker().clone());
                }
            }
            return Poll::Pending;
        };
        Poll::Ready(result.clone().map(|base| RecordMeta {
            topic: outcome.topic.clone(),
            partition: outcome.partition,
            offset: if base < 0 {
                -1
            } else {
                base + i64::from(self.index)
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ClientError;

    #[tokio::test]
    async fn every_record_learns_its_offset() {
        let outcome = Outcome::new("t".into(), 3);
        let (a, b) = (outcome.delivery(0), outcome.delivery(1));
        let waiting = tokio::spawn(b);
        outcome.resolve(Ok(40));
        outcome.resolve(Err(ClientError::Closed));
        assert_eq!(a.await.unwrap().offset, 40);
        assert_eq!(
            waiting.await.unwrap().unwrap(),
            RecordMeta {
                topic: "t".into(),
                partition: 3,
                offset: 41
            }
        );
    }
}
