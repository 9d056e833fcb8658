//! Turns the records of one object into its bytes. Pure: knows records and formats, nothing of
//! stores, offsets already stored, or time. Equal records always give equal bytes, so that two
//! attempts at the same object can not differ.

mod csv;
mod json;
mod parquet;
mod row;

use wire::records::Record;

/// What the objects are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Format {
    /// One JSON object per line, byte for byte as it was produced
    Json,
    /// RFC 4180 with a header line
    Csv,
    /// Columns, zstd; numbers are DOUBLE, text is UTF8
    Parquet,
}

impl Format {
    /// Ending of object names, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Csv => "csv",
            Format::Parquet => "parquet",
        }
    }

    /// Media type of the objects.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/x-ndjson",
            Format::Csv => "text/csv; header=present",
            Format::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// An object could not be encoded. No record's content leads here; only a library's limits can.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot encode as {format}: {reason}; try smaller objects (--rotate-records, --rotate-bytes) or another --format"
)]
pub struct EncodeError {
    format: &'static str,
    reason: String,
}

/// The bytes of an object with these records, in their order; each record becomes exactly one row.
pub fn encode(format: Format, records: &[Record]) -> Result<Vec<u8>, EncodeError> {
    match format {
        Format::Json => Ok(json::encode(records)),
        Format::Csv => csv::encode(records).map_err(|e| EncodeError {
            format: "csv",
            reason: e.to_string(),
        }),
        Format::Parquet => parquet::encode(records).map_err(|e| EncodeError {
            format: "parquet",
            reason: e.to_string(),
        }),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use bytes::Bytes;
    use wire::records::Record;

    /// A record without key.
    pub fn record(offset: i64, value: &str) -> Record {
        Record {
            offset,
            timestamp: 0,
            key: None,
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            headers: Vec::new(),
        }
    }

    /// Records 0, 1, 2, … with these values.
    pub fn records(values: &[&str]) -> Vec<Record> {
        (0..)
            .zip(values)
            .map(|(offset, value)| record(offset, value))
            .collect()
    }
}
