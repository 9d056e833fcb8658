use std::path::Path;

use super::*;
use crate::log::RealFs;
use crate::log::fault_fs::{Fault, FaultFs};
use crate::meta::{RESOURCE_BROKER, topic_name};

const LOG: &str = "__cluster_metadata-0/00000000000000000000.log";

fn try_open(dir: &Path) -> Result<(Meta, Vec<String>), MetaError> {
    Meta::open(Arc::new(RealFs), dir, 1, now_ms())
}

fn open(dir: &Path) -> Meta {
    let (meta, say) = try_open(dir).unwrap();
    assert_eq!(say, Vec::<String>::new());
    meta
}

fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = |(k, v): &(&str, &str)| (k.to_string(), v.to_string());
    pairs.iter().map(own).collect()
}

fn change(name: &str, value: Option<&str>) -> (String, Option<String>) {
    (name.into(), value.map(str::to_owned))
}

/// One of each change.
fn fill(meta: &Meta) {
    meta.create_topic(
        "a",
        3,
        settings(&[("retention.ms", "1000"), ("segment.ms", "5")]),
    )
    .unwrap();
    meta.create_topic("b", 1, BTreeMap::new()).unwrap();
    meta.create_topic("gone", 2, settings(&[("retention.ms", "1")]))
        .unwrap();
    meta.create_topic(
        topic_name::CONSUMER_OFFSETS,
        1,
        settings(&[("cleanup.policy", "compact")]),
    )
    .unwrap();
    meta.create_partitions("b", 4).unwrap();
    meta.delete_topic("gone").unwrap();
    let changes = [
        change("segment.ms", None),
        change("max.message.bytes", Some("9")),
    ];
    meta.set_configs(RESOURCE_TOPIC, "a", &changes).unwrap();
    meta.set_configs(
        RESOURCE_BROKER,
        "1",
        &[change("log.retention.ms", Some("7"))],
    )
    .unwrap();
    meta.set_configs(RESOURCE_BROKER, "", &[change("x", Some("7"))])
        .unwrap();
    meta.set_configs(RESOURCE_BROKER, "", &[change("x", None)])
        .unwrap();
    meta.allocate_producer_ids(1).unwrap();
    assert_eq!(meta.bump_leader_epoch("a", 1), Ok(1));
    assert_eq!(meta.bump_leader_epoch("a", 1), Ok(2));
}

fn check(image: &Image) {
    let names: Vec<_> = image.topics().map(|t| t.name.as_str()).collect();
    assert_eq!(names, [topic_name::CONSUMER_OFFSETS, "a", "b"]);
    let a = image.topic("a").unwrap();
    assert_eq!(
        a.configs,
        settings(&[("retention.ms", "1000"), ("max.message.bytes", "9")])
    );
    let epochs: Vec<_> = a.partitions.iter().map(|p| p.leader_epoch).collect();
    assert_eq!(epochs, [0, 2, 0]);
    assert!(!a.internal);
    assert_eq!(image.topic_by_id(a.id), Some(a));
    assert_eq!(image.topic("b").unwrap().partitions.len(), 4);
    assert!(image.topic(topic_name::CONSUMER_OFFSETS).unwrap().internal);
    assert_eq!(
        image.configs(RESOURCE_BROKER, "1"),
        Some(&settings(&[("log.retention.ms", "7")]))
    );
    assert_eq!(image.configs(RESOURCE_BROKER, ""), None);
    assert_eq!(image.next_producer_id, PRODUCER_ID_BLOCK);
}

#[test]
fn every_change_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path());
    let cluster = meta.cluster_id().to_owned();
    fill(&meta);
    let before = meta.image();
    check(&before);
    meta.close();
    drop(meta);
    let meta = open(dir.path());
    assert_eq!(*meta.image(), *before);
    assert_eq!(meta.cluster_id(), cluster);
    // And without the goodbye.
    meta.create_topic("late", 1, BTreeMap::new()).unwrap();
    let before = meta.image();
    drop(meta);
    assert_eq!(*open(dir.path()).image(), *before);
}

#[test]
fn the_index_is_disposable() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path());
    fill(&meta);
    let before = meta.image();
    meta.close();
    drop(meta);
    let index = dir.path().join("__cluster_metadata-0").join(INDEX_DIR);
    let db = index.join("db");
    for garble in [
        &(|| std::fs::remove_dir_all(&index).unwrap()) as &dyn Fn(),
        &|| std::fs::write(&db, b"garbage").unwrap(),
        &|| {
            std::fs::remove_dir_all(&index).unwrap();
            std::fs::write(&index, b"a file").unwrap();
        },
    ] {
        garble();
        let (meta, _) = try_open(dir.path()).unwrap();
        assert_eq!(*meta.image(), *before);
        // And is whole again at once.
        let (applied, entries) = meta.index().load(SPACE).unwrap();
        assert_eq!(entries::image(&entries).as_ref(), Some(&*before));
        assert_eq!(applied, meta.lock().log.end_offset() - 1);
        meta.close();
    }
}

