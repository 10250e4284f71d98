//! A journal that syncs survives a thousand crashes; one that does not shows that they cost something.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sheetbend_runtime::Files;

use super::*;
use crate::{Fault, Host, World};

const DIR: &str = "/var/journal";

/// A small journal: each entry is a file of its own, written beside and then put into its place.
struct Journal {
    files: Arc<dyn Files>,
    syncs: bool,
}

/// An entry says its number, so that a torn one shows.
fn body(number: u32) -> Vec<u8> {
    let len = 200 + number as usize * 37 % 3000;
    (0..len).map(|at| (number as usize * 31 + at) as u8 | 1).collect()
}

impl Journal {
    async fn open(host: &Host, syncs: bool) -> Journal {
        let files = host.runtime().files();
        files.create_dir(DIR.into()).await.unwrap();
        // The directory's own name, and that of the one it lies in.
        for dir in ["/", "/var"] {
            files.sync_dir(dir.into()).await.unwrap();
        }
        Journal { files, syncs }
    }

    async fn add(&self, number: u32) {
        let temp = PathBuf::from(format!("{DIR}/{number}.tmp"));
        let last = PathBuf::from(format!("{DIR}/{number}"));
        let _ = self.files.remove(temp.clone()).await;
        self.files
            .create(temp.clone(), body(number).into())
            .await
            .unwrap();
        if self.syncs {
            self.files.sync(temp.clone()).await.unwrap();
        }
        self.files.rename(temp, last).await.unwrap();
        if self.syncs {
            self.files.sync_dir(DIR.into()).await.unwrap();
        }
    }

    /// Numbers of the entries that are there, and how many of them are torn.
    async fn read(&self) -> (Vec<u32>, u32) {
        let (mut whole, mut torn) = (Vec::new(), 0);
        for name in self.files.list(DIR.into()).await.unwrap() {
            let Ok(number) = name.parse() else { continue };
            let path = PathBuf::from(format!("{DIR}/{name}"));
            if self.files.read(path, 0, usize::MAX).await.unwrap() == body(number) {
                whole.push(number)
            } else {
                torn += 1
            }
        }
        (whole, torn)
    }
}

/// What the program of a run has told about itself.
#[derive(Default)]
struct Told {
    /// Entries that are in the journal, it says.
    promised: u32,
    /// Entries that were there when it started, and how many were torn.
    found: (Vec<u32>, u32),
}

/// What one crash cost: entries that were promised and are gone, and entries that are torn.
fn crash(seed: u64, syncs: bool, disk: DiskConfig) -> (u32, u32) {
    let mut world = World::new(seed);
    let told = Arc::new(Mutex::new(Told::default()));
    let own = told.clone();
    world.boot("box", &[], move |host| {
        let told = own.clone();
        async move {
            let journal = Journal::open(&host, syncs).await;
            let found = journal.read().await;
            let from = found.0.len() as u32;
            told.lock().found = found;
            for number in from..40 {
                journal.add(number).await;
                told.lock().promised = number + 1;
            }
        }
    });
    let host = "box".to_owned();
    world.apply(&Fault::Disk {
        host: host.clone(),
        config: disk,
    });
    world.run_for(Duration::from_millis(1 + seed % 40)).unwrap();
    let promised = told.lock().promised;
    world.apply(&Fault::Crash { host: host.clone() });
    world.apply(&Fault::Restart { host });
    world.run_for(Duration::from_secs(1)).unwrap();
    let (whole, torn) = told.lock().found.clone();
    let lost = (0..promised).filter(|number| !whole.contains(number)).count();
    (lost as u32, torn)
}

#[test]
fn a_journal_that_syncs_survives_a_thousand_crashes() {
    for seed in 0..1000 {
        let cost = crash(seed, true, DiskConfig::default());
        assert_eq!(cost, (0, 0), "seed {seed}: entries lost, entries torn");
    }
}

#[test]
fn a_journal_that_does_not_sync_loses_and_is_torn() {
    let (mut lost, mut torn) = (0, 0);
    for seed in 0..100 {
        let cost = crash(seed, false, DiskConfig::default());
        lost += u32::from(cost.0 > 0);
        torn += u32::from(cost.1 > 0);
    }
    assert!(lost > 50, "{lost} of 100 crashes cost entries");
    assert!(torn > 20, "{torn} of 100 crashes tore entries");
}

#[test]
fn a_disk_that_lies_about_syncs_loses_what_was_promised() {
    let disk = DiskConfig {
        lost_syncs: 0.2,
        ..DiskConfig::default()
    };
    let lost = (0..100)
        .filter(|seed| crash(*seed, true, disk.clone()).0 > 0)
        .count();
    assert!(lost > 20, "{lost} of 100 crashes cost entries");
}

