//! One row as one JSON object: keys in the header's order, numbers exactly as they were written.

use bytes::Bytes;

use super::Tick;
use super::row::Row;

/// Turns rows into records.
pub struct Encoder {
    /// `"name":` for every column, ready to copy.
    names: Vec<Vec<u8>>,
    key: Option<usize>,
    size_hint: usize,
}

impl Encoder {
    /// `key` is the position of the column that keys the records.
    pub fn new(columns: &[String], key: Option<usize>) -> Encoder {
        let names = columns
            .iter()
            .map(|column| {
                let mut name = Vec::new();
                push_string(&mut name, column);
                name.push(b':');
                name
            })
            .collect();
        Encoder {
            names,
            key,
            size_hint: 64,
        }
    }

    pub fn encode(&mut self, row: &Row) -> Tick {
        let mut value = Vec::with_capacity(self.size_hint);
        value.push(b'{');
        for (at, (name, field)) in self.names.iter().zip(row.fields()).enumerate() {
            if at > 0 {
                value.push(b',');
            }
            value.extend_from_slice(name);
            push_field(&mut value, field);
        }
        value.push(b'}');
        self.size_hint = self.size_hint.max(value.len());
        let key = self
            .key
            .and_then(|at| row.get(at))
            .filter(|key| !key.is_empty())
            .map(Bytes::copy_from_slice);
        Tick {
            key,
            value: value.into(),
        }
    }
}

fn push_field(out: &mut Vec<u8>, field: &[u8]) {
    let trimmed = field.trim_ascii();
    if field.is_empty() {
        out.extend_from_slice(b"null");
    } else if is_number(trimmed) {
        out.extend_from_slice(trimmed);
    } else {
        push_string(out, &String::from_utf8_lossy(field));
    }
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    // Writing a string to memory does not fail.
    let _ = serde_json::to_writer(out, text);
}

/// A number by JSON's grammar, and one a double can hold: `104.0`, not `000001`, `.5`, `+1`, nor
/// a hash such as `12e4567`, which readers would take for infinity.
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
    let mut rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest.first() == Some(&b'0')) {
        return false;
    }
    rest = rest.get(whole..).unwrap_or_default();
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = fraction.get(count..).unwrap_or_default();
    }
    let has_exponent = matches!(rest.first(), Some(b'e' | b'E'));
    if has_exponent {
        let exponent = rest.get(1..).unwrap_or_default();
        let exponent = match exponent.first() {
            Some(b'+' | b'-') => exponent.get(1..).unwrap_or_default(),
            _ => exponent,
        };
        let count = digits(exponent);
        if count == 0 {
            return false;
        }
        rest = exponent.get(count..).unwrap_or_default();
    }
    // Without an exponent it takes more than 300 digits to leave a double's range.
    let fits = || {
        std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse::<f64>().ok())
            .is_some_and(f64::is_finite)
    };
    rest.is_empty() && ((!has_exponent && text.len() < 300) || fits())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(columns: &[&str], key: Option<usize>, fields: &[&str]) -> Tick {
        let columns: Vec<String> = columns.iter().map(|c| c.to_string()).collect();
        let mut row = Row::default();
        for field in fields {
            row.push_bytes(field.as_bytes());
            row.end_field();
        }
        Encoder::new(&columns, key).encode(&row)
    }

    #[test]
    fn keeps_the_order_of_the_header_and_the_text_of_numbers() {
        let tick = encode(
            &["Index", "Date", "Open", "Adj Close", "Volume", "CloseUSD"],
            Some(0),
            &[
                "000001.SS",
                "1986-12-31",
                "104.0",
                " 2568.300049",
                "",
                "-1.5E+3",
            ],
        );
        assert_eq!(tick.key.as_deref(), Some(&b"000001.SS"[..]));
        assert_eq!(
            std::str::from_utf8(&tick.value).unwrap(),
            r#"{"Index":"000001.SS","Date":"1986-12-31","Open":104.0,"Adj Close":2568.300049,"Volume":null,"CloseUSD":-1.5E+3}"#
        );
    }

    #[test]
    fn an_empty_key_is_no_key_and_strings_are_escaped() {
        let tick = encode(&["Index", "a\"b"], Some(0), &["", "x\"\n\u{1}é"]);
        assert_eq!(tick.key, None);
        let value: serde_json::Value = serde_json::from_slice(&tick.value).unwrap();
        assert_eq!(value["a\"b"], "x\"\n\u{1}é");
    }

    #[test]
    fn numbers_are_what_a_json_parser_takes_for_one() {
        let long = "9".repeat(400);
        for text in [
            "0", "-0", "1", "10", "1.0", "0.10", "1e5", "1E-5", "01", "+1", ".5", "5.", "-", "",
            "1e", "1e+", "NaN", "inf", "0x10", "1_000", "1,000", "12e4567", "1 2", "--1", "1.2.3",
            "00", "-01", &long,
        ] {
            let want = serde_json::from_str::<serde_json::Value>(text)
                .is_ok_and(|value| value.as_f64().is_some_and(f64::is_finite));
            assert_eq!(is_number(text.as_bytes()), want, "{text}");
        }
    }
}
