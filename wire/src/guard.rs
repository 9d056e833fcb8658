//! Walks a request before it is decoded. The decoder takes memory for arrays on the word of their
//! counts, and a stranger's eight bytes could ask it for gigabytes; here every length is held
//! against the bytes that are there, by tables of the requests' shapes ([`tables`]). Allocates
//! nothing. Knows shapes, not meanings: text that is no UTF-8 or a null where none may be is the
//! decoder's to refuse.

mod tables;
#[cfg(test)]
mod tests;
mod walk;

use kafka_protocol::messages::ApiKey;

use walk::Walk;

/// Most array elements and tagged fields one request may hold, all together. Decoded, an element
/// takes some 100 bytes however short it was on the wire, so this is the bound on memory.
pub const MAX_ELEMENTS: usize = 1 << 17;

/// Why a request is refused before it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// No request anyone here knows; Kafka closes the connection on it.
    #[error("unknown API key {0}: is the peer a Kafka client?")]
    UnknownApi(i16),
    /// A version outside the decoder's range; the answer is UNSUPPORTED_VERSION.
    #[error("API {api_key} has versions {min} to {max} here, not {version}")]
    UnsupportedVersion {
        /// Which request.
        api_key: i16,
        /// The version asked for.
        version: i16,
        /// The oldest there is.
        min: i16,
        /// The newest there is.
        max: i16,
    },
    /// A length or a fixed field reaches beyond the frame.
    #[error("request cut short, or a length in it is wrong (at byte {at})")]
    CutShort {
        /// Where, from the start of the bytes walked.
        at: usize,
    },
    /// A length below -1, or a number of more bytes than its type has.
    #[error("malformed length or number (at byte {at})")]
    BadLength {
        /// Where, from the start of the bytes walked.
        at: usize,
    },
    /// A tagged field (KIP-482) that is not as long as it says, or not of this version.
    #[error("malformed tagged field (at byte {at})")]
    BadTag {
        /// Where, from the start of the bytes walked.
        at: usize,
    },
    /// More than [`MAX_ELEMENTS`].
    #[error("more than {MAX_ELEMENTS} elements in one request: ask for fewer at a time")]
    TooManyElements,
    /// A client id that is not UTF-8.
    #[error("the client id is not UTF-8")]
    BadClientId,
}

/// A request's header, read where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderView<'a> {
    /// Which request.
    pub api_key: i16,
    /// Which version of it.
    pub api_version: i16,
    /// Comes back with the answer.
    pub correlation_id: i32,
    /// Who the client says it is.
    pub client_id: Option<&'a str>,
    /// Bytes of the header; the body follows.
    pub header_len: usize,
}

/// Walks a request's body (the frame without its header). After `Ok` the decoder finds exactly
/// this shape in the returned number of bytes, and takes no more memory than they justify. Bytes
/// behind them are ignored as Kafka ignores them: librdkafka's Metadata requests carry some.
pub fn check(api_key: i16, version: i16, body: &[u8]) -> Result<usize, GuardError> {
    let shape = tables::shape(api_key).ok_or(GuardError::UnknownApi(api_key))?;
    let (min, max) = shape.versions;
    if version < min || version > max {
        return Err(GuardError::UnsupportedVersion {
            api_key,
            version,
            min,
            max,
        });
    }
    let mut walk = Walk::new(body, version, version >= shape.flexible);
    walk.fields(shape.fields)?;
    Ok(walk.position())
}

/// Reads a request's header (v1, or v2 for flexible versions: KIP-482). A version too new is no
/// error here, so that it can be answered.
pub fn check_header(frame: &[u8]) -> Result<HeaderView<'_>, GuardError> {
    let mut walk = Walk::new(frame, 0, false);
    let api_key = i16::from_be_bytes(walk.take()?);
    let api_version = i16::from_be_bytes(walk.take()?);
    let correlation_id = i32::from_be_bytes(walk.take()?);
    let known = ApiKey::try_from(api_key).map_err(|()| GuardError::UnknownApi(api_key))?;
    let client_id = match walk.string()? {
        None => None,
        Some(id) => Some(std::str::from_utf8(id).map_err(|_| GuardError::BadClientId)?),
    };
    if known.request_header_version(api_version) >= 2 {
        walk.tagged_fields(&[])?;
    }
    Ok(HeaderView {
        api_key,
        api_version,
        correlation_id,
        client_id,
        header_len: walk.position(),
    })
}
