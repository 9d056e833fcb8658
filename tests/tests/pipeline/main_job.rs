//! The tutorial's file at full speed: every row is counted in the lake, with the values it had.

use std::collections::HashMap;

use tests::env;
use tests::process::run;
use tests::server::Server;

use crate::lake::*;

#[test]
fn every_row_of_a_large_file_is_in_the_lake() {
    let server = Server::start(&[]);
    let csv = server.scratch().join("ticks.csv");
    let mut generate = std::process::Command::new(env::binary("producer"));
    generate
        .arg("--generate-csv")
        .arg(&csv)
        .args(["--seed", "3"]);
    run(generate, "").success();
    let text = std::fs::read_to_string(&csv).unwrap();
    let rows = text.lines().count() - 1;
    assert!(rows > 100_000, "{rows} rows");

    create_topic(&server, "ticks");
    let mut produce = producer(&server.bootstrap(), "ticks");
    produce.arg("--data").arg(&csv).args(["--rate", "max"]);
    run(produce, "").success();

    let lake = Lake::folder(&server);
    let consume = || {
        let mut command = consumer(&server.bootstrap(), "ticks", "lake");
        command.args(["--format", "json", "--once"]);
        lake.receive(&mut command);
        last_status(&run(command, "").success().stdout)
    };
    let status = consume();
    assert_eq!(
        (&status["records_stored"], &status["lag"]),
        (&rows.into(), &0.into())
    );
    assert_eq!(assert_every_record_once(&server, "ticks", &lake), rows);
    assert_eq!(rows_of_lake(&lake), rows_of_csv(&text));

    let objects = lake.objects();
    assert_eq!(
        consume()["records_stored"],
        0,
        "a second run finds nothing to do"
    );
    assert_eq!(lake.objects(), objects);
}

/// How often each row is there: numbers as numbers.
type Rows = HashMap<Vec<String>, usize>;

fn rows_of_csv(text: &str) -> Rows {
    let mut rows = Rows::new();
    for line in text.lines().skip(1) {
        let number = |field: &str| {
            field
                .parse::<f64>()
                .map_or_else(|_| field.to_owned(), |n| n.to_string())
        };
        *rows
            .entry(line.split(',').map(number).collect())
            .or_default() += 1;
    }
    rows
}

fn rows_of_lake(lake: &Lake) -> Rows {
    let mut rows = Rows::new();
    for content in lake.objects().values() {
        for line in String::from_utf8_lossy(content).lines() {
            let row: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(line).unwrap();
            let names: Vec<&str> = row.keys().map(String::as_str).collect();
            assert_eq!(
                names,
                [
                    "Index",
                    "Date",
                    "Open",
                    "High",
                    "Low",
                    "Close",
                    "Adj Close",
                    "Volume",
                    "CloseUSD"
                ]
            );
            let text = |v: &serde_json::Value| match v {
                serde_json::Value::Number(n) => n.as_f64().unwrap().to_string(),
                serde_json::Value::Null => String::new(),
                other => other.as_str().unwrap().to_owned(),
            };
            *rows.entry(row.values().map(text).collect()).or_default() += 1;
        }
    }
    rows
}
