//! One client connection: frames in, answers out in order. Knows sockets and the API table's
//! entry point; nothing of topics or groups.
//!
//! Requests are pipelined where the protocol gains from it: while produce requests wait for the
//! disk, the next ones are read and appended. Any other request that has to wait (a long poll, a
//! join) holds back those behind it, as in Kafka. Answers leave in the order of the requests.
//!
//! However a connection ends, what was answered before still leaves: a client that has only closed
//! its own side gets its answers, and a bad frame costs the frames behind it, not those before it.

mod budget;

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

pub use budget::Budget;
use budget::{FREE_FRAME_BYTES, Reserved};

use crate::api::{self, Answering, Client, Reply};
use crate::node::Node;
pub use crate::reply::SendError;
use crate::reply::{Part, write_parts};

/// Requests of one connection that may wait for their answers at once (the producers' own limit
/// is 5; librdkafka's default is far higher, so back-pressure does the rest).
const MAX_IN_FLIGHT: usize = 64;
/// What is answered together in one write.
const WRITE_BATCH_BYTES: usize = 64 * 1024;
/// Memory for a first read: most requests are small, and one read brings length and frame.
const FIRST_READ_BYTES: usize = 4096;
/// Behind a request that waits, so much is read ahead: a client that goes away is noticed.
const READ_AHEAD_BYTES: usize = 64 * 1024;
/// How long a stopping broker waits for requests in flight and for clients to take their answers.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client that sends no more is kept waiting for its next answer. It may have closed
/// its own side only; more often it is gone, and its long poll or join with it.
const HALF_CLOSED_GRACE: Duration = Duration::from_secs(5);
/// How long a large request may stand still while memory is set aside for it.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long bytes nobody wants are read away before a connection is closed on them.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a connection ended, for the log line.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    #[error("the client closed the connection")]
    ByClient,
    #[error("idle for longer than connections.max.idle.ms")]
    Idle,
    #[error("a large request stopped arriving")]
    Stalled,
    #[error("the broker is stopping")]
    Stopping,
    #[error("a frame of {got} bytes: allowed are 0 to {max} (socket.request.max.bytes)")]
    FrameSize { got: i32, max: usize },
    #[error("{0}")]
    BadRequest(String),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Send(#[from] SendError),
}

/// Serves `stream` until it ends; the reason is worth a log line when it is not the client's own
/// closing.
pub async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    node: Arc<Node>,
    budget: Budget,
    mut stopping: watch::Receiver<bool>,
) -> Closed {
    let local = match stream.local_addr() {
        Ok(addr) => addr,
        Err(error) => return error.into(),
    };
    let idle_ms = u64::try_from(node.config().connections_max_idle_ms).ok();
    let mut connection = Connection {
        max_frame: node.config().socket_request_max_bytes.max(0) as usize,
        client: Arc::new(Client::new(peer, local)),
        stream,
        node,
        budget,
        input: BytesMut::new(),
        reserving: None,
        reserved: None,
        eof: false,
        refused: None,
        waiting: FuturesOrdered::new(),
        hold: false,
        output: VecDeque::new(),
        output_bytes: 0,
        max_idle: idle_ms.map(Duration::from_millis),
        stop_by: None,
    };
    let closed = match connection.run(&mut stopping).await {
        Ok(closed) | Err(closed) => closed,
    };
    match closed {
        Closed::ByClient | Closed::Io(_) | Closed::Send(_) => {}
        _ => connection.linger().await,
    }
    closed
}

struct Connection {
    stream: TcpStream,
    node: Arc<Node>,
    client: Arc<Client>,
    budget: Budget,
    input: BytesMut,
    max_frame: usize,
    /// Waits for leave to read a large frame.
    reserving: Option<Pin<Box<dyn Future<Output = Option<Reserved>> + Send>>>,
    /// Leave to read the large frame at the head of the input.
    reserved: Option<Reserved>,
    /// The client sends no more.
    eof: bool,
    /// Nothing more is taken from this client, for this reason; what was asked before is answered.
    refused: Option<Closed>,
    waiting: FuturesOrdered<Answering>,
    /// A request that is not pipelined is waiting: nothing behind it may start.
    hold: bool,
    output: VecDeque<Part>,
    output_bytes: usize,
    max_idle: Option<Duration>,
    /// Set when the broker begins to stop.
    stop_by: Option<Instant>,
}

