//! The index behind the internal logs: what they add up to, for an instant start. The only place
//! that names sled.
//!
//! It is disposable. The logs are the only truth: whatever is missing, torn, garbled or of another
//! log is refused by its checksum, set aside and built again by its owner. sled's `flush` was found
//! not to fsync, and opening it on a full disk ruined it; neither costs more here than a slower
//! start. An index that fails while in use goes silent until the next start.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Page cache; the index is read once at the start.
const CACHE_BYTES: u64 = 4 << 20;
/// With less space than this sled is not opened at all.
const FREE_BYTES_MIN: u64 = 32 << 20;
/// Version of what is stored. Raise it when the meaning of an entry changes.
const FORMAT: u8 = 1;
/// A space with more than this is not an index any more.
const ENTRIES_MAX: u64 = 16 << 20;

/// How often and how long apart the lock of a database just closed is asked for.
const LOCK_TRIES: u32 = 200;
const LOCK_WAIT: Duration = Duration::from_millis(5);

const SUMMARY_KEY: &[u8] = b"s";
const ENTRY_PREFIX: u8 = b'e';

/// Entries of a space: key and value.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;
/// Changes to a space: key and new value, `None` removes.
pub type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Handle to the index; clones share it.
#[derive(Clone)]
pub struct Index {
    shared: Arc<Mutex<Option<sled::Db>>>,
    identity: u32,
}

/// What a space says of itself, so that anything missing or altered is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Summary {
    /// Log offset up to and including which the space is current.
    applied: i64,
    entries: u64,
    /// Sum over all entries of their checksums: changes with each entry, in any order.
    sum: u64,
}

impl Summary {
    /// `FORMAT`, identity, fields, CRC.
    fn encode(&self, identity: u32) -> Vec<u8> {
        let mut out = vec![FORMAT];
        out.extend(identity.to_be_bytes());
        out.extend(self.applied.to_be_bytes());
        out.extend(self.entries.to_be_bytes());
        out.extend(self.sum.to_be_bytes());
        let crc = crc32c::crc32c(&out);
        out.extend(crc.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8], identity: u32) -> Option<Summary> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return None;
        }
        let body: &[u8; 29] = body.try_into().ok()?;
        let (head, rest) = body.split_first_chunk::<5>()?;
        let (applied, rest) = rest.split_first_chunk::<8>()?;
        let (entries, rest) = rest.split_first_chunk::<8>()?;
        let (sum, _) = rest.split_first_chunk::<8>()?;
        let mut expected = [FORMAT; 5];
        expected[1..].copy_from_slice(&identity.to_be_bytes());
        (*head == expected).then_some(Summary {
            applied: i64::from_be_bytes(*applied),
            entries: u64::from_be_bytes(*entries),
            sum: u64::from_be_bytes(*sum),
        })
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.entries += 1;
        self.sum = self.sum.wrapping_add(checksum(key, value));
    }

    fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.entries = self.entries.saturating_sub(1);
        self.sum = self.sum.wrapping_sub(checksum(key, value));
    }
}

fn checksum(key: &[u8], value: &[u8]) -> u64 {
    let key_crc = crc32c::crc32c(key);
    let both = crc32c::crc32c_append(key_crc, value);
    (u64::from(key_crc) << 32) | u64::from(both)
}

fn entry_key(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 1);
    out.push(ENTRY_PREFIX);
    out.extend(key);
    out
}

/// sled panics on some of what it finds; an index must never take the broker with it.
fn guarded<T>(what: &str, f: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(format!("{what}: {e}")),
        Err(_) => Err(format!("{what}: sled panicked")),
    }
}

impl Index {
    /// Opens the index in `dir`, made from logs of this identity. Never fails: an index that cannot
    /// be used is removed and begun anew, or done without; the text says so.
    pub fn open(dir: &Path, identity: &str) -> (Index, Option<String>) {
        let identity = crc32c::crc32c(identity.as_bytes());
        let make = |db| Index {
            shared: Arc::new(Mutex::new(db)),
            identity,
        };
        if let Some(free) = free_bytes(dir)
            && free < FREE_BYTES_MIN
        {
            let say = format!(
                "only {} MiB are free: the index is not used and the start reads the logs instead; \
                 free some space in {}",
                free >> 20,
                dir.display()
            );
            return (make(None), Some(say));
        }
        let first = match open_db(dir) {
            Ok(db) => return (make(Some(db)), None),
            Err(e) => e,
        };
        let again = set_aside(dir).and_then(|()| open_db(dir));
        match again {
            Ok(db) => {
                let say = format!(
                    "the index in {} was unusable ({first}) and is built again from the logs; \
                     nothing is lost",
                    dir.display()
                );
                (make(Some(db)), Some(say))
            }
            Err(second) => {
                let say = format!(
                    "the index in {} is unusable ({second}) and done without, which only makes \
                     starts slower; remove that directory",
                    dir.display()
                );
                (make(None), Some(say))
            }
        }
    }

