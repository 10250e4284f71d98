//! What a peer may send on the streams of HTTP/3, in any order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bolero::check;
use bytes::Bytes;
use sheetbend_core::carrier::http::Guard;
use sheetbend_core::carrier::quic::{Dir, QuicStreamId as StreamId, Side};
use sheetbend_core::carrier::webtransport::{
    ClientHandshake, Event, Http3Error, Output, ServerHandshake, WebTransport, from_http3, to_http3,
};
use sheetbend_core::time::Timestamp;
use sheetbend_fuzz::input::Input;

fn client() -> WebTransport {
    WebTransport::client(ClientHandshake {
        authority: "localhost".to_owned(),
        target: "/".to_owned(),
        origin: None,
    })
}

fn server() -> WebTransport {
    WebTransport::server(ServerHandshake {
        guard: Arc::new(Guard::default()),
        path: "/".into(),
    })
}

/// What an honest end says first: its control stream, and a request or the answer to one.
fn honest(side: Side) -> Vec<Bytes> {
    let (mut end, mut peer) = match side {
        Side::Client => (client(), server()),
        Side::Server => (server(), client()),
    };
    let (mut said, mut opened) = (Vec::new(), [[0; 2]; 2]);
    for turn in 0..16 {
        let (from, to, of) = match turn % 2 {
            0 => (&mut end, &mut peer, side),
            _ => (&mut peer, &mut end, !side),
        };
        while let Some(output) = from.poll_output() {
            match output {
                Output::Open(dir) => {
                    let index = &mut opened[turn % 2][dir as usize];
                    let id = StreamId::new(of, dir, *index);
                    *index += 1;
                    let both = from.handle_opened(id).and_then(|()| to.handle_opened(id));
                    assert_eq!(both, Ok(()));
                }
                Output::Send { id, bytes, .. } => {
                    assert_eq!(to.handle_stream(Timestamp::ZERO, id, bytes.clone()), Ok(()));
                    if of == side {
                        said.push(bytes);
                    }
                }
                Output::Reset { .. } | Output::Stop { .. } => {}
            }
        }
    }
    assert!(end.is_open() && peer.is_open() && said.len() == 2);
    said
}

/// A machine under a peer that a fuzzer plays.
struct Under {
    machine: WebTransport,
    peer: Side,
    next: [u64; 2],
    /// The peer's streams, and whether the machine reads them.
    streams: BTreeMap<StreamId, bool>,
    now: Timestamp,
    failed: Option<Http3Error>,
    is_open: bool,
}

impl Under {
    fn open(&mut self, dir: Dir) -> Result<StreamId, Http3Error> {
        let index = &mut self.next[dir as usize];
        let id = StreamId::new(self.peer, dir, *index);
        *index += 1;
        self.machine.handle_opened(id)?;
        self.streams.insert(id, true);
        Ok(id)
    }

    fn pick(&self, input: &mut Input<'_>) -> StreamId {
        let id = StreamId::new(
            input.pick(&[Side::Client, Side::Server]),
            input.pick(&[Dir::Bi, Dir::Uni]),
            u64::from(input.byte() % 8),
        );
        self.streams
            .keys()
            .copied()
            .nth(input.below(self.streams.len() + 1))
            .unwrap_or(id)
    }

    fn act(&mut self, input: &mut Input<'_>, honest: &[Bytes]) -> Result<(), Http3Error> {
        match input.byte() % 10 {
            0 => {
                let id = self.open(Dir::Uni)?;
                let kind = input.pick(&[0, 1, 2, 3, 0x21, 0x41, 0x54]);
                let head = if kind < 0x40 { vec![kind] } else { vec![0x40, kind] };
                self.machine.handle_stream(self.now, id, head.into())?;
            }
            1 => drop(self.open(Dir::Bi)?),
            2 => {
                let id = self.pick(input);
                let kind = input.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x0d, 0x21, 0x3f]);
                let len = usize::from(input.byte() % 64);
                let value = input.take(len);
                let frame = [&[kind, value.len() as u8][..], value].concat();
                self.machine.handle_stream(self.now, id, frame.into())?;
            }
            3 => {
                let id = self.pick(input);
                let len = usize::from(input.byte());
                let bytes = input.take(len);
                self.machine
                    .handle_stream(self.now, id, Bytes::copy_from_slice(bytes))?;
            }
            4 => self.machine.handle_fin(self.now, self.pick(input))?,
            5 => {
                let code = input.u64() >> 2;
                assert!(from_http3(code).is_none_or(|known| to_http3(known) == code));
                self.machine.handle_reset(self.now, self.pick(input), code)?;
            }
            6 => {
                let (id, code) = (self.pick(input), input.u64() >> 2);
                self.machine.handle_stopped(id, code)?;
            }
            7 => {
                let len = usize::from(input.byte() % 16);
                let datagram = input.take(len);
                let taken = self.machine.handle_datagram(Bytes::copy_from_slice(datagram))?;
                assert!(taken.is_none() || self.machine.is_open());
            }
            8 => {
                if let Some(bytes) = honest.get(input.below(honest.len())) {
                    let dir = input.pick(&[Dir::Bi, Dir::Uni]);
                    let id = if input.flag() {
                        self.open(dir)?
                    } else {
                        self.pick(input)
                    };
                    self.machine.handle_stream(self.now, id, bytes.clone())?;
                }
            }
            _ => {
                self.now += Duration::from_millis(u64::from(input.byte()));
                if input.byte() == 0 {
                    self.machine.close(7, "enough");
                }
            }
        }
        Ok(())
    }

    /// What the machine wants is within reason.
    fn check(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Established { .. } => {
                    assert!(!self.is_open, "one session");
                    self.is_open = true;
                }
                Event::Stream { id, .. } => {
                    assert!(self.is_open && self.streams.contains_key(&id) && !self.machine.reads(id));
                }
                Event::Ended(close) => assert!(self.is_open && close.reason.len() <= 1024),
                Event::Refused(_) => {}
            }
        }
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Open(dir) => {
                    let ours = StreamId::new(!self.peer, dir, 0);
                    if self.machine.handle_opened(ours).is_ok() && dir == Dir::Bi {
                        self.streams.insert(ours, true);
                    }
                }
                Output::Send { id, bytes, .. } => {
                    assert!(id.initiator() == Side::Client || !bytes.is_empty())
                }
                Output::Reset { id, .. } => assert_eq!(id.dir(), Dir::Bi),
                Output::Stop { id, .. } => assert!(!self.machine.reads(id)),
            }
        }
        if let Some(error) = self.failed {
            assert_eq!(
                self.machine
                    .handle_fin(self.now, StreamId::new(self.peer, Dir::Bi, 0)),
                Err(error)
            );
            assert!(!self.machine.is_open() && error.code >= 0x33);
        }
    }
}

/// Nothing that comes makes a panic; an error stays; there is one session at most, and streams are handed over
/// only while it stands.
#[test]
fn streams() {
    let client_says = honest(Side::Client);
    let server_says = honest(Side::Server);
    check!().for_each(|bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let (machine, peer, honest) = match input.flag() {
            true => (client(), Side::Server, &server_says),
            false => (server(), Side::Client, &client_says),
        };
        let mut under = Under {
            machine,
            peer,
            next: [0; 2],
            streams: BTreeMap::new(),
            now: Timestamp::ZERO,
            failed: None,
            is_open: false,
        };
        while !input.is_empty() && under.failed.is_none() {
            under.failed = under.act(&mut input, honest).err();
            under.check();
        }
    });
}