#[test]
fn an_index_ahead_of_the_log_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join(LOG);
    let meta = open(dir.path());
    meta.create_topic("a", 1, BTreeMap::new()).unwrap();
    meta.close();
    drop(meta);
    let shorter = std::fs::read(&log).unwrap();
    let meta = open(dir.path());
    meta.create_topic("b", 1, BTreeMap::new()).unwrap();
    meta.close();
    drop(meta);
    // An older copy of the log was put back.
    std::fs::write(&log, shorter).unwrap();
    let (meta, _) = try_open(dir.path()).unwrap();
    let image = meta.image();
    let names: Vec<_> = image.topics().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["a"]);
}

/// The last change is there wholly or not at all, wherever its write was cut.
#[test]
fn a_torn_change_never_happened() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join(LOG);
    let meta = open(dir.path());
    meta.create_topic("a", 2, BTreeMap::new()).unwrap();
    let before = meta.image();
    let whole = std::fs::read(&log).unwrap().len();
    meta.create_topic("b", 3, settings(&[("retention.ms", "1")]))
        .unwrap();
    drop(meta);
    let bytes = std::fs::read(&log).unwrap();
    assert!(bytes.len() > whole + 100);
    for len in (whole..bytes.len()).step_by(5) {
        std::fs::write(&log, &bytes[..len]).unwrap();
        std::fs::remove_dir_all(dir.path().join("__cluster_metadata-0").join(INDEX_DIR)).unwrap();
        let (meta, say) = try_open(dir.path()).unwrap();
        assert_eq!(*meta.image(), *before, "cut at {len}");
        assert_eq!(say.len(), usize::from(len > whole), "{say:?}");
    }
    let meta = open(dir.path());
    meta.create_topic("b", 1, BTreeMap::new()).unwrap();
}

/// A first start that was cut short anywhere is completed by the next one.
#[test]
fn a_torn_first_start_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join(LOG);
    drop(open(dir.path()));
    let bytes = std::fs::read(&log).unwrap();
    for len in (0..bytes.len()).step_by(7) {
        std::fs::write(&log, &bytes[..len]).unwrap();
        let (meta, _) = try_open(dir.path()).unwrap();
        let image = meta.image();
        assert_eq!(
            image.features().get("metadata.version"),
            Some(&27),
            "cut at {len}"
        );
        assert!(image.broker_epoch > 0, "cut at {len}");
        meta.create_topic("a", 1, BTreeMap::new()).unwrap();
        drop(meta);
        assert_eq!(open(dir.path()).image().topic_count(), 1);
    }
}

/// A flipped bit before the end: the index still knows; without it the start says what to do.
#[test]
fn a_damaged_log_is_never_believed() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join(LOG);
    let meta = open(dir.path());
    let from = std::fs::read(&log).unwrap().len();
    meta.create_topic("a", 2, BTreeMap::new()).unwrap();
    meta.create_topic("b", 2, BTreeMap::new()).unwrap();
    let before = meta.image();
    meta.close();
    drop(meta);
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[from + 100] ^= 4;
    std::fs::write(&log, bytes).unwrap();
    let (meta, say) = try_open(dir.path()).unwrap();
    assert_eq!(*meta.image(), *before);
    assert!(say.iter().any(|s| s.contains("damaged")), "{say:?}");
    drop(meta);
    std::fs::remove_dir_all(dir.path().join("__cluster_metadata-0").join(INDEX_DIR)).unwrap();
    let refused = try_open(dir.path()).map(drop).unwrap_err().to_string();
    assert!(
        refused.contains("do not delete") && refused.contains("offset"),
        "{refused}"
    );
}

#[test]
fn records_from_the_future_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    {
        let (meta, _) = try_open(dir.path()).unwrap();
        let mut builder = wire::records::BatchBuilder::new(wire::compress::Compression::None);
        builder.push(1, None, Some(&[1, 99, 0, 0]), &[]);
        meta.lock().append_batch(&builder.build(0), 1).unwrap();
    }
    let refused = try_open(dir.path()).map(drop).unwrap_err().to_string();
    assert!(
        refused.contains("kind 99") && refused.contains("Start the version"),
        "{refused}"
    );
}

