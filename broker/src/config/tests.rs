use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn resolve(text: &str) -> Result<(BrokerConfig, Vec<String>), ConfigError> {
    let mut layers = Layers::default();
    layers.push(parse_properties(text).unwrap());
    layers.resolve()
}

fn good(text: &str) -> BrokerConfig {
    let (config, warnings) = resolve(text).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    config
}

fn refused(text: &str) -> String {
    resolve(text).unwrap_err().to_string()
}

fn overrides(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = |(k, v): &(&str, &str)| (k.to_string(), v.to_string());
    pairs.iter().map(own).collect()
}

#[test]
fn without_a_word() {
    let config = good("");
    assert_eq!(config, BrokerConfig::default());
    assert_eq!(config.listeners.show_text(), "PLAINTEXT://127.0.0.1:9092");
    assert_eq!(config.node_id, 1);
    assert_eq!(config.data_dir, Path::new("./mini-broker-data"));
    assert!(config.advertised_listeners.is_auto());
    assert_eq!(config.durability, Durability::Disk);
    assert_eq!(config.topic_defaults(), TopicConfig::default());
}

/// What config/server.properties of Apache Kafka 3.x sets (its comments left out).
#[test]
fn as_shipped_with_kafka_3() {
    let config = good(
        "broker.id=0\n#listeners=PLAINTEXT://:9092\nnum.network.threads=3\nnum.io.threads=8\n\
         socket.send.buffer.bytes=102400\nsocket.receive.buffer.bytes=102400\n\
         socket.request.max.bytes=104857600\nlog.dirs=/tmp/kafka-logs\nnum.partitions=1\n\
         num.recovery.threads.per.data.dir=1\noffsets.topic.replication.factor=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         #log.flush.interval.messages=10000\nlog.retention.hours=168\n\
         log.segment.bytes=1073741824\nlog.retention.check.interval.ms=300000\n\
         zookeeper.connect=localhost:2181\nzookeeper.connection.timeout.ms=18000\n\
         group.initial.rebalance.delay.ms=0\n",
    );
    assert_eq!(config.node_id, 0);
    assert_eq!(config.data_dir, Path::new("/tmp/kafka-logs"));
    assert_eq!(config.group_initial_rebalance_delay_ms, 0);
    assert_eq!(config.listeners, Listeners::default());
}

/// What config/server.properties of Apache Kafka 4.x sets, and config/kraft/ of 3.x.
#[test]
fn as_shipped_with_kafka_4() {
    let config = good(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@localhost:9093\n\
         controller.quorum.bootstrap.servers=localhost:9093\n\
         listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n\
         advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL\n\
         num.network.threads=3\nnum.io.threads=8\nsocket.send.buffer.bytes=102400\n\
         socket.receive.buffer.bytes=102400\nsocket.request.max.bytes=104857600\n\
         log.dirs=/tmp/kraft-combined-logs\nnum.partitions=1\nnum.recovery.threads.per.data.dir=1\n\
         offsets.topic.replication.factor=1\nshare.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\nlog.retention.hours=168\nlog.segment.bytes=1073741824\n\
         log.retention.check.interval.ms=300000\n",
    );
    assert_eq!(*config.listeners, [Listener::new("", 9092)]);
    assert!(config.listeners[0].is_wildcard());
    let named = config
        .advertised_listeners
        .for_listener(&config.listeners[0]);
    assert_eq!(named, Some(("localhost", 9092)));
}

#[test]
fn properties_syntax() {
    let text = "  # a comment\n! another\r\na=1\r\n b : 2\nc 3\n d=  x = y  \ne=one,\\\n    two\\\r\n\t,three\nf\\ g\\=h=\\u0041\\t\\\\n\\uD83D\\uDE00\nempty=\nalone\na=4\nlast=end\\";
    let want = [
        ("a", "1"),
        ("b", "2"),
        ("c", "3"),
        ("d", "x = y  "),
        ("e", "one,two,three"),
        ("f g=h", "A\t\\n😀"),
        ("empty", ""),
        ("alone", ""),
        ("a", "4"),
        ("last", "end"),
    ];
    let found = parse_properties(text).unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(found, want);
    let e = parse_properties("a=1\nb=\\u12x4\n").unwrap_err();
    assert!(e.starts_with("line 2"), "{e}");
}

