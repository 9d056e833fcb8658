//! JoinGroup inside a group (Kafka's `GroupMetadataManager.classicGroupJoinToClassicGroup` and below).

use super::coordinator::{Ctx, Undo};
use super::group::{Group, State};
use super::member::{Member, Waiter};
use super::schema;
use super::types::{GroupError, JoinRefused, JoinRequest, Joined, Reply, Token};

impl Group {
    pub(super) fn join(&mut self, ctx: &mut Ctx<'_>, token: Token, req: JoinRequest) {
        if !self.accepts(ctx, &req.member_id) {
            self.remove(ctx, &req.member_id);
            return refuse(ctx, token, GroupError::GroupMaxSizeReached, String::new());
        }
        if !self.supports(&req.protocol_type, &req.protocols) {
            return refuse(
                ctx,
                token,
                GroupError::InconsistentGroupProtocol,
                req.member_id,
            );
        }
        if !req.member_id.is_empty() {
            return self.join_known(ctx, token, &req);
        }
        let replaced = req
            .group_instance_id
            .as_ref()
            .and_then(|instance| self.statics.get(instance))
            .cloned();
        match replaced {
            Some(old) => self.replace_static(ctx, token, &req, &old),
            None if req.group_instance_id.is_none() && req.require_known_member_id => {
                self.ask_to_come_back(ctx, token, req);
            }
            None => self.add_member(ctx, token, &req, req.new_member_id.clone()),
        }
    }

    /// `group.max.size`. While the group forms, those who wait count: whoever comes last does not get in.
    fn accepts(&self, ctx: &Ctx<'_>, member_id: &str) -> bool {
        let member = self.members.get(member_id);
        match self.state {
            State::Empty | State::Dead => true,
            State::PreparingRebalance => {
                member.is_some_and(|m| m.awaiting_join.is_waiting())
                    || self.joining() < ctx.cfg.max_size
            }
            State::CompletingRebalance | State::Stable => {
                member.is_some() || self.members.len() < ctx.cfg.max_size
            }
        }
    }

    /// KIP-394: so that a client that gives up waiting and asks again does not become many members.
    fn ask_to_come_back(&mut self, ctx: &mut Ctx<'_>, token: Token, req: JoinRequest) {
        if self.pending.len() >= ctx.cfg.max_pending_members {
            return refuse(ctx, token, GroupError::GroupMaxSizeReached, String::new());
        }
        let deadline = ctx.now_ms.saturating_add(i64::from(req.session_timeout_ms));
        self.add_pending(req.new_member_id.clone(), deadline);
        refuse(ctx, token, GroupError::MemberIdRequired, req.new_member_id);
    }

    fn add_member(
        &mut self,
        ctx: &mut Ctx<'_>,
        token: Token,
        req: &JoinRequest,
        member_id: String,
    ) {
        let mut member = Member::new(member_id.clone(), req);
        member.awaiting_join = Waiter::For(token);
        if self.members.is_empty() {
            self.protocol_type = Some(req.protocol_type.clone());
        }
        // The initial rebalance may wait longer, as members keep coming.
        if self.state == State::PreparingRebalance && self.previous == State::Empty {
            self.new_member_added = true;
        }
        self.insert(member);
        // The member cannot send heartbeats before it knows its id, and nobody may hear the answer: it has a limit.
        self.extend_session(
            ctx.now_ms,
            &member_id,
            i64::from(ctx.cfg.new_member_join_timeout_ms),
        );
        self.rebalance_or_complete(ctx);
    }

