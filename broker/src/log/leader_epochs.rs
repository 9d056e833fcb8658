//! Which leader epoch began at which offset (`leader-epoch-checkpoint`, Kafka's
//! `LeaderEpochFileCache`), for OffsetForLeaderEpoch (KIP-101, KIP-320). Derived from the batches;
//! pure but for the text format.

use std::fmt::Write as _;

/// Name of the file in the partition's directory.
pub const FILE_NAME: &str = "leader-epoch-checkpoint";

/// Epochs and their first offsets, both growing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<(i32, i64)>,
}

impl LeaderEpochs {
    pub fn latest(&self) -> Option<i32> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// `epoch` begins at `offset`. True when that was news; entries it contradicts are dropped.
    pub fn assign(&mut self, epoch: i32, offset: i64) -> bool {
        let news = match self.entries.last() {
            Some((latest, start)) => epoch != *latest || offset < *start,
            None => true,
        };
        if epoch < 0 || offset < 0 || !news {
            return false;
        }
        while self
            .entries
            .last()
            .is_some_and(|(e, start)| *e >= epoch || *start >= offset)
        {
            self.entries.pop();
        }
        self.entries.push((epoch, offset));
        true
    }

    /// The epoch of the record at `offset`.
    pub fn epoch_of(&self, offset: i64) -> Option<i32> {
        let after = self.entries.partition_point(|(_, start)| *start <= offset);
        after
            .checked_sub(1)
            .and_then(|i| self.entries.get(i))
            .map(|(epoch, _)| *epoch)
    }

    /// The largest epoch at or below the one asked for, and where it ends; `None` when the question
    /// is about an epoch this log has not seen yet, or about none.
    pub fn end_offset_for(&self, epoch: i32, log_end: i64) -> Option<(i32, i64)> {
        if epoch < 0 {
            return None;
        }
        if self.latest() == Some(epoch) {
            return Some((epoch, log_end));
        }
        let above = self.entries.partition_point(|(e, _)| *e <= epoch);
        let (_, end) = self.entries.get(above)?;
        let floor = above.checked_sub(1).and_then(|i| self.entries.get(i));
        Some((floor.map_or(epoch, |(e, _)| *e), *end))
    }

    /// Records at and behind `end` are gone. True when entries were dropped.
    pub fn truncate_end(&mut self, end: i64) -> bool {
        let before = self.entries.len();
        self.entries.retain(|(_, start)| *start < end);
        self.entries.len() != before
    }

    /// Records before `start` are gone. True when entries were changed.
    pub fn truncate_start(&mut self, start: i64) -> bool {
        let upto = self.entries.partition_point(|(_, s)| *s <= start);
        let Some(last) = upto.checked_sub(1) else {
            return false;
        };
        let before = self.entries.clone();
        self.entries.drain(..last);
        if let Some(first) = self.entries.first_mut() {
            first.1 = start;
        }
        self.entries != before
    }

    /// The file: version, count, a line an entry.
    pub fn encode(&self) -> String {
        let mut out = format!("0\n{}\n", self.entries.len());
        for (epoch, start) in &self.entries {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{epoch} {start}");
        }
        out
    }

    /// Reads the file; `None` when it is not whole or contradicts itself.
    pub fn decode(bytes: &[u8]) -> Option<LeaderEpochs> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines();
        if lines.next()? != "0" {
            return None;
        }
        let count: usize = lines.next()?.parse().ok()?;
        let mut epochs = LeaderEpochs::default();
        for line in lines {
            let (epoch, start) = line.split_once(' ')?;
            let (epoch, start): (i32, i64) = (epoch.parse().ok()?, start.trim().parse().ok()?);
            let grows = epochs
                .entries
                .last()
                .is_none_or(|(e, s)| *e < epoch && *s < start);
            if !grows || epoch < 0 || start < 0 {
                return None;
            }
            epochs.entries.push((epoch, start));
        }
        (epochs.entries.len() == count).then_some(epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs() -> LeaderEpochs {
        let mut e = LeaderEpochs::default();
        assert!(e.assign(2, 0));
        assert!(e.assign(5, 10));
        assert!(e.assign(6, 30));
        assert!(!e.assign(6, 40), "the epoch is known already");
        e
    }

    #[test]
    fn end_offsets_are_kafkas() {
        let e = epochs();
        assert_eq!(
            e.end_offset_for(6, 99),
            Some((6, 99)),
            "the latest ends with the log"
        );
        assert_eq!(e.end_offset_for(5, 99), Some((5, 30)));
        assert_eq!(e.end_offset_for(4, 99), Some((2, 10)), "the floor of a gap");
        assert_eq!(e.end_offset_for(1, 99), Some((1, 0)), "older than all");
        assert_eq!(e.end_offset_for(7, 99), None, "newer than all");
        assert_eq!(e.end_offset_for(-1, 99), None);
        assert_eq!(e.epoch_of(29), Some(5));
    }

    #[test]
    fn truncation_at_both_ends() {
        let mut e = epochs();
        assert!(e.truncate_end(30));
        assert_eq!(e.latest(), Some(5));
        assert!(e.truncate_start(12));
        assert_eq!(e.encode(), "0\n1\n5 12\n");
        assert!(!e.truncate_start(12), "nothing new");
    }

    #[test]
    fn an_entry_that_contradicts_replaces() {
        let mut e = epochs();
        assert!(e.assign(7, 10));
        assert_eq!(e.encode(), "0\n2\n2 0\n7 10\n");
    }

    #[test]
    fn the_file_is_read_back_and_refused_when_torn() {
        let e = epochs();
        let text = e.encode();
        assert_eq!(LeaderEpochs::decode(text.as_bytes()), Some(e));
        for bad in [
            "",
            "0",
            "0\n",
            "0\n2\n1 1\n",
            "1\n0\n",
            "0\n1\nx y\n",
            "0\n2\n5 1\n4 2\n",
        ] {
            assert_eq!(LeaderEpochs::decode(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
