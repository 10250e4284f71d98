//! Files of the operating system, on tokio's threads for what blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sheetbend_runtime::{BoxFuture, Files};
use tokio::runtime::Handle;

/// [`Files`] by `std::fs`.
pub(crate) struct StdFiles {
    handle: Handle,
}

impl StdFiles {
    pub(crate) fn new(handle: Handle) -> StdFiles {
        StdFiles { handle }
    }

    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'static, io::Result<T>> {
        let task = self.handle.spawn_blocking(work);
        Box::pin(async move { task.await.unwrap_or_else(|error| Err(io::Error::other(error))) })
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

impl Files for StdFiles {
    fn create_dir(&self, path: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        self.run(move || fs::create_dir_all(path))
    }

    fn create(&self, path: PathBuf, data: Bytes) -> BoxFuture<'static, io::Result<()>> {
        // `create_new` is O_EXCL.
        self.run(move || {
            let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
            file.write_all(&data)
        })
    }

    fn append(&self, path: PathBuf, data: Bytes) -> BoxFuture<'static, io::Result<()>> {
        self.run(move || {
            let mut file = OpenOptions::new().append(true).create(true).open(path)?;
            file.write_all(&data)
        })
    }

    fn read(&self, path: PathBuf, offset: u64, max: usize) -> BoxFuture<'static, io::Result<Bytes>> {
        self.run(move || read(&path, offset, max))
    }

    fn sync(&self, path: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        // Some systems sync only what is open for writing.
        self.run(move || OpenOptions::new().append(true).open(path)?.sync_all())
    }

    fn sync_dir(&self, path: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        self.run(move || sync_dir(&path))
    }

    fn rename(&self, from: PathBuf, to: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        self.run(move || fs::rename(from, to))
    }

    fn rename_new(&self, from: PathBuf, to: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        // A second name is refused where a file has it; then the first may go.
        self.run(move || {
            fs::hard_link(&from, to)?;
            fs::remove_file(from)
        })
    }

    fn list(&self, path: PathBuf) -> BoxFuture<'static, io::Result<Vec<String>>> {
        self.run(move || list(&path))
    }

    fn remove(&self, path: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        self.run(move || fs::remove_file(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_written_published_and_read_back() {
        let files = StdFiles::new(Handle::current());
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("box");
        let (temp, last) = (dir.join("a.tmp"), dir.join("a"));
        files.create_dir(dir.join("deeper")).await.unwrap();
        files
            .create(temp.clone(), Bytes::from_static(b"one"))
            .await
            .unwrap();
        let again = files.create(temp.clone(), Bytes::new()).await.unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        files
            .append(temp.clone(), Bytes::from_static(b" two"))
            .await
            .unwrap();
        files.sync(temp.clone()).await.unwrap();
        files.rename_new(temp.clone(), last.clone()).await.unwrap();
        files.sync_dir(dir.clone()).await.unwrap();
        assert_eq!(files.list(dir.clone()).await.unwrap(), ["a", "deeper"]);
        assert_eq!(files.read(last.clone(), 4, 2).await.unwrap(), "tw");

        files
            .create(temp.clone(), Bytes::from_static(b"x"))
            .await
            .unwrap();
        let taken = files.rename_new(temp.clone(), last.clone()).await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        files.rename(temp.clone(), last.clone()).await.unwrap();
        assert_eq!(files.read(last.clone(), 0, 9).await.unwrap(), "x");
        files.remove(last.clone()).await.unwrap();
        let gone = files.read(last, 0, 9).await.unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }
}
