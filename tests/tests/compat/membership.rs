//! Groups of several members: join, leave, every partition covered, nothing lost, nothing twice.

use tests::drivers::Library;

use crate::group::Group;
use crate::support::{server, topic};

const PARTITIONS: i32 = 6;

for_each_library!(members_come_and_go);

fn members_come_and_go(library: Library) {
    come_and_go([library; 3], "range");
}

#[test]
fn java_librdkafka_and_kafka_python_share_a_group() {
    come_and_go(
        [Library::Java41, Library::Confluent, Library::KafkaPython3],
        "range",
    );
}

#[test]
fn older_libraries_share_a_group() {
    come_and_go(
        [Library::KafkaPython2, Library::Rdkafka, Library::Java39],
        "roundrobin",
    );
}

#[test]
fn java_and_librdkafka_rebalance_cooperatively() {
    come_and_go(
        [Library::Java41, Library::Confluent, Library::Java39],
        "cooperative-sticky",
    );
}

fn come_and_go(libraries: [Library; 3], assignor: &'static str) {
    let topic = topic(libraries[0], PARTITIONS, &[]);
    let mut group = Group::new(server(), &topic, PARTITIONS, assignor);
    group.produce(120);
    for (member, library) in ["a", "b", "c"].into_iter().zip(libraries) {
        group.join(member, library, None);
        group.until_balanced();
        group.produce(120);
        group.until_all_read_once();
    }
    group.leave("a");
    group.until_balanced();
    group.produce(120);
    group.until_all_read_once();
    group.commit("b", "");
    group.commit("c", "");
    group.leave("b");
    group.leave("c");
    assert_eq!(
        group.committed(libraries[2]),
        vec![(Some(100), String::new()); PARTITIONS as usize]
    );
}

for_each_library!(cooperative_members_keep_what_they_hold);

fn cooperative_members_keep_what_they_hold(library: Library) {
    if !library.cooperative() {
        return;
    }
    let topic = topic(library, PARTITIONS, &[]);
    let mut group = Group::new(server(), &topic, PARTITIONS, "cooperative-sticky");
    group.join("a", library, None);
    group.until_balanced();
    group.join("b", library, None);
    group.until_balanced();
    // An eager member would have given up all six first.
    assert_eq!(group.members["a"].assignment.len(), 3);
    assert_eq!(
        (group.members["a"].revoked, group.members["a"].lost),
        (1, 0)
    );
    group.leave("b");
    group.until_balanced();
    assert_eq!(
        group.members["a"].revoked, 1,
        "taking over takes nothing away"
    );
    group.leave("a");
}

for_each_library!(static_members_return_to_their_partitions);

fn static_members_return_to_their_partitions(library: Library) {
    if !library.static_members() {
        return;
    }
    let topic = topic(library, PARTITIONS, &[]);
    let mut group = Group::new(server(), &topic, PARTITIONS, "range");
    group.join("a", library, Some("one"));
    group.join("b", library, Some("two"));
    group.until_balanced();
    group.produce(60);
    group.until_all_read_once();
    let held = group.members["a"].assignment.clone();
    let rebalances = group.members["b"].assigned;
    group.leave("a");
    group.join("a again", library, Some("one"));
    group.until_balanced();
    assert_eq!(group.members["a again"].assignment, held);
    group.produce(60);
    group.until_all_read_once();
    assert_eq!(
        group.members["b"].assigned, rebalances,
        "the other member noticed nothing"
    );
    group.leave("a again");
    group.leave("b");
}
