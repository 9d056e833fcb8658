//! Listens, accepts, keeps connections within their limits and ends them. Knows sockets and the
//! connection loop, nothing of the protocol.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::config::{BrokerConfig, Listener, host_port};
use crate::connection::{self, Closed};
use crate::node::{Bound, Node};

/// Pause after accept failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    #[error("{0}: the host name does not resolve")]
    Resolve(String),
    #[error("cannot listen on {0}: {1}")]
    Other(String, io::Error),
}

/// Opens every listener.
pub async fn bind(config: &BrokerConfig) -> Result<Vec<(Listener, TcpListener)>, ListenError> {
    let mut open = Vec::new();
    for listener in config.listeners.iter() {
        open.push((listener.clone(), bind_one(listener, config).await?));
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
    let addrs: Vec<SocketAddr> = tokio::net::lookup_host((host, listener.port))
        .await
        .map_err(|_| ListenError::Resolve(shown.clone()))?
        .collect();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for addr in addrs {
        match listen(addr, config.socket_listen_backlog_size.max(1) as u32) {
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
pub fn bound(open: &[(Listener, TcpListener)]) -> io::Result<Vec<Bound>> {
    open.iter()
        .map(|(listener, socket)| {
            Ok(Bound {
                listener: listener.clone(),
                addr: socket.local_addr()?,
            })
        })
        .collect()
}

/// Serves until the node stops, then lets connections finish what they have begun.
pub async fn serve(node: Arc<Node>, open: Vec<(Listener, TcpListener)>) {
    let mut accepting = JoinSet::new();
    let limits = Arc::new(Limits::default());
    for (_, socket) in open {
        accepting.spawn(accept_loop(socket, Arc::clone(&node), Arc::clone(&limits)));
    }
    while accepting.join_next().await.is_some() {}
}

async fn accept_loop(socket: TcpListener, node: Arc<Node>, limits: Arc<Limits>) {
    let mut connections = JoinSet::new();
    let mut stopping = node.subscribe_stopping();
    loop {
        tokio::select! {
            biased;
            _ = stopping.changed() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => {
                    let Some(place) = limits.admit(peer.ip(), node.config()) else {
                        tracing::warn!(%peer, "connection refused: max.connections or max.connections.per.ip is reached");
                        continue;
                    };
                    connections.spawn(one_connection(stream, peer, Arc::clone(&node), place));
                }
                Err(error) => {
                    tracing::error!(%error, "accepting a connection failed; is the limit of open files (ulimit -n) too low?");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(socket);
    // Each connection ends by itself within its own bound.
    while connections.join_next().await.is_some() {}
}

async fn one_connection(stream: TcpStream, peer: SocketAddr, node: Arc<Node>, _place: Place) {
    // Answers are small and waited for.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY");
    }
    let stopping = node.subscribe_stopping();
    match connection::serve(stream, peer, node, stopping).await {
        Closed::ByClient | Closed::Stopping | Closed::Idle => {}
        Closed::Io(error) => tracing::debug!(%peer, %error, "connection ended"),
        closed @ (Closed::FrameSize { .. } | Closed::BadRequest(_)) => {
            tracing::warn!(%peer, reason = %closed, "connection closed");
        }
    }
}

/// `max.connections` and `max.connections.per.ip`.
#[derive(Debug, Default)]
struct Limits {
    counts: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

/// A connection's place among the counted; given back when dropped.
struct Place {
    limits: Arc<Limits>,
    ip: IpAddr,
}

impl Limits {
    fn admit(self: &Arc<Self>, ip: IpAddr, config: &BrokerConfig) -> Option<Place> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let from_ip = counts.1.get(&ip).copied().unwrap_or(0);
        if counts.0 >= config.max_connections.max(0) as usize
            || from_ip >= config.max_connections_per_ip.max(0) as usize
        {
            return None;
        }
        counts.0 += 1;
        counts.1.insert(ip, from_ip + 1);
        Some(Place {
            limits: Arc::clone(self),
            ip,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self
            .limits
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        counts.0 = counts.0.saturating_sub(1);
        if let Some(n) = counts.1.get_mut(&self.ip) {
            *n -= 1;
            if *n == 0 {
                counts.1.remove(&self.ip);
            }
        }
    }
}
