//! The HTTP exchange with which a WebSocket begins. RFC 6455 §4, PROTOCOL 14.2.

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tungstenite::handshake::derive_accept_key;

#[cfg(doc)]
use super::SUBPROTOCOL;
use crate::carrier::http::{Guard, HeadLimits, HttpError, RequestHead, ResponseHead};

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHandshake {
    /// The field `Host`: the name, and the port where it is not the scheme's own.
    pub host: String,
    /// The path and query, `/` at least.
    pub target: String,
    /// The field `Origin`, where the server wants one.
    pub origin: Option<String>,
    /// The subprotocol, [`SUBPROTOCOL`] for sessions; the server must agree to it.
    pub protocol: Option<&'static str>,
}

/// What a server grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHandshake {
    /// Who is served.
    pub guard: Arc<Guard>,
    /// The only path that is served; every path where it is `/`.
    pub path: Arc<str>,
    /// Whether the request came over TLS that ends here.
    pub encrypted: bool,
    /// The subprotocol that clients must offer, [`SUBPROTOCOL`] for sessions; `None` takes all, and agrees to
    /// none.
    pub protocol: Option<&'static str>,
}

/// One end, before it is done.
#[derive(Debug)]
pub(super) enum Handshake {
    Client {
        accept: String,
        protocol: Option<&'static str>,
    },
    Server(ServerHandshake),
}

impl Handshake {
    /// A client's end, and its request.
    pub(super) fn client(handshake: ClientHandshake, nonce: [u8; 16]) -> (Handshake, Vec<u8>) {
        let ClientHandshake {
            host,
            target,
            origin,
            protocol,
        } = handshake;
        let key = data_encoding::BASE64.encode(&nonce);
        let origin = origin.map_or(String::new(), |origin| format!("Origin: {origin}\r\n"));
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\n{origin}Connection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{}\r\n",
            protocol_field(protocol)
        );
        let accept = derive_accept_key(key.as_bytes());
        (Handshake::Client { accept, protocol }, request.into_bytes())
    }

    pub(super) fn is_server(&self) -> bool {
        matches!(self, Handshake::Server(_))
    }

    /// Takes the peer's head off the input, if it is complete, and gives what is to be answered.
    pub(super) fn take(&self, input: &mut BytesMut) -> Result<Option<Vec<u8>>, HttpError> {
        let limits = HeadLimits::default();
        let (answer, len) = match self {
            Handshake::Server(server) => match RequestHead::parse(input, limits)? {
                Some((head, len)) => (server.answer(&head)?, len),
                None => return Ok(None),
            },
            Handshake::Client { accept, protocol } => match ResponseHead::parse(input, limits)? {
                Some((head, len)) => {
                    check_response(&head, accept, *protocol)?;
                    (Vec::new(), len)
                }
                None => return Ok(None),
            },
        };
        input.advance(len);
        Ok(Some(answer))
    }
}

impl ServerHandshake {
    /// The answer to a good request. RFC 6455 §4.2.
    fn answer(&self, head: &RequestHead) -> Result<Vec<u8>, HttpError> {
        let refused = |status, why| Err(HttpError::Refused { status, why });
        self.guard.check(head, self.encrypted, false)?;
        if head.method != "GET" {
            return refused(405, "a WebSocket begins with GET");
        }
        if !head.is_http11 {
            return refused(400, "a WebSocket begins with HTTP/1.1");
        }
        if *self.path != *"/" && *self.path != *head.path() {
            return refused(404, "nothing is served at this path");
        }
        let headers = &head.headers;
        if !headers.has_token("connection", "upgrade") || !headers.has_token("upgrade", "websocket") {
            return refused(426, "this server speaks WebSocket here");
        }
        if headers.single("sec-websocket-version")? != Some("13") {
            return refused(426, "only version 13 of WebSocket is spoken here");
        }
        if head.has_body() {
            return refused(400, "a handshake has no body");
        }
        let key = headers.single("sec-websocket-key")?.unwrap_or_default();
        let nonce = data_encoding::BASE64.decode(key.as_bytes());
        if !nonce.is_ok_and(|nonce| nonce.len() == 16) {
            return refused(400, "Sec-WebSocket-Key is not 16 bytes in base64");
        }
        let offered = |wanted| {
            headers
                .tokens("sec-websocket-protocol")
                .any(|name| name == wanted)
        };
        if self.protocol.is_some_and(|wanted| !offered(wanted)) {
            return refused(400, "the subprotocol sheetbend.v1 must be offered");
        }
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{}\r\n",
            protocol_field(self.protocol)
        );
        Ok(answer.into_bytes())
    }
}

fn protocol_field(protocol: Option<&str>) -> String {
    protocol.map_or(String::new(), |name| {
        format!("Sec-WebSocket-Protocol: {name}\r\n")
    })
}

/// RFC 6455 §4.1, the list at its end.
fn check_response(head: &ResponseHead, accept: &str, protocol: Option<&str>) -> Result<(), HttpError> {
    let refused = |why| Err(HttpError::NotWebSocket(why));
    if head.status != 101 {
        let reason = head.reason.chars().filter(|c| !c.is_control()).take(64).collect();
        return Err(HttpError::Status {
            status: head.status,
            reason,
        });
    }
    let headers = &head.headers;
    if !headers.has_token("upgrade", "websocket") || !headers.has_token("connection", "upgrade") {
        return refused("it upgrades to something else");
    }
    if headers.single("sec-websocket-accept")? != Some(accept) {
        return refused("Sec-WebSocket-Accept does not answer our key");
    }
    if headers.tokens("sec-websocket-extensions").next().is_some() {
        return refused("it uses an extension that was not offered");
    }
    if headers.single("sec-websocket-protocol")? != protocol {
        return refused("it does not speak sheetbend.v1");
    }
    Ok(())
}
