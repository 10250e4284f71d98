//! What a simulated program must not use, because no seed brings it back: the real clock, ambient randomness,
//! threads, sockets and sleep of the operating system.
//!
//! With the feature `leaks`, which is on by default, the C library's functions for these are interposed on Linux with
//! glibc: while a task of a world is polled, a call of one of them fails the run with
//! [`FailureKind::Leak`](crate::FailureKind::Leak); at any other time it costs one look at a thread-local. The keys of
//! std's hash maps come from the C library once per thread only; that a map was made with them is seen by their
//! counter. What goes past the C library, such as the processor's own counter and random numbers or system calls made
//! by hand, is not seen. Elsewhere than on Linux with glibc, nothing is.

#[cfg(all(
    feature = "leaks",
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#[path = "glibc.rs"]
mod system;

#[cfg(not(all(
    feature = "leaks",
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
#[path = "nothing.rs"]
mod system;

pub(crate) use system::Guard;

/// Does something that may use the real world from within a simulated program, and is not accused: to write a log
/// with the time of day, for one. What it returns must not bear on the run.
pub fn unsimulated<R>(real: impl FnOnce() -> R) -> R {
    let _pause = system::Pause::new();
    real()
}

/// Whether this build sees what a simulated program must not use.
pub fn detects_leaks() -> bool {
    system::DETECTS
}
