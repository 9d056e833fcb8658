//! The producer against a fake broker that misbehaves.

use super::*;
use crate::client::fake::{Fake, Fault};

fn config(fake: &Fake) -> ProducerConfig {
    ProducerConfig {
        client: ClientConfig {
            retry_backoff: Duration::from_millis(1),
            retry_backoff_max: Duration::from_millis(5),
            ..ClientConfig::new(&fake.addr)
        },
        // Small, so that there are many batches.
        batch_bytes: 300,
        linger: Duration::from_millis(1),
        ..ProducerConfig::default()
    }
}

fn record(partition: i32, n: usize) -> ProducerRecord {
    ProducerRecord {
        partition: Some(partition),
        value: Some(format!("value {n}").into()),
        ..Default::default()
    }
}

fn stored(fake: &Fake, partition: i32) -> Vec<String> {
    let text = |v: &Bytes| String::from_utf8(v.to_vec()).unwrap();
    fake.get(|s| {
        s.partitions
            .get(&partition)
            .map_or(Vec::new(), |p| p.values.iter().map(text).collect())
    })
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("value {n}")).collect()
}

/// A generator good enough to mix faults (xorshift).
fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

#[tokio::test]
async fn offsets_are_those_of_the_log() {
    let fake = Fake::start().await;
    let producer = Producer::new(config(&fake)).await.unwrap();
    let mut deliveries = Vec::new();
    for n in 0..100 {
        deliveries.push(producer.send("t", record(1, n)).await.unwrap());
    }
    for (n, delivery) in deliveries.into_iter().enumerate() {
        assert_eq!(
            delivery.await.unwrap(),
            RecordMeta {
                topic: "t".into(),
                partition: 1,
                offset: n as i64
            }
        );
    }
    assert_eq!(stored(&fake, 1), numbered(0..100));
    let stats = producer.stats();
    assert_eq!(
        (stats.sent, stats.acknowledged, stats.failed),
        (100, 100, 0)
    );
    producer.close().await.unwrap();
}

