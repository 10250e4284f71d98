//! What a client has learnt of its endpoints, beyond its process and beyond a network.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sheetbend_runtime::{Client, Server};
use sheetbend_sim::{Fault, Host, LinkConfig, RelayConfig, World};

const PORT: u16 = 4433;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

async fn serve(host: Host) {
    let server = Server::builder()
        .listen(format!("tcp://server:{PORT}"))
        .expect("a good address")
        .bind(host.runtime())
        .await
        .expect("the port is free");
    let mut sessions = Vec::new();
    while let Some(session) = server.accept().await {
        sessions.push(session);
    }
}

/// How long each process took until it had a session.
type Taken = Arc<Mutex<Vec<Duration>>>;

/// A world in which the preferred endpoint opens and stays mute, with a client that remembers in a file, or does not.
fn world(remembers: bool) -> (World, Taken) {
    let mut world = World::new(7);
    world.network("lan", LinkConfig::with_delay(ms(20)));
    world.boot("server", &["lan"], serve);
    let mute = RelayConfig {
        mute_after: Some(200),
        ..RelayConfig::default()
    };
    world.relay("proxy", &["lan"], PORT, ("server", PORT), mute);
    let taken = Taken::default();
    let told = taken.clone();
    world.boot("client", &["lan"], move |host| {
        let told = told.clone();
        async move {
            let began = host.world_now();
            let mut builder = Client::builder().keep_trying(true);
            for endpoint in ["ws://proxy:4433", "tcp://server:4433"] {
                builder = builder.endpoint(endpoint).expect("a good address");
            }
            if remembers {
                builder = builder.remember("/paths");
            }
            let client = builder.build(host.runtime()).expect("it has endpoints");
            let session = client.connect().await.expect("it goes on trying");
            told.lock().push(host.world_now().since(began));
            session.closed().await;
        }
    });
    (world, taken)
}

fn crash_and_restart(world: &mut World) {
    let host = || "client".to_owned();
    world.apply(&Fault::Crash { host: host() });
    world.run_for(ms(100)).expect("nothing is wrong");
    world.apply(&Fault::Restart { host: host() });
    world.run_for(ms(10_000)).expect("nothing is wrong");
}

#[test]
fn the_next_process_begins_with_what_worked() {
    for remembers in [true, false] {
        let (mut world, taken) = world(remembers);
        world.run_for(ms(10_000)).expect("nothing is wrong");
        crash_and_restart(&mut world);
        let taken = taken.lock().clone();
        assert_eq!(taken.len(), 2);
        // The stagger, then TCP and HELLO.
        assert!(taken[0] >= ms(180), "{taken:?}");
        assert_eq!(taken[1] <= ms(85), remembers, "{taken:?}");
    }
}

/// Whoever may write the file can make nothing worse than a bad guess.
#[test]
fn a_file_that_is_not_ours_is_as_good_as_none() {
    let (mut world, taken) = world(true);
    let client = world.find("client").expect("it is there");
    let host = world.handle(client);
    let files = host.runtime().files();
    let written = world.spawn(&host, async move {
        files
            .create("/paths".into(), vec![0xff; 5000].into())
            .await
            .is_ok()
    });
    world.run_for(ms(10_000)).expect("nothing is wrong");
    assert!(written.is_done());
    assert_eq!(taken.lock().len(), 1);
}
