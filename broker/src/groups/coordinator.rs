//! All groups of the broker: look-up, limits, deadlines, loading, and undoing what could not be written.
//! What a request does inside a group is in `join`, `sync` and `rebalance`; offsets are in `offsets`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::group::{Group, State};
use super::member::{Waiter, protocols_bytes};
use super::offsets::Offsets;
use super::schema::{self, GroupValue, Key, OffsetValue, SchemaError};
use super::types::*;

/// What every step inside a group may use.
pub(super) struct Ctx<'a> {
    pub(super) now_ms: i64,
    pub(super) cfg: &'a GroupsConfig,
    pub(super) out: &'a mut Output,
}

/// How things were before records that turned out not to be writable.
#[derive(Debug)]
pub(super) enum Undo {
    /// The group as it was; None if it did not exist.
    Group(Arc<str>, Option<Box<Group>>),
    Offset {
        group: Arc<str>,
        topic: String,
        partition: i32,
        was: Option<OffsetValue>,
    },
}

/// The group coordinator. See the module for how to drive it.
pub struct Coordinator {
    pub(super) cfg: GroupsConfig,
    pub(super) groups: HashMap<Arc<str>, Group>,
    pub(super) offsets: Offsets,
    /// Which group a request waits in.
    waiting: HashMap<Token, Arc<str>>,
    timers: BTreeSet<(i64, Arc<str>)>,
    next_cleanup_ms: i64,
    loading: bool,
    pub(super) groups_bytes: usize,
}

impl Coordinator {
    /// An empty coordinator. It answers COORDINATOR_LOAD_IN_PROGRESS until `finish_load`.
    pub fn new(cfg: GroupsConfig) -> Coordinator {
        Coordinator {
            cfg,
            groups: HashMap::new(),
            offsets: Offsets::default(),
            waiting: HashMap::new(),
            timers: BTreeSet::new(),
            next_cleanup_ms: i64::MAX,
            loading: true,
            groups_bytes: 0,
        }
    }

    // --- loading ---

    /// Replays one record of `__consumer_offsets`. Keys of other protocols are passed over.
    pub fn load(
        &mut self,
        now_ms: i64,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), SchemaError> {
        match schema::decode_key(key)? {
            Key::Unknown(_) => {}
            Key::Offset {
                group,
                topic,
                partition,
            } => match value {
                Some(value) => {
                    let value = OffsetValue::decode(value)?;
                    // Whoever commits without being a member has a group without a record: a simple group.
                    let id = self.group_or_create(now_ms, &group);
                    self.offsets.put(&id, &topic, partition, value);
                }
                None => drop(self.offsets.remove(&group, &topic, partition)),
            },
            Key::Group { group } => match value {
                Some(value) => {
                    let group =
                        Group::from_record(Arc::from(group), GroupValue::decode(value)?, now_ms);
                    self.put_group(group);
                }
                None => {
                    self.remove_group(&group);
                    self.offsets.remove_group(&group);
                }
            },
        }
        Ok(())
    }

    /// Everything is loaded: members have one session timeout from now to be heard of.
    pub fn finish_load(&mut self, now_ms: i64) {
        self.loading = false;
        self.next_cleanup_ms = now_ms.saturating_add(self.cfg.offsets_retention_check_interval_ms);
        let ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        let mut out = Output::default();
        for id in ids {
            self.with_group(now_ms, &id, &mut out, |group, ctx| {
                let members: Vec<String> = group.members.keys().cloned().collect();
                for member in &members {
                    group.restart_session(ctx.now_ms, member);
                }
                // `group.max.size` was made smaller: those who join late will not get in.
                if group.members.len() > ctx.cfg.max_size {
                    group.prepare_rebalance(ctx);
                }
            });
        }
    }

    // --- requests ---

