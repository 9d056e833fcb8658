//! JoinGroup 0–9. Waits until the group's members have come together. New members learn their id
//! first from v4 (KIP-394), static members from v5 (KIP-345), protocol type from v7 (KIP-559), a
//! leader that need not assign from v9 (KIP-814).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use uuid::Uuid;

use super::support::{optional, text};
use super::{Answer, Call, error_code};
use crate::groups::{JoinRefused, JoinRequest, Joined, Protocol, Reply};

pub async fn handle(call: Call, request: JoinGroupRequest) -> Answer {
    let instance = optional(request.group_instance_id);
    let named = instance.as_deref().unwrap_or(&call.client_id);
    let join = JoinRequest {
        group_id: request.group_id.to_string(),
        member_id: request.member_id.to_string(),
        new_member_id: format!("{named}-{}", Uuid::new_v4()),
        group_instance_id: instance,
        protocol_type: request.protocol_type.to_string(),
        protocols: request
            .protocols
            .into_iter()
            // A copy: a member must not keep the whole frame alive.
            .map(|p| Protocol {
                name: p.name.to_string(),
                metadata: bytes::Bytes::copy_from_slice(&p.metadata),
            })
            .collect(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        client_id: call.client_id.to_string(),
        client_host: format!("/{}", call.client.peer.ip().to_canonical()),
        require_known_member_id: call.version >= 4,
        can_skip_assignment: call.version >= 9,
    };
    let member_id = join.member_id.clone();
    let reply = call
        .node
        .groups()
        .submit(|groups, now, token| groups.join(now, token, join))
        .await;
    let response = match reply {
        Ok(Reply::Join(Ok(joined))) => joined_answer(call.version, joined),
        Ok(Reply::Join(Err(JoinRefused { error, member_id }))) => {
            refused(call.version, error_code::of_group(error), &member_id)
        }
        Ok(_) => refused(call.version, ResponseError::UnknownServerError, &member_id),
        Err(error) => refused(call.version, error_code::of_coordinator(&error), &member_id),
    };
    call.answer(&response)
}

fn joined_answer(version: i16, joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|m| {
        let member = JoinGroupResponseMember::default()
            .with_member_id(text(m.member_id))
            .with_metadata(m.metadata);
        if version >= 5 {
            member.with_group_instance_id(m.group_instance_id.map(text))
        } else {
            member
        }
    });
    let mut response = JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_leader(text(joined.leader))
        .with_member_id(text(joined.member_id))
        .with_members(members.collect());
    response.protocol_name = Some(text(joined.protocol_name.unwrap_or_default()));
    if version >= 7 {
        response.protocol_type = joined.protocol_type.map(text);
    }
    if version >= 9 {
        response.skip_assignment = joined.skip_assignment;
    }
    response
}

fn refused(version: i16, error: ResponseError, member_id: &str) -> JoinGroupResponse {
    let mut response = JoinGroupResponse::default()
        .with_error_code(error.code())
        .with_generation_id(-1)
        .with_leader(text(""))
        .with_member_id(text(member_id));
    // Null exists from v7 on.
    response.protocol_name = if version >= 7 { None } else { Some(text("")) };
    response
}
