//! Where a client goes when its server names another place (PROTOCOL 8.3).

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use sheetbend_core::client::connector::MAX_LEARNED;
use sheetbend_core::client::{RedirectLimit, Redirects};
use sheetbend_core::handshake::Security;
use sheetbend_core::time::Timestamp;

use crate::address::Address;
use crate::endpoint::security;

/// Why a server names another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedirectCause {
    /// It finishes what is open in the session, and takes no new ones: GOAWAY.
    GoAway,
    /// It refuses a new session: REJECT(DRAINING).
    Draining,
    /// The session lives there: REJECT(REDIRECT). Whoever does not hold its keys cannot answer there.
    Moved,
}

/// A server's wish, to be granted or refused. The address is hostile input: on a carrier that nobody authenticated
/// anyone in the middle can have written it.
#[derive(Clone, Copy, Debug)]
pub struct Redirect<'a> {
    /// The endpoint that the client is at.
    pub from: &'a Address,
    /// Where it is to go.
    pub to: &'a Address,
    /// Why.
    pub cause: RedirectCause,
}

/// The application's own judgement of a [`Redirect`].
pub type Judge = Arc<dyn Fn(&Redirect<'_>) -> bool + Send + Sync>;

/// Which addresses a client follows. None below the session's security floor, whatever this says.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum RedirectRule {
    /// Those of a scheme, host and path that it was configured with, on any port; a Unix socket in the same directory.
    #[default]
    SameHost,
    /// None.
    Refuse,
    /// Those that the application grants.
    Ask(Judge),
}

impl fmt::Debug for RedirectRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RedirectRule::SameHost => "SameHost",
            RedirectRule::Refuse => "Refuse",
            RedirectRule::Ask(_) => "Ask(..)",
        })
    }
}

/// Whether two addresses are of one scheme and host.
fn same_host(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Tcp { host, .. }, Address::Tcp { host: other, port }) => {
            host.eq_ignore_ascii_case(other) && *port != 0
        }
        (
            Address::Over {
                scheme: one_scheme,
                host,
                target: one_target,
                ..
            },
            Address::Over {
                scheme,
                host: other,
                port,
                target,
            },
        ) => one_scheme == scheme && host.eq_ignore_ascii_case(other) && one_target == target && *port != 0,
        (Address::Unix(one), Address::Unix(other)) => {
            let plain = !other.components().any(|part| part.as_os_str() == "..");
            plain && one.parent() == other.parent()
        }
        // A name in this very process.
        (Address::Mem(_), Address::Mem(_)) => true,
        _ => false,
    }
}

/// What the sessions of a client know of where their server is.
pub(crate) struct Guide {
    rule: RedirectRule,
    configured: Vec<Address>,
    floor: Security,
    learned: Mutex<Learned>,
}

struct Learned {
    /// The newest first.
    places: VecDeque<Address>,
    redirects: Redirects,
}

impl Guide {
    pub(crate) fn new(
        rule: RedirectRule,
        limit: RedirectLimit,
        configured: Vec<Address>,
        floor: Security,
    ) -> Guide {
        Guide {
            rule,
            configured,
            floor,
            learned: Mutex::new(Learned {
                places: VecDeque::new(),
                redirects: Redirects::new(limit),
            }),
        }
    }

    /// The places to look for the server, the most preferred first.
    pub(crate) fn places(&self) -> Vec<Address> {
        let learned = self.learned.lock();
        learned.places.iter().chain(&self.configured).cloned().collect()
    }

    /// The place that a server names, if it is followed.
    pub(crate) fn judge(
        &self,
        now: Timestamp,
        from: &Address,
        text: &str,
        cause: RedirectCause,
    ) -> Result<Address, String> {
        let to: Address = text.parse().map_err(|error| format!("{error}"))?;
        if to == *from {
            return Err(format!("{to} names itself"));
        }
        if security(&to) < self.floor {
            return Err(format!("{to} is too weak for the session"));
        }
        if self.configured.contains(&to) {
            return Ok(to);
        }
        let wish = Redirect { from, to: &to, cause };
        let granted = match &self.rule {
            RedirectRule::Refuse => false,
            RedirectRule::SameHost => self.configured.iter().any(|own| same_host(own, &to)),
            RedirectRule::Ask(judge) => judge(&wish),
        };
        if !granted {
            return Err(format!("{to} is not followed"));
        }
        let mut learned = self.learned.lock();
        if !learned.places.contains(&to) && !learned.redirects.follow(now) {
            return Err(format!("{to} is not followed: sent elsewhere too often"));
        }
        Ok(to)
    }

