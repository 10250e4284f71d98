//! `sheetbend serve` and `sheetbend call` as they are run.

use crate::common::{Server, sheetbend};
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

/// A server that stores what it is sent.
fn storing(store: &Path, more: &[&str]) -> Server {
    let store = store.to_str().expect("text");
    Server::start(&[&["--listen", "127.0.0.1:0", "--store", store], more].concat())
}

impl Server {
    fn call(&self, arguments: &[&str]) -> Output {
        let mut command = sheetbend();
        command.arg("call").arg(self.url()).args(arguments);
        command.output().expect("the command runs")
    }

    /// What a call prints; it must succeed.
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// The one line that a call which fails gives.
    fn error(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let line = String::from_utf8(output.stderr).expect("text");
        assert_eq!(line.lines().count(), 1, "{line}");
        line
    }
}

#[test]
fn every_method_of_a_server() {
    let store = tempfile::tempdir().expect("a folder");
    std::fs::write(store.path().join("a.txt"), "hello\n".repeat(50_000)).expect("written");
    std::fs::write(store.path().join(".hidden"), "x").expect("written");
    let server = storing(store.path(), &["--share"]);
    assert_eq!(server.text(&["echo", "--data", "hello"]), "hello");
    assert!(server.text(&["time"]).parse::<f64>().expect("seconds") > 1e9);
    assert_eq!(server.text(&["count", "--stream", "--data", "3"]), "1\n2\n3\n");
    assert_eq!(server.text(&["files", "--stream"]), "300000 a.txt\n");
    let whole = server.text(&["read", "--stream", "--raw", "--data", "a.txt"]);
    assert_eq!(whole, "hello\n".repeat(50_000));

    // What the request is made of comes from standard input.
    let mut command = sheetbend();
    let arguments = ["call", server.url(), "sum", "--items", "--data-file", "-"];
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut process = command.spawn().expect("the command runs");
    let mut input = process.stdin.take().expect("piped");
    input.write_all(b"20\n20\n2\n").expect("written");
    drop(input);
    let output = process.wait_with_output().expect("ends");
    assert_eq!(output.stdout, b"42", "{output:?}");
}

#[test]
fn json_is_a_line_for_each_item_and_one_object() {
    let store = tempfile::tempdir().expect("a folder");
    let server = storing(store.path(), &[]);
    let text = server.text(&["count", "--stream", "--data", "2", "--json", "--deadline", "20s"]);
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["item"]["text"], "1");
    assert_eq!((&lines[2]["ok"], &lines[2]["items"]), (&true.into(), &2.into()));
    for _ in 0..2 {
        let text = server.text(&["echo", "--data", "x", "--json", "--key", "k", "-H", "a=b"]);
        let object: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(object["payload"]["text"], "x");
    }
    let output = server.call(&["nothing", "--json"]);
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&object["ok"], &object["code"], &object["executed"]),
        (&false.into(), &"UNIMPLEMENTED".into(), &"no".into())
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn what_goes_wrong_is_one_clear_line() {
    let store = tempfile::tempdir().expect("a folder");
    std::fs::write(store.path().join("a.txt"), "x").expect("written");
    let server = storing(store.path(), &[]);
    assert_eq!(
        server.error(&["nothing"]),
        "sheetbend: nothing: refused, not executed: UNIMPLEMENTED: there is no such method\n"
    );
    // Files are for those who may look.
    assert!(
        server
            .error(&["read", "--stream", "--data", "a.txt"])
            .contains("UNIMPLEMENTED")
    );
    assert!(
        server
            .error(&["count", "--stream", "--data", "ten"])
            .contains("'ten' is not a number")
    );
    assert!(
        server
            .error(&["echo", "--stream"])
            .contains("this method is Unary")
    );
    assert!(
        server
            .error(&["echo", "--data-file", "/nowhere"])
            .contains("cannot read /nowhere")
    );
    assert!(server.error(&["", "--data", "x"]).contains("a method's name"));
    let output = server.call(&["echo", "-H", "Not A Key=x"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let mut command = sheetbend();
    let nobody = command
        .args(["call", "tcp://127.0.0.1:1", "echo"])
        .output()
        .expect("it runs");
    assert_eq!(nobody.status.code(), Some(1));
    let line = String::from_utf8(nobody.stderr).expect("text");
    assert!(
        line.starts_with("sheetbend: cannot reach the server (tcp://127.0.0.1:1: "),
        "{line}"
    );
    assert_eq!(line.lines().count(), 1);
}
