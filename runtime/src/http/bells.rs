//! Which of the sockets under one socket have something new: whoever is woken by one of them leaves the others alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Wake, Waker};

/// A bell for each of several things that one task waits for, all of which wake it.
///
/// What is pending has its bell as its waker, and is polled again only when that has rung.
pub(super) struct Bells<const N: usize> {
    rung: Arc<Rung>,
    wakers: [Waker; N],
}

struct Rung {
    bits: AtomicU8,
    task: Waker,
}

struct Bell {
    rung: Arc<Rung>,
    bit: u8,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.bits.fetch_or(self.bit, Ordering::Release);
        self.rung.task.wake_by_ref();
    }
}

impl<const N: usize> Bells<N> {
    /// Bells of that task. All have rung: nothing knows them yet.
    pub(super) fn new(task: &Waker) -> Bells<N> {
        const { assert!(N <= u8::BITS as usize) };
        let rung = Arc::new(Rung {
            bits: AtomicU8::new(u8::MAX >> (u8::BITS as usize - N)),
            task: task.clone(),
        });
        let bell = |index| Bell {
            rung: rung.clone(),
            bit: 1_u8 << index,
        };
        Bells {
            wakers: std::array::from_fn(|index| Arc::new(bell(index)).into()),
            rung,
        }
    }

    /// New ones where they are another task's.
    pub(super) fn belong_to(&mut self, task: &Waker) {
        if !self.rung.task.will_wake(task) {
            *self = Bells::new(task);
        }
    }

    /// The task.
    pub(super) fn task(&self) -> &Waker {
        &self.rung.task
    }

    /// Whether any has rung.
    pub(super) fn any(&self) -> bool {
        self.rung.bits.load(Ordering::Relaxed) != 0
    }

    /// Whether it has rung since it was asked last.
    pub(super) fn answer(&self, index: usize) -> bool {
        let bit = 1_u8 << index;
        self.rung.bits.load(Ordering::Relaxed) & bit != 0
            && self.rung.bits.fetch_and(!bit, Ordering::Acquire) & bit != 0
    }

    /// What it stands for is to be looked at again, by whoever does so next.
    pub(super) fn ring(&self, index: usize) {
        self.rung.bits.fetch_or(1_u8 << index, Ordering::Relaxed);
    }

    /// What is polled with this rings it.
    pub(super) fn context(&self, index: usize) -> Context<'_> {
        Context::from_waker(&self.wakers[index])
    }
}
