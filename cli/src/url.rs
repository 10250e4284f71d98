//! Where sessions are served, over any transport, and whom to trust there.

use crate::address::{self, ListenAddress};
use crate::failure::Failure;
use clap::Args;
use sheetbend_tokio::{
    Address, ClientBuilder, Pin, Proxy, ProxyParseError, ProxyRules, ServerTls, Trust, certificates,
};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The schemes that are spoken over TCP or UDP and are not its bytes as they are.
const CARRIED: [&str; 9] = [
    "tls",
    "ws",
    "wss",
    "http",
    "https",
    "quic",
    "wt",
    "https+wt",
    "sheetbend",
];

/// The schemes, as told to the user.
const SCHEMES: &str = "tcp, tls, ws, wss, http, https, quic, wt, sheetbend and unix";

/// A server's address: `tcp`, `tls`, `ws`, `wss`, `http`, `https`, `quic`, `wt`, `sheetbend` (whatever works) or
/// `unix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(pub Address);

/// A [`Url`] to listen on: port 0 asks the system for a free port, and `host:port` means TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenUrl(pub Address);

/// Why a text is not a URL. Its `Display` says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(String);

fn wrong(error: impl fmt::Display) -> UrlError {
    UrlError(error.to_string())
}

/// The address of one of [`CARRIED`]; `None` where it is another's to parse.
fn carried(text: &str) -> Option<Result<Address, UrlError>> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    if CARRIED.contains(&scheme.as_str()) {
        return Some(format!("{scheme}://{rest}").parse().map_err(wrong));
    }
    let known = ["tcp", "unix", ""].contains(&scheme.as_str());
    (!known).then(|| {
        Err(UrlError(format!(
            "scheme '{scheme}' is not supported; known are {SCHEMES}"
        )))
    })
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let address = match carried(text) {
            Some(address) => address?,
            None => {
                let plain: address::Address = text.parse().map_err(wrong)?;
                plain.to_string().parse().map_err(wrong)?
            }
        };
        match &address {
            Address::Over { port: 0, .. } => Err(UrlError(
                "port 0 cannot be connected to; write the server's port".to_owned(),
            )),
            _ => Ok(Url(address)),
        }
    }
}

impl FromStr for ListenUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        match carried(text) {
            Some(address) => address.map(ListenUrl),
            None => {
                let plain: ListenAddress = text.parse().map_err(wrong)?;
                plain.to_string().parse().map(ListenUrl).map_err(wrong)
            }
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whom a client believes to be its server.
#[derive(Debug, Clone, Default, Args)]
pub struct TrustArgs {
    /// Trust the server behind tls, wss and https by this pin, which 'sheetbend serve' prints; may be given again.
    #[arg(long, value_name = "PIN", conflicts_with = "ca")]
    pub pin: Vec<Pin>,
    /// Trust servers that an authority in this PEM file vouches for, instead of the system's authorities.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// A proxy ends TLS in front of the server.
    #[arg(long)]
    pub through_tls_proxy: bool,
}

impl TrustArgs {
    /// Whether anything was told.
    pub fn is_empty(&self) -> bool {
        self.pin.is_empty() && self.ca.is_none() && !self.through_tls_proxy
    }

    /// Tells a client.
    ///
    /// # Errors
    /// The file of the authority cannot be used.
    pub fn apply(&self, mut client: ClientBuilder) -> Result<ClientBuilder, Failure> {
        if let Some(path) = &self.ca {
            client = client.trust(authorities(path)?);
        } else if !self.pin.is_empty() {
            client = client.trust(Trust::Pins(self.pin.clone()));
        }
        Ok(client.through_tls_proxy(self.through_tls_proxy))
    }
}

/// The authorities of a PEM file.
fn authorities(path: &Path) -> Result<Trust, Failure> {
    let roots = certificates(&read(path)?).map_err(|error| unusable(path, error))?;
    Ok(Trust::Roots(roots))
}

/// What leads to a server, as it is told on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Through {
    /// It is reached straight.
    Nothing,
    /// This proxy does.
    Proxy(Proxy),
}

impl FromStr for Through {
    type Err = ProxyParseError;

    fn from_str(text: &str) -> Result<Self, ProxyParseError> {
        match text {
            "none" => Ok(Through::Nothing),
            text => text.parse().map(Through::Proxy),
        }
    }
}

/// What leads to a server.
#[derive(Debug, Clone, Default, Args)]
pub struct ThroughArgs {
    /// Reach the server through this proxy: http://user:password@host:port (CONNECT), https://host:port (the same
    /// inside TLS), socks5://host:port, or socks5h://host:port, which resolves names itself; 'none' goes straight. By
    /// default what HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say.
    #[arg(long, value_name = "URL")]
    pub proxy: Option<Through>,
    /// Trust https proxies that an authority in this PEM file vouches for, instead of the system's authorities.
    #[arg(long, value_name = "FILE")]
    pub proxy_ca: Option<PathBuf>,
}

impl ThroughArgs {
    /// Tells a client.
    ///
    /// # Errors
    /// The environment names what is no proxy, or the file of the authority cannot be used.
    pub fn apply(&self, mut client: ClientBuilder) -> Result<ClientBuilder, Failure> {
        if let Some(path) = &self.proxy_ca {
            client = client.proxy_trust(authorities(path)?);
        }
        match &self.proxy {
            Some(Through::Nothing) => Ok(client),
            Some(Through::Proxy(proxy)) => Ok(client.proxies(ProxyRules::all(proxy.clone()))),
            None => {
                let client = client.proxies_from_environment();
                client.map_err(|error| Failure::usage(format!("{error}; or go straight by --proxy none")))
            }
        }
    }
}

