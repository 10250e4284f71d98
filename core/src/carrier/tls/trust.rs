//! Whom a client believes to be its server.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

use super::{Pin, TlsError};

/// Which servers are believed.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Those whose certificate one of these has issued, for the name that was asked for, and for now.
    Roots(Vec<CertificateDer<'static>>),
    /// Those with one of these keys, whatever else their certificate says.
    Pins(Vec<Pin>),
}

impl Trust {
    pub(super) fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
        match self {
            Trust::Roots(certificates) => {
                let mut roots = RootCertStore::empty();
                let (added, _) = roots.add_parsable_certificates(certificates.iter().cloned());
                if added == 0 {
                    return Err(TlsError::Other(
                        "no CA to trust: no certificate can be read".to_owned(),
                    ));
                }
                let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                    .build()
                    .map_err(|error| TlsError::Other(error.to_string()))?;
                Ok(verifier)
            }
            Trust::Pins(pins) => Ok(Arc::new(Pinned {
                pins: pins.clone(),
                provider: provider.clone(),
            })),
        }
    }
}

#[derive(Debug)]
struct Pinned {
    pins: Vec<Pin>,
    provider: Arc<CryptoProvider>,
}

/// What a refused server's key is; travels through rustls to [`wrong_pin`].
#[derive(Debug)]
struct NotPinned(Pin);

impl std::fmt::Display for NotPinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not pinned: {}", self.0)
    }
}

impl std::error::Error for NotPinned {}

/// What is told of an error.
pub(super) fn told(error: Error) -> TlsError {
    wrong_pin(&error).map_or_else(|| error.into(), TlsError::WrongPin)
}

/// The pin of a server that was refused for it.
fn wrong_pin(error: &Error) -> Option<Pin> {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(why))) = error else {
        return None;
    };
    why.downcast_ref::<NotPinned>().map(|refused| refused.0)
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pin = Pin::of(certificate).ok_or(CertificateError::BadEncoding)?;
        if self.pins.contains(&pin) {
            return Ok(ServerCertVerified::assertion());
        }
        let refused = NotPinned(pin);
        Err(CertificateError::Other(OtherError(Arc::new(refused))).into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // Only TLS 1.3 is offered.
        Err(Error::General("TLS 1.2".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Notes why it refuses a certificate: QUIC passes that on as a text alone.
#[cfg(feature = "quic")]
#[derive(Debug)]
pub(super) struct Noting(pub(super) Arc<dyn ServerCertVerifier>);

#[cfg(feature = "quic")]
impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .0
            .verify_server_cert(certificate, intermediates, name, ocsp, now);
        if let Err(error) = &verified {
            super::ambient::note_refusal(error);
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
