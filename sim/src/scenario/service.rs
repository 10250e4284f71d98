//! The server of the scenarios: it answers requests, sends messages and streams back, and keeps a ledger. Beside its
//! sessions it speaks plain TCP and UDP: an echo, and a port that throws away.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sheetbend_runtime::{BiStream, Class, Config, Delivery, Server, Session};

use super::stage::Ledger;
use crate::host::Host;

/// Where it serves sessions.
pub(super) const PORT: u16 = 4433;
/// Where it echoes, by TCP and UDP.
pub(super) const ECHO: u16 = 7;
/// Where it throws away what comes by TCP.
pub(super) const DISCARD: u16 = 9;

/// The byte of a stream at an offset.
pub(super) fn pattern(at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

/// Checks a piece of a stream that begins at `*at`, and moves on.
pub(super) fn matches(at: &mut u64, piece: &[u8]) -> bool {
    let right = (*at..).zip(piece).all(|(at, byte)| pattern(at) == *byte);
    *at += piece.len() as u64;
    right
}

/// Serves until its host crashes.
pub(super) async fn serve(host: Host, config: Config, read_pause: Duration, ledger: Arc<Mutex<Ledger>>) {
    host.spawn(echo_tcp(host.clone()));
    host.spawn(echo_udp(host.clone()));
    host.spawn(discard(host.clone(), ledger.clone()));
    let server = Server::builder()
        .listen(format!("tcp://server:{PORT}"))
        .expect("a good address")
        .tls(crate::identity::server_tls())
        .config(config)
        .bind(host.runtime())
        .await
        .expect("the port is free");
    while let Some(session) = server.accept().await {
        let number = {
            let mut ledger = ledger.lock();
            ledger.sessions += 1;
            ledger.sessions
        };
        host.spawn(requests(session.clone(), ledger.clone()));
        host.spawn(messages(session.clone(), number, ledger.clone()));
        host.spawn(streams(host.clone(), session, read_pause, ledger.clone()));
    }
}

async fn requests(session: Session, ledger: Arc<Mutex<Ledger>>) {
    while let Ok(request) = session.accept_request().await {
        let body = request.payload().clone();
        {
            let mut ledger = ledger.lock();
            match body.first_chunk::<8>() {
                Some(number) => *ledger.executed.entry(u64::from_be_bytes(*number)).or_default() += 1,
                None => ledger.wrong.push("a request without its number".into()),
            }
        }
        request.respond(body);
    }
}

async fn messages(session: Session, number: u32, ledger: Arc<Mutex<Ledger>>) {
    while let Ok(message) = session.recv_message(Class::EVENTS).await {
        match message.payload.first_chunk::<8>() {
            Some(id) => ledger.lock().received.push((number, u64::from_be_bytes(*id))),
            None => ledger.lock().wrong.push("a message without its number".into()),
        }
        let sent = session.send_message(Class::EVENTS, Delivery::Ordered, message.payload);
        if sent.await.is_err() {
            return;
        }
    }
}

async fn streams(host: Host, session: Session, read_pause: Duration, ledger: Arc<Mutex<Ledger>>) {
    while let Ok(stream) = session.accept_bi(Class::BULK).await {
        host.spawn(stream_back(host.clone(), stream, read_pause, ledger.clone()));
    }
}

async fn stream_back(host: Host, mut stream: BiStream, read_pause: Duration, ledger: Arc<Mutex<Ledger>>) {
    let mut at = 0;
    loop {
        match stream.read_chunk(16 << 10).await {
            Ok(Some(piece)) => {
                if !matches(&mut at, &piece) {
                    ledger
                        .lock()
                        .wrong
                        .push(format!("the stream is wrong before {at}"));
                }
                if stream.send().write_chunk(piece).await.is_err() {
                    return;
                }
            }
            Ok(None) => {
                let _ = stream.finish();
                return;
            }
            Err(_) => return,
        }
        if !read_pause.is_zero() {
            host.sleep(read_pause).await;
        }
    }
}

/// Sends back what comes, by TCP.
pub(super) async fn echo_tcp(host: Host) {
    let Ok(listener) = host.listen_tcp(ECHO) else {
        return;
    };
    while let Ok(mut stream) = listener.accept().await {
        host.spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn echo_udp(host: Host) {
    let Ok(socket) = host.bind_udp(ECHO) else { return };
    while let Ok((data, from)) = socket.recv_from().await {
        let _ = socket.send_to(&data, from);
    }
}

async fn discard(host: Host, ledger: Arc<Mutex<Ledger>>) {
    let Ok(listener) = host.listen_tcp(DISCARD) else {
        return;
    };
    while let Ok(mut stream) = listener.accept().await {
        let (own, ledger) = (host.clone(), ledger.clone());
        host.spawn(async move {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                ledger.lock().discarded.push((own.world_now(), count));
            }
        });
    }
}
