//! Taking over a partition: where the group stands, what the store holds from there on, and from
//! both the offset to begin at.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use wire::client::ClientError;
use wire::client::group::TopicPartition;

use super::{ASK_AGAIN, Done, Owned, Sink, SinkError, State};
use crate::part::{Begin, Part};
use crate::plan::{Islands, Lane, Stored};
use crate::store::{Found, ObjectName, Place, retrying};
use crate::upload::check_adoptable;

/// What the broker says of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    committed: Option<i64>,
    begin: i64,
    end: i64,
}

impl Offsets {
    /// Where to begin, as far as the broker knows.
    fn start(&self) -> i64 {
        match self.committed {
            Some(c) if (self.begin..=self.end).contains(&c) => c,
            _ => self.begin,
        }
    }

    /// From where on objects count. Without a valid commit (none yet, expired, or behind the end
    /// because the topic is another one now) all of them do.
    fn list_from(&self) -> i64 {
        match self.committed {
            Some(c) if c <= self.end => c,
            _ => 0,
        }
    }
}

impl Sink {
    /// `tps` is the whole assignment.
    pub(super) fn on_assigned(&mut self, tps: Vec<TopicPartition>) {
        self.assigned_once = true;
        self.owned.retain(|tp, _| tps.contains(tp));
        for tp in tps {
            if !self.owned.contains_key(&tp) {
                self.take(tp);
            }
        }
        self.ask_at = Instant::now();
    }

    fn take(&mut self, tp: TopicPartition) {
        self.consumer.pause(&tp);
        self.terms += 1;
        let owned = Owned {
            term: self.terms,
            topic_id: "-".into(),
            state: State::New,
            alive: watch::channel(()).0,
        };
        self.owned.insert(tp, owned);
    }

    /// Forgets what was read of a partition, and begins as if it had just been assigned.
    pub(super) fn start_over(&mut self, tp: &TopicPartition) {
        if self.owned.remove(tp).is_some() {
            self.take(tp.clone());
        }
    }

