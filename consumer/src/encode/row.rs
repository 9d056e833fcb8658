//! A record's value as named fields, whatever it holds: the one place that decides what becomes of
//! values that are not JSON objects. Knows JSON; nothing of any output format.
//!
//! | value | fields |
//! |---|---|
//! | JSON object | its own, in their order; the last one wins where a name repeats |
//! | other UTF-8 text (also other JSON) | `_raw` |
//! | other bytes | `_raw_base64` |
//! | null (a tombstone) | `_tombstone`: true, and `_key` (or `_key_base64`) if there is a key |

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use wire::records::Record;

/// Fields of one row, each with its value as JSON text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Row<'a> {
    pub fields: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// The text of a value that is a JSON object, or nothing.
pub fn object_text(value: &[u8]) -> Option<&str> {
    // The look at the first byte spares other values a failed parse.
    if value.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let text = std::str::from_utf8(value).ok()?;
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    Some(text.trim_ascii())
}

/// The fields of a record whose value is not a JSON object.
pub fn wrapped(record: &Record) -> Row<'static> {
    let mut fields = Vec::new();
    match &record.value {
        Some(value) => fields.push(text_field("_raw", "_raw_base64", value)),
        None => {
            fields.push((Cow::Borrowed("_tombstone"), Cow::Borrowed("true")));
            if let Some(key) = &record.key {
                fields.push(text_field("_key", "_key_base64", key));
            }
        }
    }
    Row { fields }
}

/// The fields of any record.
pub fn row(record: &Record) -> Row<'_> {
    record
        .value
        .as_deref()
        .and_then(object_fields)
        .unwrap_or_else(|| wrapped(record))
}

fn object_fields(value: &[u8]) -> Option<Row<'_>> {
    let text = object_text(value)?;
    let mut de = serde_json::Deserializer::from_str(text);
    let fields = de.deserialize_map(FieldsVisitor).ok()?;
    Some(Row { fields })
}

fn text_field(
    text_name: &'static str,
    base64_name: &'static str,
    bytes: &[u8],
) -> (Cow<'static, str>, Cow<'static, str>) {
    let (name, content) = match std::str::from_utf8(bytes) {
        Ok(text) => (text_name, quote(text)),
        Err(_) => (base64_name, quote(&base64(bytes))),
    };
    (Cow::Borrowed(name), Cow::Owned(content))
}

/// `text` as a JSON string.
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The content of a JSON string, or None for other JSON.
pub fn unquote(json: &str) -> Option<String> {
    json.starts_with('"')
        .then(|| serde_json::from_str::<String>(json).ok())
        .flatten()
}

/// Base64 with padding (RFC 4648 §4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { digit as char } else { '=' });
        }
    }
    out
}

/// The names of all fields of these rows, in order of their first appearance.
pub fn columns(rows: &[Row<'_>]) -> Vec<String> {
    let mut seen: HashMap<&str, ()> = HashMap::new();
    let mut names = Vec::new();
    for (name, _) in rows.iter().flat_map(|r| &r.fields) {
        if seen.insert(name, ()).is_none() {
            names.push(name.to_string());
        }
    }
    names
}

/// `{"name":value,…}` on one line.
pub fn write_object(row: &Row<'_>, out: &mut String) {
    out.push('{');
    for (i, (name, value)) in row.fields.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        // Writing to a String can not fail.
        let _ = write!(out, "{}:{value}", quote(name));
    }
    out.push('}');
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Vec<(Cow<'de, str>, Cow<'de, str>)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields: Self::Value = Vec::with_capacity(16);
        while let Some(name) = map.next_key::<CowStr<'de>>()? {
            let value = Cow::Borrowed(map.next_value::<&'de RawValue>()?.get());
            // Quadratic, but rows are narrow; wide ones are cut off from it below.
            let twin = (fields.len() < 64)
                .then(|| fields.iter_mut().find(|(n, _)| *n == name.0))
                .flatten();
            match twin {
                Some((_, v)) => *v = value,
                None => fields.push((name.0, value)),
            }
        }
        if fields.len() >= 64 {
            fields = last_of_each(fields);
        }
        Ok(fields)
    }
}

fn last_of_each<'a>(
    fields: Vec<(Cow<'a, str>, Cow<'a, str>)>,
) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
    let mut places: HashMap<Cow<'a, str>, usize> = HashMap::with_capacity(fields.len());
    let mut out: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        match places.get(&name) {
            Some(&i) => out[i].1 = value,
            None => {
                places.insert(name.clone(), out.len());
                out.push((name, value));
            }
        }
    }
    out
}

/// A key that borrows where it has no escapes.
struct CowStr<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for CowStr<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = CowStr<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(CowStr(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
                Ok(CowStr(Cow::Owned(v.to_owned())))
            }
        }
        d.deserialize_str(V)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::record;
    use super::*;
    use bytes::Bytes;

    fn shown(r: &Record) -> String {
        let mut out = String::new();
        write_object(&row(r), &mut out);
        out
    }

    #[test]
    fn objects_keep_order_and_number_text() {
        let r = record(
            0,
            r#" {"b":1.10,"a":{"x":[1, 2]},"n":12345678901234567890} "#,
        );
        assert_eq!(
            shown(&r),
            r#"{"b":1.10,"a":{"x":[1, 2]},"n":12345678901234567890}"#
        );
    }

    #[test]
    fn the_last_of_equal_names_wins_in_narrow_and_wide_rows() {
        assert_eq!(
            shown(&record(0, r#"{"a":1,"b":2,"a":3}"#)),
            r#"{"a":3,"b":2}"#
        );
        let wide: Vec<String> = (0..100)
            .chain([7])
            .map(|i| format!("\"c{i}\":{i}"))
            .collect();
        let r = record(0, &format!("{{{},\"c8\":\"new\"}}", wide.join(",")));
        let row = row(&r);
        assert_eq!(row.fields.len(), 100);
        assert_eq!(row.fields[8].1, "\"new\"");
    }

    #[test]
    fn whatever_is_no_object_is_kept() {
        for (value, expected) in [
            ("12", r#"{"_raw":"12"}"#),
            ("[1]", r#"{"_raw":"[1]"}"#),
            ("{broken", r#"{"_raw":"{broken"}"#),
            ("a \"b\"\nc", r#"{"_raw":"a \"b\"\nc"}"#),
            ("", r#"{"_raw":""}"#),
        ] {
            assert_eq!(shown(&record(0, value)), expected);
        }
        let mut r = record(0, "");
        r.value = Some(Bytes::from_static(&[0xff, 0, 1, 2]));
        assert_eq!(shown(&r), r#"{"_raw_base64":"/wABAg=="}"#);
        r.value = None;
        assert_eq!(shown(&r), r#"{"_tombstone":true}"#);
        r.key = Some(Bytes::from_static(b"NYA"));
        assert_eq!(shown(&r), r#"{"_tombstone":true,"_key":"NYA"}"#);
    }

    #[test]
    fn base64_pads_as_the_rfc_says() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn deep_nesting_neither_overflows_the_stack_nor_gets_lost() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let value = format!("{{\"a\":{deep}}}");
        assert_eq!(shown(&record(0, &value)), value);
    }
}
