//! `sheetbend bench`: how fast sessions are on this machine, client and server in one process; or requests to a
//! server elsewhere; or how much memory many sessions take; or how long a change of transport is noticed.

pub mod failover;
mod measure;
mod sessions;

use crate::args::BenchArgs;
use crate::failure::Failure;
use crate::output;
use crate::units;
use measure::{Pair, requests};
use serde::Serialize;
use sheetbend_tokio::{Client, ErrorCode, Session, runtime};
use std::collections::BTreeMap;
use std::time::Duration;

/// Requests in flight at a time, one row each.
const IN_FLIGHT: [usize; 4] = [1, 16, 128, 1024];
/// The transports compared.
const TRANSPORTS: [&str; 8] = ["tcp", "tls", "ws", "wss", "quic", "wt", "unix", "mem"];
/// Rows per transport that take time of their own; the round trip is that of one request in flight.
const TIMED_ROWS: u32 = 6;

/// One measurement over all transports.
#[derive(Debug, Serialize)]
struct Row {
    /// What was measured.
    test: String,
    /// The same in a word or two, for the head of a column.
    #[serde(skip)]
    heading: String,
    /// In which unit.
    unit: &'static str,
    /// By transport.
    #[serde(flatten)]
    values: BTreeMap<&'static str, f64>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Outcome {
    ok: bool,
    rows: Vec<Row>,
    seconds: f64,
}

/// What one transport reached.
#[derive(Debug, Default)]
struct Reached {
    median: Duration,
    slow: Duration,
    requests: Vec<f64>,
    bulk: Option<f64>,
    messages: Option<f64>,
}

/// Measures and prints.
///
/// # Errors
/// A session cannot be made, or fails on the way.
pub async fn run(args: BenchArgs) -> Result<(), Failure> {
    let start = std::time::Instant::now();
    if args.failover {
        return failover::run(&args).await;
    }
    if let Some(count) = args.sessions {
        return sessions::run(&args, count as usize).await;
    }
    let (names, reached) = match &args.url {
        Some(_) => elsewhere(&args).await?,
        None if !args.trust.is_empty() || args.through.proxy.is_some() => {
            let what =
                "--pin, --ca, --through-tls-proxy and --proxy are about a server elsewhere: write its URL";
            return Err(Failure::usage(what));
        }
        None => here(&args).await?,
    };
    let rows = rows(&names, &reached);
    if args.json {
        let seconds = (start.elapsed().as_secs_f64() * 1e3).round() / 1e3;
        let result = Outcome {
            ok: true,
            rows,
            seconds,
        };
        let text = serde_json::to_string(&result).map_err(|error| Failure::failed(error.to_string()))?;
        return output::line(&text);
    }
    table(&names, &rows)
        .iter()
        .try_for_each(|line| output::line(line))
}