/// KIP-868: what was begun and not ended does not hold, and what follows does.
#[test]
fn an_unfinished_transaction_is_aborted() {
    let dir = tempfile::tempdir().unwrap();
    let half = Record::Topic {
        name: "half".into(),
        id: uuid64::random(),
    };
    let meta = open(dir.path());
    meta.lock()
        .append(&[Record::BeginTransaction, half.clone()], 1)
        .unwrap();
    drop(meta);
    let meta = open(dir.path());
    assert_eq!(meta.image().topic_count(), 0);
    meta.create_topic("a", 1, BTreeMap::new()).unwrap();
    meta.lock()
        .append(&[Record::BeginTransaction, half, Record::EndTransaction], 1)
        .unwrap();
    drop(meta);
    std::fs::remove_dir_all(dir.path().join("__cluster_metadata-0").join(INDEX_DIR)).unwrap();
    let image = open(dir.path()).image();
    let names: Vec<_> = image.topics().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["a", "half"]);
}

#[test]
fn refusals_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path());
    meta.create_topic("a.b", 2, BTreeMap::new()).unwrap();
    let end = meta.lock().log.end_offset();
    let before = meta.image();
    let create = |name: &str, n: i32| meta.create_topic(name, n, BTreeMap::new()).map(drop);
    assert_eq!(create("a.b", 1), Err(MetaError::TopicExists("a.b".into())));
    for name in ["", "..", "a/b", "__cluster_metadata", "a_b"] {
        let refused = create(name, 1);
        assert!(
            matches!(refused, Err(MetaError::InvalidTopicName(_))),
            "{name}: {refused:?}"
        );
    }
    for n in [0, -1, PARTITIONS_MAX + 1] {
        assert!(matches!(
            create("c", n),
            Err(MetaError::InvalidPartitions(_))
        ));
    }
    for n in [0, 1, 2] {
        let refused = meta.create_partitions("a.b", n);
        assert!(matches!(refused, Err(MetaError::InvalidPartitions(_))));
    }
    let unknown = || MetaError::UnknownTopic("x".into());
    assert_eq!(meta.create_partitions("x", 9), Err(unknown()));
    assert_eq!(meta.delete_topic("x"), Err(unknown()));
    assert_eq!(
        meta.set_configs(RESOURCE_TOPIC, "x", &[change("a", None)]),
        Err(unknown())
    );
    assert_eq!(meta.bump_leader_epoch("x", 0), Err(unknown()));
    assert!(meta.bump_leader_epoch("a.b", 2).is_err());
    assert!(meta.bump_leader_epoch("a.b", -1).is_err());
    let id = uuid64::random();
    assert_eq!(meta.delete_topic_id(id), Err(MetaError::UnknownTopicId(id)));
    assert!(meta.allocate_producer_ids(0).is_err());
    assert_eq!(meta.lock().log.end_offset(), end);
    assert_eq!(*meta.image(), *before);
}

#[test]
fn a_topic_created_again_is_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path());
    let first = meta
        .create_topic("a", 1, settings(&[("retention.ms", "1")]))
        .unwrap();
    assert_eq!(meta.delete_topic("a").unwrap().id, first.id);
    let second = meta.create_topic("a", 2, BTreeMap::new()).unwrap();
    assert_ne!(first.id, second.id);
    assert!(second.configs.is_empty());
    assert!(meta.delete_topic_id(first.id).is_err());
    drop(meta);
    let image = open(dir.path()).image();
    assert_eq!(image.topic("a"), Some(&second));
}

#[test]
fn producer_ids_are_never_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = 0;
    for round in 0..3 {
        let meta = open(dir.path());
        for count in [1, 1, 999, 2500, 1] {
            let ids = meta.allocate_producer_ids(count).unwrap();
            assert!(ids.start >= next, "round {round}");
            assert_eq!(ids.end - ids.start, count);
            next = ids.end;
        }
    }
}

#[test]
fn another_broker_of_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let refused = Meta::open(Arc::new(RealFs), dir.path(), 2, 0).map(drop);
    assert!(matches!(refused, Err(MetaError::Open(e)) if e.contains("node.id=1")));
}

/// A directory Apache Kafka 4.1 left behind.
#[test]
fn a_catalogue_of_apache_kafka_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join(LOG);
    std::fs::create_dir(log.parent().unwrap()).unwrap();
    std::fs::write(&log, include_bytes!("testdata/kafka-4.1-metadata.log")).unwrap();
    let properties = "node.id=1\nversion=1\ncluster.id=MkU3OEVBNTcwNTJENDM2Qk\n\
                      directory.id=K7wDhC4TTzWTAAOAMbvkQw\n";
    std::fs::write(dir.path().join("meta.properties"), properties).unwrap();
    let meta = open(dir.path());
    assert_eq!(meta.cluster_id(), "MkU3OEVBNTcwNTJENDM2Qk");
    assert_eq!(meta.image().topic("alpha").unwrap().partitions.len(), 3);
    assert_eq!(meta.bump_leader_epoch("alpha", 0), Ok(2));
    assert_eq!(meta.allocate_producer_ids(1), Ok(1000..1001));
    meta.create_topic("ours", 1, BTreeMap::new()).unwrap();
    let before = meta.image();
    drop(meta);
    assert_eq!(*open(dir.path()).image(), *before);
}

