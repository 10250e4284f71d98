//! Pins: who a server is, by its key.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use sha2::{Digest, Sha256};

/// The SHA-256 of a key, as it stands in a certificate (its SubjectPublicKeyInfo). PROTOCOL 14.3.
///
/// Written `sha256/` and 43 characters of base64url. It stays the same when a certificate is renewed with
/// its key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin([u8; 32]);

/// A text is not a pin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a pin: write sha256/ and the 43 characters that the server prints")]
pub struct PinError(String);

impl Pin {
    /// The pin of a certificate's key; `None` when the certificate cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Pin> {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        let key = parsed.subject_public_key_info();
        Some(Pin(Sha256::digest(key.as_ref()).into()))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256/{}", data_encoding::BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Pin, PinError> {
        text.strip_prefix("sha256/")
            .and_then(|digest| data_encoding::BASE64URL_NOPAD.decode(digest.as_bytes()).ok())
            .and_then(|digest| digest.try_into().ok())
            .map(Pin)
            .ok_or_else(|| PinError(text.to_owned()))
    }
}
