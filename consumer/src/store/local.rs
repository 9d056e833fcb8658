//! Objects as files, durable like an object store's: written under another name in the same folder,
//! fsynced, renamed, folder fsynced. Beside the objects of a partition lies `.offsets`, a line of text
//! per object that says where it ends; the lock on that file is what makes "only if the name is
//! free" hold among processes. Nothing but this module reads or writes it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Found, ObjectName, Place, Put, StoreError, Tag};

const LEDGER: &str = ".offsets";
const TEMPORARY: &str = ".tmp";
/// Longest line of a ledger; what is longer was not written by this module.
const MAX_LINE_BYTES: u64 = 4096;
/// Age at which another machine's temporary file is taken for a dead process's.
const STALE: Duration = Duration::from_secs(3600);

/// A folder as store.
pub struct LocalStore {
    root: PathBuf,
    folders: Mutex<HashMap<PathBuf, Arc<Folder>>>,
}

/// One partition's folder, with the objects that are written but not named yet.
struct Folder {
    path: PathBuf,
    ready: Mutex<Vec<Ready>>,
    naming: Mutex<()>,
}

struct Ready {
    temporary: PathBuf,
    file: String,
    first: i64,
    tag: Tag,
    answer: oneshot::Sender<Result<Put, StoreError>>,
}

impl LocalStore {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        LocalStore {
            root: root.into(),
            folders: Mutex::default(),
        }
    }

    pub fn location(&self) -> String {
        self.root.display().to_string()
    }

    pub fn how_to_look(&self, extension: &str) -> String {
        let root = self.root.display();
        match extension {
            "parquet" => format!("duckdb -c \"SELECT * FROM '{root}/**/*.parquet' LIMIT 10\""),
            _ => format!("find {root} -name '*.{extension}' | sort | tail -1 | xargs head"),
        }
    }

    pub async fn check(&self) -> Result<(), StoreError> {
        let root = self.root.clone();
        blocking(move || {
            let probe = root.join(temporary_name("probe"));
            make_folder(&root)
                .and_then(|()| File::create(&probe).map(drop))
                .and_then(|()| fs::remove_file(&probe))
                .map_err(|e| match e.kind() {
                    io::ErrorKind::NotFound => StoreError::Fatal(format!(
                        "cannot create the folder {}: {e}",
                        root.display()
                    )),
                    _ => failed("cannot write to", &root, e),
                })
        })
        .await
    }

    pub async fn put(&self, name: &ObjectName, tag: &Tag, body: Bytes) -> Result<Put, StoreError> {
        let folder = self.folder(&name.place);
        let (answer, answered) = oneshot::channel();
        let (file, first, tag) = (name.file(), name.first, tag.clone());
        blocking(move || {
            let temporary = folder.path.join(temporary_name(&file));
            write_temporary(&folder.path, &temporary, &body)?;
            lock(&folder.ready).push(Ready {
                temporary,
                file,
                first,
                tag,
                answer,
            });
            // Whoever gets the turn names everything that is ready by then: many objects share
            // one fsync of the ledger and one of the folder.
            let _turn = lock(&folder.naming);
            let ready = std::mem::take(&mut *lock(&folder.ready));
            name_all(&folder.path, ready);
            Ok(())
        })
        .await?;
        answered.await.unwrap_or_else(|_| {
            Err(StoreError::Transient(
                "the writing thread ended early".into(),
            ))
        })
    }

    pub async fn list(&self, place: &Place, from: i64) -> Result<Vec<Found>, StoreError> {
        let folder = self.folder(place).path.clone();
        let place = place.clone();
        blocking(move || list(&folder, &place, from)).await
    }

    fn folder(&self, place: &Place) -> Arc<Folder> {
        let path = self.root.join(place.folder());
        let mut folders = lock(&self.folders);
        let folder = folders.entry(path).or_insert_with_key(|path| {
            Arc::new(Folder {
                path: path.clone(),
                ready: Mutex::default(),
                naming: Mutex::default(),
            })
        });
        Arc::clone(folder)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(StoreError::Fatal(format!("the writing thread failed: {e}"))))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `.name.process-random.tmp`; hidden from whoever reads the lake.
fn temporary_name(file: &str) -> String {
    let random = uuid::Uuid::new_v4().as_u64_pair().0;
    format!(".{file}.{}-{random:016x}{TEMPORARY}", std::process::id())
}

