//! Kafka's settings that mini-broker does not have: which can be accepted in silence, because one
//! node has nothing they could change, and which a person may be relying on. Names only.

/// How a setting that is not in the table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It changes nothing a user of one node could notice.
    Irrelevant,
    /// It asks for something we do not do, unless it has this value (or is empty).
    Harmless(&'static str),
    /// Kafka does not know it either.
    Unknown,
}

/// Whole groups of settings without effect here: ZooKeeper, controllers, replication, threads,
/// newer group types, metrics; TLS and SASL without a listener that uses them (such a listener is
/// refused).
const IRRELEVANT_PREFIXES: &[&str] = &[
    "alter.log.dirs.replication.quota.",
    "controlled.shutdown.",
    "controller.",
    "delegation.token.",
    "group.consumer.",
    "group.coordinator.",
    "group.share.",
    "group.streams.",
    "inter.broker.",
    "kafka.metrics.",
    "leader.imbalance.",
    "listener.name.",
    "log.cleaner.",
    "log.local.",
    "metadata.",
    "metrics.",
    "password.encoder.",
    "quota.window.",
    "remote.log.manager.",
    "remote.log.metadata.",
    "replica.",
    "replication.quota.",
    "sasl.",
    "share.",
    "socket.connection.setup.",
    "ssl.",
    "telemetry.",
    "zookeeper.",
];

const IRRELEVANT: &[&str] = &[
    "add.partitions.to.txn.retry.backoff.max.ms",
    "add.partitions.to.txn.retry.backoff.ms",
    "auto.leader.rebalance.enable",
    "background.threads",
    "broker.heartbeat.interval.ms",
    "broker.id.generation.enable",
    "broker.session.timeout.ms",
    "connection.failed.authentication.delay.ms",
    "connections.max.reauth.ms",
    "control.plane.listener.name",
    "delete.records.purgatory.purge.interval.requests",
    "early.start.listeners",
    "fetch.purgatory.purge.interval.requests",
    "initial.broker.registration.timeout.ms",
    "log.dir.failure.timeout.ms",
    "log.flush.offset.checkpoint.interval.ms",
    "log.flush.start.offset.checkpoint.interval.ms",
    "log.message.downconversion.enable",
    "log.message.format.version",
    "log.message.timestamp.difference.max.ms",
    "metric.reporters",
    "auto.include.jmx.reporter",
    "num.io.threads",
    "num.network.threads",
    "num.recovery.threads.per.data.dir",
    "num.replica.alter.log.dirs.threads",
    "num.replica.fetchers",
    "offsets.load.buffer.size",
    "offsets.topic.compression.codec",
    "offsets.topic.replication.factor",
    "principal.builder.class",
    "process.roles",
    "producer.purgatory.purge.interval.requests",
    "remote.fetch.max.wait.ms",
    "remote.list.offsets.request.timeout.ms",
    "remote.log.index.file.cache.total.size.bytes",
    "remote.log.reader.max.pending.tasks",
    "remote.log.storage.manager.impl.prefix",
    "remote.log.reader.threads",
    "request.timeout.ms",
    "reserved.broker.max.id",
    "eligible.leader.replicas.enable",
    "security.inter.broker.protocol",
    "security.providers",
    "server.max.startup.time.ms",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "transaction.partition.verification.enable",
    "transaction.remove.expired.transaction.cleanup.interval.ms",
    "transaction.state.log.load.buffer.size",
    "transaction.state.log.min.isr",
    "transaction.state.log.replication.factor",
    "transaction.two.phase.commit.enable",
    "unclean.leader.election.interval.ms",
    "unstable.api.versions.enable",
    "unstable.feature.versions.enable",
];

/// What someone may rely on, with the value at which it asks for nothing.
const MATTERS: &[(&str, &str)] = &[
    ("authorizer.class.name", ""),
    ("allow.everyone.if.no.acl.found", "true"),
    ("super.users", ""),
    ("alter.config.policy.class.name", ""),
    ("create.topic.policy.class.name", ""),
    ("client.quota.callback.class", ""),
    ("log.cleaner.enable", "true"),
    ("max.connection.creation.rate", "2147483647"),
    ("max.connections.per.ip.overrides", ""),
    ("remote.log.storage.system.enable", "false"),
    ("remote.log.storage.manager.class.name", ""),
    ("remote.log.storage.manager.class.path", ""),
    ("replica.selector.class", ""),
    ("quota.consumer.default", "9223372036854775807"),
    ("quota.producer.default", "9223372036854775807"),
];

/// How the setting stands; for names that are not in the table.
pub fn standing(key: &str) -> Standing {
    if let Some((_, off)) = MATTERS.iter().find(|(name, _)| *name == key) {
        return Standing::Harmless(off);
    }
    let irrelevant =
        IRRELEVANT.contains(&key) || IRRELEVANT_PREFIXES.iter().any(|p| key.starts_with(p));
    if irrelevant {
        Standing::Irrelevant
    } else {
        Standing::Unknown
    }
}

/// Whether a value asks for nothing.
pub fn is_off(value: &str, off: &str) -> bool {
    let value = value.trim();
    value.is_empty() || value.eq_ignore_ascii_case(off)
}

/// The setting that was probably meant.
pub fn nearest(key: &str) -> Option<&'static str> {
    const TYPOS_MAX: usize = 3;
    if key.len() > 100 {
        return None;
    }
    let names = super::BROKER_SETTINGS
        .iter()
        .map(|s| s.name)
        .chain(IRRELEVANT.iter().copied());
    names
        .map(|name| (distance(key.as_bytes(), name.as_bytes()), name))
        .min()
        .filter(|(d, _)| *d <= TYPOS_MAX)
        .map(|(_, name)| name)
}

/// Levenshtein's distance, one row at a time.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b) {
            let here = (diagonal + usize::from(x != y))
                .min(left + 1)
                .min(*cell + 1);
            diagonal = *cell;
            left = here;
            *cell = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}
