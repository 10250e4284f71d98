//! Leaves out of a failing run what its failure does not need.

use crate::failure::Failure;
use crate::quiet::quietly;
use crate::scenario::{Scenario, Setup};

/// How a shrinking stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Runs made.
    pub runs: u32,
    /// Items at the beginning.
    pub from: usize,
    /// Items left.
    pub left: usize,
}

/// What shrinking came to.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest run found that fails in the same way.
    pub setup: Setup,
    /// How it fails.
    pub failure: Failure,
    /// Counts.
    pub progress: Progress,
}

struct Shrinker<'a> {
    scenario: &'a Scenario,
    base: Setup,
    best: Vec<u32>,
    failure: Failure,
    progress: Progress,
    max_runs: u32,
    tell: &'a mut dyn FnMut(Progress),
}

impl Shrinker<'_> {
    fn setup(&self, keep: &[u32]) -> Setup {
        Setup {
            keep: Some(keep.to_vec()),
            ..self.base.clone()
        }
    }

    /// Whether the run with these items alone fails in the same way; it is the best one then.
    fn fails(&mut self, keep: Vec<u32>) -> bool {
        if self.progress.runs >= self.max_runs {
            return false;
        }
        self.progress.runs += 1;
        let setup = self.setup(&keep);
        let outcome = quietly(|| (self.scenario.run)(&setup));
        let same = outcome
            .failure
            .filter(|failure| failure.kind == self.failure.kind);
        let fails = same.is_some();
        if let Some(failure) = same {
            (self.best, self.failure) = (keep, failure);
        }
        self.progress.left = self.best.len();
        (self.tell)(self.progress);
        fails
    }

    /// Delta debugging (Zeller and Hildebrandt 2002): ever smaller parts are left out, while the rest fails.
    fn minimise(&mut self) {
        let mut parts = 2;
        while !self.best.is_empty() {
            let size = self.best.len().div_ceil(parts);
            let mut start = 0;
            let mut shrunk = false;
            while start < self.best.len() {
                let end = (start + size).min(self.best.len());
                let rest = [&self.best[..start], &self.best[end..]].concat();
                if self.fails(rest) {
                    shrunk = true;
                } else {
                    start = end;
                }
            }
            if size <= 1 && !shrunk {
                return;
            }
            parts = if shrunk { parts.max(2) } else { parts * 2 }.min(self.best.len().max(1));
        }
    }
}

/// Shrinks a failing run: fewer items, the same [kind](crate::FailureKind) of failure. `None` if it does not fail,
/// or its scenario has no items. At most `max_runs` runs are made; `tell` hears of each.
pub fn shrink(
    scenario: &Scenario,
    setup: &Setup,
    max_runs: u32,
    tell: &mut dyn FnMut(Progress),
) -> Option<Shrunk> {
    let outcome = quietly(|| (scenario.run)(setup));
    let failure = outcome.failure?;
    let all = setup.keep.clone().unwrap_or_else(|| (0..outcome.items).collect());
    let from = all.len();
    let mut shrinker = Shrinker {
        scenario,
        base: setup.clone(),
        best: all,
        failure,
        progress: Progress {
            runs: 1,
            from,
            left: from,
        },
        max_runs,
        tell,
    };
    shrinker.minimise();
    Some(Shrunk {
        setup: shrinker.setup(&shrinker.best),
        failure: shrinker.failure,
        progress: shrinker.progress,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureKind;
    use crate::scenario::Outcome;
    use crate::world::World;

    /// Fails as a liveness failure with items 17 and 61, and as another with 5.
    fn planted(setup: &Setup) -> Outcome {
        let world = World::new(setup.seed);
        let has = |item| setup.keep.as_ref().is_none_or(|keep| keep.contains(&item));
        let kind = match (has(17) && has(61), has(5)) {
            (true, _) => Some(FailureKind::Liveness),
            (false, true) => Some(FailureKind::Safety),
            _ => None,
        };
        let failure = kind.map(|kind| Failure::new(kind, world.now(), "here", "planted"));
        Outcome {
            world,
            failure,
            items: 100,
        }
    }

    #[test]
    fn what_the_failure_needs_is_left() {
        let scenario = Scenario {
            name: "planted",
            about: "",
            run: planted,
        };
        let mut told = 0;
        let shrunk = shrink(&scenario, &Setup::default(), 1000, &mut |_| told += 1).expect("it fails");
        assert_eq!(shrunk.setup.keep, Some(vec![17, 61]));
        assert_eq!(shrunk.failure.kind, FailureKind::Liveness);
        assert_eq!((shrunk.progress.from, shrunk.progress.left), (100, 2));
        assert_eq!(told + 1, shrunk.progress.runs);
        assert!(shrunk.progress.runs < 120, "{:?}", shrunk.progress);
        let sound = Setup {
            keep: Some(vec![1]),
            ..Setup::default()
        };
        assert!(shrink(&scenario, &sound, 1000, &mut |_| {}).is_none());
    }
}
