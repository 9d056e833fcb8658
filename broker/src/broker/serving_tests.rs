//! A broker under rude clients, and started and stopped in every way: raw sockets against
//! `Broker::start`.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, FetchRequest, GroupId, JoinGroupRequest, ProduceRequest,
    RequestHeader, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::compress::Compression;
use wire::records::BatchBuilder;

use super::*;
use crate::config::Listener;
use crate::connection::{self, Budget};
use crate::topics::{NewTopic, Partition};

const TOPIC: &str = "t";

fn frame<R: Encodable>(key: ApiKey, version: i16, id: i32, request: &R) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i32(0);
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(id);
    header
        .encode(&mut out, key.request_header_version(version))
        .unwrap();
    request.encode(&mut out, version).unwrap();
    let len = (out.len() - 4) as i32;
    out[..4].copy_from_slice(&len.to_be_bytes());
    out.freeze()
}

fn ping(id: i32) -> Bytes {
    frame(ApiKey::ApiVersions, 0, id, &ApiVersionsRequest::default())
}

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

fn fetch(id: i32, offset: i64, max_wait_ms: i32) -> Bytes {
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_partition_max_bytes(i32::MAX);
    let of_topic = FetchTopic::default()
        .with_topic(topic())
        .with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(i32::MAX)
        .with_topics(vec![of_topic]);
    frame(ApiKey::Fetch, 4, id, &request)
}

fn produce(id: i32, acks: i16, value: &[u8]) -> Bytes {
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(1, None, Some(value), &[]);
    let data = PartitionProduceData::default().with_records(Some(batch.build(0)));
    let of_topic = TopicProduceData::default()
        .with_name(topic())
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(i32::MAX)
        .with_topic_data(vec![of_topic]);
    frame(ApiKey::Produce, 7, id, &request)
}

async fn start(dir: &tempfile::TempDir) -> Broker {
    Broker::start(BrokerConfig::in_dir(dir.path()))
        .await
        .unwrap()
}

async fn connect(broker: &Broker) -> TcpStream {
    TcpStream::connect(broker.bootstrap_servers())
        .await
        .unwrap()
}

async fn with_topic(broker: &Broker) -> Arc<Partition> {
    let new = NewTopic {
        name: TOPIC.into(),
        partitions: 1,
        configs: BTreeMap::from([("max.message.bytes".to_owned(), "100000000".to_owned())]),
    };
    let topic = broker.node.topics().create_or_get(new).await.unwrap();
    Arc::clone(topic.partition(0).unwrap())
}

/// The next answer's correlation id and length; `None` at the end.
async fn answer(stream: &mut TcpStream) -> Option<(i32, usize)> {
    let len = stream.read_i32().await.ok()? as usize;
    let id = stream.read_i32().await.unwrap();
    let mut body = vec![0; len - 4];
    stream.read_exact(&mut body).await.unwrap();
    Some((id, len))
}

async fn ids(stream: &mut TcpStream) -> Vec<i32> {
    let mut ids = Vec::new();
    while let Some((id, _)) = answer(stream).await {
        ids.push(id);
    }
    ids
}