fn write_temporary(folder: &Path, temporary: &Path, body: &[u8]) -> Result<(), StoreError> {
    let write = || {
        make_folder(folder)?;
        File::create_new(temporary).and_then(|mut file| file.write_all(body).map(|()| file))
    };
    let done = match write() {
        Ok(file) => file.sync_all().map_err(|e| not_synced(temporary, &e)),
        Err(e) => Err(failed("cannot write", temporary, e)),
    };
    if done.is_err() {
        let _ = fs::remove_file(temporary);
    }
    done
}

/// Creates a folder and what leads to it, durably.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(Path::new(""));
    make_folder(parent)?;
    match fs::create_dir(folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    File::open(parent)?.sync_all()
}

/// Gives finished files their names, in turns with every other process that writes to the folder.
fn name_all(folder: &Path, ready: Vec<Ready>) {
    if ready.is_empty() {
        return;
    }
    let (outcome, ready) = match Ledger::open(folder) {
        Ok(mut ledger) => name_under_lock(folder, &mut ledger, ready),
        Err(e) => (Err(failed("cannot open", &folder.join(LEDGER), e)), ready),
    };
    for item in ready {
        let _ = fs::remove_file(&item.temporary);
        let answer = outcome.clone().map(|()| Put::Created);
        let _ = item.answer.send(answer);
    }
}

/// The items that are left are to be told the outcome; the others were answered.
fn name_under_lock(
    folder: &Path,
    ledger: &mut Ledger,
    ready: Vec<Ready>,
) -> (Result<(), StoreError>, Vec<Ready>) {
    let mut free = Vec::with_capacity(ready.len());
    for item in ready {
        let twice = free.iter().any(|f: &Ready| f.first == item.first);
        if !twice && !folder.join(&item.file).exists() {
            free.push(item);
            continue;
        }
        let _ = fs::remove_file(&item.temporary);
        let answer = match ledger.find(&item.file) {
            Ok(Some(tag)) => Ok(Put::Taken(tag)),
            Ok(None) if twice => Err(StoreError::Transient("it is being written".into())),
            Ok(None) => Err(unknown_object(folder, &item.file)),
            Err(e) => Err(failed("cannot read", &folder.join(LEDGER), e)),
        };
        let _ = item.answer.send(answer);
    }
    let outcome = ledger
        .append(folder, &free)
        .and_then(|()| rename_all(folder, &free));
    (outcome, free)
}

fn rename_all(folder: &Path, items: &[Ready]) -> Result<(), StoreError> {
    for item in items {
        let to = folder.join(&item.file);
        fs::rename(&item.temporary, &to).map_err(|e| failed("cannot name", &to, e))?;
    }
    match File::open(folder).and_then(|f| f.sync_all()) {
        Ok(()) => Ok(()),
        Err(e) => Err(not_synced(folder, &e)),
    }
}

/// `first next records writer topic-id file ok` per line; of several lines for one file the last
/// holds, and a line without its `ok` is a torn one.
struct Ledger {
    file: File,
}

impl Ledger {
    /// Opens it and waits for the lock, which lasts as long as the value.
    fn open(folder: &Path) -> io::Result<Ledger> {
        let path = folder.join(LEDGER);
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        file.lock()?;
        Ok(Ledger { file })
    }

    fn append(&mut self, folder: &Path, items: &[Ready]) -> Result<(), StoreError> {
        if items.is_empty() {
            return Ok(());
        }
        let path = folder.join(LEDGER);
        let written = self.write_lines(items);
        if let Err((e, size)) = written {
            // A torn line would be passed over anyway.
            let _ = self.file.set_len(size);
            return Err(failed("cannot write", &path, e));
        }
        self.file.sync_data().map_err(|e| not_synced(&path, &e))
    }

    fn write_lines(&mut self, items: &[Ready]) -> Result<(), (io::Error, u64)> {
        let size = self
            .file
            .seek(SeekFrom::End(0))
            .map_err(|e| (e, u64::MAX))?;
        let mut text = String::new();
        if size > 0 {
            let mut last = [0u8];
            let read = self
                .file
                .seek(SeekFrom::Start(size - 1))
                .and_then(|_| self.file.read_exact(&mut last));
            read.map_err(|e| (e, size))?;
            if last != *b"\n" {
                text.push('\n');
            }
        }
        for Ready {
            first, tag, file, ..
        } in items
        {
            let Tag {
                next,
                records,
                writer,
                topic_id,
            } = tag;
            text.push_str(&format!(
                "{first} {next} {records} {writer} {topic_id} {file} ok\n"
            ));
        }
        self.file.write_all(text.as_bytes()).map_err(|e| (e, size))
    }

