//! Ids as Kafka prints them: 16 bytes in URL-safe base64 without padding.

use uuid::Uuid;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const LEN: usize = 22;

/// A new id. Like Kafka's, none that begins with a dash (it would look like a flag on command
/// lines), nor one of the reserved small numbers.
pub fn random() -> Uuid {
    loop {
        let id = Uuid::new_v4();
        if id.as_u128() > 100 && !encode(&id).starts_with('-') {
            return id;
        }
    }
}

/// The id as text.
pub fn encode(id: &Uuid) -> String {
    // 128 bits are 21 digits of 6 bits and one of 2 bits, which stands left in its digit.
    let n = id.as_u128();
    (0..LEN)
        .map(|at| {
            let six = match 122usize.checked_sub(at * 6) {
                Some(shift) => (n >> shift) & 63,
                None => (n << 4) & 63,
            };
            char::from(ALPHABET[six as usize])
        })
        .collect()
}

/// The id of a text, if it is one.
pub fn decode(text: &str) -> Option<Uuid> {
    if text.len() != LEN {
        return None;
    }
    let mut n: u128 = 0;
    for (at, byte) in text.bytes().enumerate() {
        let six = ALPHABET.iter().position(|a| *a == byte)? as u128;
        match at {
            21 if six & 15 != 0 => return None,
            21 => n = (n << 2) | (six >> 4),
            _ => n = (n << 6) | six,
        }
    }
    Some(Uuid::from_u128(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Apache Kafka printed it.
    #[test]
    fn as_kafka_prints() {
        let metadata_topic = Uuid::from_u128(1);
        assert_eq!(encode(&metadata_topic), "AAAAAAAAAAAAAAAAAAAAAQ");
        for text in ["K7wDhC4TTzWTAAOAMbvkQw", "2megAa6uRnGABC-5_BrR5A"] {
            assert_eq!(encode(&decode(text).unwrap()), text);
        }
    }

    #[test]
    fn round_trip_and_refusal() {
        for _ in 0..200 {
            let id = random();
            assert_eq!(decode(&encode(&id)), Some(id));
        }
        for text in [
            "",
            "K7wDhC4TTzWTAAOAMbvkQ",
            "K7wDhC4TTzWTAAOAMbvkQwA",
            "K7wDhC4TTzWTAAOAMbvk=w",
            "AAAAAAAAAAAAAAAAAAAAAB",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
