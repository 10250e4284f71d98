//! Where the table goes: redrawn in place on a terminal, a line a second elsewhere, nowhere with `--json`.

use super::table::{Room, View, plain_line, render};
use console::Term;
use std::io::{self, Write};
use std::time::Duration;

/// How often a plain line is printed.
const PLAIN_EVERY: Duration = Duration::from_secs(1);

/// Shows [`View`]s on stdout. The cursor always rests below the table and is never hidden, so that a command
/// that is killed leaves the terminal as it was.
#[derive(Debug)]
pub struct Screen {
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    Live { term: Term, drawn: usize },
    Plain { next: Duration },
    Silent,
}

impl Screen {
    /// A screen for this process's stdout; with `json`, one that shows nothing.
    pub fn new(json: bool) -> Self {
        let term = Term::stdout();
        let mode = match (json, term.is_term()) {
            (true, _) => Mode::Silent,
            (false, true) => Mode::Live { term, drawn: 0 },
            (false, false) => Mode::Plain { next: Duration::ZERO },
        };
        Screen { mode }
    }

    /// Shows `view`: on a terminal every time, elsewhere once a second.
    ///
    /// # Errors
    /// Those of writing to stdout.
    pub fn draw(&mut self, view: &View) -> io::Result<()> {
        match &mut self.mode {
            Mode::Live { term, drawn } => {
                let lines = render(view, room(term));
                let frame = frame(&lines, *drawn);
                *drawn = lines.len();
                term.write_all(frame.as_bytes())?;
                term.flush()
            }
            Mode::Plain { next } if view.elapsed >= *next => {
                *next = view.elapsed + PLAIN_EVERY;
                let mut out = io::stdout().lock();
                writeln!(out, "{}", plain_line(view))?;
                out.flush()
            }
            Mode::Plain { .. } | Mode::Silent => Ok(()),
        }
    }

    /// Replaces the table by `lines`, or prints them below the plain lines; nothing with `--json`.
    ///
    /// # Errors
    /// Those of writing to stdout.
    pub fn finish(self, lines: impl FnOnce(Room) -> Vec<String>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.mode {
            Mode::Live { term, drawn } => out.write_all(frame(&lines(room(&term)), drawn).as_bytes())?,
            Mode::Plain { .. } => {
                let room = Room {
                    columns: 100,
                    rows: usize::MAX,
                    color: false,
                };
                for line in lines(room) {
                    writeln!(out, "{line}")?;
                }
            }
            Mode::Silent => {}
        }
        out.flush()
    }
}

/// One line stays free for the cursor.
fn room(term: &Term) -> Room {
    let (rows, columns) = term.size();
    let (rows, columns) = (usize::from(rows).max(2), usize::from(columns));
    Room {
        columns,
        rows: rows - 1,
        color: console::colors_enabled(),
    }
}

/// `lines` over the `drawn` lines of the frame before. One write and the synchronised-update marks keep it
/// from flickering; each line is cleared from its end on, and what the old frame had below is cleared last.
fn frame(lines: &[String], drawn: usize) -> String {
    let mut frame = String::from("\x1b[?2026h\r");
    if drawn > 0 {
        frame += &format!("\x1b[{drawn}A");
    }
    for line in lines {
        frame += line;
        frame += "\x1b[K\r\n";
    }
    frame + "\x1b[J\x1b[?2026l"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_goes_over_the_one_before() {
        assert_eq!(
            frame(&["a".into()], 0),
            "\x1b[?2026h\ra\x1b[K\r\n\x1b[J\x1b[?2026l"
        );
        assert!(frame(&[], 12).starts_with("\x1b[?2026h\r\x1b[12A"));
    }
}
