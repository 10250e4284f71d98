//! Which of the transports a session would use, and why, in the session's own words.

use super::{GOODBYE, millis};
use crate::args::ProbeArgs;
use crate::failure::Failure;
use serde::Serialize;
use sheetbend_tokio::core::policy::selection::Row;
use sheetbend_tokio::core::session::PathState;
use sheetbend_tokio::{Client, ErrorCode, Explanation, Price, runtime};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// A session has no more paths than this.
const MOST_PATHS: usize = 8;
/// How often it is looked whether all paths are up.
const LOOK: Duration = Duration::from_millis(10);

/// One path of a session over all that opens.
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

/// Which of them carries the data.
#[derive(Debug, Serialize)]
pub(super) struct Choice {
    path: String,
    reason: String,
    candidates: Vec<Candidate>,
}

/// Makes a session over all transports of the URL, of which `opening` opened one by one, and asks it.
pub(super) async fn explain(args: &ProbeArgs, opening: usize) -> Result<Option<Explanation>, Failure> {
    let paths = opening.clamp(1, MOST_PATHS);
    let client = Client::builder().endpoint(&args.url.0);
    let client = client.map_err(|error| Failure::usage(error.to_string()))?;
    let client = args
        .through
        .apply(args.trust.apply(client)?)?
        .standby_paths(paths);
    let session = timeout(args.patience, client.connect(runtime())).await;
    let Ok(Ok(session)) = session else {
        return Ok(None);
    };
    let begun = Instant::now();
    let up = || {
        let paths = session.paths();
        let up = paths
            .iter()
            .filter(|path| !matches!(path.state, PathState::Handshake | PathState::Closing));
        up.count()
    };
    while up() < paths && begun.elapsed() < args.patience {
        sleep(LOOK).await;
    }
    sleep(LOOK).await;
    let told = session.explain();
    let _ = timeout(GOODBYE, session.close(ErrorCode::NONE, "")).await;
    Ok(told)
}

fn candidate(row: &Row) -> Candidate {
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
}

impl Choice {
    /// The same as data.
    pub(super) fn of(told: &Explanation) -> Option<Choice> {
        Some(Choice {
            path: told.rows.first()?.name.to_string(),
            reason: told.reason.to_string(),
            candidates: told.rows.iter().map(candidate).collect(),
        })
    }
}
