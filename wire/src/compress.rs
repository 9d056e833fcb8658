//! The four codecs of record batches, in the framings Kafka's clients write and read. Knows byte
//! slices only. Whatever a stranger compressed, no more than the caller's `max` bytes come out.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

/// A batch's codec: the low three bits of its attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Records as they are.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy blocks in the framing of the Java library (xerial).
    Snappy = 2,
    /// LZ4 frames of independent blocks.
    Lz4 = 3,
    /// Zstandard frames (KIP-110).
    Zstd = 4,
}

impl Compression {
    /// The codec with this number on the wire.
    pub fn from_id(id: i16) -> Option<Compression> {
        Some(match id {
            0 => Compression::None,
            1 => Compression::Gzip,
            2 => Compression::Snappy,
            3 => Compression::Lz4,
            4 => Compression::Zstd,
            _ => return None,
        })
    }

    /// Its number on the wire.
    pub fn id(self) -> i16 {
        self as i16
    }

    /// Its name in Kafka's settings (`compression.type`).
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Compression {
    type Err = CompressError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        [
            Compression::None,
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ]
        .into_iter()
        .find(|c| c.name().eq_ignore_ascii_case(s))
        .ok_or_else(|| CompressError::UnknownName(s.to_owned()))
    }
}

/// Why bytes could not be compressed or decompressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// No such codec.
    #[error("unknown compression '{0}': use none, gzip, snappy, lz4 or zstd")]
    UnknownName(String),
    /// The bytes are not what the codec writes.
    #[error("bytes are not valid {codec}: {source}")]
    Corrupt {
        /// The codec the batch named.
        codec: Compression,
        /// What the codec said.
        source: io::Error,
    },
    /// More would come out than the caller allows.
    #[error("decompressed records exceed the limit of {max_bytes} bytes")]
    TooLarge {
        /// The caller's limit.
        max_bytes: usize,
    },
}

/// Compresses `bytes` in the framing Kafka's own clients read.
pub fn compress(codec: Compression, bytes: &[u8]) -> Result<Vec<u8>, CompressError> {
    match codec {
        Compression::None => Ok(bytes.to_vec()),
        Compression::Gzip => gzip(bytes),
        Compression::Snappy => xerial::write(bytes),
        Compression::Lz4 => lz4(bytes),
        Compression::Zstd => zstd::stream::encode_all(bytes, 3),
    }
    .map_err(|source| CompressError::Corrupt { codec, source })
}

/// Undoes [`compress`], and what other clients write; stops at `max` bytes.
pub fn decompress(codec: Compression, bytes: &[u8], max: usize) -> Result<Vec<u8>, CompressError> {
    match codec {
        Compression::None if bytes.len() > max => Err(CompressError::TooLarge { max_bytes: max }),
        Compression::None => Ok(bytes.to_vec()),
        Compression::Gzip => drain(codec, flate2::read::MultiGzDecoder::new(bytes), max),
        Compression::Snappy => xerial::read(bytes, max),
        Compression::Lz4 => drain(codec, FrameDecoder::new(bytes), max),
        Compression::Zstd => match zstd::stream::read::Decoder::with_buffer(bytes) {
            Ok(decoder) => drain(codec, decoder, max),
            Err(source) => Err(CompressError::Corrupt { codec, source }),
        },
    }
}

/// Reads all of `from`, growing as bytes come, and gives up one byte beyond `max`.
fn drain(codec: Compression, from: impl Read, max: usize) -> Result<Vec<u8>, CompressError> {
    let mut out = Vec::new();
    from.take(max as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|source| CompressError::Corrupt { codec, source })?;
    if out.len() > max {
        return Err(CompressError::TooLarge { max_bytes: max });
    }
    Ok(out)
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    w.write_all(bytes)?;
    w.finish()
}

/// Kafka's Java reader takes independent blocks only, and 64 KiB is what it writes.
fn lz4(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let info = FrameInfo::new()
        .block_mode(BlockMode::Independent)
        .block_size(BlockSize::Max64KB);
    let mut w = FrameEncoder::with_frame_info(info, Vec::new());
    w.write_all(bytes)?;
    Ok(w.finish()?)
}

/// Snappy as snappy-java's streams have it: a 16-byte head, then blocks behind a 4-byte length each.
mod xerial {
    use super::{CompressError, Compression, io};

    const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
    const HEAD_LEN: usize = 16;
    const BLOCK: usize = 32 * 1024;

    pub fn write(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(HEAD_LEN + bytes.len() / 2);
        out.extend_from_slice(&MAGIC);
        // The version, and the oldest version that can read it.
        out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
        let mut encoder = snap::raw::Encoder::new();
        let mut block = vec![0; snap::raw::max_compress_len(bytes.len().min(BLOCK))];
        for chunk in bytes.chunks(BLOCK) {
            let len = encoder.compress(chunk, &mut block)?;
            out.extend_from_slice(&(len as u32).to_be_bytes());
            out.extend_from_slice(block.get(..len).unwrap_or_default());
        }
        Ok(out)
    }

