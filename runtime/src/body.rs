//! Payloads that come in pieces, gathered into one.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};

use crate::pool::{give_body, take_body};

/// Payloads from here on are long.
const LONG: usize = 32 * 1024;
/// No payload is expected to be longer before it shows that it is.
const MAX_EXPECTED: usize = 4 * 1024 * 1024;
/// Bytes that all payloads of the process together may take for what is expected of them and has not come.
const MAX_AHEAD: usize = 64 * 1024 * 1024;

static AHEAD: AtomicUsize = AtomicUsize::new(0);

/// How long long payloads have been of late.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usual {
    /// In bytes; 0 while there was none.
    len: usize,
    /// There was one since the session was last quiet.
    lately: bool,
}

impl Usual {
    /// A payload was of that length.
    #[inline]
    pub(crate) fn note(&mut self, len: usize) {
        if len >= LONG {
            let fading = self.len - self.len / 8;
            self.len = fading.max(len.min(MAX_EXPECTED));
            self.lately = true;
        }
    }

    /// The session is quiet. Tells whether there were long payloads before.
    pub(crate) fn rest(&mut self) -> bool {
        std::mem::take(&mut self.lately)
    }
}

/// What has come of a payload, in one piece. Memory for all of it is taken at once, as far as its length is guessed
/// from those before it.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: BytesMut,
    expected: usize,
    /// Bytes of [`AHEAD`] that are this one's.
    ahead: usize,
}

impl Body {
    /// Nothing yet, of what may be as long as others were.
    #[inline]
    pub(crate) fn expecting(usual: Usual) -> Body {
        Body {
            bytes: BytesMut::new(),
            expected: usual.len,
            ahead: 0,
        }
    }

    /// Adds a piece.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        let needed = self.bytes.len() + piece.len();
        if needed > self.bytes.capacity() {
            self.grow(needed);
        }
        self.bytes.extend_from_slice(piece);
    }

    /// Makes room for `needed` bytes, and for what is expected behind them.
    fn grow(&mut self, needed: usize) {
        // A first piece alone is small, or was handed over as it lay.
        if needed < LONG {
            return;
        }
        let expected = self.expected.saturating_sub(needed);
        let ahead = if self.ahead == 0 && reserve(expected) {
            self.ahead = expected;
            expected
        } else {
            0
        };
        // Where nothing is known it doubles, as any buffer does.
        let len = self.bytes.len();
        let room = needed + ahead.max(len);
        if len >= LONG {
            // The allocator may do so without moving what is there.
            return self.bytes.reserve(room - len);
        }
        let mut larger = take_body(room);
        larger.extend_from_slice(&self.bytes);
        self.bytes = larger;
    }

    /// All of it.
    pub(crate) fn into_bytes(mut self) -> Bytes {
        give_body(std::mem::take(&mut self.bytes))
    }
}

impl Deref for Body {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.ahead > 0 {
            AHEAD.fetch_sub(self.ahead, Ordering::Relaxed);
        }
    }
}

/// Takes so many bytes of what all payloads may take ahead; tells whether there were so many.
fn reserve(bytes: usize) -> bool {
    let took = AHEAD.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |ahead| {
        let sum = ahead.checked_add(bytes)?;
        (sum <= MAX_AHEAD).then_some(sum)
    });
    bytes > 0 && took.is_ok()
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// They share what may be taken ahead.
    static TURNS: Mutex<()> = Mutex::new(());

    fn usual(len: usize) -> Usual {
        let mut usual = Usual::default();
        usual.note(len);
        usual
    }

    #[test]
    fn what_is_expected_is_taken_once() {
        let _turn = TURNS.lock();
        let mut body = Body::expecting(usual(1 << 20));
        body.push(&[1; LONG]);
        let place = body.as_ptr();
        for _ in 1..32 {
            body.push(&[2; LONG]);
        }
        assert_eq!(body.as_ptr(), place);
        let whole = body.into_bytes();
        assert_eq!((whole.len(), whole.as_ptr()), (1 << 20, place));
    }

    #[test]
    fn more_and_less_than_expected() {
        let _turn = TURNS.lock();
        let mut body = Body::expecting(usual(LONG));
        for part in 0..40 {
            body.push(&[part; 10_000]);
        }
        let whole = body.into_bytes();
        assert!(
            whole
                .chunks(10_000)
                .zip(0..)
                .all(|(part, of)| part == [of; 10_000])
        );
        // A little of much would keep all of it.
        let mut body = Body::expecting(usual(MAX_EXPECTED));
        body.push(&[7; LONG]);
        let place = body.as_ptr();
        let whole = body.into_bytes();
        assert_eq!(whole, vec![7; LONG]);
        assert_ne!(whole.as_ptr(), place);
    }

    #[test]
    fn short_ones_take_nothing_ahead() {
        let mut body = Body::expecting(usual(1 << 20));
        body.push(b"short");
        assert_eq!((body.ahead, &body[..]), (0, &b"short"[..]));
        assert!(body.bytes.capacity() < 1024);
    }

    /// However many a peer begins, what it makes this end take for what it does not send has a bound.
    #[test]
    fn what_is_taken_ahead_has_a_bound() {
        let _turn = TURNS.lock();
        let begun = || {
            let mut body = Body::expecting(usual(MAX_EXPECTED));
            body.push(&[0; LONG]);
            body
        };
        let bodies: Vec<Body> = (0..64).map(|_| begun()).collect();
        let ahead: usize = bodies.iter().map(|body| body.ahead).sum();
        assert!(ahead > MAX_AHEAD / 2 && ahead <= MAX_AHEAD, "{ahead}");
        drop(bodies);
        assert!(begun().ahead > 0);
    }

    #[test]
    fn what_is_usual_fades() {
        let mut usual = usual(1 << 20);
        usual.note(100);
        assert_eq!(usual.len, 1 << 20);
        for _ in 0..40 {
            usual.note(LONG);
        }
        assert_eq!(usual.len, LONG);
        usual.note(usize::MAX);
        assert_eq!(usual.len, MAX_EXPECTED);
    }
}
