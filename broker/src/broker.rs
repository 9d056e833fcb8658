//! Starting and stopping a broker: data directory, catalogue, logs, coordinator, listeners, and
//! the few tasks that run by the clock.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::clock::wall_ms;
use crate::config::{Advertised, BrokerConfig, Listeners, host_port};
use crate::coordinator::{CoordinatorError, GroupCoordinator};
use crate::data_dir::{DataDir, DataDirError};
use crate::log::{Fs, RealFs};
use crate::meta::{Meta, MetaError};
use crate::node::Node;
use crate::server::{self, Door, ListenError};
use crate::topics::{Checkpoints, Topics, TopicsError};

/// How often the checkpoints are written (`log.flush.offset.checkpoint.interval.ms`).
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);

/// How long a data directory in use is asked for again, and how often.
const HOLD_PATIENCE: Duration = Duration::from_secs(1);
const HOLD_RETRY: Duration = Duration::from_millis(10);

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
    held: Arc<DataDir>,
}

/// What runs for a broker; dropping it ends it.
struct Tasks {
    doors: Vec<Door>,
    serving: JoinHandle<()>,
    clockwork: JoinHandle<()>,
    groups: Arc<GroupCoordinator>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.serving.abort();
        self.clockwork.abort();
        self.groups.stop();
        // Aborted tasks end a little later; the ports are free now.
        server::close(&self.doors);
    }
}

