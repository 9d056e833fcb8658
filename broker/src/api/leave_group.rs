//! LeaveGroup 0–5. One member before v3, many from then on, also by instance id (KIP-345).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::support::{optional, text};
use super::{Answer, Call, error_code};
use crate::groups::{LeaveRequest, LeavingMember, LeftMember, Reply};

pub async fn handle(call: Call, request: LeaveGroupRequest) -> Answer {
    let members = if call.version >= 3 {
        let many = request.members.into_iter().map(|m| LeavingMember {
            member_id: m.member_id.to_string(),
            group_instance_id: optional(m.group_instance_id),
        });
        many.collect()
    } else {
        vec![LeavingMember {
            member_id: request.member_id.to_string(),
            group_instance_id: None,
        }]
    };
    let leave = LeaveRequest {
        group_id: request.group_id.to_string(),
        members,
    };
    let reply = call
        .node
        .groups()
        .submit(|groups, now, token| groups.leave(now, token, leave))
        .await;
    let response = match reply {
        Ok(Reply::Leave(Ok(left))) => left_answer(call.version, left),
        Ok(Reply::Leave(Err(error))) => refused(error_code::of_group(error)),
        Ok(_) => refused(ResponseError::UnknownServerError),
        Err(error) => refused(error_code::of_coordinator(&error)),
    };
    call.answer(&response)
}

fn refused(error: ResponseError) -> LeaveGroupResponse {
    LeaveGroupResponse::default().with_error_code(error.code())
}

fn left_answer(version: i16, left: Vec<LeftMember>) -> LeaveGroupResponse {
    let code = |m: &LeftMember| m.error.map_or(0, |e| error_code::of_group(e).code());
    if version < 3 {
        let code = left.first().map_or(0, code);
        return LeaveGroupResponse::default().with_error_code(code);
    }
    let members = left.into_iter().map(|m| {
        let code = code(&m);
        MemberResponse::default()
            .with_member_id(text(m.member_id))
            .with_group_instance_id(m.group_instance_id.map(text))
            .with_error_code(code)
    });
    LeaveGroupResponse::default().with_members(members.collect())
}
