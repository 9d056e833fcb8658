//! A row of text fields and the tables that hold such rows.

use std::io;

/// The fields of one row, in one buffer that is used again for the next.
#[derive(Debug, Default, Clone)]
pub struct Row {
    /// Line on which the row begins, counted from 1.
    pub line: u64,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Row {
    pub fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    pub fn push_byte(&mut self, byte: u8) {
        self.text.push(byte);
    }

    pub fn push_bytes(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }

    /// Ends the field the bytes were pushed for.
    pub fn end_field(&mut self) {
        self.ends.push(self.text.len());
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Field `at`, if the row has so many.
    pub fn get(&self, at: usize) -> Option<&[u8]> {
        let end = *self.ends.get(at)?;
        let start = match at.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.text.get(start..end)
    }

    pub fn fields(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// All fields' bytes together.
    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

/// Where in a table a row is, to find it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub offset: u64,
    pub line: u64,
}

/// What reading the next row came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The row was filled.
    Row(Place),
    Bad(super::BadRow),
    End,
}

/// Rows under a header.
pub trait Table: Send {
    fn columns(&self) -> &[String];
    /// Reads the next row into `row`.
    fn next_row(&mut self, row: &mut Row) -> io::Result<Next>;
    /// Back to the first row.
    fn rewind(&mut self) -> io::Result<()>;
    /// The next row read is the one at `place`.
    fn seek(&mut self, place: Place) -> io::Result<()>;
}
