//! WebSocket (RFC 6455) as a carrier, client and server. PROTOCOL 14.2.
//!
//! Frame headers and the accept key are tungstenite's; buffers and masks are ours. What comes is unmasked
//! and joined where it lies, what a server sends goes by reference, and what a client sends is masked in the
//! buffer it was built in, or on the one copy that large payloads need.

mod decode;
mod encode;
mod handshake;
mod mask;
#[cfg(test)]
mod tests;

use bytes::BytesMut;
use tungstenite::protocol::frame::coding::CloseCode;

pub use decode::Message;
pub use handshake::{ClientHandshake, ServerHandshake};

use super::CarrierError;
use crate::rng::Rng;
use crate::time::Timestamp;
use crate::wire::OutBuffer;
use decode::Decoder;
use handshake::Handshake;

/// The subprotocol that both ends must name.
pub const SUBPROTOCOL: &str = "sheetbend.v1";

/// What came is not WebSocket, or not as we speak it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("WebSocket: {what} (close code {code})")]
pub struct Violation {
    /// The code that the peer is told, RFC 6455 §7.4.
    pub code: u16,
    /// What is wrong.
    pub what: &'static str,
}

impl Violation {
    fn new(code: CloseCode, what: &'static str) -> Violation {
        Violation {
            code: code.into(),
            what,
        }
    }
}

/// Limits on what the peer sends, and what it may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message, over all its frames.
    pub message: u64,
    /// Frames of one message, empty ones included.
    pub frames: u32,
    /// Frames that carry no data (control and empty ones) at once; 100 more in each second.
    pub idle_frames: u32,
    /// Whether text messages are taken, if they are UTF-8. Sessions speak binary alone.
    pub text: bool,
}

impl Default for Limits {
    /// 64 MiB a message in 4,096 frames, 1,000 frames without data, no text.
    fn default() -> Limits {
        Limits {
            message: 64 * 1024 * 1024,
            frames: 4096,
            idle_frames: 1000,
            text: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Handshake,
    Open,
    /// Nothing more is sent; what comes is dropped.
    Ended,
}

/// One WebSocket connection.
///
/// Calls: as [`Carrier`](super::Carrier), which is the usual way to use it.
#[derive(Debug)]
pub struct WebSocket {
    state: State,
    handshake: Option<Box<Handshake>>,
    decoder: Decoder,
    /// A client's, to mask with.
    mask: Option<Rng>,
    /// What the handshake has to say.
    pending: Vec<u8>,
    /// Why we close.
    failed: Option<Violation>,
    close_sent: bool,
}

impl WebSocket {
    /// A client's end. `rng` gives the key of the handshake and every mask.
    pub fn client(handshake: ClientHandshake, limits: Limits, mut rng: Rng) -> WebSocket {
        let (handshake, request) = Handshake::client(handshake, rng.bytes());
        WebSocket {
            state: State::Handshake,
            handshake: Some(Box::new(handshake)),
            decoder: Decoder::new(limits, false),
            mask: Some(rng),
            pending: request,
            failed: None,
            close_sent: false,
        }
    }

    /// A server's end, which awaits the request.
    pub fn server(handshake: ServerHandshake, limits: Limits) -> WebSocket {
        WebSocket {
            state: State::Handshake,
            handshake: Some(Box::new(Handshake::Server(handshake))),
            decoder: Decoder::new(limits, true),
            mask: None,
            pending: Vec::new(),
            failed: None,
            close_sent: false,
        }
    }

    /// Whether the handshake is done, and nobody has closed.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether the peer has closed.
    pub fn is_ended(&self) -> bool {
        self.decoder.close.is_some()
    }

    /// [`Carrier::handle_input`](super::Carrier::handle_input).
    ///
    /// # Errors
    /// The connection is over: [`WebSocket::close`], write it, close the connection.
    pub fn handle_input(
        &mut self,
        now: Timestamp,
        input: &mut BytesMut,
        clean: &mut usize,
    ) -> Result<(), CarrierError> {
        if self.state == State::Handshake {
            self.shake_hands(input)?;
        }
        if self.state != State::Open {
            if self.state == State::Ended {
                input.truncate(*clean);
            }
            return Ok(());
        }
        let result = self.decoder.decode(now, input, clean);
        if let Err(violation) = result {
            self.failed = Some(violation);
            input.truncate(*clean);
            return Err(violation.into());
        }
        if self.is_ended() {
            input.truncate(*clean);
        }
        Ok(())
    }

    fn shake_hands(&mut self, input: &mut BytesMut) -> Result<(), CarrierError> {
        let Some(handshake) = &self.handshake else {
            return Ok(());
        };
        match handshake.take(input) {
            Ok(None) => Ok(()),
            Ok(Some(answer)) => {
                self.pending.extend_from_slice(&answer);
                self.handshake = None;
                self.state = State::Open;
                Ok(())
            }
            Err(error) => {
                if handshake.is_server() {
                    self.pending = super::http::refusal(&error);
                }
                self.state = State::Ended;
                Err(error.into())
            }
        }
    }

    /// Stops at the end of each message, so that [`WebSocket::take_message`] tells them apart. Sessions do
    /// not: to them all messages are one sequence of bytes.
    pub fn stop_at_messages(&mut self) {
        self.decoder.stops = true;
    }

    /// What kind of message ended where `clean` ends; input goes on once this was asked.
    pub fn take_message(&mut self) -> Option<Message> {
        self.decoder.ended.take()
    }

    /// Gives back memory that an idle connection does not need.
    pub fn shrink(&mut self) {
        self.pending.shrink_to_fit();
        self.decoder.shrink();
    }

    /// Whether there is something to send beside records.
    pub fn has_output(&self) -> bool {
        !self.pending.is_empty() || !self.decoder.pings.is_empty() || (self.is_ended() && !self.close_sent)
    }

    /// Appends the closing frame, if it was not sent.
    pub fn close(&mut self, out: &mut OutBuffer) {
        if !self.pending.is_empty() {
            out.put(&std::mem::take(&mut self.pending));
        }
        if self.state == State::Open && !self.close_sent {
            self.put_close(out);
        }
        self.state = State::Ended;
    }
}
