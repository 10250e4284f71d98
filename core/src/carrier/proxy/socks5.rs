//! SOCKS5, RFC 1928, with user and password, RFC 1929.

use core::net::IpAddr;

use bytes::{Buf, BytesMut};

use super::address::Credentials;
use super::{ProxyError, SocksRefusal, Step};

const VERSION: u8 = 5;
/// RFC 1929 §2: of the negotiation, not of the protocol.
const AUTH_VERSION: u8 = 1;
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;
const CONNECT: u8 = 1;

#[derive(Debug)]
enum State {
    /// For the method that the proxy picks.
    Method,
    /// For what it says of user and password.
    Authentication,
    Reply,
}

/// A negotiation under way.
#[derive(Debug)]
pub(super) struct Socks5 {
    state: State,
    credentials: Option<Credentials>,
    request: Vec<u8>,
}

impl Socks5 {
    /// A machine, and its greeting. A host name is the proxy's to resolve.
    pub(super) fn new(credentials: Option<&Credentials>, host: &str, port: u16) -> (Socks5, Vec<u8>) {
        let mut request = vec![VERSION, CONNECT, 0];
        match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => {
                request.push(1);
                request.extend_from_slice(&address.octets());
            }
            Ok(IpAddr::V6(address)) => {
                request.push(4);
                request.extend_from_slice(&address.octets());
            }
            Err(_) => {
                // At most 255, as was checked.
                request.extend_from_slice(&[3, u8::try_from(host.len()).unwrap_or(u8::MAX)]);
                request.extend_from_slice(host.as_bytes());
            }
        }
        request.extend_from_slice(&port.to_be_bytes());
        let greeting = match credentials {
            None => vec![VERSION, 1, NO_AUTHENTICATION],
            Some(_) => vec![VERSION, 2, NO_AUTHENTICATION, USER_AND_PASSWORD],
        };
        let machine = Socks5 {
            state: State::Method,
            credentials: credentials.cloned(),
            request,
        };
        (machine, greeting)
    }

    pub(super) fn take(&mut self, input: &mut BytesMut) -> Result<Step, ProxyError> {
        match self.state {
            State::Method => self.method(input),
            State::Authentication => self.authentication(input),
            State::Reply => reply(input),
        }
    }

    fn method(&mut self, input: &mut BytesMut) -> Result<Step, ProxyError> {
        check_version(input)?;
        let Some(&[_, method]) = input.first_chunk() else {
            return Ok(Step::Waiting);
        };
        input.advance(2);
        match (method, &self.credentials) {
            (NO_AUTHENTICATION, _) => self.ask(),
            (USER_AND_PASSWORD, Some(credentials)) => {
                self.state = State::Authentication;
                Ok(Step::Said(credentials.rfc1929(AUTH_VERSION)))
            }
            (NONE_ACCEPTABLE, None) => Err(ProxyError::AuthenticationRequired("socks5")),
            (NONE_ACCEPTABLE, Some(_)) => Err(ProxyError::UnknownAuthentication),
            _ => Err(ProxyError::NotSocks5("it picks a method that was not offered")),
        }
    }

    fn authentication(&mut self, input: &mut BytesMut) -> Result<Step, ProxyError> {
        let Some(&[version, status]) = input.first_chunk() else {
            return Ok(Step::Waiting);
        };
        input.advance(2);
        // Some proxies answer with the version of the protocol instead.
        if version != AUTH_VERSION && version != VERSION {
            return Err(ProxyError::NotSocks5("its authentication is of another version"));
        }
        match status {
            0 => self.ask(),
            _ => Err(ProxyError::CredentialsRefused),
        }
    }

    fn ask(&mut self) -> Result<Step, ProxyError> {
        self.state = State::Reply;
        Ok(Step::Said(std::mem::take(&mut self.request)))
    }
}

fn check_version(input: &[u8]) -> Result<(), ProxyError> {
    match input.first() {
        None | Some(&VERSION) => Ok(()),
        Some(_) => Err(ProxyError::NotSocks5("its answer is of another version")),
    }
}

/// RFC 1928 §6. A refusal is believed by its first two bytes: what follows may never come.
fn reply(input: &mut BytesMut) -> Result<Step, ProxyError> {
    check_version(input)?;
    if let Some(refusal) = input.get(1).and_then(|reply| SocksRefusal::from_reply(*reply)) {
        return Err(ProxyError::Socks(refusal));
    }
    let Some(&[_, _, reserved, kind]) = input.first_chunk() else {
        return Ok(Step::Waiting);
    };
    if reserved != 0 {
        return Err(ProxyError::NotSocks5("a reserved byte is not 0"));
    }
    let address = match (kind, input.get(4)) {
        (1, _) => 4,
        (4, _) => 16,
        (3, Some(len)) => 1 + usize::from(*len),
        (3, None) => return Ok(Step::Waiting),
        _ => return Err(ProxyError::NotSocks5("it tells an address of an unknown kind")),
    };
    // The port is behind the address; neither is of use to a client.
    let len = 4 + address + 2;
    if input.len() < len {
        return Ok(Step::Waiting);
    }
    input.advance(len);
    Ok(Step::Open)
}
