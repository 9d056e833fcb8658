//! A classic group: its members, state and deadlines, and the small rules about them (Kafka's `ClassicGroup`).
//! What happens on requests is in `join`, `sync` and `rebalance`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::coordinator::Ctx;
use super::member::{Member, Waiter, own_protocols, rebalance_timeout_ms};
use super::schema::{GroupValue, MemberValue};
use super::types::{
    GroupError, JoinRefused, JoinRequest, Joined, JoinedMember, Protocol, Reply, Synced, Token,
};

/// The state of a classic group; `Display` gives the names clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    Dead,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
            State::Dead => "Dead",
        })
    }
}

/// When the join phase ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JoinTimer {
    Off,
    /// The first rebalance of an empty group waits, and waits on while members come, within `remaining_ms`.
    Initial {
        at: i64,
        delay_ms: i64,
        remaining_ms: i64,
    },
    Rebalance {
        at: i64,
    },
}

impl JoinTimer {
    pub(super) fn at(self) -> Option<i64> {
        match self {
            JoinTimer::Off => None,
            JoinTimer::Initial { at, .. } | JoinTimer::Rebalance { at } => Some(at),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) id: Arc<str>,
    pub(super) state: State,
    pub(super) previous: State,
    pub(super) state_since_ms: Option<i64>,
    /// None: a simple group, there only to hold offsets.
    pub(super) protocol_type: Option<String>,
    pub(super) protocol_name: Option<String>,
    pub(super) generation: i32,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// Instance id to member id (KIP-345).
    pub(super) statics: HashMap<String, String>,
    /// Members told their id that have not come back with it (KIP-394), and when they are forgotten.
    pub(super) pending: BTreeMap<String, i64>,
    /// Members that joined this generation and have not asked for their assignment.
    pub(super) pending_sync: BTreeSet<String>,
    pub(super) subscribed: Option<BTreeSet<String>>,
    pub(super) new_member_added: bool,
    pub(super) join_timer: JoinTimer,
    pub(super) sync_deadline: Option<i64>,
    pub(super) bytes: usize,
    /// No later than the earliest deadline; may be too early after a deadline moved back.
    pub(super) wake_hint: Option<i64>,
    /// Where the coordinator's timer index has this group.
    pub(super) armed_at: Option<i64>,
    joining: usize,
    supported: HashMap<String, usize>,
}

impl Group {
    pub(super) fn new(id: Arc<str>, now_ms: i64) -> Group {
        Group {
            bytes: 500 + 2 * id.len(),
            id,
            state: State::Empty,
            previous: State::Dead,
            state_since_ms: Some(now_ms),
            protocol_type: None,
            protocol_name: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            statics: HashMap::new(),
            pending: BTreeMap::new(),
            pending_sync: BTreeSet::new(),
            subscribed: None,
            new_member_added: false,
            join_timer: JoinTimer::Off,
            sync_deadline: None,
            wake_hint: None,
            armed_at: None,
            joining: 0,
            supported: HashMap::new(),
        }
    }

    /// As replayed from its record.
    pub(super) fn from_record(id: Arc<str>, value: GroupValue, now_ms: i64) -> Group {
        let mut group = Group::new(id, now_ms);
        group.state_since_ms = (value.state_timestamp_ms != -1).then_some(value.state_timestamp_ms);
        group.protocol_type = Some(value.protocol_type).filter(|t| !t.is_empty());
        group.generation = value.generation;
        group.leader = value.leader;
        let protocol = value.protocol.unwrap_or_default();
        for m in value.members {
            let timeout = if m.rebalance_timeout_ms == -1 {
                m.session_timeout_ms
            } else {
                m.rebalance_timeout_ms
            };
            group.insert(Member {
                id: m.member_id,
                instance_id: m.group_instance_id,
                client_id: m.client_id,
                client_host: m.client_host,
                rebalance_timeout_ms: timeout,
                session_timeout_ms: m.session_timeout_ms,
                protocols: vec![Protocol {
                    name: protocol.clone(),
                    metadata: m.subscription,
                }],
                assignment: m.assignment,
                awaiting_join: Waiter::No,
                awaiting_sync: Waiter::No,
                is_new: false,
                session_deadline: None,
            });
        }
        if !group.members.is_empty() {
            group.state = State::Stable;
        }
        group.protocol_name = Some(protocol).filter(|p| !p.is_empty());
        group.subscribed = group.compute_subscribed();
        group
    }

    /// The record of the group as it is.
    pub(super) fn to_record(&self) -> GroupValue {
        let protocol = self.protocol_name.as_deref();
        GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol_name.clone(),
            leader: self.leader.clone(),
            state_timestamp_ms: self.state_since_ms.unwrap_or(-1),
            members: self
                .members
                .values()
                .map(|m| MemberValue {
                    member_id: m.id.clone(),
                    group_instance_id: m.instance_id.clone(),
                    client_id: m.client_id.clone(),
                    client_host: m.client_host.clone(),
                    rebalance_timeout_ms: m.rebalance_timeout_ms,
                    session_timeout_ms: m.session_timeout_ms,
                    subscription: m.metadata(protocol),
                    assignment: m.assignment.clone(),
                })
                .collect(),
        }
    }

