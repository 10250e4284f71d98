//! What rustls asks of its surroundings, randomness and the time, given for the length of one call.
//!
//! rustls takes both from objects that live as long as its configuration. Ours look here, where the carrier
//! puts its own generator and the caller's time before each call: so a connection draws from its own seed
//! alone, on a simulated clock as well as on a real one.

use core::net::IpAddr;
use std::cell::RefCell;
use std::time::Duration;

use rustls::crypto::{GetRandomFailed, SecureRandom};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use crate::rng::Rng;

struct Ambient {
    rng: Rng,
    unix: Duration,
    /// The peer's address, where the carrier knows it.
    #[cfg(feature = "quic")]
    peer: Option<IpAddr>,
    /// Why the peer's certificate was refused.
    #[cfg(feature = "quic")]
    refused: Option<rustls::Error>,
}

thread_local! {
    static AMBIENT: RefCell<Option<Ambient>> = const { RefCell::new(None) };
}

/// Calls `work`, during which randomness comes from `rng` and the time since 1970 is `unix`.
pub(in crate::carrier) fn with<T>(rng: &mut Rng, unix: Duration, work: impl FnOnce() -> T) -> T {
    enter(rng, unix, None, work).0
}

fn enter<T>(
    rng: &mut Rng,
    unix: Duration,
    peer: Option<IpAddr>,
    work: impl FnOnce() -> T,
) -> (T, Option<Ambient>) {
    #[cfg(not(feature = "quic"))]
    let _ = peer;
    let own = std::mem::replace(rng, Rng::from_seed([0; 32]));
    let ambient = Ambient {
        rng: own,
        unix,
        #[cfg(feature = "quic")]
        peer,
        #[cfg(feature = "quic")]
        refused: None,
    };
    let outer = AMBIENT.replace(Some(ambient));
    let result = work();
    let mut ambient = AMBIENT.replace(outer);
    if let Some(ambient) = &mut ambient {
        std::mem::swap(rng, &mut ambient.rng);
    }
    (result, ambient)
}

/// [`with`] for a peer at that address.
#[cfg(feature = "quic")]
pub(in crate::carrier) fn with_peer<T>(
    rng: &mut Rng,
    unix: Duration,
    peer: IpAddr,
    work: impl FnOnce() -> T,
) -> T {
    enter(rng, unix, Some(peer), work).0
}

/// [`with_peer`], and why the peer's certificate was refused meanwhile: QUIC passes that on as a text alone.
#[cfg(feature = "quic")]
pub(in crate::carrier) fn judged<T>(
    rng: &mut Rng,
    unix: Duration,
    peer: IpAddr,
    work: impl FnOnce() -> T,
) -> (T, Option<super::TlsError>) {
    let (result, ambient) = enter(rng, unix, Some(peer), work);
    let refused = ambient.and_then(|ambient| ambient.refused);
    (result, refused.map(super::trust::told))
}

/// Notes that the peer's certificate is refused.
#[cfg(feature = "quic")]
pub(super) fn note_refusal(error: &rustls::Error) {
    AMBIENT.with_borrow_mut(|ambient| {
        if let Some(ambient) = ambient {
            ambient.refused = Some(error.clone());
        }
    });
}

/// The peer's address, where it is known.
#[cfg(feature = "quic")]
pub(super) fn peer() -> Option<IpAddr> {
    AMBIENT.with_borrow(|ambient| ambient.as_ref().and_then(|ambient| ambient.peer))
}

/// Random bytes of the connection that is at work; `None` outside of [`with`].
pub(super) fn fill(bytes: &mut [u8]) -> Option<()> {
    AMBIENT.with_borrow_mut(|ambient| ambient.as_mut().map(|ambient| ambient.rng.fill(bytes)))
}

/// [`SecureRandom`] of the connection that is at work.
#[derive(Debug)]
pub(super) struct Seeded;

impl SecureRandom for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        fill(bytes).ok_or(GetRandomFailed)
    }
}

/// [`TimeProvider`] of the connection that is at work.
#[derive(Debug)]
pub(super) struct Now;

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        AMBIENT.with_borrow(|ambient| {
            ambient
                .as_ref()
                .map(|ambient| UnixTime::since_unix_epoch(ambient.unix))
        })
    }
}
