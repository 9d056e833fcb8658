//! The lake from outside: which objects hold which records, and how a person looks at them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::probe::Offsets;
use super::{DemoArgs, Format, TOPIC};

/// A lake in a folder, if it is one.
pub fn folder(lake: &str) -> Option<&Path> {
    (!lake.starts_with("s3://")).then(|| Path::new(lake))
}

#[derive(Debug, PartialEq, Eq)]
struct Object {
    first: i64,
    path: PathBuf,
}

/// The topic's objects by partition, in order of their first offsets, which their names hold.
fn objects(lake: &Path, partition: i32) -> io::Result<Vec<Object>> {
    let folder = lake.join(TOPIC).join(format!("partition={partition}"));
    let prefix = format!("{TOPIC}+{partition}+");
    let mut found = Vec::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let rest = name.strip_prefix(&prefix);
        let Some((number, _)) = rest.and_then(|rest| rest.split_once('.')) else {
            continue;
        };
        if let Ok(first) = number.parse() {
            found.push(Object { first, path });
        }
    }
    found.sort_unstable_by_key(|object| object.first);
    Ok(found)
}

/// Checks that the objects hold every record from `begin` to `end` once. Records in Parquet
/// objects are not counted: there the names alone are checked.
pub fn check(lake: &Path, begin: &Offsets, end: &Offsets) -> Result<(), String> {
    for (&partition, &end) in end {
        let begin = begin.get(&partition).copied().unwrap_or(0);
        if begin >= end {
            continue;
        }
        let objects = objects(lake, partition)
            .map_err(|error| format!("cannot list {}: {error}", lake.display()))?;
        let mut sizes = BTreeMap::new();
        let start = objects
            .partition_point(|object| object.first <= begin)
            .saturating_sub(1);
        for object in objects.iter().skip(start) {
            let records = records_in(&object.path)
                .map_err(|error| format!("cannot read {}: {error}", object.path.display()))?;
            sizes.insert(object.first, records);
        }
        covered(&sizes, begin, end)
            .map_err(|problem| format!("partition {partition} in {}: {problem}", lake.display()))?;
    }
    Ok(())
}

/// `sizes`: number of records by first offset, where it is known.
fn covered(sizes: &BTreeMap<i64, Option<i64>>, begin: i64, end: i64) -> Result<(), String> {
    let mut next = begin;
    let mut before: Option<i64> = None;
    for (&first, records) in sizes {
        if first >= end {
            break;
        }
        if first > next {
            return Err(format!("records {next} to {} are in no object", first - 1));
        }
        if before.is_some_and(|before| first < before) {
            return Err(format!("record {first} is in two objects"));
        }
        let following = sizes.range(first + 1..).next();
        let until = match records {
            Some(records) => first + records,
            None => following.map_or(end, |(&first, _)| first),
        };
        before = Some(until);
        next = next.max(until);
    }
    if next < end {
        return Err(format!("records {next} to {} are in no object", end - 1));
    }
    Ok(())
}

fn records_in(path: &Path) -> io::Result<Option<i64>> {
    let extension = path.extension().unwrap_or_default();
    let header = match extension.to_str() {
        Some("json") => 0,
        Some("csv") => 1,
        _ => return Ok(None),
    };
    let lines = lines(BufReader::new(File::open(path)?), header == 1)?;
    Ok(Some(lines - header))
}

/// Counts line ends; in CSV not those within quotes.
fn lines(mut text: impl Read, quoting: bool) -> io::Result<i64> {
    let mut buffer = vec![0; 64 * 1024];
    let mut lines = 0;
    let mut in_quotes = false;
    loop {
        let read = match text.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok(lines);
        };
        for byte in bytes {
            match byte {
                b'"' if quoting => in_quotes = !in_quotes,
                b'\n' if !in_quotes => lines += 1,
                _ => {}
            }
        }
    }
}

