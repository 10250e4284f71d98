//! Connections and listeners of a host's kernel.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::task::Waker;

use super::fabric::AttachmentId;
use super::tcp::{Segment, Tcp, Woken};
use super::{Body, Packet};
use crate::host::HostId;
use crate::queue::Due;
use crate::state::State;
use crate::trace::ConnectionEvent;

/// A connection that may be gone; a generation tells it from its successors in the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// One end of a TCP connection, with its place in the network.
pub(crate) struct Connection {
    pub(crate) tcp: Tcp,
    pub(crate) host: HostId,
    pub(crate) local: SocketAddrV4,
    pub(crate) remote: SocketAddrV4,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    generation: u32,
    from: AttachmentId,
    /// The time of the entry in the queue that looks at the timers; `u64::MAX` for none.
    armed: u64,
    /// The listener that is to accept it.
    listener: Option<usize>,
}

/// A listening socket.
pub(crate) struct Listening {
    pub(crate) host: HostId,
    pub(crate) port: u16,
    pub(crate) ready: VecDeque<ConnectionKey>,
    pub(crate) acceptor: Option<Waker>,
    /// Handshakes under way.
    pending: usize,
}

impl State {
    pub(crate) fn connection(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        let found = self.net.connections.get_mut(key.index as usize)?;
        (found.generation == key.generation).then_some(found)
    }

    fn insert(
        &mut self,
        tcp: Tcp,
        host: HostId,
        from: AttachmentId,
        local: SocketAddrV4,
        remote: SocketAddrV4,
        listener: Option<usize>,
    ) -> ConnectionKey {
        let generation = self.net.next_generation;
        self.net.next_generation += 1;
        let index = self.net.connections.insert(Connection {
            tcp,
            host,
            local,
            remote,
            reader: None,
            writer: None,
            generation,
            from,
            armed: u64::MAX,
            listener,
        });
        let key = ConnectionKey {
            index: index as u32,
            generation,
        };
        self.net.flows.insert((local, remote), key);
        key
    }

    /// Begins to connect. The interface is the host's on the network of the remote address.
    pub(crate) fn connect(&mut self, host: HostId, remote: SocketAddrV4) -> io::Result<ConnectionKey> {
        let from = self.route(host, *remote.ip())?;
        let local = SocketAddrV4::new(self.net.attachment(from).ip, self.free_port(host, remote)?);
        let config = self.hosts[host.index()].tcp.clone();
        let tcp = Tcp::connect(self.now, config);
        let key = self.insert(tcp, host, from, local, remote, None);
        self.tell(key, ConnectionEvent::Calls);
        self.pump(key);
        Ok(key)
    }

    /// The interface by which a host reaches an address.
    pub(crate) fn route(&self, host: HostId, ip: Ipv4Addr) -> io::Result<AttachmentId> {
        let unreachable = || {
            io::Error::new(
                io::ErrorKind::NetworkUnreachable,
                format!("no network leads to {ip}"),
            )
        };
        let to = self.net.find(ip).ok_or_else(unreachable)?;
        let network = self.net.attachment(to).network;
        let from = self.net.on(host, network).ok_or_else(unreachable)?;
        if !self.net.attachment(from).up {
            return Err(io::Error::new(
                io::ErrorKind::NetworkUnreachable,
                "the interface is off",
            ));
        }
        Ok(from)
    }

