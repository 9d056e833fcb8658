//! The order of the ticks: from which row on, in sequence or shuffled, once or for ever.
//!
//! Rows are counted from 0 and only those that became records count, so `--start-row` with the
//! number of records sent so far goes on exactly where a stream stopped, in either order.

use std::io;

use super::generator::Random;
use super::json::Encoder;
use super::row::{Next, Place, Row, Table};
use super::{BadRow, Item, SourceError};

/// In which order rows are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// As in the file
    Sequential,
    /// Shuffled by the seed, every row once before any comes again
    Random,
}

pub struct FeedOptions {
    /// What messages call the table.
    pub name: String,
    pub order: Order,
    pub repeat: bool,
    pub start_row: u64,
    pub count: Option<u64>,
    pub seed: u64,
}

/// Ticks in the order asked for.
pub struct Feed {
    table: Box<dyn Table>,
    encoder: Encoder,
    options: FeedOptions,
    row: Row,
    left: Option<u64>,
    cursor: Cursor,
}

enum Cursor {
    Sequential(Sequential),
    /// Not yet read through.
    Unshuffled(Vec<Place>),
    Shuffled(Shuffled),
}

#[derive(Default)]
struct Sequential {
    started: bool,
    /// Good rows met in this lap.
    in_lap: u64,
    laps: u64,
    /// Line of the first row, good or bad, after those skipped.
    first_line: u64,
}

impl Sequential {
    /// Each bad row is reported once, not in every lap.
    fn is_news(&self, bad: &BadRow) -> bool {
        self.started && (self.laps == 0 || (self.laps == 1 && bad.line < self.first_line))
    }
}

struct Shuffled {
    places: Vec<Place>,
    order: Vec<u32>,
    at: usize,
    lap: u64,
}

impl Shuffled {
    fn shuffle(&mut self, seed: u64) {
        let mut random = Random::new(seed ^ 0x5AFE, self.lap);
        self.order.sort_unstable();
        for at in (1..self.order.len()).rev() {
            let other = random.below(at as u64 + 1) as usize;
            self.order.swap(at, other);
        }
    }
}

impl Feed {
    pub fn new(table: Box<dyn Table>, encoder: Encoder, options: FeedOptions) -> Feed {
        let cursor = match options.order {
            Order::Sequential => Cursor::Sequential(Sequential::default()),
            Order::Random => Cursor::Unshuffled(Vec::new()),
        };
        Feed {
            table,
            encoder,
            row: Row::default(),
            left: options.count,
            cursor,
            options,
        }
    }