impl Connection {
    /// `Ok` and `Err` both say why it ended; `Err` at once, `Ok` after all that could be answered.
    async fn run(&mut self, stopping: &mut watch::Receiver<bool>) -> Result<Closed, Closed> {
        loop {
            self.take_frames(stopping).await?;
            self.flush_output(stopping).await?;
            if self.waiting.is_empty() {
                if let Some(why) = self.refused.take() {
                    return Ok(why);
                }
                if self.eof {
                    return Ok(Closed::ByClient);
                }
                if *stopping.borrow() {
                    return Ok(Closed::Stopping);
                }
            }
            // An idle connection keeps no buffer.
            if self.input.is_empty() {
                self.input = BytesMut::new();
            }
            self.ask_for_budget();
            let may_read = self.may_read();
            let (patience, too_long) = self.patience();
            tokio::select! {
                biased;
                Some(reply) = self.waiting.next(), if !self.waiting.is_empty() => {
                    self.take_reply(reply);
                    self.take_ready_replies().await;
                }
                reserved = wait_for_budget(&mut self.reserving), if self.reserving.is_some() => {
                    self.reserving = None;
                    self.reserved = reserved;
                }
                ready = self.stream.readable(), if may_read => {
                    ready?;
                    self.read_some()?;
                }
                () = until_stopping(stopping) => return self.drain(stopping).await,
                () = sleep_for(patience), if patience.is_some() => return Err(too_long),
            }
        }
    }

    /// How long nothing at all may happen, and what it means when it does.
    fn patience(&self) -> (Option<Duration>, Closed) {
        if self.eof {
            return (Some(HALF_CLOSED_GRACE), Closed::ByClient);
        }
        if !self.waiting.is_empty() {
            return (None, Closed::Idle);
        }
        let idle = self.max_idle.unwrap_or(Duration::MAX);
        if self.reserved.is_some() && STALL_TIMEOUT < idle {
            return (Some(STALL_TIMEOUT), Closed::Stalled);
        }
        (self.max_idle, Closed::Idle)
    }

    /// Lets requests in flight finish, bounded in time.
    async fn drain(&mut self, stopping: &mut watch::Receiver<bool>) -> Result<Closed, Closed> {
        let deadline = *self
            .stop_by
            .get_or_insert_with(|| Instant::now() + DRAIN_TIMEOUT);
        while !self.waiting.is_empty() {
            match tokio::time::timeout_at(deadline, self.waiting.next()).await {
                Ok(Some(reply)) => self.take_reply(reply),
                Ok(None) | Err(_) => break,
            }
            self.take_ready_replies().await;
            self.flush_output(stopping).await?;
        }
        self.flush_output(stopping).await?;
        Ok(Closed::Stopping)
    }

    /// Closing a socket that holds unread bytes resets the connection, and answers that are still
    /// on their way may be lost with it: says that nothing more comes, and reads them away.
    async fn linger(mut self) {
        if !rustix::io::ioctl_fionread(&self.stream).is_ok_and(|unread| unread > 0) {
            return;
        }
        let reading = async {
            self.stream.shutdown().await?;
            // On the heap: idle connections would carry it in their task.
            let mut away = vec![0; FIRST_READ_BYTES];
            loop {
                self.stream.readable().await?;
                match self.stream.try_read(&mut away) {
                    Ok(0) => return Ok::<(), io::Error>(()),
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            }
        };
        // However that ends, the connection is over.
        let _ = tokio::time::timeout(LINGER_TIMEOUT, reading).await;
    }

    fn may_start(&self) -> bool {
        !self.hold && self.refused.is_none() && self.waiting.len() < MAX_IN_FLIGHT
    }

    fn may_read(&self) -> bool {
        !self.eof
            && self.refused.is_none()
            && self.reserving.is_none()
            && (self.may_start() || self.input.len() < READ_AHEAD_BYTES)
    }

    /// A large frame is read on only with leave, for the whole of it.
    fn ask_for_budget(&mut self) {
        let Ok(Some(len)) = self.frame_len() else {
            return;
        };
        let wanted = self.may_start()
            && self.reserved.is_none()
            && self.reserving.is_none()
            && len > FREE_FRAME_BYTES
            && self.input.len() >= FREE_FRAME_BYTES;
        if wanted {
            self.reserved = self.budget.try_reserve(len);
            if self.reserved.is_none() {
                self.reserving = Some(Box::pin(self.budget.clone().reserve(len)));
            }
        }
    }

    /// Reads what the socket holds.
    fn read_some(&mut self) -> Result<(), Closed> {
        let missing = match self.frame_len() {
            Ok(Some(len)) => (4 + len).saturating_sub(self.input.len()),
            _ => 0,
        };
        let mut want = missing.max(FIRST_READ_BYTES);
        if want > FIRST_READ_BYTES {
            // Memory for what has arrived, not for what is claimed.
            let arrived = rustix::io::ioctl_fionread(&self.stream).unwrap_or(0) as usize;
            want = want.min(arrived.max(self.input.len()).max(FIRST_READ_BYTES));
            if self.reserved.is_none() {
                want = want.min(FREE_FRAME_BYTES);
            }
        }
        self.input.reserve(want);
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => self.eof = true,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e.into()),
        }
        Ok(())
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

