//! Places that a server names are hostile input (PROTOCOL 8.3).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sheetbend_runtime::{
    Cause, Client, ClientBuilder, ConnectError, RedirectRule, RegistryConfig, RejectCode, Server,
};
use sheetbend_sim::{Fault, Host, LinkConfig, RelayConfig, World};

const PORT: u16 = 4433;

type Count = Arc<AtomicUsize>;

/// A server that is drained as soon as a session came, and names `next`; from the beginning on, if `at_once`.
async fn drains(host: Host, name: &'static str, next: String, at_once: bool) {
    let server = Server::builder()
        .listen(format!("tcp://{name}:{PORT}"))
        .expect("a good address")
        .bind(host.runtime())
        .await
        .expect("the port is free");
    if !at_once {
        let session = server.accept().await.expect("it is not stopped");
        session.spawn({
            let peer = session.clone();
            async move {
                while let Ok(request) = peer.accept_request().await {
                    request.respond("here");
                }
            }
        });
        host.sleep(Duration::from_millis(100)).await;
    }
    server.drain(&next);
    while server.accept().await.is_some() {}
}

/// Counts who comes.
async fn victim(host: Host, port: u16, count: Count) {
    let listener = host.listen_tcp(port).expect("the port is free");
    while listener.accept().await.is_ok() {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn builder() -> ClientBuilder {
    Client::builder()
        .endpoint(format!("tcp://server:{PORT}"))
        .expect("a good address")
}

fn world() -> World {
    let mut world = World::new(7);
    world.network("lan", LinkConfig::with_delay(Duration::from_millis(2)));
    world
}

/// Has a server name `next` in GOAWAY and in REJECT(DRAINING); how many connections came to the victim's port.
fn sent_to(next: &str, rule: RedirectRule) -> usize {
    let mut world = world();
    let (count, seen) = (Count::default(), Count::default());
    let to = next.to_owned();
    world.boot("server", &["lan"], move |host| {
        drains(host, "server", to.clone(), false)
    });
    let told = count.clone();
    world.boot("victim", &["lan"], move |host| victim(host, 22, told.clone()));
    let client = world.host("client", &["lan"]);
    let (runtime, done) = (client.runtime(), seen.clone());
    world.spawn(&client, async move {
        let client = builder().redirects(rule).build(runtime).expect("an endpoint");
        let first = client.session().await.expect("it listens");
        assert_eq!(first.request("where", "").await.expect("it answers"), "here");
        first.closed().await;
        let refused = client.session().await;
        assert!(
            matches!(refused, Err(ConnectError::Unreachable(_))),
            "{refused:?}"
        );
        done.fetch_add(1, Ordering::Relaxed);
    });
    world
        .run_for(Duration::from_secs(60))
        .expect("nothing goes wrong");
    assert_eq!(seen.load(Ordering::Relaxed), 1, "the client has come to its end");
    count.load(Ordering::Relaxed)
}

/// By default no client is led to another host, another scheme, or nonsense.
#[test]
fn a_hostile_address_is_not_followed() {
    for next in [
        "tcp://victim:22",
        "tcp://VICTIM:22",
        "unix:///run/victim",
        "mem://victim",
        "victim:22",
        "tcp://victim:22/../../",
        "",
    ] {
        assert_eq!(sent_to(next, RedirectRule::default()), 0, "{next}");
    }
    assert_eq!(sent_to("tcp://victim:22", RedirectRule::Refuse), 0);
}

/// An application that grants it is led there.
#[test]
fn what_the_application_grants_is_followed() {
    let rule = RedirectRule::Ask(Arc::new(|wish| wish.to.to_string() == "tcp://victim:22"));
    assert!(sent_to("tcp://victim:22", rule) > 0);
}

/// Two servers that are being drained name each other: the client comes to its end.
#[test]
fn a_circle_of_servers_ends() {
    let mut world = world();
    for (name, next) in [("server", "other"), ("other", "server")] {
        let next = format!("tcp://{next}:{PORT}");
        world.boot(name, &["lan"], move |host| drains(host, name, next.clone(), true));
    }
    let client = world.host("client", &["lan"]);
    let runtime = client.runtime();
    let refused = world
        .block_on(&client, async move {
            let rule = RedirectRule::Ask(Arc::new(|_| true));
            builder().redirects(rule).connect(runtime).await
        })
        .expect("nothing goes wrong");
    assert!(
        matches!(refused, Err(ConnectError::Unreachable(_))),
        "{refused:?}"
    );
    assert!(world.now().as_nanos() < 2_000_000_000, "at {:?}", world.now());
}

/// A server names a new place every time: few of them are tried.
#[test]
fn few_places_are_tried() {
    let mut world = world();
    for (name, next) in (0..50).map(|number| (number, number + 1)) {
        let own: &'static str = if name == 0 {
            "server"
        } else {
            Box::leak(format!("place{name}").into_boxed_str())
        };
        let next = format!("tcp://place{next}:{PORT}");
        world.boot(own, &["lan"], move |host| drains(host, own, next.clone(), true));
    }
    let asked = Count::default();
    let client = world.host("client", &["lan"]);
    let (runtime, told) = (client.runtime(), asked.clone());
    let refused = world
        .block_on(&client, async move {
            let rule = RedirectRule::Ask(Arc::new(move |_| {
                told.fetch_add(1, Ordering::Relaxed);
                true
            }));
            builder().redirects(rule).connect(runtime).await
        })
        .expect("nothing goes wrong");
    let Err(ConnectError::Unreachable(places)) = refused else {
        panic!("{refused:?}");
    };
    assert!(places.len() <= 3, "{places:?}");
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked <= 8, "{asked} times");
}

