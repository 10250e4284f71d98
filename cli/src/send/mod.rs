//! `sheetbend send`: copies files to a server's store.
//!
//! Connections that die are the session's business. A session that is lost, as when the server was started
//! anew, is this command's: it makes another one, and the transfer goes on from what the server has.

mod link;

use crate::args::SendArgs;
use crate::failure::Failure;
use crate::output;
use crate::progress::{FileReport, Progress, SendReport};
use crate::transfer::send::{Outgoing, SendError, Sent};
use crate::units;
use link::Link;
use sheetbend_tokio::Class;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How long a file is tried again without a byte's progress.
const PATIENCE: Duration = Duration::from_secs(60);
/// The time before a file is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// Sends the files.
///
/// # Errors
/// No session can be made, or the server does not have all files in the end.
pub async fn run(args: SendArgs) -> Result<(), Failure> {
    let start = Instant::now();
    let mut files = Vec::new();
    for path in &args.files {
        files.push((path.as_path(), Outgoing::open(path).await));
    }
    // Nothing is connected to for the sake of files that cannot be read.
    if files.iter().all(|(_, opened)| opened.is_err()) {
        let reports = files.iter().filter_map(|(path, opened)| {
            let error = opened.as_ref().err()?;
            Some(FileReport::failed(path, 0, &error.to_string()))
        });
        return finish(&args, SendReport::new(reports.collect(), 0, start.elapsed()));
    }
    let mut link = Link::connect(&args).await?;
    let sizes = files
        .iter()
        .filter_map(|(_, opened)| Some(opened.as_ref().ok()?.size()));
    let mut progress = Progress::new(sizes.sum(), args.quiet || args.json);
    let mut reports = Vec::new();
    for (path, opened) in files {
        reports.push(match opened {
            Ok(outgoing) => one(path, outgoing, &mut link, &mut progress).await,
            Err(error) => FileReport::failed(path, 0, &error.to_string()),
        });
    }
    progress.finish();
    let switches = link.switches();
    link.close().await;
    finish(&args, SendReport::new(reports, switches, start.elapsed()))
}

/// Sends one file, over as many streams and sessions as it takes.
async fn one(path: &Path, mut outgoing: Outgoing, link: &mut Link, progress: &mut Progress) -> FileReport {
    progress.file(outgoing.name().as_str());
    let mut furthest = 0;
    let mut deadline = Instant::now() + PATIENCE;
    loop {
        let (outcome, reached) = attempt(&mut outgoing, link, progress).await;
        let error = match outcome {
            Ok(sent) => {
                progress.file_done(outgoing.size());
                return FileReport::sent(path, outgoing.size(), &sent);
            }
            Err(error) => error,
        };
        if reached > furthest {
            (furthest, deadline) = (reached, Instant::now() + PATIENCE);
        }
        match error {
            Trouble::Transfer(error) if !error.is_retryable() => {
                return FileReport::failed(path, outgoing.size(), &error.to_string());
            }
            error if Instant::now() >= deadline => {
                let why = format!(
                    "{error}; given up after {} s without progress; run the command again to go on from there",
                    PATIENCE.as_secs()
                );
                return FileReport::failed(path, outgoing.size(), &why);
            }
            _ => sleep(PAUSE).await,
        }
    }
}

/// What ends an attempt.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Transfer(SendError),
    #[error("{0}")]
    Session(String),
}

/// One stream's worth of a file. Also tells how far it came.
async fn attempt(
    outgoing: &mut Outgoing,
    link: &mut Link,
    progress: &mut Progress,
) -> (Result<Sent, Trouble>, u64) {
    let session = match link.session().await {
        Ok(session) => session,
        Err(error) => return (Err(Trouble::Session(error)), 0),
    };
    let stream = match session.open_bi(Class::BULK).await {
        Ok(stream) => stream,
        Err(error) => {
            // A server that is about to stop takes no more streams; its session ends soon.
            link.leave(session).await;
            return (Err(Trouble::Session(error.to_string())), 0);
        }
    };
    let (mut writer, mut reader) = stream.split();
    let (reached, mut begun) = (std::cell::Cell::new(0), false);
    let shown: &Progress = progress;
    let sending = outgoing.send(&mut reader, &mut writer, |position| {
        if !std::mem::replace(&mut begun, true) {
            shown.resumed_at(position);
        }
        shown.position(position);
        reached.set(position);
    });
    let watching = watch(link, shown);
    let outcome = tokio::select! {
        outcome = sending => outcome.map_err(Trouble::Transfer),
        never = watching => match never {},
    };
    if outcome.is_ok() {
        let _ = writer.finish();
    }
    progress.switches(link.switches());
    (outcome, reached.get())
}

/// Tells of a lasting loss of all connections.
async fn watch(link: &Link, progress: &Progress) -> std::convert::Infallible {
    /// Losses shorter than this are nobody's concern.
    const SILENT: u32 = 3;
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut without = 0;
    loop {
        ticks.tick().await;
        without = if link.is_connected() { 0 } else { without + 1 };
        if without == SILENT {
            progress.note("no connection to the server; trying on (^C stops, and a later run resumes)");
        }
    }
}

fn finish(args: &SendArgs, report: SendReport) -> Result<(), Failure> {
    if args.json {
        let text = report
            .to_json()
            .map_err(|error| Failure::failed(error.to_string()))?;
        output::line(&text)?;
    } else if report.files.iter().any(|file| file.ok) {
        output::line(&report.line())?;
    }
    let mut failed = report.files.iter().filter_map(|file| file.error.as_deref());
    let Some(first) = failed.next() else {
        return Ok(());
    };
    let more = failed.clone().count() as u64;
    failed.for_each(output::aside);
    if more == 0 {
        return Err(Failure::failed(first));
    }
    output::aside(first);
    let lacking = units::counted(more + 1, "file was", "files were");
    Err(Failure::failed(format!("{lacking} not sent")))
}
