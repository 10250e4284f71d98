//! `sheetbend call`: one call of a server's method.

use crate::args::CallArgs;
use crate::failure::Failure;
use crate::output;
use bytes::Bytes;
use serde::Serialize;
use sheetbend_tokio::{
    CallBuilder, CallError, Client, ConnectError, ErrorCode, Executed, Metadata, Reply, runtime,
};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long making the session may take, where no deadline says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most bytes of a request that are read from a file.
const MAX_DATA: u64 = 1024 * 1024 * 1024;

/// A payload or an item, in JSON.
#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Data {
    /// As text, where it is that.
    Text(String),
    /// In hexadecimal.
    Hex(String),
}

/// What `--json` prints at the end.
#[derive(Debug, Serialize)]
struct Outcome {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Data>,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, Data>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    trailers: BTreeMap<String, Data>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// Whether a handler ran, where the call failed: yes, no or maybe.
    #[serde(skip_serializing_if = "Option::is_none")]
    executed: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    milliseconds: f64,
}

/// What came of the call.
#[derive(Default)]
struct Answer {
    payload: Option<Bytes>,
    items: Option<u64>,
    metadata: Metadata,
    trailers: Metadata,
}

/// Calls, and prints the answer.
///
/// # Errors
/// There is no session, or the call failed.
pub async fn run(args: CallArgs) -> Result<(), Failure> {
    let start = Instant::now();
    let data = data(&args)?;
    let client = Client::builder()
        .endpoint(&args.url.0)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let client = args.through.apply(args.trust.apply(client)?)?;
    let client = client.build(runtime()).map_err(|error| unreachable(&error))?;
    let patience = args.deadline.unwrap_or(PATIENCE);
    let session = timeout(patience, client.session())
        .await
        .map_err(|_| Failure::failed(format!("cannot reach {} in time", args.url)))?
        .map_err(|error| unreachable(&error))?;
    let mut call = session.call(&args.method);
    for header in &args.header {
        let (key, value) = header.split_once('=').unwrap_or((header, ""));
        call = call
            .header(key, value.as_bytes())
            .map_err(|error| Failure::usage(format!("'{key}': {error}")))?;
    }
    if let Some(key) = &args.key {
        call = call
            .key(key.clone())
            .map_err(|error| Failure::usage(error.to_string()))?;
    }
    if let Some(left) = args.deadline {
        call = call.timeout(left.saturating_sub(start.elapsed()));
    }
    let mut answer = Answer::default();
    let called = make(&args, call, data, &mut answer).await;
    let _ = timeout(GOODBYE, session.close(ErrorCode::NONE, "")).await;
    let error = match called {
        Ok(error) => error,
        Err(failure) => return Err(failure),
    };
    if args.json {
        print_json(&answer, error.as_ref(), start.elapsed())?;
    } else if let Some(payload) = &answer.payload {
        print_bytes(payload)?;
    }
    match error {
        None => Ok(()),
        Some(error) => Err(Failure::failed(format!("{}: {error}", args.method))),
    }
}

/// Makes the call of the kind that is asked for. Its own failure is no failure of this.
async fn make(
    args: &CallArgs,
    call: CallBuilder<'_>,
    data: Bytes,
    answer: &mut Answer,
) -> Result<Option<CallError>, Failure> {
    let outcome = match (args.items, args.stream) {
        (false, false) => call.unary(data).await.map(|reply| take(reply, answer)),
        (true, false) => summed(call, &data).await.map(|reply| take(reply, answer)),
        (false, true) => match call.server_streaming(data).await {
            Ok(mut answers) => {
                let ended = listed(args, &mut answers, answer).await?;
                answer.metadata = answers.metadata().clone();
                answer.trailers = answers.trailers().clone();
                ended
            }
            Err(error) => Err(error),
        },
        (true, true) => match call.bidirectional().await {
            Ok((mut out, mut answers)) => {
                let send = async {
                    for item in lines(&data) {
                        if out.feed(item).await.is_err() || out.flush().await.is_err() {
                            break;
                        }
                    }
                    out.finish();
                };
                let ((), ended) = tokio::join!(send, listed(args, &mut answers, answer));
                answer.metadata = answers.metadata().clone();
                answer.trailers = answers.trailers().clone();
                ended?
            }
            Err(error) => Err(error),
        },
    };
    Ok(outcome.err())
}

