//! Batches built, read back, garbled and lied about.

use super::*;
use crate::batch::{self, validate, with_header};

const MAX: usize = 1 << 20;
const ALL: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

fn bytes(s: &'static str) -> Bytes {
    Bytes::from_static(s.as_bytes())
}

fn sample() -> Vec<Record> {
    let header = |key, value| Header { key, value };
    let odd = Bytes::from_static(b"\xff\xfe");
    vec![
        Record {
            offset: 40,
            timestamp: 1_000,
            key: Some(bytes("AAPL")),
            value: Some(Bytes::from(vec![b'v'; 500])),
            headers: vec![
                header(bytes("h"), Some(bytes("1"))),
                header(bytes("h"), None),
                header(odd, Some(Bytes::new())),
            ],
        },
        Record {
            offset: 41,
            timestamp: 900,
            key: None,
            value: None,
            headers: vec![],
        },
        Record {
            offset: 42,
            timestamp: i64::MAX,
            key: Some(Bytes::new()),
            value: Some(Bytes::new()),
            headers: vec![],
        },
    ]
}

fn build(codec: Compression, records: &[Record]) -> Bytes {
    let mut b = BatchBuilder::new(codec);
    for r in records {
        b.push(
            r.timestamp,
            r.key.as_deref(),
            r.value.as_deref(),
            &r.headers,
        );
    }
    assert_eq!(b.len(), records.len());
    b.build(40)
}

/// A batch around these bytes of records, CRC and all.
fn around(records: &[u8], count: i32) -> Bytes {
    let mut header = BatchHeader::parse(&BatchBuilder::new(Compression::None).build(0)).unwrap();
    header.record_count = count;
    header.last_offset_delta = count.saturating_sub(1);
    with_header(&[&[0; HEADER_LEN], records].concat(), header)
}

#[test]
fn what_is_built_is_read() {
    for codec in ALL {
        let batch = build(codec, &sample());
        assert_eq!(validate(&batch).unwrap().compression().unwrap(), codec);
        assert_eq!(decode(&batch, MAX).unwrap(), sample(), "{codec}");
    }
}

#[test]
fn the_size_is_known_before_it_is_built() {
    let mut b = BatchBuilder::new(Compression::None);
    assert!(b.is_empty());
    b.push(1, None, Some(b"0123456789"), &[]);
    assert_eq!(b.size_estimate(), b.clone().build(0).len());
}

#[test]
fn another_implementation_reads_it() {
    use kafka_protocol::records::RecordBatchDecoder;
    let batch = build(Compression::None, &sample()[..2]);
    // The crate keeps one header of a name and no odd bytes in names, so the second record.
    let mut only = BatchBuilder::new(Compression::None)
        .with_producer(5, 1, 0)
        .transactional();
    only.push(
        900,
        None,
        Some(b"x"),
        &[Header {
            key: bytes("k"),
            value: None,
        }],
    );
    let got = RecordBatchDecoder::decode(&mut only.build(7)).unwrap();
    let r = &got.records[0];
    assert_eq!(
        (r.offset, r.timestamp, r.sequence, r.producer_id),
        (7, 900, 0, 5)
    );
    assert!(r.transactional && r.value.as_deref() == Some(b"x"));
    assert_eq!(r.headers.len(), 1);
    assert_eq!(
        decode(&batch, 0).unwrap().len(),
        2,
        "no limit where nothing is unpacked"
    );
}

#[test]
fn records_share_the_batchs_memory() {
    let batch = build(Compression::None, &sample());
    let value = decode(&batch, MAX).unwrap().remove(0).value.unwrap();
    assert!(batch.as_ptr_range().contains(&value.as_ptr()));
}

