//! Addresses as people write them: `tcp://host:port` and `unix:///path`.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The longest path of a Unix socket, in bytes, that every supported system takes.
pub const MAX_UNIX_PATH_BYTES: usize = 103;

/// The schemes that can be spoken, as told to the user.
const FORMS: &str = "tcp://host:port or unix:///path";

/// Where to connect to, or where to listen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host name or an IP address (IPv6 without its brackets), and a port.
    Tcp {
        /// Name or address, never empty.
        host: String,
        /// Port; 0 only in a [`ListenAddress`].
        port: u16,
    },
    /// The absolute path of a Unix socket, taken as it is written (no percent-decoding).
    Unix(PathBuf),
}

/// Why a text is not an address. Its `Display` says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

/// An [`Address`] to listen on: port 0 asks the system for a free port, and `host:port` means TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress(pub Address);

impl Address {
    /// The transport's name: `tcp` or `unix`.
    pub fn transport(&self) -> &'static str {
        match self {
            Address::Tcp { .. } => "tcp",
            Address::Unix(_) => "unix",
        }
    }

    /// Host and port in the form that resolvers and `TcpStream::connect` take; `None` for a Unix socket.
    pub fn host_port(&self) -> Option<(&str, u16)> {
        match self {
            Address::Tcp { host, port } => Some((host, *port)),
            Address::Unix(_) => None,
        }
    }
}

impl From<std::net::SocketAddr> for Address {
    fn from(address: std::net::SocketAddr) -> Self {
        Address::Tcp {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match parse(text)? {
            Address::Tcp { host, port: 0 } => fail(format!(
                "port 0 cannot be connected to; write the server's port, as in tcp://{host}:7000"
            )),
            address => Ok(address),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if !text.contains("://") && looks_like_host_port(text) {
            return parse_tcp(text).map(ListenAddress);
        }
        parse(text).map(ListenAddress)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn fail<T>(message: impl Into<String>) -> Result<T, AddressError> {
    Err(AddressError(message.into()))
}

fn parse(text: &str) -> Result<Address, AddressError> {
    if text.is_empty() {
        return fail(format!("the address is empty; write {FORMS}"));
    }
    if text.chars().any(|c| c.is_control()) {
        return fail(format!("the address holds a control character; write {FORMS}"));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return fail(without_scheme(text));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "tcp" => parse_tcp(rest),
        "unix" => parse_unix(rest),
        "" => fail(format!("the scheme is missing before '://'; write {FORMS}")),
        _ => fail(format!("scheme '{scheme}' is not supported; use {FORMS}")),
    }
}

/// What somebody who left the scheme out probably meant.
fn without_scheme(text: &str) -> String {
    if let Some(path) = text.strip_prefix("unix:") {
        return format!(
            "write unix://{} (two slashes, then the absolute path)",
            absolute(path)
        );
    }
    if let Some(rest) = text.strip_prefix("tcp:") {
        return format!("write tcp://{}", rest.trim_start_matches('/'));
    }
    if text.starts_with(['/', '.']) {
        return format!(
            "the scheme is missing; for a Unix socket write unix://{}",
            absolute(text)
        );
    }
    if looks_like_host_port(text) {
        return format!("the scheme is missing; write tcp://{text}");
    }
    format!("the scheme and the port are missing; write {FORMS}")
}

fn absolute(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_start_matches('/');
    format!("/{path}")
}

/// `host:port` with a port of digits, as opposed to `scheme:rest`.
fn looks_like_host_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !port.is_empty()
            && port.bytes().all(|b| b.is_ascii_digit())
            && !host.contains('/')
    })
}

fn parse_tcp(rest: &str) -> Result<Address, AddressError> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if let Some(at) = rest.find(['/', '?', '#']) {
        let (address, extra) = rest.split_at(at);
        return fail(format!(
            "a tcp address ends after the port; remove '{extra}' from tcp://{address}"
        ));
    }
    if rest.contains('@') {
        return fail("a tcp address holds no user; write tcp://host:port");
    }
    if rest.is_empty() {
        return fail("host and port are missing; write tcp://host:port");
    }
    if rest.contains(char::is_whitespace) {
        return fail("a tcp address holds no spaces; write tcp://host:port");
    }
    let (host, port) = split_host_port(rest)?;
    Ok(Address::Tcp {
        host,
        port: parse_port(port)?,
    })
}

fn split_host_port(rest: &str) -> Result<(String, &str), AddressError> {
    if let Some(inner) = rest.strip_prefix('[') {
        let Some((host, after)) = inner.split_once(']') else {
            return fail("the ']' after the IPv6 address is missing; write tcp://[::1]:7000");
        };
        // A zone, as in fe80::1%eth0, is left to the resolver.
        if host
            .split('%')
            .next()
            .is_none_or(|bare| bare.parse::<Ipv6Addr>().is_err())
        {
            return fail(format!(
                "'{host}' is not an IPv6 address; write one as in tcp://[::1]:7000"
            ));
        }
        let Some(port) = after.strip_prefix(':') else {
            return fail(format!("the port is missing; write it as in tcp://[{host}]:7000"));
        };
        return Ok((host.to_owned(), port));
    }
    if rest.parse::<Ipv6Addr>().is_ok() {
        return fail(format!(
            "an IPv6 address stands in brackets and wants a port; write tcp://[{rest}]:7000"
        ));
    }
    let Some((host, port)) = rest.rsplit_once(':') else {
        return fail(format!("the port is missing; write it as in tcp://{rest}:7000"));
    };
    if host.is_empty() {
        return fail(format!(
            "the host is missing; write it as in tcp://localhost:{port}"
        ));
    }
    if host.contains([':', '[', ']']) {
        return fail(format!(
            "'{host}' is not a host; write tcp://host:port, or tcp://[::1]:7000 for IPv6"
        ));
    }
    Ok((host.to_owned(), port))
}

