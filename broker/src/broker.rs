//! Starting and stopping a broker: data directory, catalogue, logs, coordinator, listeners, and
//! the few tasks that run by the clock.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::clock::wall_ms;
use crate::config::{BrokerConfig, Listeners, host_port};
use crate::coordinator::{CoordinatorError, GroupCoordinator};
use crate::data_dir::{DataDir, DataDirError};
use crate::log::{Fs, RealFs};
use crate::meta::{Meta, MetaError};
use crate::node::Node;
use crate::server::{self, ListenError};
use crate::topics::{Checkpoints, Topics, TopicsError};

/// How often the checkpoints are written (`log.flush.offset.checkpoint.interval.ms`).
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);

/// Why a broker did not start; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error(transparent)]
    Topics(#[from] TopicsError),
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
    #[error("the data directory cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("starting was interrupted")]
    Interrupted,
}

/// A running broker. Dropping it without [`Broker::shutdown`] stops serving as a crash would: the
/// next start recovers.
pub struct Broker {
    node: Arc<Node>,
    fs: Arc<dyn Fs>,
    tasks: Tasks,
    held: DataDir,
}

/// What runs for a broker; dropping it ends it.
struct Tasks {
    serving: JoinHandle<()>,
    clockwork: JoinHandle<()>,
    groups: Arc<GroupCoordinator>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.serving.abort();
        self.clockwork.abort();
        self.groups.stop();
    }
}

impl Broker {
    /// Opens the data directory, listens, and serves.
    pub async fn start(config: BrokerConfig) -> Result<Broker, StartError> {
        let config = Arc::new(config);
        // A port that cannot be had is the commonest mistake: said before anything is written.
        let listening = server::bind(&config).await?;
        let held = DataDir::hold(&config.data_dir)?;
        let fs: Arc<dyn Fs> = Arc::new(RealFs);
        let opening = tokio::task::spawn_blocking({
            let (fs, config) = (Arc::clone(&fs), Arc::clone(&config));
            move || open(fs, config)
        });
        let node = Arc::new(opening.await.map_err(|_| StartError::Interrupted)??);
        node.set_bound(server::bound(&listening)?);
        node.groups().run_timers();
        let tasks = Tasks {
            serving: tokio::spawn(server::serve(Arc::clone(&node), listening)),
            clockwork: tokio::spawn(run_clockwork(Arc::clone(&node))),
            groups: Arc::clone(node.groups()),
        };
        Ok(Broker {
            node,
            fs,
            tasks,
            held,
        })
    }

    /// Where clients can reach this broker from this machine, as `host:port[,host:port]`.
    pub fn bootstrap_servers(&self) -> String {
        let all = self.node.bound().iter().map(|bound| {
            let (host, port) = self.node.advertised(local_view(bound.addr));
            host_port(&host, port)
        });
        all.collect::<Vec<_>>().join(",")
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> &str {
        self.node.cluster_id()
    }

    /// Finishes what is in flight, brings everything to disk and marks the shutdown clean.
    pub async fn shutdown(self) {
        let Broker {
            node,
            fs,
            mut tasks,
            held,
        } = self;
        node.begin_stopping();
        // Members that wait for others would wait for long: they are told to look elsewhere.
        node.groups().stop();
        if (&mut tasks.serving).await.is_err() {
            tracing::error!("the server ended by a panic");
        }
        tasks.clockwork.abort();
        let _ = (&mut tasks.clockwork).await;
        let closing = tokio::task::spawn_blocking(move || {
            node.groups().save_index();
            let clean = node.topics().close();
            node.close_meta();
            if clean && let Err(error) = Checkpoints::mark_clean(&*fs, &node.config().data_dir) {
                tracing::warn!(%error, "the clean shutdown could not be marked; the next start looks at the logs");
            }
            // The directory is free only when all of it is written.
            drop(held);
        });
        if closing.await.is_err() {
            tracing::error!("closing the logs ended by a panic");
        }
    }
}

/// The address under which a client on this machine would reach a listener.
fn local_view(mut addr: std::net::SocketAddr) -> std::net::SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr.ip() {
            IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    addr
}

/// The blocking part of a start.
fn open(fs: Arc<dyn Fs>, config: Arc<BrokerConfig>) -> Result<Node, StartError> {
    let now_ms = wall_ms();
    let checkpoints = Checkpoints::take(&*fs, &config.data_dir)?;
    let (meta, said) = Meta::open(Arc::clone(&fs), &config.data_dir, config.node_id, now_ms)?;
    for line in said {
        tracing::warn!("{line}");
    }
    let meta = Arc::new(meta);
    let topics = Arc::new(Topics::open(
        fs,
        Arc::clone(&config),
        Arc::clone(&meta),
        &checkpoints,
        now_ms,
    )?);
    let groups = Arc::new(GroupCoordinator::open(
        &config,
        Arc::clone(&topics),
        Arc::clone(&meta),
    )?);
    Ok(Node::new(config, meta, topics, groups))
}

/// Retention and checkpoints.
async fn run_clockwork(node: Arc<Node>) {
    let every = |ms: i64| Duration::from_millis(ms.max(1) as u64);
    let mut retention = tokio::time::interval(every(node.config().log_retention_check_interval_ms));
    let mut checkpoint = tokio::time::interval(CHECKPOINT_INTERVAL);
    checkpoint.tick().await;
    loop {
        tokio::select! {
            _ = retention.tick() => blocking(&node, |node| node.topics().retain(wall_ms())).await,
            _ = checkpoint.tick() => blocking(&node, |node| {
                node.topics().checkpoint();
                node.groups().save_index();
            }).await,
        }
    }
}

async fn blocking(node: &Arc<Node>, work: impl FnOnce(&Node) + Send + 'static) {
    let node = Arc::clone(node);
    if tokio::task::spawn_blocking(move || work(&node))
        .await
        .is_err()
    {
        tracing::error!("work by the clock ended by a panic");
    }
}

/// What to tell people about the addresses, once, at the start.
pub fn start_lines(broker: &Broker, listeners: &Listeners) -> Vec<String> {
    let mut lines = vec![format!(
        "clients use this bootstrap server: {}",
        broker.bootstrap_servers()
    )];
    let config = broker.node.config();
    let wildcard = listeners.iter().any(|l| l.is_wildcard());
    if !wildcard {
        return lines;
    }
    lines.push(
        "WARNING: listening on all interfaces, and nothing protects this broker: whoever reaches \
         the port can read and write everything. Allow only your own address in the firewall or \
         security group, or listen on one address with --listen"
            .into(),
    );
    if config.advertised_listeners.is_auto() {
        lines.push(
            "clients are told the address they reached this machine at; behind a NAT (on EC2, from \
             outside) that is the private one: then start with --advertise PUBLIC-NAME-OR-IP"
                .into(),
        );
    } else if let Some(private) = private_advertised(config) {
        lines.push(format!(
            "WARNING: clients are told {private}, which is a loopback or private address: from \
             elsewhere they will connect and then time out. Name the public address with --advertise"
        ));
    }
    lines
}

fn private_advertised(config: &BrokerConfig) -> Option<String> {
    config
        .advertised_listeners
        .0
        .iter()
        .map(|a| a.host.clone())
        .find(|host| {
            host == "localhost"
                || host.parse::<IpAddr>().is_ok_and(|ip| match ip {
                    IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
                    IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
                })
        })
}
