//! Proxies as people write them: `http://user:password@host:port`, `socks5://host:port`.

use std::fmt;
use std::str::FromStr;

use core::net::Ipv6Addr;
use zeroize::Zeroize;

/// The longest text that is parsed, in bytes.
const MAX_LEN: usize = 1024;
/// RFC 1929 §2.
const MAX_CREDENTIAL: usize = 255;

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP CONNECT.
    Http,
    /// The same inside TLS, by which the proxy proves its name.
    Https,
    /// SOCKS5.
    Socks5 {
        /// Names are resolved by the proxy (`socks5h`), and not here (`socks5`).
        resolves: bool,
    },
}

impl ProxyKind {
    fn scheme(self) -> &'static str {
        match self {
            ProxyKind::Http => "http",
            ProxyKind::Https => "https",
            ProxyKind::Socks5 { resolves: false } => "socks5",
            ProxyKind::Socks5 { resolves: true } => "socks5h",
        }
    }
}

/// A user and a password. They are never printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    user: Vec<u8>,
    password: Vec<u8>,
}

impl Drop for Credentials {
    fn drop(&mut self) {
        self.user.as_mut_slice().zeroize();
        self.password.as_mut_slice().zeroize();
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// RFC 7617 §2.
    pub(super) fn basic(&self) -> String {
        let mut both = [&self.user[..], b":", &self.password].concat();
        let text = data_encoding::BASE64.encode(&both);
        both.as_mut_slice().zeroize();
        text
    }

    /// RFC 1929 §2.
    pub(super) fn rfc1929(&self, version: u8) -> Vec<u8> {
        let mut message = vec![version];
        for part in [&self.user, &self.password] {
            // At most 255, as was checked.
            message.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
            message.extend_from_slice(part);
        }
        message
    }
}

/// A proxy: `http://[user:password@]host[:port]`, `https://…`, `socks5://…` or `socks5h://…`; without a scheme it is
/// `http`.
///
/// Printed without user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: ProxyKind,
    host: String,
    port: u16,
    credentials: Option<Credentials>,
}

/// Why a text is no proxy. It never shows what may be a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyParseError {
    /// A kind of proxy that is not spoken.
    #[error("proxies of the kind `{0}` are not spoken here: known are http, https, socks5 and socks5h")]
    Scheme(
        /// Its scheme.
        String,
    ),
    /// There is no host.
    #[error("a proxy is written http://host:port or socks5://host:port: there is no host")]
    NoHost,
    /// The host has characters that no host has, or is an IPv6 address without brackets.
    #[error("`{0}` is not the host of a proxy")]
    Host(
        /// The host.
        String,
    ),
    /// The port is not a number from 1 to 65535.
    #[error("`{0}` is not the port of a proxy (1 to 65535)")]
    Port(
        /// The port.
        String,
    ),
    /// Something follows the port.
    #[error("a proxy has no path: write http://host:port or socks5://host:port")]
    Path,
    /// The user or the password cannot be told to a proxy.
    #[error("the proxy's user or password is not right: {0}")]
    Credentials(
        /// What is wrong.
        &'static str,
    ),
    /// Longer than 1,024 bytes.
    #[error("the proxy's address is {0} bytes long, more than {MAX_LEN}")]
    TooLong(
        /// Its length.
        usize,
    ),
}

impl Proxy {
    /// What it speaks.
    pub fn kind(&self) -> ProxyKind {
        self.kind
    }

    /// Its host name or address; IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = (self.kind.scheme(), &self.host, self.port);
        match host.contains(':') {
            true => write!(f, "{scheme}://[{host}]:{port}"),
            false => write!(f, "{scheme}://{host}:{port}"),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = if self.credentials.is_some() { ", .." } else { "" };
        write!(f, "Proxy({self}{known})")
    }
}

impl FromStr for Proxy {
    type Err = ProxyParseError;

    fn from_str(text: &str) -> Result<Proxy, ProxyParseError> {
        if text.len() > MAX_LEN {
            return Err(ProxyParseError::TooLong(text.len()));
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (kind, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (ProxyKind::Http, 80),
            "https" => (ProxyKind::Https, 443),
            "socks5" => (ProxyKind::Socks5 { resolves: false }, 1080),
            "socks5h" => (ProxyKind::Socks5 { resolves: true }, 1080),
            other => return Err(ProxyParseError::Scheme(other.chars().take(16).collect())),
        };
        // What is behind the last @ is the host: a password with one in it is often not escaped.
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(ProxyParseError::Path);
        }
        let (host, port) = host_and_port(rest)?;
        Ok(Proxy {
            kind,
            host: host.to_owned(),
            port: port.unwrap_or(default_port),
            credentials: login.map(|login| credentials(login, kind)).transpose()?,
        })
    }
}

/// A host, and the port behind it if there is one.
fn host_and_port(text: &str) -> Result<(&str, Option<u16>), ProxyParseError> {
    let wrong = || ProxyParseError::Host(text.chars().take(64).collect());
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(wrong)?;
            host.parse::<Ipv6Addr>().map_err(|_| wrong())?;
            match (after, after.strip_prefix(':')) {
                ("", _) => (host, None),
                (_, Some(port)) => (host, Some(port)),
                _ => return Err(wrong()),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err(ProxyParseError::NoHost);
    }
    let visible = |byte: u8| byte.is_ascii_graphic() && !b"\\\"<>^`{|}%".contains(&byte);
    if !host.bytes().all(visible) || host.len() > 255 {
        return Err(wrong());
    }
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|port| digits && *port > 0);
        number.ok_or_else(|| ProxyParseError::Port(text.chars().take(16).collect()))
    };
    Ok((host, port.map(number).transpose()?))
}

/// `user:password`, percent-encoded.
fn credentials(login: &str, kind: ProxyKind) -> Result<Credentials, ProxyParseError> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let both = Credentials {
        user: decoded(user)?,
        password: decoded(password)?,
    };
    let wrong = |what| Err(ProxyParseError::Credentials(what));
    if both.user.is_empty() {
        return wrong("the user is empty");
    }
    if both.user.len() > MAX_CREDENTIAL || both.password.len() > MAX_CREDENTIAL {
        return wrong("it is longer than 255 bytes");
    }
    let control = |bytes: &[u8]| bytes.iter().any(u8::is_ascii_control);
    if matches!(kind, ProxyKind::Http | ProxyKind::Https) {
        // RFC 7617 §2.
        if both.user.contains(&b':') {
            return wrong("a user has no colon");
        }
        if control(&both.user) || control(&both.password) {
            return wrong("it has control characters");
        }
    }
    Ok(both)
}

fn decoded(text: &str) -> Result<Vec<u8>, ProxyParseError> {
    const WRONG: ProxyParseError = ProxyParseError::Credentials("a % is written %25");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = after.split_first_chunk::<2>().ok_or(WRONG)?;
        let byte = data_encoding::HEXLOWER_PERMISSIVE
            .decode(digits)
            .map_err(|_| WRONG)?;
        bytes.extend_from_slice(&byte);
        rest = after;
    }
    Ok(bytes)
}
