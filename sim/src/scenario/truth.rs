//! What one end was told of its requests and messages, and what the other really did.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sheetbend_core::time::Timestamp;
use sheetbend_runtime::{CallError, Class, Delivery, Outcome, Session};

use super::stage::{Check, ensure, ms};
use super::work::body;
use crate::host::Host;

/// Between one request or message and the next. Several are under way at a time.
const EVERY: Duration = Duration::from_millis(7);
/// A request that was asked so long before the end has an outcome.
const PATIENCE: Duration = Duration::from_secs(4);

/// What became of something, as its sender was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Asked(Timestamp),
    Done(Timestamp),
    Maybe,
    NotSent,
    Wrong(String),
}

/// Both sides of the matter. It lies outside of the world: no crash takes it.
#[derive(Default)]
pub(super) struct Truth {
    requests: BTreeMap<u64, Told>,
    messages: BTreeMap<u64, Told>,
    executed: BTreeMap<u64, u32>,
    received: BTreeMap<u64, u32>,
    /// A message that came before one that was sent earlier on the same session.
    disorder: Option<u64>,
    sessions: u32,
}

type Shared = Arc<Mutex<Truth>>;

impl Truth {
    fn ask(&mut self, at: Timestamp) -> u64 {
        let number = self.requests.len() as u64;
        self.requests.insert(number, Told::Asked(at));
        number
    }

    /// Whether nothing that was told is untrue, and nothing is left untold.
    pub(super) fn check(&self, end: Timestamp, least_sessions: u32) -> Check {
        let (mut done, mut open, mut last) = (0, 0, Timestamp::ZERO);
        for (number, told) in &self.requests {
            let times = self.executed.get(number).copied().unwrap_or(0);
            let fits = match told {
                Told::Done(at) => {
                    done += 1;
                    last = last.max(*at);
                    times == 1
                }
                Told::NotSent => times == 0,
                Told::Maybe => times <= 1,
                Told::Asked(at) => times <= 1 && end.since(*at) < PATIENCE,
                Told::Wrong(_) => false,
            };
            open += u32::from(matches!(told, Told::Maybe | Told::NotSent));
            ensure!(
                fits,
                "request {number} was executed {times} times; its sender was told {told:?}"
            );
        }
        for (number, told) in &self.messages {
            let times = self.received.get(number).copied().unwrap_or(0);
            let fits = match told {
                Told::NotSent => times == 0,
                Told::Asked(at) => times <= 1 && end.since(*at) < PATIENCE,
                Told::Done(_) | Told::Maybe => times <= 1,
                Told::Wrong(_) => false,
            };
            ensure!(
                fits,
                "message {number} came {times} times; its sender was told {told:?}"
            );
        }
        ensure!(
            self.disorder.is_none(),
            "message {:?} came too early",
            self.disorder
        );
        ensure!(
            self.sessions >= least_sessions,
            "{} sessions: no memory was lost",
            self.sessions
        );
        ensure!(open > 0, "nothing was under way when the memory was lost");
        ensure!(done > 500, "{done} requests were answered");
        ensure!(end.since(last) < PATIENCE, "nothing was answered after {last:?}");
        Ok(())
    }
}

/// Answers a session's requests and takes its messages, and notes both.
pub(super) fn answer(host: &Host, session: Session, truth: &Shared) {
    truth.lock().sessions += 1;
    let (calls, told) = (session.clone(), truth.clone());
    host.spawn(async move {
        while let Ok(request) = calls.accept_request().await {
            if let Some(number) = request.payload().first_chunk::<8>() {
                *told
                    .lock()
                    .executed
                    .entry(u64::from_be_bytes(*number))
                    .or_default() += 1;
            }
            request.respond("done");
        }
    });
    let told = truth.clone();
    host.spawn(async move {
        let mut last = None;
        while let Ok(message) = session.recv_message(Class::EVENTS).await {
            let Some(number) = message.payload.first_chunk::<8>() else {
                continue;
            };
            let number = u64::from_be_bytes(*number);
            let mut told = told.lock();
            *told.received.entry(number).or_default() += 1;
            if last >= Some(number) {
                told.disorder = Some(number);
            }
            last = Some(number);
        }
    });
}

/// Asks without waiting for answers, until the session has ended.
pub(super) async fn call(host: &Host, session: &Session, truth: &Shared) {
    while !session.state().is_terminal() {
        let number = truth.lock().ask(host.world_now());
        let (own, session, told) = (host.clone(), session.clone(), truth.clone());
        host.spawn(async move {
            let outcome = match session.request("do", body(number, 400)).await {
                Ok(_) => Told::Done(own.world_now()),
                Err(CallError::NotSent(_)) => Told::NotSent,
                Err(CallError::MaybeExecuted(_)) => Told::Maybe,
                Err(error) => Told::Wrong(error.to_string()),
            };
            told.lock().requests.insert(number, outcome);
        });
        host.sleep(EVERY).await;
    }
}

/// Sends ordered messages and asks what becomes of each, until the session has ended.
pub(super) async fn tell(host: Host, session: Session, truth: Shared) {
    host.sleep(ms(3)).await;
    loop {
        let number = {
            let mut truth = truth.lock();
            let number = truth.messages.len() as u64;
            truth.messages.insert(number, Told::Asked(host.world_now()));
            number
        };
        let sent = session.send_message_tracked(Class::EVENTS, Delivery::Ordered, body(number, 60));
        let Ok(tracked) = sent.await else {
            truth.lock().messages.insert(number, Told::NotSent);
            return;
        };
        let (own, told) = (host.clone(), truth.clone());
        host.spawn(async move {
            let outcome = match tracked.await {
                Outcome::Acknowledged => Told::Done(own.world_now()),
                Outcome::Maybe => Told::Maybe,
                Outcome::NotSent => Told::NotSent,
                other @ Outcome::TooLarge { .. } => Told::Wrong(format!("{other:?}")),
            };
            told.lock().messages.insert(number, outcome);
        });
        host.sleep(EVERY).await;
    }
}
