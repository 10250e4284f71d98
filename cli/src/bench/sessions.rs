//! Many sessions at once: whether all of them answer, and what memory each takes at either end.

use crate::args::BenchArgs;
use crate::failure::Failure;
use crate::files;
use crate::output;
use crate::units;
use serde::{Deserialize, Serialize};
use sheetbend_tokio::{Client, Pin, Session, Trust, runtime};
use std::fmt::Display;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Sessions that are made before memory is looked at, so that what is paid once does not count.
const BEFORE: usize = 32;
/// Sessions that are being made at a time.
const AT_ONCE: usize = 64;
/// How long memory may take to come to rest.
const SETTLE: Duration = Duration::from_millis(800);
/// Bytes of a request and of its answer.
const SMALL: usize = 64;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Outcome {
    ok: bool,
    transport: String,
    sessions: usize,
    answered: usize,
    /// Anonymous resident memory; none where the system does not tell.
    server_kib_per_session: Option<f64>,
    client_kib_per_session: Option<f64>,
    connect_seconds: f64,
    /// All sessions asked at once: when half of them, and the last, had their answers.
    half_answered_ms: f64,
    all_answered_ms: f64,
}

fn trouble(error: impl Display) -> Failure {
    Failure::failed(format!("the measurement failed: {error}"))
}

/// `sheetbend serve` in a process of its own, which ends with this.
struct Server {
    process: Child,
    address: String,
    pin: Option<Pin>,
}

#[derive(Deserialize)]
struct Listening {
    addresses: Vec<String>,
    pin: Option<String>,
}

impl Server {
    fn start(scheme: &str) -> Result<Server, Failure> {
        let mut command = Command::new(std::env::current_exe().map_err(trouble)?);
        // A way down over HTTP is a scheme of its own here.
        let address = match scheme {
            "binary" | "sse" | "ndjson" | "poll" => format!("http://127.0.0.1:0/?mode={scheme}"),
            scheme => format!("{scheme}://127.0.0.1:0"),
        };
        command.args(["serve", "--json", "--listen", &address]);
        if ["tls", "wss", "https"].contains(&scheme) {
            command.args(["--tls", "self-signed"]);
        }
        let mut process = command.stdout(Stdio::piped()).spawn().map_err(trouble)?;
        let mut line = String::new();
        let told = process.stdout.take().map(BufReader::new);
        let read = told.map_or(Ok(0), |mut told| told.read_line(&mut line));
        let mut server = Server {
            process,
            address: String::new(),
            pin: None,
        };
        read.map_err(trouble)?;
        let listening: Listening = serde_json::from_str(&line).map_err(trouble)?;
        server.address = listening.addresses.into_iter().next().unwrap_or_default();
        server.pin = listening
            .pin
            .map(|pin| pin.parse())
            .transpose()
            .map_err(trouble)?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Resident memory of a process that is neither a file's nor the kernel's, in KiB.
fn resident(id: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// One more session, which has been answered.
async fn session(client: &Client) -> Result<Session, Failure> {
    let session = client.connect().await.map_err(trouble)?;
    ask(&session).await?;
    Ok(session)
}

async fn ask(session: &Session) -> Result<(), Failure> {
    let answer = session.request("echo", vec![7; SMALL]).await.map_err(trouble)?;
    match answer[..] == [7; SMALL] {
        true => Ok(()),
        false => Err(trouble("an answer is not what was asked")),
    }
}

/// So many more sessions.
async fn open(client: &std::sync::Arc<Client>, count: usize, held: &mut Vec<Session>) -> Result<(), Failure> {
    let mut opening = JoinSet::new();
    let mut left = count;
    while left > 0 || !opening.is_empty() {
        while left > 0 && opening.len() < AT_ONCE {
            let client = client.clone();
            opening.spawn(async move { session(&client).await });
            left -= 1;
        }
        if let Some(opened) = opening.join_next().await {
            held.push(opened.map_err(trouble)??);
        }
    }
    Ok(())
}

/// Asks all of them at once: how long each answer took from the beginning.
async fn ask_all(held: &[Session]) -> Result<Vec<Duration>, Failure> {
    let start = Instant::now();
    let mut asking = JoinSet::new();
    for session in held {
        let session = session.clone();
        asking.spawn(async move { ask(&session).await.map(|()| start.elapsed()) });
    }
    let mut took = Vec::with_capacity(held.len());
    while let Some(asked) = asking.join_next().await {
        took.push(asked.map_err(trouble)??);
    }
    took.sort_unstable();
    Ok(took)
}

/// Holds the sessions, asks them, and prints.
///
/// # Errors
/// A session cannot be made, or does not answer.
pub(super) async fn run(args: &BenchArgs, count: usize) -> Result<(), Failure> {
    files::raise_limit();
    let server = Server::start(&args.over)?;
    let mut client = Client::builder().endpoint(&server.address).map_err(trouble)?;
    if let Some(pin) = server.pin {
        client = client.trust(Trust::Pins(vec![pin]));
    }
    let client = std::sync::Arc::new(client.build(runtime()).map_err(trouble)?);
    let mut held = Vec::with_capacity(count + BEFORE);
    open(&client, BEFORE, &mut held).await?;
    sleep(SETTLE).await;
    let memory = || (resident(server.process.id()), resident(std::process::id()));
    let before = memory();
    let start = Instant::now();
    open(&client, count, &mut held).await?;
    let connected = start.elapsed();
    sleep(SETTLE).await;
    let after = memory();
    let took = ask_all(&held[BEFORE..]).await?;
    let each = |before: Option<f64>, after: Option<f64>| {
        let grown = after? - before?;
        Some((grown / count as f64 * 100.0).round() / 100.0)
    };
    let millis = |time: Option<&Duration>| {
        let time = time.copied().unwrap_or_default();
        (time.as_secs_f64() * 1e5).round() / 1e2
    };
    let outcome = Outcome {
        ok: took.len() == count,
        transport: args.over.clone(),
        sessions: count,
        answered: took.len(),
        server_kib_per_session: each(before.0, after.0),
        client_kib_per_session: each(before.1, after.1),
        connect_seconds: (connected.as_secs_f64() * 1e3).round() / 1e3,
        half_answered_ms: millis(took.get(took.len() / 2)),
        all_answered_ms: millis(took.last()),
    };
    if args.json {
        let text = serde_json::to_string(&outcome).map_err(|error| Failure::failed(error.to_string()))?;
        return output::line(&text);
    }
    let memory = |kib: Option<f64>| kib.map_or("unknown".to_owned(), |kib| format!("{kib:.1} KiB"));
    output::line(&format!(
        "{} over {}, made in {:.1} s; all of them asked at once: half answered after {:.1} ms, all after {:.1} ms; \
         memory of each: {} at the server, {} at the client",
        units::counted(count as u64, "session", "sessions"),
        outcome.transport,
        outcome.connect_seconds,
        outcome.half_answered_ms,
        outcome.all_answered_ms,
        memory(outcome.server_kib_per_session),
        memory(outcome.client_kib_per_session),
    ))
}
