//! JSON lines. Objects pass through byte for byte (numbers keep their digits, fields their order);
//! only white space between tokens goes where a value spans several lines.

use wire::records::Record;

use super::row;

pub fn encode(records: &[Record]) -> Vec<u8> {
    let size = records
        .iter()
        .map(|r| r.value.as_ref().map_or(32, |v| v.len() + 1))
        .sum();
    let mut out = Vec::with_capacity(size);
    let mut line = String::new();
    for record in records {
        match record.value.as_deref().and_then(row::object_text) {
            Some(text) if !text.contains(['\n', '\r']) => out.extend_from_slice(text.as_bytes()),
            Some(text) => one_line(text.as_bytes(), &mut out),
            None => {
                line.clear();
                row::write_object(&row::wrapped(record), &mut line);
                out.extend_from_slice(line.as_bytes());
            }
        }
        out.push(b'\n');
    }
    out
}

/// Copies valid JSON without the white space between its tokens.
fn one_line(json: &[u8], out: &mut Vec<u8>) {
    let (mut in_string, mut escaped) = (false, false);
    for &byte in json {
        if in_string {
            out.push(byte);
            if escaped {
                escaped = false;
            } else if byte == b'\\' {
                escaped = true;
            } else if byte == b'"' {
                in_string = false;
            }
        } else if !byte.is_ascii_whitespace() {
            out.push(byte);
            in_string = byte == b'"';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::records;
    use super::*;

    #[test]
    fn one_line_per_record() {
        let out = encode(&records(&[
            r#"{"Index":"NYA","Close":528.690002, "Volume":0}"#,
            "{\n  \"a\": \"x \\\" \\\\\",\r\n  \"b\": [1,\n 2]\n}\n",
            "plain",
        ]));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"Index\":\"NYA\",\"Close\":528.690002, \"Volume\":0}\n\
             {\"a\":\"x \\\" \\\\\",\"b\":[1,2]}\n\
             {\"_raw\":\"plain\"}\n"
        );
    }
}
