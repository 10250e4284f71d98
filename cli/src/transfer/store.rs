//! The folder that received files go to, and who may write what into it.

use super::TransferId;
use super::hashed::Hashed;
use super::name::FileName;
use super::wire::{Reason, Refusal};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{OwnedMutexGuard, watch};

/// How many unfinished transfers' hashes are remembered.
const MAX_REMEMBERED: usize = 64;

/// What a store takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest file, in bytes.
    pub max_file_bytes: u64,
    /// The most that the folder may hold, in bytes, with what is still to come of the transfers under way.
    pub max_store_bytes: u64,
    /// Transfers at once.
    pub max_active: usize,
    /// Unfinished transfers that are kept to be taken up again.
    pub max_partials: usize,
    /// Unfinished transfers that nobody has touched for so long are removed when another one begins.
    pub partial_age: Duration,
    /// A stream on which nothing comes for so long is given up; what came is kept.
    pub idle: Duration,
    /// Whether a file may take the place of another one of its name.
    pub replace: bool,
}

impl Default for Limits {
    /// 1 TiB for a file, 16 TiB in all, 64 transfers at once, 1,024 unfinished ones kept for a week, ten
    /// minutes of silence.
    fn default() -> Self {
        Limits {
            max_file_bytes: 1 << 40,
            max_store_bytes: 1 << 44,
            max_active: 64,
            max_partials: 1024,
            partial_age: Duration::from_secs(7 * 24 * 3600),
            idle: Duration::from_secs(600),
            replace: true,
        }
    }
}

/// A folder for received files. Everything is done relative to the folder that was opened, by plain names,
/// and no link is followed, so that nothing outside is ever touched.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: OwnedFd,
    limits: Limits,
    /// The transfers under way, by the names of their partial files.
    active: Mutex<BTreeMap<String, Arc<Slot>>>,
    /// The hashes of unfinished transfers, by the names of their partial files. Without them, a transfer
    /// that breaks again and again would be read from its beginning each time.
    remembered: Mutex<BTreeMap<String, Remembered>>,
    /// Held while room is counted and reserved.
    counting: Mutex<()>,
}

/// A hash of a partial file, and the state of the file that it is good for.
#[derive(Debug)]
struct Remembered {
    hashed: Hashed,
    state: FileState,
}

/// Size and time of the last change.
#[derive(Debug, PartialEq, Eq)]
struct FileState(i64, i64, i64);

#[derive(Debug)]
struct Slot {
    /// The number of the newest stream of this transfer; the others give way to it.
    newest: watch::Sender<u64>,
    /// Held by the stream that uses the partial file.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Bytes that are still to come.
    reserved: AtomicU64,
}

/// The sole right to a transfer's partial file.
#[derive(Debug)]
pub(super) struct Claim {
    store: Store,
    /// The name of the partial file.
    pub(super) partial: String,
    slot: Arc<Slot>,
    number: u64,
    turn: Option<OwnedMutexGuard<()>>,
}

/// What is in the folder.
#[derive(Debug, Default)]
struct Contents {
    bytes: u64,
    partials: usize,
}

impl Store {
    /// Opens the folder, and makes it if it is missing. Blocks for a moment.
    ///
    /// # Errors
    /// Those of making or opening the folder.
    pub fn open(path: &Path, limits: Limits) -> io::Result<Store> {
        std::fs::create_dir_all(path)?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let folder = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Store(Arc::new(Inner {
            folder,
            limits,
            active: Mutex::default(),
            remembered: Mutex::default(),
            counting: Mutex::default(),
        })))
    }

    /// The limits it was opened with.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(super) fn folder(&self) -> &OwnedFd {
        &self.0.folder
    }

    fn active(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Slot>>> {
        self.0.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self) -> MutexGuard<'_, BTreeMap<String, Remembered>> {
        self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the sole right to a transfer, which an older stream of the same transfer gives up.
    pub(super) async fn claim(&self, name: &FileName, id: TransferId) -> Result<Claim, Refusal> {
        let partial = partial_name(name, id);
        let mut claim = {
            let mut active = self.active();
            if active.len() >= self.0.limits.max_active && !active.contains_key(&partial) {
                return Err(refusal(
                    Reason::Busy,
                    "too many transfers are under way; try again later",
                ));
            }
            let slot = active
                .entry(partial.clone())
                .or_insert_with(|| Arc::new(Slot::new()))
                .clone();
            let mut number = 0;
            slot.newest.send_modify(|newest| {
                *newest += 1;
                number = *newest;
            });
            Claim {
                store: self.clone(),
                partial,
                slot,
                number,
                turn: None,
            }
        };
        let turn = claim.slot.turn.clone();
        let mut superseded = claim.superseded();
        let turn = tokio::select! {
            biased;
            () = superseded.wait() => return Err(superseded_refusal()),
            turn = turn.lock_owned() => turn,
        };
        claim.turn = Some(turn);
        Ok(claim)
    }

    /// Reserves room for `more` bytes on top of what the folder holds and expects.
    pub(super) fn reserve(
        &self,
        claim: &Claim,
        more: u64,
        new_partial: bool,
    ) -> io::Result<Result<(), Refusal>> {
        let limits = &self.0.limits;
        let _counting = self.0.counting.lock().unwrap_or_else(PoisonError::into_inner);
        let contents = self.contents()?;
        if new_partial && contents.partials >= limits.max_partials {
            return Ok(Err(refusal(
                Reason::StoreFull,
                "too many unfinished transfers are kept",
            )));
        }
        let expected: u64 = self
            .active()
            .values()
            .map(|slot| slot.reserved.load(Ordering::Relaxed))
            .sum();
        let total = contents.bytes.saturating_add(expected).saturating_add(more);
        if total > limits.max_store_bytes {
            return Ok(Err(refusal(Reason::StoreFull, "the store is full")));
        }
        claim.slot.reserved.store(more, Ordering::Relaxed);
        Ok(Ok(()))
    }

    /// Counts what the folder holds, and removes unfinished transfers that nobody has touched for too long.
    fn contents(&self) -> io::Result<Contents> {
        let mut contents = Contents::default();
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        for entry in Dir::read_from(&self.0.folder)? {
            let entry = entry?;
            let Ok(stat) = rustix::fs::statat(&self.0.folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
            else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                continue;
            }
            let partial = entry.file_name().to_str().is_ok_and(is_partial_name);
            let age = now.saturating_sub(u64::try_from(stat.st_mtime).unwrap_or(0));
            if partial && age > self.0.limits.partial_age.as_secs() {
                let name = entry.file_name().to_string_lossy().into_owned();
                // Held meanwhile, so that no transfer begins on it.
                let active = self.active();
                if !active.contains_key(&name)
                    && rustix::fs::unlinkat(&self.0.folder, entry.file_name(), AtFlags::empty()).is_ok()
                {
                    continue;
                }
            }
            contents.bytes = contents
                .bytes
                .saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
            contents.partials += usize::from(partial);
        }
        Ok(contents)
    }
}

