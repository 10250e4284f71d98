//! Sessions of the shipped handles in a simulated world.

use std::time::Duration;

use sheetbend_runtime::{Client, ErrorCode, Server};
use sheetbend_sim::{Fault, Host, LinkConfig, World};

async fn serve(host: Host) {
    let server = Server::builder()
        .listen("tcp://server:4433")
        .expect("a good address")
        .bind(host.runtime())
        .await
        .expect("the port is free");
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

fn world(seed: u64) -> (World, Host) {
    let mut world = World::new(seed);
    world.network("wifi", LinkConfig::with_delay(Duration::from_millis(5)));
    world.network("lte", LinkConfig::with_delay(Duration::from_millis(20)));
    world.boot("server", &["wifi", "lte"], serve);
    let client = world.host("client", &["wifi", "lte"]);
    (world, client)
}

fn run(seed: u64) -> u64 {
    let (mut world, client) = world(seed);
    let runtime = client.runtime();
    for (at, cut) in [(3, true), (9, false)] {
        for (from, to) in [("client", "server"), ("server", "client")] {
            world.fault_at(
                Duration::from_secs(at),
                Fault::Partition {
                    from: from.into(),
                    to: to.into(),
                    network: "wifi".into(),
                    cut,
                },
            );
        }
    }
    let host = client.clone();
    let answered = world
        .block_on(&client, async move {
            let session = Client::builder()
                .endpoint("tcp://server.wifi:4433")
                .expect("a good address")
                .endpoint("tcp://server.lte:4433")
                .expect("a good address")
                .connect(runtime)
                .await
                .expect("the server answers");
            let mut answered = 0;
            for number in 0..1000_u32 {
                let body = number.to_be_bytes().to_vec();
                let answer = session.request("echo", body.clone()).await.expect("an answer");
                assert_eq!(answer, body);
                answered += 1;
                host.sleep(Duration::from_millis(10)).await;
            }
            session.close(ErrorCode::NONE, "done").await;
            answered
        })
        .expect("nothing goes wrong");
    assert_eq!(answered, 1000);
    world.totals().trace_hash
}

#[test]
fn a_session_outlives_the_partition_of_one_network() {
    assert_eq!(run(1), run(1), "one seed, one run");
    assert_ne!(run(1), run(2));
}
