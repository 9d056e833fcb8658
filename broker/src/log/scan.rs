//! Walks the batches of a segment file by their headers, through one bounded buffer, and checks
//! CRCs without holding a batch in memory. Knows the file seam and `wire::batch`.

use std::io;

use wire::batch::{BatchHeader, HEADER_LEN};

use super::file::LogFile;

/// For walks that look at headers only: large batches are skipped, not read.
pub const HEADER_BLOCK: usize = 4096;
/// For walks that read everything.
pub const WHOLE_BLOCK: usize = 256 << 10;
/// What a disk writes whole or not at all.
const SECTOR: u64 = 512;
/// The CRC covers everything from the attributes on.
const CRC_START: usize = 21;

/// What lies at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A header whose batch lies within the file. Its CRC is not checked.
    Batch(BatchHeader),
    /// The end of the file.
    End,
    /// Not a batch, or one that is not all there.
    Bad,
}

/// A buffered reader of one file up to `end`.
pub struct Scanner<'a> {
    file: &'a dyn LogFile,
    end: u64,
    block: usize,
    buf: Vec<u8>,
    /// Position of the first byte of `buf`.
    at: u64,
}

impl<'a> Scanner<'a> {
    pub fn new(file: &'a dyn LogFile, end: u64, block: usize) -> Scanner<'a> {
        Scanner {
            file,
            end,
            block: block.max(HEADER_LEN),
            buf: Vec::new(),
            at: 0,
        }
    }

    pub fn end(&self) -> u64 {
        self.end
    }

    /// Up to `n` bytes at `position` (`n` at most the block), fewer only at the end.
    pub fn bytes(&mut self, position: u64, n: usize) -> io::Result<&[u8]> {
        let n = n.min(self.block);
        let n = usize::try_from(self.end.saturating_sub(position)).map_or(n, |left| left.min(n));
        let inside = position >= self.at && position + n as u64 <= self.at + self.buf.len() as u64;
        if !inside {
            let left = self.end.saturating_sub(position);
            let fill = usize::try_from(left).map_or(self.block, |left| left.min(self.block));
            // Invalid until it is filled: a failed read must not leave stale bytes behind.
            self.buf.clear();
            let mut fresh = std::mem::take(&mut self.buf);
            fresh.resize(fill, 0);
            self.file.read_exact_at(&mut fresh, position)?;
            self.buf = fresh;
            self.at = position;
        }
        let from = (position - self.at) as usize;
        Ok(self.buf.get(from..from + n).unwrap_or_default())
    }

    /// The header at `position`.
    pub fn header(&mut self, position: u64) -> io::Result<Found> {
        if position >= self.end {
            return Ok(Found::End);
        }
        let left = self.end - position;
        let Ok(header) = BatchHeader::parse(self.bytes(position, HEADER_LEN)?) else {
            return Ok(Found::Bad);
        };
        let whole = header.size() as u64 <= left;
        let sane =
            header.last_offset_delta >= 0 && header.base_offset >= 0 && header.record_count >= 0;
        Ok(if whole && sane {
            Found::Batch(header)
        } else {
            Found::Bad
        })
    }

    /// True when the bytes of the batch at `position` have the CRC its header names.
    pub fn crc_matches(&mut self, position: u64, header: &BatchHeader) -> io::Result<bool> {
        let mut at = position + CRC_START as u64;
        let end = position + header.size() as u64;
        let mut crc = 0;
        while at < end {
            let n = usize::try_from(end - at)
                .unwrap_or(usize::MAX)
                .min(self.block);
            let bytes = self.bytes(at, n)?;
            if bytes.is_empty() {
                return Ok(false);
            }
            crc = crc32c::crc32c_append(crc, bytes);
            at += bytes.len() as u64;
        }
        Ok(crc == header.crc)
    }

    /// True when a disk sector between two positions holds nothing but zeros: it was never written.
    pub fn has_hole(&mut self, from: u64, to: u64) -> io::Result<bool> {
        let mut at = from - from % SECTOR;
        while at < to {
            let sector = self.bytes(at, SECTOR as usize)?;
            if sector.iter().all(|b| *b == 0) {
                return Ok(true);
            }
            at += SECTOR;
        }
        Ok(false)
    }
}
