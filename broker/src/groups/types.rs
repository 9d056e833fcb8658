//! Requests, replies, errors and limits of the group coordinator. Plain data, no behaviour but small helpers.

use bytes::Bytes;

use super::coordinator::Undo;

/// Chosen by the shell; names one waiting request.
pub type Token = u64;

/// The longest string a record of `__consumer_offsets` can hold: its length is an int16.
pub const MAX_STRING_BYTES: usize = i16::MAX as usize;

/// Settings of the coordinator, in Kafka's terms where it has one.
#[derive(Clone, Debug)]
pub struct GroupsConfig {
    /// `group.min.session.timeout.ms`
    pub min_session_ms: i32,
    /// `group.max.session.timeout.ms`
    pub max_session_ms: i32,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: i32,
    /// How long a new member may wait in its first JoinGroup (Kafka's constant).
    pub new_member_join_timeout_ms: i32,
    /// `group.max.size`
    pub max_size: usize,
    /// `offset.metadata.max.bytes`; counted in UTF-16 units, as Java does.
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`, in ms.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: i64,
    /// Our own limit on the number of groups.
    pub max_groups: usize,
    /// Our own limit on members of one group that were told their id but have not come back with it (KIP-394).
    pub max_pending_members: usize,
    /// Our own limit on what the members of one group say about themselves and are assigned: it becomes one record.
    pub max_group_bytes: usize,
    /// Our own limit on all groups and offsets together, an estimate of their memory.
    pub max_total_bytes: usize,
}

impl Default for GroupsConfig {
    fn default() -> Self {
        GroupsConfig {
            min_session_ms: 6_000,
            max_session_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            new_member_join_timeout_ms: 300_000,
            max_size: i32::MAX as usize,
            offset_metadata_max_bytes: 4_096,
            offsets_retention_ms: 7 * 24 * 3_600_000,
            offsets_retention_check_interval_ms: 600_000,
            max_groups: 100_000,
            max_pending_members: 10_000,
            max_group_bytes: 8 << 20,
            max_total_bytes: 128 << 20,
        }
    }
}

/// Why a request was refused; one variant per Kafka error code that groups can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum GroupError {
    #[error("the coordinator does not know this member; rejoin with an empty member id")]
    UnknownMemberId,
    #[error("the generation is not the group's current one; rejoin the group")]
    IllegalGeneration,
    #[error("the group is rebalancing; rejoin it")]
    RebalanceInProgress,
    #[error("join again with the member id given in this answer")]
    MemberIdRequired,
    #[error("another member joined with the same group.instance.id; give each member its own")]
    FencedInstanceId,
    #[error("the protocols are not those of the group; all members need a common assignor")]
    InconsistentGroupProtocol,
    #[error(
        "session.timeout.ms is outside group.min.session.timeout.ms and group.max.session.timeout.ms"
    )]
    InvalidSessionTimeout,
    #[error("the group id is invalid; set a group.id that is not empty")]
    InvalidGroupId,
    #[error("the group is full; raise group.max.size or use fewer members")]
    GroupMaxSizeReached,
    #[error(
        "the metadata of the offset is too large; shorten it or raise offset.metadata.max.bytes"
    )]
    OffsetMetadataTooLarge,
    #[error("the committed offsets take more memory than groups are given; delete unused groups")]
    InvalidCommitOffsetSize,
    #[error("the group does not exist")]
    GroupIdNotFound,
    #[error("the group has members; stop them first")]
    NonEmptyGroup,
    #[error("the group is subscribed to the topic; stop its members first")]
    GroupSubscribedToTopic,
    #[error("the topic or partition does not exist")]
    UnknownTopicOrPartition,
    #[error("the coordinator is loading its log; try again")]
    CoordinatorLoadInProgress,
    #[error("the coordinator is not available; try again")]
    CoordinatorNotAvailable,
    #[error("this broker does not coordinate the group any more; look the coordinator up again")]
    NotCoordinator,
    #[error("a transaction has not decided about the offset yet; try again")]
    UnstableOffsetCommit,
    #[error("a string of the request is longer than a group's record can hold")]
    InvalidRequest,
    #[error("the request could not be served; see the broker's log")]
    UnknownServerError,
}

/// One protocol (assignor) a member supports, with the member's opaque metadata for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

/// JoinGroup 0–9.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    pub group_id: String,
    /// Empty for a member that has none yet.
    pub member_id: String,
    /// KIP-345, v5+.
    pub group_instance_id: Option<String>,
    pub protocol_type: String,
    pub protocols: Vec<Protocol>,
    pub session_timeout_ms: i32,
    /// −1 (v0 does not have it) means the session timeout.
    pub rebalance_timeout_ms: i32,
    pub client_id: String,
    /// As Java shows an address: `/127.0.0.1`.
    pub client_host: String,
    /// What the member is called if it is new: `<instance id or client id>-<random UUID>`.
    pub new_member_id: String,
    /// True from v4 (KIP-394): a new dynamic member is told its id and asked to come back with it.
    pub require_known_member_id: bool,
    /// True from v9 (KIP-814): a replaced static leader gets the members, and need not assign.
    pub can_skip_assignment: bool,
}

/// A successful JoinGroup. Before v7 a missing `protocol_name` goes out as an empty string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    pub leader: String,
    pub skip_assignment: bool,
    pub member_id: String,
    /// Only the leader gets them.
    pub members: Vec<JoinedMember>,
}

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub metadata: Bytes,
}

/// A refused JoinGroup; its answer names a member id (generation −1, leader empty, no members).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRefused {
    pub error: GroupError,
    pub member_id: String,
}

/// SyncGroup 0–5.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    pub group_id: String,
    pub generation: i32,
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    /// True from v5: protocol type and name must be there.
    pub protocol_mandatory: bool,
    /// Member id and assignment; only the leader's count.
    pub assignments: Vec<(String, Bytes)>,
}

/// A successful SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    pub assignment: Bytes,
}

/// Heartbeat 0–4.
#[derive(Clone, Debug)]
pub struct HeartbeatRequest {
    pub group_id: String,
    pub generation: i32,
    pub member_id: String,
    pub group_instance_id: Option<String>,
}

/// LeaveGroup 0–5. Before v3 there is one member, and its error is the answer's.
#[derive(Clone, Debug)]
pub struct LeaveRequest {
    pub group_id: String,
    pub members: Vec<LeavingMember>,
}

/// Empty `member_id` with an instance id: removal by an administrator.
#[derive(Clone, Debug)]
pub struct LeavingMember {
    pub member_id: String,
    pub group_instance_id: Option<String>,
}

/// What became of one leaving member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftMember {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub error: Option<GroupError>,
}

/// OffsetCommit 2–9. The shell has taken out topics that do not exist.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    pub group_id: String,
    /// −1: not a member (simple consumer or administrator).
    pub generation: i32,
    pub member_id: String,
    /// v7+
    pub group_instance_id: Option<String>,
    /// v2–4; −1 for the broker's retention.
    pub retention_time_ms: i64,
    /// True from v9: an unknown group is GROUP_ID_NOT_FOUND instead of ILLEGAL_GENERATION.
    pub group_not_found_allowed: bool,
    pub topics: Vec<CommitTopic>,
}

/// The partitions of one topic to commit.
#[derive(Clone, Debug)]
pub struct CommitTopic {
    pub name: String,
    pub partitions: Vec<CommitPartition>,
}

/// One offset to commit.
#[derive(Clone, Debug)]
pub struct CommitPartition {
    pub partition: i32,
    pub offset: i64,
    /// −1 when unknown (before v6).
    pub leader_epoch: i32,
    pub metadata: Option<String>,
}

/// Results per partition of one topic, in the order asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicResults {
    pub name: String,
    pub partitions: Vec<(i32, Option<GroupError>)>,
}

/// One topic of an OffsetFetch answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedTopic {
    pub name: String,
    pub partitions: Vec<FetchedOffset>,
}

/// One committed offset; −1, −1 and "" where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffset {
    pub partition: i32,
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
    pub error: Option<GroupError>,
}

/// A group in ListGroups 0–5. The type is always "classic".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    pub group_id: String,
    /// "" for a simple group.
    pub protocol_type: String,
    pub state: super::State,
}

/// A group in DescribeGroups 0–6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedGroup {
    pub group_id: String,
    pub state: super::State,
    pub protocol_type: String,
    /// The chosen protocol; "" unless the group is stable.
    pub protocol_data: String,
    pub members: Vec<DescribedMember>,
}

/// A member in DescribeGroups; the metadata is empty unless the group is stable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub metadata: Bytes,
    pub assignment: Bytes,
}

/// The answer to a waiting request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Join(Result<Joined, JoinRefused>),
    Sync(Result<Synced, GroupError>),
    Leave(Result<Vec<LeftMember>, GroupError>),
    Commit(Result<Vec<TopicResults>, GroupError>),
    /// Group id and result, in the order asked.
    DeleteGroups(Vec<(String, Option<GroupError>)>),
    DeleteOffsets(Result<Vec<TopicResults>, GroupError>),
}

impl Reply {
    /// The same answer, refused: its records could not be written.
    pub(super) fn refused(self, error: GroupError) -> Reply {
        match self {
            Reply::Join(Ok(_)) => Reply::Join(Err(JoinRefused {
                error,
                member_id: String::new(),
            })),
            Reply::Join(Err(r)) if r.error == GroupError::MemberIdRequired => {
                Reply::Join(Err(JoinRefused {
                    error,
                    member_id: String::new(),
                }))
            }
            Reply::Join(Err(r)) => Reply::Join(Err(r)),
            Reply::Sync(r) => Reply::Sync(Err(r.err().unwrap_or(error))),
            Reply::Leave(_) => Reply::Leave(Err(error)),
            Reply::Commit(_) => Reply::Commit(Err(error)),
            Reply::DeleteGroups(all) => Reply::DeleteGroups(
                all.into_iter()
                    .map(|(id, e)| (id, e.or(Some(error))))
                    .collect(),
            ),
            Reply::DeleteOffsets(_) => Reply::DeleteOffsets(Err(error)),
        }
    }
}

/// One record of `__consumer_offsets`: key, and value or tombstone.
pub type OffsetsRecord = (Vec<u8>, Option<Vec<u8>>);

/// What a call asks of the shell: make `records` durable, then deliver `replies`.
#[derive(Debug, Default)]
pub struct Output {
    pub records: Vec<OffsetsRecord>,
    pub replies: Vec<(Token, Reply)>,
    pub(super) undo: Vec<Undo>,
}

impl Output {
    pub(super) fn reply(&mut self, token: Token, reply: Reply) {
        self.replies.push((token, reply));
    }

    pub(super) fn answer(token: Token, reply: Reply) -> Output {
        Output {
            replies: vec![(token, reply)],
            ..Output::default()
        }
    }
}
