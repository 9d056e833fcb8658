//! One connection to one broker: requests are pipelined, answers are matched by correlation id,
//! versions are negotiated. Knows sockets, frames and headers; nothing of what a request is for.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{
    Decodable, Encodable, HeaderVersion, Request, StrBytes, VersionRange,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::ClientConfig;
use super::error::{ClientError, Result, codes};
use crate::frame;

/// Requests on one connection that wait for their answers.
const MAX_IN_FLIGHT: usize = 64;

/// One connection. Dropping it closes the socket; whoever still waits gets an error.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 2],
}

struct Shared {
    addr: String,
    client_id: StrBytes,
    versions: OnceLock<HashMap<i16, VersionRange>>,
    state: Mutex<State>,
    slots: Arc<Semaphore>,
}

struct State {
    next_id: i32,
    waiting: HashMap<i32, Waiter>,
    /// None once the connection is dead; `dead` then says why.
    out: Option<mpsc::UnboundedSender<Outgoing>>,
    dead: Option<ClientError>,
}

/// Bounded by the permits: one is held until the answer is there, even if nobody waits any more.
struct Waiter {
    answer: oneshot::Sender<Result<Bytes>>,
    _permit: OwnedSemaphorePermit,
}

struct Outgoing {
    frame: Bytes,
    /// For requests without an answer (acks 0): told when the bytes are written.
    written: Option<Waiter>,
}

/// A request on its way.
pub(crate) struct Call<R> {
    answer: oneshot::Receiver<Result<Bytes>>,
    version: i16,
    shared: Arc<Shared>,
    request: PhantomData<fn() -> R>,
}

impl Connection {
    /// Connects and negotiates versions.
    pub(crate) async fn open(addr: &str, cfg: &ClientConfig) -> Result<Connection> {
        let what = || format!("connecting to {addr}");
        let stream = timeout(cfg.connect_timeout, TcpStream::connect(addr))
            .await
            .map_err(|_| timed_out(what(), cfg.connect_timeout))?
            .map_err(|e| broken(addr, e))?;
        stream.set_nodelay(true).map_err(|e| broken(addr, e))?;
        let conn = Connection::over(stream, addr, cfg);
        conn.negotiate(cfg.connect_timeout.min(cfg.request_timeout))
            .await?;
        Ok(conn)
    }