    /// An index that holds nothing.
    pub fn none() -> Index {
        Index {
            shared: Arc::default(),
            identity: 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<sled::Db>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything in the space and the log offset up to and including which it is current; `None`
    /// when there is nothing that can be trusted. The caller must compare the offset with its log's
    /// end: a log may have lost its tail since.
    pub fn load(&self, space: &str) -> Option<(i64, Entries)> {
        let guard = self.lock();
        let db = guard.as_ref()?;
        let loaded = guarded("reading the index", || {
            let tree = db.open_tree(space)?;
            let Some(bytes) = tree.get(SUMMARY_KEY)? else {
                return Ok(None);
            };
            let Some(summary) = Summary::decode(&bytes, self.identity) else {
                return Ok(None);
            };
            let mut found = Summary {
                applied: summary.applied,
                ..Summary::default()
            };
            let mut entries = Vec::new();
            for item in tree.scan_prefix([ENTRY_PREFIX]) {
                let (key, value) = item?;
                let key = key.get(1..).unwrap_or_default();
                found.add(key, &value);
                if found.entries > summary.entries.min(ENTRIES_MAX) {
                    return Ok(None);
                }
                entries.push((key.to_vec(), value.to_vec()));
            }
            Ok((found == summary).then_some((summary.applied, entries)))
        });
        loaded.unwrap_or_else(|e| {
            tracing::warn!("{e}; it is built again from the log");
            None
        })
    }

    /// Applies changes that bring the space up to log offset `applied`, all or none. Only of what
    /// is durable in the log: the index must not know more than it. Later changes of a key win.
    pub fn apply(&self, space: &str, changes: Changes, applied: i64) {
        self.attempt(|db, identity| {
            let tree = db.open_tree(space)?;
            let mut summary = match tree.get(SUMMARY_KEY)? {
                Some(bytes) => match Summary::decode(&bytes, identity) {
                    Some(summary) => summary,
                    // Of another log or garbled: `load` refused it, so it is begun anew.
                    None => {
                        tree.clear()?;
                        Summary::default()
                    }
                },
                None => Summary::default(),
            };
            // One change per key, so that what a change replaces is what the tree holds.
            let mut latest = std::collections::BTreeMap::new();
            for (key, value) in changes {
                latest.insert(key, value);
            }
            let mut batch = sled::Batch::default();
            for (key, value) in latest {
                let stored = entry_key(&key);
                if let Some(old) = tree.get(&stored)? {
                    summary.remove(&key, &old);
                }
                match value {
                    Some(value) => {
                        summary.add(&key, &value);
                        batch.insert(stored, value);
                    }
                    None => batch.remove(stored),
                }
            }
            summary.applied = applied;
            batch.insert(SUMMARY_KEY, summary.encode(identity));
            tree.apply_batch(batch)
        });
    }

    /// Forgets the space, before it is built again.
    pub fn reset(&self, space: &str) {
        self.attempt(|db, _| db.open_tree(space)?.clear());
    }

    /// Hands everything to the system. Worth calling at the end; nothing depends on it.
    pub fn flush(&self) {
        self.attempt(|db, _| db.flush().map(drop));
    }

    /// Closes the index, for all clones.
    pub fn close(&self) {
        self.flush();
        *self.lock() = None;
    }

    fn attempt(&self, f: impl FnOnce(&sled::Db, u32) -> Result<(), sled::Error>) {
        let mut guard = self.lock();
        let Some(db) = guard.as_ref() else { return };
        if let Err(e) = guarded("writing the index", || f(db, self.identity)) {
            tracing::warn!("{e}; it is not used any more until the next start, nothing is lost");
            *guard = None;
        }
    }
}

/// Opens sled. Its threads may hold a database's lock for a moment after it was dropped, which a
/// program that stops a broker and starts it again would meet.
fn open_db(dir: &Path) -> Result<sled::Db, String> {
    let mut tries = LOCK_TRIES;
    loop {
        tries -= 1;
        match try_open_db(dir) {
            Err(e) if tries > 0 && e.contains("could not acquire lock") => {
                std::thread::sleep(LOCK_WAIT);
            }
            other => return other,
        }
    }
}

fn try_open_db(dir: &Path) -> Result<sled::Db, String> {
    guarded("opening", || {
        sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::LowSpace)
            .open()
    })
}

fn set_aside(dir: &Path) -> Result<(), String> {
    match std::fs::remove_dir_all(dir).or_else(|_| std::fs::remove_file(dir)) {
        Err(e) if dir.exists() => Err(format!("removing {}: {e}", dir.display())),
        _ => Ok(()),
    }
}

/// Free space where `dir` is or will be.
fn free_bytes(dir: &Path) -> Option<u64> {
    let mut at: PathBuf = dir.to_owned();
    while !at.exists() {
        at = at.parent()?.to_owned();
    }
    let stat = rustix::fs::statvfs(&at).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> (Vec<u8>, Option<Vec<u8>>) {
        (key.into(), Some(value.into()))
    }

    fn pairs(entries: &Entries) -> Vec<(&str, &str)> {
        let text = |b| std::str::from_utf8(b).unwrap();
        entries.iter().map(|(k, v)| (text(k), text(v))).collect()
    }

    #[test]
    fn remembers_spaces_apart_over_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("index");
        let (index, said) = Index::open(&at, "log");
        assert_eq!(said, None);
        assert!(index.load("a").is_none());
        index.apply("a", vec![put("x", "1"), put("y", "2")], 5);
        index.apply(
            "a",
            vec![
                put("x", "3"),
                (b"y".to_vec(), None),
                put("z", "0"),
                put("z", "4"),
            ],
            7,
        );
        index.apply("b", vec![], 1);
        index.close();
        assert!(index.load("a").is_none(), "closed");
        let (index, said) = Index::open(&at, "log");
        assert_eq!(said, None);
        let (applied, entries) = index.load("a").unwrap();
        assert_eq!(applied, 7);
        assert_eq!(pairs(&entries), [("x", "3"), ("z", "4")]);
        assert_eq!(index.load("b").unwrap(), (1, vec![]));
        index.reset("a");
        assert!(index.load("a").is_none());
        assert!(index.load("b").is_some());
    }

