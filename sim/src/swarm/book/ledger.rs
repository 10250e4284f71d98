//! What follows from what stands in the book.

use std::time::Duration;

use sheetbend_core::time::Timestamp;
use sheetbend_runtime::{Cause, Delivery, ErrorCode, Outcome, RejectCode, Side};

use super::super::pattern::Header;
use super::super::work::{Ending, Job};
use super::{End, Fate, ItemRecord, Ledger, Piece};
use crate::failure::FailureKind;

impl Ledger {
    pub(super) fn fail(&mut self, kind: FailureKind, who: String, what: String) {
        self.failure.get_or_insert((kind, who, what));
    }

    pub(super) fn come_forward(&mut self, end: u32) {
        let client = self.ends.get(end as usize).and_then(|end| end.client);
        if let Some(progress) = client.and_then(|client| self.progress.get_mut(client)) {
            *progress += 1;
        }
    }

    pub(super) fn piece(&mut self, item: u32, index: u32) -> &mut Piece {
        let pieces = &mut self.items[item as usize].pieces;
        let index = index as usize;
        if pieces.len() <= index {
            pieces.resize_with(index + 1, Piece::default);
        }
        &mut pieces[index]
    }

    /// All ends of the session that an end belongs to.
    pub(super) fn ends_with(&self, end: u32) -> impl Iterator<Item = &End> {
        let session = self.ends[end as usize].session;
        self.ends
            .iter()
            .filter(move |other| session.is_some() && other.session == session)
    }

    pub(super) fn any_crashed(&self, end: u32) -> bool {
        self.ends_with(end).any(|end| end.fate == Fate::Crashed)
    }

    pub(super) fn waits_in_vain(&self, end: u32) -> bool {
        self.ends[end as usize].fate == Fate::Live && !self.lives(end)
    }

    /// Whether both ends of a session live; a server's end that nobody has heard of yet counts as living.
    pub(super) fn lives(&self, end: u32) -> bool {
        let crashes = self.ends[end as usize].crashes;
        let mut peers = self.ends_with(end);
        peers.all(|end| end.fate == Fate::Live && !end.closing && end.crashes == crashes)
            && crashes == self.crashes
    }

    /// The end belongs to the session that the payload is of.
    pub(super) fn meet(&mut self, at: u32, header: &Header) -> Result<(), String> {
        let from = self
            .ends
            .get(header.end as usize)
            .ok_or("a payload of no session")?;
        let (session, client) = (from.session, from.client);
        let own = &mut self.ends[at as usize];
        match own.session {
            None => (own.session, own.client) = (session, client),
            known if known != session => {
                return Err(format!("{header:?} is of another session than {known:?}"));
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn receive(&mut self, at: u32, header: &Header, ordered: Option<usize>) -> Result<(), String> {
        self.meet(at, header)?;
        let client = self.ends[at as usize].client;
        // Early data that a server lost in a crash is sent to the next one as well (PROTOCOL 5.6).
        let again_allowed = self.crashes > 0 && client.is_some_and(|client| self.early[client]);
        if let Some(class) = ordered {
            let next = self.ends[at as usize].taken[class];
            let expected = self.ends[header.end as usize].queued[class].get(next).copied();
            if expected != Some((header.item, header.index)) {
                return Err(format!("{header:?} arrived, and {expected:?} is to be the next"));
            }
            self.ends[at as usize].taken[class] += 1;
        }
        let piece = self.piece(header.item, header.index);
        let again = piece.received.contains(&at) || (!again_allowed && !piece.received.is_empty());
        piece.received.push(at);
        if again {
            return Err(format!("{header:?} arrived twice"));
        }
        if piece.told == Some(Outcome::NotSent) {
            return Err(format!(
                "{header:?} arrived, and its sender was told that it was not sent"
            ));
        }
        Ok(())
    }

    pub(super) fn item_unkept(&self, job: &Job, record: &ItemRecord) -> Option<String> {
        if !record.due || record.killed {
            return None;
        }
        if !record.done {
            let end = record.end;
            // An end whose peer crashed waits for it as long as sessions are held.
            if end.is_some_and(|end| self.waits_in_vain(end)) {
                return None;
            }
            return Some(match end {
                None => "not begun".to_owned(),
                Some(end) => format!("not done at end {end}"),
            });
        }
        if !record.end.is_some_and(|end| self.lives(end)) {
            return None;
        }
        let reliable = match job {
            Job::Messages { delivery, .. } => !matches!(delivery, Delivery::Unreliable { .. }),
            Job::Stream { ending, .. } => *ending == Ending::Whole,
            _ => false,
        };
        let stream = matches!(job, Job::Stream { .. });
        let open = |piece: &Piece| piece.queued && (piece.received.is_empty() || (stream && !piece.finished));
        let index = record.pieces.iter().position(open).filter(|_| reliable)?;
        Some(format!("piece {index} has not arrived"))
    }

    /// Why a session must not have ended like this.
    pub(super) fn unlawful(
        &self,
        end: u32,
        cause: &Cause,
        now: Timestamp,
        resume: Duration,
    ) -> Option<String> {
        let own = &self.ends[end as usize];
        match cause {
            Cause::LocalClose { .. } if own.closing => None,
            // A server's program may hear of a session that its client has not confirmed (PROTOCOL 5.6), and never does.
            Cause::LocalClose { code, .. }
                if *code == ErrorCode::TIMEOUT && own.side == Side::Server && !own.established =>
            {
                None
            }
            Cause::LocalClose { .. } => Some("nobody closed it".to_owned()),
            // A server gives up a session that its client did not confirm in time.
            Cause::PeerClose { code, .. }
                if *code == ErrorCode::TIMEOUT
                    && !self
                        .ends_with(end)
                        .any(|peer| peer.side == Side::Server && peer.established) =>
            {
                None
            }
            Cause::PeerClose { reason, .. } if reason.is_empty() => Some("nobody said why".to_owned()),
            Cause::PeerClose { .. } => {
                let unknown = own.session.is_none();
                let closed = self
                    .ends_with(end)
                    .any(|peer| peer.side != own.side && peer.closing);
                (!unknown && !closed).then(|| "the peer's program did not close it".to_owned())
            }
            Cause::ResumeTimeout => {
                let since = own.reconnecting_since;
                let passed = since.map(|since| now.since(since));
                let enough = passed.is_none_or(|passed| passed + Duration::from_millis(2) >= resume);
                (!enough).then(|| format!("{passed:?} without a path, {resume:?} agreed"))
            }
            Cause::Rejected { code, .. } if *code == RejectCode::BUSY && !own.established => None,
            Cause::Rejected { .. } => {
                let restarted = own.crashes != self.crashes;
                // One that the server's program never heard of was given up unconfirmed (DESIGN "The wire").
                let mut peers = self.ends_with(end).filter(|peer| peer.side == Side::Server);
                let known = peers
                    .next()
                    .map(|first| first.fate != Fate::Live || peers.any(|peer| peer.fate != Fate::Live));
                let lost = known.unwrap_or(true);
                (!restarted && !lost).then(|| "the server has it, and did not crash".to_owned())
            }
            Cause::HandshakeTimeout if !own.established => None,
            _ => Some("no end of a sound run".to_owned()),
        }
    }
}
