//! The shapes of the requests, one line or a few each: kinds of fields in the order of the wire,
//! and the versions that have them. Facts of Kafka 4.1's protocol (KIP-482 for flexible versions
//! and tags); the tests hold every line against the decoder.

/// What a field looks like on the wire.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// Text behind its length, or null.
    Text,
    /// Bytes behind their length, or null.
    Bytes,
    /// An array of something plain.
    Each(&'static Kind),
    /// An array of structures.
    List(&'static [Field]),
    /// A structure.
    Struct(&'static [Field]),
    /// A structure behind a byte that says whether it is there.
    Maybe(&'static [Field]),
}

/// A field, and the versions that have it.
#[derive(Clone, Copy)]
pub(super) struct Field {
    pub kind: Kind,
    pub from: i16,
    pub to: i16,
    pub tag: Option<u32>,
}

impl Field {
    const fn of(kind: Kind) -> Field {
        Field {
            kind,
            from: 0,
            to: i16::MAX,
            tag: None,
        }
    }

    /// First version that has it.
    const fn from(self, version: i16) -> Field {
        Field {
            from: version,
            ..self
        }
    }

    /// Last version that has it.
    const fn to(self, version: i16) -> Field {
        Field {
            to: version,
            ..self
        }
    }

    /// It stands among the tagged fields, under this number.
    const fn tag(self, tag: u32) -> Field {
        Field {
            tag: Some(tag),
            ..self
        }
    }

    pub fn is_in(&self, version: i16) -> bool {
        self.from <= version && version <= self.to
    }
}

/// One request.
pub(super) struct Shape {
    pub api_key: i16,
    /// Oldest and newest version the decoder knows.
    pub versions: (i16, i16),
    /// First flexible version.
    pub flexible: i16,
    pub fields: &'static [Field],
}

/// The shape of a request; `None` for requests of brokers among themselves and unknown ones.
pub(super) fn shape(api_key: i16) -> Option<&'static Shape> {
    let at = SHAPES.binary_search_by_key(&api_key, |s| s.api_key).ok()?;
    SHAPES.get(at)
}

/// Flexible from no version on.
const NEVER: i16 = i16::MAX;

const BOOL: Field = Field::of(Kind::Fixed(1));
const I8: Field = Field::of(Kind::Fixed(1));
const I16: Field = Field::of(Kind::Fixed(2));
const I32: Field = Field::of(Kind::Fixed(4));
const I64: Field = Field::of(Kind::Fixed(8));
const F64: Field = Field::of(Kind::Fixed(8));
const UUID: Field = Field::of(Kind::Fixed(16));
const TEXT: Field = Field::of(Kind::Text);
const BYTES: Field = Field::of(Kind::Bytes);
const I8S: Field = Field::of(Kind::Each(&Kind::Fixed(1)));
const I32S: Field = Field::of(Kind::Each(&Kind::Fixed(4)));
const I64S: Field = Field::of(Kind::Each(&Kind::Fixed(8)));
const TEXTS: Field = Field::of(Kind::Each(&Kind::Text));

/// `list![..]`: an array of structures of these fields.
macro_rules! list {
    ($($field:expr),+ $(,)?) => { Field::of(Kind::List(const { &[$($field),+] })) };
}

/// `shapes! { key name min..max flexible: [fields] }`, by rising key.
macro_rules! shapes {
    ($($key:literal $name:ident $min:literal..$max:literal $flexible:tt: [$($field:expr),* $(,)?];)+) => {
        pub(super) static SHAPES: &[Shape] = &[$(Shape {
            api_key: $key,
            versions: ($min, $max),
            flexible: $flexible,
            fields: const { &[$($field),*] },
        }),+];
    };
}

/// A name and some partitions: the commonest pair.
const TOPIC_PARTITIONS: Field = list![TEXT, I32S];
/// A name and a value.
const NAME_VALUE: Field = list![TEXT, TEXT];
/// Resource type and name, pattern type, principal, host, operation, permission.
const ACL: &[Field] = &[I8, TEXT, I8, TEXT, TEXT, I8, I8];

shapes! {
    0 Produce 3..13 9: [
        TEXT, I16, I32,
        list![TEXT.to(12), UUID.from(13), list![I32, BYTES]],
    ];
    1 Fetch 4..18 12: [
        I32.to(14), I32, I32, I32, I8, I32.from(7), I32.from(7),
        list![
            TEXT.to(12), UUID.from(13),
            list![
                I32, I32.from(9), I64, I32.from(12), I64.from(5), I32,
                UUID.from(17).tag(0), I64.from(18).tag(1),
            ],
        ],
        list![TEXT.to(12), UUID.from(13), I32S].from(7),
        TEXT.from(11),
        TEXT.from(12).tag(0),
        Field::of(Kind::Struct(&[I32, I64])).from(15).tag(1),
    ];
    2 ListOffsets 1..10 6: [
        I32, I8.from(2),
        list![TEXT, list![I32, I32.from(4), I64]],
        I32.from(10),
    ];
    3 Metadata 0..13 9: [
        list![UUID.from(10), TEXT],
        BOOL.from(4), BOOL.from(8).to(10), BOOL.from(8),
    ];
    8 OffsetCommit 2..9 8: [
        TEXT, I32, TEXT, TEXT.from(7), I64.to(4),
        list![TEXT, list![I32, I64, I32.from(6), TEXT]],
    ];
    9 OffsetFetch 1..9 6: [
        TEXT.to(7), TOPIC_PARTITIONS.to(7),
        list![TEXT, TEXT.from(9), I32.from(9), TOPIC_PARTITIONS].from(8),
        BOOL.from(7),
    ];
    10 FindCoordinator 0..6 3: [TEXT.to(3), I8.from(1), TEXTS.from(4)];
    11 JoinGroup 0..9 6: [
        TEXT, I32, I32.from(1), TEXT, TEXT.from(5), TEXT,
        list![TEXT, BYTES],
        TEXT.from(8),
    ];
    12 Heartbeat 0..4 4: [TEXT, I32, TEXT, TEXT.from(3)];
    13 LeaveGroup 0..5 4: [TEXT, TEXT.to(2), list![TEXT, TEXT, TEXT.from(5)].from(3)];
    14 SyncGroup 0..5 4: [
        TEXT, I32, TEXT, TEXT.from(3), TEXT.from(5), TEXT.from(5),
        list![TEXT, BYTES],
    ];
    15 DescribeGroups 0..6 5: [TEXTS, BOOL.from(3)];
    16 ListGroups 0..5 3: [TEXTS.from(4), TEXTS.from(5)];
    17 SaslHandshake 0..1 NEVER: [TEXT];
    18 ApiVersions 0..4 3: [TEXT.from(3), TEXT.from(3)];
    19 CreateTopics 2..7 5: [
        list![TEXT, I32, I16, list![I32, I32S], NAME_VALUE],
        I32, BOOL,
    ];
    20 DeleteTopics 1..6 4: [list![TEXT, UUID].from(6), TEXTS.to(5), I32];
    21 DeleteRecords 0..2 2: [list![TEXT, list![I32, I64]], I32];
    22 InitProducerId 0..5 2: [TEXT, I32, I64.from(3), I16.from(3)];
    23 OffsetForLeaderEpoch 2..4 4: [I32.from(3), list![TEXT, list![I32, I32, I32]]];
    24 AddPartitionsToTxn 0..5 3: [
        list![TEXT, I64, I16, BOOL, TOPIC_PARTITIONS].from(4),
        TEXT.to(3), I64.to(3), I16.to(3), TOPIC_PARTITIONS.to(3),
    ];
    25 AddOffsetsToTxn 0..4 3: [TEXT, I64, I16, TEXT];
    26 EndTxn 0..5 3: [TEXT, I64, I16, BOOL];
    27 WriteTxnMarkers 1..1 1: [list![I64, I16, BOOL, TOPIC_PARTITIONS, I32]];
    28 TxnOffsetCommit 0..5 3: [
        TEXT, TEXT, I64, I16, I32.from(3), TEXT.from(3), TEXT.from(3),
        list![TEXT, list![I32, I64, I32.from(2), TEXT]],
    ];
    29 DescribeAcls 1..3 2: [I8, TEXT, I8, TEXT, TEXT, I8, I8];
    30 CreateAcls 1..3 2: [Field::of(Kind::List(ACL))];
    31 DeleteAcls 1..3 2: [Field::of(Kind::List(ACL))];
    32 DescribeConfigs 1..4 4: [list![I8, TEXT, TEXTS], BOOL, BOOL.from(3)];
    33 AlterConfigs 0..2 2: [list![I8, TEXT, NAME_VALUE], BOOL];
    34 AlterReplicaLogDirs 1..2 2: [list![TEXT, TOPIC_PARTITIONS]];
    35 DescribeLogDirs 1..4 2: [TOPIC_PARTITIONS];
    36 SaslAuthenticate 0..2 2: [BYTES];
    37 CreatePartitions 0..3 2: [list![TEXT, I32, list![I32S]], I32, BOOL];
    38 CreateDelegationToken 1..3 2: [TEXT.from(3), TEXT.from(3), NAME_VALUE, I64];
    39 RenewDelegationToken 1..2 2: [BYTES, I64];
    40 ExpireDelegationToken 1..2 2: [BYTES, I64];
    41 DescribeDelegationToken 1..3 2: [NAME_VALUE];
    42 DeleteGroups 0..2 2: [TEXTS];
    43 ElectLeaders 0..2 2: [I8.from(1), TOPIC_PARTITIONS, I32];
    44 IncrementalAlterConfigs 0..1 1: [list![I8, TEXT, list![TEXT, I8, TEXT]], BOOL];
    45 AlterPartitionReassignments 0..1 0: [
        I32, BOOL.from(1),
        list![TEXT, list![I32, I32S]],
    ];
    46 ListPartitionReassignments 0..0 0: [I32, TOPIC_PARTITIONS];
    47 OffsetDelete 0..0 NEVER: [TEXT, list![TEXT, list![I32]]];
    48 DescribeClientQuotas 0..1 1: [list![TEXT, I8, TEXT], BOOL];
    49 AlterClientQuotas 0..1 1: [list![NAME_VALUE, list![TEXT, F64, BOOL]], BOOL];
    50 DescribeUserScramCredentials 0..0 0: [list![TEXT]];
    51 AlterUserScramCredentials 0..0 0: [list![TEXT, I8], list![TEXT, I8, I32, BYTES, BYTES]];
    55 DescribeQuorum 0..2 0: [list![TEXT, list![I32]]];
    57 UpdateFeatures 0..2 0: [
        I32,
        list![TEXT, I16, BOOL.to(0), I8.from(1)],
        BOOL.from(1),
    ];
    60 DescribeCluster 0..2 0: [BOOL, I8.from(1), BOOL.from(2)];
    61 DescribeProducers 0..0 0: [TOPIC_PARTITIONS];
    64 UnregisterBroker 0..0 0: [I32];
    65 DescribeTransactions 0..0 0: [TEXTS];
    66 ListTransactions 0..2 0: [TEXTS, I64S, I64.from(1), TEXT.from(2)];
    68 ConsumerGroupHeartbeat 0..1 0: [
        TEXT, TEXT, I32, TEXT, TEXT, I32, TEXTS, TEXT.from(1), TEXT,
        list![UUID, I32S],
    ];
    69 ConsumerGroupDescribe 0..1 0: [TEXTS, BOOL];
    71 GetTelemetrySubscriptions 0..0 0: [UUID];
    72 PushTelemetry 0..0 0: [UUID, I32, BOOL, I8, BYTES];
    74 ListConfigResources 0..1 0: [I8S.from(1)];
    75 DescribeTopicPartitions 0..0 0: [
        list![TEXT], I32,
        Field::of(Kind::Maybe(&[TEXT, I32])),
    ];
}
