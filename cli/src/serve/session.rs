//! What the server does for one session.

use super::News;
use crate::transfer::receive::{ReceiveError, receive};
use crate::transfer::store::Store;
use crate::transfer::wire::{Reason, Refusal, Reply};
use sheetbend_tokio::{BiStream, Class, Code, Failure, IncomingRequest, Session};
use std::time::SystemTime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Transfers of one session at once; more wait in their streams.
const MAX_TRANSFERS: usize = 16;

/// Serves until the session ends.
pub(super) async fn serve(session: Session, store: Option<Store>, reports: mpsc::Sender<News>) {
    let mut transfers = JoinSet::new();
    loop {
        tokio::select! {
            request = session.accept_request() => match request {
                Ok(request) => answer(request),
                Err(_) => break,
            },
            stream = session.accept_bi(Class::BULK), if transfers.len() < MAX_TRANSFERS => match stream {
                Ok(stream) => { transfers.spawn(take(stream, store.clone(), reports.clone())); }
                Err(_) => break,
            },
            Some(_) = transfers.join_next(), if !transfers.is_empty() => {}
        }
    }
    // Their streams have ended with the session; what came is written down.
    while transfers.join_next().await.is_some() {}
}

fn answer(mut request: IncomingRequest) {
    match request.method() {
        "echo" => {
            let payload = request.take_payload();
            request.respond(payload);
        }
        "time" => {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            request.respond(format!("{:.6}", since.unwrap_or_default().as_secs_f64()));
        }
        _ => request.fail(Failure::new(
            Code::Unimplemented,
            "no such method; there are 'echo' and 'time'",
        )),
    }
}

/// Takes one file, or says why not.
async fn take(stream: BiStream, store: Option<Store>, reports: mpsc::Sender<News>) {
    let (mut writer, mut reader) = stream.split();
    let Some(store) = store else {
        let refusal = Refusal {
            reason: Reason::Internal,
            message: "it takes no files; start it with --store".to_owned(),
        };
        let told = writer.write_all(&Reply::Refused(refusal).encode()).await;
        if told.is_ok() && writer.finish().is_ok() {
            let _ = writer.acknowledged().await;
        }
        return;
    };
    let outcome = receive(&store, &mut reader, &mut writer, |_, _, _| {}).await;
    let news = match outcome {
        Ok(received) => News::Stored {
            file: received.name.as_str().to_owned(),
            bytes: received.size,
            resumed_at: received.resumed_at,
            sha256: received.sha256.to_string(),
        },
        // A sender that went away comes again if it cares.
        Err(ReceiveError::Broken { .. }) => return,
        Err(error) => News::Failed {
            error: error.to_string(),
        },
    };
    // Printing is not worth waiting for.
    let _ = reports.try_send(news);
}
