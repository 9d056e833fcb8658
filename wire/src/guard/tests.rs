//! Holds the tables against the decoder: bodies generated from the tables must be what the decoder
//! reads, to the byte, for every request and version; what the crate encodes must pass; cuts, lies
//! and garbled bytes must not get through to the decoder's allocations.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{self as m, ApiKey, RequestHeader};
use kafka_protocol::protocol::{
    Request, StrBytes, VersionRange, encode_request_header_into_buffer,
};

use super::tables::{Field, Kind, SHAPES, Shape, shape};
use super::*;

/// Bytes encoded again and how many the decoder left, or why it refused.
type Again = Result<(Vec<u8>, usize), String>;

/// What the tests need of a request's type.
struct Codec {
    key: i16,
    versions: VersionRange,
    header_version: fn(i16) -> i16,
    /// The default request, encoded.
    default: fn(i16) -> Vec<u8>,
    /// Decodes and encodes again; also how many bytes the decoder left.
    again: fn(&[u8], i16) -> Again,
}

fn codec<R: Request + Default>() -> Codec {
    fn encoded<R: Request>(r: &R, version: i16) -> Vec<u8> {
        let mut out = BytesMut::new();
        r.encode(&mut out, version).unwrap();
        out.to_vec()
    }
    Codec {
        key: R::KEY,
        versions: R::VERSIONS,
        header_version: R::header_version,
        default: |version| encoded(&R::default(), version),
        again: |body, version| {
            let mut bytes = Bytes::copy_from_slice(body);
            let r = R::decode(&mut bytes, version).map_err(|e| e.to_string())?;
            Ok((encoded(&r, version), bytes.len()))
        },
    }
}

macro_rules! codecs {
    ($($name:ident)+) => { vec![$(codec::<m::$name>()),+] };
}

fn codecs() -> Vec<Codec> {
    codecs![
        ProduceRequest FetchRequest ListOffsetsRequest MetadataRequest OffsetCommitRequest
        OffsetFetchRequest FindCoordinatorRequest JoinGroupRequest HeartbeatRequest
        LeaveGroupRequest SyncGroupRequest DescribeGroupsRequest ListGroupsRequest
        SaslHandshakeRequest ApiVersionsRequest CreateTopicsRequest DeleteTopicsRequest
        DeleteRecordsRequest InitProducerIdRequest OffsetForLeaderEpochRequest
        AddPartitionsToTxnRequest AddOffsetsToTxnRequest EndTxnRequest WriteTxnMarkersRequest
        TxnOffsetCommitRequest DescribeAclsRequest CreateAclsRequest DeleteAclsRequest
        DescribeConfigsRequest AlterConfigsRequest AlterReplicaLogDirsRequest
        DescribeLogDirsRequest SaslAuthenticateRequest CreatePartitionsRequest
        CreateDelegationTokenRequest RenewDelegationTokenRequest ExpireDelegationTokenRequest
        DescribeDelegationTokenRequest DeleteGroupsRequest ElectLeadersRequest
        IncrementalAlterConfigsRequest AlterPartitionReassignmentsRequest
        ListPartitionReassignmentsRequest OffsetDeleteRequest DescribeClientQuotasRequest
        AlterClientQuotasRequest DescribeUserScramCredentialsRequest
        AlterUserScramCredentialsRequest DescribeQuorumRequest UpdateFeaturesRequest
        DescribeClusterRequest DescribeProducersRequest UnregisterBrokerRequest
        DescribeTransactionsRequest ListTransactionsRequest ConsumerGroupHeartbeatRequest
        ConsumerGroupDescribeRequest GetTelemetrySubscriptionsRequest PushTelemetryRequest
        ListConfigResourcesRequest DescribeTopicPartitionsRequest
    ]
}

