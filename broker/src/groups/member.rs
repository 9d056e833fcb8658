//! One member of a classic group. Plain data; the rules about it are in the group.

use bytes::Bytes;

use super::types::{JoinRequest, Protocol, Token};

/// Whether a member has a request waiting, and who hears the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Waiter {
    #[default]
    No,
    For(Token),
    /// The connection is gone. The member still counts as waiting, as it does in Kafka, which does not notice.
    Gone,
}

impl Waiter {
    pub(super) fn is_waiting(self) -> bool {
        self != Waiter::No
    }

    pub(super) fn token(self) -> Option<Token> {
        match self {
            Waiter::For(token) => Some(token),
            Waiter::No | Waiter::Gone => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    /// In the member's order of preference, names unique.
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Bytes,
    pub(super) awaiting_join: Waiter,
    pub(super) awaiting_sync: Waiter,
    /// Has not been told its id yet, so it cannot send heartbeats; it expires even while it waits.
    pub(super) is_new: bool,
    pub(super) session_deadline: Option<i64>,
}

impl Member {
    pub(super) fn new(id: String, req: &JoinRequest) -> Member {
        Member {
            id,
            instance_id: req.group_instance_id.clone(),
            client_id: req.client_id.clone(),
            client_host: req.client_host.clone(),
            rebalance_timeout_ms: rebalance_timeout_ms(req),
            session_timeout_ms: req.session_timeout_ms,
            protocols: own_protocols(&req.protocols),
            assignment: Bytes::new(),
            awaiting_join: Waiter::No,
            awaiting_sync: Waiter::No,
            is_new: true,
            session_deadline: None,
        }
    }

    /// The metadata for a protocol; empty when the member does not support it, which a chosen one rules out.
    pub(super) fn metadata(&self, protocol: Option<&str>) -> Bytes {
        self.protocols
            .iter()
            .find(|p| Some(p.name.as_str()) == protocol)
            .map(|p| p.metadata.clone())
            .unwrap_or_default()
    }

    /// Whether a request says the same protocols, in the same order, with the same metadata.
    pub(super) fn matches(&self, protocols: &[Protocol]) -> bool {
        self.protocols == own_protocols(protocols)
    }

    /// Members that wait for the coordinator need not send heartbeats, but for new ones.
    pub(super) fn has_satisfied_heartbeat(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_waiting() || self.awaiting_sync.is_waiting())
    }

    /// An estimate of the memory it takes.
    pub(super) fn bytes(&self) -> usize {
        let strings = 2 * self.id.len()
            + 3 * self.instance_id.as_ref().map_or(0, String::len)
            + self.client_id.len()
            + self.client_host.len();
        400 + strings + protocols_bytes(&self.protocols) + self.assignment.len()
    }
}

/// An estimate of the memory protocols take.
pub(super) fn protocols_bytes(protocols: &[Protocol]) -> usize {
    protocols
        .iter()
        .map(|p| 80 + p.name.len() + p.metadata.len())
        .sum()
}

/// Version 0 has no rebalance timeout: it is the session timeout then.
pub(super) fn rebalance_timeout_ms(req: &JoinRequest) -> i32 {
    if req.rebalance_timeout_ms == -1 {
        req.session_timeout_ms
    } else {
        req.rebalance_timeout_ms
    }
}

/// Copies, so that a slice does not keep its whole request frame alive. A name said twice counts once: Kafka would
/// count it as two votes and then fail to find a protocol.
pub(super) fn own_protocols(protocols: &[Protocol]) -> Vec<Protocol> {
    let mut own: Vec<Protocol> = Vec::new();
    for p in protocols {
        if !own.iter().any(|o| o.name == p.name) {
            own.push(Protocol {
                name: p.name.clone(),
                metadata: Bytes::copy_from_slice(&p.metadata),
            });
        }
    }
    own
}
