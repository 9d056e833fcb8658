//! Damage to the log itself: a torn tail is cut, a flipped bit is never served, and what lies behind it is kept.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use tests::drivers::Library;
use tests::dump::files;
use tests::reader::{fetch, read_partition};
use tests::server::Server;

use crate::support::{connect, contents, fill, start, write};

fn log_files(server: &Server) -> Vec<PathBuf> {
    files(&server.data_dir(), ".log", |name| name == "t-0")
}

#[test]
fn a_torn_tail_is_cut_and_the_log_goes_on() {
    let mut server = start(&[]);
    fill(&server, &["t"]);
    let before = contents(&server, &["t"]);
    let active = log_files(&server).pop().unwrap();
    for torn in [1, 11, 12, 60, 61, 500] {
        server.kill();
        let log = std::fs::read(&log_files(&server)[0]).unwrap();
        // The beginning of a batch that never came whole.
        OpenOptions::new()
            .append(true)
            .open(&active)
            .unwrap()
            .write_all(&log[..torn])
            .unwrap();
        server.start_again();
        assert!(
            contents(&server, &["t"]) == before,
            "a tail of {torn} bytes:\n{}",
            server.log()
        );
    }
    let mut driver = Library::Rdkafka.driver(&server);
    write(&mut driver, "t", "none", 50_000);
    let raw = &mut connect(&server);
    let offsets: Vec<i64> = read_partition(raw, "t", 0)
        .iter()
        .map(|r| r.offset)
        .collect();
    assert_eq!(
        offsets,
        (0..offsets.len() as i64).collect::<Vec<_>>(),
        "no gap where the tail was"
    );
}

#[test]
fn a_flipped_bit_is_not_served_and_what_follows_is_kept() {
    let mut server = start(&[]);
    let mut driver = Library::Rdkafka.driver(&server);
    driver.create_topic("t", 2, &[]).unwrap();
    (0..7).for_each(|i| write(&mut driver, "t", "none", i * 1000));
    let before = read_partition(&mut connect(&server), "t", 0);
    server.kill();
    // In the middle of the only segment, which is looked through after a crash.
    let active = log_files(&server).pop().unwrap();
    let mut bytes = std::fs::read(&active).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&active, bytes).unwrap();
    server.start_again();
    let mut raw = connect(&server);
    let mut kept = Vec::new();
    let mut refused = 0;
    let mut offset = 0;
    let end = before.last().unwrap().offset + 1;
    while offset < end {
        // `fetch` itself checks that a batch which is served is sound.
        let (error, _, records) = fetch(&mut raw, "t", 0, offset);
        match records.last() {
            Some(last) if error == 0 => offset = last.offset + 1,
            _ => {
                refused += 1;
                offset += 1;
            }
        }
        kept.extend(records);
    }
    assert!(refused > 0, "the damaged batch must not be served");
    assert!(
        kept.last().unwrap().offset == end - 1,
        "what follows is kept"
    );
    assert!(kept.iter().all(|r| {
        before
            .binary_search_by_key(&r.offset, |b| b.offset)
            .is_ok_and(|i| before[i] == *r)
    }));
    assert_eq!(
        kept.len() + refused,
        before.len(),
        "only the damaged batch is missing"
    );
    let said = server.log().to_lowercase();
    assert!(
        said.contains("corrupt") || said.contains("damaged"),
        "it is said in the log:\n{said}"
    );
}