/// Every request in every version.
fn every(mut f: impl FnMut(&Codec, &'static Shape, i16)) {
    for codec in codecs() {
        let shape = shape(codec.key).unwrap();
        for version in codec.versions.min..=codec.versions.max {
            f(&codec, shape, version);
        }
    }
}

/// Bodies of a shape, from a seed (xorshift: always the same ones).
struct Gen {
    seed: u64,
    version: i16,
    flexible: bool,
    out: Vec<u8>,
    /// Where each array's count begins and ends.
    counts: Vec<(usize, usize)>,
}

impl Gen {
    fn body(shape: &'static Shape, version: i16, seed: u64) -> Gen {
        let seed = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ((shape.api_key as u64) << 8);
        let flexible = version >= shape.flexible;
        let mut g = Gen {
            seed,
            version,
            flexible,
            out: Vec::new(),
            counts: Vec::new(),
        };
        g.fields(shape.fields);
        g
    }

    fn below(&mut self, n: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 33) % n
    }

    fn fields(&mut self, fields: &'static [Field]) {
        let (version, flexible) = (self.version, self.flexible);
        for f in fields
            .iter()
            .filter(|f| f.tag.is_none() && f.is_in(version))
        {
            self.kind(f.kind);
        }
        if flexible {
            self.tags(fields);
        }
    }

    fn tags(&mut self, fields: &'static [Field]) {
        let version = self.version;
        let known: Vec<&Field> = fields
            .iter()
            .filter(|f| f.tag.is_some() && f.is_in(version))
            .collect();
        let unknown = self.below(3);
        put_unsigned(&mut self.out, known.len() as u64 + unknown);
        for f in known {
            put_unsigned(&mut self.out, u64::from(f.tag.unwrap()));
            let before = std::mem::take(&mut self.out);
            self.kind(f.kind);
            let value = std::mem::replace(&mut self.out, before);
            put_unsigned(&mut self.out, value.len() as u64);
            self.out.extend(value);
        }
        for i in 0..unknown {
            put_unsigned(&mut self.out, 100 + 100 * i);
            self.bytes_compact();
        }
    }

    fn bytes_compact(&mut self) {
        let len = self.below(5);
        put_unsigned(&mut self.out, len);
        self.out.extend((0..len).map(|_| b'x'));
    }

    fn kind(&mut self, kind: Kind) {
        match kind {
            // A byte is often a boolean, which comes back as 0 or 1.
            Kind::Fixed(1) => {
                let b = self.below(2) as u8;
                self.out.push(b);
            }
            Kind::Fixed(n) => {
                for _ in 0..n {
                    let b = self.below(256) as u8;
                    self.out.push(b);
                }
            }
            Kind::Text | Kind::Bytes => {
                let len = self.below(6) as usize;
                let text = matches!(kind, Kind::Text);
                match (self.flexible, text) {
                    (true, _) => put_unsigned(&mut self.out, len as u64 + 1),
                    (false, true) => self.out.extend((len as i16).to_be_bytes()),
                    (false, false) => self.out.extend((len as i32).to_be_bytes()),
                }
                for _ in 0..len {
                    let b = b'a' + self.below(26) as u8;
                    self.out.push(b);
                }
            }
            Kind::Each(element) => {
                for _ in 0..self.count() {
                    self.kind(*element);
                }
            }
            Kind::List(fields) => {
                for _ in 0..self.count() {
                    self.fields(fields);
                }
            }
            Kind::Struct(fields) => self.fields(fields),
            Kind::Maybe(fields) => {
                if self.below(2) == 0 {
                    self.out.push(0xff);
                } else {
                    self.out.push(1);
                    self.fields(fields);
                }
            }
        }
    }

    fn count(&mut self) -> u64 {
        let (n, at) = (self.below(4), self.out.len());
        if self.flexible {
            put_unsigned(&mut self.out, n + 1);
        } else {
            self.out.extend((n as i32).to_be_bytes());
        }
        self.counts.push((at, self.out.len()));
        n
    }
}

