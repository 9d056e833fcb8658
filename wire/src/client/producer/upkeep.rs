//! What the sender does beside sending: failing what took too long, new epochs, connections,
//! metadata, producer ids.

use std::time::Duration;

use futures_util::future::FutureExt;
use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use tokio::time::Instant;

use super::lane::Identity;
use super::sender::{Event, Sender};
use crate::client::{ClientError, To, pool};

impl Sender {
    /// Fails what was tried for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        let limit = self.cfg.delivery_timeout;
        let mut dead = Vec::new();
        {
            let mut inner = self.accumulator.lock();
            for (i, part) in inner.parts.iter_mut().enumerate() {
                let name = (part.topic.clone(), part.index);
                if let Some(lane) = self.lanes.get_mut(i) {
                    for id in lane.expired(now, limit) {
                        dead.extend(
                            lane.take(id, true)
                                .map(|b| (name.clone(), b.ticket, b.in_doubt, b.last_error)),
                        );
                    }
                }
                while part
                    .open
                    .front()
                    .is_some_and(|o| o.ticket.created + limit <= now)
                {
                    dead.extend(
                        part.open
                            .pop_front()
                            .map(|o| (name.clone(), o.ticket, false, None)),
                    );
                }
            }
        }
        for ((topic, partition), ticket, in_doubt, error) in dead {
            let cause = error.or_else(|| self.last_error.clone());
            let error = ClientError::DeliveryTimeout {
                topic: topic.to_string(),
                partition,
                records: ticket.records,
                after_ms: limit.as_millis() as u64,
                in_doubt,
                cause: cause.map_or(
                    "the records could not be sent fast enough".to_owned(),
                    |e| e.to_string(),
                ),
            };
            self.counters.failed(ticket.records);
            self.accumulator.resolve(&ticket, Err(error));
        }
    }

    /// New epochs for partitions whose sequences have a gap. As the Java producer does, the epoch is
    /// raised here; the broker takes any higher one that starts with sequence 0 (KIP-360).
    pub(super) fn renew(&mut self) {
        let mut exhausted = false;
        for lane in &mut self.lanes {
            let Some(old) = lane.wants_identity() else {
                continue;
            };
            match (old.epoch.checked_add(1), self.identity) {
                (Some(epoch), _) => lane.renew(Identity { epoch, ..old }),
                (None, Some(me)) if me.id != old.id => lane.renew(me),
                (None, _) => exhausted = true,
            }
        }
        if exhausted {
            self.identity = None;
            self.ask_identity();
        }
    }

    pub(super) fn connect(&mut self, id: i32) {
        let node = self.nodes.entry(id).or_default();
        node.conn = None;
        if std::mem::replace(&mut node.connecting, true) {
            return;
        }
        let client = self.client.clone();
        let connect = async move {
            let result = client.connection(To::Node(id), pool::Lane::Produce).await;
            Event::Connected { node: id, result }
        };
        self.events.push(connect.boxed());
    }

    pub(super) fn ask_metadata(&mut self) {
        self.refresh.asking = true;
        let (client, topics) = (self.client.clone(), self.accumulator.topics());
        self.events.push(
            async move { Event::Metadata(client.metadata_once(Some(&topics), true).await) }.boxed(),
        );
    }

    pub(super) fn ask_identity(&mut self) {
        if std::mem::replace(&mut self.asking_identity, true) {
            return;
        }
        let client = self.client.clone();
        let pause = if self.last_error.is_some() {
            self.cfg.client.retry_backoff
        } else {
            Duration::ZERO
        };
        let limit = self.cfg.client.request_timeout;
        let ask = async move {
            tokio::time::sleep(pause).await;
            let make = |_| {
                InitProducerIdRequest::default()
                    .with_transactional_id(None)
                    .with_transaction_timeout_ms(limit.as_millis() as i32)
                    .with_producer_id(ProducerId(-1))
                    .with_producer_epoch(-1)
            };
            let asked = client
                .send(To::Any, pool::Lane::Main, i16::MAX, limit, make)
                .await;
            Event::Identity(asked.and_then(|a| {
                ClientError::check(a.error_code, || "asking for a producer id".to_owned())?;
                Ok(Identity {
                    id: a.producer_id.0,
                    epoch: a.producer_epoch,
                })
            }))
        };
        self.events.push(ask.boxed());
    }
}
