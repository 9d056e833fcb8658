//! Settings as DescribeConfigs tells them: value, source, synonyms, type. Pure; knows the tables.

use std::collections::BTreeMap;

use super::table::Setting;
use super::{BROKER_SETTINGS, BrokerConfig, TOPIC_SETTINGS, TopicConfig, broker_setting};

/// Where a value comes from; the numbers are Kafka's (`DescribeConfigsResponse.ConfigSource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Topic = 1,
    StaticBroker = 4,
    Default = 5,
}

/// One setting, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub name: &'static str,
    pub value: Option<String>,
    pub source: Source,
    pub synonyms: Vec<Synonym>,
    /// Number of the type in the protocol.
    pub config_type: i8,
    pub doc: &'static str,
    pub read_only: bool,
}

/// A place a value could come from, strongest first; the first is the one that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    pub name: String,
    pub value: Option<String>,
    pub source: Source,
}

/// Settings of Kafka's topics that tools need not see: `internal.*` is not told by Kafka either.
fn is_hidden(name: &str) -> bool {
    name.starts_with("internal.")
}

/// A topic's settings, all of them.
pub fn topic(broker: &BrokerConfig, overrides: &BTreeMap<String, String>) -> Vec<Described> {
    let (config, _) = TopicConfig::resolve_stored(broker, overrides);
    TOPIC_SETTINGS
        .iter()
        .filter(|s| !is_hidden(s.name))
        .map(|setting| {
            let mut synonyms = Vec::new();
            if overrides.contains_key(setting.name) {
                synonyms.push(Synonym {
                    name: setting.name.to_owned(),
                    value: setting.get(&config),
                    source: Source::Topic,
                });
            }
            broker_synonyms(broker, setting, &mut synonyms);
            described(setting, setting.get(&config), synonyms, false)
        })
        .collect()
}

fn broker_synonyms(
    broker: &BrokerConfig,
    setting: &Setting<TopicConfig>,
    synonyms: &mut Vec<Synonym>,
) {
    let known = || {
        setting
            .synonyms
            .iter()
            .filter_map(|name| broker_setting(name))
    };
    for s in known().filter(|s| broker.is_explicit(s)) {
        synonyms.push(Synonym {
            name: s.name.to_owned(),
            value: s.get(broker),
            source: Source::StaticBroker,
        });
    }
    for s in known().filter(|s| s.default_text().is_some()) {
        synonyms.push(Synonym {
            name: s.name.to_owned(),
            value: s.default_text(),
            source: Source::Default,
        });
    }
}

/// The broker's settings, all of them.
pub fn broker(config: &BrokerConfig) -> Vec<Described> {
    BROKER_SETTINGS
        .iter()
        .filter(|s| !is_hidden(s.name))
        .map(|setting| {
            let mut synonyms = Vec::new();
            if config.is_explicit(setting) {
                synonyms.push(Synonym {
                    name: setting.name.to_owned(),
                    value: setting.get(config),
                    source: Source::StaticBroker,
                });
            }
            if let Some(default) = setting.default_text() {
                synonyms.push(Synonym {
                    name: setting.name.to_owned(),
                    value: Some(default),
                    source: Source::Default,
                });
            }
            described(setting, setting.get(config), synonyms, true)
        })
        .collect()
}

fn described<C: Default>(
    setting: &Setting<C>,
    value: Option<String>,
    synonyms: Vec<Synonym>,
    read_only: bool,
) -> Described {
    Described {
        name: setting.name,
        value,
        source: synonyms.first().map_or(Source::Default, |s| s.source),
        synonyms,
        config_type: setting.kind.describe_type(),
        doc: setting.doc(),
        read_only,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_override_wins_and_tells_what_it_covers() {
        let mut broker = BrokerConfig::default();
        broker.set("log.retention.hours", "2").unwrap();
        let overrides = BTreeMap::from([("retention.ms".to_owned(), "5000".to_owned())]);
        let all = topic(&broker, &overrides);
        let retention = all.iter().find(|d| d.name == "retention.ms").unwrap();
        assert_eq!(retention.value.as_deref(), Some("5000"));
        assert_eq!(retention.source, Source::Topic);
        let sources: Vec<_> = retention
            .synonyms
            .iter()
            .map(|s| (s.name.as_str(), s.source))
            .collect();
        assert_eq!(
            sources,
            [
                ("retention.ms", Source::Topic),
                ("log.retention.hours", Source::StaticBroker),
                ("log.retention.hours", Source::Default)
            ]
        );
        let plain = topic(&broker, &BTreeMap::new());
        let retention = plain.iter().find(|d| d.name == "retention.ms").unwrap();
        assert_eq!(
            (retention.value.as_deref(), retention.source),
            (Some("7200000"), Source::StaticBroker)
        );
    }
}
