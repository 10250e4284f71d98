//! What must hold of the service. Every key has one client that changes it, so that what a reader may see is simple:
//! of all versions, the last that was answered before it asked, or a later one that was asked for before it was told.

use std::collections::BTreeMap;

use crate::client::Cas;
use crate::service::Entry;

#[derive(Default)]
pub struct Model {
    keys: BTreeMap<String, History>,
    pub wrong: Vec<String>,
}

#[derive(Default)]
struct History {
    /// The values of versions from 1 on, as far as they were asked for.
    values: Vec<Option<String>>,
    answered: u64,
}

impl Model {
    /// A change is asked for: the version that it will make.
    pub fn begins(&mut self, key: &str, value: Option<&str>) -> u64 {
        let history = self.keys.entry(key.to_owned()).or_default();
        history.values.push(value.map(str::to_owned));
        history.values.len() as u64
    }

    /// It was answered.
    pub fn ends(&mut self, key: &str, expected: u64, version: u64) {
        if version != expected {
            self.wrong.push(format!(
                "the change to {key} that makes version {expected} made {version}"
            ));
        }
        self.keys.entry(key.to_owned()).or_default().answered = expected;
    }

    /// A compare-and-set was answered; `expected` is the version it makes, if it fits.
    pub fn compared(&mut self, key: &str, expected: Option<u64>, cas: Cas) {
        match (expected, cas) {
            (Some(expected), Cas::Done(version)) => self.ends(key, expected, version),
            (None, Cas::Mismatch(version)) if version == self.answered(key) => {}
            _ => self
                .wrong
                .push(format!("{cas:?} for {key}, of which {expected:?} was expected")),
        }
    }

    pub fn answered(&self, key: &str) -> u64 {
        self.keys.get(key).map_or(0, |history| history.answered)
    }

    /// A reader was told this; when it asked, `answered` was the last version that was answered, and it had seen
    /// `last` before.
    pub fn read(&mut self, key: &str, answered: u64, last: u64, entry: &Entry) {
        let values = self.keys.get(key).map(|history| history.values.as_slice());
        let values = values.unwrap_or_default();
        let (version, asked) = (entry.version, values.len() as u64);
        if version < answered.max(last) || version > asked {
            self.wrong.push(format!(
                "version {version} of {key}, of which {answered} is answered, {last} seen and {asked} asked for"
            ));
        } else if version > 0 && values[version as usize - 1] != entry.value {
            self.wrong.push(format!("{entry:?} of {key} is not what was put"));
        }
    }
}
