//! The rebalance of a group: from the first that wants one to the generation everybody is told, and what leaving,
//! silence and the passing of time do to it.

use std::cmp::max;

use super::coordinator::Ctx;
use super::group::{Group, JoinTimer, State};
use super::schema;
use super::types::{GroupError, LeavingMember, LeftMember};

/// Where nobody rejoined in time, a rebalance timeout of 0 must not become a busy loop.
const MIN_RETRY_MS: i64 = 10;

/// A deadline that has passed.
enum Due {
    Join,
    Sync,
    Session(String),
    Pending(String),
}

impl Group {
    pub(super) fn rebalance_or_complete(&mut self, ctx: &mut Ctx<'_>) {
        match self.state {
            State::Empty | State::CompletingRebalance | State::Stable => {
                self.prepare_rebalance(ctx)
            }
            State::PreparingRebalance | State::Dead => self.complete_join_if_all_joined(ctx),
        }
    }

    pub(super) fn prepare_rebalance(&mut self, ctx: &mut Ctx<'_>) {
        if self.state == State::CompletingRebalance {
            self.fail_sync(ctx, GroupError::RebalanceInProgress);
        }
        self.pending_sync.clear();
        self.sync_deadline = None;
        let initial = self.state == State::Empty;
        self.transition(State::PreparingRebalance, ctx.now_ms);
        if initial {
            let delay_ms = i64::from(ctx.cfg.initial_rebalance_delay_ms);
            let remaining_ms = max(self.rebalance_timeout_ms() - delay_ms, 0);
            self.new_member_added = false;
            let at = ctx.now_ms.saturating_add(delay_ms);
            self.set_join_timer(JoinTimer::Initial {
                at,
                delay_ms,
                remaining_ms,
            });
        } else if self.has_all_joined() {
            self.complete_join(ctx);
        } else {
            let at = ctx.now_ms.saturating_add(self.rebalance_timeout_ms());
            self.set_join_timer(JoinTimer::Rebalance { at });
        }
    }

    /// Everybody who waits for an assignment gets the error, and nobody has an assignment any more.
    pub(super) fn fail_sync(&mut self, ctx: &mut Ctx<'_>, error: GroupError) {
        for id in self.member_ids() {
            self.assign(&id, Default::default());
            if self.answer_sync(ctx, &id, Err(error)) {
                self.restart_session(ctx.now_ms, &id);
            }
        }
    }

    /// The initial rebalance always waits for its time.
    pub(super) fn complete_join_if_all_joined(&mut self, ctx: &mut Ctx<'_>) {
        if self.state == State::PreparingRebalance
            && self.previous != State::Empty
            && self.has_all_joined()
        {
            self.complete_join(ctx);
        }
    }

