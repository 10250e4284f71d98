//! What all configurations are made from, once in a process. rustls builds them with maps of their own, whose keys
//! come from the system; we use none of these, and no connection makes one.

use std::sync::{Arc, LazyLock};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};

use super::ambient::Now;
use super::provider::provider;
use super::{ALPN_HTTP1, ALPN_NATIVE, TlsError};

pub(super) struct Base {
    pub(super) provider: Arc<CryptoProvider>,
    /// Believes nobody.
    pub(super) client: ClientConfig,
    /// Has no certificate.
    pub(super) server: ServerConfig,
}

static BASE: LazyLock<Result<Base, TlsError>> = LazyLock::new(Base::new);

/// Makes what all TLS connections of the process share, which is otherwise made with the first. A simulator has it
/// made before its worlds run, as the system is asked for randomness, though nothing depends on it.
pub fn prepare() {
    LazyLock::force(&BASE);
}

/// What configurations are made from.
pub(super) fn base() -> Result<&'static Base, TlsError> {
    BASE.as_ref().map_err(TlsError::clone)
}

#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

impl Base {
    fn new() -> Result<Base, TlsError> {
        let provider = provider();
        let mut client = ClientConfig::builder_with_details(provider.clone(), Arc::new(Now))
            .with_protocol_versions(&[&version::TLS13])?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        // A session is resumed by its own keys. Tickets would add state, and save no round trip; but for one over QUIC,
        // which has its own (`quic/config.rs`).
        client.resumption = Resumption::disabled();
        let mut server = ServerConfig::builder_with_details(provider.clone(), Arc::new(Now))
            .with_protocol_versions(&[&version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Nobody));
        server.alpn_protocols = vec![ALPN_NATIVE.to_vec(), ALPN_HTTP1.to_vec()];
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Base {
            provider,
            client,
            server,
        })
    }
}