/// What is reached over each transport, by its name.
type Measured = (Vec<&'static str>, Vec<Reached>);

/// Every transport on this machine.
async fn here(args: &BenchArgs) -> Result<Measured, Failure> {
    let timed = if args.rps {
        IN_FLIGHT.len() as u32
    } else {
        TIMED_ROWS
    };
    let each = Duration::from_secs(args.seconds) / (TRANSPORTS.len() as u32 * timed);
    let mut reached = Vec::new();
    for transport in TRANSPORTS {
        if !args.json {
            output::aside(&format!("measuring {transport} …"));
        }
        reached.push(measure_all(transport, each, args.rps).await?);
    }
    Ok((TRANSPORTS.to_vec(), reached))
}

/// Requests to one server.
async fn elsewhere(args: &BenchArgs) -> Result<Measured, Failure> {
    let Some(url) = &args.url else {
        return Ok(Measured::default());
    };
    let client = Client::builder().endpoint(&url.0);
    let client = client.map_err(|error| Failure::usage(error.to_string()))?;
    let client = args.through.apply(args.trust.apply(client)?)?;
    let session = client.connect(runtime()).await;
    let session = session.map_err(|error| Failure::failed(error.to_string()))?;
    let each = Duration::from_secs(args.seconds) / IN_FLIGHT.len() as u32;
    let mut reached = Reached::default();
    measure_requests(&session, each, &mut reached).await?;
    let _ = tokio::time::timeout(Duration::from_secs(1), session.close(ErrorCode::NONE, "")).await;
    Ok((vec![url.0.transport()], vec![reached]))
}

async fn measure_requests(client: &Session, each: Duration, reached: &mut Reached) -> Result<(), Failure> {
    for in_flight in IN_FLIGHT {
        let requests = requests(client, in_flight, each).await?;
        reached.requests.push(requests.per_second);
        if in_flight == 1 {
            (reached.median, reached.slow) = (requests.median, requests.slow);
        }
    }
    Ok(())
}

async fn measure_all(transport: &str, each: Duration, rps: bool) -> Result<Reached, Failure> {
    let pair = Pair::connect(transport).await?;
    let mut reached = Reached::default();
    measure_requests(pair.client(), each, &mut reached).await?;
    if !rps {
        reached.bulk = Some(pair.bulk(each).await?);
        reached.messages = Some(pair.messages(each).await?);
    }
    pair.close().await;
    Ok(reached)
}

fn rows(names: &[&'static str], reached: &[Reached]) -> Vec<Row> {
    let row = |test: &str, heading: &str, unit, of: &dyn Fn(&Reached) -> f64| {
        let value = |index: usize| {
            reached
                .get(index)
                .map_or(0.0, |one| (of(one) * 10.0).round() / 10.0)
        };
        Row {
            test: test.to_owned(),
            heading: heading.to_owned(),
            unit,
            values: names.iter().copied().zip((0..).map(value)).collect(),
        }
    };
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let mut rows = vec![
        row("round trip, median", "median", "µs", &|one| micros(one.median)),
        row("round trip, 99th percentile", "99th", "µs", &|one| {
            micros(one.slow)
        }),
    ];
    for (index, in_flight) in IN_FLIGHT.into_iter().enumerate() {
        let name = format!("requests, {in_flight} in flight");
        rows.push(row(&name, &format!("{in_flight} calls"), "per second", &|one| {
            one.requests.get(index).copied().unwrap_or(0.0)
        }));
    }
    if reached.iter().any(|one| one.bulk.is_some()) {
        rows.push(row("one stream", "stream", "MB/s", &|one| {
            one.bulk.unwrap_or(0.0) / 1e6
        }));
        rows.push(row("messages of 64 bytes", "messages", "per second", &|one| {
            one.messages.unwrap_or(0.0)
        }));
    }
    rows
}

/// A line for each transport, as there are more of them than fit beside one another.
fn table(names: &[&str], rows: &[Row]) -> Vec<String> {
    let line = |name: &str, cells: &mut dyn Iterator<Item = String>| {
        let cells: String = cells.map(|cell| format!("{cell:>11}")).collect();
        format!("{name:<6}{cells}")
    };
    let number = |value: f64| {
        if value < 100.0 {
            format!("{value:.1}")
        } else {
            units::count(value as u64)
        }
    };
    let mut table = vec![
        line("", &mut rows.iter().map(|row| row.heading.clone())),
        line("", &mut rows.iter().map(|row| row.unit.to_owned())),
    ];
    for name in names {
        let of = |row: &Row| number(row.values.get(name).copied().unwrap_or(0.0));
        table.push(line(name, &mut rows.iter().map(of)));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_transport() {
        let reached = |factor: f64| Reached {
            median: Duration::from_micros(20),
            slow: Duration::from_micros(345),
            requests: vec![factor, 2.0 * factor, 3.0, 4.0],
            bulk: Some(2.5e9),
            messages: Some(1e6),
        };
        let factors = [1000.0, 2000.0, 3000.0, 4000.0, 5000.0, 6000.0, 7000.0, 8000.0];
        let rows = rows(&TRANSPORTS, &factors.map(reached));
        let table = table(&TRANSPORTS, &rows);
        assert_eq!(table.len(), TRANSPORTS.len() + 2);
        assert!(
            table[0].ends_with("1024 calls     stream   messages"),
            "{table:#?}"
        );
        let mem =
            "mem          20.0        345      8,000     16,000        3.0        4.0      2,500  1,000,000";
        assert_eq!(table[9], mem);
        assert!(table.iter().all(|line| line.chars().count() <= 100));
    }
}
