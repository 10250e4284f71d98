//! The key schedule, and every MAC and proof that is made with it. PROTOCOL 5.3.

use std::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::HandshakeError;
use super::message::{Confirm, Hello, Join, Joined, Welcome};

/// What a carrier's TLS exporter gives both of its ends. PROTOCOL 6.2.
pub type Exporter = [u8; 32];

/// The label of the TLS exporter to which a JOIN is bound; no context. PROTOCOL 6.2.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-sheetbend/1";

/// One end's X25519 secret, for one session. PROTOCOL 5.3.
///
/// A client keeps it until its first WELCOME has come; wiped on drop.
pub struct EphemeralSecret(StaticSecret);

impl EphemeralSecret {
    /// The secret of 32 random bytes.
    pub fn from_seed(seed: [u8; 32]) -> EphemeralSecret {
        let seed = Zeroizing::new(seed);
        EphemeralSecret(StaticSecret::from(*seed))
    }

    /// What travels in HELLO or WELCOME.
    pub fn share(&self) -> [u8; 32] {
        PublicKey::from(&self.0).to_bytes()
    }

    /// The shared secret; refused when the peer's share forces it to zero (RFC 7748 §6.1).
    fn agree(&self, peer_share: &[u8; 32]) -> Result<SharedSecret, HandshakeError> {
        let shared = self.0.diffie_hellman(&PublicKey::from(*peer_share));
        if shared.was_contributory() {
            Ok(shared)
        } else {
            Err(HandshakeError::WeakShare)
        }
    }
}

impl fmt::Debug for EphemeralSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EphemeralSecret { .. }")
    }
}

/// A session's keys, the same at both ends, one for each direction and purpose. PROTOCOL 5.3.
///
/// Sessions are many and handshakes few, so a key is derived when it is used. Wiped on drop and never
/// printed. Every `verify` compares in constant time.
#[derive(Clone)]
pub struct SessionKeys {
    transcript_hash: [u8; 32],
    /// What every key is expanded from (RFC 5869 §2.2).
    root: [u8; 32],
}

impl SessionKeys {
    /// The server's keys, once it has written its (not yet signed) WELCOME.
    ///
    /// # Errors
    /// [`HandshakeError::WeakShare`].
    pub fn server(
        secret: &EphemeralSecret,
        hello: &Hello,
        welcome: &Welcome,
    ) -> Result<SessionKeys, HandshakeError> {
        let shared = secret.agree(hello.share())?;
        Ok(SessionKeys::derive(
            hello.transcript(),
            welcome.transcript(),
            &shared,
        ))
    }

    /// The client's keys, once WELCOME has come; its version and MAC are verified.
    ///
    /// # Errors
    /// [`HandshakeError::VersionNotOffered`], [`HandshakeError::WeakShare`],
    /// [`HandshakeError::BadProof`].
    pub fn client(
        secret: &EphemeralSecret,
        hello: &Hello,
        welcome: &Welcome,
    ) -> Result<SessionKeys, HandshakeError> {
        let version = welcome.version();
        if !hello.versions().contains(&version) {
            return Err(HandshakeError::VersionNotOffered { version });
        }
        let shared = secret.agree(welcome.share())?;
        let keys = SessionKeys::derive(hello.transcript(), welcome.transcript(), &shared);
        keys.verify_welcome(welcome)?;
        Ok(keys)
    }

    fn derive(hello_t: &[u8], welcome_t: &[u8], shared: &SharedSecret) -> SessionKeys {
        let transcript_hash = transcript_hash(hello_t, welcome_t);
        let (mut extracted, _) = Hkdf::<Sha256>::extract(Some(&transcript_hash), shared.as_bytes());
        let root = extracted.into();
        extracted.zeroize();
        SessionKeys {
            transcript_hash,
            root,
        }
    }

    fn key(&self, label: &[u8]) -> Zeroizing<[u8; 32]> {
        let hkdf = Hkdf::<Sha256>::from_prk(&self.root).expect("a hash is long enough to be expanded");
        let mut key = Zeroizing::new([0; 32]);
        hkdf.expand_multi_info(&[b"sheetbend/1 ", label], &mut *key)
            .expect("HKDF-SHA256 gives up to 8160 bytes");
        key
    }

    /// `th` of PROTOCOL 5.3. Not a secret.
    pub fn transcript_hash(&self) -> &[u8; 32] {
        &self.transcript_hash
    }

    /// The key of records that a client seals; reserved. PROTOCOL 5.3.
    pub fn seal_client(&self) -> Zeroizing<[u8; 32]> {
        self.key(b"seal client")
    }

    /// The key of records that a server seals; reserved. PROTOCOL 5.3.
    pub fn seal_server(&self) -> Zeroizing<[u8; 32]> {
        self.key(b"seal server")
    }

    /// The key that proves HTTP exchanges. PROTOCOL 14.7.
    pub fn exchange(&self) -> Zeroizing<[u8; 32]> {
        self.key(b"exchange")
    }

    /// WELCOME.mac for a path. PROTOCOL 5.2.
    pub fn welcome_mac(&self, path_id: u64) -> [u8; 32] {
        mac(
            &self.key(b"welcome"),
            &[&self.transcript_hash, &path_id.to_be_bytes()],
        )
    }

    /// Puts the MAC into a WELCOME: the first one, or its repetition on another path. PROTOCOL 5.2.
    pub fn sign_welcome(&self, welcome: &mut Welcome) {
        welcome.mac = self.welcome_mac(welcome.path_id);
    }

