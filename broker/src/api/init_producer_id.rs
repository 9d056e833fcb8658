//! InitProducerId 0–5: a fresh producer id for an idempotent producer, never given twice, also
//! after a crash. With a transactional id it is refused: transactions are not served.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::{Answer, Call};

pub async fn handle(call: Call, request: InitProducerIdRequest) -> Answer {
    let refused = |error: ResponseError| {
        InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    let response = if request.transactional_id.is_some() {
        refused(ResponseError::InvalidRequest)
    } else {
        match call.node.next_producer_id().await {
            Ok(id) => InitProducerIdResponse::default()
                .with_producer_id(ProducerId(id))
                .with_producer_epoch(0),
            Err(error) => {
                tracing::error!(%error, "no producer id could be given");
                refused(ResponseError::CoordinatorNotAvailable)
            }
        }
    };
    call.answer(&response)
}
