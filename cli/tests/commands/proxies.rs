//! The command through proxies, and with the flags that say whom to believe.
#![allow(clippy::disallowed_methods)] // a proxy has threads

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use crate::common::{Server, sheetbend};

/// An HTTP proxy that leads anywhere, and what it was asked.
fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let known = asked.clone();
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let known = known.clone();
            std::thread::spawn(move || lead(near, &known));
        }
    });
    (address, asked)
}

fn lead(mut near: TcpStream, known: &Mutex<Vec<String>>) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        near.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let target = head.strip_prefix("CONNECT ")?.split(' ').next()?;
    known.lock().ok()?.push(target.to_owned());
    let mut far = TcpStream::connect(target).ok()?;
    near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let (mut back, mut to) = (far.try_clone().ok()?, near.try_clone().ok()?);
    std::thread::spawn(move || std::io::copy(&mut back, &mut to));
    std::io::copy(&mut near, &mut far).ok()?;
    Some(())
}

fn run(mut command: Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the command runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

fn echo(url: &str, more: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = sheetbend();
    command.args(["call", url, "echo", "--data", "x"]).args(more);
    command.envs(environment.iter().copied());
    run(command)
}

#[test]
fn calls_go_through_the_proxy_that_is_named() {
    let server = Server::with_certificate();
    let (proxy, asked) = proxy();
    let url = format!("http://{proxy}");
    let asked_once = |what: &str| {
        let asked = std::mem::take(&mut *asked.lock().expect("unharmed"));
        assert_eq!(asked, [server.place()], "{what}");
    };
    let straight = |what: &str| assert!(asked.lock().expect("unharmed").is_empty(), "{what}");
    let answered = |outcome: (Option<i32>, String, String)| {
        assert_eq!(outcome, (Some(0), "x".to_owned(), String::new()));
    };
    let tcp = format!("tcp://{}", server.place());
    answered(echo(&tcp, &["--proxy", &url], &[]));
    asked_once("--proxy");
    for (scheme, variable) in [
        ("tcp", "HTTPS_PROXY"),
        ("wss", "https_proxy"),
        ("ws", "HTTP_PROXY"),
        ("tls", "ALL_PROXY"),
    ] {
        let url = format!("{scheme}://{}", server.place());
        let pin: &[&str] = match scheme {
            "tls" | "wss" => &["--pin", &server.pin],
            _ => &[],
        };
        answered(echo(&url, pin, &[(variable, &proxy)]));
        asked_once(variable);
    }
    answered(echo(
        &tcp,
        &[],
        &[("ALL_PROXY", &url), ("NO_PROXY", "example.com,127.0.0.0/8")],
    ));
    straight("NO_PROXY");
    answered(echo(
        &tcp,
        &["--proxy", "none"],
        &[("ALL_PROXY", "socks5://127.0.0.1:1")],
    ));
    straight("--proxy none");
}

#[test]
fn proxies_that_cannot_be_used_are_one_clear_line() {
    let (code, _, line) = echo("tcp://127.0.0.1:1", &[], &[("ALL_PROXY", "socks4://x:1")]);
    assert_eq!(code, Some(2));
    assert_eq!(
        line,
        "sheetbend: ALL_PROXY: proxies of the kind `socks4` are not spoken here: known are http, https, socks5 and \
         socks5h; or go straight by --proxy none\n"
    );
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = format!("socks5h://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let (code, _, line) = echo("tcp://127.0.0.1:1", &["--proxy", &nobody], &[]);
    assert_eq!(code, Some(1));
    assert!(line.contains(&format!("through the proxy {nobody}: ")), "{line}");
    assert_eq!(line.lines().count(), 1);
}

#[test]
fn calls_and_measurements_know_whom_to_believe() {
    let server = Server::with_certificate();
    let url = format!("wss://{}", server.place());
    let (code, _, line) = echo(&url, &[], &[]);
    assert_eq!(code, Some(1));
    assert!(line.contains("unknown issuer"), "{line}");
    let other = format!("sha256/{}", "A".repeat(43));
    let (code, _, line) = echo(&url, &["--pin", &other], &[]);
    assert_eq!(code, Some(1));
    assert!(line.contains(&server.pin), "{line}");
    let (code, text, _) = echo(&url, &["--pin", &server.pin], &[]);
    assert_eq!((code, text.as_str()), (Some(0), "x"));

    // Whatever works is nothing plain where somebody answers whom nobody vouches for, nor with a pin.
    let any = format!("sheetbend://{}", server.place());
    let (code, _, line) = echo(&any, &[], &[]);
    assert_eq!(code, Some(1));
    assert!(
        line.contains("unknown issuer") && !line.contains("tcp://"),
        "{line}"
    );
    let (code, text, line) = echo(&any, &["--pin", &server.pin], &[]);
    assert_eq!((code, text.as_str()), (Some(0), "x"), "{line}");
    let (code, _, line) = echo(&any, &["--pin", &other], &[]);
    assert_eq!(code, Some(1));
    assert!(line.contains(&server.pin) && !line.contains("tcp://"), "{line}");

    let mut command = sheetbend();
    command.args(["bench", &url, "--pin", &server.pin, "--seconds", "1", "--json"]);
    let (code, text, line) = run(command);
    assert_eq!(code, Some(0), "{line}");
    let measured: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(measured["ok"], true);
    let rows = measured["rows"].as_array().expect("rows");
    assert!(
        rows.iter()
            .all(|row| row["wss"].as_f64().is_some_and(|value| value > 0.0)),
        "{text}"
    );

    let mut command = sheetbend();
    command.args(["bench", "--pin", &server.pin]);
    let (code, _, line) = run(command);
    assert_eq!(code, Some(2));
    assert!(line.contains("write its URL"), "{line}");
}

#[test]
fn many_sessions_at_once_all_answer() {
    for scheme in ["ws", "wss"] {
        let mut command = sheetbend();
        command.args(["bench", "--sessions", "100", "--over", scheme, "--json"]);
        let (code, text, line) = run(command);
        assert_eq!(code, Some(0), "{line}");
        let measured: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            (&measured["ok"], &measured["answered"]),
            (&true.into(), &100.into())
        );
        assert_eq!(measured["transport"], scheme);
    }
}
