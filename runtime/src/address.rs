//! Addresses of endpoints, written as URLs.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The longest address that is parsed, in bytes.
pub const MAX_ADDRESS_LEN: usize = 1024;

/// The ways down over HTTP that a URL may name.
const MODES: [&str; 4] = ["binary", "sse", "ndjson", "poll"];

/// A transport that is spoken over a socket of TCP or UDP, and is not its bytes as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Scheme {
    /// TLS 1.3.
    Tls,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS 1.3.
    Wss,
    /// Exchanges of HTTP/1.1.
    Http,
    /// Exchanges of HTTP/1.1 over TLS 1.3.
    Https,
    /// QUIC, over UDP.
    Quic,
    /// WebTransport over HTTP/3, which is QUIC.
    Wt,
    /// Whatever works at that port: a client tries all of the others and TCP, see [`Address::alternatives`]; a
    /// server takes them all anyway.
    Any,
}

impl Scheme {
    /// As it is written in front of `://`.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Tls => "tls",
            Scheme::Ws => "ws",
            Scheme::Wss => "wss",
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Quic => "quic",
            Scheme::Wt => "wt",
            Scheme::Any => "sheetbend",
        }
    }

    /// The port where none is written.
    fn default_port(self) -> Option<u16> {
        match self {
            Scheme::Tls | Scheme::Quic | Scheme::Any => None,
            Scheme::Ws | Scheme::Http => Some(80),
            Scheme::Wss | Scheme::Https | Scheme::Wt => Some(443),
        }
    }

    fn has_path(self) -> bool {
        !matches!(self, Scheme::Tls | Scheme::Quic | Scheme::Any)
    }

    /// Whether it is spoken inside TLS.
    pub fn is_encrypted(self) -> bool {
        matches!(
            self,
            Scheme::Tls | Scheme::Wss | Scheme::Https | Scheme::Quic | Scheme::Wt
        )
    }

    /// Whether it is over UDP.
    pub fn is_udp(self) -> bool {
        matches!(self, Scheme::Quic | Scheme::Wt)
    }

    /// Whether it is exchanges of HTTP.
    pub fn is_http(self) -> bool {
        matches!(self, Scheme::Http | Scheme::Https)
    }
}

/// Where a session can be reached or offered: `tcp://host:port`, `tls://host:port`,
/// `ws://host:port/path`, `wss://host:port/path`, `http://host:port/path`, `https://host:port/path`,
/// `quic://host:port`, `wt://host:port/path` (also written `https+wt`),
/// `sheetbend://host:port` (whatever works there), `unix:///path`,
/// `mem://name`.
///
/// Over HTTP the best way down that gets through is found, unless the URL names one: `?mode=binary`, `sse`, `ndjson`
/// or `poll`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// TCP to a host name or literal address. An IPv6 literal is stored without its brackets.
    Tcp {
        /// Host name or IP address.
        host: String,
        /// Port; 0 asks a listener for any free one.
        port: u16,
    },
    /// A transport over TCP, or over UDP. [`Address::socket`] is what a runtime connects or listens on for one over
    /// TCP.
    Over {
        /// The transport.
        scheme: Scheme,
        /// As in [`Address::Tcp`].
        host: String,
        /// As in [`Address::Tcp`].
        port: u16,
        /// The path and query of a request, `/` at least; empty where the transport has none.
        target: String,
    },
    /// A Unix domain socket in the file system.
    Unix(PathBuf),
    /// An in-memory listener of this process.
    Mem(String),
}

