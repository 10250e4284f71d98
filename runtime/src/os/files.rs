//! Files of the operating system, on threads that may block.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::files::Files;
use crate::rt::BoxFuture;

/// The threads of a runtime that may block.
pub trait Threads: Send + Sync + 'static {
    /// Does some work on one of them.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'static, io::Result<T>>;
}

/// [`Files`] by `std::fs`.
#[derive(Clone, Debug)]
pub struct StdFiles<T>(T);

impl<T: Threads> StdFiles<T> {
    /// Files that are read and written on these threads.
    pub fn new(threads: T) -> StdFiles<T> {
        StdFiles(threads)
    }
}

/// Directories cannot be synced everywhere: where they cannot, names are as safe as the system makes them.
fn sync_dir(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(path)?.sync_all()
    } else {
        fs::metadata(path).map(|_| ())
    }
}

fn read(path: &Path, offset: u64, max: usize) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut data = Vec::new();
    file.take(max as u64).read_to_end(&mut data)?;
    Ok(data.into())
}

fn list(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

impl<P: Threads> Files for StdFiles<P> {
    fn create_dir(&self, path: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        self.0.run(move || fs::create_dir_all(path))
    }

    fn create(&self, path: PathBuf, data: Bytes) -> BoxFuture<'static, io::Result<()>> {
        // `create_new` is O_EXCL.
        self.0.run(move || {
            let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
            file.write_all(&data)
        })
    }

    fn append(&self, path: PathBuf, data: Bytes) -> BoxFuture<'static, io::Result<()>> {
        self.0.run(move || {
            let mut file = OpenOptions::new().append(true).create(true).open(path)?;
            file.write_all(&data)
        })
    }

    fn read(&self, path: PathBuf, offset: u64, max: usize) -> BoxFuture<'static, io::Result<Bytes>> {
        self.0.run(move || read(&path, offset, max))
    }

    fn sync(&self, path: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        // Some systems sync only what is open for writing.
        self.0
            .run(move || OpenOptions::new().append(true).open(path)?.sync_all())
    }

    fn sync_dir(&self, path: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        self.0.run(move || sync_dir(&path))
    }

    fn rename(&self, from: PathBuf, to: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        self.0.run(move || fs::rename(from, to))
    }

    fn rename_new(&self, from: PathBuf, to: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        // A second name is refused where a file has it; then the first may go.
        self.0.run(move || {
            fs::hard_link(&from, to)?;
            fs::remove_file(from)
        })
    }

    fn list(&self, path: PathBuf) -> BoxFuture<'static, io::Result<Vec<String>>> {
        self.0.run(move || list(&path))
    }

    fn remove(&self, path: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        self.0.run(move || fs::remove_file(path))
    }
}
