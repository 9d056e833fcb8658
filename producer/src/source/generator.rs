//! Ticks out of nothing: daily prices of 13 stock indices, 1965 to 2021, made by a seeded random
//! walk. Only the four basic operations on doubles are used, never a mathematical function, and
//! the random numbers are our own: equal seeds give equal bytes on every machine, for good.
//! Any likeness to real prices ends with the names, the first dates and the order of magnitude.

use std::io::{self, Write};

use super::row::{Next, Place, Row, Table};

/// Rows of every seed.
pub const ROWS: u64 = 104_224;
/// The columns, as the tutorial's file has them.
pub const COLUMNS: [&str; 9] = [
    "Index",
    "Date",
    "Open",
    "High",
    "Low",
    "Close",
    "Adj Close",
    "Volume",
    "CloseUSD",
];
/// All series end here (2021-05-31).
const LAST_DAY: i64 = day_number(2021, 5, 31);

struct Index {
    name: &'static str,
    first_day: i64,
    rows: u64,
    /// Level on the first day.
    start: f64,
    /// Growth of the trend from one row to the next.
    growth: f64,
    /// Typical move of a day.
    daily: f64,
    /// Hundredths of a US dollar for one unit of the index's currency.
    usd_cents: i64,
    /// Trading volume was not recorded before.
    volume_from: i64,
    /// Volume of a typical day in the last year.
    volume: f64,
}

#[allow(clippy::too_many_arguments)]
const fn index(
    name: &'static str,
    first_day: i64,
    rows: u64,
    start: f64,
    growth: f64,
    daily: f64,
    usd_cents: i64,
    volume_from: i64,
    volume: f64,
) -> Index {
    Index {
        name,
        first_day,
        rows,
        start,
        growth,
        daily,
        usd_cents,
        volume_from,
        volume,
    }
}

#[rustfmt::skip]
const INDICES: [Index; 13] = [
    index("HSI", day_number(1986, 12, 31), 8_492, 2_568.30, 1.000286, 0.0140, 13, day_number(2001, 7, 9), 2.1e9),
    index("NYA", day_number(1965, 12, 31), 13_948, 528.69, 1.000247, 0.0090, 100, day_number(2001, 1, 2), 4.2e9),
    index("IXIC", day_number(1971, 2, 5), 12_690, 100.0, 1.000388, 0.0115, 100, day_number(1984, 10, 11), 4.6e9),
    index("000001.SS", day_number(1997, 7, 2), 5_791, 1_255.91, 1.000183, 0.0140, 16, day_number(2002, 10, 8), 3.1e5),
    index("N225", day_number(1965, 1, 5), 13_874, 1_257.72, 1.000226, 0.0115, 1, day_number(2002, 6, 12), 7.1e7),
    index("N100", day_number(1999, 12, 31), 5_474, 1_000.0, 1.0000417, 0.0120, 122, day_number(2002, 1, 2), 2.3e8),
    index("399001.SZ", day_number(1997, 8, 22), 5_760, 3_200.0, 1.000268, 0.0155, 16, day_number(2002, 10, 8), 2.9e6),
    index("GSPTSE", day_number(1979, 6, 29), 10_526, 1_614.29, 1.000238, 0.0090, 83, day_number(1986, 3, 31), 2.4e8),
    index("NSEI", day_number(2007, 9, 17), 3_346, 4_494.65, 1.000372, 0.0125, 1, day_number(2013, 1, 21), 5.3e5),
    index("GDAXI", day_number(1987, 12, 30), 8_438, 1_005.19, 1.000324, 0.0130, 122, day_number(1993, 4, 1), 6.9e7),
    index("SSMI", day_number(1990, 11, 9), 7_671, 1_378.90, 1.000275, 0.0105, 111, day_number(2002, 6, 3), 4.2e7),
    index("TWII", day_number(1997, 7, 2), 5_869, 9_094.27, 1.000107, 0.0125, 4, day_number(2002, 1, 2), 5.4e6),
    index("J203.JO", day_number(2012, 2, 8), 2_345, 33_000.0, 1.000308, 0.0095, 7, day_number(2015, 1, 5), 2.8e8),
];