fn parse_port(port: &str) -> Result<u16, AddressError> {
    if port.is_empty() {
        return fail("the port after ':' is missing; write it as in tcp://localhost:7000");
    }
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    match port.parse() {
        Ok(port) if digits => Ok(port),
        _ => fail(format!("port '{port}' is not a number from 1 to 65535")),
    }
}

fn parse_unix(rest: &str) -> Result<Address, AddressError> {
    if rest.is_empty() || rest.ends_with('/') {
        return fail("the path of the socket is missing; write it as in unix:///run/sheetbend.sock");
    }
    if !rest.starts_with('/') {
        return fail(format!(
            "the path of a Unix socket is absolute; write unix:///{rest} (three slashes)"
        ));
    }
    if rest.len() > MAX_UNIX_PATH_BYTES {
        let length = rest.len();
        return fail(format!(
            "the path of a Unix socket has at most {MAX_UNIX_PATH_BYTES} bytes, this one has {length}; use a shorter one"
        ));
    }
    Ok(Address::Unix(Path::new(rest).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp {
            host: host.to_owned(),
            port,
        }
    }

    fn message(text: &str) -> String {
        let error = text.parse::<Address>().expect_err(text).to_string();
        assert!(!error.contains('\n'), "one line: {error}");
        error
    }

    #[test]
    fn addresses_parse_and_print_alike() {
        for (text, address) in [
            ("tcp://localhost:7000", tcp("localhost", 7000)),
            ("tcp://127.0.0.1:1", tcp("127.0.0.1", 1)),
            ("tcp://[::1]:65535", tcp("::1", 65535)),
            ("unix:///run/a b.sock", Address::Unix("/run/a b.sock".into())),
        ] {
            assert_eq!(text.parse(), Ok(address.clone()));
            assert_eq!(address.to_string(), text);
        }
        assert_eq!("TCP://h:7/".parse(), Ok(tcp("h", 7)));
    }

    #[test]
    fn a_listener_takes_port_zero_and_no_scheme() {
        for text in ["tcp://127.0.0.1:0", "127.0.0.1:0"] {
            assert_eq!(text.parse(), Ok(ListenAddress(tcp("127.0.0.1", 0))));
        }
        assert_eq!("[::]:80".parse(), Ok(ListenAddress(tcp("::", 80))));
        assert!(message("tcp://h:0").starts_with("port 0 cannot be connected to"));
    }

    #[test]
    fn every_mistake_says_what_to_write() {
        for (text, want) in [
            ("", "the address is empty; write tcp://host:port or unix:///path"),
            (
                "localhost:7000",
                "the scheme is missing; write tcp://localhost:7000",
            ),
            (
                "localhost",
                "the scheme and the port are missing; write tcp://host:port or unix:///path",
            ),
            (
                "/run/x.sock",
                "the scheme is missing; for a Unix socket write unix:///run/x.sock",
            ),
            (
                "unix:/run/x",
                "write unix:///run/x (two slashes, then the absolute path)",
            ),
            ("tcp:h:1", "write tcp://h:1"),
            (
                "http://h:80/x",
                "scheme 'http' is not supported; use tcp://host:port or unix:///path",
            ),
            (
                "://h:80",
                "the scheme is missing before '://'; write tcp://host:port or unix:///path",
            ),
            ("tcp://", "host and port are missing; write tcp://host:port"),
            ("tcp://h", "the port is missing; write it as in tcp://h:7000"),
            (
                "tcp://h:",
                "the port after ':' is missing; write it as in tcp://localhost:7000",
            ),
            (
                "tcp://:7",
                "the host is missing; write it as in tcp://localhost:7",
            ),
            ("tcp://h:99999", "port '99999' is not a number from 1 to 65535"),
            ("tcp://h:+1", "port '+1' is not a number from 1 to 65535"),
            (
                "tcp://h:7000/x?y",
                "a tcp address ends after the port; remove '/x?y' from tcp://h:7000",
            ),
            (
                "tcp://me@h:7",
                "a tcp address holds no user; write tcp://host:port",
            ),
            (
                "tcp://h h:7",
                "a tcp address holds no spaces; write tcp://host:port",
            ),
            (
                "tcp://::1",
                "an IPv6 address stands in brackets and wants a port; write tcp://[::1]:7000",
            ),
            (
                "tcp://[::1",
                "the ']' after the IPv6 address is missing; write tcp://[::1]:7000",
            ),
            (
                "tcp://[x]:1",
                "'x' is not an IPv6 address; write one as in tcp://[::1]:7000",
            ),
            (
                "tcp://[::1]",
                "the port is missing; write it as in tcp://[::1]:7000",
            ),
            (
                "tcp://fe80:zz:1",
                "'fe80:zz' is not a host; write tcp://host:port, or tcp://[::1]:7000 for IPv6",
            ),
            (
                "unix://run/x",
                "the path of a Unix socket is absolute; write unix:///run/x (three slashes)",
            ),
            (
                "unix://",
                "the path of the socket is missing; write it as in unix:///run/sheetbend.sock",
            ),
            (
                "tcp://h\n:7",
                "the address holds a control character; write tcp://host:port or unix:///path",
            ),
        ] {
            assert_eq!(message(text), want, "{text:?}");
        }
        let long = format!("unix:///{}", "x".repeat(200));
        assert!(message(&long).contains("at most 103 bytes, this one has 201"));
    }
}
