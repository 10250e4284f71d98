//! The command as it is run: exit codes, and what goes to which stream.

use std::process::{Command, Output};

fn sheetbend(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sheetbend"));
    command.args(arguments).output().expect("the command runs")
}

#[test]
fn a_wrong_command_line_is_one_line_on_stderr_and_code_2() {
    for arguments in [
        &[][..],
        &["dmo"],
        &["proxy"],
        &["proxy", "--to", "h:1"],
        &["proxy", "--wrong"],
    ] {
        let output = sheetbend(arguments);
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(
            text.starts_with("sheetbend: ") && text.ends_with('\n') && text.lines().count() == 1,
            "{text}"
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn what_cannot_be_done_is_one_line_on_stderr_and_code_1() {
    let output = sheetbend(&[
        "proxy",
        "--listen",
        "unix:///nowhere/at/all",
        "--to",
        "tcp://localhost:1",
    ]);
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.starts_with("sheetbend: cannot listen on unix:///nowhere/at/all: "),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn help_and_version_are_answers() {
    for arguments in [&["--help"][..], &["--version"], &["proxy", "--help"]] {
        let output = sheetbend(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
}

#[test]
fn json_is_one_object_on_stdout() {
    let output = sheetbend(&["proxy", "--to", "tcp://localhost:1", "--seconds", "0", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(object["ok"], true);
    assert_eq!(object["connections"], 0);
}

#[test]
fn a_swarm_is_the_same_with_any_number_of_threads() {
    let report = |threads: &str| {
        let output = sheetbend(&[
            "sim",
            "--scenario",
            "swarm",
            "--seeds",
            "0..6",
            "--json",
            "--threads",
            threads,
        ]);
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!(output.status.code(), Some(0), "{text}");
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")
    };
    let (one, three) = (report("1"), report("3"));
    assert_eq!(one["trace_hash"], three["trace_hash"]);
    assert_eq!(one["seeds"], 6);
    assert_eq!(one["failed"], serde_json::json!([]));
    assert_eq!(one["trace_hash"].as_str().map(str::len), Some(16));
}

#[test]
fn a_token_is_replayed() {
    let output = sheetbend(&["sim", "--replay", "swarm.7.bAw", "--json"]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(0), "{text}");
    let replayed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(replayed["items"].as_array().map(Vec::len), Some(2));
    let output = sheetbend(&["sim", "--shrink", "swarm.7.bAw"]);
    assert_eq!(
        output.status.code(),
        Some(1),
        "it does not fail: nothing to shrink"
    );
}