impl Broker {
    /// Opens the data directory, listens, and serves.
    pub async fn start(config: BrokerConfig) -> Result<Broker, StartError> {
        let config = Arc::new(config);
        // A port that cannot be had is the commonest mistake: said before anything is written.
        let doors = server::bind(&config).await?;
        let held = hold_soon(&config).await?;
        let fs: Arc<dyn Fs> = Arc::new(RealFs);
        let opening = tokio::task::spawn_blocking({
            let (fs, config) = (Arc::clone(&fs), Arc::clone(&config));
            // The directory stays held while it is opened, also when nobody waits any more.
            move || open(fs, config).map(|node| (node, Arc::new(held)))
        });
        let (node, held) = opening.await.map_err(|_| StartError::Interrupted)??;
        let node = Arc::new(node);
        node.set_bound(server::bound(&doors)?);
        node.groups().run_timers();
        let serving = server::serve(Arc::clone(&node), doors.clone(), Arc::clone(&held) as _);
        let tasks = Tasks {
            doors,
            serving: tokio::spawn(serving),
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
        server::close(&tasks.doors);
        // Members that wait for others would wait for long: they are told to look elsewhere.
        node.groups().stop();
        if (&mut tasks.serving).await.is_err() {
            tracing::error!("the server ended by a panic");
        }
        // Its work in hand ends before the logs close.
        if (&mut tasks.clockwork).await.is_err() {
            tracing::error!("the clockwork ended by a panic");
        }
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

/// Takes the data directory. One that is just being given up is waited for: by a process that
/// ends, or by the last connections of a broker that was dropped.
async fn hold_soon(config: &BrokerConfig) -> Result<DataDir, DataDirError> {
    let patience = tokio::time::Instant::now() + HOLD_PATIENCE;
    loop {
        match DataDir::hold(&config.data_dir) {
            Err(DataDirError::InUse(_)) if tokio::time::Instant::now() < patience => {
                tokio::time::sleep(HOLD_RETRY).await;
            }
            held => return held,
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
            () = node.stopping() => return,
            _ = retention.tick() => blocking(&node, |node| node.topics().retain(wall_ms())).await,
            _ = checkpoint.tick() => blocking(&node, |node| {
                node.groups().compact();
                node.topics().checkpoint();
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

/// What to tell people at the start, once: where clients connect, where the data is, and what
/// will not work as they may think. A warning begins with `WARNING: `.
pub fn start_lines(broker: &Broker, listeners: &Listeners) -> Vec<String> {
    let config = broker.node.config();
    let ports: Vec<u16> = broker.node.bound().iter().map(|b| b.addr.port()).collect();
    let mut lines = address_lines(
        &broker.bootstrap_servers(),
        listeners,
        &ports,
        &config.advertised_listeners,
        own_address(),
    );
    let dir = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    lines.insert(1, format!("the data is in {}", dir.display()));
    lines
}

fn address_lines(
    bootstrap: &str,
    listeners: &Listeners,
    ports: &[u16],
    advertised: &Advertised,
    own: Option<IpAddr>,
) -> Vec<String> {
    let first = "clients use this bootstrap server:";
    let port = ports.first().copied().unwrap_or_default();
    if !listeners.iter().any(|l| l.is_wildcard()) {
        let mut lines = vec![format!("{first} {bootstrap}")];
        let local_only = listeners.iter().all(|l| is_loopback(&l.host));
        let elsewhere = advertised.0.iter().find(|a| !is_loopback(&a.host));
        if let (true, Some(told)) = (local_only, elsewhere) {
            lines.push(format!(
                "WARNING: clients are told {}, but this broker listens on {} only, which no other \
                 machine reaches. Start with --listen 0.0.0.0:{port} (or set \
                 listeners=PLAINTEXT://:{port} in the file), and let only your own address through \
                 the firewall or security group: nothing else protects the broker",
                told.host,
                listeners.show_text()
            ));
        }
        return lines;
    }
    let open = "WARNING: listening on all interfaces, and nothing protects this broker: whoever reaches \
                the port can read and write everything. Allow only your own address in the firewall or \
                security group, or listen on one address with --listen";
    if !advertised.is_auto() {
        let mut lines = vec![format!("{first} {bootstrap}"), open.into()];
        if let Some(named) = advertised.0.iter().find(|a| is_private(&a.host)) {
            lines.push(format!(
                "WARNING: clients are told {}, which is a loopback or private address: from \
                 elsewhere they will connect and then time out. Name the public address with --advertise",
                named.host
            ));
        }
        return lines;
    }
    let own = own.map(|ip| ip.to_string());
    let beyond = own
        .iter()
        .map(|own| format!(" on this machine, {} from others", host_port(own, port)));
    let beyond: String = beyond.collect();
    let mut lines = vec![format!("{first} {bootstrap}{beyond}"), open.into()];
    if own.as_deref().is_none_or(is_private) {
        lines.push(format!(
            "WARNING: clients are told the address they reached this machine at, here the private {}: \
             right in the same network, but who comes from outside (to EC2's public address, through a \
             NAT) will connect and then time out. For them start with --advertise PUBLIC-NAME-OR-IP",
            own.as_deref().unwrap_or("one")
        ));
    }
    lines
}

/// The address of this machine towards the world. Nothing is sent: connecting a datagram socket
/// only chooses a route.
fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    // An address of RFC 5737, which belongs to nobody.
    socket.connect(("192.0.2.1", 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_private(host: &str) -> bool {
    is_loopback(host)
        || host.parse::<IpAddr>().is_ok_and(|ip| match ip {
            IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said for these settings on a machine with this address.
    fn said(settings: &[(&str, &str)], own: Option<&str>) -> Vec<String> {
        let mut config = BrokerConfig::default();
        for (name, value) in settings {
            config.set(name, value).unwrap();
        }
        let own = own.map(|ip| ip.parse().unwrap());
        let ports = [config.listeners[0].port];
        let advertised = &config.advertised_listeners;
        address_lines("BOOTSTRAP", &config.listeners, &ports, advertised, own)
    }

    #[test]
    fn this_machine_only_needs_no_warning() {
        let one = ["clients use this bootstrap server: BOOTSTRAP"];
        assert_eq!(said(&[], Some("10.0.0.7")), one);
        let named = ("advertised.listeners", "PLAINTEXT://localhost:9092");
        assert_eq!(said(&[named], Some("10.0.0.7")), one);
        let lan = [
            ("listeners", "10.0.0.7:9092"),
            ("advertised.listeners", "h"),
        ];
        assert_eq!(said(&lan, Some("10.0.0.7")), one);
    }

    #[test]
    fn a_public_name_without_a_door_is_warned_of_with_the_way_out() {
        // The tutorial's edit of Kafka's file: advertised.listeners alone.
        let lines = said(
            &[("advertised.listeners", "PLAINTEXT://3.91.7.20:9092")],
            None,
        );
        assert_eq!(lines.len(), 2, "{lines:?}");
        for part in [
            "WARNING",
            "3.91.7.20",
            "--listen 0.0.0.0:9092",
            "listeners=PLAINTEXT://:9092",
        ] {
            assert!(lines[1].contains(part), "{part} in {lines:?}");
        }
    }

    #[test]
    fn all_interfaces_are_warned_of_and_private_addresses_as_well() {
        let all = ("listeners", "0.0.0.0:9092");
        let lines = said(&[all], Some("172.31.4.5"));
        assert!(
            lines[0].contains("172.31.4.5:9092 from others"),
            "{lines:?}"
        );
        assert!(lines[1].starts_with("WARNING") && lines[2].starts_with("WARNING"));
        assert!(lines[2].contains("--advertise"), "{lines:?}");
        assert_eq!(said(&[all], Some("3.91.7.20")).len(), 2);
        assert_eq!(said(&[all], None).len(), 3);
        let told = |host| said(&[all, ("advertised.listeners", host)], Some("10.0.0.7"));
        assert_eq!(told("3.91.7.20").len(), 2);
        assert!(told("10.0.0.7")[2].contains("10.0.0.7, which is a loopback or private"));
    }
}

#[cfg(test)]
mod serving_tests;
