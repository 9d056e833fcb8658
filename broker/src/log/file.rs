//! The I/O seam: the few file operations a log needs, over the real file system or, in tests,
//! over one that fails, tears writes and loses what was not synced. Knows `std` and `rustix`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// An open file. Positions are explicit, so readers and the writer share one descriptor.
pub trait LogFile: Send + Sync {
    /// Like `pread`: may return less than asked for; 0 at the end.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;
    /// Like `pwritev`: may write less than given.
    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize>;
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// `fdatasync`.
    fn sync(&self) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    /// For `sendfile`; `None` where there is no kernel file behind it.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;

    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` or fails with `UnexpectedEof`.
    fn read_exact_at(&self, mut buf: &mut [u8], mut position: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read_at(buf, position) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    buf = buf.get_mut(n..).unwrap_or_default();
                    position += n as u64;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes all of `head` and then `rest`, with one call unless the kernel stops short.
    fn write_all_at(&self, head: &[u8], rest: &[u8], position: u64) -> io::Result<()> {
        let total = head.len() + rest.len();
        let mut done = 0;
        while done < total {
            let tail = rest
                .get(done.saturating_sub(head.len())..)
                .unwrap_or_default();
            let front = head.get(done..).unwrap_or_default();
            let parts = [IoSlice::new(front), IoSlice::new(tail)];
            let parts = if front.is_empty() {
                &parts[1..]
            } else {
                &parts[..]
            };
            match self.write_at(parts, position + done as u64) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// One file of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    pub name: String,
    pub len: u64,
    pub is_dir: bool,
}

/// The file system.
pub trait Fs: Send + Sync {
    /// Opens for reading and writing; fails with `NotFound` when missing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>>;
    /// Opens for reading and writing, empty: created, or truncated when it was there.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>>;
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Files and directories in `dir`, in no order. Names that are not UTF-8 are left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    fn exists(&self, path: &Path) -> bool;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Last modification in ms since the epoch.
    fn modified_ms(&self, path: &Path) -> io::Result<i64>;

    /// The whole file; fails with `InvalidData` when it holds more than `max` bytes.
    fn read(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path)?;
        let len = file.len()?;
        if len > max {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("{} holds {len} bytes, more than {max}", path.display()),
            ));
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Replaces the file in one step (write beside it, rename). `durable` also syncs the content
    /// before and the directory after, so that a power cut leaves the old or the new one.
    fn write_atomic(&self, path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".tmp");
        let beside = Path::new(&beside);
        let file = self.create(beside)?;
        file.write_all_at(bytes, &[], 0)?;
        if durable {
            file.sync()?;
        }
        drop(file);
        self.rename(beside, path)?;
        match (durable, path.parent()) {
            (true, Some(dir)) => self.sync_dir(dir),
            _ => Ok(()),
        }
    }
}

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

impl LogFile for File {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        FileExt::read_at(self, buf, position)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(self, parts, position)?)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(AsFd::as_fd(self))
    }
}

impl Fs for RealFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(
            OpenOptions::new().read(true).write(true).open(path)?,
        ))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let mut how = OpenOptions::new();
        how.read(true).write(true).create(true).truncate(true);
        Ok(Arc::new(how.open(path)?))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            entries.push(DirEntry {
                name,
                len: meta.len(),
                is_dir: meta.is_dir(),
            });
        }
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn modified_ms(&self, path: &Path) -> io::Result<i64> {
        let time = fs::metadata(path)?.modified()?;
        let ms = time
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        Ok(i64::try_from(ms).unwrap_or(i64::MAX))
    }
}
