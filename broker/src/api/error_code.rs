//! The one place from the broker's errors to Kafka's codes. Matches are exhaustive on purpose: a
//! new error has to be given its code here.

use kafka_protocol::ResponseError;
use wire::batch::BatchError;

use crate::coordinator::CoordinatorError;
use crate::fetch_session::SessionError;
use crate::groups::GroupError;
use crate::log::{AppendError, LogError, ReadError};
use crate::meta::MetaError;
use crate::topics::{PartitionError, TopicsError};

/// A batch that is not what its header says.
pub fn of_batch(error: &BatchError) -> ResponseError {
    match error {
        BatchError::UnknownCompression(_) => ResponseError::UnsupportedCompressionType,
        // Old formats are refused for good; a number nobody has given out is damage.
        BatchError::BadMagic(0 | 1) => ResponseError::InvalidRecord,
        // Not retriable, as a corrupt message would be: the client sent no whole batch.
        BatchError::TooShort { .. } | BatchError::BadCount { .. } => ResponseError::InvalidRecord,
        _ => ResponseError::CorruptMessage,
    }
}

/// A partition that could not take a batch.
pub fn of_partition(error: &PartitionError) -> ResponseError {
    match error {
        PartitionError::Append(e) => of_append(e),
        PartitionError::Log(e) => of_log(e),
        PartitionError::FlushFailed => ResponseError::KafkaStorageError,
        PartitionError::Deleted => ResponseError::UnknownTopicOrPartition,
    }
}

fn of_append(error: &AppendError) -> ResponseError {
    match error {
        AppendError::Poisoned | AppendError::Io { .. } => ResponseError::KafkaStorageError,
        AppendError::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
        AppendError::InvalidProducerEpoch { .. } => ResponseError::InvalidProducerEpoch,
        AppendError::UnknownProducerId { .. } => ResponseError::UnknownProducerId,
        AppendError::InvalidTxnState { .. } => ResponseError::InvalidTxnState,
        AppendError::CoordinatorFenced { .. } => ResponseError::TransactionCoordinatorFenced,
        AppendError::TooLarge { .. } => ResponseError::RecordListTooLarge,
        AppendError::Malformed => ResponseError::CorruptMessage,
    }
}

fn of_log(error: &LogError) -> ResponseError {
    match error {
        LogError::Io { .. } | LogError::Poisoned => ResponseError::KafkaStorageError,
        LogError::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
    }
}

/// A fetch or look-up that found nothing to read.
pub fn of_read(error: &ReadError) -> ResponseError {
    match error {
        ReadError::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
        ReadError::Corrupt { .. } => ResponseError::CorruptMessage,
        ReadError::Io(_) => ResponseError::KafkaStorageError,
    }
}

/// A fetch session that is not there.
pub fn of_session(error: SessionError) -> ResponseError {
    match error {
        SessionError::NotFound => ResponseError::FetchSessionIdNotFound,
        SessionError::InvalidEpoch => ResponseError::InvalidFetchSessionEpoch,
        SessionError::TopicIds => ResponseError::FetchSessionTopicIdError,
    }
}

/// A topic that could not be created or deleted.
pub fn of_topics(error: &TopicsError) -> ResponseError {
    match error {
        TopicsError::InvalidName(_) => ResponseError::InvalidTopicException,
        TopicsError::Exists(_) => ResponseError::TopicAlreadyExists,
        TopicsError::InvalidPartitions(_) => ResponseError::InvalidPartitions,
        TopicsError::Unknown => ResponseError::UnknownTopicOrPartition,
        TopicsError::Internal => ResponseError::InvalidTopicException,
        TopicsError::Config(_) => ResponseError::InvalidConfig,
        TopicsError::Meta(e) => of_meta(e),
        TopicsError::Log(e) => of_log(e),
        TopicsError::Io { .. } | TopicsError::Stopping => ResponseError::KafkaStorageError,
    }
}

fn of_meta(error: &MetaError) -> ResponseError {
    match error {
        MetaError::InvalidTopicName(_) => ResponseError::InvalidTopicException,
        MetaError::TopicExists(_) => ResponseError::TopicAlreadyExists,
        MetaError::UnknownTopic(_) => ResponseError::UnknownTopicOrPartition,
        MetaError::UnknownTopicId(_) => ResponseError::UnknownTopicId,
        MetaError::InvalidPartitions(_) => ResponseError::InvalidPartitions,
        MetaError::InvalidRequest(_) => ResponseError::InvalidRequest,
        MetaError::Storage(_) | MetaError::Open(_) => ResponseError::KafkaStorageError,
    }
}

/// A group that refuses.
pub fn of_group(error: GroupError) -> ResponseError {
    match error {
        GroupError::UnknownMemberId => ResponseError::UnknownMemberId,
        GroupError::IllegalGeneration => ResponseError::IllegalGeneration,
        GroupError::RebalanceInProgress => ResponseError::RebalanceInProgress,
        GroupError::MemberIdRequired => ResponseError::MemberIdRequired,
        GroupError::FencedInstanceId => ResponseError::FencedInstanceId,
        GroupError::InconsistentGroupProtocol => ResponseError::InconsistentGroupProtocol,
        GroupError::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
        GroupError::InvalidGroupId => ResponseError::InvalidGroupId,
        GroupError::GroupMaxSizeReached => ResponseError::GroupMaxSizeReached,
        GroupError::OffsetMetadataTooLarge => ResponseError::OffsetMetadataTooLarge,
        GroupError::InvalidCommitOffsetSize => ResponseError::InvalidCommitOffsetSize,
        GroupError::GroupIdNotFound => ResponseError::GroupIdNotFound,
        GroupError::NonEmptyGroup => ResponseError::NonEmptyGroup,
        GroupError::GroupSubscribedToTopic => ResponseError::GroupSubscribedToTopic,
        GroupError::UnknownTopicOrPartition => ResponseError::UnknownTopicOrPartition,
        GroupError::CoordinatorLoadInProgress => ResponseError::CoordinatorLoadInProgress,
        GroupError::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
        GroupError::NotCoordinator => ResponseError::NotCoordinator,
        GroupError::UnstableOffsetCommit => ResponseError::UnstableOffsetCommit,
        GroupError::InvalidRequest => ResponseError::InvalidRequest,
        GroupError::UnknownServerError => ResponseError::UnknownServerError,
    }
}

/// A coordinator that cannot answer: clients look it up again and retry.
pub fn of_coordinator(error: &CoordinatorError) -> ResponseError {
    match error {
        CoordinatorError::Append(_)
        | CoordinatorError::Topics(_)
        | CoordinatorError::Read(_)
        | CoordinatorError::Batch(_)
        | CoordinatorError::Unavailable => ResponseError::CoordinatorNotAvailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_damage_is_told_as_corrupt() {
        // Clients send a corrupt batch again; what is malformed by intent must not be retried.
        let short = BatchError::TooShort { have: 3, need: 61 };
        for refused in [short, BatchError::BadMagic(0), BatchError::BadMagic(1)] {
            assert_eq!(of_batch(&refused), ResponseError::InvalidRecord);
        }
        assert_eq!(
            of_batch(&BatchError::BadMagic(3)),
            ResponseError::CorruptMessage
        );
        let crc = BatchError::BadCrc {
            stored: 1,
            computed: 2,
        };
        assert_eq!(of_batch(&crc), ResponseError::CorruptMessage);
    }
}
