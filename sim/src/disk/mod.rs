//! A host's disk: what programs see of it, and what is left of that after a crash.
//!
//! Programs reach it by [`Files`](sheetbend_runtime::Files): `host.runtime().files()`. What they write lies in a
//! cache until it is synced; a crash leaves of the rest nothing, all, a beginning, or some of its sectors, and of
//! names that were not synced the first few, or any.

mod files;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sheetbend_core::rng::Rng;

pub(crate) use files::SimFiles;

/// What a disk writes whole, or not at all.
const SECTOR: usize = 512;

/// How a disk behaves. The default is sound, without bound, and as quick as a solid-state one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskConfig {
    /// How long an operation takes, other than a sync.
    pub latency: Duration,
    /// How long a sync takes.
    pub sync_latency: Duration,
    /// Chance that a sync, of a file or a directory, says that all is well and does nothing.
    pub lost_syncs: f64,
    /// Chance that an operation fails. A sync that fails forgets what it was to keep.
    pub errors: f64,
    /// Bytes that all files together may have; 0 is without bound.
    pub quota: u64,
}

impl Default for DiskConfig {
    fn default() -> DiskConfig {
        DiskConfig {
            latency: Duration::from_micros(20),
            sync_latency: Duration::from_micros(500),
            lost_syncs: 0.0,
            errors: 0.0,
            quota: 0,
        }
    }
}

/// What a disk has been through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DiskStats {
    /// Syncs that did what they said.
    pub syncs: u64,
    /// Syncs that did nothing.
    pub lost_syncs: u64,
    /// Operations that failed by chance.
    pub errors: u64,
    /// Writes for which there was no room.
    pub refused: u64,
    /// Files of which a crash took something that was written and not synced.
    pub torn: u64,
    /// Names that a crash took back: made, changed or removed and not synced.
    pub undone: u64,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Dir,
    File(u64),
}

/// A change of names that happens whole or not at all.
#[derive(Clone, Debug)]
struct Change {
    remove: Option<PathBuf>,
    add: Option<(PathBuf, Entry)>,
}

impl Change {
    fn touches(&self, dir: &Path) -> bool {
        let added = self.add.as_ref().map(|(path, _)| path);
        let mut paths = self.remove.iter().chain(added);
        paths.any(|path| path.parent() == Some(dir))
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Entry>) {
        if let Some(path) = &self.remove {
            names.remove(path);
        }
        if let Some((path, entry)) = &self.add {
            names.insert(path.clone(), *entry);
        }
    }
}

#[derive(Default)]
struct Content {
    /// What programs see.
    data: Vec<u8>,
    /// What is on the disk.
    kept: Vec<u8>,
    /// What was written and not synced: ranges of `data`, in the order of writing.
    dirty: Vec<(usize, usize)>,
}

fn put(target: &mut Vec<u8>, at: usize, data: &[u8]) {
    if target.len() < at + data.len() {
        target.resize(at + data.len(), 0);
    }
    target[at..at + data.len()].copy_from_slice(data);
}

impl Content {
    fn sync(&mut self) {
        for (at, len) in std::mem::take(&mut self.dirty) {
            put(&mut self.kept, at, &self.data[at..at + len]);
        }
    }

    /// What was not synced is gone, in part or whole; tells whether anything is.
    fn crash(&mut self, rng: &mut Rng) -> bool {
        let dirty = std::mem::take(&mut self.dirty);
        if !dirty.is_empty() {
            match rng.below(4) {
                0 => {}
                1 => self.keep_beginning(&dirty, rng),
                2 => self.keep_sectors(&dirty, rng),
                _ => {
                    self.dirty = dirty;
                    self.sync();
                }
            }
        }
        let lost = self.kept != self.data;
        self.data.clone_from(&self.kept);
        lost
    }

    fn keep_beginning(&mut self, dirty: &[(usize, usize)], rng: &mut Rng) {
        let all: usize = dirty.iter().map(|(_, len)| len).sum();
        let mut left = rng.below(all as u64 + 1) as usize;
        for &(at, len) in dirty {
            let len = len.min(left);
            left -= len;
            put(&mut self.kept, at, &self.data[at..at + len]);
        }
    }

    /// Some sectors of what was written; the others are as they were, or zeros.
    fn keep_sectors(&mut self, dirty: &[(usize, usize)], rng: &mut Rng) {
        for &(at, len) in dirty {
            let mut from = at;
            while from < at + len {
                let to = ((from / SECTOR + 1) * SECTOR).min(at + len);
                if rng.below(2) == 0 {
                    put(&mut self.kept, from, &self.data[from..to]);
                }
                from = to;
            }
        }
        // The length is written apart from the content.
        if self.kept.len() < self.data.len() && rng.below(2) == 0 {
            self.kept.resize(self.data.len(), 0);
        }
    }
}

