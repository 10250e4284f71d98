//! The disk as programs reach it.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use sheetbend_runtime::{BoxFuture, Files};

use super::Disk;
use crate::host::Host;

/// [`Files`] of one host of a world.
pub(crate) struct SimFiles {
    host: Host,
}

impl SimFiles {
    pub(crate) fn new(host: Host) -> SimFiles {
        SimFiles { host }
    }

    /// Does something once the disk has come to it.
    fn run<T: Send + 'static>(
        &self,
        sync: bool,
        work: impl FnOnce(&mut Disk) -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'static, io::Result<T>> {
        let host = self.host.clone();
        Box::pin(async move {
            let index = host.id.index();
            let took = host.shared.with(|state| {
                let config = &state.hosts[index].disk.config;
                if sync { config.sync_latency } else { config.latency }
            });
            if !took.is_zero() {
                host.sleep(took).await;
            }
            host.shared.with(|state| {
                let own = &mut state.hosts[index];
                if own.incarnation != host.incarnation {
                    return Err(io::Error::new(
                        io::ErrorKind::NotConnected,
                        "its host has crashed",
                    ));
                }
                state.progress += 1;
                work(&mut own.disk)
            })
        })
    }
}

impl Files for SimFiles {
    fn create_dir(&self, path: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        self.run(false, move |disk| disk.create_dir(&path))
    }

    fn create(&self, path: PathBuf, data: Bytes) -> BoxFuture<'static, io::Result<()>> {
        self.run(false, move |disk| disk.create(&path, &data))
    }

    fn append(&self, path: PathBuf, data: Bytes) -> BoxFuture<'static, io::Result<()>> {
        self.run(false, move |disk| disk.append(&path, &data))
    }

    fn read(&self, path: PathBuf, offset: u64, max: usize) -> BoxFuture<'static, io::Result<Bytes>> {
        self.run(false, move |disk| disk.read(&path, offset, max))
    }

    fn sync(&self, path: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        self.run(true, move |disk| disk.sync(&path))
    }

    fn sync_dir(&self, path: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        self.run(true, move |disk| disk.sync_dir(&path))
    }

    fn rename(&self, from: PathBuf, to: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        self.run(false, move |disk| disk.rename(&from, &to, true))
    }

    fn rename_new(&self, from: PathBuf, to: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        self.run(false, move |disk| disk.rename(&from, &to, false))
    }

    fn list(&self, path: PathBuf) -> BoxFuture<'static, io::Result<Vec<String>>> {
        self.run(false, move |disk| disk.list(&path))
    }

    fn remove(&self, path: PathBuf) -> BoxFuture<'static, io::Result<()>> {
        self.run(false, move |disk| disk.remove(&path))
    }
}
