//! SyncGroup 0–5. Followers wait for the leader's assignment; nobody gets an empty one before it.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::support::{optional, text};
use super::{Answer, Call, error_code};
use crate::groups::{Reply, SyncRequest};

pub async fn handle(call: Call, request: SyncGroupRequest) -> Answer {
    let sync = SyncRequest {
        group_id: request.group_id.to_string(),
        generation: request.generation_id,
        member_id: request.member_id.to_string(),
        group_instance_id: optional(request.group_instance_id),
        protocol_type: optional(request.protocol_type),
        protocol_name: optional(request.protocol_name),
        protocol_mandatory: call.version >= 5,
        assignments: request
            .assignments
            .into_iter()
            .map(|a| {
                (
                    a.member_id.to_string(),
                    bytes::Bytes::copy_from_slice(&a.assignment),
                )
            })
            .collect(),
    };
    let reply = call
        .node
        .groups()
        .submit(|groups, now, token| groups.sync(now, token, sync))
        .await;
    let refused = |error: ResponseError| SyncGroupResponse::default().with_error_code(error.code());
    let response = match reply {
        Ok(Reply::Sync(Ok(synced))) => {
            let mut response = SyncGroupResponse::default().with_assignment(synced.assignment);
            if call.version >= 5 {
                response.protocol_type = synced.protocol_type.map(text);
                response.protocol_name = synced.protocol_name.map(text);
            }
            response
        }
        Ok(Reply::Sync(Err(error))) => refused(error_code::of_group(error)),
        Ok(_) => refused(ResponseError::UnknownServerError),
        Err(error) => refused(error_code::of_coordinator(&error)),
    };
    call.answer(&response)
}
