//! A small async Kafka client: connections, metadata, an idempotent producer and a group consumer.
//! Used by `producer`, `consumer` and the command line tools; works against Apache Kafka as well.
//! Knows the protocol and this crate's batches; nothing of the broker's inside.

mod connection;
mod error;
#[cfg(test)]
mod fake;
mod metadata;
mod offsets;
mod pool;

pub mod group;
pub mod producer;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kafka_protocol::messages::{
    FindCoordinatorRequest, MetadataRequest, TopicName, metadata_request::MetadataRequestTopic,
};
use kafka_protocol::protocol::{Request, StrBytes};
use tokio::time::Instant;

use connection::Connection;
use pool::{Backoff, Lane, Pool};

pub use error::{ClientError, Result, codes, error_name, is_retriable_code};
pub use metadata::{BrokerInfo, Cluster, PartitionMeta, TopicMeta};

/// How to reach the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Addresses `host:port` to ask first.
    pub bootstrap: Vec<String>,
    /// Name under which the broker logs this client.
    pub client_id: String,
    /// How long connecting to one address may take.
    pub connect_timeout: Duration,
    /// How long to wait for one answer, and how long look-ups are retried.
    pub request_timeout: Duration,
    /// First pause before trying again; doubles with each failure.
    pub retry_backoff: Duration,
    /// Longest pause before trying again.
    pub retry_backoff_max: Duration,
    /// Largest answer accepted.
    pub max_frame_bytes: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        ClientConfig {
            bootstrap: vec!["127.0.0.1:9092".to_owned()],
            client_id: "mini-broker-client".to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            max_frame_bytes: 104_857_600,
        }
    }
}

impl ClientConfig {
    /// Defaults with these bootstrap addresses, separated by commas.
    pub fn new(bootstrap_csv: &str) -> Self {
        let bootstrap = bootstrap_csv
            .split(',')
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
            .collect();
        ClientConfig {
            bootstrap,
            ..ClientConfig::default()
        }
    }
}

/// A handle to the cluster; clones share connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    cfg: ClientConfig,
    pool: Pool,
    /// Addresses by node id, as the last answer told them.
    nodes: Mutex<HashMap<i32, String>>,
}

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Any,
    Node(i32),
}