/// Lets others run until it is so. A hang is the test's failure.
async fn until(mut it_is_so: impl FnMut() -> bool) {
    while !it_is_so() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_that_has_closed_its_side_gets_every_answer() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir).await;
    with_topic(&broker).await;
    let mut client = connect(&broker).await;
    let all = [
        ping(1),
        produce(2, -1, b"x"),
        fetch(3, 1, 100),
        ping(4),
        produce(5, -1, b"y"),
        ping(6),
    ];
    client.write_all(&all.concat()).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(ids(&mut client).await, [1, 2, 3, 4, 5, 6]);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_bad_frame_costs_nothing_that_came_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir).await;
    with_topic(&broker).await;
    let bad = [&[0xff; 4][..], &[0, 0, 0, 2, 9, 9], &[0x7f, 0, 0, 0, 0]];
    for bad in bad {
        let mut client = connect(&broker).await;
        // The acknowledgement waits for the disk while the bad frame is already there.
        let all = [&ping(1), &produce(2, -1, b"x")[..], bad, &ping(3)];
        client.write_all(&all.concat()).await.unwrap();
        assert_eq!(ids(&mut client).await, [1, 2]);
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn frames_in_any_pieces_are_answered_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir).await;
    with_topic(&broker).await;
    for piece in [1, 7, 4096, usize::MAX] {
        let mut client = connect(&broker).await;
        client.set_nodelay(true).unwrap();
        let count = if piece == 1 { 6 } else { 600 };
        let mut all = Vec::new();
        for id in 0..count {
            all.extend_from_slice(&match id % 3 {
                0 => ping(id),
                1 => produce(id, -1, b"value"),
                _ => produce(id, 1, b"value"),
            });
        }
        let (mut read, mut write) = client.split();
        let writing = async {
            for part in all.chunks(piece.min(all.len())) {
                write.write_all(part).await.unwrap();
            }
        };
        let reading = async {
            for id in 0..count {
                let len = read.read_i32().await.unwrap() as usize;
                assert_eq!(read.read_i32().await.unwrap(), id);
                read.read_exact(&mut vec![0; len - 4]).await.unwrap();
            }
        };
        tokio::join!(writing, reading);
    }
    broker.shutdown().await;
}

/// With max_wait 24 days, only the broker's own notice can end the wait.
#[tokio::test]
async fn a_client_that_goes_away_takes_its_long_poll_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir).await;
    let partition = with_topic(&broker).await;
    for resets in [true, false] {
        let mut client = connect(&broker).await;
        client.write_all(&fetch(1, 0, i32::MAX)).await.unwrap();
        until(|| partition.waiters().len() == 1).await;
        if resets {
            client.set_zero_linger().unwrap();
        }
        drop(client);
        until(|| partition.waiters().is_empty()).await;
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_does_not_hold_up_the_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir).await;
    with_topic(&broker).await;
    let mut client = connect(&broker).await;
    client
        .write_all(&produce(1, 1, &vec![b'x'; 40 << 20]))
        .await
        .unwrap();
    assert_eq!(answer(&mut client).await.unwrap().0, 1);
    for id in 2..6 {
        client.write_all(&fetch(id, 0, 0)).await.unwrap();
    }
    // The answer is on its way, and more than the socket holds.
    client.readable().await.unwrap();
    // Somebody else who waits for more than will come.
    let mut waiting = connect(&broker).await;
    waiting.write_all(&fetch(7, 1, i32::MAX)).await.unwrap();
    let partition = with_topic(&broker).await;
    until(|| partition.waiters().len() == 1).await;
    broker.shutdown().await;
    assert_eq!(
        ids(&mut waiting).await,
        [7],
        "a long poll is answered before the end"
    );
}

#[tokio::test]
async fn a_join_is_answered_when_the_broker_stops() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = BrokerConfig::in_dir(dir.path());
    config.group_initial_rebalance_delay_ms = i32::MAX;
    let broker = Broker::start(config).await.unwrap();
    let protocol = JoinGroupRequestProtocol::default().with_name(StrBytes::from_static_str("p"));
    let join = JoinGroupRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("g")))
        .with_session_timeout_ms(1_000_000)
        .with_rebalance_timeout_ms(1_000_000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol]);
    let mut client = connect(&broker).await;
    client
        .write_all(&frame(ApiKey::JoinGroup, 3, 9, &join))
        .await
        .unwrap();
    // The first join creates the topic: from there on the request is in flight.
    until(|| broker.node.topics().by_name("__consumer_offsets").is_some()).await;
    broker.shutdown().await;
    assert_eq!(ids(&mut client).await, [9]);
}

#[tokio::test]
async fn acknowledged_means_there_after_a_shutdown_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir).await;
    with_topic(&broker).await;
    let mut client = connect(&broker).await;
    let (mut read, mut write) = client.split();
    let writing = async {
        // Ends when the broker closes the connection.
        for id in 0.. {
            if write.write_all(&produce(id, -1, b"value")).await.is_err() {
                return;
            }
        }
    };
    let (begun, seen) = tokio::sync::oneshot::channel();
    let reading = async {
        let (mut acknowledged, mut begun) = (0, Some(begun));
        while let Ok(len) = read.read_i32().await {
            let mut body = vec![0; len as usize];
            if read.read_exact(&mut body).await.is_err() {
                break;
            }
            acknowledged += 1;
            if acknowledged == 50 {
                let _ = begun.take().unwrap().send(());
            }
        }
        acknowledged
    };
    let stopping = async {
        seen.await.unwrap();
        broker.shutdown().await;
    };
    let ((), acknowledged, ()) = tokio::join!(writing, reading, stopping);
    let again = start(&dir).await;
    let partition = with_topic(&again).await;
    assert!(acknowledged >= 50 && partition.end_offset() >= acknowledged);
    again.shutdown().await;
}

