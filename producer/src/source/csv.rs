//! CSV by RFC 4180, read line by line so that every row knows its line and a broken one costs no
//! other: a quote that is never closed takes only its own line with it, not the rest of the file.
//! Memory is bounded by [`MAX_ROW_BYTES`], whatever the file holds.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use super::row::{Next, Place, Row, Table};
use super::{BadRow, SourceError};

/// A row, with all the lines that a quoted field may span, is no larger than this.
pub const MAX_ROW_BYTES: usize = 1 << 20;

/// A CSV file with a header.
pub struct CsvTable<R> {
    lines: Lines<R>,
    columns: Vec<String>,
    first_row: Place,
}

impl<R: Read + Seek + Send> CsvTable<R> {
    /// Reads the header. `name` is what messages call the file.
    pub fn new(reader: R, name: &str) -> Result<CsvTable<R>, SourceError> {
        let mut lines = Lines::new(reader);
        let header_error = |reason: String| SourceError::Header {
            name: name.to_string(),
            reason,
        };
        let mut row = Row::default();
        let read = read_row(&mut lines, &mut row, None).map_err(|error| SourceError::Read {
            name: name.to_string(),
            error,
        })?;
        match read {
            Next::Row(_) => {}
            Next::Bad(bad) => {
                return Err(header_error(format!(
                    "has no readable header in line {}: {}",
                    bad.line, bad.reason
                )));
            }
            Next::End => {
                return Err(header_error(
                    "is empty: its first line should name the columns, such as Index,Date,Open,High,Low,Close,Adj Close,Volume,CloseUSD".into(),
                ));
            }
        }
        let columns = column_names(&row).map_err(header_error)?;
        let first_row = lines.place();
        Ok(CsvTable {
            lines,
            columns,
            first_row,
        })
    }
}

impl<R: Read + Seek + Send> Table for CsvTable<R> {
    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn next_row(&mut self, row: &mut Row) -> io::Result<Next> {
        read_row(&mut self.lines, row, Some(self.columns.len()))
    }

    fn rewind(&mut self) -> io::Result<()> {
        self.lines.seek(self.first_row)
    }

    fn seek(&mut self, place: Place) -> io::Result<()> {
        self.lines.seek(place)
    }
}

fn column_names(row: &Row) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::with_capacity(row.len());
    for (at, field) in row.fields().enumerate() {
        let mut name = String::from_utf8_lossy(field).into_owned();
        if at == 0 {
            // A byte order mark, as Excel writes it.
            name = name.trim_start_matches('\u{feff}').to_string();
        }
        if name.is_empty() {
            // pandas writes its index under no name, and reads it back under this one.
            name = format!("Unnamed: {at}");
        }
        if names.contains(&name) {
            return Err(format!(
                "names the column {name:?} twice: a JSON object can hold it only once, rename one"
            ));
        }
        names.push(name);
    }
    // Spreadsheets of half the world separate columns so.
    if let [only] = names.as_slice()
        && let Some(separator) = [';', '\t', '|'].into_iter().find(|&c| only.contains(c))
    {
        return Err(format!(
            "has one column, {only:?}, for its columns are separated by {separator:?}: save it again with commas"
        ));
    }
    Ok(names)
}

/// Reads one row, skipping blank lines; `columns` is how many fields it has to have.
fn read_row<R: Read + Seek>(
    lines: &mut Lines<R>,
    row: &mut Row,
    columns: Option<usize>,
) -> io::Result<Next> {
    let first = loop {
        match lines.next()? {
            None => return Ok(Next::End),
            Some(line) if line.is_blank() => {}
            Some(line) => break line,
        }
    };
    let place = first.place;
    let bad = |reason: String| {
        Ok(Next::Bad(BadRow {
            line: place.line,
            reason,
        }))
    };
    if first.too_long {
        return bad(format!("longer than {MAX_ROW_BYTES} bytes"));
    }
    row.clear();
    row.line = place.line;
    let mut parser = Parser::default();
    let mut size = first.bytes.len();
    parser.line(first.text(), row);
    let mut more: Vec<Line> = Vec::new();
    while parser.open() && size < MAX_ROW_BYTES {
        let Some(line) = lines.next()? else { break };
        size += line.bytes.len();
        let unusable = line.too_long;
        if !unusable {
            let before = more.last().unwrap_or(&first);
            row.push_bytes(before.terminator());
            parser.line(line.text(), row);
        }
        more.push(line);
        if unusable {
            break;
        }
    }
    let problem = match columns {
        _ if parser.open() => Some("a quoted field is not closed".to_string()),
        _ if parser.broken => Some("text follows the closing quote of a field".to_string()),
        Some(columns) if row.len() != columns => Some(format!(
            "{} where the header has {columns}",
            if row.len() == 1 {
                "1 field".to_string()
            } else {
                format!("{} fields", row.len())
            }
        )),
        _ if std::str::from_utf8(row.text()).is_err() => Some(
            "not valid UTF-8; to keep such rows convert the file (iconv -f latin1 -t utf-8)"
                .to_string(),
        ),
        _ => None,
    };
    match problem {
        None => Ok(Next::Row(place)),
        Some(reason) => {
            // The lines taken for a quoted field may well be good rows.
            lines.put_back(more);
            bad(reason)
        }
    }
}