#[test]
fn stamps_come_in_order_and_stop_on_demand() {
    for codec in ALL {
        let batch = build(codec, &sample());
        let mut seen = Vec::new();
        for_each_stamp(&batch, MAX, |o, t| {
            seen.push((o, t));
            if o == 41 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .unwrap();
        assert_eq!(seen, [(40, 1_000), (41, 900)], "{codec}");
    }
}

#[test]
fn log_append_time_is_every_records_time() {
    let mut b = BatchBuilder::new(Compression::Zstd).with_log_append_time(7_777);
    b.push(1, None, None, &[]);
    b.push(2, None, None, &[]);
    let times: Vec<i64> = decode(&b.build(0), MAX)
        .unwrap()
        .iter()
        .map(|r| r.timestamp)
        .collect();
    assert_eq!(times, [7_777, 7_777]);
}

#[test]
fn more_than_the_limit_is_not_unpacked() {
    let mut b = BatchBuilder::new(Compression::Gzip);
    b.push(0, None, Some(&vec![0; 5_000]), &[]);
    let batch = b.build(0);
    let got = decode(&batch, 5_000).unwrap_err();
    assert!(got.to_string().contains("5000 bytes"), "{got}");
    assert!(decode(&batch, 5_100).is_ok());
}

#[test]
fn counts_are_held_against_the_bytes_first() {
    for count in [i32::MAX, 2, -1] {
        // One record of seven bytes: room for one.
        let got = decode(&around(&[12, 0, 0, 0, 1, 1, 0], count), MAX);
        assert!(
            matches!(got, Err(BatchError::BadCount { .. })),
            "{count}: {got:?}"
        );
    }
    assert_eq!(
        decode(&around(&[12, 0, 0, 0, 1, 1, 0], 1), MAX)
            .unwrap()
            .len(),
        1
    );
    // A header count of 2^31 - 1.
    let lie = [20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f];
    let got = decode(&around(&lie, 1), MAX);
    assert!(
        matches!(
            got,
            Err(BatchError::BadRecord {
                what: "header count",
                ..
            })
        ),
        "{got:?}"
    );
}

#[test]
fn malformed_records_are_refused_by_kind() {
    let cases: [(&[u8], &str); 9] = [
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 1, 0], "length"),
        (&[14, 0, 0, 0, 1, 1, 0], "length beyond the batch"),
        (&[1, 0, 0, 0, 1, 1, 0], "length beyond the batch"),
        (&[12, 0, 0, 2, 1, 1, 0], "offset outside the batch"),
        (&[12, 0, 0, 1, 1, 1, 0], "offset outside the batch"),
        (&[12, 0, 0, 0, 3, 1, 0], "key"),
        (&[12, 0, 0, 0, 1, 20, 0], "value"),
        (&[16, 0, 0, 0, 1, 1, 2, 1, 0], "header"),
        (&[14, 0, 0, 0, 1, 1, 0, 0], "length"),
    ];
    for (records, want) in cases {
        match decode(&around(records, 1), MAX) {
            Err(BatchError::BadRecord { index: 0, what }) => assert_eq!(what, want),
            got => panic!("{records:?}: {got:?}, not {want}"),
        }
    }
    let left_over = decode(&around(&[12, 0, 0, 0, 1, 1, 0, 0], 1), MAX).unwrap_err();
    assert!(left_over.to_string().contains("left over"), "{left_over}");
}

#[test]
fn garbled_batches_never_panic() {
    let mut seed: u64 = 1;
    for codec in ALL {
        let good = build(codec, &sample());
        for _ in 0..2_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut bad = good.to_vec();
            let at = HEADER_LEN + (seed >> 33) as usize % (bad.len() - HEADER_LEN);
            bad[at] = (seed >> 20) as u8;
            if let Ok(records) = decode(&Bytes::from(bad), MAX) {
                assert_eq!(records.len(), 3);
            }
        }
    }
}

#[test]
fn numbers_of_all_sizes_come_back() {
    for n in [0, -1, 1, 63, -64, 64, 1 << 31, i64::MAX, i64::MIN] {
        let mut out = Vec::new();
        put_varlong(&mut out, n);
        let mut b = &out[..];
        assert_eq!((varlong(&mut b), b.len()), (Some(n), 0));
        let small = i32::try_from(n).ok();
        assert_eq!(varint(&mut &out[..]), small, "{n}");
    }
    assert_eq!(varlong(&mut &[0x80; 11][..]), None);
}

#[test]
fn control_batches_say_so() {
    let mut b = BatchBuilder::new(Compression::None)
        .control()
        .with_leader_epoch(4);
    b.push(1, Some(&[0, 0, 0, 1]), Some(&[0, 0, 0, 0, 0, 0]), &[]);
    let header = batch::validate(&b.build(3)).unwrap();
    assert!(header.is_control() && !header.is_transactional());
    assert_eq!(
        (header.partition_leader_epoch, header.last_offset()),
        (4, 3)
    );
}