#[tokio::test]
async fn a_broker_can_be_stopped_before_it_has_begun() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing of it has run yet on this single thread: the stop must not be missed.
    for _ in 0..3 {
        start(&dir).await.shutdown().await;
    }
}

async fn drop_and_start_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = BrokerConfig::in_dir(dir.path());
    let mut broker = Broker::start(config.clone()).await.unwrap();
    with_topic(&broker).await;
    let port = broker.node.bound()[0].addr.port();
    config.listeners.0[0].port = port;
    for round in 0..3 {
        let mut client = connect(&broker).await;
        client.write_all(&produce(1, -1, b"x")).await.unwrap();
        assert_eq!(answer(&mut client).await.unwrap().0, 1);
        client
            .write_all(&fetch(2, 1_000_000, i32::MAX))
            .await
            .unwrap();
        drop(broker);
        broker = Broker::start(config.clone()).await.unwrap();
        assert_eq!(with_topic(&broker).await.end_offset(), round + 1);
    }
    broker.shutdown().await;
    Broker::start(config).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn a_dropped_broker_gives_back_port_and_directory() {
    drop_and_start_again().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_broker_gives_back_port_and_directory_among_threads() {
    drop_and_start_again().await;
}

#[tokio::test]
async fn brokers_of_one_process_keep_apart() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let brokers = [start(&dirs[0]).await, start(&dirs[1]).await];
    let second = Broker::start(BrokerConfig::in_dir(dirs[0].path())).await;
    let Err(StartError::DataDir(error)) = second else {
        panic!("two brokers hold one directory");
    };
    assert!(
        error.to_string().contains("in use by another broker"),
        "{error}"
    );
    assert_ne!(brokers[0].cluster_id(), brokers[1].cluster_id());
    for broker in brokers {
        broker.shutdown().await;
    }
}

#[tokio::test]
async fn bootstrap_servers_can_be_reached_from_here() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = [
        ("0.0.0.0", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("::", "[::1]"),
        ("::1", "[::1]"),
        ("localhost", "127.0.0.1"),
    ];
    let ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    for (host, told) in hosts
        .into_iter()
        .filter(|(_, told)| ipv6 || !told.contains(':'))
    {
        let mut config = BrokerConfig::in_dir(dir.path());
        config.listeners.0 = vec![Listener::new(host, 0)];
        let broker = Broker::start(config).await.unwrap();
        let servers = broker.bootstrap_servers();
        assert!(
            servers.starts_with(&format!("{told}:")),
            "{host}: {servers}"
        );
        let mut client = connect(&broker).await;
        client.write_all(&ping(1)).await.unwrap();
        assert_eq!(answer(&mut client).await.unwrap().0, 1);
        broker.shutdown().await;
    }
}

#[tokio::test]
async fn idle_connections_end_also_within_a_frame_and_never_when_so_configured() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = BrokerConfig::in_dir(dir.path());
    config.connections_max_idle_ms = 20;
    let broker = Broker::start(config.clone()).await.unwrap();
    for begun in [&b""[..], &[0, 0], &[0, 1, 0, 0, 7]] {
        let mut client = connect(&broker).await;
        client.write_all(begun).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
    }
    broker.shutdown().await;
    config.connections_max_idle_ms = -1;
    let broker = Broker::start(config).await.unwrap();
    let (mut silent, mut busy) = (connect(&broker).await, connect(&broker).await);
    for id in 0..200 {
        busy.write_all(&ping(id)).await.unwrap();
        assert_eq!(answer(&mut busy).await.unwrap().0, id);
    }
    silent.write_all(&ping(1)).await.unwrap();
    assert_eq!(answer(&mut silent).await.unwrap().0, 1);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_burst_of_connects_waits_for_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir).await;
    // On this thread nothing is accepted meanwhile: the queue alone takes them.
    let connect = |_| std::net::TcpStream::connect(broker.bootstrap_servers()).unwrap();
    let burst: Vec<_> = (0..120).map(connect).collect();
    let mut client = self::connect(&broker).await;
    client.write_all(&ping(1)).await.unwrap();
    assert_eq!(answer(&mut client).await.unwrap().0, 1);
    drop(burst);
    broker.shutdown().await;
}

