use std::sync::Arc;

use super::*;
use crate::groups::{CommitPartition, CommitRequest, CommitTopic, FetchedTopic};
use crate::log::RealFs;
use crate::topics::Checkpoints;

const SEGMENT_BYTES: i32 = 1 << 20;

fn open(dir: &std::path::Path) -> (Arc<GroupCoordinator>, Arc<Meta>, Arc<Topics>) {
    let mut config = BrokerConfig::in_dir(dir);
    config.offsets_topic_segment_bytes = SEGMENT_BYTES;
    // What is tested is what is kept, not when it reaches the disk.
    config.durability = Durability::Os;
    let (fs, config) = (Arc::new(RealFs), Arc::new(config));
    let checkpoints = Checkpoints::take(&*fs, dir).unwrap();
    let (meta, _) = Meta::open(fs.clone(), dir, 1, wall_ms()).unwrap();
    let meta = Arc::new(meta);
    let topics = Topics::open(fs, Arc::clone(&config), Arc::clone(&meta), &checkpoints, 0);
    let topics = Arc::new(topics.unwrap());
    let opened = GroupCoordinator::open(&config, Arc::clone(&topics), Arc::clone(&meta)).unwrap();
    (Arc::new(opened), meta, topics)
}

async fn commit(groups: &Arc<GroupCoordinator>, partition: i32, offset: i64) {
    let request = CommitRequest {
        group_id: "g".into(),
        generation: -1,
        member_id: String::new(),
        group_instance_id: None,
        retention_time_ms: -1,
        group_not_found_allowed: true,
        topics: vec![CommitTopic {
            name: "t".into(),
            partitions: vec![CommitPartition {
                partition,
                offset,
                leader_epoch: -1,
                metadata: Some("x".repeat(1000)),
            }],
        }],
    };
    let reply = groups
        .submit(|g, now, token| g.commit(now, token, request))
        .await;
    assert!(matches!(reply, Ok(Reply::Commit(Ok(_)))), "{reply:?}");
}

fn committed(groups: &GroupCoordinator) -> Vec<FetchedTopic> {
    groups.look(|g| g.fetch_offsets("g", None)).unwrap()
}

#[tokio::test]
async fn compaction_keeps_what_holds_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (groups, meta, topics) = open(dir.path());
    for n in 0..3000 {
        commit(&groups, (n % 10) as i32, n).await;
    }
    let partition = groups.lock().partition.clone().unwrap();
    let (before, grown) = (committed(&groups), partition.size_bytes());
    assert!(grown > 2 * SEGMENT_BYTES as u64);
    tokio::task::spawn_blocking({
        let groups = Arc::clone(&groups);
        move || groups.compact()
    })
    .await
    .unwrap();
    assert!(partition.log_start_offset() >= 3000);
    assert!(
        partition.size_bytes() < grown / 2,
        "closed segments are gone"
    );
    assert_eq!(committed(&groups), before);
    commit(&groups, 3, 7777).await;
    let after = committed(&groups);
    assert_ne!(after, before);

    // From the log alone, without the index and without a clean end.
    meta.index().reset(INDEX_SPACE);
    groups.stop();
    topics.close();
    meta.close();
    let (again, _, _) = open(dir.path());
    assert_eq!(committed(&again), after);
}
