//! The whole life of a session out of bytes: configuration, work and faults as they come, then one sound path
//! on which everything promised must be kept, then the end.

use std::time::Duration;

use sheetbend_core::handshake::Security;
use sheetbend_core::marks::Marks;
use sheetbend_core::session::{Cause, Config, PathEnd, PathInfo, Session, State};
use sheetbend_core::wire::{Class, ErrorCode, Kind, StreamId};

use crate::app::App;
use crate::input::{Input, seeded};
use crate::pair::Pair;

/// Within this time of sound paths everything promised is kept.
const LIVENESS: Duration = Duration::from_secs(20);
/// So many turns on sound paths, with nothing owed: longer than the slowest path that a life has had needs to empty.
const SETTLED_TURNS: u32 = 50;
/// No life has more steps than this, however many bytes there are.
const MAX_STEPS: usize = 400;

/// The session's life that these bytes describe. Returns which rare branches it went through.
///
/// # Panics
/// Something that must hold does not.
pub fn live(bytes: &[u8]) -> Marks {
    let mut input = Input::new(bytes);
    let mut life = Life::new(&mut input);
    life.steps(&mut input);
    life.heal();
    life.close();
    life.pair.marks()
}

/// The bytes of a life by its number: longer ones than most that a fuzzer begins with.
pub fn of_seed(seed: u64) -> Vec<u8> {
    seeded(seed, 300 + seed as usize % 20 * 150)
}

struct Life {
    pair: Pair,
    apps: [App; 2],
    /// What either end gave as its reason to close.
    closed: Vec<(ErrorCode, &'static str)>,
}

fn config(input: &mut Input<'_>) -> Config {
    let mut config = Config::default();
    let params = &mut config.params;
    params.max_data = [input.pick(&[20_000, 100_000, 1 << 20]); 8];
    params.max_stream_data = [input.pick(&[2000, 30_000, 256 << 10]); 8];
    params.max_record = input.pick(&[1200, 5000, 65_536]);
    params.max_message = 50_000;
    params.in_flight = input.pick(&[4096, 64 << 10, 256 << 10]);
    params.max_ack_delay = Duration::from_millis(input.pick(&[0, 1, 25]));
    params.heartbeat = Duration::from_millis(input.pick(&[0, 200, 5000]));
    let bits = input.byte();
    params.lz4 = bits & 1 == 1;
    config.early_data = bits & 2 == 2;
    params.resume_timeout = Duration::from_secs(if bits & 4 == 4 { 5 } else { 300 });
    let streams = input.pick(&[1, 5, 100]);
    for limits in &mut params.max_streams {
        (limits.bi, limits.uni, limits.unordered) = (streams, streams, streams);
    }
    config.max_send_buffer = input.pick(&[20_000, 100_000, 1 << 25]);
    config.max_message_queue = input.pick(&[5000, 200_000]);
    config.max_datagram_queue = input.pick(&[3000, 256 << 10]);
    config
}

impl Life {
    fn new(input: &mut Input<'_>) -> Life {
        let (client, server) = (config(input), config(input));
        let mut pair = Pair::new(client, server, u64::from(input.byte()));
        pair.check = check;
        let mut life = Life {
            pair,
            apps: [App::new(), App::new()],
            closed: Vec::new(),
        };
        life.connect(input);
        if input.byte().is_multiple_of(4) {
            let (app, client) = (&mut life.apps[0], &mut life.pair.client);
            app.open(client, Kind::Bi, Class::REQUESTS, 1 + input.size(20_000) as u64);
            app.write(client, 0, usize::MAX, false);
        }
        life
    }

    fn connect(&mut self, input: &mut Input<'_>) {
        let mut info = PathInfo::new("mem://fuzz", "mem", Security::Plain);
        info.rank = u32::from(input.byte() & 1);
        if let Ok(link) = self.pair.connect(info) {
            let link = &mut self.pair.links[link];
            link.delay = Duration::from_micros(input.pick(&[100, 1000, 15_000, 60_000]));
            link.rate = input.pick(&[0, 0, 300_000, 10_000_000]);
            link.piece = input.pick(&[0, 0, 1, 100, 5000]);
            if link.piece == 1 {
                // Byte by byte is slow to simulate: enough of it to cut every header.
                link.piece = 37;
            }
        }
    }

    fn over(&self) -> bool {
        self.pair.void || self.apps.iter().any(|app| app.cause.is_some())
    }

