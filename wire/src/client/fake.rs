//! A broker of a few lines for this module's tests: one topic `t` of three partitions, in memory,
//! with Kafka's sequence checks, and faults on demand.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, InitProducerIdResponse, MetadataResponse,
    ProduceRequest, ProduceResponse, ProducerId, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, Message, StrBytes};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::topic_name;
use crate::batch::{self, BatchHeader};
use crate::{frame, records};

/// What goes wrong with one request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    None,
    /// Never answered.
    Hang,
    /// The connection ends before the request has an effect.
    CutBefore,
    /// It ends when the request has had its effect, without an answer.
    CutAfter,
    /// Every partition of a Produce is refused with this code.
    Code(i16),
    /// These bytes instead of an answer.
    Garbage(&'static [u8]),
}

#[derive(Default)]
pub(crate) struct State {
    /// One for each request to come, first come first served.
    pub(crate) faults: VecDeque<Fault>,
    /// Consulted for Produce requests only, before `faults`.
    pub(crate) produce_faults: VecDeque<Fault>,
    pub(crate) api_versions_max: i16,
    pub(crate) api_versions_asked: Vec<i16>,
    pub(crate) partitions: HashMap<i32, Log>,
    pub(crate) produces: usize,
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) values: Vec<Bytes>,
    /// Producer, epoch, first and last sequence, base offset: the last five batches.
    recent: VecDeque<(i64, i16, i32, i32, i64)>,
}

#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) addr: String,
    port: i32,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub(crate) async fn start() -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = State {
            api_versions_max: 4,
            ..State::default()
        };
        let fake = Fake {
            addr: addr.to_string(),
            port: i32::from(addr.port()),
            state: Arc::new(Mutex::new(state)),
        };
        let serving = fake.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(socket));
            }
        });
        fake
    }

    pub(crate) fn set(&self, f: impl FnOnce(&mut State)) {
        f(&mut self.state.lock().unwrap());
    }

    pub(crate) fn get<T>(&self, f: impl FnOnce(&State) -> T) -> T {
        f(&self.state.lock().unwrap())
    }

    pub(crate) fn metadata_max(&self) -> i16 {
        MetadataResponse::VERSIONS.max
    }

    async fn serve(self, mut socket: TcpStream) {
        while let Ok(Some(mut body)) = frame::read(&mut socket, 100 << 20).await {
            let (key, version) = (
                i16::from_be_bytes([body[0], body[1]]),
                i16::from_be_bytes([body[2], body[3]]),
            );
            let key = ApiKey::try_from(key).unwrap();
            let header =
                RequestHeader::decode(&mut body, key.request_header_version(version)).unwrap();
            let fault = {
                let mut s = self.state.lock().unwrap();
                let special = if key == ApiKey::Produce {
                    s.produce_faults.pop_front()
                } else {
                    None
                };
                special
                    .or_else(|| s.faults.pop_front())
                    .unwrap_or(Fault::None)
            };
            match fault {
                Fault::CutBefore => return,
                Fault::Hang => continue,
                Fault::Garbage(bytes) => {
                    socket.write_all(bytes).await.unwrap();
                    continue;
                }
                _ => {}
            }
            let refusal = if let Fault::Code(code) = fault {
                code
            } else {
                0
            };
            let answer = self.answer(key, version, header.correlation_id, body, refusal);
            if matches!(fault, Fault::CutAfter) {
                return;
            }
            if socket.write_all(&answer).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, key: ApiKey, version: i16, id: i32, mut body: Bytes, refusal: i16) -> Bytes {
        let mut s = self.state.lock().unwrap();
        let mut out = BytesMut::new();
        out.put_i32(0);
        let header = ResponseHeader::default().with_correlation_id(id);
        header
            .encode(&mut out, key.response_header_version(version))
            .unwrap();
        match key {
            ApiKey::ApiVersions => {
                s.api_versions_asked.push(version);
                let max = s.api_versions_max;
                let key = |k: ApiKey, min_version, max_version| {
                    ApiVersion::default()
                        .with_api_key(k as i16)
                        .with_min_version(min_version)
                        .with_max_version(max_version)
                };
                let answer = ApiVersionsResponse::default().with_api_keys(vec![
                    key(ApiKey::ApiVersions, 0, max),
                    key(ApiKey::Metadata, 0, self.metadata_max()),
                    key(ApiKey::Produce, 3, 13),
                    key(ApiKey::InitProducerId, 0, 5),
                ]);
                if version > max {
                    answer.with_error_code(35).encode(&mut out, 0).unwrap();
                } else {
                    answer.encode(&mut out, version).unwrap();
                }
            }
            ApiKey::Metadata => self.metadata().encode(&mut out, version).unwrap(),
            ApiKey::InitProducerId => {
                InitProducerIdResponse::default()
                    .with_producer_id(ProducerId(77))
                    .encode(&mut out, version)
                    .unwrap();
            }
            ApiKey::Produce => {
                let request = ProduceRequest::decode(&mut body, version).unwrap();
                s.produce(request, refusal)
                    .encode(&mut out, version)
                    .unwrap();
            }
            other => panic!("the fake does not know {other:?}"),
        }
        let len = out.len() as i32 - 4;
        out[..4].copy_from_slice(&len.to_be_bytes());
        out.freeze()
    }

    fn metadata(&self) -> MetadataResponse {
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(1))
            .with_host(StrBytes::from_static_str("127.0.0.1"))
            .with_port(self.port);
        let partitions = (0..3).map(|i| {
            MetadataResponsePartition::default()
                .with_partition_index(i)
                .with_leader_id(BrokerId(1))
        });
        let topic = MetadataResponseTopic::default()
            .with_name(Some(topic_name("t")))
            .with_partitions(partitions.collect());
        MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_topics(vec![topic])
    }
}