fn put_unsigned(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[test]
fn tables_are_in_order_and_complete() {
    assert!(SHAPES.windows(2).all(|w| w[0].api_key < w[1].api_key));
    let codecs = codecs();
    assert_eq!(codecs.len(), SHAPES.len());
    for c in &codecs {
        let shape = shape(c.key).unwrap();
        assert_eq!(
            shape.versions,
            (c.versions.min, c.versions.max),
            "versions of {}",
            c.key
        );
    }
    every(|c, shape, version| {
        let flexible = (c.header_version)(version) == 2;
        assert_eq!(version >= shape.flexible, flexible, "{} v{version}", c.key);
    });
}

#[test]
fn default_requests_pass() {
    every(|c, _, version| {
        let body = (c.default)(version);
        assert_eq!(
            check(c.key, version, &body),
            Ok(body.len()),
            "{} v{version}",
            c.key
        );
    });
}

#[test]
fn populated_requests_are_what_the_decoder_reads_to_the_byte() {
    every(|c, shape, version| {
        for seed in 0..30 {
            let body = Gen::body(shape, version, seed).out;
            let what = format!("{} v{version} seed {seed}", c.key);
            assert_eq!(check(c.key, version, &body), Ok(body.len()), "{what}");
            let (again, left) = (c.again)(&body, version).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(left, 0, "{what}");
            // Encoded by the crate from its own structures, it has the same length and passes.
            assert_eq!(again.len(), body.len(), "{what}");
            assert_eq!(check(c.key, version, &again), Ok(again.len()), "{what}");
        }
    });
}

#[test]
fn every_cut_is_refused_and_bytes_behind_the_request_are_left_alone() {
    every(|c, shape, version| {
        for seed in 0..4 {
            let mut body = Gen::body(shape, version, seed).out;
            for cut in 0..body.len() {
                let got = check(c.key, version, &body[..cut]);
                assert!(got.is_err(), "{} v{version} seed {seed} cut {cut}", c.key);
            }
            body.push(0);
            let got = check(c.key, version, &body);
            assert_eq!(got, Ok(body.len() - 1), "{} v{version}", c.key);
        }
    });
}

#[test]
fn giant_and_negative_counts_are_refused_in_every_array() {
    let mut arrays = 0;
    every(|c, shape, version| {
        let flexible = version >= shape.flexible;
        for seed in 0..4 {
            let good = Gen::body(shape, version, seed);
            for &(from, to) in &good.counts {
                arrays += 1;
                for lie in [i32::MAX, 1 << 24, -2, i32::MIN] {
                    let mut body = good.out[..from].to_vec();
                    if flexible {
                        put_unsigned(&mut body, u64::from(lie as u32));
                    } else {
                        body.extend(lie.to_be_bytes());
                    }
                    body.extend_from_slice(&good.out[to..]);
                    // A tag around the array has the wrong size now, which is as good a reason.
                    let got = check(c.key, version, &body).unwrap_err();
                    assert!(
                        matches!(
                            got,
                            GuardError::CutShort { .. } | GuardError::BadLength { .. }
                        ),
                        "{} v{version} {lie}: {got}",
                        c.key
                    );
                }
            }
        }
    });
    assert!(arrays > 1000, "{arrays}");
}

#[test]
fn garbled_bodies_that_pass_leave_the_decoder_in_step() {
    let mut passed = 0;
    every(|c, shape, version| {
        for seed in 0..60 {
            let mut g = Gen::body(shape, version, seed % 6);
            if g.out.is_empty() {
                continue;
            }
            g.seed = (seed + 7).wrapping_mul(0x2545_f491_4f6c_dd1d);
            for _ in 0..1 + g.below(3) {
                let at = g.below(g.out.len() as u64) as usize;
                g.out[at] = [0, 1, 2, 0x7f, 0x80, 0xff][g.below(6) as usize];
            }
            if let Ok(walked) = check(c.key, version, &g.out) {
                // Refusing is the decoder's right (nulls, text), but not reading something else.
                if let Ok((_, left)) = (c.again)(&g.out, version) {
                    let behind = g.out.len() - walked;
                    assert_eq!(left, behind, "{} v{version} seed {seed}", c.key);
                    passed += 1;
                }
            }
        }
    });
    assert!(passed > 500, "{passed}");
}

#[test]
fn elements_are_bounded_all_together() {
    // Metadata v0: an array of names, each empty and two bytes long.
    let names = |n: usize| [&(n as i32).to_be_bytes()[..], &vec![0; 2 * n]].concat();
    assert!(check(3, 0, &names(MAX_ELEMENTS)).is_ok());
    assert_eq!(
        check(3, 0, &names(MAX_ELEMENTS + 1)),
        Err(GuardError::TooManyElements)
    );
    // Tagged fields count, too: ApiVersions v3, two empty texts, then fields of no bytes.
    let tags = |n: usize| {
        let mut body = vec![1, 1];
        put_unsigned(&mut body, n as u64);
        body.extend([9, 0].repeat(n));
        body
    };
    assert!(check(18, 3, &tags(MAX_ELEMENTS)).is_ok());
    assert_eq!(
        check(18, 3, &tags(MAX_ELEMENTS + 1)),
        Err(GuardError::TooManyElements)
    );
}

#[test]
fn tagged_fields_whose_size_lies_are_refused() {
    // Fetch v12: fixed fields, two empty arrays, an empty rack, one tagged field: the cluster id.
    let fetch = |version: i16, tail: &[u8]| {
        let replica = if version <= 14 { 4 } else { 0 };
        let body = [&vec![0; replica + 12 + 1 + 8][..], &[1, 1, 1], tail].concat();
        check(1, version, &body).map(drop)
    };
    assert_eq!(fetch(12, &[1, 0, 3, 3, b'a', b'b']), Ok(()));
    for size in [0, 1, 2, 4] {
        let got = fetch(12, &[1, 0, size, 3, b'a', b'b']);
        assert!(
            matches!(got, Err(GuardError::BadTag { .. })),
            "{size}: {got:?}"
        );
    }
    // Tag 1, the replica's state, came with version 15.
    let state = [&[1, 1, 13][..], &[0; 13]].concat();
    assert_eq!(fetch(15, &state), Ok(()));
    assert!(matches!(fetch(14, &state), Err(GuardError::BadTag { .. })));
}

#[test]
fn numbers_beyond_32_bits_are_refused() {
    // The decoder would drop the upper bits, or stop at the fifth byte, and lose step.
    for long in [
        [0x81, 0x80, 0x80, 0x80, 0x10],
        [0x81, 0x80, 0x80, 0x80, 0x80],
    ] {
        let body = [&long[..], &[0, 0, 0]].concat();
        let got = check(18, 3, &body);
        assert_eq!(got, Err(GuardError::BadLength { at: 0 }));
    }
}

#[test]
fn unknown_requests_and_versions_are_told_apart() {
    assert_eq!(check(999, 0, &[]), Err(GuardError::UnknownApi(999)));
    assert_eq!(check(-1, 0, &[]), Err(GuardError::UnknownApi(-1)));
    // Vote (52) is the controllers' own.
    assert_eq!(check(52, 0, &[]), Err(GuardError::UnknownApi(52)));
    for version in [-1, 2, 14, i16::MAX] {
        assert_eq!(
            check(0, version, &[]),
            Err(GuardError::UnsupportedVersion {
                api_key: 0,
                version,
                min: 3,
                max: 13
            })
        );
    }
}

#[test]
fn headers_are_read_as_the_decoder_reads_them() {
    for client_id in [None, Some(""), Some("rdkafka")] {
        every(|c, _, version| {
            let header = RequestHeader::default()
                .with_request_api_key(c.key)
                .with_request_api_version(version)
                .with_correlation_id(-7)
                .with_client_id(client_id.map(StrBytes::from_static_str));
            let mut frame = BytesMut::new();
            encode_request_header_into_buffer(&mut frame, &header).unwrap();
            let len = frame.len();
            frame.extend_from_slice(b"body");
            let view = check_header(&frame).unwrap();
            let want = HeaderView {
                api_key: c.key,
                api_version: version,
                correlation_id: -7,
                client_id,
                header_len: len,
            };
            assert_eq!(view, want);
            for cut in 0..len {
                assert!(
                    check_header(&frame[..cut]).is_err(),
                    "{} v{version} {cut}",
                    c.key
                );
            }
        });
    }
}

#[test]
fn header_lies_are_refused_and_new_versions_are_not() {
    let head = |key: i16, version: i16, tail: &[u8]| {
        [
            &key.to_be_bytes()[..],
            &version.to_be_bytes(),
            &[0, 0, 0, 9],
            tail,
        ]
        .concat()
    };
    // ApiVersions of a version to come, with a tagged field in its header.
    let frame = head(18, 99, &[0, 1, b'c', 1, 0, 2, 7, 7]);
    let view = check_header(&frame).unwrap();
    assert_eq!((view.api_version, view.header_len), (99, frame.len()));
    let lies: [(&[u8], GuardError); 4] = [
        (&[0x7f, 0xff, b'c'], GuardError::CutShort { at: 10 }),
        (&[0xff, 0xfe], GuardError::BadLength { at: 10 }),
        (&[0, 1, 0xff, 0], GuardError::BadClientId),
        (
            &[0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f],
            GuardError::TooManyElements,
        ),
    ];
    for (tail, want) in lies {
        assert_eq!(check_header(&head(18, 3, tail)), Err(want));
    }
    assert_eq!(
        check_header(&head(1234, 0, &[0, 0])),
        Err(GuardError::UnknownApi(1234))
    );
    assert!(ApiKey::try_from(1234).is_err());
}