    fn over(stream: TcpStream, addr: &str, cfg: &ClientConfig) -> Connection {
        let (out, queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            addr: addr.to_owned(),
            client_id: StrBytes::from_string(cfg.client_id.clone()),
            versions: OnceLock::new(),
            state: Mutex::new(State {
                next_id: 0,
                waiting: HashMap::new(),
                out: Some(out),
                dead: None,
            }),
            slots: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
        });
        let (read, write) = stream.into_split();
        let reader = tokio::spawn(read_answers(shared.clone(), read, cfg.max_frame_bytes));
        let writer = tokio::spawn(write_requests(shared.clone(), write, queue));
        Connection {
            shared,
            tasks: [reader.abort_handle(), writer.abort_handle()],
        }
    }

    /// KIP-35, KIP-511: a broker that does not know our version answers in version 0 with its range.
    async fn negotiate(&self, limit: Duration) -> Result<()> {
        let mut version = <ApiVersionsRequest as kafka_protocol::protocol::Message>::VERSIONS.max;
        for _ in 0..3 {
            let mut req = ApiVersionsRequest::default();
            if version >= 3 {
                req.client_software_name = StrBytes::from_static_str("mini-broker");
                req.client_software_version = StrBytes::from_static_str(env!("CARGO_PKG_VERSION"));
            }
            let call = self.start(&req, version).await?;
            let body = call.raw(limit).await?;
            let (code, versions) =
                parse_api_versions(body, version).map_err(|reason| self.garbled(reason))?;
            match code {
                0 => {
                    let _ = self.shared.versions.set(versions);
                    return Ok(());
                }
                codes::UNSUPPORTED_VERSION if version > 0 => {
                    let theirs = versions.get(&ApiVersionsRequest::KEY).map_or(0, |r| r.max);
                    version = theirs.clamp(0, version - 1);
                }
                _ => {
                    return Err(ClientError::from_code(
                        code,
                        format!("asking {} for its versions", self.shared.addr),
                    ));
                }
            }
        }
        Err(self.garbled("no agreement on ApiVersions".to_owned()))
    }

    /// The newest version of a request that both sides speak, at most `cap`.
    pub(crate) fn version<R: Request>(&self, cap: i16) -> Result<i16> {
        let ours = VersionRange {
            min: R::VERSIONS.min,
            max: R::VERSIONS.max.min(cap),
        };
        let theirs = self.shared.versions.get().and_then(|v| v.get(&R::KEY));
        let common = theirs.map(|t| ours.intersect(t)).filter(|c| !c.is_empty());
        common
            .map(|c| c.max)
            .ok_or_else(|| ClientError::UnsupportedVersion {
                api: api_name(R::KEY),
                broker: theirs.map_or("none".to_owned(), |t| t.to_string()),
                client: ours.to_string(),
            })
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.shared.lock().dead.is_none()
    }

    /// Queues a request; requests leave in the order of these calls. Waits only while too many
    /// are in flight.
    pub(crate) async fn start<R: Request>(&self, req: &R, version: i16) -> Result<Call<R>> {
        self.enqueue(req, version, true).await
    }

    /// Queues a request the broker does not answer; [`Call::written`] resolves when it is written.
    pub(crate) async fn start_unanswered<R: Request>(
        &self,
        req: &R,
        version: i16,
    ) -> Result<Call<R>> {
        self.enqueue(req, version, false).await
    }

    /// Sends a request and waits for its answer. A request that times out closes the connection,
    /// because answers come in order.
    pub(crate) async fn call<R: Request>(
        &self,
        req: &R,
        version: i16,
        limit: Duration,
    ) -> Result<R::Response> {
        self.start(req, version).await?.wait(limit).await
    }

    async fn enqueue<R: Request>(&self, req: &R, version: i16, answered: bool) -> Result<Call<R>> {
        let permit = self
            .shared
            .slots
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| self.shared.death())?;
        let mut frame = self.encode(req, version)?;
        let (tx, answer) = oneshot::channel();
        let waiter = Waiter {
            answer: tx,
            _permit: permit,
        };
        {
            let mut state = self.shared.lock();
            if let Some(dead) = &state.dead {
                return Err(dead.clone());
            }
            let id = state.next_id;
            state.next_id = id.wrapping_add(1) & i32::MAX;
            // The id is written here, under the lock that also orders the queue.
            if let Some(place) = frame.get_mut(8..12) {
                place.copy_from_slice(&id.to_be_bytes());
            }
            let mut out = Outgoing {
                frame: frame.freeze(),
                written: None,
            };
            if answered {
                state.waiting.insert(id, waiter);
            } else {
                out.written = Some(waiter);
            }
            if let Some(queue) = &state.out {
                // Fails only if the writer is gone; then `die` tells the waiter.
                let _ = queue.send(out);
            }
        }
        Ok(Call {
            answer,
            version,
            shared: self.shared.clone(),
            request: PhantomData,
        })
    }

    /// Length, header with correlation id 0, body.
    fn encode<R: Request>(&self, req: &R, version: i16) -> Result<BytesMut> {
        let bad = |e: &dyn fmt::Display| {
            ClientError::invalid(format!(
                "{} cannot be said in version {version}: {e}",
                api_name(R::KEY)
            ))
        };
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_client_id(Some(self.shared.client_id.clone()));
        let size = req.compute_size(version).map_err(|e| bad(&e))?;
        let mut buf = BytesMut::with_capacity(size + 64 + self.shared.client_id.len());
        buf.put_i32(0);
        header
            .encode(&mut buf, R::header_version(version))
            .map_err(|e| bad(&e))?;
        req.encode(&mut buf, version).map_err(|e| bad(&e))?;
        let len = i32::try_from(buf.len() - 4).map_err(|e| bad(&e))?;
        if let Some(place) = buf.get_mut(..4) {
            place.copy_from_slice(&len.to_be_bytes());
        }
        Ok(buf)
    }

    fn garbled(&self, reason: String) -> ClientError {
        ClientError::Protocol {
            addr: self.shared.addr.clone(),
            reason,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.shared
            .die(broken(&self.shared.addr, "closed by this client"));
    }
}

