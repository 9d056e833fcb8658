//! ApiVersions 0–4. Answers from the table. A client newer than we are gets a v0 body with error
//! 35 and the range, in a v0 header, so that it can ask again (KIP-511).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use super::support::text;
use super::{Answer, Call, TABLE};

/// Kafka 4's oldest metadata.version (3.3-IV3); it must not be told as 0 before v4 (KAFKA-17011).
const OLDEST_FEATURE_LEVEL: i16 = 7;
/// Longest client name or version that is taken (Kafka's pattern allows letters, digits, `-.`).
fn valid_software(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() <= 1024
        && name.chars().all(inner)
        && edge(name.chars().next())
        && edge(name.chars().next_back())
}

pub async fn handle(call: Call, request: ApiVersionsRequest) -> Answer {
    if call.version >= 3
        && !(valid_software(&request.client_software_name)
            && valid_software(&request.client_software_version))
    {
        let refused = versions().with_error_code(ResponseError::InvalidRequest.code());
        return call.answer(&refused.with_api_keys(Vec::new()));
    }
    let mut response = versions();
    if call.version >= 3 {
        // The features are the catalogue's; a metadata.version tells admin tools a KRaft cluster.
        let features = call.node.features();
        response.supported_features = features
            .iter()
            .map(|(name, level)| {
                SupportedFeatureKey::default()
                    .with_name(text(name))
                    .with_min_version(OLDEST_FEATURE_LEVEL.min(*level))
                    .with_max_version(*level)
            })
            .collect();
        response.finalized_features = features
            .iter()
            .map(|(name, level)| {
                FinalizedFeatureKey::default()
                    .with_name(text(name))
                    .with_min_version_level(*level)
                    .with_max_version_level(*level)
            })
            .collect();
        response.finalized_features_epoch = 0;
    }
    call.answer(&response)
}

/// The answer to a version that is not served.
pub fn unsupported(call: Call) -> Answer {
    let refused = versions().with_error_code(ResponseError::UnsupportedVersion.code());
    call.answer_at(&refused, 0)
}

fn versions() -> ApiVersionsResponse {
    let keys = TABLE.iter().map(|api| {
        ApiVersion::default()
            .with_api_key(api.key as i16)
            .with_min_version(api.advertised_min)
            .with_max_version(api.max)
    });
    ApiVersionsResponse::default().with_api_keys(keys.collect())
}
