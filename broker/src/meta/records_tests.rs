use super::*;
use crate::meta::uuid_from_base64;

fn every_kind() -> Vec<Record> {
    let id = Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0);
    let config = |value: Option<&str>| {
        Record::Config(ConfigChange {
            resource_type: 2,
            resource_name: "t".into(),
            name: "retention.ms".into(),
            value: value.map(str::to_owned),
        })
    };
    vec![
        Record::RegisterBroker(BrokerRegistration {
            broker_id: 1,
            incarnation_id: id,
            broker_epoch: 11,
            endpoints: vec![("PLAINTEXT".into(), "localhost".into(), 65535)],
            features: vec![("metadata.version".into(), 7, 27)],
            fenced: true,
            log_dirs: vec![id],
        }),
        Record::BrokerChange {
            broker_id: 1,
            broker_epoch: 11,
            fenced: -1,
        },
        Record::BrokerChange {
            broker_id: 1,
            broker_epoch: 11,
            fenced: 0,
        },
        Record::Topic {
            name: "x".repeat(249),
            id,
        },
        Record::Partition(Partition {
            partition_id: 2,
            topic_id: id,
            replicas: vec![1],
            isr: vec![1],
            leader: 1,
            leader_epoch: 3,
            partition_epoch: 4,
            directories: vec![id],
        }),
        Record::PartitionChange(PartitionChange {
            partition_id: 2,
            topic_id: id,
            isr: Some(vec![1]),
            leader: 1,
        }),
        Record::PartitionChange(PartitionChange {
            partition_id: 2,
            topic_id: id,
            isr: None,
            leader: NO_LEADER_CHANGE,
        }),
        config(Some("5")),
        config(None),
        Record::RemoveTopic { id },
        Record::FeatureLevel {
            name: "metadata.version".into(),
            level: 27,
        },
        Record::ProducerIds {
            broker_id: 1,
            broker_epoch: 11,
            next: i64::MAX,
        },
        Record::NoOp,
        Record::BeginTransaction,
        Record::EndTransaction,
        Record::AbortTransaction,
    ]
}

#[test]
fn every_kind_there_and_back() {
    for record in every_kind() {
        assert_eq!(Record::decode(&record.encode()), Ok(record));
    }
}

#[test]
fn every_truncation_and_every_extra_byte_is_refused() {
    for record in every_kind() {
        let bytes = record.encode();
        for len in 0..bytes.len() {
            assert!(
                Record::decode(&bytes[..len]).is_err(),
                "{record:?} cut to {len}"
            );
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(
            Record::decode(&longer),
            Err(CodecError::Garbage(1)),
            "{record:?}"
        );
    }
}

/// Any byte changed: an error or another record, never a panic, never a great allocation.
#[test]
fn altered_bytes_do_no_harm() {
    for record in every_kind() {
        let bytes = record.encode();
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut altered = bytes.clone();
                altered[at] = value;
                if let Ok(other) = Record::decode(&altered) {
                    let _ = other.encode();
                }
            }
        }
    }
    // An array of 2^32-2 elements.
    let mut huge = vec![1, 0, 3, 0, 0, 0, 1, 0];
    huge.extend([0; 24]);
    huge.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert_eq!(Record::decode(&huge), Err(CodecError::Bad("count")));
}

#[test]
fn unknown_kinds_versions_and_frames_are_named() {
    let unknown = |api_key, version| Err(CodecError::Unknown { api_key, version });
    assert_eq!(Record::decode(&[1, 99, 0]), unknown(99, 0));
    assert_eq!(Record::decode(&[1, 2, 1]), unknown(2, 1));
    assert_eq!(Record::decode(&[0, 2, 0]), Err(CodecError::Frame(0)));
    assert_eq!(
        Record::decode(&[1, 18, 0, 7, 7]),
        Ok(Record::Kept { api_key: 18 })
    );
    assert!(Record::Kept { api_key: 18 }.is_relied_on());
    assert!(!Record::Kept { api_key: 27 }.is_relied_on());
}

/// `__cluster_metadata` as Apache Kafka 4.1.1 wrote it: two topics of one node created, one
/// deleted, one given another partition, a setting changed, a clean shutdown.
#[test]
fn a_log_of_apache_kafka_is_understood() {
    let bytes = bytes::Bytes::from_static(include_bytes!("testdata/kafka-4.1-metadata.log"));
    let mut replay = crate::meta::replay::Replay::default();
    let mut end = 0;
    for batch in wire::batch::split(&bytes) {
        let (header, batch) = batch.unwrap();
        end = header.last_offset() + 1;
        replay.batch(&header, &batch).unwrap();
    }
    assert_eq!(end, 46);
    assert!(!replay.is_unfinished());
    let image = replay.image;
    let names: Vec<_> = image.topics().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["alpha"]);
    let alpha = image.topic("alpha").unwrap();
    assert_eq!(Some(alpha.id), uuid_from_base64("TR3ZaonVSXy4sfKMh9CZgg"));
    // The controlled shutdown took the leader away from each partition.
    let epochs: Vec<_> = alpha
        .partitions
        .iter()
        .map(|p| (p.leader_epoch, p.partition_epoch))
        .collect();
    assert_eq!(epochs, [(1, 1); 3]);
    let configs: Vec<_> = alpha
        .configs
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(configs, [("flush.messages", "1")]);
    assert_eq!(image.next_producer_id, 1000);
    assert_eq!(image.broker_epoch, 11);
    assert_eq!(image.features().get("metadata.version"), Some(&27));
    assert_eq!(image.features().get("transaction.version"), Some(&2));
    let dynamic = image.configs(crate::meta::RESOURCE_BROKER, "").unwrap();
    assert_eq!(
        dynamic.get("min.insync.replicas").map(String::as_str),
        Some("1")
    );
}

/// Byte for byte what Apache Kafka writes, for the kinds whose version is the same.
#[test]
fn written_as_apache_kafka_writes() {
    let bytes = bytes::Bytes::from_static(include_bytes!("testdata/kafka-4.1-metadata.log"));
    let mut compared = 0;
    for batch in wire::batch::split(&bytes) {
        let (header, batch) = batch.unwrap();
        if header.is_control() {
            continue;
        }
        for found in wire::records::decode(&batch, 1 << 20).unwrap() {
            let value = found.value.unwrap();
            let record = Record::decode(&value).unwrap();
            // Version, and what we leave out: the security protocol and rack are the same here.
            let same_version = value[2] == record.encode()[2];
            let named = matches!(record, Record::BeginTransaction | Record::Kept { .. });
            if same_version && !named {
                assert_eq!(record.encode(), value, "{record:?}");
                compared += 1;
            }
        }
    }
    assert!(compared > 30, "{compared}");
}
