//! The machine at work on a connection of QUIC.

use std::collections::VecDeque;

use bytes::Bytes;

use super::error::{Http3Error, code};
use super::{Event, Output, WebTransport};
use crate::carrier::quic::{Connection, Dir, QuicStreamId, Read, StreamEvent, WriteError};
use crate::time::Timestamp;

/// Read at once of a stream: more than that is never kept of one that is held.
const PIECE: usize = 4 * 1024;
/// Bidirectional streams that a client may have open: the request, lane 0, and a few that are refused.
const MAX_REQUESTS: u32 = 8;

/// A [`WebTransport`] that does itself what is to be done on its connection.
///
/// Of the connection's events those about streams go to [`Http3::handle_event`] first, and its datagrams to
/// [`WebTransport::handle_datagram`] of [`Http3::machine`]; then [`Http3::poll_event`] until there is none, with
/// [`Http3::drive`] behind it.
#[derive(Debug)]
pub struct Http3 {
    machine: WebTransport,
    /// What QUIC had no room for.
    unsent: VecDeque<(QuicStreamId, Bytes, bool)>,
    /// Streams that the peer does not allow yet.
    wanted: VecDeque<Dir>,
}

impl Http3 {
    /// Begins on a connection on which `h3` is agreed.
    ///
    /// # Errors
    /// The connection is over already.
    pub fn begin(
        machine: WebTransport,
        now: Timestamp,
        connection: &mut Connection,
    ) -> Result<Http3, Http3Error> {
        connection.allow_streams(Dir::Bi, MAX_REQUESTS);
        let mut host = Http3 {
            machine,
            unsent: VecDeque::new(),
            wanted: VecDeque::new(),
        };
        for dir in [Dir::Bi, Dir::Uni] {
            host.accept(now, connection, dir)?;
        }
        host.drive(connection)?;
        Ok(host)
    }

    /// The machine.
    pub fn machine(&mut self) -> &mut WebTransport {
        &mut self.machine
    }

    /// Takes in what is told of streams. Tells whether it was about one that is not the machine's: then it is for
    /// whoever the stream was handed over to.
    ///
    /// # Errors
    /// The connection is to be closed with the error's code.
    pub fn handle_event(
        &mut self,
        now: Timestamp,
        connection: &mut Connection,
        event: &StreamEvent,
    ) -> Result<bool, Http3Error> {
        let foreign = match *event {
            StreamEvent::Opened { dir } => {
                self.accept(now, connection, dir)?;
                false
            }
            StreamEvent::Available { .. } => false,
            StreamEvent::Readable { id } => {
                let owned = self.machine.owns(id);
                if self.machine.reads(id) {
                    self.read(now, connection, id)?;
                }
                !owned
            }
            StreamEvent::Stopped { id, error_code } => {
                let owned = self.machine.owns(id);
                self.machine.handle_stopped(id, error_code.into_inner())?;
                !owned
            }
            StreamEvent::Writable { id } | StreamEvent::Finished { id } => !self.machine.owns(id),
        };
        self.drive(connection)?;
        Ok(foreign)
    }

    /// Whether all streams of its own are open, so that others may be opened behind them.
    pub fn is_begun(&self) -> bool {
        self.wanted.is_empty()
    }

    fn accept(&mut self, now: Timestamp, connection: &mut Connection, dir: Dir) -> Result<(), Http3Error> {
        while let Some(id) = connection.accept(dir) {
            self.machine.handle_opened(id)?;
            self.read(now, connection, id)?;
        }
        Ok(())
    }

    /// Reads a stream for as long as the machine wants it.
    fn read(
        &mut self,
        now: Timestamp,
        connection: &mut Connection,
        id: QuicStreamId,
    ) -> Result<(), Http3Error> {
        let machine = &mut self.machine;
        let mut taken = Ok(());
        let read = connection.read(id, PIECE, |chunk| {
            taken = machine.handle_stream(now, id, chunk);
            if taken.is_ok() && machine.reads(id) {
                PIECE
            } else {
                0
            }
        });
        taken?;
        match read {
            Read::More | Read::Blocked => Ok(()),
            Read::Finished => self.machine.handle_fin(now, id),
            Read::Reset => self.machine.handle_reset(now, id, code::NO_ERROR),
        }
    }

    /// Does what the machine wants to have done.
    ///
    /// # Errors
    /// As [`Http3::handle_event`].
    pub fn drive(&mut self, connection: &mut Connection) -> Result<(), Http3Error> {
        loop {
            self.open_wanted(connection)?;
            let Some(output) = self.machine.poll_output() else {
                break;
            };
            match output {
                Output::Open(dir) => self.wanted.push_back(dir),
                Output::Send { id, bytes, fin } => self.unsent.push_back((id, bytes, fin)),
                Output::Reset { id, code } => connection.reset(id, code),
                Output::Stop { id, code } => connection.stop(id, code),
            }
        }
        self.flush(connection);
        Ok(())
    }

    fn open_wanted(&mut self, connection: &mut Connection) -> Result<(), Http3Error> {
        while let Some(dir) = self.wanted.front()
            && let Some(id) = connection.open(*dir)
        {
            self.wanted.pop_front();
            self.machine.handle_opened(id)?;
        }
        Ok(())
    }

    fn flush(&mut self, connection: &mut Connection) {
        while let Some((id, bytes, fin)) = self.unsent.front_mut() {
            while !bytes.is_empty() {
                match connection.write(*id, std::slice::from_mut(bytes)) {
                    Ok(_) => {}
                    Err(WriteError::Blocked) => return,
                    // The peer wants no more of it.
                    Err(_) => bytes.clear(),
                }
            }
            if *fin {
                connection.finish(*id);
            }
            self.unsent.pop_front();
        }
    }

    /// What has happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.machine.poll_event()
    }
}