    /// Both framings: old clients (and some of other languages) send one bare block.
    pub fn read(bytes: &[u8], max: usize) -> Result<Vec<u8>, CompressError> {
        let mut out = Vec::new();
        if !bytes.starts_with(&MAGIC) {
            block(bytes, &mut out, max)?;
            return Ok(out);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            // Streams may be joined end to end, each with its head.
            if rest.starts_with(&MAGIC) {
                rest = rest
                    .get(HEAD_LEN..)
                    .ok_or_else(|| corrupt("head cut short"))?;
                continue;
            }
            let (len, tail) = rest
                .split_first_chunk::<4>()
                .ok_or_else(|| corrupt("block length cut short"))?;
            let (chunk, tail) = tail
                .split_at_checked(u32::from_be_bytes(*len) as usize)
                .ok_or_else(|| corrupt("block cut short"))?;
            block(chunk, &mut out, max)?;
            rest = tail;
        }
        Ok(out)
    }

    fn block(chunk: &[u8], out: &mut Vec<u8>, max: usize) -> Result<(), CompressError> {
        let len = snap::raw::decompress_len(chunk).map_err(|e| corrupt(e.to_string()))?;
        let from = out.len();
        if len > max.saturating_sub(from) {
            return Err(CompressError::TooLarge { max_bytes: max });
        }
        // A block of snappy shrinks to no less than about a 21st (64 bytes by a 3-byte copy), so
        // a block that promises more lies, and gets no memory for it.
        if len / 32 > chunk.len() {
            return Err(corrupt("block promises more than it can hold"));
        }
        out.resize(from + len, 0);
        snap::raw::Decoder::new()
            .decompress(chunk, out.get_mut(from..).unwrap_or_default())
            .map_err(|e| corrupt(e.to_string()))?;
        Ok(())
    }

    fn corrupt(what: impl Into<String>) -> CompressError {
        CompressError::Corrupt {
            codec: Compression::Snappy,
            source: io::Error::new(io::ErrorKind::InvalidData, what.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|i| ((i / 7) * 31 % 251) as u8).collect()
    }

    #[test]
    fn what_goes_in_comes_out() {
        for codec in ALL {
            for len in [0, 1, 100, 32 * 1024, 32 * 1024 + 1, 300_000] {
                let plain = sample(len);
                let packed = compress(codec, &plain).unwrap();
                assert_eq!(
                    decompress(codec, &packed, len).unwrap(),
                    plain,
                    "{codec} {len}"
                );
            }
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let zeros = vec![0; 4 << 20];
        for codec in ALL {
            let packed = compress(codec, &zeros).unwrap();
            let err = decompress(codec, &packed, zeros.len() - 1).unwrap_err();
            assert!(
                matches!(err, CompressError::TooLarge { .. }),
                "{codec}: {err}"
            );
            assert!(decompress(codec, &packed, zeros.len()).is_ok(), "{codec}");
        }
    }

    #[test]
    fn rubbish_is_refused_and_cuts_never_panic() {
        for codec in ALL.into_iter().skip(1) {
            assert!(decompress(codec, b"\xff\xff\xff\xff\xff\xff rubbish", 1 << 20).is_err());
            let packed = compress(codec, &sample(5000)).unwrap();
            for cut in 0..packed.len() {
                // A cut at a block's end can look whole: shorter than what went in, then.
                if let Ok(out) = decompress(codec, &packed[..cut], 1 << 20) {
                    assert!(out.len() < 5000 || cut + 8 >= packed.len(), "{codec} {cut}");
                }
            }
        }
    }

    #[test]
    fn snappy_is_read_bare_framed_and_joined() {
        let plain = sample(70_000);
        let bare = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        assert_eq!(
            decompress(Compression::Snappy, &bare, 70_000).unwrap(),
            plain
        );
        let mut joined = compress(Compression::Snappy, &plain).unwrap();
        assert!(joined.starts_with(b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01"));
        joined.extend(compress(Compression::Snappy, b"more").unwrap());
        let out = decompress(Compression::Snappy, &joined, 80_000).unwrap();
        assert_eq!((out.len(), &out[70_000..]), (70_004, &b"more"[..]));
    }

    #[test]
    fn a_lying_snappy_block_gets_no_memory() {
        // A length of 4 GiB - 1 in front of nothing.
        let lie = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        assert!(decompress(Compression::Snappy, &lie, usize::MAX - 1).is_err());
    }

    #[test]
    fn lz4_is_framed_as_javas_reader_wants_it() {
        let packed = compress(Compression::Lz4, &sample(100)).unwrap();
        assert_eq!(packed[..4], [0x04, 0x22, 0x4d, 0x18]);
        assert_eq!(packed[4] & 0xe0, 0x60, "version 1, independent blocks");
        assert_eq!(
            packed[4] & 0x1c,
            0,
            "no checksums of blocks or content, no size"
        );
        assert_eq!(packed[5], 0x40, "64 KiB blocks");
    }

    #[test]
    fn names_and_numbers_go_both_ways() {
        for codec in ALL {
            assert_eq!(codec.to_string().parse::<Compression>().unwrap(), codec);
            assert_eq!(Compression::from_id(codec.id()), Some(codec));
        }
        assert_eq!(Compression::from_id(5), None);
        let err = "brotli".parse::<Compression>().unwrap_err();
        assert!(err.to_string().contains("zstd"), "{err}");
    }
}
