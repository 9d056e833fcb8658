//! FindCoordinator 0–6. This node coordinates every group; many keys at once from v4 (KIP-699).
//! Transactions and share groups are not served: their coordinators are refused for good, so that
//! a client fails with words instead of asking for ever.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::support::{endpoint, text};
use super::{Answer, Call};

const GROUP: i8 = 0;

struct Found {
    error: Option<(ResponseError, &'static str)>,
    node_id: i32,
    host: StrBytes,
    port: i32,
}

pub async fn handle(call: Call, request: FindCoordinatorRequest) -> Answer {
    let found = find(&call, request.key_type).await;
    let message = found.error.map(|(_, m)| text(m));
    let code = found.error.map_or(0, |(e, _)| e.code());
    if call.version >= 4 {
        let coordinators = request.coordinator_keys.into_iter().map(|key| {
            Coordinator::default()
                .with_key(key)
                .with_node_id(BrokerId(found.node_id))
                .with_host(found.host.clone())
                .with_port(found.port)
                .with_error_code(code)
                .with_error_message(message.clone())
        });
        let coordinators = coordinators.collect();
        return call.answer(&FindCoordinatorResponse::default().with_coordinators(coordinators));
    }
    let mut response = FindCoordinatorResponse::default()
        .with_error_code(code)
        .with_node_id(BrokerId(found.node_id))
        .with_host(found.host)
        .with_port(found.port);
    if call.version >= 1 {
        response.error_message = message;
    }
    call.answer(&response)
}

async fn find(call: &Call, key_type: i8) -> Found {
    let none = |error, message| Found {
        error: Some((error, message)),
        node_id: -1,
        host: text(""),
        port: -1,
    };
    if key_type != GROUP {
        return none(
            ResponseError::InvalidRequest,
            "mini-broker coordinates consumer groups only; see docs/PROTOCOL.md",
        );
    }
    if let Err(error) = call.node.groups().ready().await {
        tracing::error!(%error, "the topic of committed offsets could not be created");
        return none(
            ResponseError::CoordinatorNotAvailable,
            "the offsets topic is not available",
        );
    }
    let (host, port) = endpoint(call);
    Found {
        error: None,
        node_id: call.node.node_id(),
        host,
        port,
    }
}
