//! From the catalogue's log to an [`Image`]. What cannot be understood stops the start, with a
//! word on what to do: a catalogue half read could lose topics in silence.

use std::path::Path;

use wire::batch::BatchHeader;

use super::MetaError;
use super::image::Image;
use super::records::Record;
use crate::log::{Fs, LogView};

/// Read from the log at a time.
const READ_BYTES: usize = 1 << 20;
/// Largest batch after decompression; Kafka's controllers write at most 8 MiB.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// Largest checkpoint.
const CHECKPOINT_BYTES_MAX: u64 = 256 << 20;
/// Records of one transaction.
const TRANSACTION_RECORDS_MAX: usize = 1 << 20;

/// An image being built.
#[derive(Debug, Default)]
pub struct Replay {
    pub image: Image,
    /// Records since a BeginTransaction.
    pending: Option<Vec<(i64, Record)>>,
    /// Users, ACLs, quotas or tokens were met, on which somebody may rely.
    pub relied_on: usize,
}

/// What went wrong, and where.
#[derive(Debug)]
pub(super) struct Broken {
    offset: i64,
    what: String,
}

impl Replay {
    /// Goes on from an image that is known already.
    pub fn from(image: Image) -> Replay {
        Replay {
            image,
            ..Replay::default()
        }
    }

    /// A transaction was begun and neither ended nor aborted.
    pub fn is_unfinished(&self) -> bool {
        self.pending.is_some()
    }

    /// Applies the log from offset `from` to `end`.
    pub fn log(
        &mut self,
        view: &LogView,
        from: i64,
        end: i64,
        dir: &Path,
    ) -> Result<(), MetaError> {
        let mut next = from;
        while next < end {
            let batches = view
                .read_batches(next, end, READ_BYTES)
                .map_err(|e| broken(dir, next, &e.to_string()))?;
            let Some((last, _)) = batches.last() else {
                return Err(broken(dir, next, "the batch cannot be read"));
            };
            let after = last.last_offset() + 1;
            for (header, bytes) in batches {
                self.batch(&header, &bytes)
                    .map_err(|b| broken(dir, b.offset, &b.what))?;
            }
            next = after;
        }
        Ok(())
    }

    /// Applies a checkpoint, Kafka's snapshot of everything below the log's start.
    pub fn checkpoint(&mut self, fs: &dyn Fs, path: &Path) -> Result<(), MetaError> {
        let bytes = fs
            .read(path, CHECKPOINT_BYTES_MAX)
            .map_err(|e| broken(path, 0, &e.to_string()))?;
        let bytes = bytes::Bytes::from(bytes);
        for batch in wire::batch::split(&bytes) {
            let (_, batch) = batch.map_err(|e| broken(path, 0, &e.to_string()))?;
            let header =
                wire::batch::validate(&batch).map_err(|e| broken(path, 0, &e.to_string()))?;
            self.batch(&header, &batch)
                .map_err(|b| broken(path, b.offset, &b.what))?;
        }
        Ok(())
    }

    pub(super) fn batch(
        &mut self,
        header: &BatchHeader,
        bytes: &bytes::Bytes,
    ) -> Result<(), Broken> {
        // Leaders, versions and voters: with one node there is nothing to learn from them.
        if header.is_control() {
            return Ok(());
        }
        let fail = |offset, what: String| Broken { offset, what };
        let records = wire::records::decode(bytes, BATCH_BYTES_MAX)
            .map_err(|e| fail(header.base_offset, e.to_string()))?;
        for found in records {
            let value = found
                .value
                .ok_or_else(|| fail(found.offset, "the record is empty".into()))?;
            let record = Record::decode(&value)
                .map_err(|e| fail(found.offset, format!("the record {e}")))?;
            self.record(found.offset, record)
                .map_err(|(at, what)| fail(at, what))?;
        }
        Ok(())
    }

    /// One record, transactions observed (KIP-868).
    fn record(&mut self, offset: i64, record: Record) -> Result<(), (i64, String)> {
        match (record, &mut self.pending) {
            (Record::BeginTransaction, None) => self.pending = Some(Vec::new()),
            (Record::EndTransaction, Some(records)) => {
                let records = std::mem::take(records);
                self.pending = None;
                for (at, record) in records {
                    self.apply(at, &record)?;
                }
            }
            (Record::AbortTransaction, Some(_)) => self.pending = None,
            (Record::BeginTransaction | Record::EndTransaction | Record::AbortTransaction, _) => {
                return Err((offset, "a transaction mark is out of place".into()));
            }
            (record, Some(records)) => {
                if records.len() >= TRANSACTION_RECORDS_MAX {
                    return Err((offset, "a transaction has no end".into()));
                }
                records.push((offset, record));
            }
            (record, None) => self.apply(offset, &record)?,
        }
        Ok(())
    }

    fn apply(&mut self, offset: i64, record: &Record) -> Result<(), (i64, String)> {
        self.relied_on += usize::from(record.is_relied_on());
        self.image.apply(record).map_err(|what| (offset, what))
    }
}

fn broken(place: &Path, offset: i64, what: &str) -> MetaError {
    MetaError::Open(format!(
        "the catalogue in {} cannot be read at offset {offset}: {what}. The topics' data is \
         untouched. Start the version of mini-broker or Apache Kafka that wrote it, or put back a \
         copy of that directory; do not delete it, it holds the names of all topics",
        place.display()
    ))
}
