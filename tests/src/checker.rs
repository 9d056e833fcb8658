//! Checks what a broker kept against what it acknowledged, in the manner of Jepsen's Kafka workload.
//!
//! Every value is unique within its partition. A producer notes each send, and then what became of it; after the faults, every
//! partition is read from its beginning.

use std::collections::{BTreeMap, HashMap};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged at this offset.
    Acknowledged(i64),
    /// Refused for good: must not be there.
    Failed,
    /// No answer: may or may not be there, but not twice.
    Unknown,
}

/// What one producer did to one partition, in the order it sent.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub sent: Vec<(u64, Fate)>,
}

/// What is wrong, one line each; empty when all promises were kept.
pub fn check(histories: &[History], read: &BTreeMap<i64, u64>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut places: HashMap<u64, Vec<i64>> = HashMap::new();
    for (offset, value) in read {
        places.entry(*value).or_default().push(*offset);
    }
    let mut twice: Vec<_> = places.iter().filter(|(_, at)| at.len() > 1).collect();
    twice.sort();
    wrong.extend(
        twice
            .iter()
            .map(|(value, at)| format!("duplicate: value {value} at offsets {at:?}")),
    );
    for (producer, history) in histories.iter().enumerate() {
        let mut last = None;
        for (value, fate) in &history.sent {
            let at = places.get(value).and_then(|at| at.first()).copied();
            match (fate, at) {
                (Fate::Acknowledged(offset), None) => wrong.push(format!(
                    "lost write: value {value}, acknowledged at {offset}"
                )),
                (Fate::Acknowledged(offset), Some(at)) if *offset != at => {
                    wrong.push(format!(
                        "inconsistent offset: value {value} acknowledged at {offset}, read at {at}"
                    ));
                }
                (Fate::Failed, Some(at)) => {
                    wrong.push(format!("failed write seen: value {value} at {at}"))
                }
                _ => {}
            }
            if let Some(at) = at {
                if last.is_some_and(|last| last > at) {
                    wrong.push(format!("order: producer {producer}'s value {value} at {at}, behind a later one at {last:?}"));
                }
                last = Some(at);
            }
        }
    }
    let offsets: Vec<i64> = read.keys().copied().collect();
    for pair in offsets.windows(2).filter(|p| p[1] != p[0] + 1) {
        wrong.push(format!("gap: offset {} follows {}", pair[1], pair[0]));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(sent: &[(u64, Fate)]) -> Vec<History> {
        vec![History {
            sent: sent.to_vec(),
        }]
    }

    fn log(entries: &[(i64, u64)]) -> BTreeMap<i64, u64> {
        entries.iter().copied().collect()
    }

    #[test]
    fn a_kept_promise_passes() {
        let sent = history(&[
            (1, Fate::Acknowledged(0)),
            (2, Fate::Unknown),
            (3, Fate::Failed),
            (4, Fate::Acknowledged(1)),
        ]);
        assert_eq!(check(&sent, &log(&[(0, 1), (1, 4)])), Vec::<String>::new());
    }

    #[test]
    fn each_broken_promise_is_found() {
        type Case = (&'static str, &'static [(u64, Fate)], &'static [(i64, u64)]);
        let cases: [Case; 6] = [
            (
                "lost write",
                &[(1, Fate::Acknowledged(0)), (2, Fate::Acknowledged(1))],
                &[(0, 1)],
            ),
            ("duplicate", &[(1, Fate::Unknown)], &[(0, 1), (1, 1)]),
            (
                "inconsistent offset",
                &[(1, Fate::Acknowledged(5))],
                &[(0, 1)],
            ),
            ("failed write seen", &[(1, Fate::Failed)], &[(0, 1)]),
            (
                "order",
                &[(1, Fate::Unknown), (2, Fate::Acknowledged(0))],
                &[(0, 2), (1, 1)],
            ),
            (
                "gap",
                &[(1, Fate::Acknowledged(0)), (2, Fate::Acknowledged(2))],
                &[(0, 1), (2, 2)],
            ),
        ];
        for (name, sent, read) in cases {
            let wrong = check(&history(sent), &log(read));
            assert!(
                wrong.iter().any(|w| w.starts_with(name)),
                "{name}: {wrong:?}"
            );
        }
    }
}
