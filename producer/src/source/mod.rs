//! Where ticks come from: a CSV file or the seeded generator, turned into the key and JSON value
//! of one record each. Knows nothing of brokers; runs on a thread of its own, since files and
//! pipes block.

pub mod csv;
pub mod feed;
pub mod generator;
pub mod json;
pub mod row;

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::thread;

use bytes::Bytes;
use tokio::sync::mpsc;

use self::csv::CsvTable;
use self::feed::{Feed, FeedOptions, Order};
use self::generator::GeneratedTable;
use self::json::Encoder;
use self::row::Table;

/// The column that keys the records unless the user names another.
pub const DEFAULT_KEY_COLUMN: &str = "Index";
/// Ticks read ahead of the stream.
const READ_AHEAD: usize = 1024;

/// One record to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    pub key: Option<Bytes>,
    pub value: Bytes,
}

/// A row that could not become a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Line of the file on which the row begins, counted from 1.
    pub line: u64,
    pub reason: String,
}

/// What comes out of a source, in order.
#[derive(Debug)]
pub enum Item {
    Tick(Tick),
    Bad(BadRow),
    /// The source broke; nothing follows.
    Failed(SourceError),
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot open {}: {error}. Check the path, or leave out --data to stream generated ticks", path.display())]
    Open { path: PathBuf, error: io::Error },
    #[error("cannot read {name}: {error}")]
    Read { name: String, error: io::Error },
    #[error("{name} {reason}")]
    Header { name: String, reason: String },
    #[error(
        "{name} has no column {column:?} to key the records by. Its columns are: {columns}. Name one with --key-column, or send without keys: --key-column ''"
    )]
    NoKeyColumn {
        name: String,
        column: String,
        columns: String,
    },
    #[error("{0} has no usable row below its header")]
    NoRows(String),
    #[error(
        "there is nothing from row {start} on: {name} has only {rows} rows. Use a smaller --start-row, or --loop to begin again at the first row"
    )]
    StartBeyondEnd { name: String, start: u64, rows: u64 },
    #[error(
        "{what} has to read the data more than once, which a pipe does not allow: save it to a file and use --data FILE"
    )]
    NotSeekable { what: &'static str },
    #[error("{0} has more rows than --order random can shuffle: use --order sequential")]
    TooManyRows(String),
}

/// What to read and how.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// `None`: the generator. `-`: standard input.
    pub data: Option<PathBuf>,
    pub seed: u64,
    /// `None`: the default column where there is one. Empty: no keys.
    pub key_column: Option<String>,
    pub order: Order,
    pub repeat: bool,
    pub start_row: u64,
    /// Stop after this many ticks.
    pub count: Option<u64>,
}

/// An opened source: its header was read and found good.
pub struct Source {
    feed: Feed,
    /// For people: a file's name, or that it is the generator.
    pub name: String,
    /// Something the user should know, such as that the records carry no key.
    pub note: Option<String>,
}

impl Source {
    /// Opens the table and checks its header and the key column.
    pub fn open(options: &SourceOptions) -> Result<Source, SourceError> {
        let (table, name) = open_table(options)?;
        let (encoder, note) = encoder_for(table.as_ref(), &name, options)?;
        let feed = Feed::new(
            table,
            encoder,
            FeedOptions {
                name: name.clone(),
                order: options.order,
                repeat: options.repeat,
                start_row: options.start_row,
                count: options.count,
                seed: options.seed,
            },
        );
        Ok(Source { feed, name, note })
    }

    /// Reads on a thread of its own, a bounded number of ticks ahead. The thread ends with the
    /// source or when the receiver is dropped; it is not joined, for it may hang on a pipe.
    pub fn spawn(self) -> io::Result<mpsc::Receiver<Item>> {
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let mut feed = self.feed;
        thread::Builder::new()
            .name("source".into())
            .spawn(move || {
                loop {
                    let item = match feed.next() {
                        Ok(Some(item)) => item,
                        Ok(None) => return,
                        Err(error) => Item::Failed(error),
                    };
                    let last = matches!(item, Item::Failed(_));
                    if sender.blocking_send(item).is_err() || last {
                        return;
                    }
                }
            })?;
        Ok(receiver)
    }
}

fn open_table(options: &SourceOptions) -> Result<(Box<dyn Table>, String), SourceError> {
    let seed = options.seed;
    let Some(path) = &options.data else {
        let name = format!("the generator (seed {seed})");
        let table: Box<dyn Table> = match options.order {
            Order::Sequential => Box::new(GeneratedTable::new(seed)),
            // Random access to generated rows is random access to the file they would be.
            Order::Random => Box::new(CsvTable::new(Cursor::new(generated_csv(seed)), &name)?),
        };
        return Ok((table, name));
    };
    if path == Path::new("-") {
        let what = match (options.order, options.repeat) {
            (Order::Random, _) => Some("--order random"),
            (Order::Sequential, true) => Some("--loop"),
            (Order::Sequential, false) => None,
        };
        if let Some(what) = what {
            return Err(SourceError::NotSeekable { what });
        }
        let name = "standard input".to_string();
        let table = CsvTable::new(Pipe(io::stdin()), &name)?;
        return Ok((Box::new(table), name));
    }
    let open_error = |error| SourceError::Open {
        path: path.clone(),
        error,
    };
    let file = File::open(path).map_err(open_error)?;
    if file.metadata().map_err(open_error)?.is_dir() {
        return Err(open_error(io::Error::other("it is a directory")));
    }
    let name = path.display().to_string();
    let table = CsvTable::new(file, &name)?;
    Ok((Box::new(table), name))
}

fn generated_csv(seed: u64) -> Vec<u8> {
    let mut text = Vec::new();
    // Writing to memory does not fail.
    let _ = generator::write_csv(&mut text, seed, None);
    text
}

fn encoder_for(
    table: &dyn Table,
    name: &str,
    options: &SourceOptions,
) -> Result<(Encoder, Option<String>), SourceError> {
    let columns = table.columns();
    let wanted = options.key_column.as_deref();
    let position = |column: &str| columns.iter().position(|c| c == column);
    let (key, note) = match wanted {
        Some("") => (None, None),
        Some(column) => match position(column) {
            Some(at) => (Some(at), None),
            None => {
                return Err(SourceError::NoKeyColumn {
                    name: name.to_string(),
                    column: column.to_string(),
                    columns: columns.join(", "),
                });
            }
        },
        None => match position(DEFAULT_KEY_COLUMN) {
            Some(at) => (Some(at), None),
            None => {
                let note = format!(
                    "{name} has no column {DEFAULT_KEY_COLUMN:?}: the records carry no key. Name a column with --key-column"
                );
                (None, Some(note))
            }
        },
    };
    Ok((Encoder::new(columns, key), note))
}

/// Standard input, which can only be read once.
struct Pipe(io::Stdin);

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl io::Seek for Pipe {
    fn seek(&mut self, _: io::SeekFrom) -> io::Result<u64> {
        Err(io::ErrorKind::NotSeekable.into())
    }
}
