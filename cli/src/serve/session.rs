//! What the server does for one session.

use super::News;
use crate::transfer::receive::{ReceiveError, receive};
use crate::transfer::store::Store;
use crate::transfer::wire::{Reason, Refusal, Reply};
use sheetbend_tokio::{BiStream, Class, Router, Session};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Transfers of one session at once; more wait in their streams.
const MAX_TRANSFERS: usize = 16;

/// Serves until the session ends.
pub(super) async fn serve(
    session: Session,
    router: Router,
    store: Option<Store>,
    reports: mpsc::Sender<News>,
) {
    let mut transfers = JoinSet::new();
    let calls = router.serve(session.clone());
    tokio::pin!(calls);
    loop {
        tokio::select! {
            _ = &mut calls => break,
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