impl FileState {
    fn of(file: &File) -> io::Result<FileState> {
        let metadata = file.metadata()?;
        Ok(FileState(
            metadata.size() as i64,
            metadata.mtime(),
            metadata.mtime_nsec(),
        ))
    }
}

impl Slot {
    fn new() -> Self {
        Slot {
            newest: watch::Sender::new(0),
            turn: Arc::new(tokio::sync::Mutex::new(())),
            reserved: AtomicU64::new(0),
        }
    }
}

impl Claim {
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Tells when another stream of this transfer has come.
    pub(super) fn superseded(&self) -> Superseded {
        Superseded {
            newest: self.slot.newest.subscribe(),
            number: self.number,
        }
    }

    /// The hash that goes with the partial file as it is, if one is remembered.
    pub(super) fn remembered(&self, file: &File) -> io::Result<Hashed> {
        let remembered = self.store.remembered().remove(&self.partial);
        let state = FileState::of(file)?;
        Ok(remembered
            .filter(|known| known.state == state)
            .map(|known| known.hashed)
            .unwrap_or_default())
    }

    /// Remembers the hash for the next stream of this transfer.
    pub(super) fn remember(&self, file: &File, hashed: Hashed) -> io::Result<()> {
        let state = FileState::of(file)?;
        let mut all = self.store.remembered();
        if all.len() >= MAX_REMEMBERED {
            all.pop_first();
        }
        all.insert(self.partial.clone(), Remembered { hashed, state });
        Ok(())
    }

    /// So many of the expected bytes have come.
    pub(super) fn arrived(&self, bytes: u64) {
        let less = |reserved: u64| Some(reserved.saturating_sub(bytes));
        let _ = self
            .slot
            .reserved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut active = self.store.active();
        if self.turn.is_some() {
            self.slot.reserved.store(0, Ordering::Relaxed);
        }
        // One in the map and one here: nobody waits for it.
        if Arc::strong_count(&self.slot) == 2 {
            active.remove(&self.partial);
        }
    }
}

/// Tells when a claim is to be given up.
#[derive(Debug)]
pub(super) struct Superseded {
    newest: watch::Receiver<u64>,
    number: u64,
}

impl Superseded {
    pub(super) async fn wait(&mut self) {
        let number = self.number;
        if self.newest.wait_for(|newest| *newest != number).await.is_err() {
            // The claim is gone, and with it the reason to give it up.
            std::future::pending::<()>().await;
        }
    }
}

pub(super) fn refusal(reason: Reason, message: &str) -> Refusal {
    Refusal {
        reason,
        message: message.to_owned(),
    }
}

pub(super) fn superseded_refusal() -> Refusal {
    refusal(
        Reason::Superseded,
        "the same transfer has come again on another stream",
    )
}

fn partial_name(name: &FileName, id: TransferId) -> String {
    format!(".{name}.{id}.part")
}

fn is_partial_name(name: &str) -> bool {
    let inner = name.strip_prefix('.').and_then(|rest| rest.strip_suffix(".part"));
    inner
        .and_then(|inner| inner.rsplit_once('.'))
        .is_some_and(|(name, id)| {
            !name.is_empty() && id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
}
