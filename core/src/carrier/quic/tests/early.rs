//! What goes in the first flight. PROTOCOL 14.8.

use super::*;

fn known_place(tls: &ClientTls, settings: &QuicSettings) -> ClientQuic {
    ClientQuic::early(tls, settings, SERVER).unwrap()
}

fn pinning() -> ClientTls {
    let pins = server_tls().pin().into_iter().collect();
    ClientTls::new(&Trust::Pins(pins)).unwrap()
}

impl World {
    /// The client has made a connection, and has got the ticket that comes behind the handshake.
    fn acquainted(tls: &ClientTls, server: QuicSettings) -> World {
        let client = known_place(tls, &QuicSettings::default());
        let mut world = World::new(&client, server);
        assert!(!world.near.is_early(), "nothing is known of it");
        world.connect_and_wait();
        world
    }

    /// Connects, and has what comes behind the handshake.
    fn connect_and_wait(&mut self) {
        self.connect();
        for _ in 0..20 {
            self.step();
        }
    }

    /// Both ends of the connection are gone, and another is begun.
    fn again(&mut self, client: &ClientQuic) {
        self.client.forget(self.near.handle());
        if let Some(far) = self.far.take() {
            self.server.forget(far.handle());
        }
        self.flying.clear();
        self.sent.clear();
        self.connected = 0;
        let connected = self.client.connect(self.now, client, SERVER, "server");
        self.near = connected.unwrap();
    }

    /// The server begins anew, and knows nothing.
    fn restart(&mut self, settings: QuicSettings) {
        self.server = endpoint(7, Some(settings));
        self.far = None;
    }
}

fn first_flight(world: &mut World, data: &[u8]) -> StreamId {
    assert!(world.near.is_early(), "there is a ticket");
    let id = world.open();
    assert_eq!(world.near.write_slice(id, data), Ok(data.len()));
    id
}

#[test]
fn a_known_server_is_told_in_the_first_flight_and_answers_it_after_one_round_trip() {
    let tls = pinning();
    let mut world = World::acquainted(&tls, QuicSettings::default());
    world.again(&known_place(&tls, &QuicSettings::default()));
    let begun = world.now;
    let id = first_flight(&mut world, b"early");
    world.run_until(|world| {
        let far = world.far.as_mut();
        far.is_some_and(|far| far.accept(Dir::Bi).is_some())
    });
    // The client has received nothing so far.
    assert_eq!(world.now, begun + DELAY);
    assert_eq!(world.connected, 0);
    let far = world.far.as_mut().unwrap();
    assert!(far.is_early() && far.is_handshaking());
    assert_eq!(far.exporter(), None, "nothing can be bound to it yet");
    assert_eq!(received(far, id).0, b"early");
    far.write_slice(id, b"answer").unwrap();
    let mut came = Vec::new();
    world.run_until(|world| {
        came.extend(received(&mut world.near, id).0);
        came == b"answer"
    });
    assert_eq!(world.now, begun + DELAY * 2);
    assert!(world.near.is_early_taken());
    world.connect();
    let far = world.far.as_ref().unwrap();
    assert!(far.exporter().is_some());
    assert_eq!(far.exporter(), world.near.exporter());
    assert!(world.lost.is_empty());
}

#[test]
fn a_client_that_has_to_prove_its_address_sends_its_first_flight_again() {
    let wary = QuicSettings {
        retry_above: 0,
        ..QuicSettings::default()
    };
    let tls = pinning();
    let mut world = World::acquainted(&tls, wary);
    world.again(&known_place(&tls, &QuicSettings::default()));
    let begun = world.now;
    let id = first_flight(&mut world, b"early");
    world.run_until(|world| {
        let far = world.far.as_mut();
        far.is_some_and(|far| far.accept(Dir::Bi).is_some())
    });
    assert_eq!(world.now, begun + DELAY * 3, "a round trip for the proof");
    assert_eq!(received(world.far.as_mut().unwrap(), id).0, b"early");
    world.connect();
    assert!(world.near.is_early_taken());
}

#[test]
fn what_a_server_does_not_take_goes_again_on_streams_that_are_opened_anew() {
    let off = QuicSettings {
        zero_rtt: false,
        ..QuicSettings::default()
    };
    for settings in [QuicSettings::default(), off] {
        let tls = pinning();
        let mut world = World::acquainted(&tls, QuicSettings::default());
        world.restart(settings);
        world.again(&known_place(&tls, &QuicSettings::default()));
        let id = first_flight(&mut world, b"early");
        let lane = world.near.open(Dir::Uni).unwrap();
        world.run_until(|world| world.connected == 2);
        assert!(!world.near.is_early_taken());
        assert!(world.near.write_slice(id, b"gone").is_err());
        assert_eq!(world.far.as_mut().unwrap().accept(Dir::Bi), None);
        assert_eq!(world.open(), id);
        assert_eq!(world.near.open(Dir::Uni), Some(lane));
        assert_eq!(world.near.write_slice(id, b"once"), Ok(4));
        let mut came = Vec::new();
        world.run_until(|world| {
            let far = world.far.as_mut().unwrap();
            let _ = far.accept(Dir::Bi);
            came.extend(received(far, id).0);
            came.len() >= 4
        });
        assert_eq!(came, b"once");
        assert!(world.lost.is_empty());
    }
}

