//! Stores one object: encode, put, and where the name is taken, adopt what is there and go on with
//! the rest. Knows encoders and stores; nothing of the group.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use wire::records::Record;

use crate::encode::{self, Format};
use crate::rotate::Batch;
use crate::store::{Notices, ObjectName, Place, Put, Store, StoreError, Tag, retrying};

/// What every upload needs.
pub struct Uploader {
    pub store: Store,
    pub format: Format,
    pub notices: Notices,
    /// Name of this process among the writers.
    pub writer: String,
    /// How many objects may be encoded side by side: what encoders take beside their input and
    /// output is not in the memory budget.
    pub encoders: Semaphore,
}

/// What storing one batch came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Everything below is in the store.
    pub covered_to: i64,
    pub objects: u64,
    pub records: u64,
    pub bytes: u64,
    /// Records that others had stored.
    pub skipped: u64,
}

impl Uploader {
    /// Returns when every record of the batch is in the store, by whomever.
    pub async fn store(
        self: Arc<Self>,
        place: Place,
        topic_id: Arc<str>,
        batch: Batch,
    ) -> Result<Outcome, StoreError> {
        let mut outcome = Outcome {
            covered_to: batch.next(),
            ..Outcome::default()
        };
        let end = batch.next();
        let mut records = batch.records;
        while let Some(first) = records.first().map(|r| r.offset) {
            let name = ObjectName {
                place: place.clone(),
                first,
                extension: self.format.extension(),
            };
            let tag = Tag {
                next: end,
                records: records.len() as u64,
                writer: self.writer.clone(),
                topic_id: topic_id.to_string(),
            };
            let body;
            (records, body) = self.encode(records).await?;
            let what = format!("storing {}", name.path());
            let put = retrying(&self.notices, &what, || {
                self.store.put(&name, &tag, self.format, body.clone())
            });
            let taken = match put.await? {
                Put::Created => None,
                // An earlier attempt of ours whose answer was lost.
                Put::Taken(there) if there == tag => None,
                Put::Taken(there) => Some(there),
            };
            let Some(there) = taken else {
                outcome.objects += 1;
                outcome.records += tag.records;
                outcome.bytes += body.len() as u64;
                break;
            };
            check_adoptable(&self.store, &name, &there, &topic_id)?;
            let before = records.len();
            records.retain(|r| r.offset >= there.next);
            outcome.skipped += (before - records.len()) as u64;
            outcome.covered_to = outcome.covered_to.max(there.next);
        }
        Ok(outcome)
    }

    async fn encode(&self, records: Vec<Record>) -> Result<(Vec<Record>, Bytes), StoreError> {
        let format = self.format;
        // It is never closed; without a permit it is only memory that is at stake.
        let _permit = self.encoders.acquire().await.ok();
        let work =
            move || encode::encode(format, &records).map(|body| (records, Bytes::from(body)));
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done.map_err(|e| StoreError::Fatal(e.to_string())),
            Err(e) => Err(StoreError::Fatal(format!("encoding failed: {e}"))),
        }
    }
}

/// Whether an object that is there may stand for the records of this topic.
pub fn check_adoptable(
    store: &Store,
    name: &ObjectName,
    tag: &Tag,
    topic_id: &str,
) -> Result<(), StoreError> {
    let path = name.path();
    if tag.topic_id != topic_id && tag.topic_id != "-" && topic_id != "-" {
        return Err(StoreError::Fatal(format!(
            "{path} in {} holds records of an earlier topic of this name (its id was {}, now it is {topic_id}): \
             the topic was deleted and created again, or comes from another broker; write to another place (--to), \
             or move the old objects away",
            store.location(),
            tag.topic_id
        )));
    }
    if tag.next <= name.first {
        return Err(StoreError::Fatal(format!(
            "{path} in {} claims to end at offset {}, before it begins; move it away",
            store.location(),
            tag.next
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::testing::record;
    use crate::store::testing::TestStore;

    fn uploader(store: &Arc<TestStore>, writer: &str) -> Arc<Uploader> {
        Arc::new(Uploader {
            store: Store::Test(Arc::clone(store)),
            format: Format::Json,
            notices: Notices::new(|_| {}),
            writer: writer.to_owned(),
            encoders: Semaphore::new(1),
        })
    }

    fn batch(offsets: std::ops::Range<i64>) -> Batch {
        let records = offsets.map(|o| record(o, &o.to_string())).collect();
        Batch {
            records,
            cell: 0,
            weight_bytes: 0,
        }
    }

    async fn put(
        store: &Arc<TestStore>,
        writer: &str,
        offsets: std::ops::Range<i64>,
    ) -> Result<Outcome, StoreError> {
        let place = Place {
            topic: "t".into(),
            partition: 0,
        };
        uploader(store, writer)
            .store(place, "id".into(), batch(offsets))
            .await
    }

    fn stored(store: &TestStore) -> Vec<(i64, i64)> {
        let objects = store.objects.lock().unwrap();
        objects
            .iter()
            .map(|((_, first), (tag, _))| (*first, tag.next))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_is_not_a_second_object() {
        let store = Arc::new(TestStore::default());
        *store.lose_answers.lock().unwrap() = 1;
        let outcome = put(&store, "a", 0..5).await.unwrap();
        assert_eq!(
            (outcome.records, outcome.objects, outcome.skipped),
            (5, 1, 0)
        );
        assert_eq!(stored(&store), [(0, 5)]);
    }

    #[tokio::test]
    async fn what_is_there_is_adopted_whether_shorter_equal_or_longer() {
        for (theirs, covered, own, skipped, all) in [
            (0..3, 5, 2, 3, vec![(0, 3), (3, 5)]),
            (0..5, 5, 0, 5, vec![(0, 5)]),
            (0..8, 8, 0, 5, vec![(0, 8)]),
        ] {
            let store = Arc::new(TestStore::default());
            put(&store, "zombie", theirs).await.unwrap();
            let outcome = put(&store, "b", 0..5).await.unwrap();
            assert_eq!(
                (outcome.covered_to, outcome.records, outcome.skipped),
                (covered, own, skipped)
            );
            assert_eq!(stored(&store), all);
        }
    }

    #[tokio::test]
    async fn records_of_a_deleted_topic_do_not_stand_for_new_ones() {
        let store = Arc::new(TestStore::default());
        put(&store, "a", 0..5).await.unwrap();
        let place = Place {
            topic: "t".into(),
            partition: 0,
        };
        let error = uploader(&store, "b")
            .store(place, "new-id".into(), batch(0..5))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("created again"), "{error}");
    }
}