    /// JoinGroup. The answer may come at once or with a later call.
    pub fn join(&mut self, now_ms: i64, token: Token, req: JoinRequest) -> Output {
        let refuse = |error, member_id: &str| {
            Output::answer(
                token,
                Reply::Join(Err(JoinRefused {
                    error,
                    member_id: member_id.to_owned(),
                })),
            )
        };
        if let Err(error) = self.check_join(&req) {
            return refuse(error, &req.member_id);
        }
        if let Err(error) = self.check_limits(&req) {
            return refuse(error, "");
        }
        let mut out = Output::default();
        let id = match self.id_of(&req.group_id) {
            Some(id) => id,
            None if !req.member_id.is_empty() => {
                return refuse(GroupError::UnknownMemberId, &req.member_id);
            }
            None => match self.create(now_ms, &req, &mut out) {
                Ok(id) => id,
                Err(error) => return refuse(error, ""),
            },
        };
        self.waiting.insert(token, id.clone());
        self.with_group(now_ms, &id, &mut out, |group, ctx| {
            group.join(ctx, token, req)
        });
        self.settle(out)
    }

    /// SyncGroup. Followers wait for the leader's.
    pub fn sync(&mut self, now_ms: i64, token: Token, req: SyncRequest) -> Output {
        let refuse = |error| Output::answer(token, Reply::Sync(Err(error)));
        if let Err(error) = self.check_group_id(&req.group_id) {
            return refuse(error);
        }
        if req.protocol_mandatory && (req.protocol_type.is_none() || req.protocol_name.is_none()) {
            return refuse(GroupError::InconsistentGroupProtocol);
        }
        let Some(id) = self.id_of(&req.group_id) else {
            return refuse(GroupError::UnknownMemberId);
        };
        let mut out = Output::default();
        self.waiting.insert(token, id.clone());
        self.with_group(now_ms, &id, &mut out, |group, ctx| {
            group.sync(ctx, token, req)
        });
        self.settle(out)
    }

    /// Heartbeat. Answered at once; while loading with success, as nothing else is known.
    pub fn heartbeat(
        &mut self,
        now_ms: i64,
        req: HeartbeatRequest,
    ) -> (Result<(), GroupError>, Output) {
        let mut out = Output::default();
        let result = match self.check_group_id(&req.group_id) {
            Err(GroupError::CoordinatorLoadInProgress) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self
                .with_group(now_ms, &req.group_id, &mut out, |group, ctx| {
                    group.heartbeat(ctx, &req)
                })
                .unwrap_or(Err(GroupError::UnknownMemberId)),
        };
        (result, self.settle(out))
    }

    /// LeaveGroup. Each member has its own result.
    pub fn leave(&mut self, now_ms: i64, token: Token, req: LeaveRequest) -> Output {
        if let Err(error) = self.check_group_id(&req.group_id) {
            return Output::answer(token, Reply::Leave(Err(error)));
        }
        let mut out = Output::default();
        let left = match self.id_of(&req.group_id) {
            Some(id) => self.with_group(now_ms, &id, &mut out, |group, ctx| {
                group.leave(ctx, &req.members)
            }),
            None => None,
        };
        let left = left.unwrap_or_else(|| {
            let unknown = Some(GroupError::UnknownMemberId);
            req.members.iter().map(|m| m.left(unknown)).collect()
        });
        out.reply(token, Reply::Leave(Ok(left)));
        self.settle(out)
    }

    /// The connection of a waiting request is gone: it will not be answered. Its member stays until its session ends.
    pub fn cancel(&mut self, token: Token) {
        let Some(group) = self
            .waiting
            .remove(&token)
            .and_then(|id| self.groups.get_mut(&id))
        else {
            return;
        };
        for member in group.members.values_mut() {
            for waiter in [&mut member.awaiting_join, &mut member.awaiting_sync] {
                if *waiter == Waiter::For(token) {
                    *waiter = Waiter::Gone;
                }
            }
        }
    }

    // --- time ---