    /// The next tick or bad row; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Item>, SourceError> {
        if self.left == Some(0) {
            return Ok(None);
        }
        let item = loop {
            match &mut self.cursor {
                Cursor::Sequential(_) => break self.next_sequential()?,
                Cursor::Shuffled(_) => break self.next_shuffled()?,
                Cursor::Unshuffled(_) => {
                    if let Some(bad) = self.read_through()? {
                        break Some(Item::Bad(bad));
                    }
                }
            }
        };
        if let (Some(Item::Tick(_)), Some(left)) = (&item, &mut self.left) {
            *left -= 1;
        }
        Ok(item)
    }

    fn read_error(&self, error: io::Error) -> SourceError {
        SourceError::Read {
            name: self.options.name.clone(),
            error,
        }
    }

    fn beyond_end(&self, rows: u64) -> SourceError {
        SourceError::StartBeyondEnd {
            name: self.options.name.clone(),
            start: self.options.start_row,
            rows,
        }
    }

    fn next_row(&mut self) -> Result<Next, SourceError> {
        let next = self.table.next_row(&mut self.row);
        next.map_err(|error| self.read_error(error))
    }

    fn next_sequential(&mut self) -> Result<Option<Item>, SourceError> {
        loop {
            let next = self.next_row()?;
            let Cursor::Sequential(cursor) = &mut self.cursor else {
                return Ok(None);
            };
            match next {
                Next::Row(place) => {
                    let number = cursor.in_lap;
                    cursor.in_lap += 1;
                    if !cursor.started {
                        if number < self.options.start_row {
                            continue;
                        }
                        cursor.started = true;
                        cursor.first_line = place.line;
                    }
                    return Ok(Some(Item::Tick(self.encoder.encode(&self.row))));
                }
                Next::Bad(bad) => {
                    if !cursor.started && cursor.in_lap == self.options.start_row {
                        cursor.started = true;
                        cursor.first_line = bad.line;
                    }
                    if cursor.is_news(&bad) {
                        return Ok(Some(Item::Bad(bad)));
                    }
                }
                Next::End => {
                    let rows = cursor.in_lap;
                    if !cursor.started && rows > 0 && !self.options.repeat {
                        return Err(self.beyond_end(rows));
                    }
                    if rows == 0 {
                        return Err(SourceError::NoRows(self.options.name.clone()));
                    }
                    if !self.options.repeat {
                        return Ok(None);
                    }
                    if cursor.started {
                        cursor.laps += 1;
                    } else {
                        self.options.start_row %= rows;
                    }
                    cursor.in_lap = 0;
                    let rewound = self.table.rewind();
                    rewound.map_err(|error| self.read_error(error))?;
                }
            }
        }
    }

    /// Finds where every row is; returns at each bad one and is then called again.
    fn read_through(&mut self) -> Result<Option<BadRow>, SourceError> {
        loop {
            let next = self.next_row()?;
            let Cursor::Unshuffled(places) = &mut self.cursor else {
                return Ok(None);
            };
            match next {
                Next::Row(place) => places.push(place),
                Next::Bad(bad) => return Ok(Some(bad)),
                Next::End => {
                    let places = std::mem::take(places);
                    self.begin_shuffled(places)?;
                    return Ok(None);
                }
            }
        }
    }

    fn begin_shuffled(&mut self, places: Vec<Place>) -> Result<(), SourceError> {
        let rows = places.len() as u64;
        let name = &self.options.name;
        if rows == 0 {
            return Err(SourceError::NoRows(name.clone()));
        }
        let last = u32::try_from(rows).map_err(|_| SourceError::TooManyRows(name.clone()))?;
        if !self.options.repeat && self.options.start_row >= rows {
            return Err(self.beyond_end(rows));
        }
        let mut shuffled = Shuffled {
            places,
            order: (0..last).collect(),
            at: (self.options.start_row % rows) as usize,
            lap: self.options.start_row / rows,
        };
        shuffled.shuffle(self.options.seed);
        self.cursor = Cursor::Shuffled(shuffled);
        Ok(())
    }

    fn next_shuffled(&mut self) -> Result<Option<Item>, SourceError> {
        let Cursor::Shuffled(cursor) = &mut self.cursor else {
            return Ok(None);
        };
        if cursor.at == cursor.order.len() {
            if !self.options.repeat {
                return Ok(None);
            }
            cursor.at = 0;
            cursor.lap += 1;
            cursor.shuffle(self.options.seed);
        }
        let chosen = cursor.order.get(cursor.at);
        let Some(place) = chosen.and_then(|at| cursor.places.get(*at as usize).copied()) else {
            return Ok(None);
        };
        cursor.at += 1;
        let sought = self.table.seek(place);
        sought.map_err(|error| self.read_error(error))?;
        match self.next_row()? {
            Next::Row(_) => Ok(Some(Item::Tick(self.encoder.encode(&self.row)))),
            Next::Bad(bad) => Ok(Some(Item::Bad(bad))),
            Next::End => Err(self.read_error(io::Error::other("it became shorter while read"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::csv::CsvTable;
    use super::*;
    use std::collections::BTreeSet;

    const TEXT: &str = "k\n0\nbad,\n1\n2\nbad,\n3\n4\n";

    fn feed(text: &str, order: Order, repeat: bool, start_row: u64, count: Option<u64>) -> Feed {
        let cursor = io::Cursor::new(text.as_bytes().to_vec());
        let table = CsvTable::new(cursor, "test").unwrap();
        let encoder = Encoder::new(table.columns(), Some(0));
        let options = FeedOptions {
            name: "test".into(),
            order,
            repeat,
            start_row,
            count,
            seed: 9,
        };
        Feed::new(Box::new(table), encoder, options)
    }

    /// Keys as digits, bad rows as `!`.
    fn take(feed: &mut Feed, at_most: usize) -> String {
        let mut all = String::new();
        while all.len() < at_most {
            match feed.next().unwrap() {
                Some(Item::Tick(tick)) => {
                    all.push_str(std::str::from_utf8(&tick.key.unwrap()).unwrap());
                }
                Some(Item::Bad(_)) => all.push('!'),
                Some(Item::Failed(error)) => panic!("{error}"),
                None => break,
            }
        }
        all
    }

    #[test]
    fn sequential_ends_loops_skips_and_counts() {
        use Order::Sequential as S;
        assert_eq!(take(&mut feed(TEXT, S, false, 0, None), 99), "0!12!34");
        assert_eq!(take(&mut feed(TEXT, S, false, 3, None), 99), "!34");
        assert_eq!(take(&mut feed(TEXT, S, false, 0, Some(3)), 99), "0!12");
        assert_eq!(take(&mut feed(TEXT, S, false, 0, Some(0)), 99), "");
        // Every bad row once, whatever the laps.
        assert_eq!(
            take(&mut feed(TEXT, S, true, 0, Some(12)), 99),
            "0!12!340123401"
        );
        assert_eq!(
            take(&mut feed(TEXT, S, true, 2, Some(9)), 99),
            "2!340!12340"
        );
        assert_eq!(take(&mut feed(TEXT, S, true, 12, Some(3)), 99), "2!34");
        assert_eq!(take(&mut feed(TEXT, S, true, 6, Some(8)), 99), "!12!340123");
    }

    #[test]
    fn random_sends_every_row_once_a_lap_and_goes_on_where_it_stopped() {
        let all = take(&mut feed(TEXT, Order::Random, true, 0, Some(15)), 99);
        assert_eq!(&all[..2], "!!");
        let sent = &all[2..];
        assert_eq!(sent.len(), 15);
        for lap in 0..3 {
            let rows: BTreeSet<_> = sent[lap * 5..lap * 5 + 5].chars().collect();
            assert_eq!(rows.len(), 5, "{sent}");
        }
        assert_ne!(sent[..5], sent[5..10]);
        for start in [1, 5, 7] {
            let rest = take(
                &mut feed(
                    TEXT,
                    Order::Random,
                    true,
                    start as u64,
                    Some(15 - start as u64),
                ),
                99,
            );
            assert_eq!(&rest[2..], &sent[start..]);
        }
        let once = take(&mut feed(TEXT, Order::Random, false, 0, None), 99);
        assert_eq!(once[2..], sent[..5]);
    }

    #[test]
    fn nothing_to_send_is_an_error_not_a_loop() {
        for order in [Order::Sequential, Order::Random] {
            for repeat in [false, true] {
                let mut empty = feed("k\nbad,\n", order, repeat, 0, None);
                assert!(matches!(empty.next(), Ok(Some(Item::Bad(_)))));
                assert!(matches!(empty.next(), Err(SourceError::NoRows(_))));
            }
            let mut beyond = feed("k\n1\n2\n", order, false, 2, None);
            let Err(error) = beyond.next() else {
                panic!("found a row")
            };
            assert!(error.to_string().contains("only 2 rows"), "{error}");
        }
    }
}
