//! The cryptography of TLS: ring's, but for what needs randomness.

use std::sync::Arc;

use rustls::crypto::ring::{self, kx_group};
use rustls::crypto::{ActiveKeyExchange, CryptoProvider, SharedSecret, SupportedKxGroup};
use rustls::{Error, NamedGroup, PeerMisbehaved};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::ambient::{self, Seeded};

/// Cipher suites, signatures and keys of ring; randomness, and with it X25519, of the connection at work.
/// The other groups, which no client of ours sends a share for, draw their own.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let ring = ring::default_provider();
    Arc::new(CryptoProvider {
        kx_groups: vec![&X25519, kx_group::SECP256R1, kx_group::SECP384R1],
        secure_random: &Seeded,
        ..ring
    })
}

#[derive(Debug)]
struct X25519;

impl SupportedKxGroup for X25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut seed = Zeroizing::new([0; 32]);
        ambient::fill(seed.as_mut_slice()).ok_or(Error::FailedToGetRandomBytes)?;
        let secret = StaticSecret::from(*seed);
        let public = PublicKey::from(&secret).to_bytes();
        Ok(Box::new(Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Exchange {
    secret: StaticSecret,
    public: [u8; 32],
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer = <[u8; 32]>::try_from(peer).map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer));
        // RFC 8446 §7.4.2.
        if !shared.was_contributory() {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        Ok(SharedSecret::from(shared.as_bytes().as_slice()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}
