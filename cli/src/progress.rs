//! What `sheetbend send` shows while it works, and what it prints at the end.

use crate::output;
use crate::transfer::send::Sent;
use crate::units;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// A progress bar on stderr: bytes, rate, time left, and how often the session has switched paths. It draws
/// nothing if stderr is not a terminal.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    /// Bytes of the files before this one.
    before: u64,
    name: String,
    switches: u64,
}

impl Progress {
    /// A bar for `total_bytes` in all; a `quiet` one draws nothing.
    pub fn new(total_bytes: u64, quiet: bool) -> Progress {
        let target = if quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(10)
        };
        let bar = ProgressBar::with_draw_target(Some(total_bytes), target);
        let rate = |state: &ProgressState, w: &mut dyn fmt::Write| {
            let _ = write!(w, "{}/s", units::bytes(state.per_sec() as u64));
        };
        let bytes = |state: &ProgressState, w: &mut dyn fmt::Write| {
            let total = units::bytes(state.len().unwrap_or(0));
            let _ = write!(w, "{} of {total}", units::bytes(state.pos()));
        };
        let template = "{prefix:.bold} {wide_bar:.green/dim} {done:>19} {rate:>9} {eta:>4} left{msg}";
        // The template is a constant; without it the bar is plain.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(
                style
                    .with_key("rate", rate)
                    .with_key("done", bytes)
                    .progress_chars("━╸─"),
            );
        }
        Progress {
            bar,
            before: 0,
            name: String::new(),
            switches: 0,
        }
    }

    /// Begins with the next file.
    pub fn file(&mut self, name: &str) {
        self.name = name.to_owned();
        let shown = console::truncate_str(name, 24, "…").into_owned();
        self.bar.set_prefix(shown);
    }

    /// So many bytes of the current file have been sent. The bar does not go back when some of them have to
    /// be sent again.
    pub fn position(&self, bytes: u64) {
        self.bar
            .set_position(self.bar.position().max(self.before + bytes));
    }

    /// So many bytes of the current file were there when the stream began: they count as done, not as speed.
    pub fn resumed_at(&self, bytes: u64) {
        if self.before + bytes > self.bar.position() {
            self.bar.set_position(self.before + bytes);
            self.bar.reset_eta();
        }
    }

    /// The session has switched paths so often.
    pub fn switches(&mut self, switches: u64) {
        if switches != self.switches {
            self.switches = switches;
            self.bar
                .set_message(format!("  {}", units::counted(switches, "switch", "switches")));
        }
    }

    /// The current file of `bytes` bytes is done.
    pub fn file_done(&mut self, bytes: u64) {
        self.before += bytes;
        self.bar.set_position(self.before);
    }

    /// A line above the bar, as for a new attempt.
    pub fn note(&self, line: &str) {
        self.bar.suspend(|| output::aside(line));
    }

    /// Removes the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// One file in a [`SendReport`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileReport {
    /// As it was given on the command line.
    pub file: String,
    /// Whether the server has it.
    pub ok: bool,
    /// Its size.
    pub bytes: u64,
    /// How many bytes the server had before this run; all of them if it had the file.
    pub resumed_at: u64,
    /// The SHA-256 that both sides computed, in hexadecimal.
    pub sha256: Option<String>,
    /// Why the server does not have it.
    pub error: Option<String>,
}

impl FileReport {
    /// A file that the server has.
    pub fn sent(path: &Path, bytes: u64, sent: &Sent) -> FileReport {
        let sha256 = Some(sent.sha256.to_string());
        let file = path.display().to_string();
        FileReport {
            file,
            ok: true,
            bytes,
            resumed_at: sent.held_before,
            sha256,
            error: None,
        }
    }

    /// A file that it does not have.
    pub fn failed(path: &Path, bytes: u64, error: &str) -> FileReport {
        let file = path.display().to_string();
        FileReport {
            file,
            ok: false,
            bytes,
            resumed_at: 0,
            sha256: None,
            error: Some(error.to_owned()),
        }
    }
}

