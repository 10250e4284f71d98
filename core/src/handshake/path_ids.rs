//! Every path id is used once in a session's life.

use smallvec::SmallVec;
use thiserror::Error;

/// How many ids below the highest one are remembered one by one.
pub const PATH_ID_WINDOW: u64 = 1024;

/// How far above the highest id so far a new one may lie.
pub const MAX_PATH_ID_JUMP: u64 = 1 << 32;

/// Why a path id is refused. PROTOCOL 6.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PathIdError {
    /// The id was used, or lies so far below the highest that it counts as used.
    #[error("path id {id} was used before (highest so far {highest})")]
    Used {
        /// The id.
        id: u64,
        /// The highest used so far.
        highest: u64,
    },
    /// The id lies too far above the highest.
    #[error("path id {id} is more than 2^32 above the highest so far, {highest}")]
    TooFar {
        /// The id.
        id: u64,
        /// The highest used so far; 0 when there is none.
        highest: u64,
    },
}

impl PathIdError {
    /// Whether the id was used, or counts as used.
    pub fn is_used(self) -> bool {
        matches!(self, PathIdError::Used { .. })
    }
}

/// Which path ids of a session were used: a bitmap over the newest [`PATH_ID_WINDOW`]. PROTOCOL 6.1.
///
/// To be asked only *after* the proof of a JOIN was verified, so that nobody else burns ids.
#[derive(Clone, Debug, Default)]
pub struct PathIdWindow {
    highest: Option<u64>,
    /// The bit of id `n` is bit `n % 1024`; bits of ids outside the window are clear, as are those that are not
    /// there. Most sessions use few ids.
    bits: SmallVec<[u64; 1]>,
}

impl PathIdWindow {
    /// A window in which no id was used.
    pub fn new() -> PathIdWindow {
        PathIdWindow::default()
    }

    /// The highest id used so far.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Whether `id` could be used now.
    pub fn check(&self, id: u64) -> Result<(), PathIdError> {
        let highest = self.highest.unwrap_or(0);
        if id.saturating_sub(highest) > MAX_PATH_ID_JUMP {
            return Err(PathIdError::TooFar { id, highest });
        }
        let seen = self
            .highest
            .is_some_and(|highest| id <= highest && (highest - id >= PATH_ID_WINDOW || self.is_set(id)));
        if seen {
            return Err(PathIdError::Used { id, highest });
        }
        Ok(())
    }

    /// Uses `id`, or tells why not.
    pub fn insert(&mut self, id: u64) -> Result<(), PathIdError> {
        self.check(id)?;
        match self.highest {
            Some(highest) if id > highest => {
                if id - highest >= PATH_ID_WINDOW {
                    self.bits.clear();
                } else {
                    for skipped in highest + 1..id {
                        if let Some(bits) = self.bits.get_mut(word(skipped)) {
                            *bits &= !mask(skipped);
                        }
                    }
                }
                self.highest = Some(id);
            }
            Some(_) => {}
            None => self.highest = Some(id),
        }
        let needed = word(id) + 1;
        if self.bits.len() < needed {
            self.bits.resize(needed, 0);
        }
        self.bits[word(id)] |= mask(id);
        Ok(())
    }

    fn is_set(&self, id: u64) -> bool {
        self.bits.get(word(id)).is_some_and(|bits| bits & mask(id) != 0)
    }
}

fn word(id: u64) -> usize {
    (id % PATH_ID_WINDOW / 64) as usize
}

fn mask(id: u64) -> u64 {
    1 << (id % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges() {
        let mut window = PathIdWindow::new();
        assert_eq!(
            window.insert((1 << 32) + 1),
            Err(PathIdError::TooFar {
                id: (1 << 32) + 1,
                highest: 0
            })
        );
        assert_eq!(window.insert(1 << 32), Ok(()));
        assert_eq!(window.insert((1 << 32) - 1023), Ok(()));
        let highest = 1 << 32;
        assert_eq!(
            window.insert(highest - 1023),
            Err(PathIdError::Used {
                id: highest - 1023,
                highest
            })
        );
        assert_eq!(
            window.insert(highest - 1024),
            Err(PathIdError::Used {
                id: highest - 1024,
                highest
            })
        );
        assert_eq!(window.insert(0), Err(PathIdError::Used { id: 0, highest }));
        assert!(matches!(window.insert(u64::MAX), Err(PathIdError::TooFar { .. })));
    }

    #[test]
    fn the_top_of_the_range() {
        let mut window = PathIdWindow {
            highest: Some(u64::MAX - 2),
            bits: SmallVec::new(),
        };
        assert_eq!(window.insert(u64::MAX), Ok(()));
        assert_eq!(window.insert(u64::MAX - 1), Ok(()));
        assert!(window.insert(u64::MAX).is_err());
    }
}
