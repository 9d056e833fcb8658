//! Committed offsets: commit, fetch, expiry (KIP-211) and deletion (Kafka's `OffsetMetadataManager`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::coordinator::{Coordinator, Undo};
use super::group::{Group, State};
use super::schema::{self, OffsetValue};
use super::types::*;

/// How many offsets one pass of the expiry takes out; the rest follows soon after.
const MAX_EXPIRED_PER_PASS: usize = 5_000;
const NEXT_PASS_MS: i64 = 1_000;

/// What a commit leaves out of `retention_time_ms` to get the broker's.
const DEFAULT_RETENTION: i64 = -1;

type ByPartition = BTreeMap<i32, OffsetValue>;

/// All committed offsets, by group, topic and partition.
#[derive(Default)]
pub(super) struct Offsets {
    by_group: HashMap<Arc<str>, BTreeMap<String, ByPartition>>,
    bytes: usize,
}

impl Offsets {
    /// An estimate of the memory they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn put(
        &mut self,
        group: &Arc<str>,
        topic: &str,
        partition: i32,
        v: OffsetValue,
    ) -> Option<OffsetValue> {
        let topics = self.by_group.entry(group.clone()).or_default();
        if !topics.contains_key(topic) {
            topics.insert(topic.to_owned(), ByPartition::new());
        }
        self.bytes += entry_bytes(topic, &v);
        let was = topics
            .get_mut(topic)
            .and_then(|partitions| partitions.insert(partition, v));
        if let Some(was) = &was {
            self.bytes = self.bytes.saturating_sub(entry_bytes(topic, was));
        }
        was
    }

    pub(super) fn remove(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Option<OffsetValue> {
        let topics = self.by_group.get_mut(group)?;
        let partitions = topics.get_mut(topic)?;
        let was = partitions.remove(&partition)?;
        self.bytes = self.bytes.saturating_sub(entry_bytes(topic, &was));
        if partitions.is_empty() {
            topics.remove(topic);
        }
        if topics.is_empty() {
            self.by_group.remove(group);
        }
        Some(was)
    }

    pub(super) fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&OffsetValue> {
        self.by_group.get(group)?.get(topic)?.get(&partition)
    }

    pub(super) fn remove_group(&mut self, group: &str) {
        for (topic, partition) in self.keys(group, |_, _, _| true) {
            self.remove(group, &topic, partition);
        }
    }

    /// Topic and partition of the group's offsets that pass.
    pub(super) fn keys(
        &self,
        group: &str,
        pass: impl Fn(&str, i32, &OffsetValue) -> bool,
    ) -> Vec<(String, i32)> {
        let topics = self.by_group.get(group).into_iter().flatten();
        topics
            .flat_map(|(topic, partitions)| partitions.iter().map(move |(p, v)| (topic, *p, v)))
            .filter(|(topic, p, v)| pass(topic, *p, v))
            .map(|(topic, p, _)| (topic.clone(), p))
            .collect()
    }

    fn has_any(&self, group: &str) -> bool {
        self.by_group.contains_key(group)
    }
}

fn entry_bytes(topic: &str, value: &OffsetValue) -> usize {
    160 + topic.len() + value.metadata.len()
}

impl Coordinator {
    /// OffsetCommit. Each partition has its own result; a group-wide error stands for all.
    pub fn commit(&mut self, now_ms: i64, token: Token, req: CommitRequest) -> Output {
        let mut out = Output::default();
        let result = match self.check_committer(now_ms, &req) {
            Ok(()) => {
                let expire_ms = (req.retention_time_ms != DEFAULT_RETENTION)
                    .then(|| now_ms.saturating_add(req.retention_time_ms));
                Ok(self.commit_topics(now_ms, req, expire_ms, &mut out))
            }
            Err(error) => Err(error),
        };
        out.reply(token, Reply::Commit(result));
        out
    }

