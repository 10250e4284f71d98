//! Tickets of TLS, by which a client sends in its first flight over QUIC. PROTOCOL 14.8.
//!
//! Both stores are bounded, forget the oldest first, and draw nothing from their surroundings. They live in memory
//! alone: a server that begins anew knows no ticket, so that no copy of a first flight means anything to it.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use rustls::server::StoresServerSessions;

/// Tickets that a client keeps, of all servers together.
pub(super) const MAX_KEPT: usize = 64;
/// Tickets that a client keeps of one server: one is used up by each connection, and each brings another.
pub(super) const MAX_KEPT_OF_ONE: usize = 4;
/// Bytes that a server remembers of the tickets it has given, however many it may.
pub(in crate::carrier) const MAX_GIVEN_BYTES: usize = 4 << 20;
/// What an entry costs beside its bytes.
const ENTRY: usize = 128;

/// Whose connection it is that is at work.
fn peer() -> Option<IpAddr> {
    super::ambient::peer().map(|peer| peer.to_canonical())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tickets that a server has given. Each is taken once, and from the address alone that it was given to: so that a
/// first flight, which may come from anywhere, is from where its sender has been heard before.
pub(in crate::carrier) struct Given {
    most: usize,
    tickets: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_name: BTreeMap<Vec<u8>, GivenTicket>,
    /// The names, the oldest first.
    order: BTreeMap<u64, Vec<u8>>,
    next: u64,
    bytes: usize,
}

struct GivenTicket {
    /// Its place in the order.
    place: u64,
    /// To whom.
    peer: Option<IpAddr>,
    value: Vec<u8>,
}

impl Given {
    /// Remembers so many.
    pub(in crate::carrier) fn new(most: usize) -> Given {
        Given {
            most,
            tickets: Mutex::default(),
        }
    }
}

impl Table {
    fn remove(&mut self, name: &[u8]) -> Option<Vec<u8>> {
        let ticket = self.by_name.remove(name)?;
        self.order.remove(&ticket.place);
        self.bytes -= cost(name, &ticket.value);
        Some(ticket.value)
    }
}

fn cost(name: &[u8], value: &[u8]) -> usize {
    2 * name.len() + value.len() + ENTRY
}

impl StoresServerSessions for Given {
    fn put(&self, name: Vec<u8>, value: Vec<u8>) -> bool {
        let mut table = lock(&self.tickets);
        let table = &mut *table;
        table.remove(&name);
        let own = cost(&name, &value);
        if own > MAX_GIVEN_BYTES || self.most == 0 {
            return false;
        }
        while table.by_name.len() >= self.most || table.bytes + own > MAX_GIVEN_BYTES {
            let Some((_, oldest)) = table.order.pop_first() else {
                break;
            };
            table.remove(&oldest);
        }
        let place = table.next;
        table.next += 1;
        table.bytes += own;
        table.order.insert(place, name.clone());
        let peer = peer();
        table.by_name.insert(name, GivenTicket { place, peer, value });
        true
    }

    /// Only older versions of TLS use a session more than once.
    fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn take(&self, name: &[u8]) -> Option<Vec<u8>> {
        let mut table = lock(&self.tickets);
        // One that somebody else presents, who has seen it pass, is not used up.
        let own = table
            .by_name
            .get(name)
            .is_some_and(|ticket| ticket.peer == peer());
        if own { table.remove(name) } else { None }
    }

    fn can_cache(&self) -> bool {
        self.most > 0
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is in it are secrets.
        let tickets = lock(&self.tickets);
        f.debug_struct("Given")
            .field("tickets", &tickets.by_name.len())
            .field("bytes", &tickets.bytes)
            .finish_non_exhaustive()
    }
}

/// A ticket, and who gave it: a name at an address. Several servers may be behind a name.
struct Ticket {
    from: (SocketAddr, ServerName<'static>),
    value: Tls13ClientSessionValue,
}

/// The tickets that a client was given, the newest at the end.
#[derive(Default)]
pub(in crate::carrier) struct Kept(Mutex<VecDeque<Ticket>>);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("tickets", &lock(&self.0).len())
            .finish_non_exhaustive()
    }
}

impl Kept {
    #[cfg(test)]
    pub(in crate::carrier) fn len(&self) -> usize {
        lock(&self.0).len()
    }

    fn put(&self, ticket: Ticket) {
        let mut tickets = lock(&self.0);
        let own = tickets.iter().filter(|other| other.from == ticket.from);
        if own.count() >= MAX_KEPT_OF_ONE
            && let Some(oldest) = tickets.iter().position(|other| other.from == ticket.from)
        {
            tickets.remove(oldest);
        }
        if tickets.len() >= MAX_KEPT {
            tickets.pop_front();
        }
        tickets.push_back(ticket);
    }

    fn take(&self, from: &(SocketAddr, ServerName<'static>)) -> Option<Tls13ClientSessionValue> {
        let mut tickets = lock(&self.0);
        let newest = tickets.iter().rposition(|ticket| ticket.from == *from)?;
        tickets.remove(newest).map(|ticket| ticket.value)
    }
}

/// Those of the servers at one address.
#[derive(Debug)]
pub(in crate::carrier) struct KeptAt {
    pub(in crate::carrier) kept: Arc<Kept>,
    pub(in crate::carrier) place: SocketAddr,
}

impl ClientSessionStore for KeptAt {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        let from = (self.place, name);
        self.kept.put(Ticket { from, value });
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept.take(&(self.place, name.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_remembers_so_many_tickets_and_takes_each_once() {
        let given = Given::new(3);
        for name in 0..5 {
            assert!(given.put(vec![name; 32], vec![name; 100]));
        }
        assert_eq!(given.take(&[1; 32]), None, "the oldest are forgotten");
        assert_eq!(given.take(&[3; 32]), Some(vec![3; 100]));
        assert_eq!(given.take(&[3; 32]), None);
        assert!(given.put(vec![4; 32], vec![9; 7]), "another in its place");
        assert_eq!(given.take(&[4; 32]), Some(vec![9; 7]));
        assert_eq!(given.take(&[2; 32]), Some(vec![2; 100]));
        let table = lock(&given.tickets);
        assert_eq!((table.bytes, table.by_name.len(), table.order.len()), (0, 0, 0));
    }

    #[test]
    fn a_server_bounds_the_bytes_of_its_tickets() {
        let given = Given::new(usize::MAX);
        for name in 0..10_000_u32 {
            assert!(given.put(name.to_be_bytes().to_vec(), vec![0; 4096]));
            assert!(lock(&given.tickets).bytes <= MAX_GIVEN_BYTES);
        }
        assert_eq!(given.take(&9_999_u32.to_be_bytes()), Some(vec![0; 4096]));
        assert!(!given.put(vec![1], vec![0; MAX_GIVEN_BYTES]));
        assert!(!Given::new(0).put(vec![1], vec![1]));
        assert!(!Given::new(0).can_cache());
    }
}