#[test]
fn a_later_line_and_a_later_layer_win() {
    let mut layers = Layers::default();
    layers.push(
        parse_properties("num.partitions=2\nnum.partitions=3\nlog.retention.hours=1").unwrap(),
    );
    layers.push(vec![("num.partitions".into(), "4".into())]);
    let (config, _) = layers.resolve().unwrap();
    assert_eq!(config.num_partitions, 4);
    assert_eq!(config.log_retention_hours, 1);
    let given: BTreeSet<_> = BROKER_SETTINGS
        .iter()
        .filter(|s| config.is_explicit(s))
        .map(|s| s.name)
        .collect();
    assert_eq!(
        given,
        BTreeSet::from(["log.retention.hours", "num.partitions"])
    );
}

#[test]
fn log_dirs_is_stronger_than_log_dir_in_a_file_and_weaker_than_a_later_one() {
    assert_eq!(good("log.dirs=/a\nlog.dir=/b").data_dir, Path::new("/a"));
    assert_eq!(good("log.dir=/b").data_dir, Path::new("/b"));
    let mut layers = Layers::default();
    layers.push(vec![("log.dirs".into(), "/a".into())]);
    layers.push(vec![("log.dir".into(), "/b".into())]);
    assert_eq!(layers.resolve().unwrap().0.data_dir, Path::new("/b"));
    assert!(refused("log.dirs=/a,/b").contains("one directory"));
}

#[test]
fn a_bad_value_names_key_value_and_what_is_allowed() {
    for (line, words) in [
        (
            "num.partitions=0",
            "num.partitions '0' from 1 to 2147483647",
        ),
        ("num.partitions=many", "num.partitions 'many'"),
        ("num.partitions=2147483648", "'2147483648'"),
        ("auto.create.topics.enable=yes", "'yes' true or false"),
        (
            "log.message.timestamp.type=createtime",
            "CreateTime, LogAppendTime",
        ),
        ("log.cleanup.policy=forget", "'forget' compact, delete"),
        ("log.cleanup.policy=", "compact, delete"),
        ("compression.type=brotli", "producer, uncompressed, gzip"),
        ("log.retention.ms=-2", "log.retention.ms '-2'"),
        ("log.cleaner.min.cleanable.ratio=1.5", "from 0 to 1"),
        ("durability=never", "disk, os"),
        (
            "listeners=127.0.0.1:99999",
            "listeners '127.0.0.1:99999' PLAINTEXT://HOST:PORT",
        ),
        ("listeners=", "listeners PLAINTEXT://HOST:PORT"),
        (
            "advertised.listeners=PLAINTEXT://0.0.0.0:9092",
            "0.0.0.0 no client can reach",
        ),
        ("advertised.listeners=OTHER://h:1", "OTHER PLAINTEXT"),
        ("listeners=SSL://h:9093", "SSL not supported"),
        (
            "listeners=INSIDE://h:9093",
            "INSIDE:PLAINTEXT listener.security.protocol.map",
        ),
        ("node.id=1\nbroker.id=2", "node.id=1 broker.id=2"),
        (
            "group.min.session.timeout.ms=10\ngroup.max.session.timeout.ms=5",
            "10 5 smaller",
        ),
        (
            "controller.listener.names=PLAINTEXT",
            "no listener for clients",
        ),
    ] {
        let e = refused(line);
        for word in words.split(' ') {
            assert!(e.contains(word), "{line}: {word:?} is not in {e:?}");
        }
    }
}

#[test]
fn an_unknown_key_is_a_warning_that_names_it() {
    let (config, warnings) = resolve("num.partition=3\nfoo.bar=1\n").unwrap();
    assert_eq!(config.num_partitions, 1);
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].contains("num.partition ") && warnings[0].contains("num.partitions?"));
    assert!(warnings[1].contains("foo.bar"));
}