    fn verify_welcome(&self, welcome: &Welcome) -> Result<(), HandshakeError> {
        equal(&self.welcome_mac(welcome.path_id), &welcome.mac)
    }

    /// Verifies that `again` is the WELCOME of which `first` is the [`Welcome::digest`], repeated on
    /// another path. PROTOCOL 5.2.
    ///
    /// The MAC alone would not do: it covers the first WELCOME's transcript, not this one's bytes.
    pub fn verify_repeated(&self, first: &[u8; 32], again: &Welcome) -> Result<(), HandshakeError> {
        if *first != again.digest() {
            return Err(HandshakeError::BadProof);
        }
        self.verify_welcome(again)
    }

    /// The proof of a CONFIRM that follows HELLO. PROTOCOL 5.4.
    pub fn confirm_hello_proof(&self, confirm: &Confirm) -> [u8; 32] {
        let body = body(|out| confirm.encode_unproven(out));
        mac(&self.key(b"confirm"), &[b"hello", &self.transcript_hash, &body])
    }

    /// Verifies a CONFIRM that follows HELLO. PROTOCOL 5.4.
    pub fn verify_confirm_hello(&self, confirm: &Confirm) -> Result<(), HandshakeError> {
        equal(&self.confirm_hello_proof(confirm), &confirm.proof)
    }

    /// The proof of a JOIN. The caller sets [`Join::bound`] first; when it is set, `exporter` is
    /// needed. PROTOCOL 6.2.
    ///
    /// # Errors
    /// [`HandshakeError::NoExporter`]: bound, but there is no exporter.
    pub fn join_proof(&self, join: &Join, exporter: Option<&Exporter>) -> Result<[u8; 32], HandshakeError> {
        let body = body(|out| join.encode_unproven(out));
        let bound: &[u8] = match (join.bound, exporter) {
            (true, Some(exporter)) => exporter,
            (true, None) => return Err(HandshakeError::NoExporter),
            (false, _) => &[],
        };
        Ok(mac(&self.key(b"join"), &[b"join", &body, bound]))
    }

    /// Verifies a JOIN. PROTOCOL 6.2.
    ///
    /// With an `exporter`, the JOIN must be bound to it. A server behind a TLS proxy, which is
    /// configured to accept unbound JOINs, gives none.
    ///
    /// # Errors
    /// [`HandshakeError::Unbound`], [`HandshakeError::NoExporter`], [`HandshakeError::BadProof`].
    pub fn verify_join(&self, join: &Join, exporter: Option<&Exporter>) -> Result<(), HandshakeError> {
        if exporter.is_some() && !join.bound {
            return Err(HandshakeError::Unbound);
        }
        equal(&self.join_proof(join, exporter)?, &join.proof)
    }

    /// The proof of a JOINED; `join_digest` is [`Join::digest`]. PROTOCOL 6.3.
    pub fn joined_proof(&self, join_digest: &[u8; 32], joined: &Joined) -> [u8; 32] {
        let body = body(|out| joined.encode_unproven(out));
        mac(&self.key(b"joined"), &[b"joined", join_digest, &body])
    }

    /// Verifies a JOINED. PROTOCOL 6.3.
    pub fn verify_joined(&self, join_digest: &[u8; 32], joined: &Joined) -> Result<(), HandshakeError> {
        equal(&self.joined_proof(join_digest, joined), &joined.proof)
    }

    /// The proof of a CONFIRM that follows JOIN; the digests are [`Join::digest`] and
    /// [`Joined::digest`]. PROTOCOL 6.4.
    pub fn confirm_join_proof(
        &self,
        join_digest: &[u8; 32],
        joined_digest: &[u8; 32],
        confirm: &Confirm,
    ) -> [u8; 32] {
        let body = body(|out| confirm.encode_unproven(out));
        mac(
            &self.key(b"confirm"),
            &[b"join", join_digest, joined_digest, &body],
        )
    }

    /// Verifies a CONFIRM that follows JOIN. PROTOCOL 6.4.
    pub fn verify_confirm_join(
        &self,
        join_digest: &[u8; 32],
        joined_digest: &[u8; 32],
        confirm: &Confirm,
    ) -> Result<(), HandshakeError> {
        equal(
            &self.confirm_join_proof(join_digest, joined_digest, confirm),
            &confirm.proof,
        )
    }
}

impl Drop for SessionKeys {
    fn drop(&mut self) {
        self.root.zeroize();
    }
}

impl ZeroizeOnDrop for SessionKeys {}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKeys { .. }")
    }
}

/// PROTOCOL 5.3: both transcripts with their lengths, so that no byte can move between them.
fn transcript_hash(hello_t: &[u8], welcome_t: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"sheetbend/1 transcript");
    for part in [hello_t, welcome_t] {
        // Both are bounded by `MAX_BODY`.
        hash.update((part.len() as u32).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // RFC 2104: a key shorter than the block is padded with zeros.
    let mut block = Zeroizing::new([0_u8; 64]);
    block[..32].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn equal(ours: &[u8; 32], theirs: &[u8; 32]) -> Result<(), HandshakeError> {
    if bool::from(ours.ct_eq(theirs)) {
        Ok(())
    } else {
        Err(HandshakeError::BadProof)
    }
}

fn body(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = Vec::with_capacity(256);
    encode(&mut body);
    body
}
