//! The records, byte by byte as Kafka's schemas say.

use super::super::schema::*;
use super::*;

#[test]
fn keys_are_kafkas() {
    assert_eq!(offset_key("g", "to", 5), b"\0\x01\0\x01g\0\x02to\0\0\0\x05");
    assert_eq!(group_key("grp"), b"\0\x02\0\x03grp");
    assert_eq!(
        decode_key(b"\0\x01\0\x01g\0\x02to\0\0\0\x05"),
        Ok(Key::Offset {
            group: "g".into(),
            topic: "to".into(),
            partition: 5
        })
    );
    assert_eq!(
        decode_key(b"\0\0\0\x01g\0\x02to\0\0\0\x05"),
        Ok(Key::Offset {
            group: "g".into(),
            topic: "to".into(),
            partition: 5
        })
    );
    assert_eq!(
        decode_key(b"\0\x02\0\0"),
        Ok(Key::Group {
            group: String::new()
        })
    );
    assert_eq!(decode_key(b"\0\x03\0\x01g"), Ok(Key::Unknown(3)));
}

#[test]
fn offsets_are_written_as_version_3_or_1() {
    let value = OffsetValue {
        offset: 258,
        leader_epoch: 4,
        metadata: "hi".into(),
        commit_timestamp_ms: 1,
        expire_timestamp_ms: None,
    };
    let v3 = b"\0\x03\0\0\0\0\0\0\x01\x02\0\0\0\x04\0\x02hi\0\0\0\0\0\0\0\x01";
    assert_eq!(value.encode(), v3);
    assert_eq!(OffsetValue::decode(v3), Ok(value.clone()));
    let with_expiry = OffsetValue {
        expire_timestamp_ms: Some(2),
        leader_epoch: -1,
        ..value
    };
    let v1 = b"\0\x01\0\0\0\0\0\0\x01\x02\0\x02hi\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02";
    assert_eq!(with_expiry.encode(), v1);
    assert_eq!(OffsetValue::decode(v1), Ok(with_expiry));
}

#[test]
fn offsets_of_all_versions_are_read() {
    let plain = OffsetValue {
        offset: 1,
        leader_epoch: -1,
        metadata: "m".into(),
        commit_timestamp_ms: 9,
        expire_timestamp_ms: None,
    };
    let v0 = b"\0\0\0\0\0\0\0\0\0\x01\0\x01m\0\0\0\0\0\0\0\x09";
    assert_eq!(OffsetValue::decode(v0), Ok(plain.clone()));
    let v1_without_expiry = [&b"\0\x01"[..], &v0[2..], &[0xff; 8]].concat();
    assert_eq!(OffsetValue::decode(&v1_without_expiry), Ok(plain.clone()));
    assert_eq!(
        OffsetValue::decode(&[&b"\0\x02"[..], &v0[2..]].concat()),
        Ok(plain.clone())
    );
    let v4 = b"\0\x04\0\0\0\0\0\0\0\x01\0\0\0\x08\x02m\0\0\0\0\0\0\0\x09\x01\0\x10abcdefghijklmnop";
    assert_eq!(
        OffsetValue::decode(v4),
        Ok(OffsetValue {
            leader_epoch: 8,
            ..plain
        })
    );
    assert_eq!(
        OffsetValue::decode(b"\0\x05"),
        Err(SchemaError::UnknownValueVersion(5))
    );
}

fn group() -> GroupValue {
    let member = MemberValue {
        member_id: "m".into(),
        group_instance_id: Some("i".into()),
        client_id: "c".into(),
        client_host: "/h".into(),
        rebalance_timeout_ms: 2,
        session_timeout_ms: 3,
        subscription: Bytes::from_static(b"sub"),
        assignment: Bytes::from_static(b"as"),
    };
    GroupValue {
        protocol_type: "consumer".into(),
        generation: 7,
        protocol: Some("range".into()),
        leader: Some("m".into()),
        state_timestamp_ms: 5,
        members: vec![member],
    }
}

const GROUP_V3: &[u8] =
    b"\0\x03\0\x08consumer\0\0\0\x07\0\x05range\0\x01m\0\0\0\0\0\0\0\x05\0\0\0\x01\
    \0\x01m\0\x01i\0\x01c\0\x02/h\0\0\0\x02\0\0\0\x03\0\0\0\x03sub\0\0\0\x02as";

