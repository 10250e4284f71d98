//! What is in a store, for those who may look.

use super::name::FileName;
use super::store::Store;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use std::fs::File;
use std::io;

/// The most names that a listing has.
pub const MAX_LISTED: usize = 10_000;

impl Store {
    /// The files that are complete, with their sizes, by name. Blocks.
    ///
    /// # Errors
    /// Those of reading the folder.
    pub fn list(&self) -> io::Result<Vec<(FileName, u64)>> {
        let mut files = Vec::new();
        for entry in Dir::read_from(self.folder())? {
            let entry = entry?;
            // Partial files begin with a dot, which is no name of a file here.
            let Ok(name) = FileName::parse(entry.file_name().to_bytes()) else {
                continue;
            };
            let stat = rustix::fs::statat(self.folder(), entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && files.len() < MAX_LISTED {
                files.push((name, u64::try_from(stat.st_size).unwrap_or(0)));
            }
        }
        files.sort();
        Ok(files)
    }

    /// Opens a file that is complete; no link is followed. Blocks.
    ///
    /// # Errors
    /// `NotFound` for whatever is not a plain file there, and those of opening it.
    pub fn read(&self, name: &FileName) -> io::Result<File> {
        // Without NONBLOCK, opening a pipe that somebody put there would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(self.folder(), name.as_str(), flags, Mode::empty()) {
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            file => File::from(file?),
        };
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }
}
