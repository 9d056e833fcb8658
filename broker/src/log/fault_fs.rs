//! A file system in memory for tests: fails at call N, tears the write it fails at, and on a power
//! cut loses what was not synced. Metadata survives a cut in the order it was made, as with a
//! journaling file system: some prefix of it, at least up to the last `sync_dir`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::file::{DirEntry, Fs, LogFile};

/// Repeatable random numbers (xorshift64*).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// 0 to `n` - 1.
    pub fn below(&mut self, n: u64) -> u64 {
        self.draw() % n.max(1)
    }
}

/// What happens at the call that is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails (a write half done), and so does everything after: the process is dead.
    Crash,
    /// It alone fails.
    Once,
    /// It and every later call that needs space fails; truncating and removing work.
    DiskFull,
}

#[derive(Clone, Default)]
struct Names {
    files: BTreeMap<PathBuf, Arc<Data>>,
    dirs: BTreeSet<PathBuf>,
}

#[derive(Default)]
struct Data(Mutex<Content>);

#[derive(Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
}

struct State {
    names: Names,
    /// Names after each change since the last sync; the first is durable.
    journal: Vec<Names>,
    calls: u64,
    fault: Option<(u64, Fault)>,
    rng: Rng,
}

/// The file system; clones share it.
#[derive(Clone)]
pub struct FaultFs(Arc<Mutex<State>>);

struct OpenFile {
    fs: FaultFs,
    data: Arc<Data>,
}

enum Call {
    Write,
    Sync,
    Shrink,
}

impl FaultFs {
    pub fn new(seed: u64) -> FaultFs {
        FaultFs(Arc::new(Mutex::new(State {
            names: Names::default(),
            journal: vec![Names::default()],
            calls: 0,
            fault: None,
            rng: Rng::new(seed),
        })))
    }

    /// Arms a fault at the `call`th changing call from now on, counted from 0.
    pub fn fail_at(&self, call: u64, fault: Fault) {
        let mut s = self.state();
        let at = s.calls + call;
        s.fault = Some((at, fault));
    }

    pub fn heal(&self) {
        self.state().fault = None;
    }

    /// Changing calls so far.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// True when the armed fault has struck.
    pub fn struck(&self) -> bool {
        let s = self.state();
        s.fault.is_some_and(|(at, _)| s.calls > at)
    }

    /// Loses what was not synced, some of it at random, and heals.
    pub fn power_cut(&self) {
        let mut s = self.state();
        s.fault = None;
        let choices = s.journal.len() as u64;
        let kept = s.rng.below(choices) as usize;
        s.names = s.journal[kept].clone();
        s.journal = vec![s.names.clone()];
        let files: Vec<Arc<Data>> = s.names.files.values().cloned().collect();
        for data in files {
            let mut c = data.0.lock().unwrap();
            c.now = survivors(&c, &mut s.rng);
            c.durable = c.now.clone();
        }
    }

    /// A file's bytes, past all faults.
    pub fn get(&self, path: &Path) -> Option<Vec<u8>> {
        let data = self.state().names.files.get(path).cloned()?;
        let now = data.0.lock().unwrap().now.clone();
        Some(now)
    }

    /// Replaces a file's bytes, past all faults.
    pub fn set(&self, path: &Path, bytes: &[u8]) {
        let mut s = self.state();
        let data = s.names.files.entry(path.to_path_buf()).or_default().clone();
        let mut c = data.0.lock().unwrap();
        c.now = bytes.to_vec();
        c.durable = bytes.to_vec();
    }

