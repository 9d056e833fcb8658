//! The side files of the data directory, in Kafka's formats, all of them disposable: how far each
//! log is on disk (`recovery-point-offset-checkpoint`), where it starts
//! (`log-start-offset-checkpoint`), the high watermarks, the mark of a clean shutdown, and each
//! partition's `partition.metadata`. A missing or garbled one costs a longer start.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use super::{Partition, Topic, TopicsError};
use crate::log::{Fs, OpenFrom};
use crate::meta::uuid_to_base64;

const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const LOG_STARTS: &str = "log-start-offset-checkpoint";
const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
const PARTITION_METADATA: &str = "partition.metadata";
/// A checkpoint larger than this is not one.
const MAX_BYTES: u64 = 64 << 20;

/// What the last run left.
#[derive(Debug, Default)]
pub struct Checkpoints {
    /// The last shutdown was clean.
    pub clean: bool,
    recovery_points: HashMap<(String, i32), i64>,
    log_starts: HashMap<(String, i32), i64>,
}

impl Checkpoints {
    /// Reads them, and takes the mark of a clean shutdown away: from now on a crash is possible.
    pub fn take(fs: &dyn Fs, dir: &Path) -> io::Result<Checkpoints> {
        let marker = dir.join(CLEAN_SHUTDOWN);
        let clean = fs.exists(&marker);
        if clean {
            fs.remove(&marker)?;
            fs.sync_dir(dir)?;
        }
        Ok(Checkpoints {
            clean,
            recovery_points: read(fs, &dir.join(RECOVERY_POINTS)),
            log_starts: read(fs, &dir.join(LOG_STARTS)),
        })
    }

    /// A topic just created has nothing to recover.
    pub fn of_new_topic() -> Checkpoints {
        Checkpoints {
            clean: true,
            ..Checkpoints::default()
        }
    }

    /// What is known of one partition's log.
    pub fn of(&self, topic: &str, partition: i32) -> OpenFrom {
        let key = (topic.to_owned(), partition);
        OpenFrom {
            clean: self.clean,
            recovery_point: self.recovery_points.get(&key).copied(),
            log_start_offset: self.log_starts.get(&key).copied(),
        }
    }

    /// Marks a clean shutdown (Kafka's `CleanShutdownFileHandler`).
    pub fn mark_clean(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
        fs.write_atomic(
            &dir.join(CLEAN_SHUTDOWN),
            br#"{"version":0,"brokerEpoch":-1}"#,
            true,
        )
    }
}

/// Version, count, then `topic partition offset` per line. Anything else is as good as missing.
fn read(fs: &dyn Fs, path: &Path) -> HashMap<(String, i32), i64> {
    let Ok(bytes) = fs.read(path, MAX_BYTES) else {
        return HashMap::new();
    };
    let parsed = std::str::from_utf8(&bytes).ok().and_then(parse);
    if parsed.is_none() {
        tracing::warn!(file = %path.display(), "unreadable checkpoint ignored; the logs are looked at instead");
    }
    parsed.unwrap_or_default()
}

fn parse(text: &str) -> Option<HashMap<(String, i32), i64>> {
    let mut lines = text.lines();
    if lines.next()? != "0" {
        return None;
    }
    let count: usize = lines.next()?.parse().ok()?;
    let mut found = HashMap::new();
    for line in lines {
        let mut words = line.split(' ');
        let (topic, partition, offset) = (words.next()?, words.next()?, words.next()?);
        let offset: i64 = offset.parse().ok()?;
        if words.next().is_some() || offset < 0 {
            return None;
        }
        found.insert((topic.to_owned(), partition.parse().ok()?), offset);
    }
    (found.len() == count).then_some(found)
}

fn text_of(topics: &[Arc<Topic>], offset: impl Fn(&Partition) -> Option<i64>) -> String {
    let mut lines = Vec::new();
    for topic in topics {
        for partition in topic.partitions() {
            if let Some(offset) = offset(partition) {
                lines.push(format!("{} {} {offset}\n", topic.name(), partition.index()));
            }
        }
    }
    format!("0\n{}\n{}", lines.len(), lines.concat())
}

/// Writes all three.
pub fn write(fs: &dyn Fs, dir: &Path, topics: &[Arc<Topic>]) -> io::Result<()> {
    let known = |offset: i64| (offset >= 0).then_some(offset);
    let put = |name: &str, text: String| fs.write_atomic(&dir.join(name), text.as_bytes(), true);
    put(
        RECOVERY_POINTS,
        text_of(topics, |p| known(p.flushed_offset())),
    )?;
    put(
        LOG_STARTS,
        text_of(topics, |p| known(p.log_start_offset()).filter(|&o| o > 0)),
    )?;
    put(
        HIGH_WATERMARKS,
        text_of(topics, |p| Some(p.high_watermark())),
    )
}

/// Makes a partition's folder this topic's own. One that belongs to another topic of the same
/// name, deleted by a run that crashed before its folder was gone, is put aside first.
pub fn claim_partition_dir(fs: &dyn Fs, dir: &Path, id: Uuid) -> Result<(), TopicsError> {
    let fail = |source| TopicsError::Io {
        path: dir.display().to_string(),
        source,
    };
    let file = dir.join(PARTITION_METADATA);
    let wanted = format!("version: 0\ntopic_id: {}", uuid_to_base64(&id));
    if fs.exists(dir) {
        match owner(fs, &file) {
            Some(owner) if owner == uuid_to_base64(&id) => return Ok(()),
            Some(_) => {
                let aside = dir.with_extension(format!("{}-delete", Uuid::new_v4().simple()));
                tracing::warn!(folder = %dir.display(), "left over from a deleted topic; removed");
                fs.rename(dir, &aside).map_err(fail)?;
            }
            // Missing or garbled: the folder's name is all there is to go by.
            None => {}
        }
    }
    fs.create_dir_all(dir).map_err(fail)?;
    fs.write_atomic(&file, wanted.as_bytes(), false)
        .map_err(fail)
}

fn owner(fs: &dyn Fs, file: &Path) -> Option<String> {
    let bytes = fs.read(file, 4096).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let id = text.lines().find_map(|l| l.strip_prefix("topic_id: "))?;
    (id.len() == 22).then(|| id.to_owned())
}

/// Removes folders of topics that were deleted while the last run ended.
pub fn remove_leftovers(fs: &dyn Fs, dir: &Path) {
    let Ok(entries) = fs.list(dir) else { return };
    for entry in entries
        .iter()
        .filter(|e| e.is_dir && e.name.ends_with("-delete"))
    {
        if let Err(error) = fs.remove_dir_all(&dir.join(&entry.name)) {
            tracing::warn!(folder = %entry.name, %error, "left over from a deleted topic; could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_is_not_whole_counts_as_missing() {
        let good = "0\n2\nticks 0 7\na.b-c 11 0\n";
        let parsed = parse(good).unwrap();
        assert_eq!(parsed[&("ticks".to_owned(), 0)], 7);
        assert_eq!(parsed[&("a.b-c".to_owned(), 11)], 0);
        for bad in [
            "",
            "1\n0\n",
            "0\n2\nticks 0 7\n",
            "0\n1\nticks 0 -7\n",
            "0\n1\nticks 0\n",
            "0\nx\n",
            "0\n1\nt 0 1 2\n",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
