//! Traces: that keeping them changes nothing, and what is in them.

use std::time::Duration;

use sheetbend_core::marks::Mark;
use sheetbend_runtime::{Client, Config, ErrorCode, PathMode, Server};
use sheetbend_sim::trace::{self, PathPhase};
use sheetbend_sim::{Fault, Host, LinkConfig, What, World};

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

/// What is kept of a run.
#[derive(Clone, Copy, PartialEq)]
enum Keep {
    Nothing,
    Records,
    Packets,
}

/// A session over two networks of which the better one is cut for a while, and requests all along.
fn run(keep: Keep) -> World {
    let mut world = World::new(5);
    if keep == Keep::Packets {
        world.audit_sessions(); // it changes nothing either
    }
    match keep {
        Keep::Nothing => {}
        Keep::Records => world.keep_records(),
        Keep::Packets => world.keep_packets(),
    }
    let wifi = LinkConfig::with_delay(Duration::from_millis(5)).rate(20_000_000, 64 << 10);
    let lte = LinkConfig::with_delay(Duration::from_millis(20)).rate(8_000_000, 64 << 10);
    world.network("wifi", wifi);
    world.network("lte", lte.loss(0.002));
    world.boot("server", &["wifi", "lte"], serve);
    let client = world.host("client", &["wifi", "lte"]);
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
    let runtime = client.runtime();
    let task = async move {
        let config = Config {
            mode: PathMode::Standby,
            ..Config::default()
        };
        let client = Client::builder().config(config);
        let client = client.endpoint("tcp://server.wifi:4433").expect("a good address");
        let client = client.endpoint("tcp://server.lte:4433").expect("a good address");
        let session = client.connect(runtime).await.expect("the server is there");
        for round in 0..120_usize {
            let body = vec![7; 1000 + round % 10 * 8000];
            session.request("echo", body).await.expect("the session lives");
            host.sleep(Duration::from_millis(80)).await;
        }
        session.close(ErrorCode::NONE, "done").await;
    };
    world.block_on(&client, task).expect("all is well");
    world.note("client", "it is over");
    world
}

#[test]
fn keeping_a_trace_changes_nothing() {
    let plain = run(Keep::Nothing).totals();
    assert_eq!(plain, run(Keep::Records).totals());
    assert_eq!(plain, run(Keep::Packets).totals());
}

#[test]
fn sessions_are_seen() {
    let world = run(Keep::Records);
    let records = world.records();
    assert!(records.windows(2).all(|pair| pair[0].at <= pair[1].at));
    let switch = records.iter().find_map(|record| match &record.what {
        What::Switch {
            host,
            from: Some(0),
            to: 1,
            cause,
            gap: Some(gap),
            ..
        } if host == "client" => Some((record.at, cause.clone(), *gap)),
        _ => None,
    });
    let (at, cause, gap) = switch.expect("data moved from the first path to the second");
    assert!(
        at > 3_000_000_000 && at < 5_000_000_000,
        "soon after the cut: {at}"
    );
    assert_eq!(cause, "suspect");
    assert!(gap < 2_000_000_000, "{gap}");
    let suspect = records.iter().any(|record| {
        matches!(&record.what, What::Path { path: 0, phase: PathPhase::Suspect, host, .. } if host == "client")
    });
    assert!(suspect);
    let states: Vec<&str> = records
        .iter()
        .filter_map(|record| match &record.what {
            What::Session { host, state, .. } if host == "client" => Some(state.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(states, ["connecting", "connected", "closed"]);
}

#[test]
fn every_line_is_json() {
    for keep in [Keep::Records, Keep::Packets] {
        let mut out = Vec::new();
        trace::write_jsonl(&run(keep), &mut out).expect("memory takes it");
        let text = String::from_utf8(out).expect("JSON is text");
        let mut last = 0;
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).expect("each line is a value");
            assert!(value["what"].is_string(), "{line}");
            if let Some(at) = value["at"].as_u64() {
                assert!(at >= last, "in order of time");
                last = at;
            }
        }
        let kind = if keep == Keep::Packets {
            "packet"
        } else {
            "traffic"
        };
        assert!(text.contains(&format!("\"what\":\"{kind}\"")));
    }
}

#[test]
fn a_picture_shows_paths_faults_and_switches() {
    let draw = || {
        let mut out = Vec::new();
        trace::write_svg(&run(Keep::Records), &mut out).expect("memory takes it");
        String::from_utf8(out).expect("SVG is text")
    };
    let picture = draw();
    assert_eq!(picture, draw(), "the same run, the same picture");
    for part in [
        "wifi: client ⇄ server cut",
        "class=\"active\"",
        "class=\"suspect\"",
        "class=\"standby\"",
        ">suspect, ",
        "client → server",
        "simulated time, s",
        "it is over",
    ] {
        assert!(picture.contains(part), "{part}");
    }
    assert!(!picture.contains("NaN") && !picture.contains("inf"));
    let opened = ["<text", "<path", "<svg", "<title>"];
    let closed = ["</text>", "Z\"/>", "</svg>", "</title>"];
    for (open, close) in opened.iter().zip(closed) {
        assert_eq!(
            picture.matches(open).count(),
            picture.matches(close).count(),
            "{open}"
        );
    }
}

#[test]
fn a_timeline_reads_well() {
    let mut out = Vec::new();
    let world = run(Keep::Packets);
    trace::write_text(&world, &mut out).expect("memory takes it");
    let text = String::from_utf8(out).expect("it is text");
    assert!(text.contains("FAULT begins: wifi: client to server cut"));
    assert!(text.contains("session 1 moves from path 0 to path 1: suspect; nothing came for "));
    assert!(text.contains("“it is over”"));
    assert!(text.lines().count() < 200, "{}", text.lines().count());
    let mut out = Vec::new();
    trace::write_text_with_packets(&world, &mut out).expect("memory takes it");
    let all = String::from_utf8(out).expect("it is text");
    assert!(all.contains("tcp syn ack seq 0 ack 1, 0 bytes, takes "));
    assert!(all.contains("dropped: cut off"));
}

#[test]
fn rare_branches_are_told() {
    let marks = run(Keep::Packets).marks();
    for mark in [Mark::PathSuspected, Mark::SwitchedFromSuspect, Mark::PongReceived] {
        assert!(marks.has(mark), "{} in {marks:?}", mark.name());
    }
    assert!(!marks.has(Mark::PeerMisbehaved));
    assert_eq!(run(Keep::Nothing).marks().iter().count(), 0);
}