    /// Does what is due: ended sessions, rebalances and sync phases, expired offsets.
    pub fn tick(&mut self, now_ms: i64) -> Output {
        let mut out = Output::default();
        let mut due = Vec::new();
        while self.timers.first().is_some_and(|(at, _)| *at <= now_ms) {
            due.extend(self.timers.pop_first().map(|(_, id)| id));
        }
        for id in due {
            if let Some(group) = self.groups.get_mut(&id) {
                group.armed_at = None;
                group.wake_hint = None;
            }
            self.with_group(now_ms, &id, &mut out, |group, ctx| {
                group.expire(ctx);
                group.wake_hint = group.earliest_deadline();
            });
        }
        if !self.loading && now_ms >= self.next_cleanup_ms {
            self.next_cleanup_ms =
                now_ms.saturating_add(self.cfg.offsets_retention_check_interval_ms);
            self.expire_offsets(now_ms, &mut out);
        }
        self.settle(out)
    }

    /// When `tick` has something to do next. May be a little early, never late.
    pub fn next_deadline(&self) -> Option<i64> {
        let cleanup = (!self.loading && !self.groups.is_empty()).then_some(self.next_cleanup_ms);
        self.timers
            .first()
            .map(|(at, _)| *at)
            .into_iter()
            .chain(cleanup)
            .min()
    }

    /// The records of `out` could not be written: takes back what they would have made so, and gives the answers that
    /// say it. Must come before any other call. A lost record of a generation that became empty is not taken back, as
    /// in Kafka: after a restart its members merely time out.
    pub fn revert(&mut self, now_ms: i64, out: Output, error: GroupError) -> Vec<(Token, Reply)> {
        let Output { replies, undo, .. } = out;
        for step in undo.into_iter().rev() {
            match step {
                Undo::Group(id, None) => self.remove_group(&id),
                Undo::Group(_, Some(mut group)) => {
                    for (token, _) in &replies {
                        group.forget_token(now_ms, *token);
                    }
                    group.wake_hint = group.earliest_deadline();
                    group.armed_at = None;
                    self.put_group(*group);
                }
                Undo::Offset {
                    group,
                    topic,
                    partition,
                    was,
                } => match was {
                    Some(was) => drop(self.offsets.put(&group, &topic, partition, was)),
                    None => drop(self.offsets.remove(&group, &topic, partition)),
                },
            }
        }
        let mut answers: Vec<(Token, Reply)> = replies
            .into_iter()
            .map(|(t, r)| (t, r.refused(error)))
            .collect();
        // Requests that wait in a group that is gone again are answered too.
        let groups = &self.groups;
        self.waiting.retain(|token, id| {
            let keep = groups.contains_key(id);
            if !keep {
                let refused = JoinRefused {
                    error,
                    member_id: String::new(),
                };
                answers.push((*token, Reply::Join(Err(refused))));
            }
            keep
        });
        answers
    }

    // --- inside ---

    pub(super) fn id_of(&self, group_id: &str) -> Option<Arc<str>> {
        self.groups
            .get_key_value(group_id)
            .map(|(id, _)| id.clone())
    }

    pub(super) fn check_loaded(&self) -> Result<(), GroupError> {
        if self.loading {
            Err(GroupError::CoordinatorLoadInProgress)
        } else {
            Ok(())
        }
    }

    /// For everything but plain offsets the id may not be empty.
    pub(super) fn check_group_id(&self, group_id: &str) -> Result<(), GroupError> {
        if group_id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        self.check_loaded()
    }