fn disk(config: DiskConfig) -> Disk {
    let mut disk = Disk::new(Rng::from_seed([5; 32]));
    disk.config = config;
    disk
}

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.map(|_| ()).unwrap_err().kind()
}

#[test]
fn names_and_their_errors() {
    let mut disk = disk(DiskConfig::default());
    assert_eq!(
        kind(disk.create(Path::new("no/dir"), b"")),
        io::ErrorKind::NotFound
    );
    disk.create_dir(Path::new("/a/b")).unwrap();
    disk.create_dir(Path::new("a/./b/../b")).unwrap();
    disk.create(Path::new("/a/one"), b"1").unwrap();
    assert_eq!(
        kind(disk.create(Path::new("a/one"), b"")),
        io::ErrorKind::AlreadyExists
    );
    assert_eq!(
        kind(disk.create_dir(Path::new("a/one"))),
        io::ErrorKind::NotADirectory
    );
    assert_eq!(
        kind(disk.append(Path::new("a/b"), b"")),
        io::ErrorKind::IsADirectory
    );
    disk.append(Path::new("a/two"), b"2").unwrap();
    disk.append(Path::new("a/two"), b"22").unwrap();
    assert_eq!(disk.list(Path::new("a")).unwrap(), ["b", "one", "two"]);
    assert_eq!(disk.read(Path::new("a/two"), 1, 1).unwrap(), "2");
    assert_eq!(disk.read(Path::new("a/two"), 9, 9).unwrap(), "");
    disk.remove(Path::new("a/one")).unwrap();
    assert_eq!(kind(disk.remove(Path::new("a/one"))), io::ErrorKind::NotFound);
}

#[test]
fn of_two_renames_one_wins() {
    let mut disk = disk(DiskConfig::default());
    for (name, text) in [("x", "from x"), ("y", "from y")] {
        disk.create(Path::new(name), text.as_bytes()).unwrap();
    }
    let (x, y, to) = (Path::new("x"), Path::new("y"), Path::new("to"));
    disk.rename(x, to, false).unwrap();
    assert_eq!(kind(disk.rename(y, to, false)), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.rename(x, to, true)), io::ErrorKind::NotFound);
    disk.rename(y, to, true).unwrap();
    assert_eq!(disk.read(to, 0, 99).unwrap(), "from y");
}

#[test]
fn a_quota_takes_a_part_and_then_says_so() {
    let mut disk = disk(DiskConfig {
        quota: 10,
        ..DiskConfig::default()
    });
    let path = Path::new("log");
    disk.append(path, b"12345678").unwrap();
    assert_eq!(kind(disk.append(path, b"9abc")), io::ErrorKind::StorageFull);
    assert_eq!(disk.read(path, 0, 99).unwrap(), "123456789a");
    disk.remove(path).unwrap();
    disk.append(path, b"room again").unwrap();
    assert_eq!(disk.stats.refused, 1);
}

#[test]
fn what_a_failed_sync_was_to_keep_is_lost() {
    let mut disk = disk(DiskConfig::default());
    let path = Path::new("log");
    disk.append(path, b"first").unwrap();
    disk.sync(path).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    disk.append(path, b"second").unwrap();
    disk.config.errors = 1.0;
    assert!(disk.sync(path).is_err());
    disk.config.errors = 0.0;
    disk.sync(path).unwrap();
    assert_eq!(disk.read(path, 0, 99).unwrap(), "firstsecond", "the cache has it");
    disk.crash();
    assert_eq!(disk.read(path, 0, 99).unwrap(), "first", "the disk has not");
    assert_eq!(disk.stats.errors, 1);
}

#[test]
fn names_that_nobody_synced_may_come_back_in_any_order() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let mut disk = Disk::new(Rng::from_seed([seed; 32]));
        for name in ["a", "b"] {
            disk.create(Path::new(name), b"x").unwrap();
        }
        disk.crash();
        outcomes.insert(disk.list(Path::new("")).unwrap().join(" "));
    }
    let all: Vec<&str> = outcomes.iter().map(String::as_str).collect();
    assert_eq!(all, ["", "a", "a b", "b"]);
}

#[test]
fn what_no_name_leads_to_is_dropped() {
    let mut disk = disk(DiskConfig::default());
    let path = Path::new("box/letter");
    disk.create_dir(Path::new("box")).unwrap();
    for _ in 0..10_000 {
        disk.create(path, b"x").unwrap();
        disk.remove(path).unwrap();
        disk.sync_dir(Path::new("box")).unwrap();
    }
    assert!(disk.contents.len() < 200, "{}", disk.contents.len());
}
