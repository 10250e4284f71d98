//! A session and its paths as spans of `tracing`, and what happens to them as events. Nothing of it holds a secret.

use sheetbend_core::session::{Event, PathKey, Session};
use tracing::{Span, field, info, info_span, warn};

/// The spans of a session: one for it, and one below it for each path.
pub(crate) struct Traced {
    session: Span,
    paths: Vec<(PathKey, Span)>,
}

impl Traced {
    pub(crate) fn new() -> Traced {
        Traced {
            session: info_span!("session", id = field::Empty, side = field::Empty),
            paths: Vec::new(),
        }
    }

    /// The span of a path; that of the session where it is not known.
    fn path(&self, key: PathKey) -> &Span {
        let known = self.paths.iter().find(|(known, _)| *known == key);
        known.map_or(&self.session, |(_, span)| span)
    }

    /// Tells of an event.
    pub(crate) fn event(&mut self, core: &Session, event: &Event) {
        let name = |key: PathKey| core.path_stats(key).map(|stats| stats.name);
        match event {
            Event::State { from, to, cause } => {
                self.session.record("side", field::debug(core.side()));
                if let Some(id) = core.id() {
                    self.session.record("id", field::debug(id));
                }
                info!(parent: &self.session, ?from, ?to, ?cause, "state");
            }
            Event::PathUp(key) => {
                let Some(stats) = core.path_stats(*key) else {
                    return;
                };
                let (name, transport, id) = (&*stats.name, stats.transport, stats.id);
                let span = info_span!(parent: &self.session, "path", name, transport, id);
                info!(parent: &span, rtt = ?stats.rtt, "up");
                self.paths.push((*key, span));
            }
            Event::PathSuspect(key) => warn!(parent: self.path(*key), "no progress"),
            Event::PathMute(key) => {
                info!(parent: self.path(*key), "a probe was not answered, and no other path is sound")
            }
            Event::PathSilent(key) => warn!(parent: self.path(*key), "no answer, and no other path"),
            Event::PathRecovered(key) => info!(parent: self.path(*key), "progress again"),
            Event::PathDown {
                path,
                end,
                error,
                info,
                delivered,
            } => {
                let error = error.as_ref().map(ToString::to_string);
                info!(parent: self.path(*path), name = &*info.name, ?end, ?error, delivered, "down");
                self.paths.retain(|(known, _)| known != path);
            }
            Event::Switched {
                from,
                to,
                cause,
                evidence,
            } => {
                let (from, to) = (from.and_then(name), name(*to));
                let reason = evidence.reason.to_string();
                let before = evidence.from.map(|evidence| evidence.to_string());
                let after = evidence.to.to_string();
                info!(parent: &self.session, ?from, ?to, ?cause, reason, before, after, "data moved");
            }
            Event::Standstill(time) => warn!(parent: &self.session, ?time, "stood still"),
            Event::GoAway {
                code,
                reason,
                address,
            } => {
                info!(parent: &self.session, ?code, reason, address, "the peer takes nothing new");
            }
            Event::MessageTooLarge { len, max, .. } => {
                warn!(parent: &self.session, len, max, "a message is too long");
            }
            _ => {}
        }
    }
}