/// What `sheetbend send --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SendReport {
    /// Whether the server has all files.
    pub ok: bool,
    /// Each file, in the order given.
    pub files: Vec<FileReport>,
    /// Bytes of all files that the server has.
    pub bytes: u64,
    /// How often the session switched paths.
    pub switches: u64,
    /// How long it took.
    pub seconds: f64,
    /// Bytes that had to be sent, by the time that it took.
    pub bytes_per_second: f64,
}

impl SendReport {
    /// Puts the parts together.
    pub fn new(files: Vec<FileReport>, switches: u64, took: Duration) -> SendReport {
        let there = || files.iter().filter(|file| file.ok);
        let bytes = there().map(|file| file.bytes).sum();
        let sent: u64 = there()
            .map(|file| file.bytes - file.resumed_at.min(file.bytes))
            .sum();
        let seconds = (took.as_secs_f64() * 1e3).round() / 1e3;
        let bytes_per_second = (sent as f64 / took.as_secs_f64().max(1e-9)).round();
        SendReport {
            ok: files.iter().all(|file| file.ok),
            files,
            bytes,
            switches,
            seconds,
            bytes_per_second,
        }
    }

    /// The report as one line of JSON.
    ///
    /// # Errors
    /// None in practice; those of the serialiser.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// The report as one line for people.
    pub fn line(&self) -> String {
        let there = self.files.iter().filter(|file| file.ok).count();
        let what = match self.files.as_slice() {
            [one] => one.file.clone(),
            many if self.ok => units::counted(many.len() as u64, "file", "files"),
            many => format!(
                "{there} of {}",
                units::counted(many.len() as u64, "file", "files")
            ),
        };
        format!(
            "{} {what}: {}, {:.1} s, {}/s, SHA-256 verified at both ends, {}",
            if self.ok { "sent" } else { "not all sent:" },
            units::bytes(self.bytes),
            self.seconds,
            units::bytes(self.bytes_per_second as u64),
            units::counted(self.switches, "switch", "switches"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::Sha256;

    fn files() -> Vec<FileReport> {
        let sent = Sent {
            held_before: 400,
            resumed_at: 700,
            sha256: Sha256([0xab; 32]),
        };
        vec![
            FileReport::sent(Path::new("a/x"), 1400, &sent),
            FileReport::failed(Path::new("y"), 7, "the server refuses y: the store is full"),
        ]
    }

    #[test]
    fn the_report_counts_what_arrived() {
        let report = SendReport::new(files(), 3, Duration::from_secs(2));
        assert_eq!(
            (report.ok, report.bytes, report.bytes_per_second),
            (false, 1400, 500.0)
        );
        let json = report.to_json().expect("serialises");
        let head =
            r#"{"ok":false,"files":[{"file":"a/x","ok":true,"bytes":1400,"resumed_at":400,"sha256":"abab"#;
        assert!(json.starts_with(head), "{json}");
        assert!(
            json.ends_with(r#""bytes":1400,"switches":3,"seconds":2.0,"bytes_per_second":500.0}"#),
            "{json}"
        );
        let good = SendReport::new(files()[..1].to_vec(), 1, Duration::from_secs(2));
        assert_eq!(
            good.line(),
            "sent a/x: 1.40 kB, 2.0 s, 500 B/s, SHA-256 verified at both ends, 1 switch"
        );
        assert!(report.line().starts_with("not all sent: 1 of 2 files"));
    }

    #[test]
    fn a_quiet_bar_counts_over_all_files() {
        let mut progress = Progress::new(300, true);
        progress.file("a");
        progress.position(50);
        progress.file_done(100);
        progress.file("b");
        progress.resumed_at(20);
        progress.switches(2);
        assert_eq!(progress.bar.position(), 120);
        progress.finish();
    }
}
