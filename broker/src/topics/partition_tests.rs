use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;
use wire::batch::BatchHeader;
use wire::compress::Compression;
use wire::records::BatchBuilder;

use super::{Acks, AppendPlan, Partition, PartitionError};
use crate::log::fault_fs::{Fault, FaultFs};
use crate::log::{AppendError, Log, LogConfig, OpenFrom};

const NEVER: i64 = i64::MAX;

fn partition(fs: &FaultFs) -> Arc<Partition> {
    let from = OpenFrom {
        clean: true,
        ..OpenFrom::default()
    };
    let dir = Path::new("/data/t-0");
    let (log, _) = Log::open(Arc::new(fs.clone()), dir, LogConfig::default(), from, 0).unwrap();
    Arc::new(Partition::new("t".into(), Uuid::nil(), 0, 0, log))
}

fn batch(records: usize) -> (Bytes, BatchHeader) {
    let mut batch = BatchBuilder::new(Compression::None);
    for n in 0..records {
        batch.push(n as i64, None, Some(b"tick"), &[]);
    }
    let batch = batch.build(0);
    let header = BatchHeader::parse(&batch).unwrap();
    (batch, header)
}

fn plan(acks: Acks, flush_messages: i64) -> AppendPlan {
    AppendPlan {
        acks,
        log_append_time_ms: None,
        flush_messages,
        now_ms: 0,
    }
}

fn append(p: &Arc<Partition>, acks: Acks, flush_messages: i64) -> Option<i64> {
    let (bytes, header) = batch(2);
    p.append(&bytes, &header, plan(acks, flush_messages))
        .unwrap()
        .wait_offset
}

#[tokio::test]
async fn acks_all_is_shown_when_it_is_on_disk_and_acks_one_at_once() {
    let p = partition(&FaultFs::new(1));
    assert_eq!(append(&p, Acks::Kernel, NEVER), None);
    assert_eq!((p.end_offset(), p.high_watermark()), (2, 2));

    let wait = append(&p, Acks::Disk, NEVER).unwrap();
    assert_eq!((wait, p.end_offset()), (4, 4));
    p.wait_durable(wait).await.unwrap();
    assert_eq!((p.high_watermark(), p.flushed_offset()), (4, 4));
}

#[tokio::test]
async fn flush_messages_makes_every_producer_wait_once_so_many_are_unflushed() {
    let p = partition(&FaultFs::new(1));
    assert_eq!(append(&p, Acks::Kernel, 4), None);
    let wait = append(&p, Acks::Kernel, 4).expect("four records are not on disk");
    p.wait_durable(wait).await.unwrap();
    assert_eq!(p.flushed_offset(), 4);
    assert_eq!(append(&p, Acks::Kernel, 4), None);
}

#[tokio::test]
async fn flush_ms_brings_records_to_disk_without_being_asked() {
    let p = partition(&FaultFs::new(1));
    append(&p, Acks::Kernel, NEVER);
    assert_eq!(p.flushed_offset(), 0);
    p.flush_after(1);
    p.wait_durable(2).await.unwrap();
}

#[tokio::test]
async fn after_a_failed_flush_nothing_is_acknowledged_or_shown_or_taken() {
    let fs = FaultFs::new(1);
    let p = partition(&fs);
    let wait = append(&p, Acks::Disk, NEVER).unwrap();
    p.wait_durable(wait).await.unwrap();

    // The write itself succeeds, the flush behind it does not.
    fs.fail_at(1, Fault::Once);
    let wait = append(&p, Acks::Disk, NEVER).unwrap();
    let refused = p.wait_durable(wait).await;
    assert!(fs.struck() && matches!(refused, Err(PartitionError::FlushFailed)));
    assert_eq!(
        p.high_watermark(),
        2,
        "what was not acknowledged is not shown"
    );

    let (bytes, header) = batch(1);
    let next = p.append(&bytes, &header, plan(Acks::Kernel, NEVER));
    assert!(matches!(
        next,
        Err(PartitionError::Append(AppendError::Poisoned))
    ));
}

#[tokio::test]
async fn many_who_wait_share_flushes() {
    let p = partition(&FaultFs::new(1));
    let waits: Vec<i64> = (0..200)
        .map(|_| append(&p, Acks::Disk, NEVER).unwrap())
        .collect();
    let all = waits.into_iter().map(|offset| {
        let p = Arc::clone(&p);
        tokio::spawn(async move { p.wait_durable(offset).await.unwrap() })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    assert_eq!(p.flushed_offset(), 400);
}
