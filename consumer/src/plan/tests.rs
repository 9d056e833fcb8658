use super::*;
use crate::encode::testing::record;

fn batch(cell: i64, offsets: std::ops::Range<i64>) -> Batch {
    Batch {
        records: offsets.map(|o| record(o, "x")).collect(),
        cell,
        weight_bytes: 1,
    }
}

fn start(lane: &mut Lane) -> Option<(u64, i64, i64)> {
    lane.start(&mut 0)
        .map(|s| (s.id, s.batch.first(), s.batch.next()))
}

#[test]
fn commits_only_what_is_stored_without_a_hole() {
    let mut lane = Lane::new(Islands::default(), 0);
    for cell in 0..3 {
        lane.push(batch(cell, cell * 10..cell * 10 + 10));
    }
    let ids: Vec<u64> = std::iter::from_fn(|| start(&mut lane))
        .map(|s| s.0)
        .collect();
    assert_eq!(ids, [0, 1, 2]);
    lane.finish(2, 30);
    lane.finish(1, 20);
    assert_eq!(lane.done(), 0);
    lane.finish(0, 10);
    assert_eq!(
        (lane.done(), lane.is_idle(), lane.weight_bytes()),
        (30, true, 0)
    );
}

#[test]
fn within_a_cell_one_after_the_other() {
    let mut lane = Lane::new(Islands::default(), 0);
    lane.push(batch(0, 0..4));
    lane.push(batch(0, 4..7));
    lane.push(batch(1, 10..12));
    assert_eq!(start(&mut lane), Some((0, 0, 4)));
    assert_eq!(start(&mut lane), None);
    lane.finish(0, 4);
    assert_eq!(start(&mut lane), Some((1, 4, 7)));
    assert_eq!(start(&mut lane), Some((2, 10, 12)));
    assert_eq!(lane.flying(), 2);
}

#[test]
fn what_another_writer_stored_beyond_ours_is_left_out() {
    let mut lane = Lane::new(Islands::default(), 0);
    lane.push(batch(0, 0..4));
    lane.push(batch(0, 4..6));
    lane.push(batch(0, 6..10));
    assert_eq!(start(&mut lane), Some((0, 0, 4)));
    lane.finish(0, 8);
    let mut skipped = 0;
    let s = lane.start(&mut skipped).unwrap();
    assert_eq!(
        (s.id, s.batch.first(), s.batch.next(), skipped),
        (2, 8, 10, 4)
    );
    assert_eq!(lane.done(), 6);
    lane.finish(2, 10);
    assert_eq!(lane.done(), 10);
    assert!(lane.is_idle());
}

#[test]
fn adopted_objects_wait_for_what_lies_before_them() {
    let mut lane = Lane::new(Islands::default(), 5);
    lane.push(batch(0, 5..8));
    lane.adopt(12);
    lane.adopt(15);
    assert_eq!(lane.done(), 5);
    assert_eq!(start(&mut lane), Some((0, 5, 8)));
    lane.finish(0, 8);
    assert_eq!((lane.done(), lane.is_idle()), (15, true));
    lane.push(batch(1, 15..17));
    assert_eq!(start(&mut lane).map(|s| s.1), Some(15));
}

#[test]
fn islands_merge_skip_and_have_ends() {
    let mut islands = Islands::default();
    for (first, next) in [(10, 20), (20, 25), (30, 31), (40, 40)] {
        islands.insert(Stored { first, next });
    }
    assert_eq!(islands.skip(9), 9);
    assert_eq!(islands.skip(10), 25);
    assert_eq!(islands.end_of(24), Some(25));
    assert_eq!(islands.end_of(25), None);
    assert_eq!(islands.end_of(40), None);
}

#[test]
fn dropping_what_waits_keeps_what_flies() {
    let mut lane = Lane::new(Islands::default(), 0);
    lane.push(batch(0, 0..2));
    lane.push(batch(0, 2..4));
    assert!(start(&mut lane).is_some());
    lane.drop_waiting();
    assert_eq!((lane.weight_bytes(), lane.flying()), (1, 1));
    lane.finish(0, 2);
    assert_eq!((lane.done(), lane.is_idle()), (2, true));
    lane.finish(7, 9);
    assert_eq!(lane.done(), 2);
}

#[test]
fn a_late_report_counts_once() {
    let mut lane = Lane::new(Islands::default(), 0);
    lane.push(batch(0, 0..2));
    lane.push(batch(1, 2..4));
    assert!(start(&mut lane).is_some());
    assert!(start(&mut lane).is_some());
    lane.finish(1, 4);
    lane.finish(1, 4);
    assert_eq!((lane.flying(), lane.done()), (1, 0));
}