#[test]
fn groups_are_written_as_version_3() {
    assert_eq!(group().encode(), GROUP_V3);
    assert_eq!(GroupValue::decode(GROUP_V3), Ok(group()));
    let empty = GroupValue {
        protocol: None,
        leader: None,
        protocol_type: String::new(),
        members: vec![],
        ..group()
    };
    assert_eq!(
        empty.encode(),
        b"\0\x03\0\0\0\0\0\x07\xff\xff\xff\xff\0\0\0\0\0\0\0\x05\0\0\0\0"
    );
}

#[test]
fn groups_of_all_versions_are_read() {
    let older = |rebalance_timeout_ms, state_timestamp_ms| {
        let mut value = GroupValue {
            state_timestamp_ms,
            ..group()
        };
        value.members[0].group_instance_id = None;
        value.members[0].rebalance_timeout_ms = rebalance_timeout_ms;
        value
    };
    let v0 = b"\0\0\0\x08consumer\0\0\0\x07\0\x05range\0\x01m\0\0\0\x01\
        \0\x01m\0\x01c\0\x02/h\0\0\0\x03\0\0\0\x03sub\0\0\0\x02as";
    let v1 = b"\0\x01\0\x08consumer\0\0\0\x07\0\x05range\0\x01m\0\0\0\x01\
        \0\x01m\0\x01c\0\x02/h\0\0\0\x02\0\0\0\x03\0\0\0\x03sub\0\0\0\x02as";
    let v2 = b"\0\x02\0\x08consumer\0\0\0\x07\0\x05range\0\x01m\0\0\0\0\0\0\0\x05\0\0\0\x01\
        \0\x01m\0\x01c\0\x02/h\0\0\0\x02\0\0\0\x03\0\0\0\x03sub\0\0\0\x02as";
    let v4 = b"\0\x04\x09consumer\0\0\0\x07\x06range\x02m\0\0\0\0\0\0\0\x05\x02\
        \x02m\x02i\x02c\x03/h\0\0\0\x02\0\0\0\x03\x04sub\x03as\0\0";
    assert_eq!(GroupValue::decode(v0), Ok(older(-1, -1)));
    assert_eq!(GroupValue::decode(v1), Ok(older(2, -1)));
    assert_eq!(GroupValue::decode(v2), Ok(older(2, 5)));
    assert_eq!(GroupValue::decode(v4), Ok(group()));
}

#[test]
fn cut_records_are_refused_and_counts_are_not_believed() {
    for n in 0..GROUP_V3.len() {
        assert!(GroupValue::decode(&GROUP_V3[..n]).is_err(), "cut at {n}");
    }
    let key = offset_key("g", "t", 1);
    for n in 0..key.len() {
        assert!(decode_key(&key[..n]).is_err(), "cut at {n}");
    }
    let huge = b"\0\x03\0\0\0\0\0\x07\xff\xff\xff\xff\0\0\0\0\0\0\0\x05\x7f\xff\xff\xff";
    assert_eq!(GroupValue::decode(huge), Err(SchemaError::TooShort));
    assert_eq!(
        GroupValue::decode(b"\0\x03\xff\xfe"),
        Err(SchemaError::BadLength)
    );
    assert_eq!(decode_key(b"\0\x02\0\x01\xff"), Err(SchemaError::BadText));
}

#[test]
fn subscriptions_are_read_by_their_head() {
    assert_eq!(
        subscribed_topics(&subscription(&["a", "bc"])),
        Some(vec!["a".into(), "bc".into()])
    );
    let newer = [
        &b"\0\x03\0\0\0\x01\0\x01a\0\0\0\x02xy"[..],
        b"owned partitions, generation, rack",
    ]
    .concat();
    assert_eq!(subscribed_topics(&newer), Some(vec!["a".into()]));
    for bad in [
        &b""[..],
        b"\0\0\x7f\xff\xff\xff",
        b"\0\0\0\0\0\x01\0\x05a",
        b"\xff\xff\0\0\0\0\xff\xff\xff\xff",
    ] {
        assert_eq!(subscribed_topics(bad), None, "{bad:?}");
    }
}

#[test]
fn too_long_strings_are_cut_at_a_character() {
    let key = group_key(&"ä".repeat(20_000));
    let Ok(Key::Group { group }) = decode_key(&key) else {
        panic!()
    };
    assert_eq!(group.len(), MAX_STRING_BYTES - 1);
}
