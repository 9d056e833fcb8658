//! Listens, accepts, keeps connections within their limits and ends them. Knows sockets and the
//! connection loop, nothing of the protocol.

mod limits;
mod log_limit;

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::config::{BrokerConfig, Listener, host_port};
use crate::connection::{self, Budget, Closed};
use crate::node::{Bound, Node};
use limits::{Limits, Place};
use log_limit::LogLimit;

/// Pause after accept failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Log lines of one kind that strangers can cause.
const LINES_PER_MINUTE: u32 = 10;
/// Connections that may wait to be accepted.
const DEFAULT_BACKLOG: u32 = 4096;

/// An open listener.
pub type Door = (Listener, Arc<TcpListener>);

/// Why the broker cannot listen, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "{0} is in use: another broker or program listens there; stop it, or choose another port with --listen HOST:PORT"
    )]
    InUse(String),
    #[error(
        "{0} is not an address of this machine: listen on 0.0.0.0 and name the public address with --advertise"
    )]
    NotLocal(String),
    #[error("{0} may not be opened by this user: choose a port above 1023")]
    Denied(String),
    #[error(
        "listeners names {0}, which does not resolve to an address: write it as PLAINTEXT://HOST:PORT with a host of this machine"
    )]
    Resolve(String),
    #[error("cannot listen on {0}: {1}")]
    Other(String, io::Error),
}

/// Opens every listener.
pub async fn bind(config: &BrokerConfig) -> Result<Vec<Door>, ListenError> {
    let mut open = Vec::new();
    for listener in config.listeners.iter() {
        open.push((
            listener.clone(),
            Arc::new(bind_one(listener, config).await?),
        ));
    }
    Ok(open)
}

async fn bind_one(listener: &Listener, config: &BrokerConfig) -> Result<TcpListener, ListenError> {
    let host = if listener.host.is_empty() {
        "0.0.0.0"
    } else {
        &listener.host
    };
    let shown = host_port(host, listener.port);
    let mut addrs: Vec<SocketAddr> = tokio::net::lookup_host((host, listener.port))
        .await
        .map_err(|_| ListenError::Resolve(shown.clone()))?
        .collect();
    // A name with both kinds of address (localhost) means the IPv4 one, as for Kafka: that is
    // where clients of either kind look.
    addrs.sort_by_key(SocketAddr::is_ipv6);
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for addr in addrs {
        match listen(addr, backlog(config)) {
            Ok(open) => return Ok(open),
            Err(error) => last = error,
        }
    }
    Err(match last.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse(shown),
        io::ErrorKind::AddrNotAvailable => ListenError::NotLocal(shown),
        io::ErrorKind::PermissionDenied => ListenError::Denied(shown),
        _ => ListenError::Other(shown, last),
    })
}

/// Kafka's 50, where nobody has asked for it, is so few that a burst of clients sees connects that
/// take seconds. The kernel has its own bound (`net.core.somaxconn`).
fn backlog(config: &BrokerConfig) -> u32 {
    let given = config.socket_listen_backlog_size;
    let chosen = config.explicit.contains("socket.listen.backlog.size")
        || given != BrokerConfig::default().socket_listen_backlog_size;
    if chosen {
        given.max(1) as u32
    } else {
        DEFAULT_BACKLOG
    }
}

fn listen(addr: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restart finds its port again although old connections linger.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(backlog)
}

/// The addresses for [`Node::set_bound`].
pub fn bound(open: &[Door]) -> io::Result<Vec<Bound>> {
    open.iter()
        .map(|(listener, socket)| {
            Ok(Bound {
                listener: listener.clone(),
                addr: socket.local_addr()?,
            })
        })
        .collect()
}

/// Stops listening at once, whoever still holds the sockets: the ports are free on return.
pub fn close(open: &[Door]) {
    for (_, socket) in open {
        if let Err(error) = rustix::net::shutdown(socket, rustix::net::Shutdown::Both) {
            tracing::debug!(%error, "closing a listener");
        }
    }
}

