//! `meta.properties`: who this data directory belongs to, as a KRaft broker writes it
//! (Kafka's `MetaProperties`, version 1).

use std::io::ErrorKind;
use std::path::Path;

use uuid::Uuid;

use super::{MetaError, uuid64};
use crate::log::Fs;

const FILE: &str = "meta.properties";
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Identity of the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaProperties {
    /// The cluster, as clients see it.
    pub cluster_id: String,
    /// The broker.
    pub node_id: i32,
    /// The directory (KIP-858).
    pub directory_id: Uuid,
}

/// Reads the identity or, in a new directory, makes one. The text says when one was lost.
pub fn load_or_create(
    fs: &dyn Fs,
    data_dir: &Path,
    node_id: i32,
) -> Result<(MetaProperties, Option<String>), MetaError> {
    let path = data_dir.join(FILE);
    let shown = path.display();
    let mut said = None;
    match fs.read(&path, FILE_BYTES_MAX) {
        Ok(bytes) => match parse(&bytes) {
            Parsed::Good(found) if found.node_id == node_id => return Ok((found, None)),
            Parsed::Good(found) => {
                return Err(MetaError::Open(format!(
                    "{shown} belongs to node {}, but the settings say node {node_id}; set \
                     node.id={} or name another directory with --data-dir",
                    found.node_id, found.node_id
                )));
            }
            Parsed::ZooKeeper => {
                return Err(MetaError::Open(format!(
                    "{} was written by an Apache Kafka with ZooKeeper, which kept the names of \
                     topics elsewhere; name another directory with --data-dir (or log.dirs)",
                    data_dir.display()
                )));
            }
            Parsed::Broken => {
                said = Some(format!(
                    "{shown} was unreadable: the cluster has a new id; topics and records are \
                     as they were"
                ));
            }
        },
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => {
            return Err(MetaError::Open(format!(
                "cannot read {shown}: {e}; check the disk and the permissions of the data directory"
            )));
        }
    }
    let made = MetaProperties {
        cluster_id: uuid64::encode(&uuid64::random()),
        node_id,
        directory_id: uuid64::random(),
    };
    fs.write_atomic(&path, made.to_text().as_bytes(), true)
        .map_err(|e| {
            MetaError::Open(format!(
                "cannot write {shown}: {e}; check the space and the permissions of the data \
                 directory, or name another with --data-dir"
            ))
        })?;
    Ok((made, said))
}

impl MetaProperties {
    fn to_text(&self) -> String {
        format!(
            "node.id={}\ndirectory.id={}\nversion=1\ncluster.id={}\n",
            self.node_id,
            uuid64::encode(&self.directory_id),
            self.cluster_id
        )
    }
}

enum Parsed {
    Good(MetaProperties),
    ZooKeeper,
    Broken,
}

fn parse(bytes: &[u8]) -> Parsed {
    let Some(pairs) = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| crate::config::parse_properties(text).ok())
    else {
        return Parsed::Broken;
    };
    let get = |key: &str| {
        pairs
            .iter()
            .rev()
            .find(|(k, _)| k == key)
            .map(|(_, value)| value.trim())
    };
    if get("version") == Some("0") {
        return Parsed::ZooKeeper;
    }
    let cluster_id = get("cluster.id")
        .filter(|id| (1..=100).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()));
    let node_id = get("node.id").and_then(|n| n.parse().ok());
    match (cluster_id, node_id) {
        (Some(cluster_id), Some(node_id)) => Parsed::Good(MetaProperties {
            cluster_id: cluster_id.to_owned(),
            node_id,
            // Directories have ids since Kafka 3.7 only; then any will do.
            directory_id: get("directory.id")
                .and_then(uuid64::decode)
                .unwrap_or(Uuid::from_u128(1)),
        }),
        _ => Parsed::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::RealFs;

    fn load(dir: &Path, node_id: i32) -> Result<(MetaProperties, Option<String>), MetaError> {
        load_or_create(&RealFs, dir, node_id)
    }

    #[test]
    fn made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (made, said) = load(dir.path(), 3).unwrap();
        assert_eq!(said, None);
        assert_eq!(load(dir.path(), 3).unwrap(), (made, None));
    }

    #[test]
    fn another_node_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        load(dir.path(), 3).unwrap();
        let e = load(dir.path(), 4).unwrap_err().to_string();
        assert!(e.contains("node.id=3"), "{e}");
    }

    #[test]
    fn as_kafka_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let text = "#\n#Sat Nov 21 05:10:42 UTC 2026\nnode.id=1\ndirectory.id=K7wDhC4TTzWTAAOAMbvkQw\nversion=1\ncluster.id=MkU3OEVBNTcwNTJENDM2Qk\n";
        std::fs::write(dir.path().join(FILE), text).unwrap();
        let (found, _) = load(dir.path(), 1).unwrap();
        assert_eq!(found.cluster_id, "MkU3OEVBNTcwNTJENDM2Qk");
        assert_eq!(
            uuid64::encode(&found.directory_id),
            "K7wDhC4TTzWTAAOAMbvkQw"
        );
    }

    #[test]
    fn zookeepers_is_refused_and_garbage_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        std::fs::write(&path, "version=0\nbroker.id=0\ncluster.id=abc\n").unwrap();
        let e = load(dir.path(), 0).unwrap_err().to_string();
        assert!(e.contains("--data-dir"), "{e}");
        for garbage in [&b"\xff\xfe"[..], b"", b"version=1\nnode.id=x\n"] {
            std::fs::write(&path, garbage).unwrap();
            let (made, said) = load(dir.path(), 1).unwrap();
            assert!(said.is_some());
            assert_eq!(load(dir.path(), 1).unwrap(), (made, None));
        }
    }
}
