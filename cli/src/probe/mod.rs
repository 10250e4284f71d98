//! `sheetbend probe`: which transports lead to a server from here, what each is worth, and which one a session would
//! use.

mod explain;
mod measure;

use crate::args::ProbeArgs;
use crate::failure::Failure;
use crate::output;
use crate::units;
use measure::{Figures, measure};
use serde::Serialize;
use sheetbend_tokio::{Address, Client, ErrorCode, runtime};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// One transport, as it was found.
#[derive(Debug, Serialize)]
struct Row {
    transport: &'static str,
    address: String,
    /// Whether a session could be made over it.
    opens: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// From the first packet to the session that stands, names resolved and sockets connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake_ms: Option<f64>,
    #[serde(flatten)]
    figures: Figures,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    ok: bool,
    transports: &'a [Row],
    /// What a session over all of them uses, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    choice: Option<explain::Choice>,
}

/// Tries every transport that the URL stands for, one after another.
///
/// # Errors
/// None of them opens, or the command line is wrong.
pub async fn run(args: ProbeArgs) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for address in args.url.0.alternatives() {
        rows.push(probe(&args, address).await?);
    }
    let opening = rows.iter().filter(|row| row.opens).count();
    let ok = opening > 0;
    let told = match ok {
        true => explain::explain(&args, opening).await?,
        false => None,
    };
    if args.json {
        let outcome = Outcome {
            ok,
            transports: &rows,
            choice: told.as_ref().and_then(explain::Choice::of),
        };
        let text = serde_json::to_string(&outcome).map_err(|error| Failure::failed(error.to_string()))?;
        output::line(&text)?;
    } else {
        table(&rows).iter().try_for_each(|line| output::line(line))?;
        if let Some(told) = told {
            output::line("")?;
            told.to_string().lines().try_for_each(output::line)?;
        }
    }
    match ok {
        true => Ok(()),
        false => Err(Failure::failed(format!("nothing leads to {}", args.url))),
    }
}

async fn probe(args: &ProbeArgs, address: Address) -> Result<Row, Failure> {
    let client = Client::builder().endpoint(&address);
    let client = client.map_err(|error| Failure::usage(error.to_string()))?;
    let client = args.through.apply(args.trust.apply(client)?)?;
    let mut row = Row {
        transport: address.transport(),
        address: address.to_string(),
        opens: false,
        error: None,
        handshake_ms: None,
        figures: Figures::default(),
    };
    let start = Instant::now();
    match timeout(args.patience, client.connect(runtime())).await {
        Err(_) => row.error = Some(format!("no answer within {:?}", args.patience)),
        Ok(Err(error)) => row.error = Some(error.to_string()),
        Ok(Ok(session)) => {
            row.opens = true;
            row.handshake_ms = Some(millis(start.elapsed()));
            row.figures = measure(&session, args.each, args.patience).await;
            let _ = timeout(GOODBYE, session.close(ErrorCode::NONE, "")).await;
        }
    }
    Ok(row)
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn table(rows: &[Row]) -> Vec<String> {
    let line = |cells: [&str; 5], more: &str| {
        let [transport, opens, handshake, rtt, throughput] = cells;
        let text = format!("{transport:<10}{opens:<7}{handshake:>12}{rtt:>12}{throughput:>14}  {more}");
        text.trim_end().to_owned()
    };
    let head = line(["", "opens", "handshake", "round trip", "throughput"], "");
    let body = rows.iter().map(|row| {
        let time = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.2} ms"));
        let rate = row
            .figures
            .throughput_bytes_per_s
            .map_or("-".to_owned(), |rate| format!("{}/s", units::bytes(rate as u64)));
        let opens = if row.opens { "yes" } else { "no" };
        let (handshake, rtt) = (time(row.handshake_ms), time(row.figures.rtt_ms));
        line(
            [row.transport, opens, &handshake, &rtt, &rate],
            row.error.as_deref().unwrap_or_default(),
        )
    });
    std::iter::once(head).chain(body).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_transport() {
        let found = Row {
            transport: "quic",
            address: "quic://h:1".into(),
            opens: true,
            error: None,
            handshake_ms: Some(1.234),
            figures: Figures {
                rtt_ms: Some(0.5),
                rtt_min_ms: Some(0.4),
                throughput_bytes_per_s: Some(2e9),
            },
        };
        let missing = Row {
            transport: "tcp",
            address: "tcp://h:1".into(),
            opens: false,
            error: Some("refused".into()),
            handshake_ms: None,
            figures: Figures::default(),
        };
        let table = table(&[found, missing]);
        assert_eq!(table.len(), 3);
        assert!(table[1].starts_with("quic      yes"), "{table:?}");
        assert!(
            table[1].contains("1.23 ms") && table[1].contains("0.50 ms"),
            "{table:?}"
        );
        assert!(table[2].starts_with("tcp       no"), "{table:?}");
        assert!(table[2].ends_with("refused"), "{table:?}");
    }
}