    pub(super) fn transition(&mut self, to: State, now_ms: i64) {
        self.previous = self.state;
        self.state = to;
        self.state_since_ms = Some(now_ms);
    }

    pub(super) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    pub(super) fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some("consumer")
    }

    pub(super) fn joining(&self) -> usize {
        self.joining
    }

    pub(super) fn has_all_joined(&self) -> bool {
        self.members.len() == self.joining && self.pending.is_empty()
    }

    pub(super) fn rebalance_timeout_ms(&self) -> i64 {
        self.members
            .values()
            .map(|m| i64::from(m.rebalance_timeout_ms))
            .max()
            .unwrap_or(0)
            .max(0)
    }

    // --- members ---

    /// Adds a member; its protocols were checked before.
    pub(super) fn insert(&mut self, member: Member) {
        if let Some(instance) = &member.instance_id {
            self.statics.insert(instance.clone(), member.id.clone());
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        if let Some(old) = self.take(&member.id) {
            self.pending_sync.remove(&old.id);
        }
        self.count_protocols(&member.protocols, true);
        self.joining += usize::from(member.awaiting_join.is_waiting());
        self.bytes += member.bytes();
        if self.pending.remove(&member.id).is_some() {
            self.bytes = self.bytes.saturating_sub(pending_bytes(&member.id));
        }
        self.members.insert(member.id.clone(), member);
    }

    /// Takes a member out of the books kept about members, nothing more.
    pub(super) fn take(&mut self, member_id: &str) -> Option<Member> {
        let member = self.members.remove(member_id)?;
        self.count_protocols(&member.protocols, false);
        self.joining = self
            .joining
            .saturating_sub(usize::from(member.awaiting_join.is_waiting()));
        self.bytes = self.bytes.saturating_sub(member.bytes());
        Some(member)
    }

    /// Removes a member, pending or not. Whatever it waits for is answered UNKNOWN_MEMBER_ID, so that it joins anew.
    pub(super) fn remove(&mut self, ctx: &mut Ctx<'_>, member_id: &str) {
        self.answer_join_refused(ctx, member_id, GroupError::UnknownMemberId, String::new());
        self.answer_sync(ctx, member_id, Err(GroupError::UnknownMemberId));
        if let Some(member) = self.take(member_id)
            && let Some(instance) = &member.instance_id
            && self.statics.get(instance).is_some_and(|id| id == member_id)
        {
            self.statics.remove(instance);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.remove_pending(member_id);
        self.pending_sync.remove(member_id);
    }

    pub(super) fn add_pending(&mut self, member_id: String, deadline: i64) {
        self.bytes += pending_bytes(&member_id);
        self.hint(deadline);
        self.pending.insert(member_id, deadline);
    }

    pub(super) fn remove_pending(&mut self, member_id: &str) -> bool {
        let was = self.pending.remove(member_id).is_some();
        if was {
            self.bytes = self.bytes.saturating_sub(pending_bytes(member_id));
        }
        was
    }

    /// What a rejoining member says about itself now, and its waiting request.
    pub(super) fn update(
        &mut self,
        ctx: &mut Ctx<'_>,
        token: Token,
        member_id: &str,
        req: &JoinRequest,
    ) {
        // The member asked twice; the older request will not be answered by the rebalance.
        self.answer_join_refused(
            ctx,
            member_id,
            GroupError::RebalanceInProgress,
            member_id.to_owned(),
        );
        if let Some(mut member) = self.take(member_id) {
            member.protocols = own_protocols(&req.protocols);
            member.rebalance_timeout_ms = rebalance_timeout_ms(req);
            member.session_timeout_ms = req.session_timeout_ms;
            member.awaiting_join = Waiter::For(token);
            self.count_protocols(&member.protocols, true);
            self.joining += 1;
            self.bytes += member.bytes();
            self.members.insert(member.id.clone(), member);
        }
    }

    pub(super) fn assign(&mut self, member_id: &str, assignment: Bytes) {
        if let Some(member) = self.members.get_mut(member_id) {
            self.bytes = self.bytes.saturating_sub(member.assignment.len()) + assignment.len();
            member.assignment = assignment;
        }
    }

    /// FENCED_INSTANCE_ID and UNKNOWN_MEMBER_ID (KIP-345).
    pub(super) fn validate_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), GroupError> {
        if let Some(instance) = instance_id {
            match self.statics.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(id) if id != member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) {
            Ok(())
        } else {
            Err(GroupError::UnknownMemberId)
        }
    }

    // --- protocols ---

    fn count_protocols(&mut self, protocols: &[Protocol], add: bool) {
        for p in protocols {
            let count = self.supported.get(&p.name).copied().unwrap_or(0);
            match if add {
                count + 1
            } else {
                count.saturating_sub(1)
            } {
                0 => self.supported.remove(&p.name),
                n => self.supported.insert(p.name.clone(), n),
            };
        }
    }

    /// Whether somebody of this type with these protocols could be a member.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let all = self.members.len();
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols
                .iter()
                .any(|p| self.supported.get(&p.name).copied().unwrap_or(0) == all)
    }

    /// Each member votes for the first of its protocols that all support; a tie goes to the lesser name.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let all = self.members.len();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some(p) = member
                .protocols
                .iter()
                .find(|p| self.supported.get(&p.name) == Some(&all))
            {
                *votes.entry(&p.name).or_default() += 1;
            }
        }
        let most = votes.values().max().copied()?;
        votes
            .into_iter()
            .find(|(_, n)| *n == most)
            .map(|(name, _)| name.to_owned())
    }

    /// The topics members of type "consumer" subscribe to; None where that cannot be known.
    pub(super) fn compute_subscribed(&self) -> Option<BTreeSet<String>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol_name.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(super::schema::subscribed_topics(
                &member.metadata(Some(protocol)),
            )?);
        }
        Some(topics)
    }

    pub(super) fn is_subscribed(&self, topic: &str) -> bool {
        self.subscribed.as_ref().map_or_else(
            || self.uses_consumer_protocol(),
            |topics| topics.contains(topic),
        )
    }

    // --- answers ---

    /// The current generation, as a member that joins sees it.
    pub(super) fn joined(&self, member_id: &str) -> Joined {
        let members = if self.is_leader(member_id) {
            self.joined_members()
        } else {
            Vec::new()
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members,
        }
    }

    pub(super) fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol_name.as_deref();
        self.members
            .values()
            .map(|m| JoinedMember {
                member_id: m.id.clone(),
                group_instance_id: m.instance_id.clone(),
                metadata: m.metadata(protocol),
            })
            .collect()
    }

    pub(super) fn synced(&self, member_id: &str) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            assignment: self
                .members
                .get(member_id)
                .map(|m| m.assignment.clone())
                .unwrap_or_default(),
        }
    }

    pub(super) fn answer_join(
        &mut self,
        ctx: &mut Ctx<'_>,
        member_id: &str,
        result: Result<Joined, JoinRefused>,
    ) {
        let Some(member) = self.members.get_mut(member_id) else {
            return;
        };
        let waiter = std::mem::take(&mut member.awaiting_join);
        self.joining = self
            .joining
            .saturating_sub(usize::from(waiter.is_waiting()));
        if let Some(token) = waiter.token() {
            ctx.out.reply(token, Reply::Join(result));
        }
    }

    pub(super) fn answer_join_refused(
        &mut self,
        ctx: &mut Ctx<'_>,
        member_id: &str,
        error: GroupError,
        told: String,
    ) {
        self.answer_join(
            ctx,
            member_id,
            Err(JoinRefused {
                error,
                member_id: told,
            }),
        );
    }

    /// True when the member was waiting.
    pub(super) fn answer_sync(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: &str,
        result: Result<Synced, GroupError>,
    ) -> bool {
        let Some(member) = self.members.get_mut(id) else {
            return false;
        };
        let waiter = std::mem::take(&mut member.awaiting_sync);
        if let Some(token) = waiter.token() {
            ctx.out.reply(token, Reply::Sync(result));
        }
        waiter.is_waiting()
    }

    // --- deadlines ---

    pub(super) fn hint(&mut self, deadline: i64) {
        self.wake_hint = Some(self.wake_hint.map_or(deadline, |h| h.min(deadline)));
    }

    /// The member has `timeout_ms` from now to be heard of.
    pub(super) fn extend_session(&mut self, now_ms: i64, member_id: &str, timeout_ms: i64) {
        let deadline = now_ms.saturating_add(timeout_ms);
        if let Some(member) = self.members.get_mut(member_id) {
            member.session_deadline = Some(deadline);
            self.hint(deadline);
        }
    }

    pub(super) fn restart_session(&mut self, now_ms: i64, member_id: &str) {
        if let Some(timeout) = self
            .members
            .get(member_id)
            .map(|m| i64::from(m.session_timeout_ms))
        {
            self.extend_session(now_ms, member_id, timeout);
        }
    }

    pub(super) fn earliest_deadline(&self) -> Option<i64> {
        let sessions = self.members.values().filter_map(|m| m.session_deadline);
        sessions
            .chain(self.pending.values().copied())
            .chain(self.join_timer.at())
            .chain(self.sync_deadline)
            .min()
    }
}

fn pending_bytes(member_id: &str) -> usize {
    100 + member_id.len()
}
