//! Interposition of the C library's functions: the one place of this crate with `unsafe` in it.
//!
//! The functions below have the names and the signatures of the C library's own, so that the linker takes them for
//! every call from Rust code in the same executable. Each looks at a thread-local and calls the function that it
//! stands before, found by `dlsym(RTLD_NEXT, …)`: callers get exactly what they would have got.
//!
//! Why this is sound:
//! - Each signature is the one that the `libc` crate declares, and arguments are passed on as they came: whatever
//!   the caller promised to the C library, it has promised.
//! - The pointer from `dlsym` is checked for null, and is of the function with that name.
//! - Nothing here unwinds: what is done on an accusation is `Cell`s, and a backtrace, taken while the detector is
//!   off, so that it does not come back here.
//! - The thread-local that is read on every call is constant-initialised and has no destructor: it can be read at any
//!   time in a thread's life, and reading it allocates nothing.
#![allow(unsafe_code)]

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
#[allow(clippy::disallowed_types)]
use std::collections::hash_map::RandomState;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{clockid_t, pthread_attr_t, pthread_t, size_t, ssize_t, time_t, timespec, timeval};

pub(super) const DETECTS: bool = true;
/// Lines of a backtrace that are told.
const MAX_FRAMES: usize = 12;
/// Locks look at the clock when another thread holds them, which worlds on other threads may do with what a process
/// has only once. Nobody learns the time from them.
const LOCKS: [&str; 2] = ["parking_lot_core::", "parking_lot::"];

thread_local! {
    /// A task of a world is being polled on this thread.
    static SIMULATED: Cell<bool> = const { Cell::new(false) };
    /// Keys for hash maps that were taken while nothing was to be accused.
    static PAUSED: Cell<u64> = const { Cell::new(0) };
    /// What was called first.
    static LEAK: RefCell<Option<Leak>> = const { RefCell::new(None) };
}

struct Leak {
    name: &'static str,
    what: &'static str,
    frames: Vec<String>,
}

/// Called in front of every interposed function.
#[inline(always)]
fn look(name: &'static str, what: &'static str) {
    if SIMULATED.get() {
        accuse(name, what);
    }
}

#[cold]
#[inline(never)]
fn accuse(name: &'static str, what: &'static str) {
    // A panic is reported as what it is; its hook may write the time of day.
    if std::thread::panicking() {
        return;
    }
    let _pause = Pause::new();
    let frames = frames(&Backtrace::force_capture());
    if frames
        .iter()
        .any(|frame| LOCKS.iter().any(|lock| frame.contains(lock)))
    {
        return;
    }
    LEAK.with(|leak| {
        // Borrowed only if this is called while a leak is being dropped.
        if let Ok(mut leak) = leak.try_borrow_mut() {
            leak.get_or_insert_with(|| Leak { name, what, frames });
        }
    });
}

/// The function of the C library with that name, looked up once.
#[inline(always)]
fn next(known: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    let found = known.load(Ordering::Relaxed);
    if found.is_null() {
        return find(known, name);
    }
    found
}

#[cold]
fn find(known: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    // SAFETY: the name is a C string, and RTLD_NEXT a handle that dlsym knows.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr().cast::<c_char>()) };
    if found.is_null() {
        std::process::abort(); // there is nothing to stand in for it
    }
    known.store(found, Ordering::Relaxed);
    found
}

macro_rules! interpose {
    ($($what:literal: fn $name:ident($($argument:ident: $type:ty),*) -> $return:ty;)*) => {
        $(
            /// Stands before the C library's function of the same name.
            ///
            /// # Safety
            /// As that function's.
            #[unsafe(no_mangle)]
            #[allow(unreachable_pub)] // for the linker, not for other crates
            pub unsafe extern "C" fn $name($($argument: $type),*) -> $return {
                static NEXT: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
                look(stringify!($name), $what);
                let real = next(&NEXT, const {
                    match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                        Ok(name) => name,
                        Err(_) => panic!(),
                    }
                });
                // SAFETY: it is the C library's function of this name, which has this signature.
                let real: unsafe extern "C" fn($($type),*) -> $return = unsafe { std::mem::transmute(real) };
                // SAFETY: the caller has promised what that function asks for.
                unsafe { real($($argument),*) }
            }
        )*

        /// All of them: naming them here is what has the linker take them.
        fn all() -> [*const (); [$(stringify!($name)),*].len()] {
            [$($name as *const ()),*]
        }
    };
}

