//! DescribeCluster 0–2 (KIP-700, KIP-919). One broker; controllers are not a separate endpoint.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};

use super::support::{cluster_operations, endpoint, text};
use super::{Answer, Call};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub async fn handle(call: Call, request: DescribeClusterRequest) -> Answer {
    if call.version >= 1 && request.endpoint_type != BROKERS {
        let error = match request.endpoint_type {
            CONTROLLERS => ResponseError::MismatchedEndpointType,
            _ => ResponseError::UnsupportedEndpointType,
        };
        let refused = DescribeClusterResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(text("This endpoint is a broker, not a controller.")))
            .with_controller_id(BrokerId(-1));
        return call.answer(&refused);
    }
    let (host, port) = endpoint(&call);
    let me = BrokerId(call.node.node_id());
    let broker = DescribeClusterBroker::default()
        .with_broker_id(me)
        .with_host(host)
        .with_port(port);
    let response = DescribeClusterResponse::default()
        .with_cluster_id(text(call.node.cluster_id()))
        .with_controller_id(me)
        .with_brokers(vec![broker])
        .with_cluster_authorized_operations(cluster_operations(
            request.include_cluster_authorized_operations,
        ));
    call.answer(&response)
}
