//! Lines on stdout and stderr.

use crate::failure::{Failure, one_line};
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Standard output is a session's.
static RESERVED: AtomicBool = AtomicBool::new(false);

/// Leaves standard output to a session: from here on lines go to stderr.
pub fn reserve_stdout() {
    RESERVED.store(true, Ordering::Relaxed);
}

/// Prints a line on stdout, unless that is reserved. A reader that has gone away, as `head` does, is no failure.
///
/// # Errors
/// Those of writing, a full disk for one.
pub fn line(text: &str) -> Result<(), Failure> {
    if RESERVED.load(Ordering::Relaxed) {
        let _ = writeln!(io::stderr(), "{text}");
        return Ok(());
    }
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a remark on stderr, as one line with the command's name. If nobody reads it, so be it.
pub fn aside(text: &str) {
    let _ = writeln!(io::stderr(), "sheetbend: {}", one_line(text));
}