fn take(reply: Reply, answer: &mut Answer) {
    answer.payload = Some(reply.payload);
    answer.metadata = reply.metadata;
}

async fn summed(call: CallBuilder<'_>, data: &Bytes) -> Result<Reply, CallError> {
    let mut call = call.client_streaming().await?;
    for item in lines(data) {
        if call.feed(item).await.is_err() {
            break;
        }
    }
    call.finish().await
}

/// Prints the items as they come.
async fn listed(
    args: &CallArgs,
    answers: &mut sheetbend_tokio::Answers,
    answer: &mut Answer,
) -> Result<Result<(), CallError>, Failure> {
    let mut count = 0;
    loop {
        match answers.next().await {
            Ok(Some(item)) => {
                count += 1;
                answer.items = Some(count);
                if args.json {
                    output::line(&json(&BTreeMap::from([("item", readable(&item))]))?)?;
                } else if args.raw {
                    print_bytes(&item)?;
                } else {
                    print_bytes(&[&item[..], b"\n"].concat())?;
                }
            }
            Ok(None) => {
                answer.items = Some(count);
                return Ok(Ok(()));
            }
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// The lines of a text, one item each.
fn lines(data: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    let text = data.strip_suffix(b"\n").unwrap_or(data);
    text.split(|byte| *byte == b'\n')
        .filter(|_| !data.is_empty())
        .map(|line| data.slice_ref(line))
}

fn data(args: &CallArgs) -> Result<Bytes, Failure> {
    let Some(path) = &args.data_file else {
        return Ok(args.data.clone().unwrap_or_default().into());
    };
    let unreadable =
        |error: std::io::Error| Failure::failed(format!("cannot read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_DATA + 1).read_to_end(&mut bytes)
    } else {
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(MAX_DATA + 1).read_to_end(&mut bytes)
    };
    match read.map_err(unreadable)? as u64 {
        ..=MAX_DATA => Ok(bytes.into()),
        _ => Err(Failure::failed(format!("{} is over 1 GiB", path.display()))),
    }
}

fn readable(bytes: &[u8]) -> Data {
    match std::str::from_utf8(bytes) {
        Ok(text) => Data::Text(text.to_owned()),
        Err(_) => Data::Hex(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

fn map(metadata: &Metadata) -> BTreeMap<String, Data> {
    let entries = metadata.iter();
    entries
        .map(|(key, value)| (key.to_owned(), readable(value)))
        .collect()
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::failed(error.to_string()))
}

fn print_json(answer: &Answer, error: Option<&CallError>, took: Duration) -> Result<(), Failure> {
    let outcome = Outcome {
        ok: error.is_none(),
        payload: answer.payload.as_deref().map(readable),
        items: answer.items,
        metadata: map(&answer.metadata),
        trailers: map(&answer.trailers),
        code: error.map(|error| error.code().to_string()),
        executed: error.map(|error| match error.executed() {
            Executed::Yes => "yes",
            Executed::No => "no",
            Executed::Maybe => "maybe",
        }),
        error: error.map(ToString::to_string),
        milliseconds: (took.as_secs_f64() * 1e6).round() / 1e3,
    };
    output::line(&json(&outcome)?)
}

/// As they are; a terminal gets a line of its own for what follows.
fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let line_is_open = !bytes.ends_with(b"\n") && !bytes.is_empty();
    let end: &[u8] = match line_is_open && std::io::IsTerminal::is_terminal(&out) {
        true => b"\n",
        false => b"",
    };
    let written = out.write_all(bytes).and_then(|()| out.write_all(end));
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

fn unreachable(error: &ConnectError) -> Failure {
    Failure::failed(match error {
        ConnectError::Unreachable(places) => {
            let list: Vec<_> = places.iter().map(|(at, why)| format!("{at}: {why}")).collect();
            format!("cannot reach the server ({}); not sent", list.join("; "))
        }
        other => format!("{other}; not sent"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_lines() {
        let all = |text: &'static str| -> Vec<Bytes> { lines(&Bytes::from(text)).collect() };
        assert_eq!(all("1\n\n3\n"), ["1", "", "3"]);
        assert_eq!(all("1"), ["1"]);
        assert!(all("").is_empty());
    }

    #[test]
    fn bytes_that_are_no_text_are_hexadecimal() {
        assert_eq!(readable("ü".as_bytes()), Data::Text("ü".to_owned()));
        assert_eq!(readable(&[0xff, 1]), Data::Hex("ff01".to_owned()));
    }
}