/// Days since 1970-01-01 of a date in the Gregorian calendar.
const fn day_number(year: i64, month: i64, day: i64) -> i64 {
    // Years beginning in March put the leap day last (Hinnant, "chrono-compatible low-level date
    // algorithms").
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a day number.
fn date_of(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let day_of_era = day.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// 1970-01-01 was a Thursday.
fn is_weekday(day: i64) -> bool {
    (day + 3).rem_euclid(7) < 5
}

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Independent streams for each pair.
    pub fn new(seed: u64, stream: u64) -> Random {
        let mut mixed = Random(seed);
        let base = mixed.next();
        Random(base ^ stream.wrapping_mul(0xA076_1D64_78BD_642F))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// About a standard normal deviate: eight 16-bit numbers summed, centred and scaled.
    fn normal(&mut self) -> f64 {
        let mut sum = 0_u64;
        for _ in 0..2 {
            let bits = self.next();
            sum +=
                (bits & 0xFFFF) + ((bits >> 16) & 0xFFFF) + ((bits >> 32) & 0xFFFF) + (bits >> 48);
        }
        (sum as f64 - 262_140.0) / 53_510.0
    }

    /// As `normal`, but now and then a day of panic.
    fn daily(&mut self) -> f64 {
        let z = self.normal();
        if self.below(40) == 0 { z * 2.5 } else { z }
    }
}

/// One index on its way through the days.
struct Walk {
    index: &'static Index,
    random: Random,
    day: i64,
    /// Weekdays not yet decided on.
    weekdays: u64,
    /// Rows not yet made.
    rows: u64,
    trend: f64,
    /// How far, as a logarithm, the level is from the trend; drawn back to it slowly.
    off_trend: f64,
    last_close: f64,
}

impl Walk {
    fn new(seed: u64, stream: u64, index: &'static Index) -> Walk {
        let weekdays = (index.first_day..=LAST_DAY)
            .filter(|day| is_weekday(*day))
            .count() as u64;
        Walk {
            index,
            random: Random::new(seed, stream),
            day: index.first_day,
            weekdays,
            rows: index.rows,
            trend: index.start,
            off_trend: 0.0,
            last_close: index.start,
        }
    }

    /// The next trading day: of all weekdays so many are left out as holidays that the number
    /// of rows comes out right.
    fn next_day(&mut self) -> i64 {
        loop {
            let day = self.day;
            self.day += 1;
            if !is_weekday(day) {
                continue;
            }
            let taken = self.random.below(self.weekdays) < self.rows;
            self.weekdays -= 1;
            if taken {
                return day;
            }
        }
    }

    fn next(&mut self, row: &mut Row) -> bool {
        if self.rows == 0 {
            return false;
        }
        let day = self.next_day();
        self.rows -= 1;
        let daily = self.index.daily;
        let move_today = (self.random.daily() * daily).clamp(-0.12, 0.12);
        self.off_trend = self.off_trend * (1.0 - 1.0 / 400.0) + move_today;
        self.trend *= self.index.growth;
        let close = self.trend * exp(self.off_trend);
        let open = self.last_close * (1.0 + self.random.normal() * daily * 0.25);
        let above = self.random.normal().abs() * daily * 0.35;
        let below = self.random.normal().abs() * daily * 0.35;
        let high = open.max(close) * (1.0 + above);
        let low = open.min(close) * (1.0 - below);
        self.last_close = close;
        let volume = self.volume(day);
        self.write(row, day, [open, high, low, close].map(micros), volume);
        true
    }

    fn volume(&mut self, day: i64) -> i64 {
        // Drawn in every year, so that the years of no volume do not shift the prices.
        let spread = 1.0 + 0.5 * self.random.normal().clamp(-1.6, 4.0);
        if day < self.index.volume_from {
            return 0;
        }
        let span = (LAST_DAY - self.index.volume_from) as f64;
        let grown = 0.15 + 0.85 * ((day - self.index.volume_from) as f64 / span);
        let hundreds = self.index.volume * grown * spread / 100.0;
        (hundreds as i64).max(1) * 100
    }

    fn write(&self, row: &mut Row, day: i64, [open, high, low, close]: [i64; 4], volume: i64) {
        let (year, month, day) = date_of(day);
        let mut field = |text: String| {
            row.push_bytes(text.as_bytes());
            row.end_field();
        };
        field(self.index.name.to_string());
        field(format!("{year:04}-{month:02}-{day:02}"));
        for price in [open, high, low, close, close] {
            field(decimal(price, 6));
        }
        field(format!("{volume}.0"));
        field(decimal(close * self.index.usd_cents, 8));
    }
}

/// The exponential near 0, by its series: exact rules for the basic operations make it the same
/// everywhere, which a library's function need not be.
fn exp(x: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 1.0;
    for n in 1..=12 {
        term = term * x / f64::from(n);
        sum += term;
    }
    sum
}

/// A price in millionths, with the digits a price to the cent has after a stay in a 32-bit
/// float, as in the data this is modelled on.
fn micros(price: f64) -> i64 {
    let cents = (price * 100.0).round().max(1.0);
    let short = (cents / 100.0) as f32;
    (f64::from(short) * 1e6).round() as i64
}

/// A number of so many decimals, without trailing zeros but with one digit after the point.
fn decimal(scaled: i64, decimals: usize) -> String {
    let mut text = format!("{scaled:0width$}", width = decimals + 1);
    text.insert(text.len() - decimals, '.');
    let kept = text.trim_end_matches('0');
    let zero = if kept.ends_with('.') { "0" } else { "" };
    format!("{kept}{zero}")
}

/// The generator as a table.
pub struct GeneratedTable {
    seed: u64,
    columns: Vec<String>,
    at: usize,
    walk: Option<Walk>,
    /// Line the next row would have in the file.
    line: u64,
}

impl GeneratedTable {
    pub fn new(seed: u64) -> GeneratedTable {
        GeneratedTable {
            seed,
            columns: COLUMNS.map(str::to_string).to_vec(),
            at: 0,
            walk: None,
            line: 2,
        }
    }
}

impl Table for GeneratedTable {
    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn next_row(&mut self, row: &mut Row) -> io::Result<Next> {
        row.clear();
        row.line = self.line;
        loop {
            let Some(index) = INDICES.get(self.at) else {
                return Ok(Next::End);
            };
            let (seed, stream) = (self.seed, self.at as u64);
            let walk = self
                .walk
                .get_or_insert_with(|| Walk::new(seed, stream, index));
            if walk.next(row) {
                break;
            }
            self.walk = None;
            self.at += 1;
        }
        let place = Place {
            offset: self.line,
            line: self.line,
        };
        self.line += 1;
        Ok(Next::Row(place))
    }

    fn rewind(&mut self) -> io::Result<()> {
        *self = GeneratedTable::new(self.seed);
        Ok(())
    }

    fn seek(&mut self, place: Place) -> io::Result<()> {
        if place.line < self.line {
            self.rewind()?;
        }
        let mut row = Row::default();
        while self.line < place.line {
            if self.next_row(&mut row)? == Next::End {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

/// Writes the file of a seed: the header and all rows, or `count` of them evenly spread, so that
/// a sample holds every index. Returns the number of rows written.
pub fn write_csv(out: &mut impl Write, seed: u64, count: Option<u64>) -> io::Result<u64> {
    let wanted = u128::from(count.unwrap_or(ROWS).min(ROWS));
    let mut table = GeneratedTable::new(seed);
    let mut row = Row::default();
    let mut written = 0;
    let rows = u128::from(ROWS);
    writeln!(out, "{}", COLUMNS.join(","))?;
    let mut at = 0;
    while let Next::Row(_) = table.next_row(&mut row)? {
        let before = at * wanted / rows;
        at += 1;
        if at * wanted / rows == before {
            continue;
        }
        for (position, field) in row.fields().enumerate() {
            if position > 0 {
                out.write_all(b",")?;
            }
            out.write_all(field)?;
        }
        out.write_all(b"\n")?;
        written += 1;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn csv(seed: u64, count: Option<u64>) -> String {
        let mut out = Vec::new();
        write_csv(&mut out, seed, count).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The sample in the repository pins every digit: a change of the generator shows here.
    #[test]
    fn the_sample_in_the_repository_is_what_the_generator_makes() {
        let sample = include_str!("../../../data/sample.csv");
        assert_eq!(csv(1, Some(200)), sample);
    }

    #[test]
    fn the_whole_file_is_plausible() {
        let text = csv(7, None);
        let mut lines = text.lines();
        assert_eq!(lines.next().unwrap(), COLUMNS.join(","));
        let mut last_dates: HashMap<&str, &str> = HashMap::new();
        let mut zero_volumes: HashMap<&str, [u64; 2]> = HashMap::new();
        let mut rows = 0;
        for line in lines {
            rows += 1;
            let fields: Vec<&str> = line.split(',').collect();
            assert_eq!(fields.len(), COLUMNS.len(), "{line}");
            let number = |at: usize| fields[at].parse::<f64>().unwrap();
            let (open, high, low, close) = (number(2), number(3), number(4), number(5));
            assert!(low > 0.0 && low <= open.min(close), "{line}");
            assert!(high >= open.max(close), "{line}");
            assert_eq!(fields[5], fields[6]);
            let rate = number(8) / close;
            assert!((0.005..=1.23).contains(&rate), "{line}");
            assert!(("1965-01-01".."2021-06-01").contains(&fields[1]), "{line}");
            if let Some(before) = last_dates.insert(fields[0], fields[1]) {
                assert!(before < fields[1], "{line}");
            }
            zero_volumes.entry(fields[0]).or_default()[usize::from(number(7) > 0.0)] += 1;
        }
        assert_eq!(rows, ROWS);
        assert_eq!(last_dates.len(), INDICES.len());
        for (index, [zero, traded]) in zero_volumes {
            assert!(zero > 0 && traded > 0, "{index}: {zero} {traded}");
        }
        assert!(
            (9_000_000..12_000_000).contains(&text.len()),
            "{}",
            text.len()
        );
    }

    #[test]
    fn levels_stay_within_what_an_index_does() {
        for seed in 0..5 {
            for (stream, index) in INDICES.iter().enumerate() {
                let mut walk = Walk::new(seed, stream as u64, index);
                let mut row = Row::default();
                while walk.next(&mut row) {
                    row.clear();
                    let from_trend = walk.last_close / walk.trend;
                    assert!(
                        (0.2..5.0).contains(&from_trend),
                        "{} {from_trend}",
                        index.name
                    );
                }
                assert_eq!(walk.weekdays, walk.weekdays.min(600));
            }
        }
    }

    #[test]
    fn equal_seeds_give_equal_files_and_others_do_not() {
        assert_eq!(csv(3, None), csv(3, None));
        assert_ne!(csv(3, Some(50)), csv(4, Some(50)));
    }

    #[test]
    fn samples_are_spread_over_all_indices() {
        let text = csv(1, Some(200));
        assert_eq!(text.lines().count(), 201);
        for index in &INDICES {
            assert!(
                text.lines()
                    .any(|l| l.split(',').next() == Some(index.name))
            );
        }
        assert_eq!(csv(1, Some(0)).lines().count(), 1);
    }

    #[test]
    fn a_row_is_found_again() {
        let mut table = GeneratedTable::new(1);
        let mut row = Row::default();
        let mut places = Vec::new();
        for _ in 0..20 {
            let Next::Row(place) = table.next_row(&mut row).unwrap() else {
                panic!("ended");
            };
            places.push((place, row.text().to_vec()));
        }
        for (place, text) in places.iter().rev() {
            table.seek(*place).unwrap();
            table.next_row(&mut row).unwrap();
            assert_eq!(row.text(), text);
        }
    }

    #[test]
    fn the_calendar_is_right() {
        for (date, number) in [
            ((1970, 1, 1), 0),
            ((2000, 2, 29), 11_016),
            ((1965, 1, 5), -1_822),
            ((2021, 5, 31), 18_778),
        ] {
            assert_eq!(day_number(date.0, date.1, date.2), number);
            assert_eq!(date_of(number), date);
        }
        assert!(is_weekday(0) && is_weekday(1) && !is_weekday(2) && !is_weekday(3));
        assert!(is_weekday(4));
        assert_eq!(decimal(104_000_000, 6), "104.0");
        assert_eq!(decimal(5, 6), "0.000005");
        assert_eq!(decimal(33_387_900_637, 8), "333.87900637");
    }
}
