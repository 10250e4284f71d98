//! Where nothing is seen.

pub(super) const DETECTS: bool = false;

pub(crate) struct Guard;

impl Guard {
    pub(crate) fn new() -> Guard {
        Guard
    }

    pub(crate) fn leak(self) -> Option<String> {
        None
    }
}

pub(super) struct Pause;

impl Pause {
    pub(super) fn new() -> Pause {
        Pause
    }
}