    #[test]
    fn of_another_log_is_refused_and_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (index, _) = Index::open(dir.path(), "one");
        index.apply("a", vec![put("x", "1")], 5);
        index.close();
        let (index, _) = Index::open(dir.path(), "two");
        assert!(index.load("a").is_none());
        index.apply("a", vec![put("y", "2")], 1);
        let (applied, entries) = index.load("a").unwrap();
        assert_eq!((applied, pairs(&entries)), (1, vec![("y", "2")]));
    }

    #[test]
    fn an_altered_or_missing_entry_is_noticed() {
        for remove in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (index, _) = Index::open(dir.path(), "log");
            index.apply("a", vec![put("x", "1"), put("y", "2")], 5);
            {
                let guard = index.lock();
                let tree = guard.as_ref().unwrap().open_tree("a").unwrap();
                let key = entry_key(b"x");
                if remove {
                    tree.remove(key).unwrap();
                } else {
                    tree.insert(key, b"7").unwrap();
                }
            }
            assert!(index.load("a").is_none());
        }
    }

    /// Whatever lies in the directory: the index opens (or is done without), and gives back either
    /// exactly what was put in or nothing.
    #[test]
    fn garbage_is_never_fatal_and_never_believed() {
        let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut next = move |n: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % n as u64) as usize
        };
        for round in 0..24 {
            let dir = tempfile::tempdir().unwrap();
            let (index, _) = Index::open(dir.path(), "log");
            let many: Changes = (0..200)
                .map(|n| put(&format!("k{n}"), &"v".repeat(n)))
                .collect();
            index.apply("a", many, 5);
            let before = index.load("a").unwrap();
            index.close();
            drop(index);
            for name in ["db", "conf"] {
                let path = dir.path().join(name);
                let mut bytes = std::fs::read(&path).unwrap();
                match round % 3 {
                    0 => (0..50).for_each(|_| {
                        let at = next(bytes.len());
                        bytes[at] ^= 1 << next(8);
                    }),
                    1 => bytes.truncate(next(bytes.len())),
                    _ => bytes.iter_mut().for_each(|b| *b = next(256) as u8),
                }
                std::fs::write(&path, bytes).unwrap();
            }
            let (index, _) = Index::open(dir.path(), "log");
            if let Some(after) = index.load("a") {
                assert_eq!(after, before);
            }
            index.reset("a");
            index.apply("a", vec![put("x", "1")], 1);
            if let Some((applied, entries)) = index.load("a") {
                assert_eq!((applied, pairs(&entries)), (1, vec![("x", "1")]));
            }
        }
    }
}