/// How to look at what was stored.
pub fn advice(args: &DemoArgs) -> Vec<String> {
    let Some(folder) = folder(&args.lake) else {
        let endpoint = match &args.endpoint_url {
            Some(url) => format!(" --endpoint-url {}", quoted(url)),
            None => String::new(),
        };
        let place = args.lake.trim_end_matches('/');
        return vec![format!(
            "aws s3 ls --recursive {}/{endpoint}",
            quoted(place)
        )];
    };
    let topic = folder.join(TOPIC);
    let mut lines = vec![format!("ls {}/*", quoted(&topic.display().to_string()))];
    let newest = newest(folder);
    if let Some(newest) = newest.filter(|_| args.format != Format::Parquet) {
        lines.push(format!(
            "head -n 3 {}",
            quoted(&newest.display().to_string())
        ));
    }
    let all = format!("{}/*/*.{}", topic.display(), args.format.name());
    // Quotes within quotes within quotes are nobody's friend.
    if all.contains(['\'', '"', '\\', '$', '`']) {
        return lines;
    }
    if args.format == Format::Json {
        lines.push(format!(
            "python3 -c \"import collections, glob, json; print(collections.Counter(json.loads(l)['Index'] for f in glob.glob('{all}') for l in open(f)))\""
        ));
    }
    let reader = match args.format {
        Format::Json => "read_json",
        Format::Csv => "read_csv",
        Format::Parquet => "read_parquet",
    };
    lines.push(format!(
        "duckdb -c \"SELECT Index, count(*) AS ticks, max(Date) AS latest FROM {reader}('{all}') GROUP BY Index\""
    ));
    lines
}

fn newest(lake: &Path) -> Option<PathBuf> {
    let objects = objects(lake, 0).ok()?;
    objects.into_iter().next_back().map(|object| object.path)
}

/// For a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_string()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_must_be_in_one_object() {
        let sizes = |all: &[(i64, i64)]| all.iter().map(|&(f, n)| (f, Some(n))).collect();
        assert_eq!(covered(&sizes(&[(0, 5), (5, 5)]), 0, 10), Ok(()));
        assert_eq!(covered(&sizes(&[(0, 5), (5, 5), (10, 3)]), 3, 10), Ok(()));
        assert_eq!(covered(&sizes(&[(5, 7)]), 5, 10), Ok(()));
        for (objects, problem) in [
            (sizes(&[(0, 5), (6, 5)]), "records 5 to 5 are in no object"),
            (sizes(&[(0, 5)]), "records 5 to 9 are in no object"),
            (sizes(&[(0, 5), (4, 6)]), "record 4 is in two objects"),
            (sizes(&[]), "records 0 to 9 are in no object"),
        ] {
            assert_eq!(covered(&objects, 0, 10), Err(problem.to_string()));
        }
        let unknown = BTreeMap::from([(0, None), (7, None)]);
        assert_eq!(covered(&unknown, 0, 10), Ok(()));
        assert!(covered(&BTreeMap::from([(7, None)]), 0, 10).is_err());
    }

    #[test]
    fn objects_are_counted_by_their_lines() {
        let lake = tempfile::tempdir().unwrap();
        let folder = lake.path().join(TOPIC).join("partition=0");
        fs::create_dir_all(&folder).unwrap();
        let object = |first: i64, extension: &str, text: &str| {
            let name = format!("{TOPIC}+0+{first:020}.{extension}");
            fs::write(folder.join(name), text).unwrap();
        };
        object(0, "json", "{}\n{}\n");
        object(2, "csv", "a,b\n1,\"two\nlines\"\n2,3\n");
        fs::write(folder.join("other.json"), "{}\n").unwrap();
        let begin = Offsets::from([(0, 0)]);
        assert_eq!(check(lake.path(), &begin, &Offsets::from([(0, 4)])), Ok(()));
        let problem = check(lake.path(), &begin, &Offsets::from([(0, 5)])).unwrap_err();
        assert!(problem.contains("records 4 to 4"), "{problem}");
        assert_eq!(
            newest(lake.path()).unwrap().extension().unwrap(),
            "csv",
            "in order of offsets"
        );
    }

    #[test]
    fn shell_words_survive_the_shell() {
        assert_eq!(quoted("./lake"), "./lake");
        assert_eq!(quoted("my lake"), "'my lake'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