    /// A copy that does not share anything.
    pub fn fork(&self) -> FaultFs {
        let s = self.state();
        let copy = |names: &Names| Names {
            files: names
                .files
                .iter()
                .map(|(path, data)| {
                    let c = data.0.lock().unwrap();
                    let content = Content {
                        now: c.now.clone(),
                        durable: c.durable.clone(),
                    };
                    (path.clone(), Arc::new(Data(Mutex::new(content))))
                })
                .collect(),
            dirs: names.dirs.clone(),
        };
        let names = copy(&s.names);
        FaultFs(Arc::new(Mutex::new(State {
            journal: vec![names.clone()],
            names,
            calls: 0,
            fault: None,
            rng: s.rng.clone(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Counts a changing call; an error when it is to fail.
    fn call(&self, kind: Call) -> io::Result<()> {
        let mut s = self.state();
        let now = s.calls;
        s.calls += 1;
        let fails = match s.fault {
            Some((at, Fault::Once)) => now == at,
            Some((at, Fault::Crash)) => now >= at,
            Some((at, Fault::DiskFull)) => now >= at && matches!(kind, Call::Write),
            None => false,
        };
        if fails {
            Err(ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn change<T>(&self, kind: Call, f: impl FnOnce(&mut Names) -> io::Result<T>) -> io::Result<T> {
        self.call(kind)?;
        let mut s = self.state();
        let done = f(&mut s.names)?;
        let names = s.names.clone();
        s.journal.push(names);
        Ok(done)
    }
}

/// What of a file is there after a power cut: what was synced, some prefix of what was not, perhaps
/// with a sector of zeros in it.
fn survivors(c: &Content, rng: &mut Rng) -> Vec<u8> {
    if !c.now.starts_with(&c.durable) {
        let old = rng.below(2) == 0;
        return if old {
            c.durable.clone()
        } else {
            c.now.clone()
        };
    }
    let synced = c.durable.len();
    let keep = synced + rng.below((c.now.len() - synced) as u64 + 1) as usize;
    let mut bytes = c.now[..keep].to_vec();
    if rng.below(3) == 0 && keep > synced {
        let from = (synced + rng.below((keep - synced) as u64) as usize).next_multiple_of(512);
        let to = (from + 512).min(keep);
        bytes[from.min(to)..to].fill(0);
    }
    bytes
}

impl LogFile for OpenFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let c = self.data.0.lock().unwrap();
        let from = (position as usize).min(c.now.len());
        let n = buf.len().min(c.now.len() - from);
        buf[..n].copy_from_slice(&c.now[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let outcome = self.fs.call(Call::Write);
        let mut bytes: Vec<u8> = parts.iter().flat_map(|p| p.iter().copied()).collect();
        if outcome.is_err() {
            let mut s = self.fs.state();
            // The call that fails may get some of its bytes out; a dead process gets none.
            let first = s.fault.is_some_and(|(at, _)| s.calls == at + 1);
            let torn = s.rng.below(bytes.len() as u64 + 1) as usize;
            bytes.truncate(if first { torn } else { 0 });
        }
        let mut c = self.data.0.lock().unwrap();
        let end = position as usize + bytes.len();
        if c.now.len() < end {
            c.now.resize(end, 0);
        }
        c.now[position as usize..end].copy_from_slice(&bytes);
        outcome.map(|()| bytes.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.fs.call(Call::Shrink)?;
        self.data.0.lock().unwrap().now.resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.fs.call(Call::Sync)?;
        let mut c = self.data.0.lock().unwrap();
        c.durable = c.now.clone();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.data.0.lock().unwrap().now.len() as u64)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl Fs for FaultFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let data = self.state().names.files.get(path).cloned();
        let data = data.ok_or(ErrorKind::NotFound)?;
        Ok(Arc::new(OpenFile {
            fs: self.clone(),
            data,
        }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let data = self.change(Call::Write, |names| {
            let dir = path.parent().unwrap();
            if !names.dirs.contains(dir) {
                return Err(ErrorKind::NotFound.into());
            }
            Ok(names.files.entry(path.to_path_buf()).or_default().clone())
        })?;
        data.0.lock().unwrap().now.clear();
        Ok(Arc::new(OpenFile {
            fs: self.clone(),
            data,
        }))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.change(Call::Write, |names| {
            names.dirs.extend(dir.ancestors().map(Path::to_path_buf));
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let s = self.state();
        if !s.names.dirs.contains(dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let inside = |path: &&PathBuf| path.parent() == Some(dir);
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let files = s
            .names
            .files
            .iter()
            .filter(|(path, _)| inside(path))
            .map(|(path, data)| {
                let len = data.0.lock().unwrap().now.len() as u64;
                DirEntry {
                    name: name(path),
                    len,
                    is_dir: false,
                }
            });
        let dirs = s.names.dirs.iter().filter(inside);
        let dirs = dirs.map(|path| DirEntry {
            name: name(path),
            len: 0,
            is_dir: true,
        });
        Ok(files.chain(dirs).collect())
    }

    fn exists(&self, path: &Path) -> bool {
        let s = self.state();
        s.names.files.contains_key(path) || s.names.dirs.contains(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if !self.state().names.files.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        self.change(Call::Shrink, |names| {
            names.files.remove(path);
            Ok(())
        })
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.change(Call::Shrink, |names| {
            names.files.retain(|path, _| !path.starts_with(dir));
            names.dirs.retain(|path| !path.starts_with(dir));
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Call::Shrink, |names| {
            let moved = |path: &Path| match path.strip_prefix(from) {
                Ok(rest) if rest.as_os_str().is_empty() => to.to_path_buf(),
                Ok(rest) => to.join(rest),
                Err(_) => path.to_path_buf(),
            };
            let files = std::mem::take(&mut names.files);
            // The one that is replaced must not win over the one that replaces it.
            let kept = files.into_iter().filter(|(path, _)| path != to);
            names.files = kept.map(|(path, data)| (moved(&path), data)).collect();
            names.dirs = names.dirs.iter().map(|path| moved(path)).collect();
            Ok(())
        })
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.call(Call::Sync)?;
        let mut s = self.state();
        s.journal = vec![s.names.clone()];
        Ok(())
    }

    fn modified_ms(&self, _path: &Path) -> io::Result<i64> {
        Ok(0)
    }
}
