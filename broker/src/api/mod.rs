//! THE table: every API the broker serves, its versions and its handler. It drives dispatch, the
//! version check and the ApiVersions answer, and a test holds docs/PROTOCOL.md to it.
//!
//! One file per API, named after it. A handler decodes nothing itself, calls the domain (topics,
//! the group coordinator, the catalogue) and maps the result; handlers never call each other and
//! never touch files.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message};

use crate::node::Node;
use crate::reply::Part;

mod api_versions;
mod create_topics;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_topic_partitions;
pub mod error_code;
mod fetch;
mod fetch_response;
mod find_coordinator;
mod heartbeat;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_offsets;
mod metadata;
mod offset_commit;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod support;
mod sync_group;

/// An answer in the making. Its first poll runs up to the handler's first wait.
pub type Answering = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// What goes back to the client.
pub enum Reply {
    /// No answer (produce with acks=0).
    Nothing,
    /// The frame, length first.
    Parts(Vec<Part>),
    /// The connection cannot go on; the text is for the log.
    Close(String),
}

/// Who asks.
#[derive(Debug)]
pub struct Client {
    /// The other end.
    pub peer: SocketAddr,
    /// The address at which the client reached us: what `advertise=auto` answers with.
    pub local: SocketAddr,
}

impl Client {
    /// The two ends of one connection.
    pub fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        Client { peer, local }
    }
}

/// What a handler gets beside the request's body.
#[derive(Clone)]
pub struct Call {
    /// The broker.
    pub node: Arc<Node>,
    /// The connection.
    pub client: Arc<Client>,
    /// The negotiated version.
    pub version: i16,
    /// The client's own name for itself.
    pub client_id: Arc<str>,
    correlation_id: i32,
}

/// One row of the table.
pub struct Api {
    /// The API.
    pub key: ApiKey,
    /// The lowest version ApiVersions tells.
    pub advertised_min: i16,
    /// The lowest version accepted.
    pub min: i16,
    /// The highest version accepted and told.
    pub max: i16,
    /// Requests behind it may start while it waits.
    pipelined: bool,
    handle: fn(Call, Bytes) -> Answering,
}

macro_rules! api {
    ($key:ident, $request:ident, $module:ident) => {
        api!(
            $key,
            $request,
            $module,
            <kafka_protocol::messages::$request as Message>::VERSIONS.min,
            false
        )
    };
    ($key:ident, $request:ident, $module:ident, $advertised_min:expr, $pipelined:expr) => {
        Api {
            key: ApiKey::$key,
            advertised_min: $advertised_min,
            min: <kafka_protocol::messages::$request as Message>::VERSIONS.min,
            max: <kafka_protocol::messages::$request as Message>::VERSIONS.max,
            pipelined: $pipelined,
            handle: |call, body| {
                Box::pin(async move {
                    match decode::<kafka_protocol::messages::$request>(&call, body) {
                        Ok(request) => $module::handle(call, request).await.into(),
                        Err(why) => Reply::Close(why),
                    }
                })
            },
        }
    };
}

/// Every API served, by key. Versions come from the codec's own `VERSIONS`: its
/// `ApiKey::valid_versions` counts unstable versions that its codecs do not have.
pub const TABLE: &[Api] = &[
    // Advertised from 0 or most librdkafka versions silently stop compressing (KAFKA-18659).
    api!(Produce, ProduceRequest, produce, 0, true),
    api!(Fetch, FetchRequest, fetch),
    api!(ListOffsets, ListOffsetsRequest, list_offsets),
    api!(Metadata, MetadataRequest, metadata),
    api!(OffsetCommit, OffsetCommitRequest, offset_commit),
    api!(OffsetFetch, OffsetFetchRequest, offset_fetch),
    api!(FindCoordinator, FindCoordinatorRequest, find_coordinator),
    api!(JoinGroup, JoinGroupRequest, join_group),
    api!(Heartbeat, HeartbeatRequest, heartbeat),
    api!(LeaveGroup, LeaveGroupRequest, leave_group),
    api!(SyncGroup, SyncGroupRequest, sync_group),
    api!(ApiVersions, ApiVersionsRequest, api_versions),
    api!(CreateTopics, CreateTopicsRequest, create_topics),
    api!(DeleteTopics, DeleteTopicsRequest, delete_topics),
    api!(InitProducerId, InitProducerIdRequest, init_producer_id),
    api!(
        OffsetForLeaderEpoch,
        OffsetForLeaderEpochRequest,
        offset_for_leader_epoch
    ),
    api!(DescribeConfigs, DescribeConfigsRequest, describe_configs),
    api!(DescribeCluster, DescribeClusterRequest, describe_cluster),
    api!(
        DescribeTopicPartitions,
        DescribeTopicPartitionsRequest,
        describe_topic_partitions
    ),
];

