//! What is reached without a proxy: the list in `NO_PROXY`, read as curl reads it.

use std::str::FromStr;

use core::net::IpAddr;

/// The longest list, in bytes, and in entries.
const MAX_LEN: usize = 64 * 1024;
const MAX_ENTRIES: usize = 4096;

/// Hosts that are reached without a proxy.
///
/// A list parted by commas or blanks. An entry is `*` (everything), a name (`example.com`, `.example.com` or
/// `*.example.com`: that domain and all below it), an address (`10.0.0.1`, `[::1]`) or a network (`10.0.0.0/8`,
/// `fd00::/8`). Behind a name or an address may stand a port, to which it is then confined: `example.com:8443`. Names
/// are not resolved: `127.0.0.1` does not stand for `localhost`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    All,
    Domain { name: String, port: Option<u16> },
    Address { address: IpAddr, port: Option<u16> },
    Network { network: IpAddr, prefix: u32 },
}

/// Why a text is no list of hosts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoProxyError {
    /// An entry with a slash that is no network.
    #[error("`{0}` is not a network, as 10.0.0.0/8 is")]
    Network(
        /// The entry.
        String,
    ),
    /// An entry that is no host.
    #[error("`{0}` is neither a host, nor a domain, nor a network")]
    Host(
        /// The entry.
        String,
    ),
    /// More than 4,096 entries, or 64 KiB.
    #[error("the list of hosts without a proxy is too long")]
    TooLong,
}

impl NoProxy {
    /// The entries of a list that are of a kind described above; the others stand for nothing. An environment's list is
    /// written for many programs, each of which knows its own kinds.
    pub fn of_environment(text: &str) -> NoProxy {
        let words = words(text).take(MAX_ENTRIES);
        NoProxy {
            entries: words.filter_map(|word| entry(word).ok()).collect(),
        }
    }

    /// Whether a host name or address (IPv6 without brackets) is reached without a proxy.
    pub fn contains(&self, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let literal = host.parse::<IpAddr>().ok();
        self.entries
            .iter()
            .any(|entry| entry.matches(host, literal, port))
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Entry {
    fn matches(&self, host: &str, literal: Option<IpAddr>, port: u16) -> bool {
        let at_port = |own: &Option<u16>| own.is_none_or(|own| own == port);
        match self {
            Entry::All => true,
            Entry::Domain { name, port } => at_port(port) && literal.is_none() && is_within(host, name),
            Entry::Address { address, port } => at_port(port) && literal == Some(*address),
            Entry::Network { network, prefix } => {
                literal.is_some_and(|address| same_prefix(address, *network, *prefix))
            }
        }
    }
}

/// Whether a host is a domain, or below it.
fn is_within(host: &str, domain: &str) -> bool {
    let Some(start) = host.len().checked_sub(domain.len()) else {
        return false;
    };
    let (Some(front), Some(end)) = (host.get(..start), host.get(start..)) else {
        return false;
    };
    end.eq_ignore_ascii_case(domain) && (front.is_empty() || front.ends_with('.'))
}

fn same_prefix(a: IpAddr, b: IpAddr, prefix: u32) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let differs = a.to_bits() ^ b.to_bits();
            differs.leading_zeros() >= prefix
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let differs = a.to_bits() ^ b.to_bits();
            differs.leading_zeros() >= prefix
        }
        _ => false,
    }
}

impl FromStr for NoProxy {
    type Err = NoProxyError;

    fn from_str(text: &str) -> Result<NoProxy, NoProxyError> {
        if text.len() > MAX_LEN {
            return Err(NoProxyError::TooLong);
        }
        let mut entries = Vec::new();
        for word in words(text) {
            if entries.len() >= MAX_ENTRIES {
                return Err(NoProxyError::TooLong);
            }
            entries.push(entry(word)?);
        }
        Ok(NoProxy { entries })
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split([',', ' ', '\t', '\r', '\n']);
    words.filter(|word| !word.is_empty())
}

fn entry(word: &str) -> Result<Entry, NoProxyError> {
    let shown = || word.chars().take(64).collect();
    if word == "*" {
        return Ok(Entry::All);
    }
    if let Some((network, prefix)) = word.split_once('/') {
        let wrong = || NoProxyError::Network(shown());
        let network: IpAddr = unbracketed(network).parse().map_err(|_| wrong())?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: Option<u32> = prefix.parse().ok().filter(|prefix| digits && *prefix <= most);
        let prefix = prefix.ok_or_else(wrong)?;
        return Ok(Entry::Network { network, prefix });
    }
    if let Ok(address) = unbracketed(word).parse() {
        return Ok(Entry::Address { address, port: None });
    }
    let (host, port) = match word.rsplit_once(':') {
        Some((host, port)) => {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse().ok().filter(|_| digits);
            (host, Some(port.ok_or_else(|| NoProxyError::Host(shown()))?))
        }
        None => (word, None),
    };
    if let Ok(address) = unbracketed(host).parse() {
        return Ok(Entry::Address { address, port });
    }
    let name = host.strip_prefix('*').unwrap_or(host);
    let name = name.strip_prefix('.').unwrap_or(name);
    let name = name.strip_suffix('.').unwrap_or(name);
    let part = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(part) {
        return Err(NoProxyError::Host(shown()));
    }
    Ok(Entry::Domain {
        name: name.to_owned(),
        port,
    })
}

fn unbracketed(text: &str) -> &str {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(text)
}