    /// Asks the broker where new partitions stand and starts to list what the store has of them.
    pub(super) async fn prepare_new(&mut self, now: Instant) -> Result<(), SinkError> {
        let new = self
            .owned
            .iter()
            .filter(|(_, o)| matches!(o.state, State::New));
        let tps: Vec<TopicPartition> = new.map(|(tp, _)| tp.clone()).collect();
        if tps.is_empty() || now < self.ask_at || self.stopping.is_some() {
            return Ok(());
        }
        match self.ask(&tps).await {
            Ok(answers) => {
                for (tp, topic_id, offsets) in answers {
                    self.list(&tp, topic_id, offsets);
                }
            }
            Err(e) if e.is_retriable() || e == ClientError::RebalanceInProgress => {
                self.uploader
                    .notices
                    .tell("offsets", &format!("asking for offsets: {e}; tried again"));
                self.ask_at = Instant::now() + ASK_AGAIN;
            }
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    async fn ask(
        &self,
        tps: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Arc<str>, Offsets)>, ClientError> {
        let committed = self.consumer.committed(tps).await?;
        let begins = self.consumer.beginning_offsets(tps).await?;
        let ends = self.consumer.end_offsets(tps).await?;
        let mut topics: Vec<String> = tps.iter().map(|tp| tp.topic.to_string()).collect();
        topics.sort_unstable();
        topics.dedup();
        let cluster = self.client.metadata(Some(&topics), false).await?;
        let ids: HashMap<&str, Arc<str>> = cluster
            .topics
            .values()
            .map(|t| {
                (
                    t.name.as_str(),
                    if t.id.is_nil() {
                        "-".into()
                    } else {
                        t.id.to_string().into()
                    },
                )
            })
            .collect();
        let answers = tps.iter().filter_map(|tp| {
            let offsets = Offsets {
                committed: committed.get(tp).cloned().flatten().map(|c| c.offset),
                begin: *begins.get(tp)?,
                end: *ends.get(tp)?,
            };
            let topic_id = ids
                .get(tp.topic.as_ref())
                .cloned()
                .unwrap_or_else(|| "-".into());
            Some((tp.clone(), topic_id, offsets))
        });
        Ok(answers.collect())
    }

    fn list(&mut self, tp: &TopicPartition, topic_id: Arc<str>, offsets: Offsets) {
        let Some(owned) = self.owned.get_mut(tp) else {
            return;
        };
        owned.topic_id = topic_id;
        owned.state = State::Listing(offsets);
        if let Some(lost) = offsets.committed.filter(|c| *c < offsets.begin) {
            self.uploader.notices.tell(
                "retention",
                &format!(
                    "{tp}: offsets {lost} to {} were deleted by retention before they were read",
                    offsets.begin - 1
                ),
            );
        }
        let (tp, term, uploader) = (tp.clone(), owned.term, Arc::clone(&self.uploader));
        let mut alive = owned.alive.subscribe();
        self.tasks.spawn(async move {
            let place = place(&tp);
            let what = format!("listing {}", place.folder());
            let from = offsets.list_from();
            let work = retrying(&uploader.notices, &what, || {
                uploader.store.list(&place, from)
            });
            tokio::select! {
                found = work => Done::Listed { tp, term, found },
                _ = alive.changed() => Done::Cancelled { upload: false },
            }
        });
    }

    /// Adopts what the store has and reads on behind it.
    pub(super) fn begin_reading(
        &mut self,
        tp: &TopicPartition,
        found: Vec<Found>,
    ) -> Result<(), SinkError> {
        let Some(owned) = self.owned.get_mut(tp) else {
            return Ok(());
        };
        let State::Listing(offsets) = owned.state else {
            return Ok(());
        };
        let start = offsets.start();
        let mut islands = Islands::default();
        for object in &found {
            let name = ObjectName {
                place: place(tp),
                first: object.first,
                extension: "*",
            };
            check_adoptable(&self.uploader.store, &name, &object.tag, &owned.topic_id)?;
            islands.insert(Stored {
                first: object.first,
                next: object.tag.next,
            });
        }
        let position = islands.skip(start);
        let adopted = found
            .iter()
            .filter(|o| o.first >= start && o.tag.next <= position);
        self.totals.skipped_existing += adopted.map(|o| o.tag.records).sum::<u64>();
        let target = self
            .settings
            .once
            .then(|| *self.targets.entry(tp.clone()).or_insert(offsets.end));
        let begin = Begin {
            position,
            committed: offsets
                .committed
                .filter(|c| *c <= offsets.end)
                .unwrap_or(offsets.begin),
            high_watermark: offsets.end,
            target,
        };
        let part = Part::new(self.settings.rules, Lane::new(islands, position), begin);
        owned.state = State::Reading(Box::new(part));
        self.consumer.seek(tp, position);
        self.apply_pauses();
        Ok(())
    }
}

fn place(tp: &TopicPartition) -> Place {
    Place {
        topic: Arc::clone(&tp.topic),
        partition: tp.partition,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(committed: Option<i64>) -> Offsets {
        Offsets {
            committed,
            begin: 10,
            end: 100,
        }
    }

    #[test]
    fn begins_at_the_commit_while_that_is_in_the_log() {
        for (committed, start, list_from) in [
            (Some(50), 50, 50),
            (Some(100), 100, 100),
            // Deleted by retention meanwhile: objects from there on may reach into what is left.
            (Some(5), 10, 5),
            // Never committed, expired, or another topic: everything in the store counts.
            (None, 10, 0),
            (Some(101), 10, 0),
        ] {
            let offsets = offsets(committed);
            assert_eq!(
                (offsets.start(), offsets.list_from()),
                (start, list_from),
                "{committed:?}"
            );
        }
    }
}