impl<R: Request> Call<R> {
    /// The answer.
    pub(crate) async fn wait(self, limit: Duration) -> Result<R::Response> {
        let (shared, version) = (self.shared.clone(), self.version);
        let mut body = self.raw(limit).await?;
        let decoded = ResponseHeader::decode(&mut body, R::Response::header_version(version))
            .and_then(|_| R::Response::decode(&mut body, version));
        decoded.map_err(|e| {
            let reason = format!("{} version {version}: {e}", api_name(R::KEY));
            shared.die(ClientError::Protocol {
                addr: shared.addr.clone(),
                reason,
            })
        })
    }

    /// Resolves when an unanswered request is written to the socket.
    pub(crate) async fn written(self, limit: Duration) -> Result<()> {
        self.raw(limit).await.map(|_| ())
    }

    /// The answer's frame, from its correlation id on.
    async fn raw(self, limit: Duration) -> Result<Bytes> {
        match timeout(limit, self.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(self.shared.death()),
            Err(_) => {
                let e = timed_out(
                    format!("{} from {}", api_name(R::KEY), self.shared.addr),
                    limit,
                );
                self.shared.die(broken(
                    &self.shared.addr,
                    "given up after a request timed out",
                ));
                Err(e)
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection: everybody who waits, and everybody to come, gets this error.
    fn die(&self, why: ClientError) -> ClientError {
        let waiting = {
            let mut state = self.lock();
            state.dead.get_or_insert(why.clone());
            state.out = None;
            std::mem::take(&mut state.waiting)
        };
        self.slots.close();
        for (_, waiter) in waiting {
            let _ = waiter.answer.send(Err(why.clone()));
        }
        why
    }

    fn death(&self) -> ClientError {
        self.lock()
            .dead
            .clone()
            .unwrap_or_else(|| broken(&self.addr, "closed"))
    }
}

/// Hands each answer to its waiter. Notices at once when the broker closes the connection.
async fn read_answers(shared: Arc<Shared>, mut socket: OwnedReadHalf, max: usize) {
    let why = loop {
        let body = match frame::read(&mut socket, max).await {
            Ok(Some(body)) => body,
            Ok(None) => break broken(&shared.addr, "closed by the broker"),
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                break ClientError::Protocol {
                    addr: shared.addr.clone(),
                    reason: e.to_string(),
                };
            }
            Err(e) => break broken(&shared.addr, e),
        };
        let waiter = match body.first_chunk::<4>() {
            Some(id) => shared.lock().waiting.remove(&i32::from_be_bytes(*id)),
            None => None,
        };
        match waiter {
            Some(waiter) => {
                let _ = waiter.answer.send(Ok(body));
            }
            None => {
                let reason = "an answer nobody asked for".to_owned();
                break ClientError::Protocol {
                    addr: shared.addr.clone(),
                    reason,
                };
            }
        }
    };
    shared.die(why);
}

async fn write_requests(
    shared: Arc<Shared>,
    mut socket: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Outgoing>,
) {
    while let Some(mut next) = queue.recv().await {
        if let Err(e) = socket.write_all(&next.frame).await {
            shared.die(broken(&shared.addr, e));
            return;
        }
        if let Some(waiter) = next.written.take() {
            let _ = waiter.answer.send(Ok(Bytes::new()));
        }
    }
}

/// Reads an ApiVersions answer by hand: version 0's layout if the code is UNSUPPORTED_VERSION.
fn parse_api_versions(
    mut body: Bytes,
    version: i16,
) -> Result<(i16, HashMap<i16, VersionRange>), String> {
    // Response header v0 whatever the version: the correlation id alone.
    if body.len() < 6 {
        return Err("too short for an ApiVersions answer".to_owned());
    }
    body.advance(4);
    let code = i16::from_be_bytes([body[0], body[1]]);
    let layout = if code == codes::UNSUPPORTED_VERSION {
        0
    } else {
        version
    };
    // The decoder takes memory for as many entries as announced: no broker has that many APIs.
    let announced = if layout >= 3 {
        varint_at(&body, 2)
    } else {
        u64::from(u32_at(&body, 2))
    };
    if announced > body.len() as u64 {
        return Err("an ApiVersions answer of impossible length".to_owned());
    }
    let answer = match ApiVersionsResponse::decode(&mut body, layout) {
        Ok(answer) => answer,
        // Some brokers answer 35 with nothing behind the code.
        Err(_) if code == codes::UNSUPPORTED_VERSION => return Ok((code, HashMap::new())),
        Err(e) => return Err(e.to_string()),
    };
    let ranges = answer.api_keys.iter();
    Ok((
        code,
        ranges
            .map(|k| {
                (
                    k.api_key,
                    VersionRange {
                        min: k.min_version,
                        max: k.max_version,
                    },
                )
            })
            .collect(),
    ))
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    b.get(at..)
        .and_then(|b| b.first_chunk())
        .map_or(0, |c| u32::from_be_bytes(*c))
}

fn varint_at(b: &[u8], at: usize) -> u64 {
    let mut n = 0;
    for (i, byte) in b.iter().skip(at).take(5).enumerate() {
        n |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            break;
        }
    }
    n
}

fn api_name(key: i16) -> String {
    ApiKey::try_from(key).map_or_else(|()| format!("request {key}"), |k| format!("{k:?}"))
}

pub(crate) fn broken(addr: &str, reason: impl fmt::Display) -> ClientError {
    ClientError::Connection {
        addr: addr.to_owned(),
        reason: reason.to_string(),
    }
}

fn timed_out(what: String, after: Duration) -> ClientError {
    ClientError::Timeout {
        what,
        after_ms: after.as_millis() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::{Fake, Fault};
    use kafka_protocol::messages::MetadataRequest;

    fn config() -> ClientConfig {
        ClientConfig::default()
    }

    fn ask() -> MetadataRequest {
        MetadataRequest::default()
    }

    #[tokio::test]
    async fn an_older_broker_is_asked_in_its_own_version() {
        let fake = Fake::start().await;
        fake.set(|s| s.api_versions_max = 2);
        let conn = Connection::open(&fake.addr, &config()).await.unwrap();
        assert_eq!(
            conn.version::<MetadataRequest>(i16::MAX).unwrap(),
            fake.metadata_max()
        );
        assert_eq!(conn.version::<MetadataRequest>(3).unwrap(), 3);
        let e = conn
            .version::<kafka_protocol::messages::CreateTopicsRequest>(i16::MAX)
            .unwrap_err();
        assert!(e.to_string().contains("CreateTopics"), "{e}");
        assert_eq!(fake.get(|s| s.api_versions_asked.clone()), [4, 2]);
    }

    #[tokio::test]
    async fn requests_are_pipelined_and_a_closed_connection_fails_all_at_once() {
        let fake = Fake::start().await;
        let conn = Connection::open(&fake.addr, &config()).await.unwrap();
        let limit = Duration::from_secs(600);
        let (a, b) = (
            conn.start(&ask(), 1).await.unwrap(),
            conn.start(&ask(), 1).await.unwrap(),
        );
        assert_eq!(b.wait(limit).await.unwrap().brokers.len(), 1);
        assert_eq!(a.wait(limit).await.unwrap().brokers.len(), 1);
        fake.set(|s| s.faults = vec![Fault::Hang, Fault::Hang, Fault::CutBefore].into());
        let mut calls = Vec::new();
        for _ in 0..3 {
            calls.push(conn.start(&ask(), 1).await.unwrap());
        }
        for call in calls {
            assert!(matches!(
                call.wait(limit).await,
                Err(ClientError::Connection { .. })
            ));
        }
        assert!(!conn.is_alive());
        assert!(conn.start(&ask(), 1).await.is_err());
    }

    #[tokio::test]
    async fn a_request_that_times_out_ends_the_connection() {
        let fake = Fake::start().await;
        let conn = Connection::open(&fake.addr, &config()).await.unwrap();
        fake.set(|s| s.faults = vec![Fault::Hang].into());
        let e = conn
            .call(&ask(), 1, Duration::from_millis(20))
            .await
            .unwrap_err();
        assert!(
            matches!(e, ClientError::Timeout { after_ms: 20, .. }),
            "{e}"
        );
        assert!(!conn.is_alive());
    }

    #[tokio::test]
    async fn what_is_no_kafka_is_said_so() {
        let fake = Fake::start().await;
        fake.set(|s| s.faults = vec![Fault::Garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n")].into());
        let e = Connection::open(&fake.addr, &config()).await.err().unwrap();
        assert!(matches!(e, ClientError::Protocol { .. }), "{e}");
        // An array length of 2^31 - 1 behind a well-formed beginning takes no memory.
        fake.set(|s| {
            s.faults = vec![Fault::Garbage(&[
                0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x07,
            ])]
            .into();
        });
        let e = Connection::open(&fake.addr, &config()).await.err().unwrap();
        assert!(e.to_string().contains("impossible"), "{e}");
    }
}
