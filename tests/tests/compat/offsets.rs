//! Committed offsets: where a group goes on after all its members were gone, with the metadata it left.

use tests::drivers::Library;

use crate::group::Group;
use crate::support::{server, topic};

for_each_library!(a_group_goes_on_where_it_stopped);

fn a_group_goes_on_where_it_stopped(library: Library) {
    let topic = topic(library, 2, &[]);
    let mut group = Group::new(server(), &topic, 2, "range");
    assert_eq!(
        group.committed(library),
        [(None, String::new()), (None, String::new())]
    );
    group.produce(100);
    group.join("first", library, None);
    group.until_all_read_once();
    group.commit("first", "as far as this");
    assert_eq!(
        group.committed(library),
        [
            (Some(50), "as far as this".into()),
            (Some(50), "as far as this".into())
        ]
    );
    group.leave("first");
    group.produce(40);
    group.join("second", library, None);
    group.until_all_read_once();
    group.leave("second");
}
