//! Connection ids from our own randomness, that we know again.

use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use ring::hmac;

use crate::rng::Rng;

/// Random bytes of an id.
const NONCE: usize = 6;
/// Bytes that prove who made it.
const PROOF: usize = 4;

/// Makes ids that end in a proof of the rest, so that a datagram of an unknown connection is answered only if that
/// connection may have been ours: what was made up costs one hash, and no reset goes out for it.
pub(super) struct Cids {
    rng: Rng,
    key: hmac::Key,
}

impl Cids {
    pub(super) fn new(mut rng: Rng) -> Cids {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &rng.bytes::<32>());
        Cids { rng, key }
    }
}

impl ConnectionIdGenerator for Cids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; NONCE + PROOF];
        let (nonce, proof) = id.split_at_mut(NONCE);
        self.rng.fill(nonce);
        proof.copy_from_slice(&hmac::sign(&self.key, nonce).as_ref()[..PROOF]);
        ConnectionId::new(&id)
    }

    fn validate(&self, cid: &ConnectionId) -> Result<(), InvalidCid> {
        let (nonce, proof) = cid.split_at_checked(NONCE).ok_or(InvalidCid)?;
        let own = hmac::sign(&self.key, nonce);
        // Nothing is granted for it but an answer: no need to compare in constant time.
        if own.as_ref().get(..PROOF) == Some(proof) {
            Ok(())
        } else {
            Err(InvalidCid)
        }
    }

    fn cid_len(&self) -> usize {
        NONCE + PROOF
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_ids_are_known_and_no_others() {
        let mut ours = Cids::new(Rng::from_seed([1; 32]));
        let mut others = Cids::new(Rng::from_seed([2; 32]));
        let id = ours.generate_cid();
        assert_eq!(id.len(), ours.cid_len());
        assert!(ours.validate(&id).is_ok());
        assert!(others.validate(&id).is_err());
        assert!(ours.validate(&others.generate_cid()).is_err());
        assert!(ours.validate(&ConnectionId::new(&id[..NONCE - 1])).is_err());
        assert_ne!(ours.generate_cid(), id);
    }
}
