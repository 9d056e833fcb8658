//! Parquet by the crate's low-level column writers: zstd, one row group, optional columns in order
//! of their first appearance. Types must not flip between objects of one table, and which numbers
//! an object happens to hold is chance, so a column's type depends on kinds of values only:
//!
//! | values of the column, null aside | type |
//! |---|---|
//! | numbers | DOUBLE, also where all happen to be integers |
//! | true, false | BOOLEAN |
//! | anything else, or a mix | UTF8: strings plain, others as their JSON text |
//! | none at all | the column is left out; readers see null |
//!
//! The price: integers beyond 2⁵³ are rounded; send such as strings.

use std::collections::HashMap;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType};
use parquet::errors::Result;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{Type, TypePtr};
use wire::records::Record;

use super::row::{self, Row};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Number,
    Bool,
    Text,
}

struct Column<'a> {
    name: String,
    kind: Kind,
    /// JSON text per row.
    cells: Vec<Option<&'a str>>,
}

pub fn encode(records: &[Record]) -> Result<Vec<u8>> {
    let mut rows: Vec<Row<'_>> = records.iter().map(row::row).collect();
    let mut columns = columns(&rows);
    if columns.is_empty() {
        // Nothing but `{}` and nulls: a table needs a column for its rows to exist.
        for (row, record) in rows.iter_mut().zip(records) {
            let text = record.value.as_deref().unwrap_or_default();
            let raw = row::quote(&String::from_utf8_lossy(text));
            row.fields = vec![("_raw".into(), raw.into())];
        }
        columns = self::columns(&rows);
    }
    let schema = schema(&columns)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by("mini-broker consumer".to_owned())
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for column in &columns {
        if let Some(mut out) = group.next_column()? {
            write_column(column, &mut out)?;
            out.close()?;
        }
    }
    group.close()?;
    writer.into_inner()
}

