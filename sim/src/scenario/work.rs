//! The client's side of the scenarios' work.

use std::sync::Arc;

use parking_lot::Mutex;
use sheetbend_core::time::Timestamp;
use sheetbend_runtime::{Class, Client, Delivery, Session, State};

use super::service::{matches, pattern};
use super::stage::{Plan, Report};
use crate::host::Host;

/// Tasks that have to end: requests, messages, the stream.
pub(super) const TASKS: u32 = 3;
/// Bytes of a request.
const REQUEST: usize = 300;

type Told = Arc<Mutex<Report>>;

/// The body of a request or message.
pub(super) fn body(number: u64, len: usize) -> Vec<u8> {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(len.max(8), number as u8);
    body
}

/// A client of these endpoints.
pub(super) fn client(host: &Host, plan: &Plan) -> Client {
    let mut builder = Client::builder()
        .config(plan.client.clone())
        .redirects(plan.redirects.clone())
        .proxies(plan.proxies.clone())
        .keep_trying(true);
    for endpoint in &plan.endpoints {
        builder = builder.endpoint(endpoint).expect("a good address");
    }
    builder.build(host.runtime()).expect("it has endpoints")
}

/// Makes the session and sets its tasks going.
pub(super) async fn start(host: Host, plan: Plan, report: Told) {
    let client = client(&host, &plan);
    let session = client.start_connecting();
    let (own, changes) = (host.clone(), plan.changes.clone());
    host.spawn(async move {
        for (at, network) in changes {
            let elapsed = own.world_now().since(Timestamp::ZERO);
            own.sleep(at.saturating_sub(elapsed)).await;
            client.network_changed(network);
        }
    });
    let mut events = session.events();
    report.lock().session = Some(session.clone());
    // From the first event on: the first path is among them.
    while session.state() != State::Connected {
        match events.next().await {
            Some(event) => report.lock().events.push((host.world_now(), event)),
            None => return report.lock().wrong.push("no session".into()),
        }
    }
    report.lock().established = Some(host.world_now());
    host.spawn(requests(
        host.clone(),
        session.clone(),
        plan.clone(),
        report.clone(),
    ));
    host.spawn(send(host.clone(), session.clone(), plan.clone(), report.clone()));
    host.spawn(receive(session.clone(), plan.clone(), report.clone()));
    host.spawn(stream(host.clone(), session, plan, report.clone()));
    while let Some(event) = events.next().await {
        report.lock().events.push((host.world_now(), event));
    }
}

async fn pause(host: &Host, plan: &Plan, round: u64) {
    let rest = plan.rest.filter(|(before, _)| *before == round + 1);
    host.sleep(rest.map_or(plan.every, |(_, time)| time)).await;
}

async fn requests(host: Host, session: Session, plan: Plan, report: Told) {
    for number in 0..plan.rounds {
        let asked = host.world_now();
        let body = body(number, REQUEST);
        match session.request("echo", body.clone()).await {
            Ok(answer) if answer == body => {}
            Ok(_) => {
                return report
                    .lock()
                    .wrong
                    .push(format!("the answer to {number} is another's"));
            }
            Err(error) => return report.lock().wrong.push(format!("request {number}: {error}")),
        }
        let took = host.world_now().since(asked);
        report.lock().answers.push((asked, took));
        pause(&host, &plan, number).await;
    }
    report.lock().done += 1;
}

async fn send(host: Host, session: Session, plan: Plan, report: Told) {
    for number in 0..2 * plan.rounds {
        let sent = session.send_message(Class::EVENTS, Delivery::Ordered, body(number, 100));
        if let Err(error) = sent.await {
            return report.lock().wrong.push(format!("message {number}: {error}"));
        }
        if number % 2 == 1 {
            pause(&host, &plan, number / 2).await;
        }
    }
}

async fn receive(session: Session, plan: Plan, report: Told) {
    for number in 0..2 * plan.rounds {
        match session.recv_message(Class::EVENTS).await {
            Ok(message) if message.payload == body(number, 100) => report.lock().echoed += 1,
            Ok(_) => {
                return report
                    .lock()
                    .wrong
                    .push(format!("the answer to message {number} is wrong"));
            }
            Err(error) => return report.lock().wrong.push(format!("message {number}: {error}")),
        }
    }
    report.lock().done += 1;
}

async fn stream(host: Host, session: Session, plan: Plan, report: Told) {
    if plan.chunk == 0 {
        report.lock().done += 1;
        return;
    }
    let (mut writer, mut reader) = match session.open_bi(Class::BULK).await {
        Ok(stream) => stream.split(),
        Err(error) => return report.lock().wrong.push(format!("no stream: {error}")),
    };
    let (own, told, writers_plan) = (host.clone(), report.clone(), plan);
    host.spawn(async move {
        let mut at = 0;
        for round in 0..writers_plan.rounds {
            let piece: Vec<u8> = (at..at + writers_plan.chunk as u64).map(pattern).collect();
            at += piece.len() as u64;
            if let Err(error) = writer.write_chunk(piece).await {
                return told.lock().wrong.push(format!("writing the stream: {error}"));
            }
            pause(&own, &writers_plan, round).await;
        }
        let _ = writer.finish();
        let _ = writer.acknowledged().await;
    });
    let mut at = 0;
    loop {
        match reader.read_chunk(64 << 10).await {
            Ok(Some(piece)) => {
                if !matches(&mut at, &piece) {
                    return report
                        .lock()
                        .wrong
                        .push(format!("the stream is wrong before {at}"));
                }
                report.lock().streamed = at;
            }
            Ok(None) => {
                report.lock().stream_ended = Some(host.world_now());
                break;
            }
            Err(error) => return report.lock().wrong.push(format!("reading the stream: {error}")),
        }
    }
    report.lock().done += 1;
}