/// The state in which one line leaves the next.
#[derive(Default)]
struct Parser {
    in_quotes: bool,
    broken: bool,
}

impl Parser {
    /// A quoted field goes on in the next line.
    fn open(&self) -> bool {
        self.in_quotes
    }

    fn line(&mut self, text: &[u8], row: &mut Row) {
        if !self.in_quotes && !text.contains(&b'"') {
            for field in text.split(|&b| b == b',') {
                row.push_bytes(field);
                row.end_field();
            }
            return;
        }
        let mut bytes = text.iter().copied().peekable();
        let mut at_start = !self.in_quotes;
        let mut closed = false;
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' if self.in_quotes => {
                    if bytes.next_if_eq(&b'"').is_some() {
                        row.push_byte(b'"');
                    } else {
                        self.in_quotes = false;
                        closed = true;
                    }
                }
                _ if self.in_quotes => row.push_byte(byte),
                b',' => {
                    row.end_field();
                    at_start = true;
                    closed = false;
                    continue;
                }
                b'"' if at_start => self.in_quotes = true,
                _ => {
                    self.broken |= closed;
                    row.push_byte(byte);
                }
            }
            at_start = false;
        }
        if !self.in_quotes {
            row.end_field();
        }
    }
}

struct Line {
    place: Place,
    /// With its terminator.
    bytes: Vec<u8>,
    too_long: bool,
}

impl Line {
    fn text(&self) -> &[u8] {
        let text = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        text.strip_suffix(b"\r").unwrap_or(text)
    }

    fn terminator(&self) -> &[u8] {
        self.bytes.get(self.text().len()..).unwrap_or_default()
    }

    fn is_blank(&self) -> bool {
        !self.too_long && self.text().iter().all(u8::is_ascii_whitespace)
    }
}

/// Lines with their places, some of which can be put back.
struct Lines<R> {
    reader: BufReader<R>,
    next: Place,
    returned: VecDeque<Line>,
}

impl<R: Read + Seek> Lines<R> {
    fn new(reader: R) -> Lines<R> {
        Lines {
            reader: BufReader::with_capacity(64 * 1024, reader),
            next: Place { offset: 0, line: 1 },
            returned: VecDeque::new(),
        }
    }

    /// Where the next line begins.
    fn place(&self) -> Place {
        self.returned.front().map_or(self.next, |line| line.place)
    }

    fn seek(&mut self, place: Place) -> io::Result<()> {
        self.returned.clear();
        self.reader.seek(SeekFrom::Start(place.offset))?;
        self.next = place;
        Ok(())
    }

    fn put_back(&mut self, lines: Vec<Line>) {
        for line in lines.into_iter().rev() {
            self.returned.push_front(line);
        }
    }

    fn next(&mut self) -> io::Result<Option<Line>> {
        if let Some(line) = self.returned.pop_front() {
            return Ok(Some(line));
        }
        let mut bytes = Vec::new();
        let limit = MAX_ROW_BYTES as u64;
        let mut size = (&mut self.reader)
            .take(limit)
            .read_until(b'\n', &mut bytes)? as u64;
        if size == 0 {
            return Ok(None);
        }
        let too_long = size == limit && bytes.last() != Some(&b'\n');
        if too_long {
            bytes = Vec::new();
            size += self.skip_line()?;
        }
        let place = self.next;
        self.next = Place {
            offset: place.offset + size,
            line: place.line + 1,
        };
        Ok(Some(Line {
            place,
            bytes,
            too_long,
        }))
    }

