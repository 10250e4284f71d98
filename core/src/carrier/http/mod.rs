//! What all carriers that begin as HTTP/1.1 share: heads, parsed strictly, and who may speak to us.

mod guard;
mod head;

pub use guard::Guard;
pub use head::{HeadLimits, Headers, RequestHead, ResponseHead};

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
            HttpError::Status { .. } | HttpError::NotWebSocket(_) => (400, "not for a server"),
        }
    }
}

/// The whole refusal of a request; the connection ends with it.
pub fn refusal(error: &HttpError) -> Vec<u8> {
    let (status, why) = error.answer();
    let extra = match status {
        405 => "Allow: GET\r\n",
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

fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    }
}
