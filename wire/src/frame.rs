//! Kafka's frames: four bytes of length, then that many bytes. Knows a reader, not what is inside.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// First memory taken for a frame; it doubles as bytes arrive, never on the word of the length.
const STEP: usize = 64 * 1024;

/// Reads one frame's content; `None` when the peer closed between frames. Not cancel-safe: a
/// dropped call loses what it has read.
pub async fn read<R: AsyncRead + Unpin>(r: &mut R, max: usize) -> io::Result<Option<Bytes>> {
    let mut head = [0; 4];
    let mut have = 0;
    while have < head.len() {
        match r.read(head.get_mut(have..).unwrap_or_default()).await? {
            0 if have == 0 => return Ok(None),
            0 => return Err(cut_short()),
            n => have += n,
        }
    }
    let announced = i32::from_be_bytes(head);
    let len = match usize::try_from(announced) {
        Ok(len) if len <= max => len,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "frame of {announced} bytes announced, 0 to {max} allowed: is this a Kafka \
                     port, and without TLS?"
                ),
            ));
        }
    };
    let mut buf = BytesMut::with_capacity(len.min(STEP));
    while buf.len() < len {
        if buf.len() == buf.capacity() {
            buf.reserve((len - buf.len()).min(buf.len()));
        }
        // The limit keeps the next frame's bytes out, whatever the buffer has room for.
        let room = (len - buf.len()).min(buf.capacity() - buf.len());
        if (&mut *r).take(room as u64).read_buf(&mut buf).await? == 0 {
            return Err(cut_short());
        }
    }
    Ok(Some(buf.freeze()))
}

fn cut_short() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "connection closed in the middle of a frame",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(bytes: &[u8], max: usize) -> Vec<io::Result<Bytes>> {
        let mut r = bytes;
        let mut out = Vec::new();
        while let Some(next) = read(&mut r, max).await.transpose() {
            let stop = next.is_err();
            out.push(next);
            if stop {
                break;
            }
        }
        out
    }

    #[tokio::test]
    async fn frames_come_out_whole_and_in_order() {
        let big = vec![7; 3 * STEP + 5];
        let mut wire = Vec::new();
        for part in [&b"one"[..], b"", &big, b"last"] {
            wire.extend_from_slice(&(part.len() as u32).to_be_bytes());
            wire.extend_from_slice(part);
        }
        let got = read_all(&wire, big.len()).await;
        let got: Vec<Bytes> = got.into_iter().map(Result::unwrap).collect();
        assert_eq!(got, [&b"one"[..], b"", &big, b"last"]);
    }

    #[tokio::test]
    async fn lengths_out_of_bounds_are_refused_by_name() {
        for announced in [-1, i32::MIN, 11, i32::MAX] {
            let got = read_all(&announced.to_be_bytes(), 10).await;
            let err = got.into_iter().next().unwrap().unwrap_err();
            assert_eq!(err.kind(), io::ErrorKind::InvalidData);
            assert!(err.to_string().contains(&announced.to_string()), "{err}");
        }
    }

    #[tokio::test]
    async fn an_end_inside_a_frame_is_an_error_and_between_frames_none() {
        let wire = [0, 0, 0, 3, 1, 2, 3];
        for cut in 1..wire.len() {
            let err = read_all(&wire[..cut], 10).await.pop().unwrap().unwrap_err();
            assert_eq!(err.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
        assert!(read_all(&[], 10).await.is_empty());
    }
}
