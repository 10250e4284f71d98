//! The book of what was promised, what was told and what arrived: kept outside the world, it survives crashes.

mod ledger;

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use sheetbend_core::time::Timestamp;
use sheetbend_runtime::{Cause, Delivery, Outcome, Session, Side, State};

use super::calls::Executions;
use super::pattern::Header;
use super::plan::{Plan, What};
use super::work::Job;
use crate::failure::FailureKind;

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Work is done.
    #[default]
    Working,
    /// Clients close their sessions.
    Closing,
    /// The server closes what is left, and stops.
    Stopping,
}

/// What is known of an end of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Live,
    Ended(String),
    Crashed,
}

/// One end of a session, as long as its program lives.
pub(super) struct End {
    pub(super) side: Side,
    /// Its client's place in the plan: for a server's end known from its first payload.
    pub(super) client: Option<usize>,
    /// The client's end of the same session; itself if this is one.
    pub(super) session: Option<u32>,
    pub(super) fate: Fate,
    /// Its program closes it.
    closing: bool,
    /// Its program drains it.
    draining: bool,
    state: Option<State>,
    established: bool,
    reconnecting_since: Option<Timestamp>,
    /// Crashes of the server when it began.
    crashes: u32,
    /// Ordered messages of each class, in the order in which they were queued.
    queued: [Vec<(u32, u32)>; 8],
    /// How many ordered messages of each class have come.
    taken: [usize; 8],
}

/// What is known of one thing that an item sent.
#[derive(Clone, Debug, Default)]
struct Piece {
    queued: bool,
    told: Option<Outcome>,
    /// The ends that received it.
    received: Vec<u32>,
    /// It came to its end there.
    finished: bool,
}

#[derive(Default)]
struct ItemRecord {
    /// It is due, and its host runs it.
    due: bool,
    /// Its host crashed.
    killed: bool,
    done: bool,
    /// The end that it was begun at.
    end: Option<u32>,
    pieces: Vec<Piece>,
}

/// The session that a client and the server have with each other, as handles.
type Slot = Option<(u32, Session)>;

struct Ledger {
    failure: Option<(FailureKind, String, String)>,
    phase: Phase,
    ends: Vec<End>,
    items: Vec<ItemRecord>,
    slots: Vec<[Slot; 2]>,
    /// Whether each client's sessions send early data.
    early: Vec<bool>,
    programs: u32,
    crashes: u32,
    paths_ended: u32,
    /// Counts whatever comes forward, for each client.
    progress: Vec<u64>,
    wakers: Vec<Waker>,
}

/// See the [module](self).
pub(super) struct Book {
    plan: Arc<Plan>,
    ledger: Mutex<Ledger>,
    /// Of calls.
    pub(super) executions: Executions,
}

fn place(side: Side) -> usize {
    usize::from(side == Side::Server)
}

fn unreliable(what: &What) -> bool {
    let What::Work {
        job: Job::Messages { delivery, .. },
        ..
    } = what
    else {
        return false;
    };
    matches!(delivery, Delivery::Unreliable { .. })
}

impl Book {
    pub(super) fn new(plan: Arc<Plan>) -> Book {
        let ledger = Ledger {
            failure: None,
            phase: Phase::Working,
            ends: Vec::new(),
            items: plan.items.iter().map(|_| ItemRecord::default()).collect(),
            slots: plan.clients.iter().map(|_| [None, None]).collect(),
            early: plan
                .clients
                .iter()
                .map(|client| client.config.early_data)
                .collect(),
            programs: 0,
            crashes: 0,
            paths_ended: 0,
            progress: vec![0; plan.clients.len()],
            wakers: Vec::new(),
        };
        Book {
            plan,
            ledger: Mutex::new(ledger),
            executions: Executions::default(),
        }
    }

    /// Notes a failure; the first one counts.
    pub(super) fn fail(&self, kind: FailureKind, who: impl Into<String>, what: impl Into<String>) {
        self.ledger.lock().fail(kind, who.into(), what.into());
    }

    pub(super) fn failure(&self) -> Option<(FailureKind, String, String)> {
        self.ledger.lock().failure.clone()
    }