interpose! {
    "the real clock": fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int;
    "the real clock": fn gettimeofday(time: *mut timeval, zone: *mut c_void) -> c_int;
    "the real clock": fn time(time: *mut time_t) -> time_t;
    "ambient randomness": fn getrandom(buffer: *mut c_void, len: size_t, flags: c_uint) -> ssize_t;
    "ambient randomness": fn getentropy(buffer: *mut c_void, len: size_t) -> c_int;
    "a thread": fn pthread_create(
        thread: *mut pthread_t,
        attributes: *const pthread_attr_t,
        start: extern "C" fn(*mut c_void) -> *mut c_void,
        argument: *mut c_void
    ) -> c_int;
    "a real sleep": fn nanosleep(time: *const timespec, left: *mut timespec) -> c_int;
    "a real sleep": fn clock_nanosleep(
        clock: clockid_t,
        flags: c_int,
        time: *const timespec,
        left: *mut timespec
    ) -> c_int;
    "a real socket": fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    "a real socket": fn socketpair(domain: c_int, kind: c_int, protocol: c_int, pair: *mut c_int) -> c_int;
    "an event loop of the operating system": fn epoll_create1(flags: c_int) -> c_int;
    "an event loop of the operating system": fn eventfd(value: c_uint, flags: c_int) -> c_int;
    "a real timer": fn timerfd_create(clock: c_int, flags: c_int) -> c_int;
    "the operating system's resolver": fn getaddrinfo(
        node: *const c_char,
        service: *const c_char,
        hints: *const libc::addrinfo,
        result: *mut *mut libc::addrinfo
    ) -> c_int;
}

/// The counter in the keys of std's hash maps: each [`RandomState`] of a thread has one that is one greater than the
/// last's. `None` where it is not found at its place.
#[allow(clippy::disallowed_types)]
fn map_keys() -> [u64; 2] {
    const { assert!(size_of::<RandomState>() == 16 && align_of::<RandomState>() == 8) };
    // SAFETY: 16 bytes, aligned for u64, in which std holds two u64.
    unsafe { std::mem::transmute::<RandomState, [u64; 2]>(RandomState::new()) }
}

/// Whether the counter is where it is looked for.
fn keys_count() -> bool {
    thread_local! {
        static COUNT: Cell<Option<bool>> = const { Cell::new(None) };
    }
    COUNT.get().unwrap_or_else(|| {
        let seen = [map_keys(), map_keys(), map_keys()];
        let count = seen
            .windows(2)
            .all(|pair| pair[1][0] == pair[0][0].wrapping_add(1) && pair[1][1] == pair[0][1]);
        COUNT.set(Some(count));
        count
    })
}

/// While it lives, the thread runs a simulated program.
pub(crate) struct Guard {
    before: bool,
    keys: Option<[u64; 2]>,
    /// What `PAUSED` was when it began.
    paused: u64,
}

impl Guard {
    pub(crate) fn new() -> Guard {
        std::hint::black_box(all as fn() -> _);
        let keys = keys_count().then(map_keys);
        Guard {
            before: SIMULATED.replace(true),
            keys,
            paused: PAUSED.get(),
        }
    }

    /// What the program used that it must not, in words.
    pub(crate) fn leak(self) -> Option<String> {
        SIMULATED.set(false);
        let allowed = PAUSED.get().wrapping_sub(self.paused).wrapping_add(1);
        let maps = self
            .keys
            .is_some_and(|keys| map_keys()[0] != keys[0].wrapping_add(allowed));
        if let Some(leak) = LEAK.with(|leak| leak.try_borrow_mut().ok()?.take()) {
            let Leak { name, what, frames } = leak;
            let frames = frames.iter().take(MAX_FRAMES);
            let frames: String = frames.map(|frame| format!("\n    {frame}")).collect();
            return Some(format!("{what} was used: {name}{frames}"));
        }
        maps.then(|| {
            let text = "ambient randomness was used: a hash map with std's RandomState, whose order no seed brings \
                        back; give it a hasher of fixed keys, or take a BTreeMap";
            text.to_owned()
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        SIMULATED.set(self.before);
    }
}

/// While it lives, nothing is accused.
pub(super) struct Pause {
    before: bool,
    keys: Option<[u64; 2]>,
}

impl Pause {
    pub(super) fn new() -> Pause {
        let before = SIMULATED.replace(false);
        let keys = keys_count().then(map_keys);
        Pause { before, keys }
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        if let Some(keys) = self.keys {
            let taken = map_keys()[0].wrapping_sub(keys[0]).wrapping_add(1);
            PAUSED.set(PAUSED.get().wrapping_add(taken));
        }
        SIMULATED.set(self.before);
    }
}

/// The frames of a backtrace between the call and the world that polled the task.
fn frames(trace: &Backtrace) -> Vec<String> {
    let text = trace.to_string();
    let mut frames: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim) {
        match line.strip_prefix("at ") {
            Some(place) => {
                if let Some(last) = frames.last_mut() {
                    last.push_str(" at ");
                    last.push_str(place);
                }
            }
            None => frames.push(line.split_once(": ").map_or(line, |(_, name)| name).to_owned()),
        }
    }
    let own = |frame: &String| frame.contains("leaks/glibc.rs") || frame.contains("leaks::system::");
    let first = frames.iter().rposition(own).map_or(0, |place| place + 1);
    let polled = |frame: &String| frame.contains("world/run.rs") || frame.contains("World::poll");
    let frames = frames.into_iter().skip(first);
    frames.take_while(|frame| !polled(frame)).collect()
}
