//! Topics: made, refused, deleted, made anew, and made on first use.

use tests::driver::Record;
use tests::drivers::Library;

use crate::support::{THEN_MS, produce, read_all, server, topic, unique};

for_each_library!(created_deleted_and_created_anew);

fn created_deleted_and_created_anew(library: Library) {
    let name = topic(library, 3, &[("retention.ms", "-1")]);
    let mut driver = library.driver(server());
    driver
        .create_topic(&name, 3, &[])
        .expect_err("the topic exists");
    driver
        .create_topic(&unique("wrong"), 1, &[("no.such.config", "1")])
        .expect_err("an unknown config");
    driver
        .create_topic("a/b", 1, &[])
        .expect_err("a slash in a name");
    driver
        .create_topic("..", 1, &[])
        .expect_err("a name that means a directory");
    let records = (0..3)
        .map(|p| Record::new(p, THEN_MS, "k", "first life"))
        .collect();
    assert_eq!(driver.produce(&produce(&name, records)).unwrap(), [0, 0, 0]);
    driver.delete_topic(&name).unwrap();
    driver.delete_topic(&name).expect_err("the topic is gone");
    driver.create_topic(&name, 1, &[]).unwrap();
    let record = Record::new(0, THEN_MS, "k", "second life");
    assert_eq!(
        driver.produce(&produce(&name, vec![record])).unwrap(),
        [0],
        "nothing of the first life is left"
    );
    drop(driver);
    assert_eq!(
        read_all(server(), library, &name, 1, 1)[0].text(),
        "second life"
    );
}

for_each_library!(made_on_first_use);

fn made_on_first_use(library: Library) {
    let name = unique("first-use");
    let record = Record {
        partition: None,
        ..Record::new(0, THEN_MS, "k", "v")
    };
    assert_eq!(
        library
            .driver(server())
            .produce(&produce(&name, vec![record]))
            .unwrap(),
        [0]
    );
    assert_eq!(read_all(server(), library, &name, 1, 1)[0].text(), "v");
}
