//! What is remembered of endpoints: where a transport is broken, and which one worked last. Per network, as a
//! transport that one network blocks is well on another.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

/// The rest of an endpoint after its first failure while another worked.
pub const FIRST_REST: Duration = Duration::from_secs(5 * 60);
/// The longest rest.
pub const MAX_REST: Duration = Duration::from_secs(24 * 3600);
/// For so long it is remembered which endpoint worked.
pub const WON_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most networks that are remembered; beyond it the one that was used longest ago goes.
pub const MAX_NETWORKS: usize = 16;
/// The most endpoints on each.
pub const MAX_ENDPOINTS: usize = 64;
/// The longest name of a network or an endpoint, in bytes.
pub const MAX_NAME: usize = 1024;
/// The longest text that is read back, in bytes.
pub const MAX_TEXT: usize = 1024 * 1024;

const HEAD: &str = "sheetbend paths 1";

/// Whether an endpoint is broken: it failed while another worked, so that it is not the network that is down.
///
/// A broken endpoint rests for five minutes, twice as long each time that it is found broken again, up to a day. Then
/// it gets one attempt. Success clears it, and so does a change of network (Chromium's rule for alternative services).
/// `T` is a moment, of whatever clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brokenness<T> {
    times: u32,
    until: Option<T>,
}

impl<T: Copy + Ord + std::ops::Add<Duration, Output = T>> Brokenness<T> {
    /// It failed, and another worked. Only the first failure of a rest counts.
    pub fn broke(&mut self, now: T) {
        if !self.is_broken(now) {
            let rest = FIRST_REST.saturating_mul(1 << self.times.min(10)).min(MAX_REST);
            self.until = Some(now + rest);
            self.times = self.times.saturating_add(1);
        }
    }

    /// It works.
    pub fn mended(&mut self) {
        *self = Brokenness {
            times: 0,
            until: None,
        };
    }

    /// Whether it rests.
    pub fn is_broken(&self, now: T) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Until when it rests, or rested.
    pub fn until(&self) -> Option<T> {
        self.until
    }

    /// How often in a row it was found broken.
    pub fn times(&self) -> u32 {
        self.times
    }

    /// The same by another clock; a moment that `to` has no counterpart for is over.
    pub fn convert<U>(&self, to: impl Fn(T) -> Option<U>) -> Brokenness<U> {
        Brokenness {
            times: self.times,
            until: self.until.and_then(to),
        }
    }
}

/// Time since the beginning of 1970.
type Unix = Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    endpoint: String,
    brokenness: Brokenness<Unix>,
    won_at: Option<Unix>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Network {
    name: String,
    entries: VecDeque<Entry>,
}

/// What is remembered of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recollection {
    /// Whether it is broken.
    pub brokenness: Brokenness<Unix>,
    /// It was the last to carry a session's data on this network.
    pub won: bool,
}

/// Why a text is not a memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// It is longer than [`MAX_TEXT`].
    #[error("{0} bytes long, more than {MAX_TEXT}")]
    TooLong(
        /// Its length.
        usize,
    ),
    /// It does not begin as it should.
    #[error("not a memory of paths: it does not begin with `{HEAD}`")]
    NotOurs,
    /// A line cannot be read.
    #[error("line {0} cannot be read")]
    Line(
        /// Its number, from 1.
        usize,
    ),
}

/// What is remembered, by network and endpoint. Times are those of the world, since they outlive a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Those used last at the end.
    networks: VecDeque<Network>,
}

impl Memory {
    /// Nothing remembered.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// What is known of this endpoint on this network.
    pub fn recall(&self, now: Unix, network: &str, endpoint: &str) -> Recollection {
        let known = self.networks.iter().find(|known| known.name == network);
        let Some(known) = known else {
            return Recollection::default();
        };
        let newest = known.entries.iter().filter_map(|entry| entry.won_at).max();
        let entry = known.entries.iter().find(|entry| entry.endpoint == endpoint);
        entry.map_or_else(Recollection::default, |entry| {
            let fresh = |at: &Unix| now.saturating_sub(*at) < WON_FOR && Some(*at) == newest;
            Recollection {
                brokenness: entry.brokenness,
                won: entry.won_at.as_ref().is_some_and(fresh),
            }
        })
    }

