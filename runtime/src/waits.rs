//! Tasks that wait for something of the session that is not one stream.

use std::task::{Context, Waker};

use sheetbend_core::session::StreamKey;
use sheetbend_core::wire::{Class, Kind};
use smallvec::SmallVec;

/// Wakers collected under the lock and fired after it is released.
pub(crate) type WakeList = SmallVec<[Waker; 16]>;

/// What a task waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Interest {
    /// A stream or message opened by the peer.
    Opened(Kind, Class),
    /// A whole request.
    Request,
    /// The end of interest in the peer's request on this stream.
    Gone(StreamKey),
    /// A message of a class.
    Message(Class),
    /// A datagram.
    Datagram,
    /// Room in the message queue.
    Space,
    /// Any change of the lifecycle.
    Lifecycle,
    /// A new event for subscriber `n`.
    Event(u64),
}

/// Names one waiting task, so that a dropped future leaves nothing behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ticket(u64);

/// All waiting tasks of a session, by what they wait for. Empty lists cost nothing.
#[derive(Default)]
pub(crate) struct Waits {
    lists: Vec<(Interest, Vec<(Ticket, Waker)>)>,
    next: u64,
}

impl Waits {
    /// Registers the task of `cx`, or renews its registration.
    pub(crate) fn register(&mut self, interest: Interest, ticket: &mut Option<Ticket>, cx: &Context<'_>) {
        let index = self
            .lists
            .iter()
            .position(|(of, _)| *of == interest)
            .unwrap_or_else(|| {
                self.lists.push((interest, Vec::new()));
                self.lists.len() - 1
            });
        let list = &mut self.lists[index].1;
        // Tickets count up, so the list is sorted by them.
        if let Some(Ticket(own)) = *ticket
            && let Ok(place) = list.binary_search_by_key(&own, |(Ticket(of), _)| *of)
        {
            list[place].1.clone_from(cx.waker());
            return;
        }
        self.next += 1;
        let own = Ticket(self.next);
        list.push((own, cx.waker().clone()));
        *ticket = Some(own);
    }

    /// Takes back a registration.
    pub(crate) fn forget(&mut self, interest: Interest, ticket: Ticket) {
        if let Some(index) = self.lists.iter().position(|(of, _)| *of == interest) {
            let list = &mut self.lists[index].1;
            if let Ok(place) = list.binary_search_by_key(&ticket.0, |(Ticket(of), _)| *of) {
                list.remove(place);
            }
            if list.is_empty() {
                self.lists.swap_remove(index);
            }
        }
    }

    /// Moves everyone who waits for this to `wakes`.
    pub(crate) fn wake(&mut self, interest: Interest, wakes: &mut WakeList) {
        if let Some(index) = self.lists.iter().position(|(of, _)| *of == interest) {
            let list = &mut self.lists[index].1;
            wakes.extend(list.drain(..).map(|(_, waker)| waker));
            // The list stays with its memory for those who wait again; subscribers come and go.
            if matches!(interest, Interest::Event(_) | Interest::Gone(_)) || list.capacity() > 64 {
                self.lists.swap_remove(index);
            }
        }
    }

    /// Gives back the memory of empty lists.
    pub(crate) fn shrink(&mut self) {
        self.lists.retain(|(_, list)| !list.is_empty());
        for (_, list) in &mut self.lists {
            list.shrink_to_fit();
        }
        self.lists.shrink_to_fit();
    }

    /// Moves everyone to `wakes`.
    pub(crate) fn wake_all(&mut self, wakes: &mut WakeList) {
        for (_, list) in self.lists.drain(..) {
            wakes.extend(list.into_iter().map(|(_, waker)| waker));
        }
    }
}