    fn check_committer(&mut self, now_ms: i64, req: &CommitRequest) -> Result<(), GroupError> {
        self.check_loaded()?;
        if req.group_id.len() > MAX_STRING_BYTES {
            return Err(GroupError::InvalidRequest);
        }
        let mut nothing = Output::default();
        let checked = self.with_group(now_ms, &req.group_id, &mut nothing, |group, ctx| {
            group.check_commit(req)?;
            group.committed_by(ctx, &req.member_id);
            Ok(())
        });
        match checked {
            Some(checked) => checked,
            // Whoever is not a member may commit to any group, which then is a simple group.
            None if req.generation < 0 && self.groups.len() < self.cfg.max_groups => Ok(()),
            None if req.generation < 0 => Err(GroupError::InvalidCommitOffsetSize),
            None if req.group_not_found_allowed => Err(GroupError::GroupIdNotFound),
            None => Err(GroupError::IllegalGeneration),
        }
    }

    fn commit_topics(
        &mut self,
        now_ms: i64,
        req: CommitRequest,
        expire_timestamp_ms: Option<i64>,
        out: &mut Output,
    ) -> Vec<TopicResults> {
        let mut results = Vec::with_capacity(req.topics.len());
        for topic in req.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for p in topic.partitions {
                let value = OffsetValue {
                    offset: p.offset,
                    leader_epoch: p.leader_epoch.max(-1),
                    metadata: p.metadata.unwrap_or_default(),
                    commit_timestamp_ms: now_ms,
                    expire_timestamp_ms,
                };
                let error = self
                    .check_offset(&req.group_id, &topic.name, p.partition, &value)
                    .err();
                if error.is_none() {
                    self.store(now_ms, &req.group_id, &topic.name, p.partition, value, out);
                }
                partitions.push((p.partition, error));
            }
            results.push(TopicResults {
                name: topic.name,
                partitions,
            });
        }
        results
    }

    fn check_offset(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
        value: &OffsetValue,
    ) -> Result<(), GroupError> {
        let units = value.metadata.encode_utf16().count();
        if units > self.cfg.offset_metadata_max_bytes || value.metadata.len() > MAX_STRING_BYTES {
            return Err(GroupError::OffsetMetadataTooLarge);
        }
        if topic.len() > MAX_STRING_BYTES {
            return Err(GroupError::UnknownTopicOrPartition);
        }
        let had = self
            .offsets
            .get(group, topic, partition)
            .map_or(0, |v| entry_bytes(topic, v));
        let grows = entry_bytes(topic, value).saturating_sub(had);
        if grows > 0 && self.groups_bytes + self.offsets.bytes() + grows > self.cfg.max_total_bytes
        {
            return Err(GroupError::InvalidCommitOffsetSize);
        }
        Ok(())
    }

    fn store(
        &mut self,
        now_ms: i64,
        group: &str,
        topic: &str,
        partition: i32,
        value: OffsetValue,
        out: &mut Output,
    ) {
        if !self.groups.contains_key(group) {
            out.undo.push(Undo::Group(Arc::from(group), None));
        }
        let group = self.group_or_create(now_ms, group);
        out.records.push((
            schema::offset_key(&group, topic, partition),
            Some(value.encode()),
        ));
        let was = self.offsets.put(&group, topic, partition, value);
        out.undo.push(Undo::Offset {
            group,
            topic: topic.to_owned(),
            partition,
            was,
        });
    }

    /// Takes an offset out and writes its tombstone; nothing if there is none.
    pub(super) fn tombstone(
        &mut self,
        group: &Arc<str>,
        topic: &str,
        partition: i32,
        out: &mut Output,
    ) {
        if let Some(was) = self.offsets.remove(group, topic, partition) {
            out.records
                .push((schema::offset_key(group, topic, partition), None));
            out.undo.push(Undo::Offset {
                group: group.clone(),
                topic: topic.to_owned(),
                partition,
                was: Some(was),
            });
        }
    }

    /// Takes a group out and writes its tombstone; its offsets went before.
    pub(super) fn tombstone_group(&mut self, id: &Arc<str>, out: &mut Output) {
        if let Some(group) = self.groups.get(id) {
            out.undo
                .push(Undo::Group(id.clone(), Some(Box::new(group.clone()))));
            out.records.push((schema::group_key(id), None));
            self.remove_group(id);
        }
    }

    /// OffsetFetch of one group. `topics` None: all it has. A group that does not exist has no offsets, which is no
    /// error. Version 9's member id and epoch are of the consumer protocol (KIP-848); a classic group ignores them.
    /// `require_stable` (v7) makes no difference as long as no transaction commits offsets: none can be undecided.
    pub fn fetch_offsets(
        &self,
        group_id: &str,
        topics: Option<&[(String, Vec<i32>)]>,
    ) -> Result<Vec<FetchedTopic>, GroupError> {
        self.check_loaded()?;
        let known = self
            .groups
            .contains_key(group_id)
            .then(|| self.offsets.by_group.get(group_id))
            .flatten();
        let Some(topics) = topics else {
            let all = known.into_iter().flatten();
            return Ok(all
                .map(|(name, offsets)| fetched(name, offsets.iter().map(|(p, v)| (*p, Some(v)))))
                .collect());
        };
        let one = |(name, partitions): &(String, Vec<i32>)| {
            let offsets = known.and_then(|topics| topics.get(name));
            fetched(
                name,
                partitions
                    .iter()
                    .map(|p| (*p, offsets.and_then(|o| o.get(p)))),
            )
        };
        Ok(topics.iter().map(one).collect())
    }

    /// Takes out offsets whose time is over, and empty groups that have none.
    pub(super) fn expire_offsets(&mut self, now_ms: i64, out: &mut Output) {
        let retention_ms = self.cfg.offsets_retention_ms;
        let ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for id in ids {
            if out.records.len() >= MAX_EXPIRED_PER_PASS {
                self.cleanup_again_at(now_ms.saturating_add(NEXT_PASS_MS));
                return;
            }
            let Some(group) = self.groups.get(&id) else {
                continue;
            };
            if self.offsets.has_any(&id) {
                let Some(clock) = Clock::of(group) else {
                    continue;
                };
                let expired = |topic: &str, _: i32, value: &OffsetValue| {
                    !group.is_subscribed(topic) && clock.is_over(value, now_ms, retention_ms)
                };
                for (topic, partition) in self.offsets.keys(&id, expired) {
                    self.tombstone(&id, &topic, partition, out);
                }
            }
            let idle = self
                .groups
                .get(&id)
                .is_some_and(|g| g.state == State::Empty && g.pending.is_empty());
            if idle && !self.offsets.has_any(&id) {
                self.tombstone_group(&id, out);
            }
        }
    }
}