/// The disk of one host. Pure: randomness is given with its making, time is its user's affair.
pub(crate) struct Disk {
    pub(crate) config: DiskConfig,
    pub(crate) stats: DiskStats,
    rng: Rng,
    names: BTreeMap<PathBuf, Entry>,
    kept: BTreeMap<PathBuf, Entry>,
    pending: Vec<Change>,
    contents: BTreeMap<u64, Content>,
    next: u64,
}

/// The path without anything but names: every path is counted from the root.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                plain.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    plain
}

fn error<T>(kind: io::ErrorKind, path: &Path) -> io::Result<T> {
    Err(io::Error::new(kind, format!("{}: {kind}", path.display())))
}

impl Disk {
    pub(crate) fn new(rng: Rng) -> Disk {
        Disk {
            config: DiskConfig::default(),
            stats: DiskStats::default(),
            rng,
            names: BTreeMap::new(),
            kept: BTreeMap::new(),
            pending: Vec::new(),
            contents: BTreeMap::new(),
            next: 0,
        }
    }

    fn chance(&mut self, of: f64) -> bool {
        of > 0.0 && self.rng.unit() < of
    }

    fn may_fail(&mut self, path: &Path) -> io::Result<()> {
        if self.chance(self.config.errors) {
            self.stats.errors += 1;
            return Err(io::Error::other(format!(
                "{}: input/output error",
                path.display()
            )));
        }
        Ok(())
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Entry::File(number)) => Ok(*number),
            Some(Entry::Dir) => error(io::ErrorKind::IsADirectory, path),
            None => error(io::ErrorKind::NotFound, path),
        }
    }

    fn dir(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            Some(Entry::Dir) => Ok(()),
            None if path.as_os_str().is_empty() => Ok(()),
            Some(Entry::File(_)) => error(io::ErrorKind::NotADirectory, path),
            None => error(io::ErrorKind::NotFound, path),
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    // ---- what programs do ----

    pub(crate) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let path = plain(path);
        self.may_fail(&path)?;
        let mut all: Vec<&Path> = path.ancestors().collect();
        all.pop();
        for dir in all.into_iter().rev() {
            match self.dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.change(Change {
                    remove: None,
                    add: Some((dir.to_owned(), Entry::Dir)),
                }),
                other => other?,
            }
        }
        Ok(())
    }

    pub(crate) fn create(&mut self, path: &Path, data: &[u8]) -> io::Result<()> {
        let path = plain(path);
        self.may_fail(&path)?;
        if self.names.contains_key(&path) {
            return error(io::ErrorKind::AlreadyExists, &path);
        }
        self.make(&path)?;
        self.write(&path, data)
    }

    fn make(&mut self, path: &Path) -> io::Result<()> {
        self.dir(path.parent().unwrap_or(Path::new("")))?;
        self.next += 1;
        self.contents.insert(self.next, Content::default());
        let add = Some((path.to_owned(), Entry::File(self.next)));
        self.change(Change { remove: None, add });
        Ok(())
    }

    fn used(&self) -> u64 {
        let files = self.names.values().filter_map(|entry| match entry {
            Entry::File(number) => self.contents.get(number),
            Entry::Dir => None,
        });
        files.map(|content| content.data.len() as u64).sum()
    }

    /// Adds to the end of a file, as much as there is room for.
    fn write(&mut self, path: &Path, data: &[u8]) -> io::Result<()> {
        let number = self.file(path)?;
        let mut room = usize::MAX;
        if self.config.quota > 0 {
            room = usize::try_from(self.config.quota.saturating_sub(self.used())).unwrap_or(usize::MAX);
        }
        let part = &data[..data.len().min(room)];
        if let Some(content) = self.contents.get_mut(&number)
            && !part.is_empty()
        {
            content.dirty.push((content.data.len(), part.len()));
            content.data.extend_from_slice(part);
        }
        if part.len() < data.len() {
            self.stats.refused += 1;
            return error(io::ErrorKind::StorageFull, path);
        }
        Ok(())
    }

    pub(crate) fn append(&mut self, path: &Path, data: &[u8]) -> io::Result<()> {
        let path = plain(path);
        self.may_fail(&path)?;
        if !self.names.contains_key(&path) {
            self.make(&path)?;
        }
        self.write(&path, data)
    }

    pub(crate) fn read(&mut self, path: &Path, offset: u64, max: usize) -> io::Result<Bytes> {
        let path = plain(path);
        self.may_fail(&path)?;
        let data = &self.contents[&self.file(&path)?].data;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        let to = from.saturating_add(max).min(data.len());
        Ok(Bytes::copy_from_slice(&data[from..to]))
    }

    /// Whether a sync is to do what it says.
    fn honest(&mut self) -> bool {
        let lost = self.chance(self.config.lost_syncs);
        self.stats.lost_syncs += u64::from(lost);
        self.stats.syncs += u64::from(!lost);
        !lost
    }

    pub(crate) fn sync(&mut self, path: &Path) -> io::Result<()> {
        let path = plain(path);
        let number = self.file(&path)?;
        if let Err(error) = self.may_fail(&path) {
            // As kernels do: the pages count as clean from here on, and a later sync does not write them.
            if let Some(content) = self.contents.get_mut(&number) {
                content.dirty.clear();
            }
            return Err(error);
        }
        if self.honest()
            && let Some(content) = self.contents.get_mut(&number)
        {
            content.sync();
        }
        Ok(())
    }

    pub(crate) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let path = plain(path);
        self.dir(&path)?;
        self.may_fail(&path)?;
        if self.honest() {
            let kept = &mut self.kept;
            self.pending.retain(|change| {
                let own = change.touches(&path);
                if own {
                    change.apply(kept);
                }
                !own
            });
        }
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path, replace: bool) -> io::Result<()> {
        let (from, to) = (plain(from), plain(to));
        self.may_fail(&from)?;
        let number = self.file(&from)?;
        self.dir(to.parent().unwrap_or(Path::new("")))?;
        match self.names.get(&to) {
            Some(Entry::Dir) => return error(io::ErrorKind::IsADirectory, &to),
            Some(Entry::File(_)) if !replace => return error(io::ErrorKind::AlreadyExists, &to),
            _ => {}
        }
        if from != to {
            self.change(Change {
                remove: Some(from),
                add: Some((to, Entry::File(number))),
            });
            self.tidy();
        }
        Ok(())
    }

    pub(crate) fn list(&mut self, path: &Path) -> io::Result<Vec<String>> {
        let path = plain(path);
        self.may_fail(&path)?;
        self.dir(&path)?;
        let own = self.names.keys().filter(|name| name.parent() == Some(&path));
        let names = own.filter_map(|name| name.file_name()?.to_str().map(str::to_owned));
        Ok(names.collect())
    }

    pub(crate) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let path = plain(path);
        self.may_fail(&path)?;
        self.file(&path)?;
        self.change(Change {
            remove: Some(path),
            add: None,
        });
        self.tidy();
        Ok(())
    }

    // ---- what happens to it ----

    /// Drops what no name leads to any more, once there is enough of it.
    fn tidy(&mut self) {
        if self.contents.len() <= 2 * (self.names.len() + self.kept.len() + self.pending.len()) + 64 {
            return;
        }
        self.drop_nameless();
    }

    fn drop_nameless(&mut self) {
        let pending = self.pending.iter().filter_map(|change| change.add.as_ref());
        let all = self.names.values().chain(self.kept.values());
        let all = all.chain(pending.map(|(_, entry)| entry));
        let named: BTreeSet<u64> = all
            .filter_map(|entry| match entry {
                Entry::File(number) => Some(*number),
                Entry::Dir => None,
            })
            .collect();
        self.contents.retain(|number, _| named.contains(number));
    }

    /// The host loses power.
    pub(crate) fn crash(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        let ordered = self.rng.below(2) == 0;
        let first = self.rng.below(pending.len() as u64 + 1) as usize;
        for (index, change) in pending.iter().enumerate() {
            let stays = if ordered {
                index < first
            } else {
                self.rng.below(2) == 0
            };
            if stays {
                change.apply(&mut self.kept);
            } else {
                self.stats.undone += 1;
            }
        }
        // What lies in a directory that is not there is not there either.
        let mut names: BTreeMap<PathBuf, Entry> = BTreeMap::new();
        for (path, entry) in &self.kept {
            let parent = path.parent().unwrap_or(Path::new(""));
            if parent.as_os_str().is_empty() || names.get(parent) == Some(&Entry::Dir) {
                names.insert(path.clone(), *entry);
            }
        }
        self.kept.clone_from(&names);
        self.names = names;
        self.drop_nameless();
        for content in self.contents.values_mut() {
            self.stats.torn += u64::from(content.crash(&mut self.rng));
        }
    }
}
