//! HTTP/1.1 as a carrier, client and server (PROTOCOL 14.7), and what all carriers that begin as HTTP/1.1 share:
//! heads, parsed strictly, and who may speak to us.
//!
//! A path sees exchanges, not connections: [`ClientPath`] asks for them, [`ServerPath`] is what they are brought to
//! by their [`Token`]. Both keep what the other end is not known to have, so that an exchange that breaks costs
//! nothing.

mod body;
mod client;
mod exchange;
mod guard;
mod head;
mod mode;
mod reader;
mod response;
mod sequence;
mod server;
#[cfg(test)]
mod tests;

pub use body::{BodyDecoder, BodyLength, LAST_CHUNK, begin_chunk, end_chunk};
pub use client::{Action, ClientConfig, ClientPath, Slot};
pub use exchange::{Asked, Exchange, ExchangeKey, Operation, Token};
pub use guard::Guard;
pub use head::{HeadLimits, Headers, RequestHead, ResponseHead};
pub use mode::{Item, ItemDecoder, Mode, Note, UnknownMode, put_alive, put_data, put_note, put_preamble};
pub use reader::ItemReader;
pub use sequence::{Incoming, Outgoing, SequenceError};
pub use server::{ServerConfig, ServerPath, Uploaded, begin_down};

/// Fields of every response of a path: nobody on the way is to keep it, or to hold it back.
const RESPONSE_FIELDS: &str = "Cache-Control: no-store, no-transform\r\nX-Accel-Buffering: no\r\n\
                               X-Content-Type-Options: nosniff\r\n";

/// What is wrong with an HTTP exchange.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// A head that is not HTTP/1.1, or that two parsers might read differently.
    #[error("malformed HTTP: {0}")]
    Malformed(&'static str),
    /// A head of more bytes or more fields than allowed.
    #[error("the HTTP head is too large")]
    TooLarge,
    /// We, the server, refuse the request.
    #[error("refused with HTTP {status}: {why}")]
    Refused {
        /// The status that the client is told.
        status: u16,
        /// Why, as the client is told.
        why: &'static str,
    },
    /// The server refused our request.
    #[error("the server answered HTTP {status} {reason}")]
    Status {
        /// Its status.
        status: u16,
        /// Its own words, at most 64 bytes.
        reason: String,
    },
    /// The bytes of a path do not follow each other.
    #[error(transparent)]
    Sequence(SequenceError),
    /// Connections to the server cannot be made, or break.
    #[error("the server cannot be reached over HTTP")]
    Unreachable,
    /// The server ended our request without an answer.
    #[error("the server does not answer the request")]
    Unanswered,
    /// The server switched to something that we did not ask for.
    #[error("the server's answer is no WebSocket handshake: {0}")]
    NotWebSocket(&'static str),
}

impl HttpError {
    /// The status and words with which a server answers this error.
    pub fn answer(&self) -> (u16, &'static str) {
        match self {
            HttpError::Refused { status, why } => (*status, why),
            HttpError::TooLarge => (431, "the head is too large"),
            HttpError::Malformed(what) => (400, what),
            HttpError::Sequence(_) => (409, "bytes are missing"),
            HttpError::Status { .. }
            | HttpError::NotWebSocket(_)
            | HttpError::Unreachable
            | HttpError::Unanswered => (400, "not for a server"),
        }
    }
}

/// The whole refusal of a request; the connection ends with it.
pub fn refusal(error: &HttpError) -> Vec<u8> {
    let (status, why) = error.answer();
    let extra = match status {
        405 => "Allow: GET, POST\r\n",
        426 => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        _ => "",
    };
    let connection = if status == 426 { "close, Upgrade" } else { "close" };
    format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\n{extra}Connection: {connection}\r\n\r\n{why}\n",
        reason(status),
        why.len() + 1,
    )
    .into_bytes()
}

pub(in crate::carrier) fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}