impl Address {
    /// The name of the transport: `tcp`, `tls`, `ws`, `wss`, `http`, `https`, `quic`, `wt`, `unix` or `mem`; `sheetbend` where it is
    /// open.
    pub fn transport(&self) -> &'static str {
        match self {
            Address::Tcp { .. } => "tcp",
            Address::Over { scheme, .. } => scheme.name(),
            Address::Unix(_) => "unix",
            Address::Mem(_) => "mem",
        }
    }

    /// What `sheetbend://host:port` stands for, the most preferred first: what is encrypted, then what is not.
    /// Every other address stands for itself.
    pub fn alternatives(&self) -> Vec<Address> {
        let Address::Over {
            scheme: Scheme::Any,
            host,
            port,
            ..
        } = self
        else {
            return vec![self.clone()];
        };
        let over = |scheme: Scheme| Address::Over {
            scheme,
            host: host.clone(),
            port: *port,
            target: if scheme.has_path() { "/" } else { "" }.to_owned(),
        };
        let mut all = Vec::new();
        if cfg!(feature = "tls") {
            all.push(over(Scheme::Tls));
        }
        if cfg!(feature = "quic") {
            all.push(over(Scheme::Quic));
        }
        if cfg!(feature = "webtransport") {
            all.push(over(Scheme::Wt));
        }
        if cfg!(all(feature = "tls", feature = "websocket")) {
            all.push(over(Scheme::Wss));
        }
        if cfg!(all(feature = "tls", feature = "http")) {
            all.push(over(Scheme::Https));
        }
        all.push(self.socket());
        if cfg!(feature = "websocket") {
            all.push(over(Scheme::Ws));
        }
        if cfg!(feature = "http") {
            all.push(over(Scheme::Http));
        }
        all
    }

    /// The address of the socket under it: that of TCP for what is spoken over it, otherwise the same.
    pub fn socket(&self) -> Address {
        match self {
            Address::Over { host, port, .. } => Address::Tcp {
                host: host.clone(),
                port: *port,
            },
            other => other.clone(),
        }
    }

    /// The address over another socket: what was bound for port 0.
    pub(crate) fn over_socket(&self, socket: Address) -> Address {
        match (self, socket) {
            (Address::Over { scheme, target, .. }, Address::Tcp { host, port }) => Address::Over {
                scheme: *scheme,
                host,
                port,
                target: target.clone(),
            },
            (_, socket) => socket,
        }
    }

    /// The fields of the query, and whether each is `mode`.
    fn query(&self) -> impl Iterator<Item = (&str, bool)> {
        let query = match self {
            Address::Over { scheme, target, .. } if scheme.is_http() => target.split_once('?'),
            _ => None,
        };
        let fields = query.map_or("", |(_, query)| query).split('&');
        fields.map(|field| (field, field.starts_with("mode=")))
    }

    /// The only way down over HTTP that is used, where the URL names one.
    #[cfg(feature = "http")]
    pub(crate) fn http_mode(&self) -> Option<sheetbend_core::carrier::http::Mode> {
        let (field, _) = self.query().find(|(_, is_mode)| *is_mode)?;
        field.strip_prefix("mode=")?.parse().ok()
    }

    /// The target of requests over HTTP: that of the URL, without what is for us.
    #[cfg(feature = "http")]
    pub(crate) fn http_target(&self) -> String {
        let path = match self {
            Address::Over { target, .. } => target.split('?').next().unwrap_or("/"),
            _ => "/",
        };
        let rest: Vec<&str> = self
            .query()
            .filter(|(field, is_mode)| !is_mode && !field.is_empty())
            .map(|(field, _)| field)
            .collect();
        match rest.is_empty() {
            true => path.to_owned(),
            false => format!("{path}?{}", rest.join("&")),
        }
    }

    /// Host and port as the field `Host` of HTTP has them.
    #[cfg(any(feature = "http", test))]
    pub(crate) fn authority(&self) -> String {
        match self {
            Address::Over {
                scheme, host, port, ..
            } => {
                let name = bracketed(host);
                if scheme.default_port() == Some(*port) {
                    name
                } else {
                    format!("{name}:{port}")
                }
            }
            _ => "localhost".to_owned(),
        }
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } => write!(f, "tcp://{}:{port}", bracketed(host)),
            Address::Over {
                scheme,
                host,
                port,
                target,
            } => write!(f, "{}://{}:{port}{target}", scheme.name(), bracketed(host)),
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Mem(name) => write!(f, "mem://{name}"),
        }
    }
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no `scheme://` in front.
    #[error(
        "`{0}` has no scheme: write tcp://host:port, tls://host:port, ws://host/path, wss://host/path, http://host/path, https://host/path, quic://host:port, wt://host/path, sheetbend://host:port, unix:///path or mem://name"
    )]
    NoScheme(String),
    /// The scheme is none of ours.
    #[error(
        "unknown scheme `{0}`: known are tcp, tls, ws, wss, http, https, quic, wt, sheetbend, unix and mem"
    )]
    UnknownScheme(String),
    /// An address without a host.
    #[error("`{0}` has no host: write tcp://host:port")]
    NoHost(String),
    /// A TCP address without a port.
    #[error("`{0}` has no port: write tcp://host:port")]
    NoPort(String),
    /// The port is not a number from 0 to 65535.
    #[error("`{0}` is not a port number (0 to 65535)")]
    BadPort(String),
    /// An IPv6 address without brackets, or with broken ones.
    #[error("`{0}`: an IPv6 address is written in brackets, as in tcp://[::1]:4433")]
    BadIpv6(String),
    /// A Unix address whose path is not absolute.
    #[error("`{0}` needs an absolute path: write unix:///run/name.sock")]
    RelativePath(String),
    /// A memory address without a name.
    #[error("`mem://` needs a name: write mem://name")]
    NoName,
    /// Something follows the address, or it holds characters that no address has.
    #[error("`{0}` has a path, blanks or control characters after the port")]
    Trailing(String),
    /// A way down over HTTP that there is not.
    #[error("`{0}` is not a mode of http: known are binary, sse, ndjson and poll")]
    UnknownMode(String),
    /// Longer than [`MAX_ADDRESS_LEN`].
    #[error("the address is {0} bytes long, more than {MAX_ADDRESS_LEN}")]
    TooLong(usize),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        if text.len() > MAX_ADDRESS_LEN {
            return Err(AddressError::TooLong(text.len()));
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| AddressError::NoScheme(text.to_owned()))?;
        match scheme {
            "tcp" => {
                let (host, port) = parse_authority(text, rest.strip_suffix('/').unwrap_or(rest), None)?;
                Ok(Address::Tcp { host, port })
            }
            "tls" => parse_over(text, Scheme::Tls, rest),
            "ws" => parse_over(text, Scheme::Ws, rest),
            "wss" => parse_over(text, Scheme::Wss, rest),
            "http" => parse_over(text, Scheme::Http, rest),
            "https" => parse_over(text, Scheme::Https, rest),
            "quic" => parse_over(text, Scheme::Quic, rest),
            "wt" | "https+wt" => parse_over(text, Scheme::Wt, rest),
            "sheetbend" => parse_over(text, Scheme::Any, rest),
            "unix" if rest.starts_with('/') && !rest.contains('\0') => Ok(Address::Unix(PathBuf::from(rest))),
            "unix" => Err(AddressError::RelativePath(text.to_owned())),
            "mem" if rest.is_empty() => Err(AddressError::NoName),
            "mem" => Ok(Address::Mem(rest.to_owned())),
            other => Err(AddressError::UnknownScheme(other.to_owned())),
        }
    }
}

