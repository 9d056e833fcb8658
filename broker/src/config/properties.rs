//! Java's properties syntax: comments, continued lines, escapes. Pure text.

/// The pairs of a properties text in their order; a key given twice appears twice, the later one
/// is stronger. The error says what is wrong on which line. (`java.util.Properties.load`.)
pub fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let text = text.replace("\r\n", "\n");
    let mut pairs = Vec::new();
    let mut lines = text.split(['\n', '\r']).enumerate();
    while let Some((at, line)) = lines.next() {
        let line = trim_start(line);
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = line.to_owned();
        while continues(&logical) {
            logical.pop();
            // A line that ends the file with a backslash just ends.
            match lines.next() {
                Some((_, next)) => logical.push_str(trim_start(next)),
                None => break,
            }
        }
        let (key, value) = split(&logical);
        let say = |e: String| format!("line {}: {e}", at + 1);
        pairs.push((unescape(key).map_err(say)?, unescape(value).map_err(say)?));
    }
    Ok(pairs)
}

fn trim_start(line: &str) -> &str {
    line.trim_start_matches([' ', '\t', '\u{c}'])
}

/// An odd number of backslashes at the end continues the line.
fn continues(line: &str) -> bool {
    line.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1
}

/// The key ends at the first unescaped `=`, `:` or blank; one separator and the blanks around it
/// belong to neither side.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|c| {
        if escaped {
            escaped = false;
            return false;
        }
        escaped = c == '\\';
        matches!(c, '=' | ':' | ' ' | '\t' | '\u{c}')
    });
    let Some(end) = end else { return (line, "") };
    let (key, rest) = line.split_at(end);
    let rest = trim_start(rest);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, trim_start(rest))
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    let mut units: Vec<u16> = Vec::new();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        if escaped == Some('u') {
            let hex: String = chars.by_ref().take(4).collect();
            let unit = (hex.len() == 4)
                .then(|| u16::from_str_radix(&hex, 16).ok())
                .flatten()
                .ok_or_else(|| format!("\\u{hex} is no character; write \\uXXXX"))?;
            units.push(unit);
            continue;
        }
        // Two units can make one character, hence collected before they are decoded.
        out.push_str(&String::from_utf16_lossy(&units));
        units.clear();
        match (c, escaped) {
            ('\\', None) => {}
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some('t')) => out.push('\t'),
            ('\\', Some('r')) => out.push('\r'),
            ('\\', Some('f')) => out.push('\u{c}'),
            ('\\', Some(other)) => out.push(other),
            (c, _) => out.push(c),
        }
    }
    out.push_str(&String::from_utf16_lossy(&units));
    Ok(out)
}
