//! The disk's side of receiving: runs on a thread that may block.

use super::Sha256;
use super::hashed::Hashed;
use super::store::{Claim, refusal};
use super::wire::{Offer, Reason, Refusal};
use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use tokio::sync::mpsc;

/// What the network's side asks for.
#[derive(Debug)]
pub(super) enum Job {
    /// The next bytes.
    Data(Bytes),
    /// Everything has come; the sender's hash is this.
    Commit(Sha256),
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Stored(Sha256),
    Mismatch(Sha256),
    /// The stream broke; so many bytes are on disk.
    Incomplete(u64),
}

/// Why it cannot be: told to the sender, and told to the operator.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) refusal: Refusal,
    pub(super) cause: Option<io::Error>,
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Trouble { refusal, cause: None }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        // The sender learns no more of this machine than it needs.
        let refusal = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                refusal(Reason::StoreFull, "the disk of the store is full")
            }
            _ => refusal(Reason::Internal, "the store has a problem; its log says more"),
        };
        Trouble {
            refusal,
            cause: Some(error),
        }
    }
}

impl From<Errno> for Trouble {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// A transfer's file, open.
#[derive(Debug)]
pub(super) struct Incoming {
    file: File,
    /// Whether the file is the finished one of an earlier run, which is only compared.
    finished: bool,
    have: u64,
    hashed: Hashed,
    offer: Offer,
    // Dropped last: the next stream of this transfer opens the file when this one has closed it.
    claim: Claim,
}

impl Incoming {
    /// Finds what an earlier stream left, or makes an empty partial file.
    pub(super) fn open(claim: Claim, offer: Offer) -> Result<Incoming, Trouble> {
        if offer.size > claim.store().limits().max_file_bytes {
            return Err(refusal(Reason::TooLarge, "the file is larger than the store takes").into());
        }
        let folder = claim.store().folder();
        if offer.fresh {
            match rustix::fs::unlinkat(folder, &claim.partial, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        } else if let Some((file, have)) = open_regular(&claim, &claim.partial, OFlags::RDWR)? {
            let hashed = claim.remembered(&file)?;
            let (have, hashed) = if have > offer.size {
                (0, Hashed::default())
            } else {
                (have, hashed)
            };
            if have == 0 {
                file.set_len(0)?;
            }
            claim.store().reserve(&claim, offer.size - have, false)??;
            return Ok(Incoming {
                file,
                finished: false,
                have,
                hashed,
                offer,
                claim,
            });
        }
        let existing = open_regular(&claim, offer.name.as_str(), OFlags::RDONLY)?;
        match existing {
            Some((file, have)) if have == offer.size && !offer.fresh => {
                return Ok(Incoming {
                    file,
                    finished: true,
                    have,
                    hashed: Hashed::default(),
                    offer,
                    claim,
                });
            }
            Some(_) if !claim.store().limits().replace => return Err(name_taken()),
            _ => {}
        }
        claim.store().reserve(&claim, offer.size, true)??;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(
            folder,
            &claim.partial,
            flags,
            Mode::from_raw_mode(0o666),
        )?);
        Ok(Incoming {
            file,
            finished: false,
            have: 0,
            hashed: Hashed::default(),
            offer,
            claim,
        })
    }

    /// How many bytes are held already.
    pub(super) fn have(&self) -> u64 {
        self.have
    }

    /// Whether the file is there already, finished.
    pub(super) fn finished(&self) -> bool {
        self.finished
    }

    /// Writes and hashes what comes until it is told to commit, or until nothing more can come.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) -> Result<Verdict, Trouble> {
        self.hashed
            .catch_up(&self.file, self.have, || !jobs.is_closed())?;
        let mut position = self.have;
        while let Some(job) = jobs.blocking_recv() {
            match job {
                Job::Data(data) => {
                    self.file.write_all_at(&data, position)?;
                    // A hash that did not catch up, because the stream broke meanwhile, is of no use here.
                    if self.hashed.to() >= position {
                        self.hashed.take(position, &data);
                    }
                    position += data.len() as u64;
                    self.claim.arrived(data.len() as u64);
                }
                Job::Commit(theirs) => {
                    self.hashed.catch_up(&self.file, position, || true)?;
                    return self.commit(theirs);
                }
            }
        }
        let Incoming {
            file,
            finished,
            hashed,
            claim,
            ..
        } = self;
        if !finished {
            claim.remember(&file, hashed)?;
            // The next stream of this transfer need not wait for the disk.
            drop(claim);
            file.sync_data()?;
        }
        Ok(Verdict::Incomplete(position))
    }

    fn commit(self, theirs: Sha256) -> Result<Verdict, Trouble> {
        let ours = self.hashed.finish();
        let folder = self.claim.store().folder();
        let (partial, name) = (self.claim.partial.as_str(), self.offer.name.as_str());
        let replace = self.claim.store().limits().replace;
        match (theirs == ours, self.finished) {
            (true, true) => return Ok(Verdict::Stored(ours)),
            // It is another file with the same name and size.
            (false, true) if !replace => return Err(name_taken()),
            (false, true) => return Ok(Verdict::Mismatch(ours)),
            (false, false) => {
                rustix::fs::unlinkat(folder, partial, AtFlags::empty())?;
                return Ok(Verdict::Mismatch(ours));
            }
            (true, false) => {}
        }
        self.file.sync_all()?;
        let moved = if replace {
            rustix::fs::renameat(folder, partial, folder, name)
        } else {
            // A link, unlike a rename, fails if the name is taken.
            rustix::fs::linkat(folder, partial, folder, name, AtFlags::empty())
                .and_then(|()| rustix::fs::unlinkat(folder, partial, AtFlags::empty()))
        };
        match moved {
            Ok(()) => {}
            Err(Errno::EXIST | Errno::ISDIR | Errno::NOTEMPTY) => return Err(name_taken()),
            Err(error) => return Err(error.into()),
        }
        rustix::fs::fsync(folder)?;
        Ok(Verdict::Stored(ours))
    }
}

fn name_taken() -> Trouble {
    refusal(
        Reason::NameTaken,
        "the store holds something else under this name",
    )
    .into()
}

/// Opens `name` if it is there, and says how long it is. A link, a folder, a device or a file that has a
/// second name is nobody's transfer.
fn open_regular(claim: &Claim, name: &str, access: OFlags) -> Result<Option<(File, u64)>, Trouble> {
    // Without NONBLOCK, opening a pipe that somebody put there would wait for its writer.
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(claim.store().folder(), name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(name_taken()),
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::fstat(&file)?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !regular || (access == OFlags::RDWR && stat.st_nlink != 1) {
        return Err(name_taken());
    }
    Ok(Some((File::from(file), u64::try_from(stat.st_size).unwrap_or(0))))
}