fn parse_over(text: &str, scheme: Scheme, rest: &str) -> Result<Address, AddressError> {
    let (authority, target) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    // RFC 3986 §3: what a URL consists of; a fragment never travels.
    let visible = |c: char| c.is_ascii_graphic() && !matches!(c, '#' | '"' | '<' | '>' | '\\' | '^' | '`');
    if !target.chars().all(visible) || (!scheme.has_path() && !matches!(target, "" | "/")) {
        return Err(AddressError::Trailing(text.to_owned()));
    }
    let (host, port) = parse_authority(text, authority, scheme.default_port())?;
    let target = match (scheme.has_path(), target.starts_with('/')) {
        (false, _) => String::new(),
        (true, true) => target.to_owned(),
        (true, false) => format!("/{target}"),
    };
    let address = Address::Over {
        scheme,
        host,
        port,
        target,
    };
    for (field, _) in address.query().filter(|(_, is_mode)| *is_mode) {
        let mode = field.strip_prefix("mode=").unwrap_or_default();
        if !MODES.contains(&mode) {
            return Err(AddressError::UnknownMode(mode.to_owned()));
        }
    }
    Ok(address)
}

/// Host and port; without a port only where there is a default.
fn parse_authority(text: &str, rest: &str, default: Option<u16>) -> Result<(String, u16), AddressError> {
    if rest.contains(|c: char| matches!(c, '/' | '?' | '#' | '@') || c.is_whitespace() || c.is_control()) {
        return Err(AddressError::Trailing(text.to_owned()));
    }
    let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
        let (host, after) = bracketed
            .split_once(']')
            .ok_or_else(|| AddressError::BadIpv6(text.to_owned()))?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(AddressError::BadIpv6(text.to_owned()));
        }
        let port = match after.strip_prefix(':') {
            Some(port) => Some(port),
            None if after.is_empty() => None,
            None => return Err(AddressError::NoPort(text.to_owned())),
        };
        (host, port)
    } else {
        match rest.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        }
    };
    if host.is_empty() {
        return Err(AddressError::NoHost(text.to_owned()));
    }
    if host.contains(':') && !rest.starts_with('[') {
        return Err(AddressError::BadIpv6(text.to_owned()));
    }
    let port = match (port, default) {
        (Some(port), _) if !port.is_empty() => {
            let digits = port.bytes().all(|b| b.is_ascii_digit());
            let number = port.parse().ok().filter(|_| digits);
            number.ok_or_else(|| AddressError::BadPort(port.to_owned()))?
        }
        (None, Some(default)) => default,
        _ => return Err(AddressError::NoPort(text.to_owned())),
    };
    Ok((host.to_owned(), port))
}

/// Things that stand for an address: an [`Address`] or its text.
pub trait ToAddress {
    /// The address.
    ///
    /// # Errors
    /// When the text is none.
    fn to_address(self) -> Result<Address, AddressError>;
}

impl ToAddress for Address {
    fn to_address(self) -> Result<Address, AddressError> {
        Ok(self)
    }
}