/// The columns that hold anything.
fn columns<'a>(rows: &'a [Row<'a>]) -> Vec<Column<'a>> {
    let names = row::columns(rows);
    let places: HashMap<&str, usize> = names
        .iter()
        .enumerate()
        .map(|(i, name)| (name.as_str(), i))
        .collect();
    let mut cells = vec![vec![None; rows.len()]; names.len()];
    let mut kinds = vec![None; names.len()];
    for (i, row) in rows.iter().enumerate() {
        for (name, json) in &row.fields {
            let Some(&place) = places.get(name.as_ref()) else {
                continue;
            };
            if let Some(kind) = kind_of(json) {
                cells[place][i] = Some(json.as_ref());
                kinds[place] = Some(match kinds[place] {
                    None => kind,
                    Some(before) if before == kind => kind,
                    Some(_) => Kind::Text,
                });
            }
        }
    }
    names
        .into_iter()
        .zip(kinds)
        .zip(cells)
        .filter_map(|((name, kind), cells)| kind.map(|kind| Column { name, kind, cells }))
        .collect()
}

fn kind_of(json: &str) -> Option<Kind> {
    match json.as_bytes().first() {
        Some(b'n') | None => None,
        Some(b't' | b'f') => Some(Kind::Bool),
        Some(b'-' | b'0'..=b'9') => Some(Kind::Number),
        Some(_) => Some(Kind::Text),
    }
}

fn schema(columns: &[Column<'_>]) -> Result<TypePtr> {
    let fields = columns
        .iter()
        .map(|column| {
            let (physical, logical) = match column.kind {
                Kind::Number => (Physical::DOUBLE, None),
                Kind::Bool => (Physical::BOOLEAN, None),
                Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            };
            Type::primitive_type_builder(&column.name, physical)
                .with_logical_type(logical)
                .with_repetition(Repetition::OPTIONAL)
                .build()
                .map(Arc::new)
        })
        .collect::<Result<Vec<_>>>()?;
    Type::group_type_builder("records")
        .with_fields(fields)
        .build()
        .map(Arc::new)
}

fn write_column(column: &Column<'_>, out: &mut SerializedColumnWriter<'_>) -> Result<()> {
    let levels: Vec<i16> = column
        .cells
        .iter()
        .map(|c| i16::from(c.is_some()))
        .collect();
    let cells = column.cells.iter().flatten();
    match column.kind {
        Kind::Number => {
            // A valid JSON number always parses, at worst to infinity.
            let values: Vec<f64> = cells.map(|c| c.parse().unwrap_or(f64::NAN)).collect();
            out.typed::<DoubleType>()
                .write_batch(&values, Some(&levels), None)?;
        }
        Kind::Bool => {
            let values: Vec<bool> = cells.map(|c| *c == "true").collect();
            out.typed::<BoolType>()
                .write_batch(&values, Some(&levels), None)?;
        }
        Kind::Text => {
            let values: Vec<ByteArray> = cells
                .map(|c| {
                    row::unquote(c)
                        .unwrap_or_else(|| (*c).to_owned())
                        .into_bytes()
                        .into()
                })
                .collect();
            out.typed::<ByteArrayType>()
                .write_batch(&values, Some(&levels), None)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::records;
    use super::*;
    use bytes::Bytes;
    use parquet::file::reader::{FileReader, SerializedFileReader};

    fn read(values: &[&str]) -> (Vec<String>, Vec<String>) {
        let file = Bytes::from(encode(&records(values)).unwrap());
        let reader = SerializedFileReader::new(file).unwrap();
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let columns = schema
            .columns()
            .iter()
            .map(|c| format!("{}:{}", c.name(), c.physical_type()))
            .collect();
        let rows = reader
            .get_row_iter(None)
            .unwrap()
            .map(|r| r.unwrap().to_string())
            .collect();
        (columns, rows)
    }

    #[test]
    fn a_ticks_types_do_not_depend_on_its_digits() {
        let (a, rows) = read(&[r#"{"Index":"NYA","Volume":0,"Adj Close":528.690002,"ok":true}"#]);
        let (b, _) = read(&[r#"{"Index":"NYA","Volume":1.5e9,"Adj Close":7,"ok":false}"#]);
        assert_eq!(a, b);
        assert_eq!(
            a,
            [
                "Index:BYTE_ARRAY",
                "Volume:DOUBLE",
                "Adj Close:DOUBLE",
                "ok:BOOLEAN"
            ]
        );
        assert_eq!(
            rows,
            [r#"{Index: "NYA", Volume: 0E0, Adj Close: 528.690002, ok: true}"#]
        );
    }

    #[test]
    fn mixed_nested_missing_and_raw_values_are_all_kept() {
        let (columns, rows) = read(&[
            r#"{"a":1,"n":null}"#,
            r#"{"a":"x","o":{"y":[1]}}"#,
            "not json",
        ]);
        assert_eq!(columns, ["a:BYTE_ARRAY", "o:BYTE_ARRAY", "_raw:BYTE_ARRAY"]);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0], r#"{a: "1", o: null, _raw: null}"#);
        assert_eq!(rows[1], r#"{a: "x", o: "{"y":[1]}", _raw: null}"#);
        assert_eq!(rows[2], r#"{a: null, o: null, _raw: "not json"}"#);
    }

    #[test]
    fn records_without_any_field_are_still_rows() {
        let (columns, rows) = read(&["{}", r#"{"a":null}"#]);
        assert_eq!(columns, ["_raw:BYTE_ARRAY"]);
        assert_eq!(rows, [r#"{_raw: "{}"}"#, r#"{_raw: "{"a":null}"}"#]);
    }

    #[test]
    fn equal_records_give_equal_bytes() {
        let records = records(&[r#"{"a":1,"b":"x"}"#, r#"{"a":2,"b":"y"}"#]);
        assert_eq!(encode(&records).unwrap(), encode(&records).unwrap());
    }
}
