//! CSV as RFC 4180 has it: a header line, CRLF, quotes where needed. The header is the names of all
//! fields in the object in order of appearance, so with uniform records the keys of the first.
//! Strings are written plain, null and missing as nothing, everything else as its JSON text.

use std::collections::HashMap;

use csv::{Terminator, WriterBuilder};
use wire::records::Record;

use super::row::{self, Row};

pub fn encode(records: &[Record]) -> Result<Vec<u8>, csv::Error> {
    let rows: Vec<Row<'_>> = records.iter().map(row::row).collect();
    let mut names = row::columns(&rows);
    // Only `{}`: a row without columns would vanish.
    let bare = names.is_empty();
    if bare {
        names.push("_raw".to_owned());
    }
    let places: HashMap<&str, usize> = names
        .iter()
        .enumerate()
        .map(|(i, name)| (name.as_str(), i))
        .collect();
    let mut writer = WriterBuilder::new()
        .terminator(Terminator::CRLF)
        .from_writer(Vec::new());
    writer.write_record(&names)?;
    let mut cells = vec![String::new(); names.len()];
    for row in &rows {
        cells.iter_mut().for_each(String::clear);
        if let (true, Some(cell)) = (bare, cells.first_mut()) {
            cell.push_str("{}");
        }
        for (name, value) in &row.fields {
            if let Some(cell) = places.get(name.as_ref()).and_then(|i| cells.get_mut(*i)) {
                write_cell(value, cell);
            }
        }
        writer.write_record(&cells)?;
    }
    writer
        .into_inner()
        .map_err(|e| csv::Error::from(std::io::Error::other(e.to_string())))
}

fn write_cell(json: &str, cell: &mut String) {
    match row::unquote(json) {
        Some(text) => cell.push_str(&text),
        None if json == "null" => {}
        None => cell.push_str(json),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::records;
    use super::*;

    fn text(values: &[&str]) -> String {
        String::from_utf8(encode(&records(values)).unwrap()).unwrap()
    }

    #[test]
    fn header_from_keys_and_quotes_where_needed() {
        assert_eq!(
            text(&[
                r#"{"Index":"NYA","Adj Close":1.10,"Note":"a,\"b\"\nc"}"#,
                r#"{"Index":null,"Adj Close":2,"Note":true}"#,
            ]),
            "Index,Adj Close,Note\r\nNYA,1.10,\"a,\"\"b\"\"\nc\"\r\n,2,true\r\n"
        );
    }

    #[test]
    fn new_fields_become_columns_and_nothing_is_lost() {
        assert_eq!(
            text(&[r#"{"a":1}"#, r#"{"b":[1,2],"a":2}"#, "oops"]),
            "a,b,_raw\r\n1,,\r\n2,\"[1,2]\",\r\n,,oops\r\n"
        );
        assert_eq!(text(&["{}", "{}"]), "_raw\r\n{}\r\n{}\r\n");
        assert_eq!(text(&[r#"{"a":null}"#, "{}"]), "a\r\n\"\"\r\n\"\"\r\n");
    }
}
