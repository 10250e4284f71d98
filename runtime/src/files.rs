//! The few file operations of a mailbox or a journal.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;

use crate::rt::BoxFuture;

/// Files and directories of a runtime, as far as a mailbox or a journal needs them.
///
/// What was written is certain to outlive a crash only after [`sync`](Files::sync) of the file, and its name only
/// after [`sync_dir`](Files::sync_dir) of the directory: temporary file, sync, rename, sync of the directory.
/// Every operation is whole or fails, unless the machine stops meanwhile. One that is dropped under way may
/// still happen.
pub trait Files: Send + Sync + 'static {
    /// Makes a directory, and those it lies in. One that is there already is fine.
    ///
    /// # Errors
    /// What the filesystem says; so in all others.
    fn create_dir(&self, path: PathBuf) -> BoxFuture<'static, io::Result<()>>;

    /// Makes a file that was not there, with this content.
    ///
    /// # Errors
    /// `AlreadyExists` when something has that name.
    fn create(&self, path: PathBuf, data: Bytes) -> BoxFuture<'static, io::Result<()>>;

    /// Adds to the end of a file, which is made if it was not there.
    ///
    /// # Errors
    /// `StorageFull` when there is no room; a part may have been written.
    fn append(&self, path: PathBuf, data: Bytes) -> BoxFuture<'static, io::Result<()>>;

    /// The content of a file from `offset` on, at most `max` bytes.
    ///
    /// # Errors
    /// `NotFound`.
    fn read(&self, path: PathBuf, offset: u64, max: usize) -> BoxFuture<'static, io::Result<Bytes>>;

    /// Has a file's content outlive a crash.
    ///
    /// # Errors
    /// After one, what was written since the last success may be lost, whatever a later call says.
    fn sync(&self, path: PathBuf) -> BoxFuture<'static, io::Result<()>>;

    /// Has the names in a directory outlive a crash.
    ///
    /// # Errors
    /// As [`Files::sync`].
    fn sync_dir(&self, path: PathBuf) -> BoxFuture<'static, io::Result<()>>;

    /// Gives a file another name, at once: whoever looks sees one or the other. A file that had that name is
    /// replaced. Of two who move one file away, one is told `NotFound`.
    ///
    /// # Errors
    /// `NotFound`.
    fn rename(&self, from: PathBuf, to: PathBuf) -> BoxFuture<'static, io::Result<()>>;

    /// As [`Files::rename`], but replaces nothing: of two who want one name, one is told `AlreadyExists`.
    ///
    /// # Errors
    /// `AlreadyExists` and `NotFound`.
    fn rename_new(&self, from: PathBuf, to: PathBuf) -> BoxFuture<'static, io::Result<()>>;

    /// The names in a directory, sorted; those that are not text are left out.
    ///
    /// # Errors
    /// `NotFound`.
    fn list(&self, path: PathBuf) -> BoxFuture<'static, io::Result<Vec<String>>>;

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound`.
    fn remove(&self, path: PathBuf) -> BoxFuture<'static, io::Result<()>>;
}

/// The files of a runtime that has none: everything is `Unsupported`.
pub(crate) struct NoFiles;

fn unsupported<T: Send + 'static>() -> BoxFuture<'static, io::Result<T>> {
    Box::pin(std::future::ready(Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this runtime has no files",
    ))))
}

impl Files for NoFiles {
    fn create_dir(&self, _: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        unsupported()
    }

    fn create(&self, _: PathBuf, _: Bytes) -> BoxFuture<'static, io::Result<()>> {
        unsupported()
    }

    fn append(&self, _: PathBuf, _: Bytes) -> BoxFuture<'static, io::Result<()>> {
        unsupported()
    }

    fn read(&self, _: PathBuf, _: u64, _: usize) -> BoxFuture<'static, io::Result<Bytes>> {
        unsupported()
    }

    fn sync(&self, _: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        unsupported()
    }

    fn sync_dir(&self, _: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        unsupported()
    }

    fn rename(&self, _: PathBuf, _: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        unsupported()
    }

    fn rename_new(&self, _: PathBuf, _: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        unsupported()
    }

    fn list(&self, _: PathBuf) -> BoxFuture<'static, io::Result<Vec<String>>> {
        unsupported()
    }

    fn remove(&self, _: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        unsupported()
    }
}
