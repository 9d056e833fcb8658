//! Recovery of what is derived from the batches: producer state from the newest snapshot plus
//! replay, leader epochs from their checkpoint or from the batches. Knows `recovery`, `view`.

use std::io::{self, ErrorKind};

use wire::batch::BatchHeader;

use super::leader_epochs::{self, LeaderEpochs};
use super::producer_state::{Marker, Producers};
use super::recovery::{Recovery, SIDE_FILE_BYTES_MAX};
use super::scan::{Found, HEADER_BLOCK, Scanner};
use super::segment::{self, SegmentView, Step, Walk};
use super::writer::Log;

impl Log {
    /// Loads the newest valid snapshot and replays the batches behind it.
    pub(super) fn load_producers(&mut self, r: &mut Recovery<'_>, now_ms: i64) -> io::Result<()> {
        self.snapshots = r
            .files
            .keys()
            .filter_map(|name| segment::offset_of(name, "snapshot"))
            .collect();
        let first = self.shared.published().first_base();
        let mut from = first;
        let mut removed = false;
        while let Some(offset) = self.snapshots.last().copied() {
            // A snapshot of batches that are gone would refuse what comes in their place, and one
            // that cannot be brought up to date would refuse what comes next.
            let usable = first <= offset && offset <= self.end;
            let loaded = usable.then(|| self.read_snapshot(offset)).flatten();
            if let Some(producers) = loaded {
                self.producers = producers;
                r.report.snapshot_offset = Some(offset);
                from = offset;
                break;
            }
            self.remove_snapshot(offset);
            self.snapshots.remove(&offset);
            removed = true;
        }
        if removed {
            // Back after a power cut, it would speak of other batches.
            self.shared.fs.sync_dir(&self.shared.dir)?;
        }
        r.report.replayed_batches = self.replay(from)?;
        self.producers
            .expire(now_ms, self.cfg.producer_id_expiration_ms);
        Ok(())
    }

    fn read_snapshot(&self, offset: i64) -> Option<Producers> {
        let path = segment::snapshot_path(&self.shared.dir, offset);
        Producers::decode(&self.shared.fs.read(&path, SIDE_FILE_BYTES_MAX).ok()?)
    }

    fn replay(&mut self, from: i64) -> io::Result<u64> {
        let view = self.view();
        let mut replayed = 0;
        if from >= self.end {
            return Ok(0);
        }
        for lazy in view.segments_from(from) {
            let segment = view.open(&lazy)?;
            let mut walk = Walk::new(&segment, view.floor(&segment, from)?);
            while let Step::Batch(position, header) = walk.step()? {
                if header.base_offset < from {
                    continue;
                }
                replayed += 1;
                if header.has_producer_id() {
                    let marker = read_marker(&segment, position, &header)?;
                    self.producers.update(&header, marker);
                }
                self.bytes_since_snapshot += header.size() as u64;
            }
        }
        Ok(replayed)
    }

    /// Loads the leader epochs; what does not fit the batches is built anew from them.
    pub(super) fn load_epochs(&mut self, r: &mut Recovery<'_>) -> io::Result<()> {
        let path = self.shared.dir.join(leader_epochs::FILE_NAME);
        let bytes = match self.shared.fs.read(&path, SIDE_FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => {
                Vec::new()
            }
            Err(e) => return Err(e),
        };
        let loaded = LeaderEpochs::decode(&bytes);
        let edges = self.edges()?;
        let fits = |e: &LeaderEpochs| {
            edges.iter().all(|h| {
                let epoch = Some(h.partition_leader_epoch).filter(|epoch| *epoch >= 0);
                epoch.is_none() || e.epoch_of(h.base_offset.max(self.start)) == epoch
            })
        };
        let mut changed = false;
        self.epochs = match loaded.filter(fits) {
            Some(epochs) => epochs,
            None if edges.is_empty() => LeaderEpochs::default(),
            None => {
                changed = true;
                r.report.rebuilt_epochs = true;
                self.epochs_from_batches()?
            }
        };
        changed |= self.epochs.truncate_end(self.end);
        changed |= self.epochs.truncate_start(self.start);
        if changed {
            self.write_epochs();
        }
        Ok(())
    }

    /// The first batch of every segment, and the last of the log.
    fn edges(&self) -> io::Result<Vec<BatchHeader>> {
        let view = self.view();
        let mut edges = Vec::new();
        for lazy in view.segments_from(self.start) {
            let segment = view.open(&lazy)?;
            if let Some(header) = first_header(&segment)? {
                edges.push(header);
            }
            let mut walk = Walk::new(&segment, view.floor(&segment, i64::MAX)?);
            let mut last = None;
            while let Step::Batch(_, header) = walk.step()? {
                last = Some(header);
            }
            edges.extend(last);
        }
        Ok(edges)
    }

    /// Walks only the segments within which the epoch changes.
    fn epochs_from_batches(&self) -> io::Result<LeaderEpochs> {
        let view = self.view();
        let segments = view.segments_from(self.start);
        let mut epochs = LeaderEpochs::default();
        let mut note = |header: &BatchHeader| {
            let epoch = header.partition_leader_epoch;
            if epochs.latest().is_none_or(|latest| epoch > latest) {
                epochs.assign(epoch, header.base_offset);
            }
        };
        for (i, lazy) in segments.iter().enumerate() {
            let segment = view.open(lazy)?;
            let Some(first) = first_header(&segment)? else {
                continue;
            };
            note(&first);
            let after = match segments.get(i + 1) {
                Some(next) => first_header(&view.open(next)?)?,
                None => None,
            };
            if after.is_some_and(|a| a.partition_leader_epoch == first.partition_leader_epoch) {
                continue;
            }
            let mut walk = Walk::new(&segment, 0);
            while let Step::Batch(_, header) = walk.step()? {
                note(&header);
            }
        }
        Ok(epochs)
    }
}

fn first_header(segment: &SegmentView) -> io::Result<Option<BatchHeader>> {
    match Walk::new(segment, 0).step()? {
        Step::Batch(_, header) => Ok(Some(header)),
        _ => Ok(None),
    }
}

fn read_marker(
    segment: &SegmentView,
    position: u64,
    header: &BatchHeader,
) -> io::Result<Option<Marker>> {
    if !header.is_control() {
        return Ok(None);
    }
    let mut scanner = Scanner::new(&*segment.file, segment.size, HEADER_BLOCK);
    // Checked by the walk; read again with its records behind it.
    match scanner.header(position)? {
        Found::Batch(header) => Ok(Marker::read(scanner.bytes(position, header.size())?)),
        _ => Ok(None),
    }
}
