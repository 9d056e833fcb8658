//! Settings: Kafka's names, from `server.properties`, flags and overrides, as one validated
//! [`BrokerConfig`], and topics' settings over it. Knows text and numbers; no files but the one it
//! is told to read, no sockets, no logs.

pub mod broker;
pub mod describe;
mod known;
pub mod listeners;
mod properties;
mod show;
pub mod table;
pub mod topic;

use std::path::Path;

pub use broker::{BROKER_SETTINGS, BrokerConfig, Durability};
pub use listeners::{Advertised, AdvertisedListener, Listener, Listeners, host_port};
pub use properties::parse as parse_properties;
pub use show::{help_text, markdown};
pub use table::{ConfigError, Kind, Setting};
pub use topic::{
    CleanupPolicy, CompressionSetting, TOPIC_SETTINGS, TimestampType, TopicConfig, topic_setting,
};

use known::Standing;

/// A file of settings larger than this is not one.
const FILE_BYTES_MAX: u64 = 1 << 20;

fn find<C>(table: &'static [Setting<C>], name: &str) -> Option<&'static Setting<C>> {
    table.iter().find(|s| s.name == name)
}

/// The line of the broker's table with this name; `log.dir` is another name of `log.dirs`.
pub fn broker_setting(name: &str) -> Option<&'static Setting<BrokerConfig>> {
    let name = if name == "log.dir" { "log.dirs" } else { name };
    find(BROKER_SETTINGS, name)
}

/// Settings as typed, layer by layer: a later layer is stronger than an earlier one.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    layers: Vec<Vec<(String, String)>>,
}

impl Layers {
    /// Adds a stronger layer.
    pub fn push(&mut self, layer: Vec<(String, String)>) {
        self.layers.push(layer);
    }

    /// Adds the settings of a `server.properties` as a layer.
    pub fn push_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        self.push(read_file(path)?);
        Ok(())
    }

    /// The settings that win, and what there is to say about the others (one line each).
    pub fn resolve(&self) -> Result<(BrokerConfig, Vec<String>), ConfigError> {
        let mut config = BrokerConfig::default();
        let mut warnings = Vec::new();
        for layer in &self.layers {
            // Kafka: within a file `log.dirs` is stronger than `log.dir`, wherever it stands.
            let has_dirs = layer.iter().any(|(k, _)| k == "log.dirs");
            for (key, value) in layer {
                if key == "log.dir" && has_dirs {
                    continue;
                }
                apply(&mut config, key, value, &mut warnings)?;
            }
        }
        config.settle()?;
        Ok((config, warnings))
    }
}

fn apply(
    config: &mut BrokerConfig,
    key: &str,
    value: &str,
    warnings: &mut Vec<String>,
) -> Result<(), ConfigError> {
    if let Some(setting) = broker_setting(key) {
        // An empty value in a file is Kafka's "not set", as in `advertised.listeners=`.
        if !(value.trim().is_empty() && setting.default_text().is_none_or(|d| d.is_empty())) {
            setting.set(config, value)?;
        }
        config.explicit.insert(setting.name.to_owned());
        return Ok(());
    }
    match known::standing(key) {
        Standing::Irrelevant => tracing::debug!(key, "setting accepted, without effect here"),
        Standing::Harmless(when) if known::is_off(value, when) => {}
        Standing::Harmless(_) => warnings.push(format!(
            "{key} is a setting of Kafka that mini-broker does not support: it has NO effect; \
             take it out of the settings, or use Apache Kafka if you depend on it"
        )),
        Standing::Unknown => warnings.push(match known::nearest(key) {
            Some(near) => format!("unknown setting {key} ignored; did you mean {near}?"),
            None => format!("unknown setting {key} ignored; see `mini-broker --help-settings`"),
        }),
    }
    Ok(())
}

/// Reads a `server.properties`.
pub fn read_file(path: &Path) -> Result<Vec<(String, String)>, ConfigError> {
    let fail = |reason: String| ConfigError::File {
        path: path.display().to_string(),
        reason,
    };
    let meta = std::fs::metadata(path).map_err(|e| fail(e.to_string()))?;
    if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
        return Err(fail("it is no file of at most 1 MiB".into()));
    }
    let bytes = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
    // Java reads such files as Latin-1; people write them in UTF-8.
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|e| e.as_bytes().iter().map(|b| char::from(*b)).collect());
    parse_properties(&text).map_err(fail)
}

impl BrokerConfig {
    /// A configuration for a program that embeds the broker: data in `dir`, this machine only, a
    /// port the system chooses.
    pub fn in_dir(dir: impl Into<std::path::PathBuf>) -> BrokerConfig {
        BrokerConfig {
            data_dir: dir.into(),
            listeners: Listeners(vec![Listener::new("127.0.0.1", 0)]),
            ..BrokerConfig::default()
        }
    }

