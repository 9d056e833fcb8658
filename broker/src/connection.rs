//! One client connection: frames in, answers out in order. Knows sockets and the API table's
//! entry point; nothing of topics or groups.
//!
//! Requests are pipelined where the protocol gains from it: while produce requests wait for the
//! disk, the next ones are read and appended. Any other request that has to wait (a long poll, a
//! join) holds back those behind it, as in Kafka. Answers leave in the order of the requests.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::{self, Answering, Client, Reply};
use crate::node::Node;
use crate::reply::{Part, write_parts};

/// Requests of one connection that may wait for their answers at once (the producers' own limit
/// is 5; librdkafka's default is far higher, so back-pressure does the rest).
const MAX_IN_FLIGHT: usize = 64;
/// What is answered together in one write.
const WRITE_BATCH_BYTES: usize = 64 * 1024;
/// The first step in which a frame's memory is taken; it doubles only as bytes really arrive.
const READ_STEP_BYTES: usize = 64 * 1024;
/// How long a stopping broker waits for requests in flight.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a connection ended, for the log line.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    #[error("the client closed the connection")]
    ByClient,
    #[error("idle for longer than connections.max.idle.ms")]
    Idle,
    #[error("the broker is stopping")]
    Stopping,
    #[error("a frame of {got} bytes: allowed are 0 to {max} (socket.request.max.bytes)")]
    FrameSize { got: i32, max: usize },
    #[error("{0}")]
    BadRequest(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Serves `stream` until it ends; the reason is worth a log line when it is not the client's own
/// closing.
pub async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    node: Arc<Node>,
    stopping: watch::Receiver<bool>,
) -> Closed {
    let local = match stream.local_addr() {
        Ok(addr) => addr,
        Err(error) => return error.into(),
    };
    let max_idle = Duration::from_millis(node.config().connections_max_idle_ms.max(1) as u64);
    let connection = Connection {
        max_frame: node.config().socket_request_max_bytes.max(0) as usize,
        client: Arc::new(Client::new(peer, local)),
        stream,
        node,
        input: BytesMut::new(),
        waiting: FuturesOrdered::new(),
        hold: false,
        output: VecDeque::new(),
        output_bytes: 0,
        max_idle,
    };
    match connection.run(stopping).await {
        Ok(()) => Closed::ByClient,
        Err(closed) => closed,
    }
}

struct Connection {
    stream: TcpStream,
    node: Arc<Node>,
    client: Arc<Client>,
    input: BytesMut,
    max_frame: usize,
    waiting: FuturesOrdered<Answering>,
    /// A request that is not pipelined is waiting: nothing behind it may start.
    hold: bool,
    output: VecDeque<Part>,
    output_bytes: usize,
    max_idle: Duration,
}

impl Connection {
    async fn run(mut self, mut stopping: watch::Receiver<bool>) -> Result<(), Closed> {
        loop {
            self.take_frames().await?;
            self.flush_output().await?;
            if self.waiting.is_empty() && *stopping.borrow() {
                return Err(Closed::Stopping);
            }
            let may_read = !self.hold && self.waiting.len() < MAX_IN_FLIGHT;
            // An idle connection keeps no buffer.
            if self.input.is_empty() {
                self.input = BytesMut::new();
            }
            let idle_deadline = Instant::now() + self.max_idle;
            tokio::select! {
                biased;
                Some(reply) = self.waiting.next(), if !self.waiting.is_empty() => {
                    self.take_reply(reply)?;
                    self.take_ready_replies().await?;
                }
                ready = self.stream.readable(), if may_read => {
                    ready?;
                    if !self.read_some()? {
                        return Ok(());
                    }
                }
                _ = stopping.changed() => return self.drain().await,
                _ = tokio::time::sleep_until(idle_deadline), if self.waiting.is_empty() => {
                    return Err(Closed::Idle);
                }
            }
        }
    }

