//! A store in memory whose answers can be lost, for tests of exactly-once.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::{Found, ObjectName, Place, Put, StoreError, Tag};

/// By partition and first offset.
pub type Objects = BTreeMap<(i32, i64), (Tag, Vec<u8>)>;

#[derive(Default)]
pub struct TestStore {
    pub objects: Mutex<Objects>,
    /// Answers still to lose after the object was created.
    pub lose_answers: Mutex<u32>,
}

impl TestStore {
    pub fn put(&self, name: &ObjectName, tag: &Tag, body: &[u8]) -> Result<Put, StoreError> {
        let mut objects = self.objects.lock().unwrap();
        let key = (name.place.partition, name.first);
        if let Some((tag, _)) = objects.get(&key) {
            return Ok(Put::Taken(tag.clone()));
        }
        objects.insert(key, (tag.clone(), body.to_vec()));
        let mut lose = self.lose_answers.lock().unwrap();
        if *lose > 0 {
            *lose -= 1;
            return Err(StoreError::Transient("connection reset".into()));
        }
        Ok(Put::Created)
    }

    pub fn list(&self, place: &Place, from: i64) -> Vec<Found> {
        let objects = self.objects.lock().unwrap();
        objects
            .range((place.partition, from)..=(place.partition, i64::MAX))
            .map(|((_, first), (tag, _))| Found {
                first: *first,
                tag: tag.clone(),
            })
            .collect()
    }
}
