//! The log is the only truth: whatever is derived from it can be deleted or garbled, and nothing is lost.

use std::path::{Path, PathBuf};

use tests::random::Random;

use crate::support::{contents, fill, start};

#[derive(Clone, Copy, Debug)]
enum Damage {
    Delete,
    Empty,
    Garble,
    Halve,
}

#[test]
fn side_files_can_be_damaged_in_any_way() {
    let topics = ["first", "second"];
    let mut server = start(&[]);
    fill(&server, &topics);
    let before = contents(&server, &topics);
    let mut random = Random::new(7);
    for kill in [false, true] {
        for damage in [Damage::Delete, Damage::Empty, Damage::Garble, Damage::Halve] {
            if kill {
                server.kill()
            } else {
                assert!(server.stop().success())
            }
            let damaged = side_files(&server.data_dir());
            assert!(kill || damaged.len() > 20, "{damaged:?}");
            damaged
                .iter()
                .for_each(|file| hurt(file, damage, &mut random));
            server.start_again();
            let after = contents(&server, &topics);
            assert!(
                after == before,
                "{damage:?}, kill: {kill}: something was lost:\n{}",
                server.log()
            );
        }
    }
    assert!(!server.log().contains("panicked"), "{}", server.log());
    assert!(server.stop().success());
}

/// All of the sled folder; every index, snapshot and checkpoint.
fn side_files(data_dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(data_dir, false, &mut found);
    found.sort();
    found
}

fn collect(dir: &Path, all: bool, found: &mut Vec<PathBuf>) {
    const NAMES: [&str; 2] = ["leader-epoch-checkpoint", ".kafka_cleanshutdown"];
    const ENDS: [&str; 4] = [".index", ".timeindex", ".snapshot", "-offset-checkpoint"];
    for path in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            collect(&path, all || name == "index", found);
        } else if all || NAMES.contains(&&*name) || ENDS.iter().any(|end| name.ends_with(end)) {
            found.push(path);
        }
    }
}

fn hurt(file: &Path, damage: Damage, random: &mut Random) {
    let content = std::fs::read(file).unwrap();
    match damage {
        Damage::Delete => std::fs::remove_file(file).unwrap(),
        Damage::Empty => std::fs::write(file, b"").unwrap(),
        Damage::Garble => {
            let len = content.len().max(40);
            std::fs::write(file, random.bytes(len)).unwrap();
        }
        Damage::Halve => std::fs::write(file, &content[..content.len() / 2]).unwrap(),
    }
}
