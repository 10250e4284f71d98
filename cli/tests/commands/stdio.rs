//! Sessions through the standard input and output of a process.

use crate::common::{Server, sheetbend};
use std::process::{Output, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_sheetbend");

fn call(url: &str, arguments: &[&str]) -> Output {
    let mut command = sheetbend();
    command.arg("call").arg(url).args(arguments);
    command.output().expect("the command runs")
}

/// What a call prints; it must succeed.
fn text(url: &str, arguments: &[&str]) -> String {
    let output = call(url, arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_call_goes_through_a_process() {
    let url = format!("cmd:{BINARY} serve --stdio");
    assert_eq!(text(&url, &["echo", "--data", "hello"]), "hello");
    assert_eq!(text(&url, &["count", "--data", "3", "--stream"]), "1\n2\n3\n");
    // What it prints is no part of the session.
    let url = format!("cmd:{BINARY} serve --stdio --json");
    assert_eq!(text(&url, &["echo", "--data", "hello"]), "hello");
}

#[test]
fn a_file_goes_through_a_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, store) = (folder.path().join("file"), folder.path().join("store"));
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(&file, &content).expect("written");
    let mut command = sheetbend();
    command.arg("send").arg(&file);
    command.arg(format!(
        "cmd:{BINARY} serve --stdio --store '{}'",
        store.display()
    ));
    let sent = command.arg("--quiet").output().expect("the command runs");
    assert!(sent.status.success(), "{sent:?}");
    assert!(std::fs::read(store.join("file")).expect("stored") == content);
}

#[test]
fn a_process_passes_on_to_a_server_that_outlives_it() {
    let server = Server::start(&["--listen", "127.0.0.1:0"]);
    let url = format!("cmd:{BINARY} serve --stdio --to {}", server.url());
    for word in ["one", "two"] {
        assert_eq!(text(&url, &["echo", "--data", word]), word);
    }
}

#[test]
fn commands_that_fail_are_clear_errors() {
    for command in ["exit 3", "/nowhere/at/all", "echo this is no session"] {
        let output = call(&format!("cmd:{command}"), &["echo", "--deadline", "20s"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let line = String::from_utf8(output.stderr).expect("text");
        assert!(line.contains(&format!("cmd:{command}")), "{line}");
    }
    let nowhere = call(
        &format!("cmd:{BINARY} serve --stdio --to tcp://127.0.0.1:1"),
        &["echo"],
    );
    assert_eq!(nowhere.status.code(), Some(1), "{nowhere:?}");
    let mut command = sheetbend();
    let alone = command
        .args(["serve", "--to", "tcp://127.0.0.1:1"])
        .output()
        .expect("it runs");
    assert_eq!(alone.status.code(), Some(2), "{alone:?}");
}

#[test]
fn it_ends_with_standard_input() {
    let mut command = sheetbend();
    let process = command.args(["serve", "--stdio"]).stdin(Stdio::null()).output();
    let output = process.expect("it runs");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty(), "standard output is the session's");
    assert!(!output.stderr.is_empty());
}