    fn free_port(&mut self, host: HostId, remote: SocketAddrV4) -> io::Result<u16> {
        let ip = self
            .route(host, *remote.ip())
            .map(|from| self.net.attachment(from).ip)?;
        for _ in 0..u16::MAX {
            let port = self.hosts[host.index()].next_port();
            let local = SocketAddrV4::new(ip, port);
            if !self.net.flows.contains_key(&(local, remote)) {
                return Ok(port);
            }
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    }

    pub(crate) fn listen_on(&mut self, host: HostId, port: u16) -> io::Result<usize> {
        let port = match port {
            0 => loop {
                let port = self.hosts[host.index()].next_port();
                if !self.net.ports.contains_key(&(host, port)) {
                    break port;
                }
            },
            port => port,
        };
        if self.net.ports.contains_key(&(host, port)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let index = self.net.listeners.insert(Listening {
            host,
            port,
            ready: VecDeque::new(),
            acceptor: None,
            pending: 0,
        });
        self.net.ports.insert((host, port), index);
        Ok(index)
    }

    pub(crate) fn stop_listening(&mut self, index: usize) {
        let listening = self.net.listeners.remove(index);
        self.net.ports.remove(&(listening.host, listening.port));
        let waiting: Vec<ConnectionKey> = self.keys(|connection| connection.listener == Some(index));
        for key in waiting {
            self.abandon(key, Some(io::ErrorKind::ConnectionAborted));
        }
    }

    fn keys(&self, which: impl Fn(&Connection) -> bool) -> Vec<ConnectionKey> {
        let all = self
            .net
            .connections
            .iter()
            .filter(|(_, connection)| which(connection));
        all.map(|(index, connection)| ConnectionKey {
            index: index as u32,
            generation: connection.generation,
        })
        .collect()
    }

    /// A program dropped its handle; with an error, the connection is reset rather than finished.
    pub(crate) fn abandon(&mut self, key: ConnectionKey, reset: Option<io::ErrorKind>) {
        let now = self.now;
        let Some(connection) = self.connection(key) else {
            return;
        };
        (connection.reader, connection.writer) = (None, None);
        if let Some(kind) = reset {
            connection.tcp.reset(kind);
        }
        connection.tcp.abandon(now);
        self.pump(key);
    }

    /// Everything of a host's kernel vanishes; nobody is told.
    pub(crate) fn forget_host(&mut self, host: HostId) {
        for key in self.keys(|connection| connection.host == host) {
            self.remove(key);
        }
        let listeners: Vec<usize> = self
            .net
            .ports
            .range((host, 0)..=(host, u16::MAX))
            .map(|(_, &index)| index)
            .collect();
        for index in listeners {
            let listening = self.net.listeners.remove(index);
            self.net.ports.remove(&(host, listening.port));
            self.wakes.extend(listening.acceptor);
        }
        self.forget_udp(host);
    }

    /// Takes down what became of a connection.
    fn tell(&mut self, key: ConnectionKey, event: ConnectionEvent) {
        if !self.trace.is_kept() {
            return;
        }
        let Some(connection) = self.connection(key) else {
            return;
        };
        let (host, ends) = (connection.host.index(), (connection.local, connection.remote));
        self.trace.connection(self.now, &self.hosts[host], ends, event);
    }

    fn remove(&mut self, key: ConnectionKey) {
        self.tell(key, ConnectionEvent::Closes);
        let connection = self.net.connections.remove(key.index as usize);
        self.net.flows.remove(&(connection.local, connection.remote));
        self.wakes.extend(connection.reader);
        self.wakes.extend(connection.writer);
    }

    /// Resets connections, as an operator's tool or a middlebox does: both ends learn of it, each in its
    /// own time.
    pub(crate) fn reset_connections(&mut self, which: impl Fn(&Connection) -> bool) -> usize {
        let keys = self.keys(which);
        for &key in &keys {
            let Some(connection) = self.connection(key) else {
                continue;
            };
            connection.tcp.reset(io::ErrorKind::ConnectionReset);
            let wakers = [connection.reader.take(), connection.writer.take()];
            self.wakes.extend(wakers.into_iter().flatten());
            self.pump(key);
        }
        keys.len()
    }

    /// Sends what a connection has to send, and sees to its timers.
    pub(crate) fn pump(&mut self, key: ConnectionKey) {
        let now = self.now;
        loop {
            let Some(connection) = self.connection(key) else {
                return;
            };
            let Some(segment) = connection.tcp.poll(now) else {
                break;
            };
            let packet = Packet {
                source: connection.local,
                destination: connection.remote,
                body: Body::Tcp(segment),
            };
            let from = connection.from;
            self.transmit(packet, from);
        }
        let Some(connection) = self.connection(key) else {
            return;
        };
        if connection.tcp.is_over() {
            return self.remove(key);
        }
        // One that passed while the host was suspended is due at once.
        let deadline = connection.tcp.deadline().max(now);
        if deadline < connection.armed {
            connection.armed = deadline;
            self.queue
                .push(deadline, Due::Connection(key.index, key.generation));
        }
    }

    /// A connection's entry in the queue is due.
    pub(crate) fn connection_due(&mut self, index: u32, generation: u32) {
        let now = self.now;
        let key = ConnectionKey { index, generation };
        let Some(connection) = self.connection(key) else {
            return;
        };
        if connection.armed > now {
            return; // an entry that was overtaken by an earlier one
        }
        connection.armed = u64::MAX;
        let host = connection.host.index();
        if !self.hosts[host].hears() {
            return self.queue_again(key, host);
        }
        let Some(connection) = self.connection(key) else {
            return;
        };
        if connection.tcp.deadline() <= now {
            let woken = connection.tcp.timeout(now);
            self.woken(key, woken);
        }
        self.pump(key);
    }

    /// A suspended kernel looks at its timers when it runs again.
    fn queue_again(&mut self, key: ConnectionKey, host: usize) {
        self.hosts[host].held_connections.push(key);
    }

    pub(crate) fn release_connections(&mut self, host: HostId) {
        let now = self.now;
        for key in std::mem::take(&mut self.hosts[host.index()].held_connections) {
            if let Some(connection) = self.connection(key) {
                connection.armed = now;
                self.queue.push(now, Due::Connection(key.index, key.generation));
            }
        }
    }

    fn woken(&mut self, key: ConnectionKey, woken: Woken) {
        let Some(connection) = self.connection(key) else {
            return;
        };
        let reader = woken.readable.then(|| connection.reader.take()).flatten();
        let writer = woken.writable.then(|| connection.writer.take()).flatten();
        let listener = connection.listener;
        let error = connection.tcp.error();
        let dead = error.is_some();
        let fails = error.filter(|_| woken.readable && woken.writable);
        self.wakes.extend(reader);
        self.wakes.extend(writer);
        if woken.opened {
            self.tell(key, ConnectionEvent::Opens);
        } else if let Some(kind) = fails {
            self.tell(
                key,
                ConnectionEvent::Fails {
                    error: kind.to_string(),
                },
            );
        }
        let Some(index) = listener else { return };
        if woken.opened {
            let listening = &mut self.net.listeners[index];
            listening.pending -= 1;
            listening.ready.push_back(key);
            self.wakes.extend(listening.acceptor.take());
        } else if dead {
            let ready = &mut self.net.listeners[index].ready;
            if let Some(place) = ready.iter().position(|other| *other == key) {
                ready.remove(place);
            } else {
                self.net.listeners[index].pending -= 1;
            }
            self.abandon(key, None);
        }
    }

    /// Gives a connection that waits at a listener to the program.
    pub(crate) fn accept(&mut self, index: usize) -> Option<ConnectionKey> {
        // One that was reset before it was accepted is passed over.
        loop {
            let key = self.net.listeners[index].ready.pop_front()?;
            if let Some(connection) = self.connection(key) {
                connection.listener = None;
                return Some(key);
            }
        }
    }

    /// A segment has come to the host of `destination`.
    pub(crate) fn segment_arrived(
        &mut self,
        source: SocketAddrV4,
        destination: SocketAddrV4,
        segment: Segment,
    ) {
        let now = self.now;
        self.trace.arrived(now, source, destination, &segment);
        if let Some(&key) = self.net.flows.get(&(destination, source)) {
            let Some(connection) = self.connection(key) else {
                return;
            };
            let woken = connection.tcp.segment(now, segment);
            self.woken(key, woken);
            self.pump(key);
            return;
        }
        let Some(to) = self.net.find(*destination.ip()) else {
            return;
        };
        let host = self.net.attachment(to).host;
        let wanted = segment.flags.syn && !segment.flags.ack;
        let listener = self.net.ports.get(&(host, destination.port())).copied();
        if let (true, Some(index)) = (wanted, listener) {
            let config = self.hosts[host.index()].tcp.clone();
            let listening = &mut self.net.listeners[index];
            if listening.pending + listening.ready.len() >= config.backlog {
                return; // a full backlog says nothing: the caller tries again
            }
            listening.pending += 1;
            let tcp = Tcp::answer(now, config, &segment);
            let key = self.insert(tcp, host, to, destination, source, Some(index));
            return self.pump(key);
        }
        if !segment.flags.rst {
            let packet = Packet {
                source,
                destination,
                body: Body::Udp(bytes::Bytes::new()),
            };
            self.reply(to, &packet, Segment::reset_for(&segment));
        }
    }
}