#[test]
fn a_copy_of_a_first_flight_means_nothing() {
    let tls = pinning();
    let mut world = World::acquainted(&tls, QuicSettings::default());
    world.again(&known_place(&tls, &QuicSettings::default()));
    first_flight(&mut world, b"pay");
    world.connect();
    let flight: Vec<Flying> = world
        .sent
        .iter()
        .take_while(|flying| flying.to == SERVER)
        .cloned()
        .collect();
    // To the server that took it, to one that has begun anew, and to another.
    for round in 0..3 {
        let used = world.far.take().map(|far| far.handle());
        used.into_iter().for_each(|handle| world.server.forget(handle));
        if round > 0 {
            world.restart(QuicSettings::default());
        }
        for copy in &flight {
            let _ = world.give_server(CLIENT, &copy.data);
        }
        let far = world.far.as_mut().expect("it looks like a new connection");
        assert!(!far.is_early());
        assert_eq!(far.accept(Dir::Bi), None, "round {round}");
    }
}

#[test]
fn nothing_goes_early_where_an_end_does_not_want_it() {
    let off = QuicSettings {
        zero_rtt: false,
        ..QuicSettings::default()
    };
    let none = QuicSettings {
        max_tickets: 0,
        ..QuicSettings::default()
    };
    for server in [off.clone(), none] {
        let tls = pinning();
        let mut world = World::acquainted(&tls, server);
        assert_eq!(tls.tickets.len(), 0);
        world.again(&known_place(&tls, &QuicSettings::default()));
        assert!(!world.near.is_early());
    }
    let tls = pinning();
    let mut world = World::acquainted(&tls, QuicSettings::default());
    assert_eq!(tls.tickets.len(), 1);
    world.again(&known_place(&tls, &off));
    assert!(!world.near.is_early());
    world.again(&ClientQuic::new(&tls, &QuicSettings::default()).unwrap());
    assert!(!world.near.is_early());
    // HTTP/3 has no tickets, and none of other protocols.
    #[cfg(feature = "webtransport")]
    {
        world.again(&ClientQuic::http3(&tls, &QuicSettings::default()).unwrap());
        assert!(!world.near.is_early());
        assert_eq!(tls.tickets.len(), 1);
    }
    // Of another place nothing is known.
    world.again(&ClientQuic::early(&tls, &QuicSettings::default(), ELSEWHERE).unwrap());
    assert!(!world.near.is_early());
    world.again(&known_place(&tls, &QuicSettings::default()));
    assert!(world.near.is_early());
    // It is used up.
    world.again(&known_place(&tls, &QuicSettings::default()));
    assert!(!world.near.is_early());
}

#[test]
fn a_ticket_counts_only_where_it_was_given_to() {
    let tls = pinning();
    let mut world = World::acquainted(&tls, QuicSettings::default());
    world.again(&known_place(&tls, &QuicSettings::default()));
    let id = first_flight(&mut world, b"early");
    let home = std::mem::replace(&mut world.client_at, ELSEWHERE);
    world.run_until(|world| world.connected == 2);
    assert!(!world.near.is_early_taken());
    assert_eq!(world.far.as_mut().unwrap().accept(Dir::Bi), None);
    assert!(world.near.write_slice(id, b"gone").is_err());
    // Another port is no other place. The ticket is that of the connection from elsewhere, which came there.
    for _ in 0..20 {
        world.step();
    }
    world.again(&known_place(&tls, &QuicSettings::default()));
    first_flight(&mut world, b"early");
    world.client_at.set_port(home.port() + 1);
    world.run_until(|world| world.connected == 2);
    assert!(world.near.is_early_taken());
}

#[test]
fn a_server_forgets_the_oldest_tickets() {
    let few = QuicSettings {
        max_tickets: 2,
        ..QuicSettings::default()
    };
    let first = pinning();
    let mut world = World::acquainted(&first, few);
    let others = [pinning(), pinning()];
    for tls in &others {
        world.again(&known_place(tls, &QuicSettings::default()));
        world.connect_and_wait();
    }
    for (tls, known) in [(&others[0], true), (&others[1], true), (&first, false)] {
        world.again(&known_place(tls, &QuicSettings::default()));
        first_flight(&mut world, b"early");
        world.connect();
        assert_eq!(world.near.is_early_taken(), known);
    }
}

#[test]
fn a_client_keeps_few_tickets() {
    let tls = pinning();
    let settings = QuicSettings::default();
    let mut world = World::acquainted(&tls, settings.clone());
    for number in 0..80_u16 {
        let place = SocketAddr::new(SERVER.ip(), 1000 + number);
        // As often at one place as a client ever may at once.
        let place = if number < 10 { SERVER } else { place };
        world.again(&ClientQuic::early(&tls, &settings, place).unwrap());
        // What was kept of the place is not used up by a connection that comes from elsewhere.
        world.connect_and_wait();
        assert!(tls.tickets.len() <= 64);
    }
    assert_eq!(tls.tickets.len(), 64);
    let ahead = ClientQuic::early(&tls, &settings, SocketAddr::new(SERVER.ip(), 1079)).unwrap();
    world.again(&ahead);
    assert!(world.near.is_early(), "the newest are kept");
}

#[test]
fn the_same_seeds_give_the_same_first_flights() {
    let run = || {
        let tls = pinning();
        let mut world = World::acquainted(&tls, QuicSettings::default());
        world.again(&known_place(&tls, &QuicSettings::default()));
        first_flight(&mut world, &[7; 3000]);
        for _ in 0..50 {
            world.step();
        }
        world.all_sent()
    };
    assert!(run() == run());
}