/// From when the retention of a group's offsets counts (KIP-211).
enum Clock {
    SinceEmpty(i64),
    SinceCommit,
}

impl Clock {
    /// None: the group is in use in a way that keeps all of its offsets.
    fn of(group: &Group) -> Option<Clock> {
        let stable_consumers = group.uses_consumer_protocol()
            && group.subscribed.is_some()
            && group.state == State::Stable;
        match (&group.protocol_type, group.state) {
            (None, _) => Some(Clock::SinceCommit),
            (Some(_), State::Empty) => Some(
                group
                    .state_since_ms
                    .map_or(Clock::SinceCommit, Clock::SinceEmpty),
            ),
            (Some(_), _) => stable_consumers.then_some(Clock::SinceCommit),
        }
    }

    fn is_over(&self, value: &OffsetValue, now_ms: i64, retention_ms: i64) -> bool {
        if let Some(expire) = value.expire_timestamp_ms {
            return now_ms >= expire;
        }
        let since = match self {
            Clock::SinceEmpty(since) => *since,
            Clock::SinceCommit => value.commit_timestamp_ms,
        };
        now_ms.saturating_sub(since) >= retention_ms
    }
}

fn fetched<'a>(
    name: &str,
    offsets: impl Iterator<Item = (i32, Option<&'a OffsetValue>)>,
) -> FetchedTopic {
    let one = |(partition, value): (i32, Option<&OffsetValue>)| FetchedOffset {
        partition,
        offset: value.map_or(-1, |v| v.offset),
        leader_epoch: value.map_or(-1, |v| v.leader_epoch),
        metadata: value.map(|v| v.metadata.clone()).unwrap_or_default(),
        error: None,
    };
    FetchedTopic {
        name: name.to_owned(),
        partitions: offsets.map(one).collect(),
    }
}