/// What the connections of a broker share.
struct Shared {
    node: Arc<Node>,
    limits: Arc<Limits>,
    budget: Budget,
    refused: LogLimit,
    bad: LogLimit,
    unreadable: LogLimit,
    failed: LogLimit,
}

/// Serves until the node stops, then lets connections finish what they have begun. `keep` is
/// dropped when no connection is left, also when serving is aborted.
pub async fn serve(node: Arc<Node>, open: Vec<Door>, keep: Arc<dyn Any + Send + Sync>) {
    let config = node.config();
    let largest = config.socket_request_max_bytes.max(0) as usize;
    let shared = Arc::new(Shared {
        limits: Arc::new(Limits::new(config, keep)),
        budget: Budget::new(config.queued_max_request_bytes, largest),
        refused: LogLimit::new(LINES_PER_MINUTE),
        bad: LogLimit::new(LINES_PER_MINUTE),
        unreadable: LogLimit::new(LINES_PER_MINUTE),
        failed: LogLimit::new(1),
        node,
    });
    let mut accepting = JoinSet::new();
    for (_, socket) in open {
        accepting.spawn(accept_loop(socket, Arc::clone(&shared)));
    }
    while accepting.join_next().await.is_some() {}
}

async fn accept_loop(socket: Arc<TcpListener>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            // Not a change but the state: the stop may have come before this task first ran.
            () = shared.node.stopping() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => {
                    if let Some(place) = shared.admit(peer) {
                        connections.spawn(one_connection(stream, peer, Arc::clone(&shared), place));
                    }
                }
                Err(error) => shared.not_accepted(&error).await,
            }
        }
    }
    drop(socket);
    // Each connection ends by itself within its own bound.
    while connections.join_next().await.is_some() {}
}

impl Shared {
    fn admit(&self, peer: SocketAddr) -> Option<Place> {
        let place = self.limits.admit(peer.ip());
        if place.is_none()
            && let Some(not_logged) = self.refused.admit(Instant::now())
        {
            tracing::warn!(%peer, not_logged, "connection refused: max.connections, \
                max.connections.per.ip or the limit of open files (ulimit -n) is reached");
        }
        place
    }

    async fn not_accepted(&self, error: &io::Error) {
        let exhausted = [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOBUFS,
            Errno::NOMEM,
            Errno::INVAL,
        ];
        if !Errno::from_io_error(error).is_some_and(|e| exhausted.contains(&e)) {
            // The client left before it was accepted.
            tracing::debug!(%error, "accepting a connection");
            return;
        }
        if let Some(not_logged) = self.failed.admit(Instant::now()) {
            tracing::error!(%error, not_logged, "accepting connections fails; is the limit of open files (ulimit -n) too low?");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    fn closed(&self, peer: SocketAddr, why: &Closed) {
        let now = Instant::now();
        match why {
            Closed::ByClient | Closed::Stopping | Closed::Idle => {}
            Closed::Send(connection::SendError::Segment(_)) => {
                if let Some(not_logged) = self.unreadable.admit(now) {
                    tracing::error!(%peer, not_logged, reason = %why, "connection closed");
                }
            }
            Closed::Io(_) | Closed::Send(_) => {
                tracing::debug!(%peer, error = %why, "connection ended")
            }
            Closed::FrameSize { .. } | Closed::BadRequest(_) | Closed::Stalled => {
                if let Some(not_logged) = self.bad.admit(now) {
                    tracing::warn!(%peer, not_logged, reason = %why, "connection closed");
                }
            }
        }
    }
}

async fn one_connection(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>, _place: Place) {
    // Answers are small and waited for; a client whose machine is gone is noticed some day.
    let set = stream
        .set_nodelay(true)
        .and_then(|()| Ok(rustix::net::sockopt::set_socket_keepalive(&stream, true)?));
    if let Err(error) = set {
        tracing::debug!(%peer, %error, "TCP_NODELAY, SO_KEEPALIVE");
    }
    let stopping = shared.node.subscribe_stopping();
    let (node, budget) = (Arc::clone(&shared.node), shared.budget.clone());
    let why = connection::serve(stream, peer, node, budget, stopping).await;
    shared.closed(peer, &why);
}
