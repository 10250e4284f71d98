//! `sheetbend probe`: which transports reach a server, how well, and which of them a session would use, and why.

use crate::args::ProbeArgs;
use crate::failure::Failure;
use crate::output;
use crate::units;
use bytes::Bytes;
use serde::Serialize;
use sheetbend_tokio::{Address, Client, ErrorCode, Explanation, Price, Session, runtime};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long each transport may take to open.
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests whose median is the round trip.
const ROUND_TRIPS: usize = 9;
/// For so long each transport is asked how much gets through.
const MEASURE: Duration = Duration::from_millis(500);
/// Bytes of each request for that, and how many are under way.
const LOAD: usize = 128 * 1024;
const UNDER_WAY: usize = 8;
/// How long a session over all of them may take to have its paths up.
const SETTLE: Duration = Duration::from_secs(2);
/// A session has no more paths than this.
const MOST_PATHS: usize = 8;
const GOODBYE: Duration = Duration::from_secs(1);

/// One transport.
#[derive(Debug, Serialize)]
struct Transport {
    url: String,
    opens: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// From nothing to a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_ms: Option<f64>,
    /// Each way; none where the server has no method `echo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    megabytes_per_second: Option<f64>,
}

/// One path of the session over all of them.
#[derive(Debug, Serialize)]
struct Candidate {
    path: String,
    price_ms: f64,
    round_trip_ms: f64,
    errors_ms: f64,
    cost_ms: f64,
    preference_ms: f64,
    evidence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    objection: Option<String>,
}