    fn skip_line(&mut self) -> io::Result<u64> {
        let mut skipped = 0;
        loop {
            let buffer = match self.reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if buffer.is_empty() {
                return Ok(skipped);
            }
            let newline = buffer.iter().position(|&b| b == b'\n');
            let used = newline.map_or(buffer.len(), |at| at + 1);
            self.reader.consume(used);
            skipped += used as u64;
            if newline.is_some() {
                return Ok(skipped);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn rows(text: &[u8]) -> Vec<Result<Vec<String>, (u64, String)>> {
        let mut table = CsvTable::new(Cursor::new(text.to_vec()), "test").unwrap();
        let mut row = Row::default();
        let mut all = Vec::new();
        loop {
            match table.next_row(&mut row).unwrap() {
                Next::Row(_) => all.push(Ok(row
                    .fields()
                    .map(|f| String::from_utf8(f.to_vec()).unwrap())
                    .collect())),
                Next::Bad(bad) => all.push(Err((bad.line, bad.reason))),
                Next::End => return all,
            }
        }
    }

    fn ok(fields: &[&str]) -> Result<Vec<String>, (u64, String)> {
        Ok(fields.iter().map(|f| f.to_string()).collect())
    }

    #[test]
    fn reads_quotes_crlf_blank_lines_and_a_last_line_without_newline() {
        let text = b"\xef\xbb\xbfa,b\r\n1,\"x,\"\"y\"\"\"\r\n\r\n,\r\n\"two\r\nlines\",3";
        assert_eq!(
            rows(text),
            vec![
                ok(&["1", "x,\"y\""]),
                ok(&["", ""]),
                ok(&["two\r\nlines", "3"])
            ]
        );
        let table = CsvTable::new(Cursor::new(text.to_vec()), "test").unwrap();
        assert_eq!(table.columns(), ["a", "b"]);
    }

    #[test]
    fn a_bad_row_is_named_by_its_line_and_costs_no_other() {
        let text =
            b"a,b\n1,2\n1,2,3\n\n4\n\"open,5\n6,7\n8,\xff\n\"x\"y,1\nq\"uote,9\n\"m\nn\",10\nlast";
        let got = rows(text);
        let lines: Vec<_> = got.iter().map(|r| r.as_ref().err().map(|e| e.0)).collect();
        assert_eq!(
            lines,
            [
                None,
                Some(3),
                Some(5),
                Some(6),
                None,
                Some(8),
                Some(9),
                None,
                None,
                Some(13)
            ]
        );
        assert_eq!(got[4], ok(&["6", "7"]));
        assert_eq!(got[7], ok(&["q\"uote", "9"]));
        assert_eq!(got[8], ok(&["m\nn", "10"]));
        assert_eq!(
            got[1].as_ref().unwrap_err().1,
            "3 fields where the header has 2"
        );
    }

    #[test]
    fn an_overlong_line_is_reported_and_skipped() {
        let mut text = b"a,b\n".to_vec();
        text.extend(vec![b'x'; MAX_ROW_BYTES * 2 + 17]);
        text.extend_from_slice(b",1\n3,4\n");
        let got = rows(&text);
        assert_eq!(got.len(), 2);
        assert_eq!(got[0].as_ref().unwrap_err().0, 2);
        assert_eq!(got[1], ok(&["3", "4"]));
    }

    #[test]
    fn a_row_is_found_again_by_its_place() {
        let mut table =
            CsvTable::new(Cursor::new(b"a\n1\n\n\"2\n2\"\n3\n".to_vec()), "test").unwrap();
        let mut row = Row::default();
        let mut places = Vec::new();
        while let Next::Row(place) = table.next_row(&mut row).unwrap() {
            places.push(place);
        }
        assert_eq!(places.iter().map(|p| p.line).collect::<Vec<_>>(), [2, 4, 6]);
        for (place, want) in places.iter().zip(["1", "2\n2", "3"]).rev() {
            table.seek(*place).unwrap();
            assert_eq!(table.next_row(&mut row).unwrap(), Next::Row(*place));
            assert_eq!(row.get(0).unwrap(), want.as_bytes());
        }
    }

    #[test]
    fn a_header_that_makes_no_object_is_refused() {
        for (text, want) in [
            (&b""[..], "is empty"),
            (b"a,b,a\n1,2,3\n", "twice"),
            (b"\xff\xfea\x00,\x00\n", "not valid UTF-8"),
            (b"\"a\n1\n", "not closed"),
            (b"a;b\n1;2\n", "save it again with commas"),
        ] {
            let Err(error) = CsvTable::new(Cursor::new(text.to_vec()), "x.csv") else {
                panic!("accepted {text:?}");
            };
            assert!(error.to_string().contains(want), "{error}");
        }
        let table = CsvTable::new(Cursor::new(b",Index\n".to_vec()), "x").unwrap();
        assert_eq!(table.columns(), ["Unnamed: 0", "Index"]);
    }
}