    fn join_known(&mut self, ctx: &mut Ctx<'_>, token: Token, req: &JoinRequest) {
        if self.pending.contains_key(&req.member_id) {
            // Only dynamic members are asked to come back.
            return match req.group_instance_id {
                Some(_) => refuse(
                    ctx,
                    token,
                    GroupError::UnknownServerError,
                    req.member_id.clone(),
                ),
                None => self.add_member(ctx, token, req, req.member_id.clone()),
            };
        }
        if let Err(error) = self.validate_member(&req.member_id, req.group_instance_id.as_deref()) {
            return refuse(ctx, token, error, req.member_id.clone());
        }
        let changed = !self
            .members
            .get(&req.member_id)
            .is_some_and(|m| m.matches(&req.protocols));
        let rebalance = match self.state {
            State::PreparingRebalance => true,
            // The same again: probably the first answer was lost.
            State::CompletingRebalance => changed,
            // The leader may want a rebalance for reasons only it knows, such as new partitions of a topic.
            State::Stable => changed || self.is_leader(&req.member_id),
            State::Empty | State::Dead => {
                return refuse(
                    ctx,
                    token,
                    GroupError::UnknownMemberId,
                    req.member_id.clone(),
                );
            }
        };
        if rebalance {
            self.update(ctx, token, &req.member_id, req);
            self.rebalance_or_complete(ctx);
        } else {
            let mut joined = self.joined(&req.member_id);
            if self.state == State::Stable {
                joined.members.clear();
            }
            ctx.out.reply(token, Reply::Join(Ok(joined)));
        }
    }

    /// KIP-345: a static member without member id takes the place of the one with its instance id, which is fenced.
    fn replace_static(&mut self, ctx: &mut Ctx<'_>, token: Token, req: &JoinRequest, old_id: &str) {
        let before = (self.state == State::Stable).then(|| Box::new(self.clone()));
        let old_leader = self.leader.clone().unwrap_or_default();
        let id = req.new_member_id.clone();
        self.rename_static(ctx, old_id, &id);
        self.restart_session(ctx.now_ms, &id);
        self.update(ctx, token, &id, req);
        match self.state {
            State::Stable
                if self.protocol_name.is_some() && self.select_protocol() == self.protocol_name =>
            {
                // Nothing changes for the others: it gets its place and assignment back without a rebalance.
                ctx.out.undo.push(Undo::Group(self.id.clone(), before));
                ctx.out
                    .records
                    .push((schema::group_key(&self.id), Some(self.to_record().encode())));
                let joined = self.rejoined(&id, req.can_skip_assignment, old_leader);
                self.answer_join(ctx, &id, Ok(joined));
            }
            State::Stable => self.rebalance_or_complete(ctx),
            // The leader may have been told the old id: its assignment would miss the new one.
            State::CompletingRebalance => self.prepare_rebalance(ctx),
            State::PreparingRebalance | State::Empty | State::Dead => {
                self.complete_join_if_all_joined(ctx)
            }
        }
    }

    /// Before v9 a replaced leader must not think itself leader, or it would assign: it is told its old id (KIP-814).
    fn rejoined(&self, id: &str, can_skip_assignment: bool, old_leader: String) -> Joined {
        let joined = self.joined(id);
        if can_skip_assignment {
            Joined {
                skip_assignment: self.is_leader(id),
                ..joined
            }
        } else {
            Joined {
                leader: old_leader,
                members: Vec::new(),
                ..joined
            }
        }
    }

    fn rename_static(&mut self, ctx: &mut Ctx<'_>, old_id: &str, new_id: &str) {
        self.answer_join_refused(ctx, old_id, GroupError::FencedInstanceId, old_id.to_owned());
        self.answer_sync(ctx, old_id, Err(GroupError::FencedInstanceId));
        let led = self.is_leader(old_id);
        let synced = !self.pending_sync.remove(old_id);
        let Some(mut member) = self.take(old_id) else {
            return;
        };
        member.id = new_id.to_owned();
        member.is_new = false;
        member.session_deadline = None;
        if led {
            self.leader = Some(member.id.clone());
        }
        if !synced {
            self.pending_sync.insert(member.id.clone());
        }
        self.insert(member);
    }
}

pub(super) fn refuse(ctx: &mut Ctx<'_>, token: Token, error: GroupError, member_id: String) {
    ctx.out
        .reply(token, Reply::Join(Err(JoinRefused { error, member_id })));
}
