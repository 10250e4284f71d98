//! A session that loses its better path for a while, and what is kept of the run: a timeline as text, and in a
//! directory that is named on the command line also as JSON Lines, as a picture and as a capture file.
//!
//! `cargo run -p sheetbend-sim --example trace -- DIRECTORY`
#![allow(clippy::print_stdout)]

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::time::Duration;

use sheetbend_runtime::{Client, Config, ErrorCode, PathMode, Server};
use sheetbend_sim::trace::{write_jsonl, write_pcapng, write_svg, write_text};
use sheetbend_sim::{Fault, Host, LinkConfig, World};

async fn serve(host: Host) {
    let server = Server::builder()
        .listen("tcp://server:4433")
        .expect("a good address");
    let server = server.bind(host.runtime()).await.expect("the port is free");
    while let Some(session) = server.accept().await {
        let peer = session.clone();
        session.spawn(async move {
            while let Ok(request) = peer.accept_request().await {
                let body = request.payload().clone();
                request.respond(body);
            }
        });
    }
}

/// Requests of many sizes for twelve seconds, with a few datagrams beside them.
async fn work(host: Host) {
    let config = Config {
        mode: PathMode::Standby,
        ..Config::default()
    };
    let client = Client::builder().config(config);
    let client = client.endpoint("tcp://server.wifi:4433").expect("a good address");
    let client = client.endpoint("tcp://server.lte:4433").expect("a good address");
    let session = client.connect(host.runtime()).await.expect("the server is there");
    host.note("connected");
    let beacon = host.bind_udp(40000).expect("the port is free");
    for round in 0..300_usize {
        let body = vec![b'x'; 500 + (round % 40) * 1000];
        session.request("echo", body).await.expect("the session lives");
        if round % 50 == 0 {
            let to = "10.0.0.1:40000".parse().expect("an address");
            // The network may be gone just then.
            let _ = beacon.send_to(b"here", to);
        }
        host.sleep(Duration::from_millis(25)).await;
    }
    session.close(ErrorCode::NONE, "done").await;
}

fn world() -> World {
    let mut world = World::new(7);
    world.keep_packets();
    let wifi = LinkConfig::with_delay(Duration::from_millis(4)).rate(30_000_000, 96 << 10);
    let lte = LinkConfig::with_delay(Duration::from_millis(25)).rate(12_000_000, 96 << 10);
    world.network("wifi", wifi.jitter(Duration::from_millis(1)));
    world.network("lte", lte.loss(0.003));
    world.boot("server", &["wifi", "lte"], serve);
    world
}

fn both_ways(network: &str, cut: bool) -> [Fault; 2] {
    [("client", "server"), ("server", "client")].map(|(from, to)| Fault::Partition {
        from: from.into(),
        to: to.into(),
        network: network.into(),
        cut,
    })
}

fn main() -> io::Result<()> {
    let mut world = world();
    let client = world.host("client", &["wifi", "lte"]);
    for (at, cut) in [(4, true), (8, false)] {
        for fault in both_ways("wifi", cut) {
            world.fault_at(Duration::from_secs(at), fault);
        }
    }
    let reset = Fault::Reset {
        host: "client".into(),
        network: "lte".into(),
    };
    world.fault_at(Duration::from_millis(6500), reset);
    let outcome = world.block_on(&client, work(client.clone()));
    outcome.map_err(io::Error::other)?;
    write_text(&world, io::stdout().lock())?;
    let Some(directory) = std::env::args_os().nth(1) else {
        return Ok(());
    };
    let create = |name: &str| File::create(Path::new(&directory).join(name)).map(BufWriter::new);
    write_jsonl(&world, create("trace.jsonl")?)?;
    write_text(&world, create("trace.txt")?)?;

    write_svg(&world, create("trace.svg")?)?;
    write_pcapng(&world, create("trace.pcapng")?)
}
