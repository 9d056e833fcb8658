//! The main job: a file of 104,000 rows, every row counted in the lake, in every format.

use std::collections::HashMap;
use std::process::Command;

use tests::server::{Kind, Server};
use tests::{env, process};

use crate::lake::{Lake, producer, status_number};

const TOPIC: &str = "stock_market_data";

fn rows() -> u64 {
    env::number("MINI_BROKER_TEST_ROWS", 104_000)
}

/// How often each row of the file, as (Index, Date), is in the lake.
fn count_rows(lines: impl Iterator<Item = (String, String)>) -> HashMap<(String, String), u64> {
    let mut counts = HashMap::new();
    for row in lines {
        *counts.entry(row).or_insert(0) += 1;
    }
    counts
}

fn columns(line: &str) -> (String, String) {
    let mut fields = line.split(',');
    let mut next = || fields.next().expect("a column").to_owned();
    (next(), next())
}

#[test]
fn every_row_of_the_file_is_in_the_lake_once() {
    let server = Server::start_kind(Kind::MiniBroker, &[("num.partitions", "3")]);
    let file = server.scratch().join("ticks.csv");
    let mut generate = Command::new(env::binary("producer"));
    generate.arg("--generate-csv").arg(&file).args(["--seed", "7"]);
    process::run(generate, "").success();
    let text = std::fs::read_to_string(&file).expect("the generated file");
    let wanted: Vec<_> = text.lines().skip(1).take(rows() as usize).map(columns).collect();
    assert_eq!(wanted.len() as u64, rows(), "the generator makes enough rows");

    let mut produce = producer(&server.bootstrap(), TOPIC, "max");
    produce.arg("--data").arg(&file).args(["--count", &rows().to_string()]);
    process::run(produce, "").success();

    let lake = Lake::folder(server.scratch());
    let mut consume = lake.consumer(&server.bootstrap(), TOPIC);
    consume.args(["--once", "--format", "json"]);
    let said = process::run(consume, "").success();
    assert_eq!(status_number(&said.stdout, "records_stored"), Some(rows() as i64));
    assert_eq!(status_number(&said.stdout, "lag"), Some(0));

    let stored = count_rows(lake.lines().iter().map(|line| {
        let tick: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |name: &str| tick[name].as_str().expect("text").to_owned();
        assert!(tick["Adj Close"].is_number() || tick["Adj Close"].is_null(), "numbers stay numbers: {line}");
        (text("Index"), text("Date"))
    }));
    assert_eq!(stored, count_rows(wanted.iter().cloned()));
    in_csv(&server, &count_rows(wanted.into_iter()));
    in_parquet(&server);
}

fn in_csv(server: &Server, wanted: &HashMap<(String, String), u64>) {
    let lake = Lake::Folder(server.scratch().join("csv"));
    let mut consume = lake.consumer_of("csv", &server.bootstrap(), TOPIC);
    consume.args(["--once", "--format", "csv"]);
    process::run(consume, "").success();
    let mut lines = Vec::new();
    for (name, content) in lake.objects() {
        let text = String::from_utf8(content).expect("CSV is UTF-8");
        let mut rows = text.lines();
        assert_eq!(rows.next(), Some("Index,Date,Open,High,Low,Close,Adj Close,Volume,CloseUSD"), "{name}");
        lines.extend(rows.map(columns));
    }
    assert_eq!(&count_rows(lines.into_iter()), wanted);
}

/// Read back by another implementation of the format.
fn in_parquet(server: &Server) {
    let lake = Lake::Folder(server.scratch().join("parquet"));
    let mut consume = lake.consumer_of("parquet", &server.bootstrap(), TOPIC);
    consume.args(["--once", "--format", "parquet"]);
    process::run(consume, "").success();
    let code = "import sys, json, duckdb\n\
        pattern = sys.argv[1] + '/**/*.parquet'\n\
        n, keys, volume = duckdb.sql(f\"select count(*), count(distinct (\\\"Index\\\", \\\"Date\\\")), \\\n\
        \x20 sum(\\\"Volume\\\") from read_parquet('{pattern}')\").fetchone()\n\
        print(n, keys)";
    let mut read = Command::new(env::test_env("venv-s3").join("bin/python"));
    read.arg("-c").arg(code).arg(server.scratch().join("parquet"));
    let said = process::run(read, "").success().stdout;
    assert_eq!(said.trim(), format!("{0} {0}", rows()), "rows, and different ones");
}
