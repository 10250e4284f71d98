//! What responses bring.

use bytes::BytesMut;

use super::transmit::ACK_EVERY;
use super::{ClientPath, Slot, Stage, Turn};
use crate::carrier::http::HttpError;
use crate::carrier::http::mode::{Item, Mode, Note};
use crate::carrier::http::response::Response;
use crate::time::Timestamp;

impl ClientPath {
    /// Takes in what came on a connection.
    ///
    /// An error has ended the path: [`ClientPath::failure`] says so too.
    pub fn handle_input(&mut self, now: Timestamp, slot: Slot, input: &mut BytesMut) {
        let result = self.take_input(now, slot, input);
        self.news |= self.incoming.received() >= self.told.saturating_add(ACK_EVERY);
        if let Err(error) = result {
            self.news = true;
            input.clear();
            // Some proxy does not pass such responses on.
            let falls = self.mode != Mode::Poll && matches!(error, HttpError::Status { status: 500.., .. });
            match slot {
                Slot::Stream => self.stop_streaming(),
                Slot::Trial => self.end_trial(),
                Slot::Down if falls => self.fall(now),
                _ => self.fail(error),
            }
        }
    }

    fn take_input(&mut self, now: Timestamp, slot: Slot, input: &mut BytesMut) -> Result<(), HttpError> {
        let Some(mut response) = self.lane(slot).response.take() else {
            if !input.is_empty() {
                input.clear();
                self.news = true;
                // A server that has nothing to answer says that it closes an idle connection, at most.
                self.close(slot);
            }
            return Ok(());
        };
        let result = self.read(now, slot, &mut response, input);
        // A note in it may have closed the lane.
        if self.lane(slot).stage == Stage::Open {
            if !response.is_done() {
                self.lane(slot).response = Some(response);
            } else if result.is_ok() {
                let closes = response.closes();
                self.answered(now, slot, &response)?;
                // An answer to an upload is none where nothing waits for the next, and nothing is late.
                let late = self.expected > self.incoming.received();
                let wants = self.streaming.active || self.wants_upload();
                self.news |= slot != Slot::Up || closes || late || self.ending || wants;
                if closes && slot == Slot::Up {
                    self.close(slot);
                } else if closes && slot == Slot::Down && self.mode == Mode::Poll {
                    self.close(slot);
                    self.want_down(now);
                }
            }
        }
        result
    }

    fn read(
        &mut self,
        now: Timestamp,
        slot: Slot,
        response: &mut Response,
        input: &mut BytesMut,
    ) -> Result<(), HttpError> {
        if !response.take_head(input)? {
            return Ok(());
        }
        if slot == Slot::Up && response.status() == 409 && self.token.is_some() {
            // The server has seen a later one, or has it all: it says where it stands.
            return response.skip(input);
        }
        if response.status() != 200 && response.status() != 204 {
            return Err(response.refused());
        }
        let says_nothing = match slot {
            Slot::Up => self.token.is_some(),
            Slot::Stream => self.streaming.turn == Turn::Never,
            Slot::Down | Slot::Trial => false,
        };
        if says_nothing {
            return response.skip(input);
        }
        if slot == Slot::Trial {
            if response.next(input)?.is_some() {
                self.news = true;
                self.take_better(now);
            }
            return Ok(());
        }
        while let Some(item) = response.next(input)? {
            self.lane(slot).since = now;
            // Deadlines only move away with what is usual.
            self.news |= !self.proven;
            if slot == Slot::Stream && !self.is_turned() {
                self.news = true;
                self.take_turn(now, response, item)?;
                continue;
            }
            match item {
                Item::Data(count) => self.take_data(now, response, input, count)?,
                Item::Note(note) => self.take_note(now, note)?,
            }
            self.proven = true;
            self.failures[1] = 0;
            if self.over {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What a server says in response to an upload without end before that is the downlink.
    fn take_turn(&mut self, now: Timestamp, response: &mut Response, item: Item) -> Result<(), HttpError> {
        match (self.streaming.turn, item) {
            (Turn::Asked, Item::Note(Note::Mark(number))) if number == self.streaming.number => {
                self.streaming.turn = Turn::Due;
                Ok(())
            }
            (Turn::Said, Item::Note(Note::Mark(position))) => {
                response.begin_at(position);
                self.turned(now);
                Ok(())
            }
            _ => Err(HttpError::Malformed("a downlink that nobody has turned to")),
        }
    }

    fn take_data(
        &mut self,
        now: Timestamp,
        response: &mut Response,
        input: &mut BytesMut,
        count: usize,
    ) -> Result<(), HttpError> {
        let (position, bytes) = response.data(input, count);
        self.incoming
            .accept(position, bytes)
            .map_err(HttpError::Sequence)?;
        response.taken(input, count);
        self.progress = now;
        Ok(())
    }

    fn take_note(&mut self, now: Timestamp, note: Note) -> Result<(), HttpError> {
        self.news |= !(matches!(note, Note::Received(_)) && self.streaming.active);
        match note {
            Note::Received(position) => {
                if self.outgoing.acknowledge(position).map_err(HttpError::Sequence)? {
                    let streaming = &mut self.streaming;
                    streaming.worked |= streaming.active;
                    let waits = streaming.position != u64::MAX && streaming.position > position;
                    streaming.waiting_since = Some(now).filter(|_| waits && streaming.active);
                }
            }
            Note::End => self.over = true,
            Note::Turn => return Err(HttpError::Malformed("a turn of the server's")),
            Note::Mark(number) => {
                // Where the response is the downlink, another one may be read beside it only by mistake.
                let upload = self.streaming.turn == Turn::Never && number == self.streaming.number;
                if upload && self.lanes[Slot::Stream as usize].stage == Stage::Open {
                    self.streaming.active = true;
                    // Whatever an upload under way holds is acknowledged, or goes again.
                    self.streaming.position = u64::MAX;
                }
            }
        }
        Ok(())
    }

    /// A whole response has come.
    fn answered(&mut self, now: Timestamp, slot: Slot, response: &Response) -> Result<(), HttpError> {
        match slot {
            Slot::Up if self.token.is_none() => {
                let token = response.token().ok_or(HttpError::Malformed("no path was made"))?;
                self.token = Some(token);
                self.trip = now.since(self.lane(slot).since);
                self.proven = false;
                let _ = self
                    .outgoing
                    .acknowledge(self.upload_end)
                    .map_err(HttpError::Sequence)?;
                self.want_down(now);
            }
            Slot::Up => {
                let received = response.number("sheetbend-received")?;
                let position = match (response.status(), received) {
                    (204, None) => Some(self.upload_end),
                    (_, received) => received,
                };
                if let Some(position) = position {
                    self.outgoing.acknowledge(position).map_err(HttpError::Sequence)?;
                }
                if response.status() == 409 {
                    self.failed_once(0);
                } else {
                    self.failures[0] = 0;
                }
                if let Some(sent) = response.number("sheetbend-sent")?
                    && sent > self.expected
                {
                    if self.expected <= self.incoming.received() {
                        self.progress = now;
                    }
                    self.expected = sent;
                }
                if self.end_sent {
                    self.over = true;
                }
            }
            Slot::Down if self.mode != Mode::Poll => {
                // The server has ended it on its own: another goes on, unless it was the path's end.
                self.close(Slot::Down);
                self.proven = false;
                if !self.over {
                    self.failed_once(1);
                    self.want_down(now);
                }
            }
            Slot::Down => {}
            Slot::Trial => self.end_trial(),
            Slot::Stream => {
                self.over |= self.end_sent;
                self.stop_streaming();
            }
        }
        Ok(())
    }
}
