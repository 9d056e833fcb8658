//! What administrators ask: list, describe and delete groups, delete offsets; and what a deleted topic leaves behind.

use std::sync::Arc;

use super::coordinator::Coordinator;
use super::group::{Group, State};
use super::types::*;

impl Coordinator {
    /// ListGroups. Filters are taken without regard to case; an empty one lets everything pass.
    pub fn list(
        &self,
        states: &[String],
        types: &[String],
    ) -> Result<Vec<ListedGroup>, GroupError> {
        self.check_loaded()?;
        let classic = types.is_empty() || types.iter().any(|t| t.eq_ignore_ascii_case("classic"));
        let listed = |group: &&Group| {
            let state = group.state.to_string();
            classic
                && (states.is_empty()
                    || states.iter().any(|s| s.trim().eq_ignore_ascii_case(&state)))
        };
        let mut groups: Vec<ListedGroup> = self
            .groups
            .values()
            .filter(listed)
            .map(|g| ListedGroup {
                group_id: g.id.to_string(),
                protocol_type: g.protocol_type.clone().unwrap_or_default(),
                state: g.state,
            })
            .collect();
        groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
        Ok(groups)
    }

    /// DescribeGroups. An unknown group is described as Dead, from v6 with GROUP_ID_NOT_FOUND (KIP-1043).
    pub fn describe(&self, group_id: &str) -> Result<DescribedGroup, GroupError> {
        self.check_loaded()?;
        let group = self
            .groups
            .get(group_id)
            .ok_or(GroupError::GroupIdNotFound)?;
        let protocol = group
            .protocol_name
            .as_deref()
            .filter(|_| group.state == State::Stable);
        let members = group.members.values().map(|m| DescribedMember {
            member_id: m.id.clone(),
            group_instance_id: m.instance_id.clone(),
            client_id: m.client_id.clone(),
            client_host: m.client_host.clone(),
            metadata: m.metadata(protocol),
            assignment: m.assignment.clone(),
        });
        Ok(DescribedGroup {
            group_id: group_id.to_owned(),
            state: group.state,
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            protocol_data: protocol.unwrap_or_default().to_owned(),
            members: members.collect(),
        })
    }

    /// DeleteGroups. Only groups without members; their offsets go with them.
    pub fn delete_groups(&mut self, token: Token, group_ids: &[String]) -> Output {
        let mut out = Output::default();
        let mut results = Vec::with_capacity(group_ids.len());
        for group_id in group_ids {
            results.push((
                group_id.clone(),
                self.delete_group(group_id, &mut out).err(),
            ));
        }
        out.reply(token, Reply::DeleteGroups(results));
        out
    }

    fn delete_group(&mut self, group_id: &str, out: &mut Output) -> Result<(), GroupError> {
        self.check_loaded()?;
        let id = self.id_of(group_id).ok_or(GroupError::GroupIdNotFound)?;
        if self.state(&id) != Some(State::Empty) {
            return Err(GroupError::NonEmptyGroup);
        }
        for (topic, partition) in self.offsets.keys(&id, |_, _, _| true) {
            self.tombstone(&id, &topic, partition, out);
        }
        self.tombstone_group(&id, out);
        Ok(())
    }

    /// OffsetDelete (KIP-496): of topics the group's members do not subscribe to.
    pub fn delete_offsets(
        &mut self,
        token: Token,
        group_id: &str,
        topics: &[(String, Vec<i32>)],
    ) -> Output {
        let mut out = Output::default();
        let result = self.check_offset_delete(group_id).map(|id| {
            topics
                .iter()
                .map(|(topic, partitions)| self.delete_topic(&id, topic, partitions, &mut out))
                .collect()
        });
        out.reply(token, Reply::DeleteOffsets(result));
        out
    }

    fn check_offset_delete(&self, group_id: &str) -> Result<Arc<str>, GroupError> {
        self.check_group_id(group_id)?;
        let group = self
            .groups
            .get(group_id)
            .ok_or(GroupError::GroupIdNotFound)?;
        // Of members of another type than "consumer" nobody knows what they use.
        if group.state != State::Empty && !group.uses_consumer_protocol() {
            return Err(GroupError::NonEmptyGroup);
        }
        Ok(group.id.clone())
    }

    fn delete_topic(
        &mut self,
        id: &Arc<str>,
        topic: &str,
        partitions: &[i32],
        out: &mut Output,
    ) -> TopicResults {
        let subscribed = self.groups.get(id).is_some_and(|g| g.is_subscribed(topic));
        let error = subscribed.then_some(GroupError::GroupSubscribedToTopic);
        if !subscribed {
            for partition in partitions {
                self.tombstone(id, topic, *partition, out);
            }
        }
        TopicResults {
            name: topic.to_owned(),
            partitions: partitions.iter().map(|p| (*p, error)).collect(),
        }
    }

    /// A topic is gone: so are the offsets committed to it, in every group.
    pub fn topic_deleted(&mut self, topic: &str) -> Output {
        let mut out = Output::default();
        let ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for id in ids {
            for (topic, partition) in self.offsets.keys(&id, |t, _, _| t == topic) {
                self.tombstone(&id, &topic, partition, &mut out);
            }
        }
        out
    }
}
