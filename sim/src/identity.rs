//! A certificate for simulated servers. Its key is public and worth nothing outside.

use sheetbend_runtime::{ServerTls, certificates};

/// A certificate with an Ed25519 key, whose signatures are the same in each run. It is for the names `server` and
/// `proxy`, by themselves and on the networks `lan`, `wifi`, `lte`, `dsl`, `sat` and `edge` (`server.wifi`), and valid
/// until 2125. Simulated hosts trust who issued it; for other names trust its [`ServerTls::pin`].
///
/// # Panics
/// Never: the certificate is a part of this crate.
pub fn server_tls() -> ServerTls {
    let chain = include_bytes!("identity/server.pem");
    ServerTls::from_pem(chain, include_bytes!("identity/server.key")).expect("a sound certificate")
}

/// The authority that vouches for it, whom simulated hosts trust unless they are told otherwise.
pub(crate) fn roots() -> Vec<Vec<u8>> {
    let roots = certificates(include_bytes!("identity/ca.pem")).expect("a sound certificate");
    roots.into_iter().map(|root| root.to_vec()).collect()
}