    pub(super) fn failed(&self) -> bool {
        self.ledger.lock().failure.is_some()
    }

    // ---- waiting ----

    fn change<R>(&self, change: impl FnOnce(&mut Ledger) -> R) -> R {
        let mut ledger = self.ledger.lock();
        let done = change(&mut ledger);
        let wakers = std::mem::take(&mut ledger.wakers);
        drop(ledger);
        wakers.into_iter().for_each(Waker::wake);
        done
    }

    fn wait<T>(&self, mut get: impl FnMut(&Ledger) -> Option<T>) -> impl Future<Output = T> {
        poll_fn(move |cx| {
            let mut ledger = self.ledger.lock();
            if let Some(found) = get(&ledger) {
                return Poll::Ready(found);
            }
            if !ledger.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                ledger.wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    /// Waits until the run has come this far.
    pub(super) async fn reached(&self, phase: Phase) {
        self.wait(|ledger| (ledger.phase >= phase).then_some(())).await;
    }

    pub(super) fn phase(&self) -> Phase {
        self.ledger.lock().phase
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.change(|ledger| ledger.phase = phase);
    }

    /// The session in use at one side of a client's, as soon as there is one.
    pub(super) async fn session(&self, client: usize, side: Side) -> (u32, Session) {
        self.wait(|ledger| ledger.slots.get(client)?[place(side)].clone())
            .await
    }

    pub(super) fn program_began(&self) {
        self.ledger.lock().programs += 1;
    }

    pub(super) fn program_ended(&self) {
        self.ledger.lock().programs -= 1;
    }

    pub(super) fn programs(&self) -> u32 {
        self.ledger.lock().programs
    }

    // ---- ends of sessions ----

    pub(super) fn begin_end(&self, side: Side, client: Option<usize>) -> u32 {
        let mut ledger = self.ledger.lock();
        let id = ledger.ends.len() as u32;
        let crashes = ledger.crashes;
        ledger.ends.push(End {
            side,
            client,
            session: (side == Side::Client).then_some(id),
            fate: Fate::Live,
            closing: false,
            draining: false,
            state: None,
            established: false,
            reconnecting_since: None,
            crashes,
            queued: Default::default(),
            taken: [0; 8],
        });
        id
    }

    /// From here on work is done over this session.
    pub(super) fn publish(&self, client: usize, side: Side, end: u32, session: &Session) {
        let old = self.change(|ledger| {
            let slot = &mut ledger.slots[client][place(side)];
            // A session that the client has left behind may be heard of late.
            if slot.as_ref().is_some_and(|(other, _)| *other > end) {
                return None;
            }
            slot.replace((end, session.clone()))
        });
        drop(old);
    }

    pub(super) fn withdraw(&self, end: u32) {
        let old = self.change(|ledger| {
            let mut slots = ledger.slots.iter_mut().flatten();
            let slot = slots.find(|slot| slot.as_ref().is_some_and(|(id, _)| *id == end))?;
            slot.take()
        });
        drop(old);
    }

    /// The program closes its end, or has done with it.
    pub(super) fn closing(&self, end: u32) {
        self.ledger.lock().ends[end as usize].closing = true;
    }

    /// The program drains its end: it will close, and so will its peer.
    pub(super) fn draining(&self, end: u32) {
        let mut ledger = self.ledger.lock();
        let own = &mut ledger.ends[end as usize];
        (own.closing, own.draining) = (true, true);
    }

    /// Whether either end of a session is drained, so that nothing new is taken.
    pub(super) fn drains(&self, end: u32) -> bool {
        let ledger = self.ledger.lock();
        ledger.ends_with(end).any(|end| end.draining)
    }

    /// The lifecycle moved, says an event.
    pub(super) fn moved(&self, end: u32, from: State, to: State, cause: &Cause, now: Timestamp) {
        let mut ledger = self.ledger.lock();
        let known = ledger.ends[end as usize].state;
        if known.is_some_and(|known| known != from || known.is_terminal()) {
            let what = format!("end {end} went from {from:?} to {to:?} by {cause:?}, but was {known:?}");
            ledger.fail(FailureKind::Invariant, "lifecycle".to_owned(), what);
        }
        ledger.come_forward(end);
        let own = &mut ledger.ends[end as usize];
        own.state = Some(to);
        own.established |= [from, to]
            .iter()
            .any(|state| matches!(state, State::Connected | State::Reconnecting));
        match to {
            State::Reconnecting => own.reconnecting_since = Some(now),
            State::Connected => own.reconnecting_since = None,
            _ => {}
        }
    }

    /// Something came forward in a session.
    pub(super) fn progressed(&self, end: u32) {
        self.ledger.lock().come_forward(end);
    }

    /// How much has come forward of what a client has to do with.
    pub(super) fn progress(&self, client: usize) -> u64 {
        self.ledger.lock().progress[client]
    }

    /// A path of some session ended.
    pub(super) fn path_ended(&self) {
        self.ledger.lock().paths_ended += 1;
    }

    /// How often the server crashed.
    pub(super) fn crashes(&self) -> u32 {
        self.ledger.lock().crashes
    }

    pub(super) fn paths_ended(&self) -> u32 {
        self.ledger.lock().paths_ended
    }

    /// An end has ended; `resume` is the time that both ends agreed to hold out.
    pub(super) fn ended(&self, end: u32, cause: &Cause, now: Timestamp, resume: Duration) {
        let mut ledger = self.ledger.lock();
        if let Some(what) = ledger.unlawful(end, cause, now, resume) {
            let what = format!("end {end} ended by {cause:?}: {what}");
            ledger.fail(FailureKind::Safety, "lifecycle".to_owned(), what);
        }
        let own = &mut ledger.ends[end as usize];
        if own.fate == Fate::Live {
            own.fate = Fate::Ended(format!("{cause:?}"));
        }
    }

    /// A host crashed: a client's, or the server's.
    pub(super) fn crashed(&self, client: Option<usize>) {
        let side = if client.is_some() {
            Side::Client
        } else {
            Side::Server
        };
        let handles = self.change(|ledger| {
            ledger.crashes += u32::from(client.is_none());
            ledger.programs -= 1;
            let own = |end: &End| end.side == side && (client.is_none() || end.client == client);
            for end in ledger
                .ends
                .iter_mut()
                .filter(|end| own(end) && end.fate == Fate::Live)
            {
                end.fate = Fate::Crashed;
            }
            for (item, record) in self.plan.items.iter().zip(&mut ledger.items) {
                let What::Work {
                    client: its,
                    side: begins,
                    ..
                } = &item.what
                else {
                    continue;
                };
                let here = *begins == side && client.is_none_or(|client| client == *its);
                record.killed |= here && record.due && !record.done;
            }
            let mut handles = Vec::new();
            for (index, slots) in ledger.slots.iter_mut().enumerate() {
                if client.is_none_or(|client| client == index) {
                    handles.extend(slots[place(side)].take());
                }
            }
            handles
        });
        drop(handles);
    }

    /// Lets go of every handle.
    pub(super) fn clear(&self) {
        let slots = self.change(|ledger| std::mem::take(&mut ledger.slots));
        drop(slots);
    }

    // ---- items ----

    pub(super) fn due(&self, item: u32) {
        self.ledger.lock().items[item as usize].due = true;
    }

    pub(super) fn started(&self, item: u32, end: u32) {
        let mut ledger = self.ledger.lock();
        ledger.items[item as usize].end = Some(end);
        ledger.come_forward(end);
    }

    pub(super) fn done(&self, item: u32) {
        let mut ledger = self.ledger.lock();
        let record = &mut ledger.items[item as usize];
        record.done = true;
        if let Some(end) = record.end {
            ledger.come_forward(end);
        }
    }

    /// Something was queued; ordered messages in a class are to arrive in the order of these calls.
    pub(super) fn queued(&self, header: &Header, ordered: Option<usize>) {
        let mut ledger = self.ledger.lock();
        ledger.piece(header.item, header.index).queued = true;
        if let Some(class) = ordered {
            let queue = &mut ledger.ends[header.end as usize].queued[class];
            queue.push((header.item, header.index));
        }
    }

    /// The sender was told what became of it; `ended` says whether its session had ended then.
    pub(super) fn told(&self, header: &Header, outcome: Outcome, ended: bool) {
        let mut ledger = self.ledger.lock();
        let live = ledger.ends[header.end as usize].fate == Fate::Live;
        let piece = ledger.piece(header.item, header.index);
        piece.told = Some(outcome);
        let received = !piece.received.is_empty();
        if outcome == Outcome::NotSent && received {
            let what = format!("{header:?} was received, and its sender was told that it was not sent");
            ledger.fail(FailureKind::Safety, "outcomes".to_owned(), what);
        }
        let may_vanish = self
            .plan
            .item(header.item)
            .is_some_and(|item| unreliable(&item.what));
        if outcome == Outcome::Maybe && live && !ended && !may_vanish {
            let what = format!("{header:?}: maybe, says its sender, and the session lives");
            ledger.fail(FailureKind::Safety, "outcomes".to_owned(), what);
        }
    }

    /// An end has heard which session it is of.
    pub(super) fn met(&self, at: u32, header: &Header) {
        let mut ledger = self.ledger.lock();
        if let Err(what) = ledger.meet(at, header) {
            ledger.fail(FailureKind::Safety, format!("end {at}"), what);
        }
    }

    /// A payload arrived at an end. `ordered` is its class where it is to come in order.
    pub(super) fn received(&self, at: u32, header: &Header, ordered: Option<usize>) {
        let mut ledger = self.ledger.lock();
        let arrived = ledger.receive(at, header, ordered);
        ledger.come_forward(at);
        if let Err(what) = arrived {
            ledger.fail(FailureKind::Safety, format!("end {at}"), what);
        }
    }

    /// All of a stream has arrived.
    pub(super) fn finished(&self, header: &Header) {
        self.ledger.lock().piece(header.item, header.index).finished = true;
    }

    /// How often something arrived.
    pub(super) fn times_received(&self, item: u32, index: u32) -> usize {
        self.ledger.lock().piece(item, index).received.len()
    }

    /// Whether that end of a session may send early data.
    pub(super) fn goes_early(&self, end: u32) -> bool {
        let ledger = self.ledger.lock();
        let client = ledger.ends.get(end as usize).and_then(|end| end.client);
        client.is_some_and(|client| ledger.early[client])
    }

    /// Which client a payload's sender belongs to.
    pub(super) fn client_of(&self, header: &Header) -> Option<usize> {
        self.ledger.lock().ends.get(header.end as usize)?.client
    }

    /// A promise to a client that is not kept yet, in words.
    pub(super) fn unkept(&self, client: usize) -> Option<String> {
        let ledger = self.ledger.lock();
        match &ledger.slots[client][0] {
            None => return Some(format!("client {client} has no session")),
            Some((end, session)) if session.state() != State::Connected => {
                return Some(format!(
                    "client {client}'s session, end {end}, is {:?}",
                    session.state()
                ));
            }
            Some(_) => {}
        }
        let items = self.plan.items.iter().zip(&ledger.items);
        items
            .filter_map(|(item, record)| {
                let What::Work {
                    job, client: whose, ..
                } = &item.what
                else {
                    return None;
                };
                let words = ledger.item_unkept(job, record).filter(|_| *whose == client)?;
                Some(format!("{item}: {words}"))
            })
            .next()
    }

    /// What was acknowledged and never arrived although its receiver lived; once all is over.
    pub(super) fn lost(&self) -> Option<String> {
        let ledger = self.ledger.lock();
        for (item, record) in self.plan.items.iter().zip(&ledger.items) {
            // A receiver drops unreliable messages that nobody reads in time.
            let exempt = unreliable(&item.what) || record.end.is_some_and(|end| ledger.any_crashed(end));
            for (index, piece) in record.pieces.iter().enumerate() {
                let acknowledged = piece.told == Some(Outcome::Acknowledged);
                if acknowledged && piece.received.is_empty() && !exempt {
                    return Some(format!(
                        "{item}: piece {index} was acknowledged and never arrived"
                    ));
                }
            }
        }
        None
    }
}