#[tokio::test]
async fn max_connections_holds_and_places_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = BrokerConfig::in_dir(dir.path());
    config.max_connections = 2;
    let broker = Broker::start(config).await.unwrap();
    let mut held = Vec::new();
    for id in 0..2 {
        let mut client = connect(&broker).await;
        client.write_all(&ping(id)).await.unwrap();
        assert_eq!(answer(&mut client).await.unwrap().0, id);
        held.push(client);
    }
    assert_eq!(connect(&broker).await.read(&mut [0]).await.unwrap_or(0), 0);
    held.pop();
    // The broker notices in its own time.
    loop {
        let mut client = connect(&broker).await;
        if client.write_all(&ping(7)).await.is_ok() && answer(&mut client).await.is_some() {
            break;
        }
    }
    broker.shutdown().await;
}

/// Serves one connection of `broker` within `budget`; gives the client's end.
async fn serve_within(broker: &Broker, budget: &Budget) -> TcpStream {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
    let (stream, peer) = accepted.unwrap();
    let (node, budget) = (Arc::clone(&broker.node), budget.clone());
    let stopping = node.subscribe_stopping();
    tokio::spawn(connection::serve(stream, peer, node, budget, stopping));
    client.unwrap()
}

#[tokio::test]
async fn large_requests_share_a_budget_that_small_ones_do_not_need() {
    const ALL: usize = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir).await;
    with_topic(&broker).await;
    let budget = Budget::new(ALL as i64, ALL - 4);
    let large = produce(1, -1, &vec![b'x'; 900 << 10]);
    let held = budget.try_reserve(ALL).unwrap();
    let mut client = serve_within(&broker, &budget).await;
    let (mut read, mut write) = client.split();
    let answered = std::cell::Cell::new(false);
    let writing = async { write.write_all(&large).await.unwrap() };
    let reading = async {
        read.read_i32().await.unwrap();
        answered.set(true);
    };
    let others = async {
        let mut small = serve_within(&broker, &budget).await;
        for id in 0..200 {
            small.write_all(&ping(id)).await.unwrap();
            assert_eq!(answer(&mut small).await.unwrap().0, id);
        }
        assert!(!answered.get(), "a large request was read without leave");
        drop(held);
    };
    tokio::join!(writing, reading, others);
    until(|| budget.try_reserve(ALL).is_some()).await;
    // A client that goes away in the middle gives back what was set aside for it.
    let mut client = serve_within(&broker, &budget).await;
    client.write_all(&large[..800 << 10]).await.unwrap();
    until(|| budget.try_reserve(ALL).is_none()).await;
    drop(client);
    until(|| budget.try_reserve(ALL).is_some()).await;
    broker.shutdown().await;
}

/// Bytes of address space of this process.
fn address_space() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').next().unwrap().parse().unwrap();
    pages * 4096
}

/// Claims of 100 MB with one byte each: what is in memory is what arrived.
#[tokio::test]
async fn claimed_lengths_take_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir).await;
    let before = address_space();
    let mut liars = Vec::new();
    for _ in 0..300 {
        let mut client = connect(&broker).await;
        client.write_all(&[5, 0xf5, 0xe1, 0, 1]).await.unwrap();
        liars.push(client);
    }
    let mut honest = connect(&broker).await;
    honest.write_all(&ping(1)).await.unwrap();
    assert_eq!(answer(&mut honest).await.unwrap().0, 1);
    // Address space, touched or not; 300 claims of 100 MB are 30 GB.
    let taken = address_space().saturating_sub(before);
    assert!(taken < 8 << 30, "{taken} bytes were taken");
    broker.shutdown().await;
}
