//! The walker: one position in the bytes, one budget of elements. Refuses what the decoder would
//! read differently (overlong numbers, tagged fields whose size lies), lest the two lose step.

use super::tables::{Field, Kind};
use super::{GuardError, MAX_ELEMENTS};

/// Null, for lengths and counts.
const NULL: i64 = -1;

/// A walk over the fields of one version of one request.
pub(super) struct Walk<'a> {
    all: &'a [u8],
    rest: &'a [u8],
    version: i16,
    /// Compact lengths, and tagged fields behind every structure (KIP-482).
    flexible: bool,
    elements_left: usize,
}

impl<'a> Walk<'a> {
    pub fn new(bytes: &'a [u8], version: i16, flexible: bool) -> Walk<'a> {
        Walk {
            all: bytes,
            rest: bytes,
            version,
            flexible,
            elements_left: MAX_ELEMENTS,
        }
    }

    /// Bytes walked so far.
    pub fn position(&self) -> usize {
        self.all.len() - self.rest.len()
    }

    /// A structure: its fields in order, then (flexible) its tagged fields.
    pub fn fields(&mut self, fields: &'static [Field]) -> Result<(), GuardError> {
        for field in fields {
            if field.tag.is_none() && field.is_in(self.version) {
                self.kind(field.kind)?;
            }
        }
        if self.flexible {
            self.tagged_fields(fields)
        } else {
            Ok(())
        }
    }

    /// Tagged fields: unknown ones are stepped over by their size, known ones walked, for the
    /// decoder reads them by their type and does not look at the size.
    pub fn tagged_fields(&mut self, fields: &'static [Field]) -> Result<(), GuardError> {
        let count = self.unsigned()? as usize;
        self.charge(count)?;
        for _ in 0..count {
            let at = self.position();
            let tag = self.unsigned()?;
            let size = self.unsigned()? as usize;
            match fields.iter().find(|f| f.tag == Some(tag)) {
                None => {
                    self.skip(size)?;
                }
                Some(known) => {
                    let end = self.position().saturating_add(size);
                    if !known.is_in(self.version) {
                        return Err(GuardError::BadTag { at });
                    }
                    self.kind(known.kind)?;
                    if self.position() != end {
                        return Err(GuardError::BadTag { at });
                    }
                }
            }
        }
        Ok(())
    }

    fn kind(&mut self, kind: Kind) -> Result<(), GuardError> {
        match kind {
            Kind::Fixed(len) => self.skip(len).map(drop),
            Kind::Text => self.string().map(drop),
            Kind::Bytes => {
                let len = self.long_length()?;
                self.sized(len).map(drop)
            }
            Kind::Each(element) => {
                for _ in 0..self.count()? {
                    self.kind(*element)?;
                }
                Ok(())
            }
            Kind::List(fields) => {
                for _ in 0..self.count()? {
                    self.fields(fields)?;
                }
                Ok(())
            }
            Kind::Struct(fields) => self.fields(fields),
            Kind::Maybe(fields) => {
                let at = self.position();
                match i8::from_be_bytes(self.take()?) {
                    1 => self.fields(fields),
                    -1 => Ok(()),
                    _ => Err(GuardError::BadLength { at }),
                }
            }
        }
    }

    /// An array's count: each element takes a byte at least, so more than there are bytes is a lie.
    fn count(&mut self) -> Result<usize, GuardError> {
        let at = self.position();
        let count = match self.long_length()? {
            NULL => 0,
            n => usize::try_from(n).map_err(|_| GuardError::BadLength { at })?,
        };
        if count > self.rest.len() {
            return Err(GuardError::CutShort { at });
        }
        self.charge(count)?;
        Ok(count)
    }

    fn charge(&mut self, count: usize) -> Result<(), GuardError> {
        let left = self.elements_left.checked_sub(count);
        self.elements_left = left.ok_or(GuardError::TooManyElements)?;
        Ok(())
    }

    /// Text: two bytes of length, or a compact one.
    pub fn string(&mut self) -> Result<Option<&'a [u8]>, GuardError> {
        let len = if self.flexible {
            self.compact_length()?
        } else {
            i64::from(i16::from_be_bytes(self.take()?))
        };
        self.sized(len)
    }

    /// The length of bytes or count of an array: four bytes, or a compact one.
    fn long_length(&mut self) -> Result<i64, GuardError> {
        if self.flexible {
            self.compact_length()
        } else {
            Ok(i64::from(i32::from_be_bytes(self.take()?)))
        }
    }

    /// One more than the length, 0 for null.
    fn compact_length(&mut self) -> Result<i64, GuardError> {
        Ok(i64::from(self.unsigned()?) - 1)
    }

    fn sized(&mut self, len: i64) -> Result<Option<&'a [u8]>, GuardError> {
        if len == NULL {
            return Ok(None);
        }
        let at = self.position();
        let len = usize::try_from(len).map_err(|_| GuardError::BadLength { at })?;
        self.skip(len).map(Some)
    }

    /// An unsigned number in at most five bytes and 32 bits.
    fn unsigned(&mut self) -> Result<u32, GuardError> {
        let at = self.position();
        let mut n: u64 = 0;
        for i in 0..5 {
            let [byte] = self.take()?;
            n |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                return u32::try_from(n).map_err(|_| GuardError::BadLength { at });
            }
        }
        Err(GuardError::BadLength { at })
    }

    pub fn take<const N: usize>(&mut self) -> Result<[u8; N], GuardError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(*head)
            }
            None => Err(GuardError::CutShort {
                at: self.position(),
            }),
        }
    }

    fn skip(&mut self, len: usize) -> Result<&'a [u8], GuardError> {
        match self.rest.split_at_checked(len) {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(head)
            }
            None => Err(GuardError::CutShort {
                at: self.position(),
            }),
        }
    }
}
