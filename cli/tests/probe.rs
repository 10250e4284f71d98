//! `sheetbend probe`, as a user runs it.

mod common;

use common::sheetbend;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

#[test]
fn probe_tells_what_opens_and_why_one_would_be_used() {
    let mut serving = sheetbend();
    serving.args([
        "serve",
        "--json",
        "--tls",
        "self-signed",
        "--listen",
        "127.0.0.1:0",
    ]);
    let mut server = serving.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    let told = server.stdout.take().map(BufReader::new);
    let read = told.expect("it has an output").read_line(&mut line);
    assert!(read.is_ok_and(|count| count > 0), "it says where it listens");
    let told: serde_json::Value = serde_json::from_str(&line).expect("an object");
    let address = told["addresses"][0].as_str().expect("an address");
    let pin = told["pin"].as_str().expect("a pin");
    let authority = address.split_once("://").map_or(address, |(_, rest)| rest);
    let url = format!("sheetbend://{authority}");
    let mut probe = sheetbend();
    let out = probe
        .args(["probe", "--json", "--pin", pin, &url])
        .output()
        .expect("it runs");
    let _ = server.kill();
    let _ = server.wait();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "{text} {}",
        String::from_utf8_lossy(&out.stderr)
    );
    let told: serde_json::Value = serde_json::from_str(text.trim()).expect("an object");
    let transports = told["transports"].as_array().expect("a list");
    let opens = transports.iter().filter(|one| one["opens"] == true).count();
    assert!(opens >= 6, "{text}");
    assert!(
        told["choice"]["path"]
            .as_str()
            .is_some_and(|path| path.starts_with("quic://") || path.starts_with("tls://")),
        "{text}"
    );
    let candidates = told["choice"]["candidates"].as_array().expect("a list");
    assert!(candidates.len() >= 2, "{text}");
    let price = |index: usize| candidates[index]["price_ms"].as_f64().expect("a number");
    assert!(price(0) < price(1), "{text}");
}