    /// Lets requests in flight finish, bounded in time.
    async fn drain(mut self) -> Result<(), Closed> {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while !self.waiting.is_empty() {
            match tokio::time::timeout_at(deadline, self.waiting.next()).await {
                Ok(Some(reply)) => self.take_reply(reply)?,
                Ok(None) | Err(_) => break,
            }
        }
        let _ = tokio::time::timeout_at(deadline, self.flush_output()).await;
        Err(Closed::Stopping)
    }

    /// Reads what the socket holds; false at the end of the stream.
    fn read_some(&mut self) -> Result<bool, Closed> {
        let want = self
            .missing_bytes()?
            .clamp(1, READ_STEP_BYTES.max(self.input.len()));
        self.input.reserve(want);
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => Ok(false),
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(e) => Err(e.into()),
        }
    }

    /// The length of the frame at the head of the input, when its four bytes are there.
    fn frame_len(&self) -> Result<Option<usize>, Closed> {
        let Some(head) = self.input.first_chunk::<4>() else {
            return Ok(None);
        };
        let got = i32::from_be_bytes(*head);
        match usize::try_from(got) {
            Ok(len) if len <= self.max_frame => Ok(Some(len)),
            _ => Err(Closed::FrameSize {
                got,
                max: self.max_frame,
            }),
        }
    }

    fn missing_bytes(&self) -> Result<usize, Closed> {
        Ok(match self.frame_len()? {
            Some(len) => (4 + len).saturating_sub(self.input.len()),
            // Most requests are small: one read brings the length and the frame.
            None => 4096,
        })
    }

    /// Starts every request that is complete.
    async fn take_frames(&mut self) -> Result<(), Closed> {
        while !self.hold && self.waiting.len() < MAX_IN_FLIGHT {
            let Some(len) = self.frame_len()? else {
                return Ok(());
            };
            if self.input.len() < 4 + len {
                return Ok(());
            }
            self.input.advance(4);
            let frame = self.input.split_to(len).freeze();
            self.start(frame).await?;
            if self.output_bytes >= WRITE_BATCH_BYTES {
                self.flush_output().await?;
            }
        }
        Ok(())
    }

    async fn start(&mut self, frame: Bytes) -> Result<(), Closed> {
        let started = api::dispatch(&self.node, &self.client, frame).map_err(Closed::BadRequest)?;
        let mut answering = started.answering;
        // The first poll runs the handler up to its first wait: what it appends is appended in
        // the order of the requests.
        match poll_fn(|cx| Poll::Ready(answering.as_mut().poll(cx))).await {
            Poll::Ready(reply) if self.waiting.is_empty() => self.take_reply(reply)?,
            Poll::Ready(reply) => {
                self.waiting.push_back(Box::pin(std::future::ready(reply)));
                self.hold |= !started.pipelined;
            }
            Poll::Pending => {
                self.waiting.push_back(answering);
                self.hold |= !started.pipelined;
            }
        }
        Ok(())
    }

    /// Takes the replies that are ready behind the first one, so that they leave in one write.
    async fn take_ready_replies(&mut self) -> Result<(), Closed> {
        while !self.waiting.is_empty() && self.output_bytes < WRITE_BATCH_BYTES {
            let next = poll_fn(|cx| Poll::Ready(self.waiting.poll_next_unpin(cx))).await;
            match next {
                Poll::Ready(Some(reply)) => self.take_reply(reply)?,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Ok(())
    }

    fn take_reply(&mut self, reply: Reply) -> Result<(), Closed> {
        if self.waiting.is_empty() {
            self.hold = false;
        }
        match reply {
            Reply::Nothing => {}
            Reply::Close(why) => return Err(Closed::BadRequest(why)),
            Reply::Parts(parts) => {
                for part in parts {
                    self.output_bytes += part.len();
                    self.output.push_back(part);
                }
            }
        }
        Ok(())
    }

    async fn flush_output(&mut self) -> Result<(), Closed> {
        if self.output.is_empty() {
            return Ok(());
        }
        self.output_bytes = 0;
        write_parts(&self.stream, &mut self.output, self.max_idle).await?;
        Ok(())
    }
}
