//! An answer on its way out: small buffers and file regions, written with as few system calls as
//! they allow. Knows sockets and the log's files; nothing of what the bytes mean.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::log::Region;

/// Below this a region is read and sent with its neighbours in one write; above it, sendfile
/// saves the copy (Kafka always sends files; for small batches the extra call costs more).
const SENDFILE_MIN_BYTES: usize = 16 * 1024;
/// Buffers in one vectored write.
const MAX_SLICES: usize = 32;

/// A piece of an answer.
#[derive(Debug)]
pub enum Part {
    /// Bytes in memory.
    Buffer(Bytes),
    /// Bytes of a segment.
    File(Region),
}

impl Part {
    /// Bytes left to send.
    pub fn len(&self) -> usize {
        match self {
            Part::Buffer(b) => b.len(),
            Part::File(r) => r.len,
        }
    }
    /// True when nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Writes all parts. `stall` bounds how long a client may take no byte at all.
pub async fn write_parts(
    stream: &TcpStream,
    parts: &mut VecDeque<Part>,
    stall: Duration,
) -> io::Result<()> {
    load_small_regions(parts)?;
    while let Some(first) = parts.front() {
        if first.is_empty() {
            parts.pop_front();
            continue;
        }
        let sent = match first {
            Part::Buffer(_) => try_write_buffers(stream, parts),
            Part::File(region) => try_send_region(stream, region),
        };
        match sent {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => consume(parts, n),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::timeout(stall, stream.writable())
                    .await
                    .map_err(|_| {
                        io::Error::new(io::ErrorKind::TimedOut, "the client takes no data")
                    })??;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Small regions become buffers, so that they share a write with the bytes around them.
fn load_small_regions(parts: &mut VecDeque<Part>) -> io::Result<()> {
    for part in parts.iter_mut() {
        if let Part::File(region) = part
            && (region.len < SENDFILE_MIN_BYTES || region.file.as_fd().is_none())
        {
            let mut buffer = BytesMut::zeroed(region.len);
            region.file.read_exact_at(&mut buffer, region.position)?;
            *part = Part::Buffer(buffer.freeze());
        }
    }
    Ok(())
}

fn try_write_buffers(stream: &TcpStream, parts: &VecDeque<Part>) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    let mut used = 0;
    for (slot, part) in slices.iter_mut().zip(parts) {
        match part {
            Part::Buffer(b) => *slot = IoSlice::new(b),
            Part::File(_) => break,
        }
        used += 1;
    }
    stream.try_write_vectored(&slices[..used])
}

fn try_send_region(stream: &TcpStream, region: &Region) -> io::Result<usize> {
    let Some(file) = region.file.as_fd() else {
        return Err(io::Error::other("a region without a file was not loaded"));
    };
    stream.try_io(Interest::WRITABLE, || {
        let mut position = region.position;
        let sent = rustix::fs::sendfile(stream, file, Some(&mut position), region.len)?;
        if sent == 0 {
            // The file is shorter than the log says: never send a frame that is not whole.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(sent)
    })
}

fn consume(parts: &mut VecDeque<Part>, mut sent: usize) {
    while let Some(first) = parts.front_mut() {
        let take = sent.min(first.len());
        match first {
            Part::Buffer(b) => b.advance(take),
            Part::File(r) => {
                r.position += take as u64;
                r.len -= take;
            }
        }
        sent -= take;
        if !first.is_empty() {
            return;
        }
        parts.pop_front();
        if sent == 0 {
            return;
        }
    }
}