    fn check_join(&self, req: &JoinRequest) -> Result<(), GroupError> {
        self.check_group_id(&req.group_id)?;
        if !(self.cfg.min_session_ms..=self.cfg.max_session_ms).contains(&req.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        let strings = [
            &req.group_id,
            &req.member_id,
            &req.protocol_type,
            &req.client_id,
            &req.client_host,
        ];
        let names = req.protocols.iter().map(|p| &p.name);
        let mut all = strings
            .into_iter()
            .chain([&req.new_member_id])
            .chain(&req.group_instance_id)
            .chain(names);
        if all.any(|s| s.len() > MAX_STRING_BYTES) {
            return Err(GroupError::InvalidRequest);
        }
        Ok(())
    }

    /// Our own limits: a member that says too much is refused like one too many.
    fn check_limits(&self, req: &JoinRequest) -> Result<(), GroupError> {
        let group = self.groups.get(req.group_id.as_str());
        let said = group
            .and_then(|g| g.members.get(&req.member_id))
            .map_or(0, |m| protocols_bytes(&m.protocols));
        let grows = protocols_bytes(&req.protocols).saturating_sub(said);
        let of_group = group.map_or(0, |g| g.bytes) + grows;
        let total = self.groups_bytes + self.offsets.bytes() + grows;
        if grows > 0 && (of_group > self.cfg.max_group_bytes || total > self.cfg.max_total_bytes) {
            return Err(GroupError::GroupMaxSizeReached);
        }
        Ok(())
    }

    /// A group comes to be with its first member. It is written at once, so that it is there after a restart.
    fn create(
        &mut self,
        now_ms: i64,
        req: &JoinRequest,
        out: &mut Output,
    ) -> Result<Arc<str>, GroupError> {
        if self.groups.len() >= self.cfg.max_groups {
            return Err(GroupError::GroupMaxSizeReached);
        }
        let id: Arc<str> = Arc::from(req.group_id.as_str());
        let group = Group::new(id.clone(), now_ms);
        if !group.supports(&req.protocol_type, &req.protocols) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        out.records
            .push((schema::group_key(&id), Some(group.to_record().encode())));
        out.undo.push(Undo::Group(id.clone(), None));
        self.put_group(group);
        Ok(id)
    }

    pub(super) fn group_or_create(&mut self, now_ms: i64, group_id: &str) -> Arc<str> {
        self.id_of(group_id).unwrap_or_else(|| {
            let id: Arc<str> = Arc::from(group_id);
            self.put_group(Group::new(id.clone(), now_ms));
            id
        })
    }

    pub(super) fn put_group(&mut self, group: Group) {
        let id = group.id.clone();
        self.groups_bytes += group.bytes;
        self.remove_group(&id);
        self.groups.insert(id.clone(), group);
        self.rearm(&id);
    }

    pub(super) fn remove_group(&mut self, id: &str) {
        if let Some(old) = self.groups.remove(id) {
            self.groups_bytes = self.groups_bytes.saturating_sub(old.bytes);
            if let Some(at) = old.armed_at {
                self.timers.remove(&(at, old.id));
            }
        }
    }

    /// Works on a group and keeps what the coordinator knows of it in step.
    pub(super) fn with_group<R>(
        &mut self,
        now_ms: i64,
        id: &str,
        out: &mut Output,
        work: impl FnOnce(&mut Group, &mut Ctx<'_>) -> R,
    ) -> Option<R> {
        let group = self.groups.get_mut(id)?;
        let before = group.bytes;
        let result = work(
            group,
            &mut Ctx {
                now_ms,
                cfg: &self.cfg,
                out,
            },
        );
        let after = group.bytes;
        self.groups_bytes = (self.groups_bytes + after).saturating_sub(before);
        self.rearm(id);
        Some(result)
    }

    /// The timer index holds each group at most once, at or before its earliest deadline.
    fn rearm(&mut self, id: &str) {
        let Some(group) = self.groups.get_mut(id) else {
            return;
        };
        let Some(hint) = group.wake_hint else { return };
        match group.armed_at {
            Some(at) if at <= hint => return,
            Some(at) => drop(self.timers.remove(&(at, group.id.clone()))),
            None => {}
        }
        group.armed_at = Some(hint);
        self.timers.insert((hint, group.id.clone()));
    }

    /// Whoever is answered waits no more.
    fn settle(&mut self, out: Output) -> Output {
        for (token, _) in &out.replies {
            self.waiting.remove(token);
        }
        out
    }

    pub(super) fn cleanup_again_at(&mut self, at_ms: i64) {
        self.next_cleanup_ms = self.next_cleanup_ms.min(at_ms);
    }

    /// The number of requests that wait for an answer.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The state of a group, None if there is none.
    pub fn state(&self, group_id: &str) -> Option<State> {
        self.groups.get(group_id).map(|g| g.state)
    }
}

impl LeavingMember {
    pub(super) fn left(&self, error: Option<GroupError>) -> LeftMember {
        LeftMember {
            member_id: self.member_id.clone(),
            group_instance_id: self.group_instance_id.clone(),
            error,
        }
    }
}
