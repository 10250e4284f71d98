//! When a socket is tried, and when the reactor is asked.

use std::io;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// What is known of one direction of a socket: whether it may be tried without asking the reactor.
///
/// The reactor tells of a direction once for each time that it was asked, and each of its waits is six system calls. So
/// it is asked only when a try has found nothing, or less than there was room for: the kernel's buffer is drained or
/// full then. It says at once what came in between, so that nothing is missed whoever has tried last. Before that other
/// tasks run, and it is tried again: of two ends that are busy with one another the answer is often there by then. While
/// nobody else has anything to do, it is tried a few times more, so that no thread need be woken for it; where others
/// do, what comes meanwhile is better taken all at once. Where nothing is found, that is not done again for a while,
/// which doubles each time.
#[derive(Default)]
pub(crate) struct Ready {
    exhausted: AtomicBool,
    /// How often others have run since something was last found; [`ASKED`] once the reactor was asked instead.
    rounds: AtomicU32,
    /// When others were last let run, in nanoseconds.
    yielded_at: AtomicU64,
    /// So many more times others are not let run first.
    skips: AtomicU32,
    /// How often it was in vain in a row, up to [`MAX_MISSES`].
    misses: AtomicU32,
}

/// Others run this often before the reactor is asked: about as long as a thread takes to fall asleep and be woken.
const MAX_ROUNDS: u32 = 32;
const ASKED: u32 = MAX_ROUNDS + 1;
/// Others that run for longer than this have something to do.
const BUSY: Duration = Duration::from_micros(20);
/// Letting others run first is skipped up to 2 to the power of this in a row.
const MAX_MISSES: u32 = 6;

/// The time that [`Ready::poll_after_others`] wants.
pub(crate) fn clock() -> Duration {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    ORIGIN.elapsed()
}

impl Ready {
    /// Ready if it may be tried; otherwise asks the reactor.
    pub(crate) fn poll(&self, ask: impl FnOnce() -> Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        if self.exhausted.load(Ordering::Acquire) {
            ready!(ask())?;
            self.exhausted.store(false, Ordering::Release);
        }
        Poll::Ready(Ok(()))
    }

    /// [`Ready::poll`], after others have run. `clock` tells the time since whatever moment.
    pub(crate) fn poll_after_others(
        &self,
        cx: &mut Context<'_>,
        clock: impl FnOnce() -> Duration,
        ask: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        if self.exhausted.load(Ordering::Acquire) && self.is_worth_yielding(clock) {
            self.exhausted.store(false, Ordering::Release);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.poll(|| ask(cx))
    }

    /// Whether something is likely to be found once others have run. Only who drives the socket asks, so that counts
    /// need not be exact between threads.
    fn is_worth_yielding(&self, clock: impl FnOnce() -> Duration) -> bool {
        let rounds = self.rounds.load(Ordering::Relaxed);
        if rounds == ASKED {
            return false;
        }
        let skips = self.skips.load(Ordering::Relaxed);
        if rounds == 0 && skips > 0 {
            self.skips.store(skips - 1, Ordering::Relaxed);
            self.rounds.store(ASKED, Ordering::Relaxed);
            return false;
        }
        let now = u64::try_from(clock().as_nanos()).unwrap_or(u64::MAX);
        let before = self.yielded_at.swap(now, Ordering::Relaxed);
        let busy = rounds > 0 && Duration::from_nanos(now.saturating_sub(before)) > BUSY;
        if busy || rounds == MAX_ROUNDS {
            let misses = (self.misses.load(Ordering::Relaxed) + 1).min(MAX_MISSES);
            self.misses.store(misses, Ordering::Relaxed);
            self.skips.store((1 << misses) - 1, Ordering::Relaxed);
            self.rounds.store(ASKED, Ordering::Relaxed);
            return false;
        }
        self.rounds.store(rounds + 1, Ordering::Relaxed);
        true
    }

    /// Takes note of what a try came to that had room for so many bytes.
    pub(crate) fn tried(&self, room: usize, result: io::Result<usize>) -> io::Result<usize> {
        let exhausted = match &result {
            Ok(count) => *count > 0 && *count < room,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        if exhausted {
            self.exhausted.store(true, Ordering::Release);
        }
        if result.is_ok() {
            let rounds = self.rounds.load(Ordering::Relaxed);
            if rounds > 0 {
                self.rounds.store(0, Ordering::Relaxed);
            }
            // It has paid.
            if (1..=MAX_ROUNDS).contains(&rounds) {
                self.misses.store(0, Ordering::Relaxed);
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Polls, and tells whether that asked the reactor, which knows of nothing.
    fn asks(ready: &Ready, now: Duration) -> bool {
        let mut asked = false;
        let mut cx = Context::from_waker(Waker::noop());
        let polled = ready.poll_after_others(
            &mut cx,
            || now,
            |_| {
                asked = true;
                Poll::Pending
            },
        );
        assert!(polled.is_pending());
        asked
    }

    /// Something is found, less than there was room for. Then there is nothing until others have run `after` times.
    /// Tells how often they have when it is found, or the reactor is asked.
    fn rounds(ready: &Ready, after: u32, each: Duration) -> u32 {
        assert_eq!(ready.tried(100, Ok(10)).unwrap(), 10);
        let mut now = Duration::from_secs(1);
        for round in 0.. {
            if asks(ready, now) {
                // Until something is found.
                assert!(asks(ready, now));
                return round;
            }
            now += each;
            let mut cx = Context::from_waker(Waker::noop());
            let polled = ready.poll_after_others(&mut cx, || now, |_| Poll::Pending);
            assert!(polled.is_ready());
            if round + 1 == after {
                assert_eq!(ready.tried(100, Ok(10)).unwrap(), 10);
                return after;
            }
            let nothing = Err(io::ErrorKind::WouldBlock.into());
            assert!(ready.tried(100, nothing).is_err());
        }
        unreachable!("it ends when the reactor is asked")
    }

    #[test]
    fn others_run_first_where_that_pays_and_the_reactor_is_asked_where_it_did_not() {
        let (ready, each) = (Ready::default(), Duration::from_micros(1));
        for after in [1, 2, MAX_ROUNDS] {
            assert!((0..100).all(|_| rounds(&ready, after, each) == after), "{after}");
        }
        let never = MAX_ROUNDS + 1;
        let tries: Vec<u32> = (0..300).filter(|_| rounds(&ready, never, each) > 0).collect();
        assert_eq!(tries, [0, 2, 6, 14, 30, 62, 126, 190, 254]);
        // It pays again.
        let again = (0..100).filter(|_| rounds(&ready, 1, each) == 1).count();
        assert!((30..100).contains(&again), "{again}");
    }

    #[test]
    fn while_others_have_something_to_do_they_run_once() {
        let (ready, each) = (Ready::default(), BUSY + Duration::from_nanos(1));
        assert!((0..100).all(|_| rounds(&ready, 1, each) == 1));
        assert_eq!(rounds(&ready, 2, each), 1);
        // As after any other time in vain.
        assert_eq!(rounds(&ready, 2, each), 0);
    }

    #[test]
    fn whoever_found_all_that_there_was_room_for_is_tried_again_at_once() {
        let ready = Ready::default();
        assert_eq!(ready.tried(10, Ok(10)).unwrap(), 10);
        let mut cx = Context::from_waker(Waker::noop());
        let polled = ready.poll_after_others(&mut cx, || Duration::ZERO, |_| Poll::Pending);
        assert!(polled.is_ready());
    }
}