    /// Takes no more from this client.
    fn refuse(&mut self, why: Closed) {
        self.input = BytesMut::new();
        self.reserved = None;
        self.refused = Some(why);
    }

    /// Starts every request that is complete.
    async fn take_frames(&mut self, stopping: &mut watch::Receiver<bool>) -> Result<(), Closed> {
        while self.may_start() {
            let len = match self.frame_len() {
                Ok(Some(len)) if self.input.len() >= 4 + len => len,
                Ok(_) => return Ok(()),
                Err(why) => {
                    self.refuse(why);
                    return Ok(());
                }
            };
            self.input.advance(4);
            let frame = self.input.split_to(len).freeze();
            self.start(frame).await;
            if self.output_bytes >= WRITE_BATCH_BYTES {
                self.flush_output(stopping).await?;
            }
        }
        Ok(())
    }

    async fn start(&mut self, frame: Bytes) {
        let reserved = self.reserved.take();
        let started = match api::dispatch(&self.node, &self.client, frame) {
            Ok(started) => started,
            Err(why) => return self.refuse(Closed::BadRequest(why)),
        };
        let mut answering = started.answering;
        if reserved.is_some() {
            answering = Box::pin(async move {
                let reply = answering.await;
                drop(reserved);
                reply
            });
        }
        // The first poll runs the handler up to its first wait: what it appends is appended in
        // the order of the requests.
        match poll_fn(|cx| Poll::Ready(answering.as_mut().poll(cx))).await {
            Poll::Ready(reply) if self.waiting.is_empty() => self.take_reply(reply),
            Poll::Ready(reply) => {
                self.waiting.push_back(Box::pin(std::future::ready(reply)));
                self.hold |= !started.pipelined;
            }
            Poll::Pending => {
                self.waiting.push_back(answering);
                self.hold |= !started.pipelined;
            }
        }
    }

    /// Takes the replies that are ready behind the first one, so that they leave in one write.
    async fn take_ready_replies(&mut self) {
        while !self.waiting.is_empty() && self.output_bytes < WRITE_BATCH_BYTES {
            let next = poll_fn(|cx| Poll::Ready(self.waiting.poll_next_unpin(cx))).await;
            match next {
                Poll::Ready(Some(reply)) => self.take_reply(reply),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
    }

    fn take_reply(&mut self, reply: Reply) {
        if self.waiting.is_empty() {
            self.hold = false;
        }
        match reply {
            Reply::Nothing => {}
            Reply::Close(why) => {
                // What is behind it can no longer be told apart by the client.
                self.waiting = FuturesOrdered::new();
                self.refuse(Closed::BadRequest(why));
            }
            Reply::Parts(parts) => {
                for part in parts {
                    self.output_bytes += part.len();
                    self.output.push_back(part);
                }
            }
        }
    }

    /// Sends what is ready. A client that takes nothing ends by its idle time, or soon when the
    /// broker stops.
    async fn flush_output(&mut self, stopping: &mut watch::Receiver<bool>) -> Result<(), Closed> {
        if self.output.is_empty() {
            return Ok(());
        }
        self.output_bytes = 0;
        let stop_by = &mut self.stop_by;
        let stopped = async {
            until_stopping(stopping).await;
            let by = *stop_by.get_or_insert_with(|| Instant::now() + DRAIN_TIMEOUT);
            tokio::time::sleep_until(by).await;
        };
        tokio::select! {
            biased;
            sent = write_parts(&self.stream, &mut self.output, self.max_idle) => Ok(sent?),
            () = stopped => Err(Closed::Stopping),
        }
    }
}

async fn until_stopping(stopping: &mut watch::Receiver<bool>) {
    // The sender lives as long as the node; an error cannot be.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn wait_for_budget(
    reserving: &mut Option<Pin<Box<dyn Future<Output = Option<Reserved>> + Send>>>,
) -> Option<Reserved> {
    match reserving {
        Some(reserving) => reserving.await,
        None => pending().await,
    }
}

async fn sleep_for(patience: Option<Duration>) {
    match patience {
        Some(patience) => tokio::time::sleep(patience).await,
        None => pending().await,
    }
}
