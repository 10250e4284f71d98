//! The session to the server, and the next one if it is lost.

use crate::args::SendArgs;
use crate::failure::Failure;
use sheetbend_tokio::{
    Client, Config, ConnectError, ErrorCode, Events, Session, SessionEvent, State, runtime,
};
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::timeout;

/// How long a session is kept without any connection, and how long a new one may take.
const LOST_AFTER: Duration = Duration::from_secs(60);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Keeps a session with one server.
pub(super) struct Link {
    client: Client,
    current: Session,
    events: Mutex<Events>,
    switches: Mutex<u64>,
}

impl Link {
    /// Makes the first session; a server that cannot be reached now is an error.
    ///
    /// # Errors
    /// A line for each address.
    pub(super) async fn connect(args: &SendArgs) -> Result<Link, Failure> {
        let mut config = Config::default();
        config.params.resume_timeout = LOST_AFTER;
        let mut client = Client::builder().config(config);
        for address in std::iter::once(&args.url).chain(&args.also) {
            client = client
                .endpoint(&address.0)
                .map_err(|error| Failure::usage(error.to_string()))?;
        }
        client = args.through.apply(args.trust.apply(client)?)?;
        let client = client.build(runtime()).map_err(|error| explain(&error))?;
        let current = client.session().await.map_err(|error| explain(&error))?;
        let events = Mutex::new(current.events());
        Ok(Link {
            client,
            current,
            events,
            switches: Mutex::new(0),
        })
    }

    /// The session, or a new one if it was lost.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub(super) async fn session(&mut self) -> Result<Session, String> {
        if self.current.state().is_terminal() {
            self.switches();
            let next = timeout(LOST_AFTER, self.client.session()).await;
            self.current = next
                .map_err(|_| "no new session in time".to_owned())?
                .map_err(|error| explain(&error).to_string())?;
            self.events = Mutex::new(self.current.events());
        }
        Ok(self.current.clone())
    }

    /// Waits a moment for a session that takes nothing new to end, then ends it.
    pub(super) async fn leave(&self, session: Session) {
        if timeout(GOODBYE, session.closed()).await.is_err() {
            session.close(ErrorCode::NONE, "").await;
        }
    }

    /// Whether data can flow.
    pub(super) fn is_connected(&self) -> bool {
        self.current.state() == State::Connected
    }

    /// How often data moved from one path to another, over all sessions.
    pub(super) fn switches(&self) -> u64 {
        let (Ok(mut events), Ok(mut switches)) = (self.events.lock(), self.switches.lock()) else {
            return 0;
        };
        while let Some(event) = events.try_next() {
            match event {
                SessionEvent::Switched { from: Some(_), .. } => *switches += 1,
                SessionEvent::Lagged(_) => {}
                _ => {}
            }
        }
        *switches
    }

    /// Says goodbye.
    pub(super) async fn close(self) {
        let _ = timeout(GOODBYE, self.current.close(ErrorCode::NONE, "")).await;
    }
}

/// A line that says what to do.
fn explain(error: &ConnectError) -> Failure {
    let text = match error {
        ConnectError::Unreachable(places) => {
            let list: Vec<_> = places.iter().map(|(at, why)| format!("{at}: {why}")).collect();
            format!(
                "cannot reach the server ({}); check the address, and that 'sheetbend serve' runs there",
                list.join("; ")
            )
        }
        ConnectError::Failed(cause) => format!("the server refuses the session: {cause:?}"),
        other => other.to_string(),
    };
    Failure::failed(text)
}