/// Which path carries the data.
#[derive(Debug, Serialize)]
struct Choice {
    path: String,
    reason: String,
    candidates: Vec<Candidate>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Outcome {
    ok: bool,
    url: String,
    transports: Vec<Transport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    choice: Option<Choice>,
}

/// Probes and prints.
///
/// # Errors
/// No transport reaches the server.
pub async fn run(args: ProbeArgs) -> Result<(), Failure> {
    let mut transports = Vec::new();
    for address in args.url.0.alternatives() {
        let probed = probe(&args, &address).await?;
        if !args.json {
            output::line(&row(&probed))?;
        }
        transports.push(probed);
    }
    let ok = transports.iter().any(|transport| transport.opens);
    let told = if ok { choose(&args).await? } else { None };
    if args.json {
        let outcome = Outcome {
            ok,
            url: args.url.to_string(),
            transports,
            choice: told.as_ref().and_then(choice),
        };
        let text = serde_json::to_string(&outcome).map_err(|error| Failure::failed(error.to_string()))?;
        output::line(&text)?;
    } else if let Some(told) = &told {
        output::line("")?;
        for line in told.to_string().lines() {
            output::line(line)?;
        }
    }
    match ok {
        true => Ok(()),
        false => Err(Failure::failed(format!("nothing reaches {}", args.url))),
    }
}

fn client(args: &ProbeArgs, address: &Address, paths: usize) -> Result<Client, Failure> {
    let builder = Client::builder().endpoint(address);
    let builder = builder.map_err(|error| Failure::usage(error.to_string()))?;
    let builder = args.through.apply(args.trust.apply(builder)?)?;
    let client = builder.standby_paths(paths).build(runtime());
    client.map_err(|error| Failure::failed(error.to_string()))
}

async fn probe(args: &ProbeArgs, address: &Address) -> Result<Transport, Failure> {
    let mut probed = Transport {
        url: address.to_string(),
        opens: false,
        error: None,
        handshake_ms: None,
        rtt_ms: None,
        megabytes_per_second: None,
    };
    let begun = Instant::now();
    let client = match client(args, address, 1) {
        Ok(client) => client,
        Err(failure) => {
            probed.error = Some(failure.to_string());
            return Ok(probed);
        }
    };
    match timeout(PATIENCE, client.connect()).await {
        Err(_) => probed.error = Some(format!("no session within {} s", PATIENCE.as_secs())),
        Ok(Err(error)) => probed.error = Some(error.to_string()),
        Ok(Ok(session)) => {
            probed.opens = true;
            probed.handshake_ms = Some(millis(begun.elapsed()));
            probed.rtt_ms = round_trip(&session).await.map(millis);
            probed.megabytes_per_second = throughput(&session).await;
            let _ = timeout(GOODBYE, session.close(ErrorCode::NONE, "probed")).await;
        }
    }
    Ok(probed)
}

/// The median; an answer that there is no such method is one, too.
async fn round_trip(session: &Session) -> Option<Duration> {
    let mut taken = Vec::new();
    for _ in 0..ROUND_TRIPS {
        let begun = Instant::now();
        let asked = timeout(PATIENCE, session.request("echo", Bytes::from_static(b"probe"))).await;
        if asked.is_err() || session.state().is_terminal() {
            return None;
        }
        taken.push(begun.elapsed());
    }
    taken.sort_unstable();
    taken.get(taken.len() / 2).copied()
}

/// What comes back of large requests, for half a second.
async fn throughput(session: &Session) -> Option<f64> {
    let payload = Bytes::from(vec![0x55; LOAD]);
    let begun = Instant::now();
    let mut under_way = JoinSet::new();
    let mut back = 0_usize;
    loop {
        while under_way.len() < UNDER_WAY && begun.elapsed() < MEASURE {
            let (session, payload) = (session.clone(), payload.clone());
            under_way.spawn(async move { session.request("echo", payload).await.ok() });
        }
        let Some(answer) = timeout(PATIENCE, under_way.join_next()).await.ok()? else {
            break;
        };
        back += answer.ok()??.len();
    }
    let rate = back as f64 / begun.elapsed().as_secs_f64() / 1e6;
    Some((rate * 10.0).round() / 10.0)
}

/// A session over all that there is, and its own explanation.
async fn choose(args: &ProbeArgs) -> Result<Option<Explanation>, Failure> {
    let paths = args.url.0.alternatives().len().clamp(1, MOST_PATHS);
    let client = client(args, &args.url.0, paths)?;
    let session = timeout(PATIENCE, client.connect()).await;
    let Ok(Ok(session)) = session else {
        return Ok(None);
    };
    let begun = Instant::now();
    while session.paths().len() < paths && begun.elapsed() < SETTLE {
        sleep(Duration::from_millis(20)).await;
    }
    let _ = round_trip(&session).await;
    let told = session.explain();
    let _ = timeout(GOODBYE, session.close(ErrorCode::NONE, "probed")).await;
    Ok(told)
}

fn choice(told: &Explanation) -> Option<Choice> {
    let candidate = |row: &sheetbend_tokio::core::policy::selection::Row| {
        let Price {
            latency,
            reliability,
            cost,
            preference,
        } = row.price;
        Candidate {
            path: row.name.to_string(),
            price_ms: millis(row.price.total()),
            round_trip_ms: millis(latency),
            errors_ms: millis(reliability),
            cost_ms: millis(cost),
            preference_ms: millis(preference),
            evidence: row.evidence.to_string(),
            objection: row.objection.map(|objection| objection.to_string()),
        }
    };
    Some(Choice {
        path: told.rows.first()?.name.to_string(),
        reason: told.reason.to_string(),
        candidates: told.rows.iter().map(candidate).collect(),
    })
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}

fn row(probed: &Transport) -> String {
    let url = &probed.url;
    if let Some(error) = &probed.error {
        return format!("{url:<40} no: {error}");
    }
    let number = |value: Option<f64>, unit: &str| match value {
        Some(value) => format!("{value:.2} {unit}"),
        None => "unknown".to_owned(),
    };
    let rate = probed.megabytes_per_second.map(|rate| units::count(rate as u64));
    format!(
        "{url:<40} yes: handshake {}, round trip {}, {} MB/s",
        number(probed.handshake_ms, "ms"),
        number(probed.rtt_ms, "ms"),
        rate.unwrap_or_else(|| "unknown".to_owned())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_is_known() {
        let mut probed = Transport {
            url: "tcp://127.0.0.1:1".to_owned(),
            opens: true,
            error: None,
            handshake_ms: Some(1.234),
            rtt_ms: None,
            megabytes_per_second: Some(1234.5),
        };
        let told = row(&probed);
        assert!(
            told.ends_with("yes: handshake 1.23 ms, round trip unknown, 1,234 MB/s"),
            "{told}"
        );
        probed.error = Some("refused".to_owned());
        assert!(row(&probed).ends_with("no: refused"));
    }
}
