//! Names of objects: `topic/partition=0/topic+0+00000000000000000123.json`, the number being the
//! offset of the first record. Pure.

use std::sync::Arc;

/// The place of one partition's objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub topic: Arc<str>,
    pub partition: i32,
}

impl Place {
    /// The folder, without a slash at its end.
    pub fn folder(&self) -> String {
        format!("{}/partition={}", self.topic, self.partition)
    }

    /// What the file names of all its objects begin with.
    pub fn file_prefix(&self) -> String {
        format!("{}+{}+", self.topic, self.partition)
    }

    /// File name of the object that begins at an offset, without the dot and what follows. Sorts
    /// like the offsets.
    pub fn file_stem(&self, first: i64) -> String {
        format!("{}{first:020}", self.file_prefix())
    }

    /// The first offset in a file name, if it is the name of one of these objects.
    pub fn parse(&self, file: &str) -> Option<i64> {
        let (digits, _extension) = file.strip_prefix(&self.file_prefix())?.split_once('.')?;
        let plain = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
        if plain { digits.parse().ok() } else { None }
    }
}

/// The name of one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectName {
    pub place: Place,
    pub first: i64,
    pub extension: &'static str,
}

impl ObjectName {
    /// Name within its folder.
    pub fn file(&self) -> String {
        format!("{}.{}", self.place.file_stem(self.first), self.extension)
    }

    /// Name within the store, folders parted by slashes.
    pub fn path(&self) -> String {
        format!("{}/{}", self.place.folder(), self.file())
    }
}

/// Whether a topic's name may become a folder. Kafka allows no others; a broker might.
pub fn is_safe_topic(topic: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !topic.is_empty()
        && topic.len() <= 249
        && topic != "."
        && topic != ".."
        && topic.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_topic_partition_and_first_offset() {
        let place = Place {
            topic: "ticks".into(),
            partition: 3,
        };
        let name = ObjectName {
            place: place.clone(),
            first: 123,
            extension: "json",
        };
        assert_eq!(
            name.path(),
            "ticks/partition=3/ticks+3+00000000000000000123.json"
        );
        assert_eq!(place.parse(&name.file()), Some(123));
        for strange in [
            "ticks+3+123.json",
            "ticks+33+00000000000000000123.json",
            "ticks+3+00000000000000000123",
            "ticks+3+0000000000000000012x.json",
            "ticks+3+99999999999999999999.json",
            "a",
        ] {
            assert_eq!(place.parse(strange), None, "{strange}");
        }
        assert!(place.file_stem(99) < place.file_stem(100));
        assert!(
            name.file() > place.file_stem(123),
            "a listing may start after the stem"
        );
    }

    #[test]
    fn topics_that_would_leave_the_folder_are_refused() {
        assert!(is_safe_topic("stock_market-1.x"));
        for bad in ["", ".", "..", "a/b", "a\0", "ä"] {
            assert!(!is_safe_topic(bad), "{bad}");
        }
    }
}
