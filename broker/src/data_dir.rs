//! The data directory: made when missing, held by one broker at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// Kafka's name for it, so that neither starts on a directory the other holds.
const LOCK_FILE: &str = ".lock";

/// Why the data directory cannot be used, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error(
        "the data directory {0} is in use by another broker: stop that one, or choose another directory with --data-dir"
    )]
    InUse(PathBuf),
    #[error(
        "the data directory {path} cannot be used: {source}; make it writable for this user, or choose another with --data-dir"
    )]
    Io { path: PathBuf, source: io::Error },
}

/// A held data directory; given back when dropped.
#[derive(Debug)]
pub struct DataDir {
    // Both locks end with the file: flock keeps brokers of one process apart, the POSIX lock is
    // the one Java's FileChannel.tryLock takes.
    _lock: File,
}

impl DataDir {
    /// Takes the directory, or says who has it.
    pub fn hold(dir: &Path) -> Result<DataDir, DataDirError> {
        let fail = |source| DataDirError::Io {
            path: dir.to_owned(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(fail)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(dir.join(LOCK_FILE))
            .map_err(fail)?;
        for take in [flock, posix_lock] {
            match take(&file) {
                Ok(()) => {}
                Err(e) if is_held(&e) => return Err(DataDirError::InUse(dir.to_owned())),
                Err(e) => return Err(fail(e)),
            }
        }
        Ok(DataDir { _lock: file })
    }
}

fn flock(file: &File) -> io::Result<()> {
    Ok(rustix::fs::flock(
        file,
        FlockOperation::NonBlockingLockExclusive,
    )?)
}

fn posix_lock(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fcntl_lock(
        file,
        FlockOperation::NonBlockingLockExclusive,
    )?)
}

fn is_held(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::hold(dir.path()).unwrap();
        assert!(matches!(
            DataDir::hold(dir.path()),
            Err(DataDirError::InUse(_))
        ));
        drop(held);
        DataDir::hold(dir.path()).unwrap();
    }
}
