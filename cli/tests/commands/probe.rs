//! `sheetbend probe` as it is run.

use crate::common::{Server, sheetbend};

#[test]
fn every_transport_of_a_server_is_tried() {
    let server = Server::with_certificate();
    let mut command = sheetbend();
    command.args(["probe", "--json", "--each", "50ms", "--pin", &server.pin]);
    command.arg(format!("sheetbend://{}", server.place()));
    let output = command.output().expect("the command runs");
    assert!(output.status.success(), "{output:?}");
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(outcome["ok"], true);
    let transports = outcome["transports"].as_array().expect("a list");
    let names: Vec<&str> = transports
        .iter()
        .filter_map(|row| row["transport"].as_str())
        .collect();
    for name in ["tls", "quic", "wss", "https", "tcp", "ws", "http"] {
        assert!(names.contains(&name), "{names:?}");
    }
    for row in transports {
        assert_eq!(row["opens"], true, "{row}");
        assert!(row["handshake_ms"].as_f64().expect("a number") > 0.0);
        assert!(row["rtt_ms"].as_f64().expect("a number") > 0.0);
        assert!(row["throughput_bytes_per_s"].as_f64().expect("a number") > 0.0);
    }
}

#[test]
fn what_does_not_open_is_said() {
    let mut command = sheetbend();
    // Nobody listens on the discard port of this machine.
    command.args(["probe", "tcp://127.0.0.1:9", "--patience", "500ms"]);
    let output = command.output().expect("the command runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let table = String::from_utf8(output.stdout).expect("text");
    assert!(
        table.lines().any(|line| line.starts_with("tcp       no")),
        "{table}"
    );
}

#[test]
fn why_one_would_be_used_is_said() {
    let server = Server::with_certificate();
    let mut command = sheetbend();
    command.args(["probe", "--json", "--each", "50ms", "--pin", &server.pin]);
    command.arg(format!("sheetbend://{}", server.place()));
    let output = command.output().expect("the command runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let outcome: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let path = outcome["choice"]["path"].as_str().expect("a URL");
    let scheme = path.split_once("://").map_or("", |(scheme, _)| scheme);
    assert!(["quic", "wt", "tls"].contains(&scheme), "{text}");
    let candidates = outcome["choice"]["candidates"].as_array().expect("a list");
    assert!(candidates.len() >= 2, "{text}");
    let price = |index: usize| candidates[index]["price_ms"].as_f64().expect("a number");
    // The path in use comes first; another of the same transport may be cheaper by less than is worth a change.
    let last = candidates.len() - 1;
    assert!(price(0) < price(last), "{text}");
}