    /// Whether an endpoint is broken has changed. Names longer than [`MAX_NAME`] are not remembered.
    pub fn note(&mut self, network: &str, endpoint: &str, brokenness: Brokenness<Unix>) {
        if let Some(entry) = self.entry(network, endpoint) {
            entry.brokenness = brokenness;
        }
    }

    /// An endpoint carried a session's data.
    pub fn won(&mut self, now: Unix, network: &str, endpoint: &str) {
        if let Some(entry) = self.entry(network, endpoint) {
            entry.won_at = Some(now);
        }
    }

    /// Forgets a network.
    pub fn forget(&mut self, network: &str) {
        self.networks.retain(|known| known.name != network);
    }

    fn entry(&mut self, network: &str, endpoint: &str) -> Option<&mut Entry> {
        if network.len() > MAX_NAME || endpoint.len() > MAX_NAME {
            return None;
        }
        let known = match self.networks.iter().position(|known| known.name == network) {
            Some(at) => self.networks.remove(at)?,
            None => Network {
                name: network.to_owned(),
                entries: VecDeque::new(),
            },
        };
        if self.networks.len() >= MAX_NETWORKS {
            self.networks.pop_front();
        }
        self.networks.push_back(known);
        let entries = &mut self.networks.back_mut()?.entries;
        let entry = match entries.iter().position(|entry| entry.endpoint == endpoint) {
            Some(at) => entries.remove(at)?,
            None => Entry {
                endpoint: endpoint.to_owned(),
                brokenness: Brokenness::default(),
                won_at: None,
            },
        };
        if entries.len() >= MAX_ENDPOINTS {
            entries.pop_front();
        }
        entries.push_back(entry);
        entries.back_mut()
    }

    /// As text: a line for each network and, behind it, one for each of its endpoints.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEAD}\n");
        for network in &self.networks {
            let _ = writeln!(text, "network {}", escaped(&network.name));
            for entry in &network.entries {
                let millis = |at: Option<Unix>| at.map_or(0, |at| at.as_millis());
                let _ = writeln!(
                    text,
                    "endpoint {} {} {} {}",
                    entry.brokenness.times,
                    millis(entry.brokenness.until),
                    millis(entry.won_at),
                    escaped(&entry.endpoint)
                );
            }
        }
        text
    }

    /// Reads back what [`to_text`](Memory::to_text) wrote. A rest that is longer than there is one ends with
    /// [`MAX_REST`]: the clock of the machine that wrote it may have been wrong.
    ///
    /// # Errors
    /// When the text is too long, or was not written so.
    pub fn from_text(now: Unix, text: &str) -> Result<Memory, MemoryError> {
        if text.len() > MAX_TEXT {
            return Err(MemoryError::TooLong(text.len()));
        }
        let mut lines = text.lines().zip(1..);
        if lines.next().is_none_or(|(head, _)| head != HEAD) {
            return Err(MemoryError::NotOurs);
        }
        let mut memory = Memory::new();
        let mut network: Option<String> = None;
        for (line, number) in lines {
            let bad = || MemoryError::Line(number);
            if let Some(name) = line.strip_prefix("network ") {
                network = Some(unescaped(name).ok_or_else(bad)?);
                continue;
            }
            let (Some(rest), Some(network)) = (line.strip_prefix("endpoint "), &network) else {
                return Err(bad());
            };
            let mut fields = rest.splitn(4, ' ');
            let mut field = || fields.next().ok_or_else(bad);
            let times: u32 = field()?.parse().map_err(|_| bad())?;
            let until: u64 = field()?.parse().map_err(|_| bad())?;
            let won_at: u64 = field()?.parse().map_err(|_| bad())?;
            let endpoint = unescaped(field()?).ok_or_else(bad)?;
            let moment = |millis: u64| (millis > 0).then(|| Duration::from_millis(millis));
            let entry = memory.entry(network, &endpoint).ok_or_else(bad)?;
            entry.brokenness = Brokenness {
                times,
                until: moment(until).map(|until| until.min(now + MAX_REST)),
            };
            entry.won_at = moment(won_at).map(|at| at.min(now));
        }
        Ok(memory)
    }
}

/// Names stand at the end of a line: only what ends one is written otherwise.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('\r', "\\r")
}

