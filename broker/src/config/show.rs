//! The settings written down for people: `--help-settings` and docs/CONFIG.md. Knows the tables.

use super::table::Setting;
use super::{BROKER_SETTINGS, TOPIC_SETTINGS};

/// Kafka does not tell of these either; they are there for tests.
fn is_internal(name: &str) -> bool {
    name.starts_with("internal.")
}

fn shown<C>(table: &'static [Setting<C>]) -> impl Iterator<Item = &'static Setting<C>> {
    table.iter().filter(|s| !is_internal(s.name))
}

/// A setting's default, as people write it.
fn default_of<C: Default>(setting: &Setting<C>) -> String {
    let default = setting.default_text().filter(|text| !text.is_empty());
    default.unwrap_or_else(|| "none".into())
}

/// All settings with what is allowed, default and meaning, for a terminal.
pub fn help_text() -> String {
    let mut out =
        String::from("Settings of the broker, for server.properties or --override KEY=VALUE.\n\n");
    for s in BROKER_SETTINGS {
        out.push_str(&format!(
            "{}\n    {}\n    Allowed: {}. Default: {}\n",
            s.name,
            s.doc(),
            s.kind,
            default_of(s)
        ));
    }
    out
}

/// The page docs/CONFIG.md; a test holds it to this.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Settings\n\n\
         <!-- Written by `mini-broker --help-settings=markdown > docs/CONFIG.md`; a test compares. -->\n\n\
         Kafka's names and Kafka's meanings: a `server.properties` of Apache Kafka 3.x or 4.x is taken as it is. Every setting\n\
         can also be given as `--override KEY=VALUE`, the everyday ones as flags (`--listen`, `--advertise`, `--data-dir`,\n\
         `--durability`). The stronger wins: `--override`, then flags, then the file, then the default.\n\n\
         - A bad value ends the start with exit code 2; the message names key, value and what is allowed.\n\
         - A key nobody knows is a warning that names it, and the one that was probably meant.\n\
         - A key of Kafka that has nothing to change on one node (`zookeeper.*`, `replica.*`, `num.io.threads`, …) is accepted in\n  \
         silence. One that asks for something mini-broker does not do (an authorizer, quotas, remote storage) is a warning.\n\n\
         ## Broker\n\n\
         | Setting | Default | Allowed | Meaning |\n|---|---|---|---|\n",
    );
    for s in shown(BROKER_SETTINGS) {
        let (default, allowed) = (cell(&default_of(s)), cell(&s.kind.to_string()));
        let doc = cell(s.doc());
        out.push_str(&format!(
            "| `{}` | {default} | {allowed} | {doc} |\n",
            s.name
        ));
    }
    out.push_str(
        "\n## Topics\n\n\
         For CreateTopics, such as `kafka-topics.sh --create --config retention.ms=3600000`. What is not given for a topic is taken\n\
         from the broker's setting in the second column, also when that changes later.\n\n\
         | Setting | Falls back to | Default | Allowed | Meaning |\n|---|---|---|---|---|\n",
    );
    for s in shown(TOPIC_SETTINGS) {
        let from: Vec<String> = s.synonyms.iter().map(|name| format!("`{name}`")).collect();
        out.push_str(&format!(
            "| `{}` | {} | {} | {} | {} |\n",
            s.name,
            from.join(", "),
            cell(&default_of(s)),
            cell(&s.kind.to_string()),
            cell(s.doc())
        ));
    }
    out
}

/// Text for a table: the largest numbers in words, lists broken where they may be.
fn cell(text: &str) -> String {
    let text = text
        .replace(&format!(" to {}", i64::MAX), " up")
        .replace(&format!(" to {}", i32::MAX), " up")
        .replace(&format!("from {} up", i64::MIN), "of 64 bits")
        .replace('|', "\\|");
    match text.as_str() {
        t if t == i64::MAX.to_string() || t == i32::MAX.to_string() => "without limit".into(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_settings_is_the_table() {
        let page = include_str!("../../../docs/CONFIG.md");
        let command = "cargo run --bin mini-broker -- --help-settings=markdown > docs/CONFIG.md";
        assert!(page == markdown(), "docs/CONFIG.md is old; run: {command}");
    }

    #[test]
    fn the_page_leaves_out_what_is_for_tests_and_spells_large_numbers() {
        let (text, page) = (help_text(), markdown());
        for name in ["listeners", "log.retention.hours", "durability"] {
            assert!(
                text.contains(name) && page.contains(&format!("| `{name}` |")),
                "{name}"
            );
        }
        assert!(page.contains("| `retention.ms` | `log.retention.ms`"));
        assert!(!page.contains("internal."));
        assert!(!page.contains("9223372036854775807") && !page.contains("2147483647"));
    }
}