impl State {
    fn produce(&mut self, request: ProduceRequest, refusal: i16) -> ProduceResponse {
        self.produces += 1;
        let mut answer = ProduceResponse::default();
        for topic in request.topic_data {
            let partitions = topic.partition_data.into_iter().map(|p| {
                let log = self.partitions.entry(p.index).or_default();
                let verdict = if refusal != 0 {
                    Err(refusal)
                } else {
                    log.append(&p.records.unwrap())
                };
                let answer = PartitionProduceResponse::default().with_index(p.index);
                match verdict {
                    Ok(base) => answer.with_base_offset(base),
                    Err(code) => answer.with_error_code(code).with_base_offset(-1),
                }
            });
            let partitions = partitions.collect();
            answer.responses.push(
                TopicProduceResponse::default()
                    .with_name(topic.name)
                    .with_partition_responses(partitions),
            );
        }
        answer
    }
}

impl Log {
    /// The rules of Kafka's `ProducerAppendInfo.checkSequence`.
    fn append(&mut self, batch: &Bytes) -> Result<i64, i16> {
        let h: BatchHeader = batch::validate(batch).map_err(|_| 2i16)?;
        let key = (
            h.producer_id,
            h.producer_epoch,
            h.base_sequence,
            h.last_sequence(),
        );
        if h.has_producer_id() {
            if let Some(seen) = self.recent.iter().find(|r| (r.0, r.1, r.2, r.3) == key) {
                return Ok(seen.4);
            }
            match self.recent.back() {
                Some(last) if h.producer_epoch < last.1 => return Err(47),
                Some(last) if h.producer_epoch == last.1 && h.base_sequence != last.3 + 1 => {
                    return Err(45);
                }
                Some(last) if h.producer_epoch > last.1 && h.base_sequence != 0 => return Err(45),
                _ => {}
            }
        }
        let base = self.values.len() as i64;
        let read = records::decode(batch, 1 << 30).map_err(|_| 2i16)?;
        self.values.extend(read.into_iter().filter_map(|r| r.value));
        self.recent.push_back((key.0, key.1, key.2, key.3, base));
        if self.recent.len() > 5 {
            self.recent.pop_front();
        }
        Ok(base)
    }
}
