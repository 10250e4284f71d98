//! The bytes of a transfer. All numbers are big-endian.
//!
//! ```text
//! sender   → offer:  "sbt1" · length of the rest u16 · flags u8 · id [16] · size u64 · name
//! receiver → reply:  kind u8 · length of the body u16 · body
//!              1 HAVE      position u64          the sender goes on from there
//!              2 STORED    SHA-256 [32]          the file is in place
//!              3 MISMATCH  SHA-256 [32]          the bytes are not those of the sender
//!              4 REFUSED   code u8 · message     nothing more is taken; may come at any time
//! sender   → the file's bytes from the position on, up to its size · SHA-256 of the whole file [32]
//! ```
//! After HAVE exactly one of the other replies follows. Flag 1 (*fresh*) asks the receiver to forget what it
//! holds of this transfer; other flags are refused.

use super::name::{FileName, MAX_NAME_BYTES, NameError};
use super::{Sha256, TransferId};
use crate::failure::one_line;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

const MAGIC: [u8; 4] = *b"sbt1";
const FIXED_BYTES: usize = 1 + 16 + 8;
const FRESH: u8 = 1;

/// The longest message that goes with REFUSED, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 400;

/// What a sender wants to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Under which name.
    pub name: FileName,
    /// How many bytes.
    pub size: u64,
    /// Which transfer.
    pub id: TransferId,
    /// Whether to begin anew.
    pub fresh: bool,
}

/// What a receiver says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// So many bytes are held.
    Have(u64),
    /// The file is in place, with this content.
    Stored(Sha256),
    /// The content has this hash, which is not the sender's.
    Mismatch(Sha256),
    /// The receiver does not want it.
    Refused(Refusal),
}

/// Why a receiver does not want a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of reason.
    pub reason: Reason,
    /// A line for the user; empty or printable.
    pub message: String,
}

/// Kinds of reasons to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The offer cannot be read.
    BadOffer = 1,
    /// The name is not acceptable.
    BadName = 2,
    /// The file is larger than the receiver takes.
    TooLarge = 3,
    /// The store is full.
    StoreFull = 4,
    /// Too much is going on.
    Busy = 5,
    /// The same transfer has come again on another stream.
    Superseded = 6,
    /// The name belongs to something that is not to be replaced.
    NameTaken = 7,
    /// The receiver has a problem of its own.
    Internal = 8,
    /// A reason that this version does not know.
    Unknown = 255,
}

impl Reason {
    fn from_code(code: u8) -> Reason {
        use Reason::*;
        let known = [
            BadOffer, BadName, TooLarge, StoreFull, Busy, Superseded, NameTaken, Internal,
        ];
        known
            .into_iter()
            .find(|reason| *reason as u8 == code)
            .unwrap_or(Unknown)
    }
}

/// Why bytes cannot be read as an [`Offer`] or a [`Reply`].
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The stream broke, or ended too early.
    #[error("the stream broke: {0}")]
    Stream(#[from] io::Error),
    /// The first bytes are not an offer's.
    #[error("the other side does not speak this protocol")]
    Magic,
    /// A length that cannot be.
    #[error("a length of {0} is out of bounds")]
    Length(usize),
    /// A flag that means nothing.
    #[error("unknown flags {0:#04x}")]
    Flags(u8),
    /// A kind of reply that means nothing.
    #[error("unknown reply {0}")]
    Kind(u8),
    /// A name that is not acceptable.
    #[error("{0}")]
    Name(#[from] NameError),
}

impl Offer {
    /// The offer's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let name = self.name.as_str().as_bytes();
        let length = (FIXED_BYTES + name.len()) as u16;
        let mut bytes = Vec::with_capacity(6 + usize::from(length));
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.push(if self.fresh { FRESH } else { 0 });
        bytes.extend_from_slice(&self.id.0);
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(name);
        bytes
    }

    /// Reads an offer, and nothing beyond it.
    ///
    /// # Errors
    /// Anything that is not an offer with an acceptable name.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Offer, WireError> {
        let mut magic = [0; 4];
        stream.read_exact(&mut magic).await?;
        if magic != MAGIC {
            return Err(WireError::Magic);
        }
        let length = usize::from(stream.read_u16().await?);
        // A name that is a little too long is told so; what is far too long is not even read.
        if !(FIXED_BYTES..=FIXED_BYTES + 4 * MAX_NAME_BYTES).contains(&length) {
            return Err(WireError::Length(length));
        }
        let flags = stream.read_u8().await?;
        let mut id = [0; 16];
        stream.read_exact(&mut id).await?;
        let size = stream.read_u64().await?;
        let mut name = vec![0; length - FIXED_BYTES];
        stream.read_exact(&mut name).await?;
        if flags & !FRESH != 0 {
            return Err(WireError::Flags(flags));
        }
        Ok(Offer {
            name: FileName::parse(&name)?,
            size,
            id: TransferId(id),
            fresh: flags & FRESH != 0,
        })
    }
}

