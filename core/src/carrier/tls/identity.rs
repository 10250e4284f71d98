//! Who a server says it is: its certificate and key, which may change while it runs.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};

use super::base::base;
use super::{Pin, TlsError};

/// A server's end of TLS. Clones share the certificate: [`ServerTls::reload`] on one changes all.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub(super) config: Arc<ServerConfig>,
    /// What is spoken over QUIC.
    #[cfg(feature = "quic")]
    pub(in crate::carrier) quic: Arc<ServerConfig>,
    identity: Arc<Identity>,
}

#[derive(Debug)]
struct Identity(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl ServerTls {
    /// A server with this certificate chain, its own first, and the key of that, both in PEM.
    ///
    /// # Errors
    /// They cannot be read, or do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<ServerTls, TlsError> {
        let certified = certified(chain, key)?;
        let identity = Arc::new(Identity(RwLock::new(Arc::new(certified))));
        let mut config = base()?.server.clone();
        config.cert_resolver = identity.clone();
        #[cfg(feature = "quic")]
        let quic = {
            let mut quic = config.clone();
            quic.alpn_protocols = vec![super::ALPN_NATIVE.to_vec()];
            #[cfg(feature = "webtransport")]
            quic.alpn_protocols
                .push(crate::carrier::quic::ALPN_HTTP3.to_vec());
            Arc::new(quic)
        };
        Ok(ServerTls {
            #[cfg(feature = "quic")]
            quic,
            config: Arc::new(config),
            identity,
        })
    }

    /// Another certificate for the connections that come from now on.
    ///
    /// # Errors
    /// As [`ServerTls::from_pem`]; the old one stays.
    pub fn reload(&self, chain: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let certified = Arc::new(certified(chain, key)?);
        *self.identity.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(())
    }

    /// The pin by which clients may know this server.
    pub fn pin(&self) -> Option<Pin> {
        let certified = self.identity.0.read().unwrap_or_else(PoisonError::into_inner);
        certified.cert.first().and_then(Pin::of)
    }

    /// The SHA-256 of the certificate, in base64: by it a page may have its browser know this server
    /// (`serverCertificateHashes` of WebTransport). Browsers believe it only of a key on a curve, valid for 14 days
    /// at most.
    pub fn certificate_hash(&self) -> Option<String> {
        let certified = self.identity.0.read().unwrap_or_else(PoisonError::into_inner);
        let certificate = certified.cert.first()?;
        Some(data_encoding::BASE64.encode(&Sha256::digest(certificate)))
    }
}

fn certified(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| TlsError::Other(format!("the private key cannot be read: {error}")))?;
    Ok(CertifiedKey::from_der(chain, key, &base()?.provider)?)
}

/// The certificates of a PEM file.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Other(format!("a certificate cannot be read: {error}")))?;
    if certificates.is_empty() {
        return Err(TlsError::Other("there is no certificate in the file".to_owned()));
    }
    Ok(certificates)
}