/// A session is said to live at a place that is not followed: it is gone, and says where it was to go.
#[test]
fn a_refused_redirect_ends_the_session() {
    let mut world = world();
    for (name, owner) in [("origin", false), ("signpost", true)] {
        world.boot(name, &["lan"], move |host| async move {
            let registry = RegistryConfig {
                owner: owner.then(|| Arc::new(|_: &_, _: &_| Some("tcp://victim:22".to_owned())) as Arc<_>),
                ..RegistryConfig::default()
            };
            let server = Server::builder()
                .listen(format!("tcp://{name}:{PORT}"))
                .expect("a good address")
                .registry(registry)
                .bind(host.runtime())
                .await
                .expect("the port is free");
            let mut sessions = Vec::new();
            while let Some(session) = server.accept().await {
                sessions.push(session);
            }
        });
    }
    world.relay("server", &["lan"], PORT, ("origin", PORT), RelayConfig::default());
    let count = Count::default();
    let told = count.clone();
    world.boot("victim", &["lan"], move |host| victim(host, 22, told.clone()));
    let client = world.host("client", &["lan"]);
    let divert = RelayConfig {
        divert: Some(("signpost".to_owned(), PORT)),
        ..RelayConfig::default()
    };
    let (host, network) = ("client".to_owned(), "lan".to_owned());
    world.fault_at(
        Duration::from_secs(1),
        Fault::Relay {
            host: "server".to_owned(),
            config: divert,
        },
    );
    world.fault_at(Duration::from_secs(1), Fault::Reset { host, network });
    let runtime = client.runtime();
    let ended = world
        .block_on(&client, async move {
            let session = builder().connect(runtime).await.expect("it is there");
            session.closed().await
        })
        .expect("nothing goes wrong");
    let Cause::Rejected { code, detail } = ended.cause else {
        panic!("{ended:?}");
    };
    assert_eq!(code, RejectCode::REDIRECT);
    assert_eq!(detail, "tcp://victim:22 is not followed");
    assert_eq!(count.load(Ordering::Relaxed), 0);
}
