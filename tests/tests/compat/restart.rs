//! What lasts when the broker is restarted, cleanly and by kill -9: records, topics, committed offsets; and clients go on.

use tests::drivers::Library;
use tests::server::{Kind, Server};

use crate::group::Group;
use crate::support::{SETTINGS, topic_on};

#[test]
fn groups_go_on_after_a_restart() {
    let mut server = Server::start(&SETTINGS);
    let mut groups = Vec::new();
    for library in Library::ALL {
        let topic = topic_on(&server, library, 2, &[]);
        let mut group = Group::new(&server, &topic, 2, "range");
        group.produce(60);
        group.join("before", library, None);
        group.until_all_read_once();
        group.commit("before", "m");
        group.leave("before");
        groups.push((library, group));
    }
    for kill in [false, true] {
        if kill && server.kind() == Kind::Kafka {
            break; // Apache Kafka's own recovery is not what is tested here.
        }
        if kill {
            server.kill()
        } else {
            assert!(server.stop().success() || server.kind() == Kind::Kafka)
        }
        server.start_again();
        for (library, group) in &mut groups {
            group.produce(40);
            group.join("after", *library, None);
            group.until_all_read_once();
            group.commit("after", "m");
            group.leave("after");
        }
    }
}

#[test]
fn members_live_through_a_restart() {
    let mut server = Server::start(&SETTINGS);
    let mut groups = Vec::new();
    for library in Library::ALL {
        let topic = topic_on(&server, library, 2, &[]);
        let mut group = Group::new(&server, &topic, 2, "range");
        group.produce(60);
        group.join("m", library, None);
        group.until_all_read_once();
        group.commit("m", "");
        groups.push(group);
    }
    assert!(server.stop().success() || server.kind() == Kind::Kafka);
    server.start_again();
    for group in &mut groups {
        group.produce(40);
        group.until_all_read_once();
        group.leave("m");
    }
}
