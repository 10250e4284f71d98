//! `sheetbend serve` and `sheetbend send` as they are run, with faults between them.

use crate::common::{Server, sheetbend};
use sheetbend_cli::address::{Address, ListenAddress};
use sheetbend_cli::demo::pattern;
use sheetbend_cli::proxy::Proxy;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const SIZE: usize = 20 * 1024 * 1024;

fn listening(listen: &[&str], store: Option<&Path>) -> Server {
    let store = store.map(|store| store.to_str().expect("text"));
    let store: Vec<&str> = store.into_iter().flat_map(|store| ["--store", store]).collect();
    Server::start(&[&["--listen"], listen, &store].concat())
}

fn send(files: &[&Path], urls: &[&str]) -> Command {
    let mut command = sheetbend();
    command.args(["send", "--json"]).args(files).arg(urls[0]);
    for url in &urls[1..] {
        command.args(["--also", url]);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn report(output: &Output) -> serde_json::Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

/// A file of `bytes` bytes, and the store's folder beside it.
fn bench(bytes: usize) -> (TempDir, PathBuf, PathBuf) {
    let folder = TempDir::new().expect("a folder");
    let (file, store) = (folder.path().join("data"), folder.path().join("store"));
    let mut data = vec![0; bytes];
    pattern::fill(0, &mut data);
    std::fs::write(&file, data).expect("write");
    (folder, file, store)
}

fn same(a: &Path, b: &Path) -> bool {
    std::fs::read(a).expect("there") == std::fs::read(b).expect("there")
}

async fn proxy(listen: &str, target: &str) -> Proxy {
    let listen: ListenAddress = listen.parse().expect("valid");
    let target: Address = target.parse().expect("valid");
    Proxy::start(&listen.0, &target).await.expect("the proxy starts")
}

fn one_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_arrives_whole_while_both_its_paths_are_cut() {
    let (_folder, file, store) = bench(SIZE);
    let mut server = listening(&["127.0.0.1:0", "127.0.0.1:0"], Some(&store));
    let proxies = [
        proxy("127.0.0.1:0", &server.addresses[0]).await,
        proxy("127.0.0.1:0", &server.addresses[1]).await,
    ];
    let handles = proxies.each_ref().map(Proxy::handle);
    let urls = handles.each_ref().map(|handle| handle.address().to_string());
    let sending = send(&[&file], &[&urls[0], &urls[1]]).spawn().expect("starts");
    for round in 1..=8 {
        let through = || -> u64 {
            handles
                .iter()
                .map(|handle| handle.counters().to_target_bytes)
                .sum()
        };
        // Each wakes when its own counters change; either may carry the data.
        tokio::select! {
            _ = handles[0].wait_for(|_| through() >= round * 2_000_000) => {}
            _ = handles[1].wait_for(|_| through() >= round * 2_000_000) => {}
        }
        match round % 4 {
            0 => handles.iter().for_each(|handle| {
                handle.cut();
            }),
            1 => {
                handles[0].reset();
            }
            _ => {
                handles[round as usize % 2].cut();
            }
        }
    }
    let output = tokio::task::spawn_blocking(|| sending.wait_with_output()).await;
    let output = output.expect("waited").expect("ended");
    let report = report(&output);
    assert!(output.status.success() && report["ok"] == true, "{report}");
    assert_eq!(report["files"][0]["bytes"], SIZE);
    let stored = server.news();
    assert_eq!(stored["event"], "stored");
    assert_eq!(stored["sha256"], report["files"][0]["sha256"]);
    assert!(same(&file, &store.join("data")));
    assert_eq!(server.interrupt()["event"], "stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_goes_on_with_a_server_that_was_started_anew() {
    let (folder, file, store) = bench(SIZE);
    let socket = format!("unix://{}", folder.path().join("serve.sock").display());
    let server = listening(&[&socket], Some(&store));
    // A proxy of another transport would make the path weaker than the server accepts.
    let near = format!("unix://{}", folder.path().join("proxy.sock").display());
    let proxy = proxy(&near, &socket).await;
    let handle = proxy.handle();
    // Slow until the server is gone, so that it goes in the middle.
    handle.throttle(Some(4_000_000));
    let sending = send(&[&file], &[&handle.address().to_string()])
        .spawn()
        .expect("starts");
    handle
        .wait_for(|counters| counters.to_target_bytes > SIZE as u64 / 4)
        .await;
    // The process dies without a word, and takes every session with it.
    drop(server);
    handle.throttle(None);
    let mut server = listening(&[&socket], Some(&store));
    let output = tokio::task::spawn_blocking(|| sending.wait_with_output()).await;
    let output = output.expect("waited").expect("ended");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let stored = server.news();
    assert!(stored["resumed_at"].as_u64() > Some(0), "{stored}");
    assert!(same(&file, &store.join("data")));
}

#[test]
fn hostile_bytes_harm_nobody_else() {
    let (_folder, file, store) = bench(1_000_000);
    let server = listening(&["127.0.0.1:0"], Some(&store));
    let address = server.addresses[0].strip_prefix("tcp://").expect("TCP");
    let mute = TcpStream::connect(address).expect("connects");
    for junk in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 4096],
        &[0xff; 300_000],
        b"\x00\x00\x05\x08hello",
        &[1],
    ] {
        let mut socket = TcpStream::connect(address).expect("connects");
        // The server may close before all is written.
        let _ = socket.write_all(junk);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let _ = socket.read_to_end(&mut Vec::new());
    }
    let output = send(&[&file], &[&server.addresses[0]]).output().expect("runs");
    assert!(output.status.success());
    assert!(same(&file, &store.join("data")));
    drop(mute);
}

#[test]
fn several_files_are_sent_and_those_that_cannot_be_are_named() {
    let (folder, file, store) = bench(300_000);
    let (empty, missing) = (folder.path().join("empty"), folder.path().join("missing"));
    std::fs::write(&empty, b"").expect("write");
    let server = listening(&["127.0.0.1:0"], Some(&store));
    let output = send(&[&file, &missing, &empty], &[&server.addresses[0]])
        .output()
        .expect("runs");
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1));
    let oks: Vec<_> = (0..3).map(|index| report["files"][index]["ok"] == true).collect();
    assert_eq!(oks, [true, false, true]);
    assert!(one_line(&output).contains("missing: No such file"));
    assert!(same(&file, &store.join("data")) && same(&empty, &store.join("empty")));
    // Again: the server has them already.
    let output = send(&[&file], &[&server.addresses[0]]).output().expect("runs");
    assert_eq!(self::report(&output)["files"][0]["resumed_at"], 300_000);
}

