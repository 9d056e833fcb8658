//! An answer on its way out: small buffers and file regions, written with as few system calls as
//! they allow. Knows sockets and the log's files; nothing of what the bytes mean.
//!
//! Bytes that are not in the page cache are brought there by a blocking thread first, so that a
//! reader far behind the end of a log never stops the workers that serve everybody else.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::log::Region;

/// Below this a region is read and sent with its neighbours in one write; above it, sendfile
/// saves the copy (Kafka always sends files; for small batches the extra call costs more).
const SENDFILE_MIN_BYTES: usize = 16 * 1024;
/// Buffers in one vectored write.
const MAX_SLICES: usize = 32;
/// What is made sure to be in the page cache before it is sent, and sent before others get a turn.
const CHUNK_BYTES: usize = 512 * 1024;
/// The kernel reads ahead at least so much: one byte per window tells whether it is cached.
const WINDOW_BYTES: usize = 128 * 1024;
/// Readers of cold bytes at one time: the blocking threads are also the log's, for its fsyncs.
static COLD_READERS: Semaphore = Semaphore::const_new(8);

/// Why an answer could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The client is gone, or takes nothing.
    #[error(transparent)]
    Client(io::Error),
    /// A segment cannot be read, or is shorter than the log says.
    #[error("a segment cannot be read: {0}")]
    Segment(io::Error),
}

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
    stall: Option<Duration>,
) -> Result<(), SendError> {
    // Bytes of the first part that are known to be in the page cache.
    let mut cached = 0;
    loop {
        load_small_regions(parts)
            .await
            .map_err(SendError::Segment)?;
        let Some(first) = parts.front() else {
            return Ok(());
        };
        if first.is_empty() {
            parts.pop_front();
            continue;
        }
        let sent = match first {
            Part::Buffer(_) => try_write_buffers(stream, parts).map_err(SendError::Client),
            Part::File(region) => {
                if cached == 0 {
                    cached = bring_to_cache(region).await.map_err(SendError::Segment)?;
                }
                try_send_region(stream, region, cached)
            }
        };
        match sent {
            Ok(0) => return Err(SendError::Client(ErrorKind::WriteZero.into())),
            Ok(n) => {
                cached = cached.saturating_sub(n);
                consume(parts, n);
                // A fast reader of much data lets others have their turn.
                tokio::task::consume_budget().await;
            }
            Err(SendError::Client(e)) if e.kind() == ErrorKind::WouldBlock => {
                writable(stream, stall).await.map_err(SendError::Client)?;
            }
            Err(SendError::Client(e)) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

async fn writable(stream: &TcpStream, stall: Option<Duration>) -> io::Result<()> {
    match stall {
        None => stream.writable().await,
        Some(stall) => tokio::time::timeout(stall, stream.writable())
            .await
            .map_err(|_| io::Error::new(ErrorKind::TimedOut, "the client takes no data"))?,
    }
}

/// Small regions become buffers, so that they share a write with the bytes around them. Only those
/// next in turn: a slow reader holds no more of its answer in memory.
async fn load_small_regions(parts: &mut VecDeque<Part>) -> io::Result<()> {
    for part in parts.iter_mut().take(MAX_SLICES) {
        if let Part::File(region) = part
            && (region.len < SENDFILE_MIN_BYTES || region.file.as_fd().is_none())
        {
            *part = Part::Buffer(load(region).await?);
        }
    }
    Ok(())
}

async fn load(region: &Region) -> io::Result<Bytes> {
    let mut buffer = BytesMut::zeroed(region.len);
    match region.file.as_fd() {
        Some(fd) if !read_cached(fd, &mut buffer, region.position) => {
            let region = region.clone();
            on_blocking_thread(move || {
                region.file.read_exact_at(&mut buffer, region.position)?;
                Ok(buffer.freeze())
            })
            .await
        }
        Some(_) => Ok(buffer.freeze()),
        None => {
            region.file.read_exact_at(&mut buffer, region.position)?;
            Ok(buffer.freeze())
        }
    }
}

/// Fills `buffer` if that needs no disk.
fn read_cached(fd: BorrowedFd<'_>, buffer: &mut [u8], position: u64) -> bool {
    let len = buffer.len();
    let mut into = [IoSliceMut::new(buffer)];
    matches!(
        rustix::io::preadv2(fd, &mut into, position, ReadWriteFlags::NOWAIT),
        Ok(read) if read == len
    )
}

/// Makes sure that the next bytes of a region are in the page cache; returns how many.
async fn bring_to_cache(region: &Region) -> io::Result<usize> {
    let len = region.len.min(CHUNK_BYTES);
    let cold = region
        .file
        .as_fd()
        .is_some_and(|fd| is_cold(fd, region.position, len));
    if cold {
        let region = region.clone();
        on_blocking_thread(move || read_through(&region, len)).await?;
    }
    Ok(len)
}

/// Whether sending these bytes would wait for the disk, as far as one byte per window tells. File
/// systems that cannot say count as warm.
fn is_cold(fd: BorrowedFd<'_>, position: u64, len: usize) -> bool {
    let last = len.saturating_sub(1);
    let mut offsets = (0..len).step_by(WINDOW_BYTES).chain([last]);
    offsets.any(|offset| {
        let mut byte = [0];
        let mut into = [IoSliceMut::new(&mut byte)];
        let read = rustix::io::preadv2(
            fd,
            &mut into,
            position + offset as u64,
            ReadWriteFlags::NOWAIT,
        );
        read == Err(Errno::AGAIN)
    })
}

fn read_through(region: &Region, len: usize) -> io::Result<()> {
    let mut scratch = vec![0; WINDOW_BYTES];
    let (mut position, end) = (region.position, region.position + len as u64);
    while position < end {
        let step = scratch.len().min((end - position) as usize);
        match region.file.read_at(&mut scratch[..step], position) {
            // A file that is too short is told by whoever sends it.
            Ok(0) => return Ok(()),
            Ok(n) => position += n as u64,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let _turn = COLD_READERS.acquire().await.map_err(io::Error::other)?;
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
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

fn try_send_region(stream: &TcpStream, region: &Region, max: usize) -> Result<usize, SendError> {
    let Some(file) = region.file.as_fd() else {
        let why = io::Error::other("a region without a file was not loaded");
        return Err(SendError::Segment(why));
    };
    let sent = stream.try_io(Interest::WRITABLE, || {
        let mut position = region.position;
        let len = region.len.min(max);
        Ok(rustix::fs::sendfile(
            stream,
            file,
            Some(&mut position),
            len,
        )?)
    });
    match sent {
        // The file is shorter than the log says: never send a frame that is not whole.
        Ok(0) => Err(SendError::Segment(ErrorKind::UnexpectedEof.into())),
        Ok(sent) => Ok(sent),
        Err(e) if is_of_the_socket(e.kind()) => Err(SendError::Client(e)),
        Err(e) => Err(SendError::Segment(e)),
    }
}

/// sendfile's errors come from either end.
fn is_of_the_socket(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock
            | ErrorKind::Interrupted
            | ErrorKind::BrokenPipe
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::NotConnected
            | ErrorKind::TimedOut
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
    )
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Fs, RealFs};
    use std::sync::Arc;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    /// A segment of `len` bytes that tell their position.
    fn segment(dir: &std::path::Path, len: usize) -> (Region, Vec<u8>) {
        let bytes: Vec<u8> = (0..len).map(|n| (n / 7 % 251) as u8).collect();
        let file = RealFs.create(&dir.join("segment")).unwrap();
        file.write_all_at(&bytes, &[], 0).unwrap();
        file.sync().unwrap();
        let region = Region {
            file: Arc::clone(&file),
            position: 0,
            len,
        };
        (region, bytes)
    }

    fn evict(region: &Region) {
        let fd = region.file.as_fd().unwrap();
        rustix::fs::fadvise(fd, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }

    fn cut(region: &Region, position: usize, len: usize) -> Part {
        Part::File(Region {
            file: Arc::clone(&region.file),
            position: position as u64,
            len,
        })
    }

    /// Large and small regions between buffers, cold, to a reader that takes a little at a time:
    /// sendfile stops short many times, and every byte arrives once.
    #[tokio::test]
    async fn a_slow_reader_gets_every_byte_of_a_cold_segment() {
        let dir = tempfile::tempdir().unwrap();
        let (region, bytes) = segment(dir.path(), 6 << 20);
        evict(&region);
        let mut parts = VecDeque::new();
        let mut expected = Vec::new();
        let mut position = 0;
        for len in [5 << 20, 100, SENDFILE_MIN_BYTES, 0, 3, 700_001] {
            parts.push_back(Part::Buffer(Bytes::from_static(b"head")));
            parts.push_back(cut(&region, position, len));
            expected.extend_from_slice(b"head");
            expected.extend_from_slice(&bytes[position..position + len]);
            position += len;
        }
        let (near, mut far) = pair().await;
        let reading = tokio::spawn(async move {
            let (mut all, mut some) = (Vec::new(), vec![0; 10_007]);
            loop {
                match far.read(&mut some).await.unwrap() {
                    0 => return all,
                    n => all.extend_from_slice(&some[..n]),
                }
            }
        });
        write_parts(&near, &mut parts, None).await.unwrap();
        drop(near);
        assert!(
            reading.await.unwrap() == expected,
            "bytes were lost or altered"
        );
    }

    #[tokio::test]
    async fn what_is_brought_to_the_cache_is_not_cold() {
        let dir = tempfile::tempdir().unwrap();
        let (region, _) = segment(dir.path(), 1 << 20);
        evict(&region);
        assert_eq!(bring_to_cache(&region).await.unwrap(), CHUNK_BYTES);
        let fd = region.file.as_fd().unwrap();
        assert!(!is_cold(fd, 0, CHUNK_BYTES));
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_is_the_segments_fault() {
        let dir = tempfile::tempdir().unwrap();
        let (region, _) = segment(dir.path(), 100_000);
        let (near, _far) = pair().await;
        for len in [200_000, SENDFILE_MIN_BYTES - 1] {
            let mut parts = VecDeque::from([cut(&region, 99_000, len)]);
            let sent = write_parts(&near, &mut parts, None).await;
            let Err(SendError::Segment(e)) = sent else {
                panic!("{sent:?}");
            };
            assert_eq!(e.kind(), ErrorKind::UnexpectedEof);
        }
    }

    #[tokio::test]
    async fn a_client_that_resets_is_the_clients_fault() {
        let dir = tempfile::tempdir().unwrap();
        let (region, _) = segment(dir.path(), 8 << 20);
        let (near, far) = pair().await;
        // Unread bytes make the close a reset.
        near.try_write(b"unread").unwrap();
        far.readable().await.unwrap();
        drop(far);
        let mut parts = VecDeque::from([cut(&region, 0, 8 << 20)]);
        let sent = write_parts(&near, &mut parts, None).await;
        assert!(matches!(sent, Err(SendError::Client(_))), "{sent:?}");
    }
}
