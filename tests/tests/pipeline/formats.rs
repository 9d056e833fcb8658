//! JSON, CSV and Parquet say the same to SQL: DuckDB stands in for Athena.

use std::fmt::Write as _;

use tests::env;
use tests::process::run;
use tests::server::Server;

use crate::lake::*;

const ROWS: usize = 5000;

#[test]
fn all_formats_say_the_same_to_sql() {
    let server = Server::start(&[]);
    create_topic(&server, "ticks");
    let csv = server.scratch().join("ticks.csv");
    let mut text = "id,Index,Date,Close,Note\n".to_owned();
    for i in 0..ROWS {
        // A column of text with what makes CSV hard, sometimes empty.
        let note = if i % 3 == 0 {
            String::new()
        } else {
            format!("\"a, \"\"quoted\"\" note {i}\"")
        };
        writeln!(
            text,
            "{i},X{},2021-05-{:02},{}.25,{note}",
            i % 13,
            1 + i % 28,
            i * 3
        )
        .unwrap();
    }
    std::fs::write(&csv, text).unwrap();
    let mut produce = producer(&server.bootstrap(), "ticks");
    produce
        .arg("--data")
        .arg(&csv)
        .args(["--rate", "max", "--compression", "zstd"]);
    run(produce, "").success();
    for format in ["json", "csv", "parquet"] {
        let lake = server.scratch().join(format);
        let mut consume = consumer(&server.bootstrap(), "ticks", format);
        consume
            .args([
                "--format",
                format,
                "--rotate-records",
                "700",
                "--once",
                "--to",
            ])
            .arg(&lake);
        let status = last_status(&run(consume, "").success().stdout);
        assert_eq!(status["records_stored"], ROWS, "{format}");
        let sum: usize = (0..ROWS).map(|i| i * 3).sum();
        let notes = ROWS - ROWS.div_ceil(3);
        let wanted = format!(
            "{ROWS} {ROWS} 13 {:.2} {notes} 3",
            sum as f64 + ROWS as f64 * 0.25
        );
        assert_eq!(query(&lake, format), wanted, "{format}");
    }
}

/// Rows, distinct ids, distinct indices, sum of prices, notes, partitions.
fn query(lake: &std::path::Path, format: &str) -> String {
    let reader = match format {
        "json" => "read_json_auto",
        other => &format!("read_{other}"),
    };
    let sql = format!(
        "select count(*), count(distinct id), count(distinct \"Index\"), sum(\"Close\"), \
         count(nullif(\"Note\", '')), count(distinct \"partition\") \
         from {reader}('{}/ticks/*/*.{format}', hive_partitioning=true)",
        lake.display()
    );
    let code = "import duckdb, sys; r = duckdb.sql(sys.argv[1]).fetchall()[0]; \
                print(r[0], r[1], r[2], '%.2f' % r[3], r[4], r[5])";
    let mut command = std::process::Command::new(env::test_env("venv-lake").join("bin/python"));
    command.arg("-c").arg(code).arg(sql);
    run(command, "").success().stdout.trim().to_owned()
}
