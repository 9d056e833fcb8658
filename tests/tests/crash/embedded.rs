//! The broker as a library, inside a test or a program.

use mini_broker::Broker;
use mini_broker::config::BrokerConfig;
use wire::client::producer::{Producer, ProducerConfig, ProducerRecord};
use wire::client::{Client, ClientConfig};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_on_a_port_of_its_own_and_keeps_what_it_got() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..2 {
        let broker = Broker::start(BrokerConfig::in_dir(dir.path()))
            .await
            .unwrap();
        let client = ClientConfig::new(&broker.bootstrap_servers());
        let producer = Producer::new(ProducerConfig {
            client: client.clone(),
            ..ProducerConfig::default()
        })
        .await
        .unwrap();
        let record = ProducerRecord {
            value: Some("tick".into()),
            ..ProducerRecord::default()
        };
        let delivered = producer.send("ticks", record).await.unwrap().await.unwrap();
        assert_eq!(delivered.offset, round);
        producer.close().await.unwrap();
        let end = Client::connect(client)
            .await
            .unwrap()
            .list_offset("ticks", 0, -1)
            .await
            .unwrap();
        assert_eq!(end, round + 1);
        broker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_live_side_by_side() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let first = Broker::start(BrokerConfig::in_dir(dirs[0].path()))
        .await
        .unwrap();
    let second = Broker::start(BrokerConfig::in_dir(dirs[1].path()))
        .await
        .unwrap();
    assert_ne!(first.bootstrap_servers(), second.bootstrap_servers());
    assert_ne!(first.cluster_id(), second.cluster_id());
    let taken = Broker::start(BrokerConfig::in_dir(dirs[0].path())).await;
    let error = taken
        .err()
        .expect("a directory is one broker's")
        .to_string();
    assert!(
        error.contains(&*dirs[0].path().to_string_lossy()),
        "{error}"
    );
    first.shutdown().await;
    second.shutdown().await;
}