impl ToAddress for &Address {
    fn to_address(self) -> Result<Address, AddressError> {
        Ok(self.clone())
    }
}

impl ToAddress for &str {
    fn to_address(self) -> Result<Address, AddressError> {
        self.parse()
    }
}

impl ToAddress for String {
    fn to_address(self) -> Result<Address, AddressError> {
        self.parse()
    }
}

impl ToAddress for &String {
    fn to_address(self) -> Result<Address, AddressError> {
        self.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_written() {
        for text in [
            "tcp://localhost:4433",
            "tcp://[::1]:0",
            "unix:///run/x.sock",
            "mem://pair",
            "ws://localhost:8080/",
            "ws://[::1]:8080/deep/path?x=1",
            "tls://[::1]:443",
            "wss://a.example:443/x",
            "http://localhost:8080/?mode=sse",
            "https://a.example:443/deep?tenant=1&mode=poll",
            "quic://[::1]:443",
            "wt://h:4433/deep?x=1",
            "sheetbend://[::1]:4433",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("ws://a".parse::<Address>().unwrap().to_string(), "ws://a:80/");
        assert_eq!("ws://a?x".parse::<Address>().unwrap().to_string(), "ws://a:80/?x");
        assert_eq!("ws://a:80".parse::<Address>().unwrap().authority(), "a");
        assert_eq!("tcp://a:1/".parse::<Address>().unwrap().to_string(), "tcp://a:1");
    }

    #[test]
    fn whatever_works_is_what_is_encrypted_and_then_the_rest() {
        let any: Address = "sheetbend://h:7/".parse().unwrap();
        let all: Vec<String> = any.alternatives().iter().map(Address::to_string).collect();
        let built = |scheme: &str| match scheme {
            "tls" => cfg!(feature = "tls"),
            "quic" => cfg!(feature = "quic"),
            "wt" => cfg!(feature = "webtransport"),
            "wss" => cfg!(all(feature = "tls", feature = "websocket")),
            "ws" => cfg!(feature = "websocket"),
            "https" => cfg!(all(feature = "tls", feature = "http")),
            "http" => cfg!(feature = "http"),
            _ => true,
        };
        let expected = [
            "tls://h:7",
            "quic://h:7",
            "wt://h:7/",
            "wss://h:7/",
            "https://h:7/",
            "tcp://h:7",
            "ws://h:7/",
            "http://h:7/",
        ];
        let expected = expected
            .into_iter()
            .filter(|url| built(url.split(':').next().unwrap()));
        assert_eq!(all, expected.collect::<Vec<_>>());
        let one: Address = "ws://h/x".parse().unwrap();
        assert_eq!(one.alternatives(), [one]);
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| text.parse::<Address>().unwrap_err();
        assert!(matches!(error("localhost:1"), AddressError::NoScheme(_)));
        assert!(matches!(error("ftp://a:1"), AddressError::UnknownScheme(s) if s == "ftp"));
        assert!(matches!(error("http://a/?mode=fast"), AddressError::UnknownMode(s) if s == "fast"));
        assert!(matches!(error("tcp://a"), AddressError::NoPort(_)));
        assert!(matches!(error("tcp://a:"), AddressError::NoPort(_)));
        assert!(matches!(error("tcp://:1"), AddressError::NoHost(_)));
        assert!(matches!(error("tcp://a:70000"), AddressError::BadPort(p) if p == "70000"));
        assert!(matches!(error("tcp://a:+1"), AddressError::BadPort(_)));
        assert!(matches!(error("tcp://::1:80"), AddressError::BadIpv6(_)));
        assert!(matches!(error("tcp://[::1"), AddressError::BadIpv6(_)));
        assert!(matches!(error("tcp://a:1/x"), AddressError::Trailing(_)));
        assert!(matches!(error("tcp://a:1?x"), AddressError::Trailing(_)));
        assert!(matches!(error("ws://a:"), AddressError::NoPort(_)));
        assert!(matches!(error("tls://a"), AddressError::NoPort(_)));
        assert!(matches!(error("sheetbend://a"), AddressError::NoPort(_)));
        assert!(matches!(error("sheetbend://a:1/x"), AddressError::Trailing(_)));
        assert!(matches!(error("tls://a:1/x"), AddressError::Trailing(_)));
        assert!(matches!(error("ws://u@a/"), AddressError::Trailing(_)));
        assert!(matches!(error("ws://a/x y"), AddressError::Trailing(_)));
        assert!(matches!(error("ws://a/\r\nX: y"), AddressError::Trailing(_)));
        assert!(matches!(error("unix://x"), AddressError::RelativePath(_)));
        assert!(matches!(error("mem://"), AddressError::NoName));
        assert!(matches!(error(&"x".repeat(2000)), AddressError::TooLong(2000)));
    }
}