/// A data directory on no real file system: there is no index, only what the `Fs` holds.
fn nowhere() -> (tempfile::NamedTempFile, std::path::PathBuf) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let dir = file.path().join("data");
    (file, dir)
}

/// A script of changes: the images after each one that was acknowledged, and whether the log
/// refuses to go on.
fn script(fs: &FaultFs, data_dir: &Path) -> (Vec<Vec<String>>, bool) {
    let Ok((meta, _)) = Meta::open(Arc::new(fs.clone()), data_dir, 1, now_ms()) else {
        return (Vec::new(), true);
    };
    let mut seen = vec![shape(&meta.image())];
    for step in 0..6 {
        let done = match step {
            0 => meta
                .create_topic("a", 2, settings(&[("retention.ms", "1")]))
                .map(drop),
            1 => meta.create_topic("b", 1, BTreeMap::new()).map(drop),
            2 => meta.create_partitions("a", 3).map(drop),
            3 => meta.bump_leader_epoch("a", 1).map(drop),
            4 => meta.allocate_producer_ids(1).map(drop),
            _ => meta.delete_topic("b").map(drop),
        };
        let after = shape(&meta.image());
        match done {
            Ok(()) => seen.push(after),
            Err(_) => assert_eq!(Some(&after), seen.last(), "a refused change was visible"),
        }
    }
    let poisoned = meta.lock().log.is_poisoned();
    (seen, poisoned)
}

/// What two images agree on when ids, drawn at random, are left out.
fn shape(image: &Image) -> Vec<String> {
    let topics = image.topics();
    let mut shape: Vec<_> = topics
        .map(|t| format!("{} {:?} {:?}", t.name, t.partitions, t.configs))
        .collect();
    shape.push(format!("{}", image.next_producer_id));
    shape
}

/// The power goes at every call to the disk in turn: what was acknowledged is there, and what is
/// there is what it was after some change, never half of one.
#[test]
fn a_power_cut_at_every_call_loses_nothing_acknowledged() {
    let (_file, data_dir) = nowhere();
    let whole = FaultFs::new(1);
    let (shapes, _) = script(&whole, &data_dir);
    assert_eq!(shapes.len(), 7);
    assert!(whole.calls() > 20);
    for call in 0..whole.calls() {
        let fs = FaultFs::new(call + 1);
        fs.fail_at(call, Fault::Crash);
        let acknowledged = script(&fs, &data_dir).0.len();
        fs.power_cut();
        let (meta, _) = Meta::open(Arc::new(fs), &data_dir, 1, now_ms()).unwrap();
        let found = shape(&meta.image());
        // One more may be there: written, but not acknowledged.
        let possible = &shapes[acknowledged.saturating_sub(1)..(acknowledged + 1).min(7)];
        assert!(
            possible.contains(&found),
            "call {call}: {found:?} is none of {possible:?}"
        );
        meta.create_topic("c", 1, BTreeMap::new()).unwrap();
    }
}

/// One call fails, or the disk fills: a change is refused whole or made whole, and a restart finds
/// what was acknowledged (and at most the one change whose sync failed).
#[test]
fn a_failing_disk_refuses_changes_whole() {
    let (_file, data_dir) = nowhere();
    let whole = FaultFs::new(1);
    script(&whole, &data_dir);
    for fault in [Fault::Once, Fault::DiskFull] {
        for call in 0..whole.calls() {
            let fs = FaultFs::new(call + 1);
            fs.fail_at(call, fault);
            let (seen, poisoned) = script(&fs, &data_dir);
            fs.heal();
            let (meta, _) = Meta::open(Arc::new(fs), &data_dir, 1, now_ms()).unwrap();
            let Some(last) = seen.last() else { continue };
            let found = shape(&meta.image());
            let gone = last.iter().filter(|line| !found.contains(line)).count();
            let new = found.iter().filter(|line| !last.contains(line)).count();
            let allowed = usize::from(poisoned);
            assert!(
                gone <= allowed && new <= allowed,
                "{fault:?} at {call}: {found:?} after {last:?}"
            );
        }
    }
}
