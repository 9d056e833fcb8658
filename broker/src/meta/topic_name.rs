//! The one place that says which topic names are good. Nothing else may turn a name from outside
//! into a directory. (Kafka's `Topic.validate`, `Topic.hasCollision`.)

/// Longest name: the directory `<name>-<partition>` must fit into a file name.
pub const LEN_MAX: usize = 249;

/// The groups' topic.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";
/// The transactions' topic.
pub const TRANSACTION_STATE: &str = "__transaction_state";
/// The share groups' topic.
pub const SHARE_GROUP_STATE: &str = "__share_group_state";
/// The catalogue's own log; no topic of the catalogue, and nobody may create it.
pub const CLUSTER_METADATA: &str = "__cluster_metadata";

/// Whether Kafka calls the topic internal.
pub fn is_internal(name: &str) -> bool {
    [CONSUMER_OFFSETS, TRANSACTION_STATE, SHARE_GROUP_STATE].contains(&name)
}

/// Why a name is not allowed, or nothing. The reason goes to the client as it is
/// (INVALID_TOPIC_EXCEPTION).
pub fn validate(name: &str) -> Result<(), String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() {
        Err("topic name is invalid: it is empty".into())
    } else if name == "." || name == ".." {
        Err(format!("topic name is invalid: '{name}' is not allowed"))
    } else if name.len() > LEN_MAX {
        // The name itself is left out: it may be as long as a request.
        Err(format!(
            "topic name is invalid: it has {} bytes, at most {LEN_MAX} are allowed",
            name.len()
        ))
    } else if !name.bytes().all(good) {
        Err(format!(
            "topic name is invalid: {name:?} has characters other than ASCII letters, digits, '.', '_' and '-'"
        ))
    } else if name == CLUSTER_METADATA {
        Err(format!(
            "topic name is invalid: {name} is the catalogue itself"
        ))
    } else {
        Ok(())
    }
}

/// Whether two different names would give one metric name, where '.' and '_' are the same.
pub fn collide(a: &str, b: &str) -> bool {
    a.len() == b.len()
        && a.bytes().zip(b.bytes()).all(|(x, y)| {
            let same = |c: u8| if c == b'.' { b'_' } else { c };
            same(x) == same(y)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names() {
        for name in [
            "a",
            "A-9_z.y",
            "...",
            "-",
            "_",
            &"x".repeat(249),
            CONSUMER_OFFSETS,
        ] {
            assert_eq!(validate(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn bad_names() {
        let long = "x".repeat(250);
        for name in [
            "",
            ".",
            "..",
            &long,
            "a/b",
            "a b",
            "é",
            "a\0",
            "../x",
            "a:b",
            "\\",
            CLUSTER_METADATA,
        ] {
            assert!(validate(name).is_err(), "{name:?}");
        }
        assert!(!validate(&"/".repeat(1000)).unwrap_err().contains("//"));
    }

    #[test]
    fn collisions() {
        assert!(collide("a.b", "a_b"));
        assert!(collide("a.b", "a.b"));
        assert!(!collide("a.b", "a-b"));
        assert!(!collide("a.b", "a.bc"));
    }
}
