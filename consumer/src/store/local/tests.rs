use super::*;

fn place() -> Place {
    Place {
        topic: "t".into(),
        partition: 0,
    }
}

fn name(first: i64) -> ObjectName {
    ObjectName {
        place: place(),
        first,
        extension: "json",
    }
}

fn tag(next: i64, writer: &str) -> Tag {
    Tag {
        next,
        records: 3,
        writer: writer.into(),
        topic_id: "-".into(),
    }
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn creates_lists_and_refuses_a_second_version() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::new(dir.path().join("a/lake"));
    store.check().await.unwrap();
    assert_eq!(store.list(&place(), 0).await, Ok(vec![]));
    let put = store
        .put(&name(5), &tag(8, "me"), Bytes::from_static(b"one\n"))
        .await;
    assert_eq!(put, Ok(Put::Created));
    let other = LocalStore::new(dir.path().join("a/lake"));
    let put = other
        .put(&name(5), &tag(9, "you"), Bytes::from_static(b"two\n"))
        .await;
    assert_eq!(put, Ok(Put::Taken(tag(8, "me"))));
    assert_eq!(
        other.put(&name(8), &tag(9, "you"), Bytes::new()).await,
        Ok(Put::Created)
    );
    let found = store.list(&place(), 6).await.unwrap();
    assert_eq!(
        found,
        [Found {
            first: 8,
            tag: tag(9, "you")
        }]
    );
    let folder = dir.path().join("a/lake/t/partition=0");
    assert_eq!(fs::read(folder.join(name(5).file())).unwrap(), b"one\n");
    assert_eq!(
        files(&folder),
        [".offsets", &name(5).file(), &name(8).file()]
    );
}

#[tokio::test]
async fn many_at_once_each_get_their_own_answer() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalStore::new(dir.path()));
    let tasks: Vec<_> = (0..60)
        .map(|i| {
            let store = Arc::clone(&store);
            // Every name twice.
            tokio::spawn(async move { store.put(&name(i / 2), &tag(i, "w"), Bytes::new()).await })
        })
        .collect();
    let mut created = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(Put::Created) => created += 1,
            Ok(Put::Taken(_)) | Err(StoreError::Transient(_)) => {}
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(created, 30);
    assert_eq!(store.list(&place(), 0).await.unwrap().len(), 30);
}

#[tokio::test]
async fn survives_every_crash_between_ledger_and_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::new(dir.path());
    store
        .put(&name(0), &tag(3, "a"), Bytes::new())
        .await
        .unwrap();
    let folder = dir.path().join("t/partition=0");
    let ledger = folder.join(LEDGER);
    // The next object's line is torn at every byte, its file never got its name.
    let line = format!("3 70 67 a - {} ok\n", name(3).file());
    for cut in 1..=line.len() {
        let mut torn = fs::read_to_string(&ledger).unwrap();
        torn.push_str(&line[..cut]);
        fs::write(&ledger, torn).unwrap();
        let found = store.list(&place(), 0).await.unwrap();
        assert_eq!(
            found,
            [Found {
                first: 0,
                tag: tag(3, "a")
            }],
            "cut at {cut}"
        );
    }
    let put = store.put(&name(3), &tag(5, "b"), Bytes::new()).await;
    assert_eq!(put, Ok(Put::Created));
    assert_eq!(
        store.list(&place(), 1).await.unwrap(),
        [Found {
            first: 3,
            tag: tag(5, "b")
        }]
    );
}

#[tokio::test]
async fn temporary_files_of_dead_processes_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::new(dir.path());
    store
        .put(&name(0), &tag(3, "a"), Bytes::new())
        .await
        .unwrap();
    let folder = dir.path().join("t/partition=0");
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let dead = child.id();
    child.wait().unwrap();
    let dead = folder.join(format!(".x.json.{dead}-0123456789abcdef.tmp"));
    let alive = folder.join(temporary_name("x.json"));
    fs::write(&dead, "x").unwrap();
    fs::write(&alive, "x").unwrap();
    store.list(&place(), 0).await.unwrap();
    assert!(alive.exists() && (!dead.exists() || !Path::new("/proc/self").exists()));
}

#[tokio::test]
async fn an_object_nobody_knows_is_not_guessed_at() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::new(dir.path());
    store
        .put(&name(0), &tag(3, "a"), Bytes::new())
        .await
        .unwrap();
    fs::write(
        dir.path().join("t/partition=0").join(name(3).file()),
        "by hand",
    )
    .unwrap();
    let error = store.list(&place(), 0).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Fatal(text) if text.contains("move it away")),
        "{error}"
    );
    assert!(
        store
            .put(&name(3), &tag(4, "a"), Bytes::new())
            .await
            .is_err()
    );
    assert_eq!(store.list(&place(), 4).await, Ok(vec![]));
}

#[tokio::test]
async fn a_folder_that_can_not_be_made_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = LocalStore::new(file.join("lake"))
        .check()
        .await
        .unwrap_err();
    assert!(
        matches!(&error, StoreError::Fatal(text) if text.contains("cannot write to")),
        "{error}"
    );
}
