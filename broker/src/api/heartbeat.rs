//! Heartbeat 0–4: the member lives; the answer tells it when to rejoin.

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::support::{code, optional};
use super::{Answer, Call, error_code};
use crate::groups;

pub async fn handle(call: Call, request: HeartbeatRequest) -> Answer {
    let beat = groups::HeartbeatRequest {
        group_id: request.group_id.to_string(),
        generation: request.generation_id,
        member_id: request.member_id.to_string(),
        group_instance_id: optional(request.group_instance_id),
    };
    let result = match call.node.groups().heartbeat(beat) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error_code::of_group(error)),
        Err(error) => Err(error_code::of_coordinator(&error)),
    };
    call.answer(&HeartbeatResponse::default().with_error_code(code(result)))
}