    /// New sessions are made there first.
    pub(crate) fn learn(&self, from: &Address, to: &Address) {
        let mut learned = self.learned.lock();
        learned.places.retain(|place| place != to);
        if self.configured.contains(to) {
            // Back to where it began.
            learned.places.retain(|place| place != from);
        } else {
            learned.places.push_front(to.clone());
            learned.places.truncate(MAX_LEARNED);
        }
    }

    /// Nobody is there, while those that were configured are.
    pub(crate) fn forget(&self, place: &Address) {
        self.learned.lock().places.retain(|known| known != place);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn guide(rule: RedirectRule, configured: &[&str]) -> Guide {
        let configured: Vec<Address> = configured.iter().map(|text| text.parse().unwrap()).collect();
        let floor = configured.iter().map(security).min().unwrap();
        Guide::new(rule, RedirectLimit::default(), configured, floor)
    }

    fn follows(guide: &Guide, to: &str) -> bool {
        let from = guide.configured[0].clone();
        let judged = guide.judge(Timestamp::ZERO, &from, to, RedirectCause::Draining);
        judged.is_ok()
    }

    #[test]
    fn only_the_same_host_is_followed_by_default() {
        let own = guide(
            RedirectRule::default(),
            &["tcp://a.example:1", "unix:///run/own/a"],
        );
        assert!(follows(&own, "tcp://A.example:2"));
        assert!(follows(&own, "unix:///run/own/b"));
        for hostile in [
            "tcp://b.example:1",
            "tcp://a.example:0",
            "tcp://a.example.evil:1",
            "tcp://127.0.0.1:22",
            "tcp://a.example:1",
            "unix:///run/b",
            "unix:///run/own/../b",
            "mem://a",
            "http://a.example:1",
            "",
        ] {
            assert!(!follows(&own, hostile), "{hostile}");
        }
        assert!(!follows(&own, &format!("tcp://{}:1", "a".repeat(2000))));
        assert!(!follows(
            &guide(RedirectRule::Refuse, &["tcp://a:1"]),
            "tcp://a:2"
        ));
    }

    #[test]
    fn the_application_decides_if_it_wants_to() {
        let rule = RedirectRule::Ask(Arc::new(|wish| wish.to.to_string() == "tcp://spare:1"));
        let own = guide(rule, &["tcp://a:1"]);
        assert!(follows(&own, "tcp://spare:1"));
        assert!(!follows(&own, "tcp://a:2"));
        // Not below the floor, whatever it says.
        let all = guide(RedirectRule::Ask(Arc::new(|_| true)), &["unix:///run/a"]);
        assert!(!follows(&all, "tcp://spare:1"));
        assert!(follows(&all, "unix:///tmp/b"));
    }

    #[test]
    fn few_are_followed_and_fewer_kept() {
        let own = guide(RedirectRule::SameHost, &["tcp://a:1"]);
        let from: Address = "tcp://a:1".parse().unwrap();
        let mut followed = 0;
        for port in 2..100 {
            let text = format!("tcp://a:{port}");
            if let Ok(to) = own.judge(Timestamp::ZERO, &from, &text, RedirectCause::GoAway) {
                own.learn(&from, &to);
                followed += 1;
            }
        }
        assert_eq!(followed, RedirectLimit::default().count);
        assert_eq!(own.places().len(), 3);
        assert_eq!(own.places()[0].to_string(), "tcp://a:6");
        // What is known costs nothing; back where it began, the rest is forgotten.
        assert!(follows(&own, "tcp://a:6"));
        let later = Timestamp::ZERO + Duration::from_secs(60);
        let (six, five) = (own.places()[0].clone(), own.places()[1].clone());
        assert!(own.judge(later, &six, "tcp://a:1", RedirectCause::GoAway).is_ok());
        own.learn(&six, &from);
        own.forget(&five);
        assert_eq!(own.places(), [from]);
    }
}
