//! InitProducerId 0–5: a fresh producer id for an idempotent producer, never given twice, also
//! after a crash. With a transactional id it is refused: transactions are not served.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::{Answer, Call};

/// "Not given", for the producer's id and epoch.
const NONE: i64 = -1;

pub async fn handle(call: Call, request: InitProducerIdRequest) -> Answer {
    let refused = |error: ResponseError| {
        InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    // Given together or not at all (KIP-360). Without a transactional id nothing is looked up:
    // the producer gets a new id.
    let half_given = call.version >= 3
        && (request.producer_id.0 == NONE) != (i64::from(request.producer_epoch) == NONE);
    let response = if request.transactional_id.is_some() || half_given {
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