#[tokio::test]
async fn whatever_happens_to_requests_every_record_is_there_once_and_in_order() {
    for seed in 1..=12 {
        let fake = Fake::start().await;
        let mut dice = 0x9e37_79b9_7f4a_7c15 ^ (seed << 32);
        let faults = (0..60).map(|_| match next(&mut dice) % 7 {
            0 => Fault::CutBefore,
            1 => Fault::CutAfter,
            2 => Fault::Code(6),
            3 => Fault::Code(19),
            _ => Fault::None,
        });
        fake.set(|s| s.produce_faults = faults.collect());
        let producer = Producer::new(config(&fake)).await.unwrap();
        for n in 0..600 {
            producer.send("t", record((n % 3) as i32, n)).await.unwrap();
        }
        producer.flush().await.unwrap();
        for p in 0..3 {
            let expected: Vec<String> = (0..600)
                .filter(|n| n % 3 == p)
                .map(|n| format!("value {n}"))
                .collect();
            assert_eq!(stored(&fake, p), expected, "seed {seed}");
        }
        assert!(producer.stats().retries > 0, "seed {seed}");
        producer.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_batch_that_fails_for_good_fails_alone() {
    for seed in 1..=8 {
        let fake = Fake::start().await;
        let mut dice = 0x9e37_79b9_7f4a_7c15 ^ (seed << 32);
        let faults = (0..30).map(|_| match next(&mut dice) % 5 {
            0 => Fault::Code(10),
            1 => Fault::CutAfter,
            _ => Fault::None,
        });
        fake.set(|s| s.produce_faults = faults.collect());
        let producer = Producer::new(config(&fake)).await.unwrap();
        let mut deliveries = Vec::new();
        for n in 0..400 {
            deliveries.push(producer.send("t", record(0, n)).await.unwrap());
        }
        let (mut last, mut failed, mut gone) = (-1, 0, Vec::new());
        let mut acknowledged = Vec::new();
        for (n, delivery) in deliveries.into_iter().enumerate() {
            match delivery.await {
                Ok(meta) => {
                    assert!(meta.offset > last, "seed {seed}: order");
                    last = meta.offset;
                    acknowledged.push((meta.offset, format!("value {n}")));
                }
                Err(e) => {
                    assert_eq!(e.code(), Some(10), "seed {seed}: {e}");
                    failed += 1;
                    if !e.to_string().contains("may be stored") {
                        gone.push(format!("value {n}"));
                    }
                }
            }
        }
        let log = stored(&fake, 0);
        assert!(
            acknowledged
                .iter()
                .all(|(at, value)| log[*at as usize] == *value),
            "seed {seed}"
        );
        assert!(gone.iter().all(|value| !log.contains(value)), "seed {seed}");
        let once: std::collections::HashSet<&String> = log.iter().collect();
        assert_eq!(once.len(), log.len(), "seed {seed}: twice");
        assert!(failed > 0, "seed {seed}");
        assert_eq!(producer.stats().failed, failed, "seed {seed}");
        assert_eq!(producer.flush().await.unwrap_err().code(), Some(10));
        producer.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_broker_that_forgot_acknowledged_records_is_not_believed_silently() {
    let fake = Fake::start().await;
    let producer = Producer::new(config(&fake)).await.unwrap();
    for n in 0..50 {
        producer.send("t", record(0, n)).await.unwrap();
    }
    producer.flush().await.unwrap();
    fake.set(|s| s.produce_faults = vec![Fault::Code(45)].into());
    let delivery = producer.send("t", record(0, 50)).await.unwrap();
    assert_eq!(delivery.await.unwrap_err().code(), Some(45));
    // Under a new epoch it goes on.
    assert_eq!(
        producer
            .send("t", record(0, 51))
            .await
            .unwrap()
            .await
            .unwrap()
            .offset,
        50
    );
    producer.close().await.unwrap_err();
}

#[tokio::test]
async fn what_is_not_delivered_in_time_fails_and_says_whether_it_may_be_stored() {
    let fake = Fake::start().await;
    let cfg = ProducerConfig {
        delivery_timeout: Duration::from_millis(1500),
        ..config(&fake)
    };
    let producer = Producer::new(cfg).await.unwrap();
    producer
        .send("t", record(0, 0))
        .await
        .unwrap()
        .await
        .unwrap();
    fake.set(|s| s.produce_faults = (0..100_000).map(|_| Fault::CutBefore).collect());
    match producer
        .send("t", record(0, 1))
        .await
        .unwrap()
        .await
        .unwrap_err()
    {
        ClientError::DeliveryTimeout {
            in_doubt,
            after_ms,
            records,
            ..
        } => {
            assert_eq!((in_doubt, after_ms, records), (true, 1500, 1));
        }
        e => panic!("{e}"),
    }
    fake.set(|s| s.produce_faults.clear());
    // The gap is closed by a new epoch.
    assert_eq!(
        producer
            .send("t", record(0, 2))
            .await
            .unwrap()
            .await
            .unwrap()
            .offset,
        1
    );
}

#[tokio::test]
async fn send_waits_for_memory_and_nothing_lingers_then() {
    let fake = Fake::start().await;
    let cfg = ProducerConfig {
        batch_bytes: 1000,
        buffer_bytes: 1000,
        linger: Duration::from_secs(3600),
        ..config(&fake)
    };
    let producer = Producer::new(cfg).await.unwrap();
    for n in 0..200 {
        producer.send("t", record(n as i32 % 3, n)).await.unwrap();
    }
    producer.flush().await.unwrap();
    assert_eq!(producer.stats().acknowledged, 200);
    let big = ProducerRecord {
        value: Some(vec![0; 2000].into()),
        ..Default::default()
    };
    assert!(matches!(
        producer.send("t", big).await,
        Err(ClientError::Invalid(_))
    ));
}

#[tokio::test]
async fn without_idempotence_order_is_kept_and_acks_0_is_not_waited_for() {
    for acks in [Acks::Leader, Acks::None] {
        let fake = Fake::start().await;
        fake.set(|s| s.produce_faults = vec![Fault::None, Fault::Code(6), Fault::Code(6)].into());
        let producer = Producer::new(ProducerConfig {
            acks,
            idempotent: false,
            ..config(&fake)
        })
        .await
        .unwrap();
        for n in 0..100 {
            producer.send("t", record(0, n)).await.unwrap();
        }
        producer.flush().await.unwrap();
        if acks == Acks::Leader {
            assert_eq!(stored(&fake, 0), numbered(0..100));
        }
        assert_eq!(producer.stats().acknowledged, 100);
    }
    let fake = Fake::start().await;
    let refused = Producer::new(ProducerConfig {
        acks: Acks::Leader,
        ..config(&fake)
    })
    .await;
    assert!(matches!(refused, Err(ClientError::Invalid(_))));
}

#[tokio::test]
async fn records_without_a_key_stick_to_a_partition_and_keys_to_theirs() {
    let fake = Fake::start().await;
    let producer = Producer::new(ProducerConfig {
        batch_bytes: 1 << 20,
        ..config(&fake)
    })
    .await
    .unwrap();
    for n in 0..30 {
        let value = Some(format!("value {n}").into());
        producer
            .send(
                "t",
                ProducerRecord {
                    value,
                    ..Default::default()
                },
            )
            .await
            .unwrap();
    }
    producer.flush().await.unwrap();
    assert_eq!(
        fake.get(|s| s
            .partitions
            .values()
            .filter(|p| !p.values.is_empty())
            .count()),
        1
    );
    let keyed = ProducerRecord {
        key: Some("foobar".into()),
        ..Default::default()
    };
    let meta = producer.send("t", keyed).await.unwrap().await.unwrap();
    assert_eq!(meta.partition as usize, partitioner::of_key(b"foobar", 3));
    let nowhere = producer.send("t", record(3, 0)).await;
    assert!(matches!(nowhere, Err(ClientError::Invalid(_))));
}

#[tokio::test]
async fn a_dropped_producer_fails_what_is_left() {
    let fake = Fake::start().await;
    let cfg = ProducerConfig {
        linger: Duration::from_secs(3600),
        ..config(&fake)
    };
    let producer = Producer::new(cfg).await.unwrap();
    let delivery = producer.send("t", record(0, 0)).await.unwrap();
    drop(producer);
    assert_eq!(delivery.await.unwrap_err(), ClientError::Closed);
    assert!(stored(&fake, 0).is_empty());
}