    pub(super) fn complete_join(&mut self, ctx: &mut Ctx<'_>) {
        self.join_timer = JoinTimer::Off;
        let late = self
            .members
            .values()
            .filter(|m| !m.awaiting_join.is_waiting() && m.instance_id.is_none());
        let late: Vec<String> = late.map(|m| m.id.clone()).collect();
        for id in late {
            self.remove(ctx, &id);
        }
        if !self.elect_joined_leader() && !self.members.is_empty() {
            // Only absent static members are left. Their sessions decide.
            let at = ctx
                .now_ms
                .saturating_add(max(self.rebalance_timeout_ms(), MIN_RETRY_MS));
            return self.set_join_timer(JoinTimer::Rebalance { at });
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.pending_sync.clear();
        self.protocol_name = self.select_protocol();
        self.subscribed = self.compute_subscribed();
        if self.members.is_empty() {
            self.transition(State::Empty, ctx.now_ms);
            ctx.out
                .records
                .push((schema::group_key(&self.id), Some(self.to_record().encode())));
            return;
        }
        self.transition(State::CompletingRebalance, ctx.now_ms);
        for id in self.member_ids() {
            let joined = self.joined(&id);
            self.answer_join(ctx, &id, Ok(joined));
            self.restart_session(ctx.now_ms, &id);
            if let Some(member) = self.members.get_mut(&id) {
                member.is_new = false;
            }
            self.pending_sync.insert(id);
        }
        let at = ctx.now_ms.saturating_add(self.rebalance_timeout_ms());
        self.sync_deadline = Some(at);
        self.hint(at);
    }

    /// The leader stays if it rejoined; else any member that did leads. False: nobody rejoined.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |id: &String| {
            self.members
                .get(id)
                .is_some_and(|m| m.awaiting_join.is_waiting())
        };
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        match self
            .members
            .values()
            .find(|m| m.awaiting_join.is_waiting())
            .map(|m| m.id.clone())
        {
            Some(id) => {
                self.leader = Some(id);
                true
            }
            None => false,
        }
    }

    fn set_join_timer(&mut self, timer: JoinTimer) {
        self.join_timer = timer;
        if let Some(at) = timer.at() {
            self.hint(at);
        }
    }

    pub(super) fn member_ids(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }

    // --- leaving ---

    pub(super) fn leave(
        &mut self,
        ctx: &mut Ctx<'_>,
        members: &[LeavingMember],
    ) -> Vec<LeftMember> {
        let left: Vec<LeftMember> = members
            .iter()
            .map(|m| m.left(self.leave_one(ctx, m).err()))
            .collect();
        if left.iter().any(|m| m.error.is_none()) {
            match self.state {
                State::Stable | State::CompletingRebalance => self.rebalance_or_complete(ctx),
                State::PreparingRebalance => self.complete_join_if_all_joined(ctx),
                State::Empty | State::Dead => {}
            }
        }
        left
    }

    fn leave_one(&mut self, ctx: &mut Ctx<'_>, leaving: &LeavingMember) -> Result<(), GroupError> {
        let id = if leaving.member_id.is_empty() {
            // An administrator removes static members by instance id.
            let member = leaving
                .group_instance_id
                .as_ref()
                .and_then(|instance| self.statics.get(instance));
            member.cloned().ok_or(GroupError::UnknownMemberId)?
        } else if self.pending.contains_key(&leaving.member_id) {
            leaving.member_id.clone()
        } else {
            self.validate_member(&leaving.member_id, leaving.group_instance_id.as_deref())?;
            leaving.member_id.clone()
        };
        self.remove(ctx, &id);
        Ok(())
    }

    // --- time ---

    /// Does what is due, in the order it became due.
    pub(super) fn expire(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now_ms;
        let mut due: Vec<(i64, Due)> = Vec::new();
        due.extend(self.join_timer.at().map(|at| (at, Due::Join)));
        due.extend(self.sync_deadline.map(|at| (at, Due::Sync)));
        let sessions = self
            .members
            .values()
            .filter_map(|m| m.session_deadline.map(|at| (at, &m.id)));
        due.extend(
            sessions
                .filter(|(at, _)| *at <= now)
                .map(|(at, id)| (at, Due::Session(id.clone()))),
        );
        due.extend(
            self.pending
                .iter()
                .map(|(id, at)| (*at, Due::Pending(id.clone()))),
        );
        due.retain(|(at, _)| *at <= now);
        due.sort_by_key(|(at, _)| *at);
        for (_, event) in due {
            // An earlier event may have changed a later one's deadline; each looks again.
            match event {
                Due::Join if self.join_timer.at().is_some_and(|at| at <= now) => self.end_join(ctx),
                Due::Sync if self.sync_deadline.is_some_and(|at| at <= now) => self.end_sync(ctx),
                Due::Session(id) => self.end_session(ctx, &id),
                Due::Pending(id) if self.pending.get(&id).is_some_and(|at| *at <= now) => {
                    self.remove_pending(&id);
                    self.complete_after_removal(ctx);
                }
                Due::Join | Due::Sync | Due::Pending(_) => {}
            }
        }
    }

    fn end_join(&mut self, ctx: &mut Ctx<'_>) {
        match self.join_timer {
            JoinTimer::Initial {
                delay_ms,
                remaining_ms,
                ..
            } if self.new_member_added && remaining_ms != 0 => {
                self.new_member_added = false;
                let next_ms = i64::from(ctx.cfg.initial_rebalance_delay_ms).min(remaining_ms);
                let at = ctx.now_ms.saturating_add(next_ms);
                let remaining_ms = max(remaining_ms - delay_ms, 0);
                self.set_join_timer(JoinTimer::Initial {
                    at,
                    delay_ms: next_ms,
                    remaining_ms,
                });
            }
            _ => self.complete_join(ctx),
        }
    }

    /// Members that joined but did not ask for their assignment in time are out.
    fn end_sync(&mut self, ctx: &mut Ctx<'_>) {
        self.sync_deadline = None;
        let settling = matches!(self.state, State::CompletingRebalance | State::Stable);
        if settling && !self.pending_sync.is_empty() {
            for id in std::mem::take(&mut self.pending_sync) {
                self.remove(ctx, &id);
            }
            self.prepare_rebalance(ctx);
        }
    }

    fn end_session(&mut self, ctx: &mut Ctx<'_>, id: &str) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        if member.session_deadline.is_none_or(|at| at > ctx.now_ms) {
            return;
        }
        if member.has_satisfied_heartbeat() {
            // It gets a new deadline with the answer it waits for.
            member.session_deadline = None;
            return;
        }
        self.remove(ctx, id);
        match self.state {
            State::Stable | State::CompletingRebalance => self.rebalance_or_complete(ctx),
            State::PreparingRebalance => self.complete_after_removal(ctx),
            State::Empty | State::Dead => {}
        }
    }

    /// Unlike when somebody joins, the initial rebalance ends too: nobody is left to wait for.
    fn complete_after_removal(&mut self, ctx: &mut Ctx<'_>) {
        if self.state == State::PreparingRebalance && self.has_all_joined() {
            self.complete_join(ctx);
        }
    }
}