impl Client {
    /// Connects to the first bootstrap address that answers.
    pub async fn connect(cfg: ClientConfig) -> Result<Client> {
        if cfg.bootstrap.is_empty() {
            return Err(ClientError::invalid(
                "no bootstrap address given; name one as host:port",
            ));
        }
        for addr in &cfg.bootstrap {
            let port = addr.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) {
                return Err(ClientError::invalid(format!(
                    "bootstrap address '{addr}' is not of the form host:port"
                )));
            }
        }
        let pool = Pool::new(cfg.clone());
        let client = Client {
            inner: Arc::new(Inner {
                cfg,
                pool,
                nodes: Mutex::default(),
            }),
        };
        client.any(Lane::Main).await?;
        Ok(client)
    }

    /// The configuration this client was made with.
    pub fn config(&self) -> &ClientConfig {
        &self.inner.cfg
    }

    /// Sends a request to any broker, in the newest version both sides speak.
    pub async fn request_any<R: Request>(&self, req: R) -> Result<R::Response> {
        self.send(
            To::Any,
            Lane::Main,
            i16::MAX,
            self.inner.cfg.request_timeout,
            |_| req,
        )
        .await
    }

    /// Sends a request to one broker, in the newest version both sides speak.
    pub async fn request_to<R: Request>(&self, node_id: i32, req: R) -> Result<R::Response> {
        self.send(
            To::Node(node_id),
            Lane::Main,
            i16::MAX,
            self.inner.cfg.request_timeout,
            |_| req,
        )
        .await
    }

    /// Sends a request that looks different in different versions: `make` is told the version,
    /// which is the newest both sides speak but at most `max_version`. To any broker for `None`.
    pub async fn request_with<R: Request>(
        &self,
        node_id: Option<i32>,
        max_version: i16,
        make: impl FnOnce(i16) -> R,
    ) -> Result<R::Response> {
        let to = node_id.map_or(To::Any, To::Node);
        self.send(
            to,
            Lane::Main,
            max_version,
            self.inner.cfg.request_timeout,
            make,
        )
        .await
    }

    /// Brokers, controller and topics (all topics for `None`). A topic that does not exist is
    /// there with its error set. Retried until the request timeout.
    pub async fn metadata(
        &self,
        topics: Option<&[String]>,
        allow_auto_create: bool,
    ) -> Result<Cluster> {
        self.retrying(|| self.metadata_once(topics, allow_auto_create))
            .await
    }

    pub(crate) async fn metadata_once(
        &self,
        topics: Option<&[String]>,
        allow_auto_create: bool,
    ) -> Result<Cluster> {
        let make = |version| {
            let named = |t: &String| MetadataRequestTopic::default().with_name(Some(topic_name(t)));
            let req = MetadataRequest::default()
                .with_topics(topics.map(|t| t.iter().map(named).collect()));
            // Before version 4 the broker decides; the encoder refuses anything but the default.
            if version >= 4 {
                req.with_allow_auto_topic_creation(allow_auto_create)
            } else {
                req
            }
        };
        let answer = self
            .send(
                To::Any,
                Lane::Main,
                i16::MAX,
                self.inner.cfg.request_timeout,
                make,
            )
            .await?;
        ClientError::check(answer.error_code, || "asking for metadata".to_owned())?;
        let cluster = Cluster::from_response(answer);
        self.learn(&cluster);
        Ok(cluster)
    }

    /// Node id of a group's coordinator. Retried until the request timeout.
    pub async fn coordinator(&self, group: &str) -> Result<i32> {
        self.retrying(|| self.coordinator_once(group)).await
    }

    pub(crate) async fn coordinator_once(&self, group: &str) -> Result<i32> {
        // Version 4 on asks for many at once: one is enough here.
        let make =
            |_| FindCoordinatorRequest::default().with_key(StrBytes::from_string(group.to_owned()));
        let answer = self
            .send(To::Any, Lane::Main, 3, self.inner.cfg.request_timeout, make)
            .await?;
        ClientError::check(answer.error_code, || {
            let why = answer.error_message.as_ref().map_or("", |m| m.as_str());
            format!("looking for the coordinator of group '{group}' {why}")
        })?;
        let node = answer.node_id.0;
        self.nodes()
            .insert(node, join_host_port(&answer.host, answer.port));
        Ok(node)
    }

    /// Sends a request on the connection of this lane.
    pub(crate) async fn send<R: Request>(
        &self,
        to: To,
        lane: Lane,
        max_version: i16,
        limit: Duration,
        make: impl FnOnce(i16) -> R,
    ) -> Result<R::Response> {
        let conn = self.connection(to, lane).await?;
        let version = conn.version::<R>(max_version)?;
        conn.call(&make(version), version, limit).await
    }

    pub(crate) async fn connection(&self, to: To, lane: Lane) -> Result<Arc<Connection>> {
        let To::Node(node) = to else {
            return self.any(lane).await;
        };
        let known = self.nodes().get(&node).cloned();
        let addr = match known {
            Some(addr) => addr,
            None => {
                // Boxed, because metadata in turn asks for a connection.
                Box::pin(self.metadata_once(Some(&[]), false)).await?;
                let addr = self.nodes().get(&node).cloned();
                addr.ok_or_else(|| ClientError::Broker {
                    code: codes::LEADER_NOT_AVAILABLE,
                    context: format!("node {node} is not in the cluster's metadata"),
                })?
            }
        };
        self.inner.pool.get(&addr, lane).await
    }

    /// A live connection if there is one, else the first address that can be connected.
    async fn any(&self, lane: Lane) -> Result<Arc<Connection>> {
        let mut addrs: Vec<String> = self.nodes().values().cloned().collect();
        let known: HashSet<String> = addrs.iter().cloned().collect();
        addrs.extend(
            self.inner
                .cfg
                .bootstrap
                .iter()
                .filter(|a| !known.contains(*a))
                .cloned(),
        );
        addrs.sort_by_key(|a| !self.inner.pool.is_up(a, lane));
        let mut tried = Vec::new();
        for addr in &addrs {
            match self.inner.pool.get(addr, lane).await {
                Ok(conn) => return Ok(conn),
                Err(
                    e @ (ClientError::Connection { .. }
                    | ClientError::Timeout { .. }
                    | ClientError::Protocol { .. }),
                ) => {
                    tried.push(e.to_string());
                }
                Err(e) => return Err(e),
            }
        }
        Err(ClientError::NoBrokers {
            tried: tried.join("; "),
        })
    }

    /// Tries again after errors that may pass, until the request timeout.
    pub(crate) async fn retrying<T, F: Future<Output = Result<T>>>(
        &self,
        mut f: impl FnMut() -> F,
    ) -> Result<T> {
        let deadline = Instant::now() + self.inner.cfg.request_timeout;
        let mut backoff = Backoff::new(&self.inner.cfg);
        loop {
            let error = match f().await {
                Err(e) if e.is_retriable() => e,
                done => return done,
            };
            let again = Instant::now() + backoff.next();
            if again >= deadline {
                return Err(error);
            }
            tracing::debug!(%error, "trying again");
            tokio::time::sleep_until(again).await;
        }
    }

    pub(crate) fn reconnects(&self) -> u64 {
        self.inner.pool.reconnects()
    }

    fn learn(&self, cluster: &Cluster) {
        let nodes: HashMap<i32, String> = cluster
            .brokers
            .values()
            .map(|b| (b.node_id, join_host_port(&b.host, b.port)))
            .collect();
        if nodes.is_empty() {
            return;
        }
        let mut addrs: HashSet<String> = nodes.values().cloned().collect();
        addrs.extend(self.inner.cfg.bootstrap.iter().cloned());
        *self.nodes() = nodes;
        self.inner.pool.retain(&addrs);
    }

    fn nodes(&self) -> std::sync::MutexGuard<'_, HashMap<i32, String>> {
        self.inner
            .nodes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn join_host_port(host: &str, port: i32) -> String {
    // An IPv6 address needs its brackets.
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
