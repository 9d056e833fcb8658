//! Where ticks go, and the client that takes them there.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use wire::client::ClientError;
use wire::client::codes;
use wire::client::producer::{Delivery, Producer, ProducerRecord};

use crate::source::Tick;

/// Why a record was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub text: String,
    /// Every further record would meet it too.
    pub fatal: bool,
}

/// Takes ticks to a broker.
pub trait Sink {
    /// Resolves when one record is acknowledged, or never will be.
    type Delivery: Future<Output = Result<(), Problem>>;
    /// Waits while there is no room. Dropping the future takes nothing.
    fn send(&self, tick: Tick) -> impl Future<Output = Result<Self::Delivery, Problem>>;
    /// Waits until everything taken is acknowledged or has failed.
    fn flush(&self) -> impl Future<Output = ()>;
}

/// One topic of a Kafka broker.
pub struct TopicSink {
    pub producer: Producer,
    pub topic: String,
}

impl Sink for TopicSink {
    type Delivery = Watched;

    async fn send(&self, tick: Tick) -> Result<Watched, Problem> {
        let record = ProducerRecord {
            key: tick.key,
            value: Some(tick.value),
            ..ProducerRecord::default()
        };
        let sent = self.producer.send(&self.topic, record).await;
        sent.map(Watched).map_err(|error| Problem {
            text: error.to_string(),
            // The client has tried long enough to reach the topic; the next record would fare
            // no better.
            fatal: !concerns_one_record(&error),
        })
    }

    async fn flush(&self) {
        // Each failure is also the outcome of a delivery, where it is counted.
        let _ = self.producer.flush().await;
    }
}

/// A delivery whose place in the log is of no interest.
pub struct Watched(Delivery);

impl Future for Watched {
    type Output = Result<(), Problem>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(outcome.map(|_| ()).map_err(|error| Problem {
            text: error.to_string(),
            fatal: !(error.is_retriable() || concerns_one_record(&error)),
        }))
    }
}

/// The record is too large, or was tried for too long: others may fare better.
fn concerns_one_record(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Invalid(_) | ClientError::DeliveryTimeout { .. }
    ) || error.code() == Some(codes::MESSAGE_TOO_LARGE)
}