#[test]
fn what_cannot_be_done_is_one_line() {
    let (folder, file, _) = bench(10);
    let no_file = folder.path().join("none");
    let output = send(&[&no_file], &["tcp://127.0.0.1:9"]).output().expect("runs");
    assert!(one_line(&output).contains("No such file"));
    assert_eq!(output.status.code(), Some(1));

    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("tcp://{}", free.local_addr().expect("bound"));
    drop(free);
    let line = one_line(&send(&[&file], &[&url]).output().expect("runs"));
    assert!(
        line.starts_with("sheetbend: cannot reach the server (") && line.contains("refused"),
        "{line}"
    );
    let line = one_line(
        &send(&[&file], &["tcp://no-such-host.invalid:1"])
            .output()
            .expect("runs"),
    );
    assert!(line.starts_with("sheetbend: cannot reach the server ("), "{line}");

    let server = listening(&["127.0.0.1:0"], None);
    let line = one_line(&send(&[&file], &[&server.addresses[0]]).output().expect("runs"));
    assert!(
        line.contains("it takes no files; start it with --store"),
        "{line}"
    );
    let taken = server.addresses[0].as_str();
    let output = sheetbend()
        .args(["serve", "--listen", taken])
        .output()
        .expect("runs");
    assert!(one_line(&output).contains("choose another --listen address"));

    // A file is no folder.
    let serve = ["serve", "--listen", "127.0.0.1:0", "--store"];
    let output = sheetbend().args(serve).arg(&file).output().expect("runs");
    assert!(one_line(&output).contains("choose another --store"));
    assert_eq!(server.interrupt()["drained"], true);
}
