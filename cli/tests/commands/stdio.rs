//! Sessions through the standard input and output of a process.

use crate::common::sheetbend;
use std::io::{BufRead, BufReader};
use std::process::{Child, Output, Stdio};

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

/// A server that lives on its own.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn daemon() -> (Daemon, String) {
    let mut command = sheetbend();
    command.args(["serve", "--json", "--listen", "127.0.0.1:0"]);
    let mut process = command.stdout(Stdio::piped()).spawn().expect("the server starts");
    let mut line = String::new();
    let mut news = BufReader::new(process.stdout.take().expect("piped"));
    news.read_line(&mut line).expect("readable");
    let listening: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let url = listening["addresses"][0].as_str().expect("text").to_owned();
    (Daemon(process), url)
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
    let (_daemon, address) = daemon();
    let url = format!("cmd:{BINARY} serve --stdio --to {address}");
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
