//! Look-ups by time, exact to the record (ListOffsets by timestamp and with -3, KIP-79 and KIP-734):
//! time index, then batch headers, then the records of one batch. Knows `view` and `wire::records`.

use std::ops::ControlFlow;

use wire::batch::BatchHeader;
use wire::records;

use super::segment::{SegmentView, Step, Walk};
use super::view::{Lazy, LogView, Region};
use super::{ReadError, Stamp};

/// A batch that unpacks to more than this is answered by its first offset.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

impl LogView {
    /// The first record with a timestamp at or behind `ts`, and its offset below `upper`.
    pub fn lookup_timestamp(&self, ts: i64, upper: i64) -> Result<Option<Stamp>, ReadError> {
        self.retry_deleted(|| self.find_timestamp(ts, upper))
    }

    /// The first record that has the largest timestamp of all below `upper`.
    pub fn max_timestamp(&self, upper: i64) -> Result<Option<Stamp>, ReadError> {
        self.retry_deleted(|| self.find_max_timestamp(upper))
    }

    fn find_timestamp(&self, ts: i64, upper: i64) -> Result<Option<Stamp>, ReadError> {
        let start = self.start_offset();
        for lazy in self.segments_from(start) {
            if lazy.base() >= upper {
                break;
            }
            if lazy.max().timestamp < ts {
                continue;
            }
            let segment = self.open(&lazy)?;
            let by_time = self.shared.floor_by_time(&segment, ts)?;
            let by_offset = self.floor(&segment, start)?;
            let mut walk = Walk::new(&segment, by_time.max(by_offset));
            while let Step::Batch(position, header) = walk.step()? {
                if header.base_offset >= upper {
                    return Ok(None);
                }
                if header.max_timestamp < ts || header.last_offset() < start {
                    continue;
                }
                let found = first_record(&segment, position, &header, |offset, timestamp| {
                    timestamp >= ts && offset >= start
                })?;
                if let Some(stamp) = found {
                    return Ok(Some(stamp).filter(|s| s.offset < upper));
                }
            }
        }
        Ok(None)
    }

    fn find_max_timestamp(&self, upper: i64) -> Result<Option<Stamp>, ReadError> {
        let start = self.start_offset();
        let mut best: Option<(Lazy, Largest)> = None;
        for lazy in self.segments_from(start) {
            if lazy.base() >= upper {
                break;
            }
            let beaten = best.as_ref().map_or(-1, |(_, b)| b.timestamp);
            if lazy.max().timestamp <= beaten {
                continue;
            }
            let segment = self.open(&lazy)?;
            if let Some(largest) = self.largest(&segment, start, upper)?
                && largest.timestamp > beaten
            {
                best = Some((lazy, largest));
            }
        }
        let Some((lazy, best)) = best else {
            return Ok(None);
        };
        let segment = self.open(&lazy)?;
        first_record(
            &segment,
            best.position,
            &best.header,
            |offset, timestamp| timestamp >= best.timestamp && offset >= start,
        )
    }

    /// The first batch of the segment with its largest timestamp, among those from `start` that end
    /// below `upper`.
    fn largest(
        &self,
        segment: &SegmentView,
        start: i64,
        upper: i64,
    ) -> Result<Option<Largest>, ReadError> {
        let known = segment.max;
        let whole = known.offset < upper && known.offset >= start;
        let from = if whole {
            known.offset
        } else {
            // Nothing before the batch of a time entry beats it.
            let entry = self.shared.stamp_before(segment, upper)?;
            entry.map_or(start, |e| e.offset.max(start))
        };
        let mut walk = Walk::new(segment, self.floor(segment, from)?);
        let mut best: Option<Largest> = None;
        while let Step::Batch(position, header) = walk.step()? {
            if header.last_offset() >= upper {
                break;
            }
            if header.last_offset() < start {
                continue;
            }
            let timestamp = if header.base_offset < start {
                largest_from(segment, position, &header, start)?
            } else {
                header.max_timestamp
            };
            if timestamp >= 0 && best.as_ref().is_none_or(|b| timestamp > b.timestamp) {
                best = Some(Largest {
                    position,
                    header,
                    timestamp,
                });
            }
            if whole && timestamp >= known.timestamp {
                break;
            }
        }
        Ok(best)
    }
}

/// A batch that has the largest timestamp so far.
struct Largest {
    position: u64,
    header: BatchHeader,
    timestamp: i64,
}

/// The largest timestamp of a batch whose first records were deleted.
fn largest_from(
    segment: &SegmentView,
    position: u64,
    header: &BatchHeader,
    start: i64,
) -> Result<i64, ReadError> {
    let mut largest = -1;
    let found = first_record(segment, position, header, |offset, timestamp| {
        if offset >= start {
            largest = largest.max(timestamp);
        }
        false
    })?;
    Ok(found.map_or(largest, |stamp| stamp.timestamp))
}

/// The first record of a batch that fits; the batch's first offset when it cannot be unpacked.
fn first_record(
    segment: &SegmentView,
    position: u64,
    header: &BatchHeader,
    mut fits: impl FnMut(i64, i64) -> bool,
) -> Result<Option<Stamp>, ReadError> {
    let stamp = |offset, timestamp| Stamp {
        offset,
        timestamp,
        leader_epoch: header.partition_leader_epoch,
    };
    let region = Region {
        file: segment.file.clone(),
        position,
        len: header.size(),
    };
    let mut found = None;
    let walked = records::for_each_stamp(
        &region.bytes()?,
        DECOMPRESSED_BYTES_MAX,
        |offset, timestamp| {
            if fits(offset, timestamp) {
                found = Some(stamp(offset, timestamp));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        },
    );
    if let Err(e) = walked {
        tracing::debug!(offset = header.base_offset, error = %e, "cannot unpack a batch");
        return Ok(found.or(Some(stamp(header.base_offset, header.max_timestamp))));
    }
    Ok(found)
}