#[test]
fn what_somebody_may_rely_on_is_not_swallowed() {
    let (_, warnings) = resolve("authorizer.class.name=org.apache.Foo\n").unwrap();
    assert!(warnings[0].contains("authorizer.class.name") && warnings[0].contains("NO effect"));
    good("authorizer.class.name=\nlog.cleaner.enable=true\nremote.log.storage.system.enable=false");
}

/// Every setting Apache Kafka 4.1 knows is in the table or among the known ones.
#[test]
fn all_of_kafkas_settings_are_known() {
    let unknown: Vec<_> = include_str!("kafka_settings.txt")
        .lines()
        .filter(|key| broker_setting(key).is_none() && known::standing(key) == Standing::Unknown)
        .collect();
    assert_eq!(unknown, Vec::<&str>::new());
}

#[test]
fn every_setting_takes_its_own_default_back_and_names_are_unique() {
    let mut names = BTreeSet::new();
    for setting in BROKER_SETTINGS {
        let mut config = BrokerConfig::default();
        if let Some(text) = setting.default_text().filter(|t| !t.is_empty()) {
            setting.set(&mut config, &text).unwrap();
        }
        assert_eq!(config, BrokerConfig::default(), "{}", setting.name);
        assert!(names.insert(setting.name), "{} stands twice", setting.name);
        assert!(!setting.doc().is_empty());
    }
    let mut config = TopicConfig::default();
    for setting in TOPIC_SETTINGS {
        if let Some(text) = setting.default_text().filter(|t| !t.is_empty()) {
            setting.set(&mut config, &text).unwrap();
        }
        for synonym in setting.synonyms {
            let known = broker_setting(synonym).is_some()
                || known::standing(synonym) == Standing::Irrelevant;
            assert!(known, "{synonym}");
        }
    }
    assert_eq!(config, TopicConfig::default());
}

#[test]
fn addresses() {
    let one = |text: &str| good(&format!("listeners={text}")).listeners.show_text();
    assert_eq!(one("PLAINTEXT://0.0.0.0:9092"), "PLAINTEXT://0.0.0.0:9092");
    assert_eq!(one("127.0.0.1:0"), "PLAINTEXT://127.0.0.1:0");
    assert_eq!(one("9095"), "PLAINTEXT://127.0.0.1:9095");
    assert_eq!(one(":9095"), "PLAINTEXT://:9095");
    assert_eq!(one("localhost"), "PLAINTEXT://localhost:9092");
    assert_eq!(one("[::1]:9095"), "PLAINTEXT://[::1]:9095");
    assert_eq!(one("::1"), "PLAINTEXT://[::1]:9092");
    for bad in [
        "a b:1",
        "PLAINTEXT://a:1,PLAINTEXT://b:2",
        "://a:1",
        "[::g]:1",
        "a:b:1",
        "a:",
        "PLAINTEXT://a/b:1",
    ] {
        assert!(
            refused(&format!("listeners={bad}")).contains("listeners"),
            "{bad}"
        );
    }
    let (config, _) = resolve(
        "listeners=IN://127.0.0.1:1,OUT://0.0.0.0:2\nadvertised.listeners=OUT://h.example:29092\n\
         listener.security.protocol.map=in:plaintext, OUT:PLAINTEXT",
    )
    .unwrap();
    let named = |at: usize| {
        config
            .advertised_listeners
            .for_listener(&config.listeners[at])
    };
    assert_eq!(named(0), None);
    assert_eq!(named(1), Some(("h.example", 29092)));
    for (text, want) in [
        ("h.example", Some(("h.example", 9092))),
        ("h:1", Some(("h", 1))),
        ("auto", None),
        ("", None),
    ] {
        let config = good(&format!("advertised.listeners={text}"));
        let named = config
            .advertised_listeners
            .for_listener(&config.listeners[0]);
        assert_eq!(named, want, "{text}");
    }
}

