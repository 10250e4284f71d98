//! What every runtime on an operating system needs, whichever reactor it has: seeds, the wall clock, certificates
//! that the platform trusts, files, and the files of Unix sockets.
#![allow(clippy::disallowed_methods)] // this is where the clock of the system is read

mod files;
#[cfg(feature = "udp")]
mod udp;
#[cfg(unix)]
mod unix;

use std::io;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

pub use files::{StdFiles, Threads};
#[cfg(feature = "udp")]
pub use udp::{MAX_BUFFERS, Udp, bind_udp};
#[cfg(unix)]
pub use unix::{SocketFile, bind_unix};

use crate::mem::MemNetwork;

/// How far in the future a timer is set at most; the driver sets it again. Reactors count in types that overflow.
pub const FARTHEST_TIMER: Duration = Duration::from_secs(30 * 24 * 3600);

static MEMORY: OnceLock<MemNetwork> = OnceLock::new();

/// The `mem://` names of this process, shared by all its runtimes.
pub fn memory() -> MemNetwork {
    MEMORY.get_or_init(MemNetwork::new).clone()
}

/// For [`Runtime::seed`](crate::Runtime::seed).
///
/// # Panics
/// Where the operating system has no randomness: no key is safe then, and there is nothing sensible to go on with.
pub fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the operating system has randomness");
    seed
}

/// For [`Runtime::unix_time`](crate::Runtime::unix_time).
pub fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// For [`Runtime::trusted_roots`](crate::Runtime::trusted_roots).
///
/// # Errors
/// Where there are none, or they cannot be read, or without the feature `platform-roots`.
pub fn trusted_roots() -> io::Result<Vec<Vec<u8>>> {
    #[cfg(feature = "platform-roots")]
    {
        let found = rustls_native_certs::load_native_certs();
        match found.errors.into_iter().next() {
            Some(error) if found.certs.is_empty() => Err(io::Error::other(error)),
            _ => Ok(found.certs.into_iter().map(|root| root.to_vec()).collect()),
        }
    }
    #[cfg(not(feature = "platform-roots"))]
    Err(io::ErrorKind::Unsupported.into())
}

/// Connects to the first of some socket addresses that answers.
///
/// # Errors
/// What went wrong at the last of them, or `NotFound` where there are none.
pub async fn connect_first<A: Copy, S, F: Future<Output = io::Result<S>>>(
    addresses: impl IntoIterator<Item = A>,
    mut connect: impl FnMut(A) -> F,
) -> io::Result<S> {
    let mut last = None;
    for address in addresses {
        match connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no addresses")))
}

/// What a runtime says of an address that the system has no sockets for.
pub fn no_sockets(address: &crate::Address) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("this system has no sockets for {address}"),
    )
}
