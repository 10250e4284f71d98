//! A QUIC connection that carries a path.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use sheetbend_core::carrier::quic::{Connection, Dir, Event, QuicStreamId, Read, WriteError};
use sheetbend_core::handshake::Security;
use sheetbend_core::session::{LaneRoom, PathEnd, PathInfo, PathKey, Session, Transmit};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::{OutBuffer, varint};

use crate::udp::Udp;
use crate::{LANES, PATIENCE};

/// A lane that the peer has opened: its stream, its number once that has come, and what was read and not taken.
type LaneIn = (QuicStreamId, Option<u64>, BytesMut);

/// A connection, and what a path has on its streams.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) since: Timestamp,
    /// Its handshake is done.
    pub(crate) up: bool,
    /// Lane 0: the first bidirectional stream, with what was read from it and not taken.
    pub(crate) first: Option<QuicStreamId>,
    pub(crate) input: BytesMut,
    lanes_in: Vec<LaneIn>,
    /// The streams of our own lanes, from 1 on.
    lanes_out: Vec<QuicStreamId>,
    /// What QUIC had no room for yet.
    pub(crate) output: VecDeque<(QuicStreamId, Bytes)>,
    /// Nothing comes behind what is in `output`; until then the peer has to close the connection.
    pub(crate) closing: Option<Timestamp>,
    pub(crate) end: Option<PathEnd>,
}

impl Link {
    pub(crate) fn new(connection: Connection, since: Timestamp) -> Link {
        let (input, lanes_in, lanes_out, output) = Default::default();
        Link {
            connection,
            since,
            up: false,
            first: None,
            input,
            lanes_in,
            lanes_out,
            output,
            closing: None,
            end: None,
        }
    }

    pub(crate) fn info(&self) -> PathInfo {
        let name = format!("quic://{}", self.connection.remote());
        let exporter = self.connection.exporter();
        PathInfo {
            exporter,
            lanes: LANES,
            ..PathInfo::new(name, "quic", Security::Encrypted)
        }
    }

    /// The first half of a turn, behind the datagrams: what has become of the connection, and what is on lane 0.
    pub(crate) fn fill(&mut self, now: Timestamp) {
        if self.connection.poll_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
        }
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Connected => self.up = true,
                Event::ConnectionLost { .. } => self.end = self.end.or(Some(PathEnd::Reset)),
                _ => {}
            }
        }
        self.first = self.first.or_else(|| self.connection.accept(Dir::Bi));
        if let Some(first) = self.first {
            match read(&mut self.connection, first, &mut self.input) {
                Read::Finished => self.end = self.end.or(Some(PathEnd::Eof)),
                Read::Reset => self.end = self.end.or(Some(PathEnd::Reset)),
                Read::More | Read::Blocked => {}
            }
        }
        if self.closing.is_some_and(|until| until <= now) {
            self.end = self.end.or(Some(PathEnd::Local));
        }
    }

    /// What is on the other lanes, once the path is as far.
    pub(crate) fn fill_lanes(&mut self, now: Timestamp, session: &mut Session, key: PathKey) {
        while let Some(stream) = self.connection.accept(Dir::Uni) {
            self.lanes_in.push((stream, None, BytesMut::new()));
        }
        let connection = &mut self.connection;
        self.lanes_in.retain_mut(|(stream, number, input)| {
            let outcome = read(connection, *stream, input);
            if number.is_none() {
                let mut rest = &input[..];
                *number = varint::get(&mut rest).ok();
                drop(input.split_to(input.len() - rest.len()));
            }
            if let Some(lane) = *number
                && !input.is_empty()
            {
                // An error is the path's end, as with `handle_input`.
                let _ = session.handle_lane_input(now, key, lane, input, 0);
            }
            matches!(outcome, Read::More | Read::Blocked)
        });
    }

    /// Asks the session for output, and puts it on its streams, those of new lanes among them.
    pub(crate) fn pull(&mut self, now: Timestamp, session: &mut Session, key: PathKey) {
        let window = self.connection.congestion_window();
        session.set_lanes(
            key,
            LaneRoom {
                lanes: LANES,
                max_datagram: 0,
                window,
            },
        );
        while self.output.is_empty() && self.closing.is_none() && self.end.is_none() {
            let (mut out, mut runs) = (OutBuffer::new(), Vec::new());
            let transmit = session.poll_transmit_lanes(now, key, &mut out, &mut runs);
            for run in runs {
                let Some(stream) = self.lane(run.lane.into()) else {
                    // Less than was promised: the session goes on over another path.
                    self.end = Some(PathEnd::Reset);
                    return;
                };
                let mut left = run.len;
                while left > 0 {
                    let piece = out.take(left);
                    left -= piece.len();
                    self.output.push_back((stream, piece));
                }
            }
            if transmit == Transmit::CloseAfterFlush {
                self.closing = Some(now + PATIENCE);
            } else if self.output.is_empty() {
                return;
            }
            self.flush();
        }
    }

    /// The stream of a lane of ours. The session numbers new ones in turn.
    fn lane(&mut self, number: usize) -> Option<QuicStreamId> {
        if number == 0 {
            return self.first;
        }
        while self.lanes_out.len() < number {
            let stream = self.connection.open(Dir::Uni)?;
            self.lanes_out.push(stream);
            let mut start = Vec::new();
            varint::put(&mut start, self.lanes_out.len() as u64);
            self.output.push_back((stream, start.into()));
        }
        self.lanes_out.get(number - 1).copied()
    }

    /// Gives QUIC what it has room for. One stream without room does not hold up the others.
    pub(crate) fn flush(&mut self) {
        let (connection, end) = (&mut self.connection, &mut self.end);
        self.output.retain_mut(|(stream, piece)| {
            match connection.write(*stream, std::slice::from_mut(piece)) {
                Ok(_) | Err(WriteError::Blocked) => {}
                Err(_) => *end = Some(PathEnd::Reset),
            }
            !piece.is_empty()
        });
        if let Some(first) = self
            .first
            .filter(|_| self.closing.is_some() && self.output.is_empty())
        {
            self.connection.finish(first);
        }
    }

    /// The last part of a turn: datagrams go out. What the socket has no room for is lost, as datagrams may be.
    pub(crate) fn transmit(&mut self, now: Timestamp, udp: &mut Udp) {
        let mut datagram = Vec::new();
        while let Some(to) = self.connection.poll_transmit(now, 1, &mut datagram) {
            let _ = udp.socket.send_to(&datagram[..to.size], to.destination);
            datagram.clear();
        }
        let handle = self.connection.handle();
        while let Some(event) = self.connection.poll_endpoint_event() {
            let answer = udp.endpoint.handle_event(handle, event);
            self.connection.handle_events(now, answer);
        }
    }

    /// Ends the connection, and says so to the peer.
    pub(crate) fn close(mut self, now: Timestamp, udp: &mut Udp) {
        self.connection.close(now, 0, b"");
        self.transmit(now, udp);
        udp.endpoint.forget(self.connection.handle());
    }
}

fn read(connection: &mut Connection, stream: QuicStreamId, input: &mut BytesMut) -> Read {
    connection.read(stream, usize::MAX, |bytes| {
        input.extend_from_slice(&bytes);
        usize::MAX
    })
}