    /// Sets one setting by Kafka's name of it.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let setting = broker_setting(name).ok_or_else(|| {
            ConfigError::Conflict(format!("unknown setting {name}; there is no such one"))
        })?;
        setting.set(self, value)?;
        self.explicit.insert(setting.name.to_owned());
        Ok(())
    }

    /// Whether a setting was given rather than left at its default.
    pub fn is_explicit(&self, setting: &Setting<BrokerConfig>) -> bool {
        self.explicit.contains(setting.name) || setting.get(self) != setting.default_text()
    }

    /// Rules over more than one setting.
    fn settle(&mut self) -> Result<(), ConfigError> {
        if self.broker_id >= 0 {
            if self.explicit.contains("node.id") && self.node_id != self.broker_id {
                return Err(ConfigError::Conflict(format!(
                    "node.id={} and broker.id={} name two numbers for one broker; remove broker.id",
                    self.node_id, self.broker_id
                )));
            }
            self.node_id = self.broker_id;
        }
        if self.group_min_session_timeout_ms > self.group_max_session_timeout_ms {
            return Err(ConfigError::Conflict(format!(
                "group.min.session.timeout.ms {} is larger than group.max.session.timeout.ms {}; \
                 make it the smaller one",
                self.group_min_session_timeout_ms, self.group_max_session_timeout_ms
            )));
        }
        self.settle_listeners()
    }

    /// Takes out the listeners of Kafka's controllers and refuses what is not plaintext.
    fn settle_listeners(&mut self) -> Result<(), ConfigError> {
        let controllers: Vec<String> = split_upper(&self.controller_listener_names);
        self.listeners.0.retain(|l| !controllers.contains(&l.name));
        self.advertised_listeners
            .0
            .retain(|a| a.name.as_ref().is_none_or(|n| !controllers.contains(n)));
        if self.listeners.is_empty() {
            return Err(ConfigError::Conflict(
                "listeners names no listener for clients; add PLAINTEXT://HOST:PORT".into(),
            ));
        }
        let map = split_upper(&self.listener_security_protocol_map);
        for listener in self.listeners.iter() {
            let protocol = map
                .iter()
                .filter_map(|entry| entry.split_once(':'))
                .find(|(name, _)| *name == listener.name)
                .map(|(_, protocol)| protocol);
            match protocol {
                Some("PLAINTEXT") => {}
                None if listener.name == "PLAINTEXT" => {}
                Some(protocol) => {
                    return Err(ConfigError::Value {
                        key: "listeners".into(),
                        value: listener.to_string(),
                        allowed: format!(
                            "a PLAINTEXT listener: {protocol} is not supported yet, and without \
                             it clients would not be protected"
                        ),
                    });
                }
                None => {
                    return Err(ConfigError::Value {
                        key: "listeners".into(),
                        value: listener.to_string(),
                        allowed: format!(
                            "PLAINTEXT as the name, or add {}:PLAINTEXT to listener.security.protocol.map",
                            listener.name
                        ),
                    });
                }
            }
        }
        for named in self.advertised_listeners.0.iter() {
            let known = named
                .name
                .as_ref()
                .is_none_or(|n| self.listeners.iter().any(|l| l.name == *n));
            if !known {
                return Err(ConfigError::Value {
                    key: "advertised.listeners".into(),
                    value: named.to_string(),
                    allowed: format!(
                        "names that occur in listeners ({})",
                        self.listeners
                            .iter()
                            .map(|l| l.name.as_str())
                            .collect::<Vec<_>>()
                            .join(", ")
                    ),
                });
            }
        }
        Ok(())
    }

    /// What holds for a topic without overrides.
    pub fn topic_defaults(&self) -> TopicConfig {
        const HOUR_MS: i64 = 3_600_000;
        // Kafka: any negative time or number of hours or minutes is "without limit".
        let unlimited = |n: i64, unit_ms: i64| if n < 0 { -1 } else { n.saturating_mul(unit_ms) };
        let retention_ms =
            self.log_retention_ms
                .unwrap_or_else(|| match self.log_retention_minutes {
                    Some(minutes) => unlimited(minutes.into(), 60_000),
                    None => unlimited(self.log_retention_hours.into(), HOUR_MS),
                });
        TopicConfig {
            cleanup_policy: self.log_cleanup_policy,
            compression_gzip_level: self.compression_gzip_level,
            compression_lz4_level: self.compression_lz4_level,
            compression_type: self.compression_type,
            compression_zstd_level: self.compression_zstd_level,
            delete_retention_ms: self.log_cleaner_delete_retention_ms,
            file_delete_delay_ms: self.log_segment_delete_delay_ms,
            flush_messages: self.log_flush_interval_messages,
            flush_ms: self
                .log_flush_interval_ms
                .unwrap_or(self.log_flush_scheduler_interval_ms),
            index_interval_bytes: self.log_index_interval_bytes,
            max_compaction_lag_ms: self.log_cleaner_max_compaction_lag_ms,
            max_message_bytes: self.message_max_bytes,
            message_timestamp_after_max_ms: self.log_message_timestamp_after_max_ms,
            message_timestamp_before_max_ms: self.log_message_timestamp_before_max_ms,
            message_timestamp_type: self.log_message_timestamp_type,
            min_cleanable_dirty_ratio: self.log_cleaner_min_cleanable_ratio,
            min_compaction_lag_ms: self.log_cleaner_min_compaction_lag_ms,
            min_insync_replicas: self.min_insync_replicas,
            preallocate: self.log_preallocate,
            retention_bytes: self.log_retention_bytes,
            retention_ms,
            segment_bytes: self.log_segment_bytes,
            segment_index_bytes: self.log_index_size_max_bytes,
            segment_jitter_ms: self
                .log_roll_jitter_ms
                .unwrap_or_else(|| i64::from(self.log_roll_jitter_hours) * HOUR_MS),
            segment_ms: self
                .log_roll_ms
                .unwrap_or_else(|| i64::from(self.log_roll_hours) * HOUR_MS),
            unclean_leader_election_enable: self.unclean_leader_election_enable,
            internal_segment_bytes: self.internal_log_segment_bytes,
            ..TopicConfig::default()
        }
    }
}

fn split_upper(list: &str) -> Vec<String> {
    list.split(',')
        .map(|part| part.trim().to_uppercase())
        .filter(|part| !part.is_empty())
        .collect()
}

#[cfg(test)]
mod tests;