    fn find(&mut self, file: &str) -> io::Result<Option<Tag>> {
        let mut found = None;
        self.each(|line| {
            if line.file == file {
                found = Some(line.tag);
            }
        })?;
        Ok(found)
    }

    fn each(&mut self, mut see: impl FnMut(Line<'_>)) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut reader = BufReader::new(&self.file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader
                .by_ref()
                .take(MAX_LINE_BYTES)
                .read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(());
            }
            let text = std::str::from_utf8(&line).unwrap_or_default();
            if let Some(line) = parse_line(text) {
                see(line);
            }
        }
    }
}

struct Line<'a> {
    file: &'a str,
    tag: Tag,
}

fn parse_line(line: &str) -> Option<Line<'_>> {
    let mut words = line.strip_suffix(" ok\n")?.split(' ');
    let _first: i64 = words.next()?.parse().ok()?;
    let tag = Tag {
        next: words.next()?.parse().ok()?,
        records: words.next()?.parse().ok()?,
        writer: words.next()?.to_owned(),
        topic_id: words.next()?.to_owned(),
    };
    let file = words.next()?;
    words.next().is_none().then_some(Line { file, tag })
}

fn list(folder: &Path, place: &Place, from: i64) -> Result<Vec<Found>, StoreError> {
    let reading = |e| failed("cannot read", folder, e);
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(reading)?,
    };
    // Under the lock, so that no other process is between its ledger line and its rename.
    let mut ledger = Ledger::open(folder).map_err(reading)?;
    let mut files: BTreeMap<String, (i64, Option<Tag>)> = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(reading)?;
        let Ok(file) = entry.file_name().into_string() else {
            continue;
        };
        if file.starts_with('.') && file.ends_with(TEMPORARY) {
            sweep(&entry.path(), &file);
        } else if let Some(first) = place.parse(&file).filter(|first| *first >= from) {
            files.insert(file, (first, None));
        }
    }
    let seen = ledger.each(|line| {
        if let Some((_, tag)) = files.get_mut(line.file) {
            *tag = Some(line.tag);
        }
    });
    seen.map_err(reading)?;
    files
        .into_iter()
        .map(|(file, (first, tag))| match tag {
            Some(tag) => Ok(Found { first, tag }),
            None => Err(unknown_object(folder, &file)),
        })
        .collect()
}

/// Removes what a killed process left behind, and nothing of one that lives.
fn sweep(path: &Path, file: &str) {
    let process = file
        .strip_suffix(TEMPORARY)
        .and_then(|f| f.rsplit('.').next())
        .and_then(|f| f.split('-').next());
    let gone = process.is_some_and(|id| {
        Path::new("/proc/self").exists() && !Path::new("/proc").join(id).exists()
    });
    let age = fs::metadata(path)
        .and_then(|m| m.modified())
        .ok()
        .and_then(|at| SystemTime::now().duration_since(at).ok());
    if gone || age.is_some_and(|age| age > STALE) {
        let _ = fs::remove_file(path);
    }
}

fn unknown_object(folder: &Path, file: &str) -> StoreError {
    StoreError::Fatal(format!(
        "{} is there, but {LEDGER} beside it does not say which offsets it holds; if it was put there by \
         hand, move it away, or write to another folder (--to)",
        folder.join(file).display()
    ))
}

fn failed(what: &str, path: &Path, e: io::Error) -> StoreError {
    use io::ErrorKind::*;
    let path = path.display();
    match e.kind() {
        StorageFull | QuotaExceeded => {
            StoreError::Transient(format!("{what} {path}: {e}; free some space"))
        }
        // NotFound: another process took the temporary file for a dead one's, or somebody removed
        // the folder; both are cured by writing it again.
        NotFound | Interrupted | TimedOut | WouldBlock | ResourceBusy | StaleNetworkFileHandle => {
            StoreError::Transient(format!("{what} {path}: {e}"))
        }
        PermissionDenied | ReadOnlyFilesystem => StoreError::Fatal(format!(
            "{what} {path}: {e}; check its owner and permissions"
        )),
        _ => StoreError::Fatal(format!("{what} {path}: {e}")),
    }
}

/// After a failed fsync nobody knows what is on the disk, and asking again would answer "fine".
fn not_synced(path: &Path, e: &io::Error) -> StoreError {
    StoreError::Fatal(format!(
        "{} could not be brought to the disk: {e}; check the disk, then start again",
        path.display()
    ))
}

#[cfg(test)]
mod tests;
