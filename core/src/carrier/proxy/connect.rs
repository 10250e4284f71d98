//! HTTP CONNECT. RFC 9110 §9.3.6, with basic authentication, RFC 7617.

use bytes::{Buf, BytesMut};

use super::address::Credentials;
use super::{ProxyError, Step, TunnelLimits};
use crate::carrier::http::{HeadLimits, ResponseHead};

/// A request of which the answer is awaited.
#[derive(Debug)]
pub(super) struct Connect {
    head: HeadLimits,
    interim_left: u32,
    authenticated: bool,
}

impl Connect {
    /// A machine, and its request.
    pub(super) fn new(
        credentials: Option<&Credentials>,
        host: &str,
        port: u16,
        limits: TunnelLimits,
    ) -> (Connect, Vec<u8>) {
        let authority = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
        if let Some(credentials) = credentials {
            request.extend_from_slice(b"Proxy-Authorization: Basic ");
            request.extend_from_slice(credentials.basic().as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        let machine = Connect {
            head: HeadLimits {
                bytes: limits.head,
                ..HeadLimits::default()
            },
            interim_left: limits.interim,
            authenticated: credentials.is_some(),
        };
        (machine, request)
    }

    pub(super) fn take(&mut self, input: &mut BytesMut) -> Result<Step, ProxyError> {
        loop {
            let Some((head, len)) = ResponseHead::parse(input, self.head)? else {
                return Ok(Step::Waiting);
            };
            input.advance(len);
            match head.status {
                // Behind a 2xx head begins the tunnel, whatever the head says of a body.
                200..=299 => return Ok(Step::Open),
                // RFC 9110 §15.2: any number of these may come first.
                100..=199 => {
                    let left = self.interim_left.checked_sub(1);
                    self.interim_left = left.ok_or(ProxyError::Endless)?;
                }
                407 => return Err(self.unauthenticated(&head)),
                status => return Err(refused(status, &head.reason)),
            }
        }
    }

    fn unauthenticated(&self, head: &ResponseHead) -> ProxyError {
        let basic = |challenge: &str| {
            let scheme = challenge.split([' ', '\t']).next().unwrap_or_default();
            scheme.eq_ignore_ascii_case("basic")
        };
        if !head.headers.tokens("proxy-authenticate").any(basic) {
            return ProxyError::UnknownAuthentication;
        }
        match self.authenticated {
            true => ProxyError::CredentialsRefused,
            false => ProxyError::AuthenticationRequired("http"),
        }
    }
}

fn refused(status: u16, reason: &str) -> ProxyError {
    let reason = reason.chars().filter(|c| !c.is_control()).take(64).collect();
    ProxyError::Refused { status, reason }
}