/// The table as docs/PROTOCOL.md has it; a test holds the page to it.
pub fn markdown_table() -> String {
    let mut out =
        String::from("| Key | API | Versions told | Versions accepted |\n|---|---|---|---|\n");
    for api in TABLE {
        out.push_str(&format!(
            "| {} | {:?} | {}–{} | {}–{} |\n",
            api.key as i16, api.key, api.advertised_min, api.max, api.min, api.max
        ));
    }
    out
}

/// A request that was recognised.
pub struct Started {
    /// The answer in the making.
    pub answering: Answering,
    /// Whether requests behind it may start while it waits.
    pub pipelined: bool,
}

/// Finds the handler for a frame and starts it. `Err` closes the connection: Kafka, too, closes
/// it on a request that cannot be answered in the client's terms.
pub fn dispatch(node: &Arc<Node>, client: &Arc<Client>, frame: Bytes) -> Result<Started, String> {
    let header = wire::guard::check_header(&frame).map_err(|e| format!("request header: {e}"))?;
    let Some(api) = TABLE.iter().find(|a| a.key as i16 == header.api_key) else {
        return Err(format!(
            "API {} is not served (docs/PROTOCOL.md lists what is)",
            header.api_key
        ));
    };
    let call = Call {
        node: Arc::clone(node),
        client: Arc::clone(client),
        version: header.api_version,
        client_id: header.client_id.unwrap_or_default().into(),
        correlation_id: header.correlation_id,
    };
    if !(api.min..=api.max).contains(&header.api_version) {
        if api.key == ApiKey::ApiVersions {
            // A client newer than we are gets a v0 body that tells the range (KIP-511).
            let reply = api_versions::unsupported(call).into();
            return Ok(Started {
                answering: Box::pin(std::future::ready(reply)),
                pipelined: false,
            });
        }
        return Err(format!(
            "{:?} version {}: served are {} to {}",
            api.key, header.api_version, api.min, api.max
        ));
    }
    let body = frame.slice(header.header_len..);
    // The codec takes memory for as many elements as the client claims; the guard has counted.
    wire::guard::check(header.api_key, header.api_version, &body)
        .map_err(|e| format!("{:?} v{}: {e}", api.key, header.api_version))?;
    Ok(Started {
        answering: (api.handle)(call, body),
        pipelined: api.pipelined,
    })
}

fn decode<R: Decodable>(call: &Call, mut body: Bytes) -> Result<R, String> {
    R::decode(&mut body, call.version).map_err(|e| format!("undecodable request: {e}"))
}

/// What handlers return: a message to encode, or a reply they have made themselves.
pub struct Answer(Reply);

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Reply {
        answer.0
    }
}

impl Call {
    /// Encodes `response` at the request's version.
    pub fn answer<R: Encodable + HeaderVersion>(&self, response: &R) -> Answer {
        self.answer_at(response, self.version)
    }

    fn answer_at<R: Encodable + HeaderVersion>(&self, response: &R, version: i16) -> Answer {
        let mut out = BytesMut::with_capacity(256);
        out.put_i32(0);
        let header = ResponseHeader::default().with_correlation_id(self.correlation_id);
        let encoded = header
            .encode(&mut out, R::header_version(version))
            .and_then(|()| response.encode(&mut out, version));
        match (encoded, i32::try_from(out.len().saturating_sub(4))) {
            (Ok(()), Ok(len)) => {
                out[..4].copy_from_slice(&len.to_be_bytes());
                Answer(Reply::Parts(vec![Part::Buffer(out.freeze())]))
            }
            (Err(e), _) => Answer(Reply::Close(format!("encoding the answer: {e}"))),
            (_, Err(_)) => Answer(Reply::Close("an answer of more than 2 GiB".into())),
        }
    }

    /// No answer at all.
    pub fn silence(&self) -> Answer {
        Answer(Reply::Nothing)
    }

    /// Closes the connection, with the reason for the log.
    pub fn close(&self, why: impl Into<String>) -> Answer {
        Answer(Reply::Close(why.into()))
    }

    /// The correlation id, for the encoder of Fetch.
    pub fn correlation_id(&self) -> i32 {
        self.correlation_id
    }

    /// A reply the handler has encoded itself.
    pub fn parts(&self, parts: Vec<Part>) -> Answer {
        Answer(Reply::Parts(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docs_protocol_lists_exactly_this_table() {
        let page = include_str!("../../../docs/PROTOCOL.md");
        let table = markdown_table();
        assert!(
            page.contains(&table),
            "docs/PROTOCOL.md should hold:\n{table}"
        );
        let rows = page
            .lines()
            .filter(|l| l.starts_with("| ") && l[2..3].parse::<u8>().is_ok());
        assert_eq!(
            rows.count(),
            TABLE.len(),
            "a row of docs/PROTOCOL.md is not served"
        );
    }

    #[test]
    fn the_table_is_in_order_and_its_versions_are_the_codecs() {
        assert!(
            TABLE
                .windows(2)
                .all(|w| (w[0].key as i16) < w[1].key as i16)
        );
        for api in TABLE {
            let codec = api.key.valid_versions();
            assert!(
                api.min >= codec.min && api.max <= codec.max,
                "{:?}",
                api.key
            );
        }
    }
}