    fn steps(&mut self, input: &mut Input<'_>) {
        for _ in 0..MAX_STEPS {
            if input.is_empty() || self.over() {
                return;
            }
            self.step(input);
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        let end = usize::from(choice >> 7);
        let now = self.pair.now;
        let class = Class::new(input.byte() % 4).expect("small");
        let session = match end {
            0 => &mut self.pair.client,
            _ => match &mut self.pair.server {
                Some(server) => server,
                None => return self.run(input),
            },
        };
        let app = &mut self.apps[end];
        match choice & 31 {
            0..=2 => {
                let kind = input.pick(&[Kind::Bi, Kind::Uni]);
                app.open(session, kind, class, input.size(300_000) as u64);
            }
            3..=5 => app.send(input, session, now, class),
            6..=8 => app.write(session, input.below(256), 1 + input.size(30_000), input.flag()),
            9..=11 => app.read(
                session,
                now,
                input.below(256),
                1 + input.size(30_000),
                input.flag(),
            ),
            12 => app.accept(input, session),
            13 => app.receive(session, now, input.flag()),
            14 => app.release(session),
            15 => app.reset(session, input.below(256)),
            16 => app.stop(session, input.below(256)),
            17 => app.set_urgency(session, input.below(256), input.byte()),
            18 => app.work(session, now),
            19..=25 => self.run(input),
            26..=28 => self.fault(input),
            29 | 30 => self.connect(input),
            _ => self.end_or_rest(input, end),
        }
    }

    fn run(&mut self, input: &mut Input<'_>) {
        let time = Duration::from_micros(input.size(100_000) as u64);
        self.pair.run_for(time);
        self.take_events();
    }

    fn take_events(&mut self) {
        for event in std::mem::take(&mut self.pair.client_events) {
            self.apps[0].take_event(event);
        }
        for event in std::mem::take(&mut self.pair.server_events) {
            self.apps[1].take_event(event);
        }
    }

    fn fault(&mut self, input: &mut Input<'_>) {
        let live = self.pair.live_links();
        if live.is_empty() {
            return self.connect(input);
        }
        let place = live[input.below(live.len())];
        let kind = input.byte() % 10;
        let link = &mut self.pair.links[place];
        match kind {
            0 => self.pair.end(place, PathEnd::Reset),
            1 => self.pair.end(place, PathEnd::Eof),
            2 => link.up.stalled = true,
            3 => link.down.stalled = true,
            4 => (link.up.stalled, link.down.stalled) = (true, true),
            5 => link.up.corrupt = true,
            6 => link.down.corrupt = true,
            7 => link.delay = Duration::from_micros(u64::from(input.u16())),
            _ => {
                for link in live {
                    let link = &mut self.pair.links[link];
                    (link.up.stalled, link.down.stalled) = (false, false);
                }
            }
        }
    }

    /// What happens once in a life, if at all.
    fn end_or_rest(&mut self, input: &mut Input<'_>, end: usize) {
        let now = self.pair.now;
        let session = match (end, &mut self.pair.server) {
            (1, Some(server)) => server,
            _ => &mut self.pair.client,
        };
        match input.byte() % 32 {
            0 => {
                let reason = input.pick(&["", "enough", "a reason"]);
                let code = ErrorCode::application(u64::from(input.byte())).expect("small");
                session.close(now, code, reason);
                self.closed.push((code, reason));
            }
            1 => {
                session.drain(now, "tcp://elsewhere:1");
                self.apps[end].draining = true;
                if end == 1 {
                    // Its process takes no new sessions, and whoever never had one would not get one.
                    let elsewhere = "tcp://elsewhere:1".to_owned();
                    self.pair.acceptor.drain(Some(elsewhere));
                }
            }
            2 => self.pair.run_for(Duration::from_secs(6)),
            3 => self.pair.run_for(Duration::from_secs(40)),
            _ => self.pair.run_for(Duration::from_millis(500)),
        }
        self.take_events();
    }

    fn owed(&self) -> Option<String> {
        let [client, server] = &self.apps;
        let words = client.owed(server).map(|words| format!("client {words}"));
        words.or_else(|| server.owed(client).map(|words| format!("server {words}")))
    }

    /// One sound path; everything promised is kept.
    fn heal(&mut self) {
        for link in &mut self.pair.links {
            for pipe in [&mut link.up, &mut link.down] {
                (pipe.stalled, pipe.corrupt) = (false, false);
            }
            (link.rate, link.piece) = (0, 0);
            link.delay = Duration::from_micros(200);
        }
        let deadline = self.pair.now + LIVENESS;
        let mut settled = 0;
        while !self.over() {
            // Nothing may be owed long before there is a connection: then the peer has not even begun.
            if self.owed().is_none() && self.pair.client.state() == State::Connected {
                settled += 1;
                if settled > SETTLED_TURNS && !self.apps.iter().any(|app| app.draining) {
                    break;
                }
            }
            assert!(
                self.pair.now < deadline,
                "{}\n{:?}\n{:?}",
                self.owed()
                    .unwrap_or("the drained session does not close".to_owned()),
                self.pair.client,
                self.pair.server
            );
            if self.pair.live_links().is_empty() {
                self.sound_path();
            }
            self.turn();
        }
        if !self.over() {
            self.apps.iter().for_each(App::check_kept);
            self.check_leaks();
        }
    }

    fn sound_path(&mut self) {
        let info = PathInfo::new("mem://sound", "mem", Security::Plain);
        if let Ok(link) = self.pair.connect(info) {
            self.pair.links[link].delay = Duration::from_micros(200);
        }
    }

    fn turn(&mut self) {
        self.pair.run_for(Duration::from_millis(2));
        self.take_events();
        let now = self.pair.now;
        self.apps[0].work(&mut self.pair.client, now);
        if let Some(server) = &mut self.pair.server {
            self.apps[1].work(server, now);
        }
    }

    /// All streams are settled and let go: none is left but the channels of ordered messages. And nothing goes
    /// wrong while nothing is wrong.
    fn check_leaks(&mut self) {
        self.pair.run_for(Duration::from_millis(1500));
        self.take_events();
        for place in 0..2 {
            let sessions = [Some(&self.pair.client), self.pair.server.as_ref()];
            let Some(session) = sessions[place] else { continue };
            let left = session.stream_count();
            let most = self.apps[place].channels(&self.apps[1 - place]);
            assert!(left <= most, "{left} streams are left, not {most}: {session:?}");
        }
        if self.pair.live_links().is_empty() || self.over() {
            return;
        }
        self.apps.iter_mut().for_each(|app| app.calm = true);
        self.pair.run_for(Duration::from_millis(1500));
        self.take_events();
        self.apps.iter_mut().for_each(|app| app.calm = false);
    }

    /// The session ends, by the client unless it did before, and both ends know why.
    fn close(&mut self) {
        if self.pair.void {
            return;
        }
        if !self.over() {
            if self.pair.client.state() != State::Connected || self.pair.server.is_none() {
                self.sound_path();
                self.turn();
            }
            let now = self.pair.now;
            let code = ErrorCode::application(1).expect("small");
            self.pair.client.close(now, code, "done");
            self.closed.push((code, "done"));
        }
        // The other end hears of it, or asks for a path and is told, or waits in vain.
        for _ in 0..3 {
            self.turn();
            self.pair.run_for(Duration::from_millis(50));
            if self.apps[0].cause.is_none() {
                self.sound_path();
            }
        }
        self.turn();
        if self.pair.void {
            return;
        }
        if self.apps[1].cause.is_none() && self.pair.server.is_some() {
            self.pair.run_for(Duration::from_secs(400));
            self.turn();
        }
        self.check_closed();
    }

    fn check_closed(&mut self) {
        let sessions = [Some(&self.pair.client), self.pair.server.as_ref()];
        for (session, app) in sessions.into_iter().flatten().zip(&self.apps) {
            if app.cause.is_none() && session.id().is_none() {
                // It never had a session that could end.
                continue;
            }
            let cause = app.cause.as_ref();
            let cause = cause.unwrap_or_else(|| panic!("{session:?} does not know of the end"));
            self.check_cause(cause);
            assert_eq!(session.poll_timeout(), None, "no timer is left");
            assert_eq!(session.stats().paths, 0, "no path is left");
            let left = session.stream_count();
            assert!(left <= 2 * Class::COUNT, "{left} streams are left");
        }
        let [client, server] = &self.apps;
        if client.cause.is_some() && server.cause.is_some() {
            client.check_ended(server);
            server.check_ended(client);
        }
    }

    fn check_cause(&self, cause: &Cause) {
        match cause {
            Cause::LocalClose { code, reason } | Cause::PeerClose { code, reason } => {
                let said = self.closed.contains(&(*code, reason.as_str()));
                let drained = *code == ErrorCode::DRAINED && self.apps.iter().any(|app| app.draining);
                // Whose handshake or resume timed out says so, if anybody still listens.
                let late = *code == ErrorCode::TIMEOUT;
                assert!(drained || late || said, "{cause:?} instead of {:?}", self.closed);
            }
            Cause::PeerMisbehaved { .. } => panic!("{cause:?}"),
            _ => {}
        }
    }
}

/// What must hold of a session at every moment.
///
/// # Panics
/// It does not.
pub fn check(session: &Session) {
    session
        .audit()
        .and_then(|()| session.audit_in_flight())
        .unwrap_or_else(|violation| panic!("{:?}: {violation}", session.side()));
}

/// Names a stream for a hostile peer: one of a few that may be there.
pub fn stream_id(input: &mut Input<'_>) -> StreamId {
    use sheetbend_core::wire::Side;
    let initiator = input.pick(&[Side::Client, Side::Server]);
    let kind = input.pick(&[Kind::Bi, Kind::Uni, Kind::Ordered, Kind::Unordered]);
    let class = Class::new(input.byte() % 8).expect("small");
    let index = match (kind, input.byte()) {
        (Kind::Ordered, 0..=250) => 0,
        (_, small @ 0..=200) => u64::from(small % 4),
        (_, 201..=230) => u64::from(input.u16()),
        (_, _) => input.u64() % StreamId::MAX_INDEX,
    };
    StreamId::new(initiator, kind, class, index).unwrap_or(StreamId::ordered(initiator, class))
}
