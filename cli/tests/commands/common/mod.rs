//! What the tests of the command share.
#![allow(unreachable_pub)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

/// The command, in an environment that names no proxy.
pub fn sheetbend() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sheetbend"));
    for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_ascii_lowercase());
    }
    command
}

/// A server process. Dropping it kills it.
pub struct Server {
    process: Child,
    news: BufReader<ChildStdout>,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// The pin of its certificate; empty if it has none.
    pub pin: String,
}

impl Server {
    /// `sheetbend serve --json` with these arguments.
    pub fn start(arguments: &[&str]) -> Server {
        let mut command = sheetbend();
        command.args(["serve", "--json"]).args(arguments);
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the server starts");
        let news = BufReader::new(process.stdout.take().expect("piped"));
        let mut server = Server {
            process,
            news,
            addresses: Vec::new(),
            pin: String::new(),
        };
        let listening = server.news();
        assert_eq!(listening["event"], "listening");
        let list = listening["addresses"].as_array().expect("a list");
        server.addresses = list
            .iter()
            .map(|at| at.as_str().expect("text").to_owned())
            .collect();
        server.pin = listening["pin"].as_str().unwrap_or_default().to_owned();
        server
    }

    /// On a port of its own, with a certificate of its own.
    pub fn with_certificate() -> Server {
        let server = Server::start(&["--listen", "127.0.0.1:0", "--tls", "self-signed"]);
        assert!(!server.pin.is_empty(), "it tells the pin");
        server
    }

    /// Its first address.
    pub fn url(&self) -> &str {
        &self.addresses[0]
    }

    /// The host and port of it.
    pub fn place(&self) -> &str {
        self.url().strip_prefix("tcp://").expect("over tcp")
    }

    /// The next line that the server prints.
    pub fn news(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.news.read_line(&mut line).expect("readable");
        serde_json::from_str(&line).expect("JSON")
    }

    /// Asks it to stop, and returns what it printed last.
    pub fn interrupt(mut self) -> serde_json::Value {
        let id = self.process.id().to_string();
        let kill = Command::new("kill")
            .args(["-INT", &id])
            .status()
            .expect("kill runs");
        assert!(kill.success() && self.process.wait().expect("ends").success());
        let mut rest = String::new();
        self.news.read_to_string(&mut rest).expect("readable");
        serde_json::from_str(rest.lines().last().expect("a last line")).expect("JSON")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
