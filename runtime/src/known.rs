//! What the sessions of a client remember of its endpoints in common, and the file that it outlives them in.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use sheetbend_core::client::connector::Connector;
use sheetbend_core::policy::memory::{MAX_TEXT, Memory, Recollection};
use sheetbend_core::time::Timestamp;

use crate::rt::Runtime;
use crate::shared::{Shared, State};

#[derive(Default)]
struct Inner {
    memory: Memory,
    network: String,
    /// Counts changes of the network.
    changes: u64,
    loaded: bool,
    /// Something is not in the file yet.
    dirty: bool,
    /// A task is writing the file.
    saving: bool,
    sessions: Vec<Weak<Shared>>,
}

/// The memory of a client.
pub(crate) struct Known {
    inner: Mutex<Inner>,
    file: Option<PathBuf>,
}

impl Known {
    pub(crate) fn new(file: Option<PathBuf>) -> Known {
        Known {
            inner: Mutex::default(),
            file,
        }
    }

    /// A session that is to hear of changes of the network.
    pub(crate) fn enlist(&self, session: &Arc<Shared>) {
        let mut inner = self.inner.lock();
        if inner.sessions.len() == inner.sessions.capacity() {
            inner.sessions.retain(|known| known.strong_count() > 0);
        }
        inner.sessions.push(Arc::downgrade(session));
    }

    /// The machine is on this network from here on.
    pub(crate) fn network_changed(&self, network: &str) {
        let sessions = {
            let mut inner = self.inner.lock();
            network.clone_into(&mut inner.network);
            inner.changes += 1;
            inner.sessions.clone()
        };
        for session in sessions.iter().filter_map(Weak::upgrade) {
            // The guard, taken mutably and dropped, wakes the driver.
            let mut guard = session.lock();
            let _: &mut State = &mut guard;
        }
    }

    /// How often the network has changed.
    pub(crate) fn changes(&self) -> u64 {
        self.inner.lock().changes
    }

    /// Tells a connector what is known of its endpoints on this network.
    pub(crate) fn recall<'a>(
        &self,
        runtime: &dyn Runtime,
        now: Timestamp,
        connector: &mut Connector,
        names: impl Iterator<Item = &'a str>,
    ) {
        let inner = self.inner.lock();
        let unix = runtime.unix_time();
        for (index, name) in names.enumerate() {
            let Recollection { brokenness, won } = inner.memory.recall(unix, &inner.network, name);
            let brokenness = brokenness.convert(|until| Some(now + until.checked_sub(unix)?));
            connector.recall(index, brokenness, won);
        }
    }

    /// Whether an endpoint is broken has changed.
    pub(crate) fn note(
        &self,
        runtime: &Arc<dyn Runtime>,
        now: Timestamp,
        connector: &Connector,
        index: usize,
        name: &str,
    ) {
        let unix = runtime.unix_time();
        let brokenness = connector.brokenness(index);
        let brokenness = brokenness.convert(|until| Some(unix + until.since(now)));
        self.change(|inner| inner.memory.note(&inner.network, name, brokenness));
    }

    /// An endpoint has a path.
    pub(crate) fn won(&self, runtime: &Arc<dyn Runtime>, name: &str) {
        let unix = runtime.unix_time();
        self.change(|inner| inner.memory.won(unix, &inner.network, name));
    }

    fn change(&self, what: impl FnOnce(&mut Inner)) {
        let mut inner = self.inner.lock();
        what(&mut inner);
        inner.dirty = true;
    }

    /// Reads the file, once. What cannot be read is as good as nothing: it is only experience.
    pub(crate) async fn load(&self, runtime: &dyn Runtime) {
        let Some(file) = &self.file else { return };
        if std::mem::replace(&mut self.inner.lock().loaded, true) {
            return;
        }
        let read = runtime.files().read(file.clone(), 0, MAX_TEXT + 1).await;
        let text = read.ok().and_then(|data| String::from_utf8(data.to_vec()).ok());
        let memory = text.and_then(|text| Memory::from_text(runtime.unix_time(), &text).ok());
        if let Some(memory) = memory {
            self.inner.lock().memory = memory;
        }
    }

    /// Sees to it that what has changed is written.
    pub(crate) fn save(self: &Arc<Self>, runtime: &Arc<dyn Runtime>) {
        let Some(file) = self.file.clone() else { return };
        {
            let mut inner = self.inner.lock();
            if !inner.dirty || inner.saving {
                return;
            }
            inner.saving = true;
        }
        let (known, runtime_of_task) = (self.clone(), runtime.clone());
        runtime.spawn(Box::pin(async move {
            loop {
                let text = {
                    let mut inner = known.inner.lock();
                    if !std::mem::take(&mut inner.dirty) {
                        inner.saving = false;
                        return;
                    }
                    inner.memory.to_text()
                };
                let _ = write(&*runtime_of_task, file.clone(), text.into()).await;
                let later = runtime_of_task.now() + SAVE_EVERY;
                let mut timer = runtime_of_task.timer(later);
                std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
            }
        }));
    }
}

/// The file is written no more often than this.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Whoever reads the file sees the old text or the new one.
async fn write(runtime: &dyn Runtime, file: PathBuf, text: Bytes) -> std::io::Result<()> {
    let files = runtime.files();
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = file.with_file_name(name);
    let _ = files.remove(new.clone()).await;
    files.create(new.clone(), text).await?;
    files.sync(new.clone()).await?;
    let folder = match file.parent() {
        Some(folder) if folder.as_os_str().is_empty() => PathBuf::from("."),
        Some(folder) => folder.to_owned(),
        None => PathBuf::from("/"),
    };
    files.rename(new, file).await?;
    files.sync_dir(folder).await
}
