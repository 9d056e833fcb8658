//! What the handlers share: settings, catalogue, topics, the group coordinator, fetch sessions.
//! Wires the domains together; holds no logic of its own beyond that.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;

use crate::config::{BrokerConfig, Listener};
use crate::coordinator::GroupCoordinator;
use crate::fetch_session::FetchSessions;
use crate::meta::{Meta, MetaError};
use crate::topics::{Topic, Topics, TopicsError};

/// A listener and the port it really has.
#[derive(Clone, Debug)]
pub struct Bound {
    pub listener: Listener,
    pub addr: SocketAddr,
}

/// The broker's state.
pub struct Node {
    config: Arc<BrokerConfig>,
    meta: Arc<Meta>,
    topics: Arc<Topics>,
    groups: Arc<GroupCoordinator>,
    fetch_sessions: Mutex<FetchSessions>,
    bound: OnceLock<Vec<Bound>>,
    stopping: watch::Sender<bool>,
}

impl Node {
    /// Puts the parts together.
    pub fn new(
        config: Arc<BrokerConfig>,
        meta: Arc<Meta>,
        topics: Arc<Topics>,
        groups: Arc<GroupCoordinator>,
    ) -> Node {
        let slots = config.max_incremental_fetch_session_cache_slots.max(0) as usize;
        Node {
            config,
            meta,
            topics,
            groups,
            fetch_sessions: Mutex::new(FetchSessions::new(slots)),
            bound: OnceLock::new(),
            stopping: watch::channel(false).0,
        }
    }

    /// Settings.
    pub fn config(&self) -> &BrokerConfig {
        &self.config
    }
    /// This broker's number.
    pub fn node_id(&self) -> i32 {
        self.config.node_id
    }
    /// The cluster's id, made at the first start.
    pub fn cluster_id(&self) -> &str {
        self.meta.cluster_id()
    }
    /// The catalogue's features, for ApiVersions.
    pub fn features(&self) -> BTreeMap<String, i16> {
        self.meta.image().features().clone()
    }
    /// The topics.
    pub fn topics(&self) -> &Arc<Topics> {
        &self.topics
    }
    /// The group coordinator.
    pub fn groups(&self) -> &Arc<GroupCoordinator> {
        &self.groups
    }
    /// Fetch sessions; hold the guard briefly.
    pub fn fetch_sessions(&self) -> MutexGuard<'_, FetchSessions> {
        self.fetch_sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
    /// The wall clock.
    pub fn now_ms(&self) -> i64 {
        crate::clock::wall_ms()
    }

    /// Tells where the listeners really are; once, before clients are served.
    pub fn set_bound(&self, bound: Vec<Bound>) {
        let _ = self.bound.set(bound);
    }

    /// Where the listeners are.
    pub fn bound(&self) -> &[Bound] {
        self.bound.get().map_or(&[], Vec::as_slice)
    }

    /// Host and port for a client that reached us at `local`: the advertised address where one is
    /// named, else the address it used itself.
    pub fn advertised(&self, local: SocketAddr) -> (String, u16) {
        let on = self.bound().iter().find(|b| b.addr.port() == local.port());
        let named = on.and_then(|b| {
            let listener = Listener {
                port: b.addr.port(),
                ..b.listener.clone()
            };
            let (host, port) = self.config.advertised_listeners.for_listener(&listener)?;
            Some((host.to_owned(), port))
        });
        named.unwrap_or_else(|| (local.ip().to_canonical().to_string(), local.port()))
    }

    /// A producer id nobody has had.
    pub async fn next_producer_id(&self) -> Result<i64, MetaError> {
        let meta = Arc::clone(&self.meta);
        let allocated = tokio::task::spawn_blocking(move || meta.allocate_producer_ids(1)).await;
        let ids = allocated.map_err(|_| MetaError::Storage("the broker is stopping".into()))??;
        Ok(ids.start)
    }

    /// Deletes a topic, then the offsets committed for it.
    pub async fn delete_topic(&self, topic: &Arc<Topic>) -> Result<(), TopicsError> {
        self.topics.delete(topic).await?;
        self.groups.topic_deleted(topic.name()).await;
        Ok(())
    }

    /// Resolves when the broker begins to stop.
    pub async fn stopping(&self) {
        let mut seen = self.stopping.subscribe();
        // The sender lives as long as the node; an error cannot be.
        let _ = seen.wait_for(|stopping| *stopping).await;
    }

    /// For the connections' loops.
    pub fn subscribe_stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Closes the catalogue (blocking).
    pub fn close_meta(&self) {
        self.meta.close();
    }

    /// Begins to stop: long polls are answered, nothing new is started.
    pub fn begin_stopping(&self) {
        self.stopping.send_replace(true);
    }
}