fn unescaped(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        name.push(match c {
            '\\' => match chars.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            other => other,
        });
    }
    (name.len() <= MAX_NAME).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Chromium's rule: five minutes, doubled, until success.
    #[test]
    fn each_rest_is_twice_as_long_until_success() {
        let mut broken = Brokenness::<Duration>::default();
        let mut now = secs(1_000_000);
        let mut rests = Vec::new();
        for _ in 0..11 {
            broken.broke(now);
            broken.broke(now);
            let until = broken.until().expect("it rests");
            assert!(broken.is_broken(now) && !broken.is_broken(until));
            rests.push((until - now).as_secs() / 60);
            now = until;
        }
        assert_eq!(rests, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440]);
        broken.mended();
        assert!(!broken.is_broken(now));
        assert_eq!(broken.times(), 0);
    }

    #[test]
    fn what_is_broken_on_one_network_is_not_on_another() {
        let mut memory = Memory::new();
        let now = secs(1000);
        let mut broken = Brokenness::default();
        broken.broke(now);
        memory.note("office", "quic://host:1", broken);
        memory.won(now, "office", "tls://host:1");
        assert!(
            memory
                .recall(now, "office", "quic://host:1")
                .brokenness
                .is_broken(now)
        );
        assert!(memory.recall(now, "office", "tls://host:1").won);
        assert_eq!(
            memory.recall(now, "home", "quic://host:1"),
            Recollection::default()
        );
        memory.won(now + secs(1), "office", "wss://host:1");
        assert!(!memory.recall(now, "office", "tls://host:1").won);
        assert!(
            !memory
                .recall(now + WON_FOR + secs(2), "office", "wss://host:1")
                .won
        );
        memory.forget("office");
        assert_eq!(memory, Memory::new());
    }

    #[test]
    fn a_memory_is_read_back_as_it_was() {
        let mut memory = Memory::new();
        let now = secs(1000);
        let mut broken = Brokenness::default();
        broken.broke(now);
        memory.note("a network \\ with\nlines", "quic://host:1", broken);
        memory.won(now, "", "tls://[::1]:443");
        memory.won(now, "", "a b");
        let text = memory.to_text();
        assert_eq!(Memory::from_text(now, &text), Ok(memory));
    }

    #[test]
    fn a_bad_text_is_refused() {
        let now = secs(1000);
        let bad = |text: &str| Memory::from_text(now, text).expect_err("it is bad");
        assert_eq!(bad(""), MemoryError::NotOurs);
        assert_eq!(bad("something else\n"), MemoryError::NotOurs);
        for line in [
            "endpoint 0 0 0 x",
            "network a\nendpoint 1 2 x",
            "network a\nendpoint -1 2 3 x",
            "network a\nendpoint 1 99999999999999999999999 3 x",
            "network a\\",
            "what",
        ] {
            assert!(
                matches!(bad(&format!("{HEAD}\n{line}\n")), MemoryError::Line(_)),
                "{line}"
            );
        }
        let long = format!("{HEAD}\n{}", "network a\n".repeat(MAX_TEXT / 10));
        assert!(matches!(bad(&long), MemoryError::TooLong(_)));
        let name = "x".repeat(MAX_NAME + 1);
        assert_eq!(bad(&format!("{HEAD}\nnetwork {name}\n")), MemoryError::Line(2));
    }

    /// A clock that was wrong, or whoever may write the file, makes no rest of years.
    #[test]
    fn no_rest_is_longer_than_the_longest() {
        let now = secs(1000);
        let text = format!("{HEAD}\nnetwork a\nendpoint 4000000000 18446744073709551615 0 x\n");
        let memory = Memory::from_text(now, &text).expect("it is whole");
        let mut found = memory.recall(now, "a", "x").brokenness;
        assert_eq!(found.until(), Some(now + MAX_REST));
        found.broke(now + MAX_REST);
        assert_eq!(found.until(), Some(now + MAX_REST * 2));
    }

    #[test]
    fn memory_is_bounded() {
        let mut memory = Memory::new();
        for n in 0..1000_u32 {
            memory.won(secs(1), &format!("network {}", n % 50), &format!("endpoint {n}"));
            memory.won(secs(1), "busy", &format!("endpoint {n}"));
        }
        assert_eq!(memory.networks.len(), MAX_NETWORKS);
        assert!(
            memory
                .networks
                .iter()
                .all(|one| one.entries.len() <= MAX_ENDPOINTS)
        );
        memory.won(secs(1), &"x".repeat(MAX_NAME + 1), "endpoint");
        assert!(memory.recall(secs(1), "busy", "endpoint 999").won);
    }
}
