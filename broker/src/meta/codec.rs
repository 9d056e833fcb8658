//! Primitive types of Kafka's flexible messages, for the metadata records. Bounded: nothing is
//! reserved before the bytes are there. Knows no record.

use uuid::Uuid;

/// Why bytes are no record. The text completes "the record ...".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// It ends too early.
    #[error("ends in the middle of {0}")]
    Short(&'static str),
    /// A length, number or text that cannot be.
    #[error("has an impossible {0}")]
    Bad(&'static str),
    /// Bytes behind its end.
    #[error("has {0} bytes too many")]
    Garbage(usize),
    /// Written in a frame this version does not read.
    #[error("has frame version {0}, but 1 is the only one understood")]
    Frame(u32),
    /// A kind or version this version does not read.
    #[error(
        "is of kind {api_key} version {version}, which this version of mini-broker does not know"
    )]
    Unknown {
        /// The kind.
        api_key: u32,
        /// Its version.
        version: u32,
    },
}

type Result<T> = std::result::Result<T, CodecError>;

/// Reads from a slice, from front to back.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(CodecError::Short(what))?;
        self.0 = rest;
        Ok(*head)
    }

    pub fn i8(&mut self) -> Result<i8> {
        Ok(i8::from_be_bytes(self.fixed("a number")?))
    }

    pub fn bool(&mut self) -> Result<bool> {
        Ok(self.i8()? != 0)
    }

    pub fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.fixed("a number")?))
    }

    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.fixed("a number")?))
    }

    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.fixed("a number")?))
    }

    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.fixed("a number")?))
    }

    pub fn uuid(&mut self) -> Result<Uuid> {
        Ok(Uuid::from_bytes(self.fixed("an id")?))
    }

    /// Unsigned varint of at most 32 bits.
    pub fn varint(&mut self) -> Result<u32> {
        let mut value: u64 = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.fixed("a varint")?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| CodecError::Bad("varint"));
            }
        }
        Err(CodecError::Bad("varint"))
    }

    /// A length stored as length + 1, where 0 is null.
    fn length(&mut self) -> Result<Option<usize>> {
        Ok(self.varint()?.checked_sub(1).map(|n| n as usize))
    }

    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(CodecError::Short("bytes"))?;
        self.0 = rest;
        Ok(head)
    }

    pub fn nullable_string(&mut self) -> Result<Option<String>> {
        let Some(len) = self.length()? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(self.bytes(len)?).map_err(|_| CodecError::Bad("text"))?;
        Ok(Some(text.to_owned()))
    }

    pub fn string(&mut self) -> Result<String> {
        self.nullable_string()?.ok_or(CodecError::Bad("null"))
    }

    /// An array; `None` is null. No element is smaller than a byte, which bounds the count.
    pub fn nullable_array<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(count) = self.length()? else {
            return Ok(None);
        };
        if count > self.0.len() {
            return Err(CodecError::Bad("count"));
        }
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(one(self)?);
        }
        Ok(Some(items))
    }

    pub fn array<T>(&mut self, one: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.nullable_array(one)?.ok_or(CodecError::Bad("null"))
    }

    /// Tagged fields (KIP-482): `field` is told tag and content; unknown tags are skipped.
    pub fn tags(
        &mut self,
        mut field: impl FnMut(u32, &mut Reader<'a>) -> Result<()>,
    ) -> Result<()> {
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            field(tag, &mut Reader(self.bytes(size)?))?;
        }
        Ok(())
    }

    /// Tagged fields of which none matters.
    pub fn skip_tags(&mut self) -> Result<()> {
        self.tags(|_, _| Ok(()))
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<()> {
        match self.0.len() {
            0 => Ok(()),
            n => Err(CodecError::Garbage(n)),
        }
    }
}

/// Writes into a vector.
#[derive(Debug, Clone, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn i8(&mut self, n: i8) {
        self.0.extend(n.to_be_bytes());
    }

    pub fn bool(&mut self, b: bool) {
        self.0.push(u8::from(b));
    }

    pub fn i16(&mut self, n: i16) {
        self.0.extend(n.to_be_bytes());
    }

    pub fn u16(&mut self, n: u16) {
        self.0.extend(n.to_be_bytes());
    }

    pub fn i32(&mut self, n: i32) {
        self.0.extend(n.to_be_bytes());
    }

    pub fn i64(&mut self, n: i64) {
        self.0.extend(n.to_be_bytes());
    }

    pub fn uuid(&mut self, id: &Uuid) {
        self.0.extend(id.as_bytes());
    }

    pub fn varint(&mut self, mut n: u32) {
        while n >= 0x80 {
            self.0.push((n as u8) | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn length(&mut self, len: usize) {
        // Nothing written here comes near 2^32.
        self.varint(u32::try_from(len + 1).unwrap_or(u32::MAX));
    }

    pub fn string(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend(text.as_bytes());
    }

    pub fn nullable_string(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None => self.varint(0),
        }
    }

    pub fn array<T>(&mut self, items: &[T], mut one: impl FnMut(&mut Self, &T)) {
        self.length(items.len());
        for item in items {
            one(self, item);
        }
    }

    /// Tagged fields, tags rising.
    pub fn tags(&mut self, fields: &[(u32, Vec<u8>)]) {
        self.varint(fields.len() as u32);
        for (tag, content) in fields {
            self.varint(*tag);
            self.varint(content.len() as u32);
            self.0.extend(content);
        }
    }
}