/// A server's certificate.
#[derive(Debug, Clone, Default, Args)]
pub struct CertificateArgs {
    /// Take TLS with a certificate that is made now; clients need the pin that is printed, and browsers, for 13 days,
    /// the hash.
    #[arg(long, value_name = "HOW", value_parser = ["self-signed"], conflicts_with = "cert")]
    pub tls: Option<String>,
    /// Take TLS with the certificate chain in this PEM file; SIGHUP reads it again.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
}

impl CertificateArgs {
    /// The certificate, if there is to be one.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn load(&self, listen: &[ListenUrl]) -> Result<Option<ServerTls>, Failure> {
        if self.tls.is_some() {
            return self_signed(listen.iter().filter_map(|url| host(&url.0))).map(Some);
        }
        let Some((cert, key)) = self.cert.as_ref().zip(self.key.as_ref()) else {
            return Ok(None);
        };
        let tls = ServerTls::from_pem(&read(cert)?, &read(key)?);
        tls.map(Some).map_err(|error| unusable(cert, error))
    }

    /// Reads the files again, if the certificate came from files. Tells whether it did.
    ///
    /// # Errors
    /// The files cannot be used; the certificate stays.
    pub fn reload(&self, tls: &ServerTls) -> Result<bool, Failure> {
        let Some((cert, key)) = self.cert.as_ref().zip(self.key.as_ref()) else {
            return Ok(false);
        };
        let reloaded = tls.reload(&read(cert)?, &read(key)?);
        reloaded.map(|()| true).map_err(|error| unusable(cert, error))
    }
}

fn host(address: &Address) -> Option<&str> {
    match address {
        Address::Tcp { host, .. } | Address::Over { host, .. } => Some(host),
        _ => None,
    }
}

/// How long browsers are to believe a certificate of this process. By `serverCertificateHashes` they believe none
/// that is valid for more than 14 days.
const VALIDITY: Duration = Duration::from_secs(13 * 86_400);

/// How far behind ours a clock may be that judges it.
const BACKDATED: Duration = Duration::from_secs(3600);

/// A certificate of this process for `localhost`, the loopback addresses and these hosts, of a key on P-256.
///
/// # Errors
/// It cannot be made.
pub fn self_signed<'a>(hosts: impl Iterator<Item = &'a str>) -> Result<ServerTls, Failure> {
    let trouble = |error: &dyn fmt::Display| Failure::failed(format!("cannot make a certificate: {error}"));
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    names.extend(hosts.map(str::to_owned));
    names.sort();
    names.dedup();
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|error| trouble(&error))?;
    let now = rcgen::date_time_ymd(1970, 1, 1) + since_1970;
    let mut params = rcgen::CertificateParams::new(names).map_err(|error| trouble(&error))?;
    params.not_before = now - BACKDATED;
    params.not_after = now + VALIDITY;
    let key = rcgen::KeyPair::generate().map_err(|error| trouble(&error))?;
    let made = params.self_signed(&key).map_err(|error| trouble(&error))?;
    let (cert, key) = (made.pem(), key.serialize_pem());
    ServerTls::from_pem(cert.as_bytes(), key.as_bytes()).map_err(|error| trouble(&error))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, error: impl fmt::Display) -> Failure {
    Failure::failed(format!("cannot use {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_every_transport_parse() {
        for text in [
            "tcp://h:7",
            "tls://h:7",
            "ws://h:80/",
            "wss://h:443/deep?x=1",
            "http://h:80/?mode=sse",
            "https://h:443/",
            "quic://h:7",
            "wt://h:443/deep",
            "sheetbend://h:7",
            "unix:///run/x.sock",
        ] {
            assert_eq!(text.parse::<Url>().expect("valid").to_string(), text);
        }
        assert_eq!("WS://h".parse::<Url>().expect("valid").to_string(), "ws://h:80/");
        assert_eq!(
            "https+wt://h".parse::<Url>().expect("valid").to_string(),
            "wt://h:443/"
        );
        let listen: ListenUrl = "127.0.0.1:0".parse().expect("valid");
        assert_eq!(listen.0.to_string(), "tcp://127.0.0.1:0");
        assert!("wss://127.0.0.1:0".parse::<ListenUrl>().is_ok());
    }

    #[test]
    fn mistakes_say_what_to_write() {
        let message = |text: &str| text.parse::<Url>().expect_err(text).to_string();
        assert_eq!(
            message("ftp://h:80/x"),
            "scheme 'ftp' is not supported; known are tcp, tls, ws, wss, http, https, quic, wt, sheetbend and unix"
        );
        assert!(message("tls://h").contains("no port"));
        assert!(message("http://h/?mode=fast").contains("binary, sse, ndjson and poll"));
        assert!(message("wss://h:0").starts_with("port 0"));
        assert_eq!(
            message("localhost:7"),
            "the scheme is missing; write tcp://localhost:7"
        );
    }

    #[test]
    fn a_certificate_of_its_own_has_a_pin() {
        let tls = self_signed(["host.example"].into_iter()).expect("made");
        let other = self_signed(std::iter::empty()).expect("made");
        assert_ne!(tls.pin().expect("a pin"), other.pin().expect("a pin"));
        let hash = tls.certificate_hash().expect("a certificate");
        assert_eq!((hash.len(), hash.ends_with('=')), (44, true));
    }
}