#[test]
fn a_topics_settings_over_the_brokers() {
    let broker = good(
        "log.retention.hours=2\nlog.roll.hours=3\nmessage.max.bytes=5000\nlog.segment.bytes=1000\n\
         log.cleanup.policy=compact,delete\nlog.flush.interval.ms=7",
    );
    let defaults = broker.topic_defaults();
    assert_eq!(defaults.retention_ms, 7_200_000);
    assert_eq!(defaults.segment_ms, 10_800_000);
    assert_eq!(defaults.max_message_bytes, 5000);
    assert_eq!(defaults.effective_segment_bytes(), 1000);
    assert_eq!(defaults.flush_ms, 7);
    assert!(defaults.cleanup_policy.compact && defaults.cleanup_policy.delete);
    let own = overrides(&[
        ("retention.ms", "-1"),
        ("cleanup.policy", "delete"),
        ("internal.segment.bytes", "100"),
        ("message.timestamp.type", "LogAppendTime"),
    ]);
    let topic = TopicConfig::resolve(&broker, &own).unwrap();
    assert_eq!(topic.retention_ms, -1);
    assert_eq!(topic.cleanup_policy, CleanupPolicy::DELETE);
    assert_eq!(topic.effective_segment_bytes(), 100);
    assert_eq!(topic.message_timestamp_type, TimestampType::LogAppendTime);
    assert_eq!(topic.max_message_bytes, 5000);
}

#[test]
fn retention_in_three_units() {
    let ms = |text: &str| good(text).topic_defaults().retention_ms;
    assert_eq!(
        ms("log.retention.hours=1\nlog.retention.minutes=2\nlog.retention.ms=3"),
        3
    );
    assert_eq!(
        ms("log.retention.hours=1\nlog.retention.minutes=2"),
        120_000
    );
    assert_eq!(ms("log.retention.hours=-1"), -1);
    assert_eq!(ms("log.retention.minutes=-1"), -1);
    assert_eq!(
        ms("log.retention.hours=2147483647"),
        2_147_483_647 * 3_600_000
    );
}

#[test]
fn a_topics_bad_settings_are_refused() {
    let broker = BrokerConfig::default();
    for (pairs, words) in [
        (&[("retention.ms", "-2")][..], "retention.ms '-2' -1"),
        (&[("segment.bytes", "100")], "segment.bytes 1048576"),
        (&[("retention.hours", "1")], "unknown retention.hours"),
        (
            &[("cleanup.policy", "delete,foo")],
            "cleanup.policy compact, delete",
        ),
        (
            &[
                ("min.compaction.lag.ms", "9"),
                ("max.compaction.lag.ms", "8"),
            ],
            "9 8",
        ),
        (
            &[("remote.storage.enable", "true")],
            "remote.storage.enable",
        ),
    ] {
        let e = TopicConfig::resolve(&broker, &overrides(pairs))
            .unwrap_err()
            .to_string();
        for word in words.split(' ') {
            assert!(e.contains(word), "{pairs:?}: {word:?} is not in {e:?}");
        }
    }
    let stored = overrides(&[
        ("retention.ms", "5"),
        ("from.the.future", "x"),
        ("segment.ms", "0"),
    ]);
    let (config, skipped) = TopicConfig::resolve_stored(&broker, &stored);
    assert_eq!(config.retention_ms, 5);
    assert_eq!(skipped, ["from.the.future", "segment.ms"]);
}

#[test]
fn files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.properties");
    // Latin-1, as Java would read it.
    std::fs::write(&path, b"broker.rack=caf\xe9\n").unwrap();
    let mut layers = Layers::default();
    layers.push_file(&path).unwrap();
    assert_eq!(
        layers.resolve().unwrap().0.broker_rack.as_deref(),
        Some("café")
    );
    let missing = dir.path().join("none");
    let e = layers.push_file(&missing).unwrap_err().to_string();
    assert!(e.contains("none"), "{e}");
    assert!(layers.push_file(dir.path()).is_err());
}

#[test]
fn help_names_every_setting() {
    let help = help_text();
    for setting in BROKER_SETTINGS {
        assert!(help.contains(&format!("\n{}\n", setting.name)) || help.starts_with(setting.name));
    }
}
