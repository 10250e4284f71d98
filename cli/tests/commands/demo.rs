//! `sheetbend demo` as it is run: its own checks hold on a short run.

use std::process::Command;

#[test]
fn nothing_is_lost_while_paths_are_broken() {
    let output = Command::new(env!("CARGO_BIN_EXE_sheetbend"))
        .args(["demo", "--json", "--seconds", "5"])
        .output()
        .expect("the command runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let report: serde_json::Value = serde_json::from_str(&text).expect("one JSON object");
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["ok"], true);
    let transports = report["transports"].as_array().expect("a list");
    let known = [
        "tcp", "tls", "unix", "ws", "wss", "binary", "sse", "ndjson", "poll", "quic", "wt",
    ];
    assert!(transports.len() > 1, "{transports:?}");
    assert!(
        transports
            .iter()
            .all(|one| known.iter().any(|known| one == known))
    );
    for (kind, arrived) in [("requests", "answered"), ("messages", "delivered")] {
        let part = &report[kind];
        assert!(
            part["sent"].as_u64() > Some(0) && part["sent"] == part[arrived],
            "{part}"
        );
        assert_eq!((&part["lost"], &part["duplicated"]), (&0.into(), &0.into()));
    }
    assert_eq!(report["messages"]["reordered"], 0);
    assert_eq!(report["stream"]["intact"], true);
    let switches = report["switches"].as_array().expect("a list");
    for key in ["from", "to", "cause"] {
        assert!(
            switches.iter().all(|switch| switch[key].is_string()),
            "{switches:?}"
        );
    }
    // However slow the machine, the first fault of the run is a cut of the path in use.
    assert!(
        switches.iter().any(|switch| switch["cause"] == "cut"),
        "{switches:?}"
    );
    assert!(report["seconds"].as_f64() > Some(0.0));
}
