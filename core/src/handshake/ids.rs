//! What names a session.

use std::fmt;

use smallvec::SmallVec;

use super::HandshakeError;
use super::reader::Reader;

/// The longest routing part of a session id.
pub const MAX_ROUTING_LEN: usize = 32;

/// Names a session. Not a secret and not a credential: proofs are. PROTOCOL 5.2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// Opaque bytes by which a load balancer finds the session's owner, at most [`MAX_ROUTING_LEN`].
/// PROTOCOL 5.2.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Routing(SmallVec<[u8; MAX_ROUTING_LEN]>);

impl Routing {
    /// `bytes`, or `None` when there are more than [`MAX_ROUTING_LEN`].
    pub fn new(bytes: &[u8]) -> Option<Routing> {
        (bytes.len() <= MAX_ROUTING_LEN).then(|| Routing(SmallVec::from_slice(bytes)))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Routing, HandshakeError> {
        Ok(Routing(SmallVec::from_slice(
            reader.bytes("routing", MAX_ROUTING_LEN)?,
        )))
    }
}

impl fmt::Debug for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Routing(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ")")
    }
}
