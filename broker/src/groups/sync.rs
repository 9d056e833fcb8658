//! SyncGroup and Heartbeat inside a group, and who may commit offsets.

use std::collections::HashMap;

use bytes::Bytes;

use super::coordinator::{Ctx, Undo};
use super::group::{Group, State};
use super::member::{Member, Waiter};
use super::schema;
use super::types::{CommitRequest, GroupError, HeartbeatRequest, Reply, SyncRequest, Token};

impl Group {
    pub(super) fn sync(&mut self, ctx: &mut Ctx<'_>, token: Token, req: SyncRequest) {
        if let Err(error) = self.check_sync(&req) {
            return ctx.out.reply(token, Reply::Sync(Err(error)));
        }
        if self.state == State::Stable {
            self.synced_by(&req.member_id);
            return ctx
                .out
                .reply(token, Reply::Sync(Ok(self.synced(&req.member_id))));
        }
        // The member asked twice: the older request gives way.
        let before = self
            .is_leader(&req.member_id)
            .then(|| Box::new(self.clone()));
        self.answer_sync(ctx, &req.member_id, Err(GroupError::RebalanceInProgress));
        if let Some(member) = self.members.get_mut(&req.member_id) {
            member.awaiting_sync = Waiter::For(token);
        }
        self.synced_by(&req.member_id);
        if let Some(before) = before {
            self.store_assignment(ctx, before, req.assignments);
        }
    }

    fn check_sync(&self, req: &SyncRequest) -> Result<(), GroupError> {
        let differs = |said: &Option<String>, ours: &Option<String>| matches!((said, ours), (Some(said), Some(ours)) if said != ours);
        if self.state == State::Empty {
            return Err(GroupError::UnknownMemberId);
        }
        self.validate_member(&req.member_id, req.group_instance_id.as_deref())?;
        if req.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if differs(&req.protocol_type, &self.protocol_type)
            || differs(&req.protocol_name, &self.protocol_name)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        match self.state {
            State::CompletingRebalance | State::Stable => Ok(()),
            State::PreparingRebalance | State::Empty | State::Dead => {
                Err(GroupError::RebalanceInProgress)
            }
        }
    }

    fn synced_by(&mut self, member_id: &str) {
        self.pending_sync.remove(member_id);
        if self.pending_sync.is_empty() {
            self.sync_deadline = None;
        }
    }

    /// The leader's assignment makes the group stable and is the moment its generation is written.
    fn store_assignment(
        &mut self,
        ctx: &mut Ctx<'_>,
        before: Box<Group>,
        assignments: Vec<(String, Bytes)>,
    ) {
        // A member named twice has its last assignment; members not named get an empty one; others do not matter.
        let mut named: HashMap<String, Bytes> = assignments.into_iter().collect();
        let mut own: Vec<(String, Bytes)> = Vec::with_capacity(self.members.len());
        for id in self.member_ids() {
            let assignment = named.remove(&id).unwrap_or_default();
            own.push((id, assignment));
        }
        let says: usize = own.iter().map(|(_, a)| a.len()).sum();
        let had: usize = self.members.values().map(|m| m.assignment.len()).sum();
        if (self.bytes + says).saturating_sub(had) > ctx.cfg.max_group_bytes {
            // As in Kafka when the record is too large to be written.
            self.fail_sync(ctx, GroupError::UnknownServerError);
            return self.rebalance_or_complete(ctx);
        }
        for (id, assignment) in &own {
            self.assign(id, Bytes::copy_from_slice(assignment));
        }
        ctx.out
            .undo
            .push(Undo::Group(self.id.clone(), Some(before)));
        ctx.out
            .records
            .push((schema::group_key(&self.id), Some(self.to_record().encode())));
        self.transition(State::Stable, ctx.now_ms);
        for (id, _) in &own {
            let synced = self.synced(id);
            if self.answer_sync(ctx, id, Ok(synced)) {
                self.restart_session(ctx.now_ms, id);
            }
        }
    }

    /// A member's sign of life, and how it learns of a rebalance.
    pub(super) fn heartbeat(
        &mut self,
        ctx: &mut Ctx<'_>,
        req: &HeartbeatRequest,
    ) -> Result<(), GroupError> {
        self.validate_member(&req.member_id, req.group_instance_id.as_deref())?;
        if req.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        match self.state {
            State::Empty | State::Dead => return Err(GroupError::UnknownMemberId),
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                self.restart_session(ctx.now_ms, &req.member_id);
            }
        }
        if self.state == State::PreparingRebalance {
            Err(GroupError::RebalanceInProgress)
        } else {
            Ok(())
        }
    }

    /// Members commit with their generation; others (−1, no member id) only while nobody is in the group.
    pub(super) fn check_commit(&self, req: &CommitRequest) -> Result<(), GroupError> {
        if req.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        let claims_membership =
            req.generation >= 0 || !req.member_id.is_empty() || req.group_instance_id.is_some();
        if claims_membership {
            self.validate_member(&req.member_id, req.group_instance_id.as_deref())?;
            if req.generation != self.generation {
                return Err(GroupError::IllegalGeneration);
            }
        } else if self.state != State::Empty {
            return Err(GroupError::UnknownMemberId);
        }
        match self.state {
            // The member knows the new generation, so it should first learn what it is assigned.
            State::CompletingRebalance => Err(GroupError::RebalanceInProgress),
            State::Empty | State::PreparingRebalance | State::Stable | State::Dead => Ok(()),
        }
    }

    /// Committing is a sign of life too.
    pub(super) fn committed_by(&mut self, ctx: &mut Ctx<'_>, member_id: &str) {
        if matches!(self.state, State::Stable | State::PreparingRebalance) {
            self.restart_session(ctx.now_ms, member_id);
        }
    }

    /// This request is answered; it must not be answered again.
    pub(super) fn forget_token(&mut self, now_ms: i64, token: Token) {
        let waits = |m: &&Member| [m.awaiting_join, m.awaiting_sync].contains(&Waiter::For(token));
        let Some(mut member) = self
            .members
            .values()
            .find(waits)
            .map(|m| m.id.clone())
            .and_then(|id| self.take(&id))
        else {
            return;
        };
        for waiter in [&mut member.awaiting_join, &mut member.awaiting_sync] {
            if *waiter == Waiter::For(token) {
                *waiter = Waiter::No;
            }
        }
        let id = member.id.clone();
        self.insert(member);
        // Nothing is waited for any more that would give it a deadline.
        self.restart_session(now_ms, &id);
    }
}
