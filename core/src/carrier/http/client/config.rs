//! Where a client's path goes, and how long it waits for what.

use std::time::Duration;

use crate::carrier::http::Mode;

/// Where requests go, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// The field `Host`: the name, and the port where it is not the scheme's own.
    pub host: String,
    /// The path and query of the server's URL, without `mode`.
    pub target: String,
    /// The field `Origin`, where the server wants one.
    pub origin: Option<String>,
    /// The only way down that is used; otherwise the best that gets through.
    pub mode: Option<Mode>,
    /// The way down to begin with where none is the only one: the best that got through last.
    pub first: Mode,
    /// Bytes that are kept until the server is known to have them.
    pub keep: usize,
    /// The least time in which a downlink's first bytes must come.
    pub probe: Duration,
    /// How long an answer to a short upload is waited for, at least.
    pub patience: Duration,
    /// How long a connection may take to be made.
    pub connect: Duration,
    /// A downlink on which nothing came for this long is replaced.
    pub silence: Duration,
}

impl ClientConfig {
    /// The usual one, for a server at that host: 1 MiB; 1, 2, 10 and 40 seconds.
    pub fn new(host: String, target: String) -> ClientConfig {
        ClientConfig {
            host,
            target,
            origin: None,
            mode: None,
            first: Mode::Binary,
            keep: 1 << 20,
            probe: Duration::from_secs(1),
            patience: Duration::from_secs(2),
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(40),
        }
    }
}