impl Reply {
    /// The reply's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Reply::Have(position) => (1, position.to_be_bytes().to_vec()),
            Reply::Stored(sha) => (2, sha.0.to_vec()),
            Reply::Mismatch(sha) => (3, sha.0.to_vec()),
            Reply::Refused(refusal) => {
                let mut end = refusal.message.len().min(MAX_MESSAGE_BYTES);
                while !refusal.message.is_char_boundary(end) {
                    end -= 1;
                }
                let mut body = vec![refusal.reason as u8];
                body.extend_from_slice(&refusal.message.as_bytes()[..end]);
                (4, body)
            }
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&(body.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads a reply, and nothing beyond it.
    ///
    /// # Errors
    /// Anything that is not a reply.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Reply, WireError> {
        let kind = stream.read_u8().await?;
        let length = usize::from(stream.read_u16().await?);
        match (kind, length) {
            (1, 8) => Ok(Reply::Have(stream.read_u64().await?)),
            (2 | 3, 32) => {
                let mut sha = [0; 32];
                stream.read_exact(&mut sha).await?;
                let sha = Sha256(sha);
                Ok(if kind == 2 {
                    Reply::Stored(sha)
                } else {
                    Reply::Mismatch(sha)
                })
            }
            (4, 1..) if length <= 1 + MAX_MESSAGE_BYTES => {
                let reason = Reason::from_code(stream.read_u8().await?);
                let mut message = vec![0; length - 1];
                stream.read_exact(&mut message).await?;
                // It will be shown on a terminal.
                let message = one_line(&String::from_utf8_lossy(&message));
                Ok(Reply::Refused(Refusal { reason, message }))
            }
            (1..=4, _) => Err(WireError::Length(length)),
            _ => Err(WireError::Kind(kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        let name = FileName::parse("größe.bin".as_bytes()).expect("valid");
        Offer {
            name,
            size: u64::MAX,
            id: TransferId([7; 16]),
            fresh: true,
        }
    }

    #[tokio::test]
    async fn what_is_written_is_read() {
        let bytes = offer().encode();
        let mut rest = [&bytes[..], b"next"].concat();
        let mut stream = &rest[..];
        assert_eq!(Offer::read(&mut stream).await.expect("an offer"), offer());
        assert_eq!(stream, b"next");
        let long = Refusal {
            reason: Reason::Busy,
            message: "ü".repeat(300),
        };
        for reply in [
            Reply::Have(u64::MAX),
            Reply::Stored(Sha256([1; 32])),
            Reply::Mismatch(Sha256([2; 32])),
            Reply::Refused(Refusal {
                reason: Reason::StoreFull,
                message: "no room".into(),
            }),
        ] {
            rest = reply.encode();
            assert_eq!(Reply::read(&mut &rest[..]).await.expect("a reply"), reply);
        }
        let Reply::Refused(cut) = Reply::read(&mut &Reply::Refused(long).encode()[..])
            .await
            .expect("a reply")
        else {
            unreachable!()
        };
        assert_eq!(cut.message, "ü".repeat(MAX_MESSAGE_BYTES / 2));
    }

    #[tokio::test]
    async fn every_truncation_is_a_broken_stream() {
        let offer = offer().encode();
        for end in 0..offer.len() {
            assert!(
                matches!(Offer::read(&mut &offer[..end]).await, Err(WireError::Stream(_))),
                "{end}"
            );
        }
        let reply = Reply::Stored(Sha256([3; 32])).encode();
        for end in 0..reply.len() {
            assert!(
                matches!(Reply::read(&mut &reply[..end]).await, Err(WireError::Stream(_))),
                "{end}"
            );
        }
    }

    #[tokio::test]
    async fn hostile_bytes_are_typed_errors() {
        let with = |at: usize, byte: u8| {
            let mut bytes = offer().encode();
            bytes[at] = byte;
            bytes
        };
        assert!(matches!(
            Offer::read(&mut &with(0, b'G')[..]).await,
            Err(WireError::Magic)
        ));
        assert!(matches!(
            Offer::read(&mut &with(4, 0xff)[..]).await,
            Err(WireError::Length(_))
        ));
        assert!(matches!(
            Offer::read(&mut &with(5, 3)[..]).await,
            Err(WireError::Length(3))
        ));
        assert!(matches!(
            Offer::read(&mut &with(6, 2)[..]).await,
            Err(WireError::Flags(2))
        ));
        assert!(matches!(
            Offer::read(&mut &with(31, b'.')[..]).await,
            Err(WireError::Name(NameError::Hidden))
        ));
        assert!(matches!(
            Offer::read(&mut &with(32, b'/')[..]).await,
            Err(WireError::Name(_))
        ));
        for (bytes, kind) in [
            (&[9, 0, 0][..], true),
            (&[1, 0, 9], false),
            (&[2, 0, 31], false),
            (&[4, 0, 0], false),
        ] {
            let error = Reply::read(&mut &bytes[..]).await.expect_err("hostile");
            assert_eq!(matches!(error, WireError::Kind(9)), kind, "{error}");
            assert_eq!(matches!(error, WireError::Length(_)), !kind, "{error}");
        }
        assert!(matches!(
            Reply::read(&mut &[4, 0xff, 0xff][..]).await,
            Err(WireError::Length(65535))
        ));
        let escape = Reply::Refused(Refusal {
            reason: Reason::Internal,
            message: "\x1b]0;x\x07\nhi".into(),
        });
        let Ok(Reply::Refused(refusal)) = Reply::read(&mut &escape.encode()[..]).await else {
            unreachable!()
        };
        assert_eq!(refusal.message, "]0;x hi");
    }
}
