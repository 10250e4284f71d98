//! What few sessions have, and so takes a pointer in the others.

use std::ops::{Deref, DerefMut};

/// A value that takes no memory until it is first changed.
pub(super) struct Rare<T>(Option<Box<T>>);

/// What has a state in which there is nothing to remember.
pub(super) trait Blank: Default + 'static {
    /// That state.
    const BLANK: &'static Self;
}

impl<T> Rare<T> {
    pub(super) const fn new() -> Rare<T> {
        Rare(None)
    }

    /// Forgets all of it.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}

impl<T: Blank> Deref for Rare<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::BLANK)
    }
}

impl<T: Blank> DerefMut for Rare<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}
