//! The service's client: it goes on with another session when one is lost, and no change is done twice.

use std::sync::Arc;

use sheetbend_runtime::{
    BiStream, CallCause, CallError, Class, Client, Code, ConnectError, Failure, Runtime, Session, StreamError,
};

use crate::service::{Bug, Entry};

/// What became of a compare-and-set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cas {
    /// Done: the new version.
    Done(u64),
    /// The key is at this version.
    Mismatch(u64),
}

pub struct Kv {
    client: Client,
    name: String,
    changes: u64,
    bug: Bug,
}

/// What the service says of a key, and of every change.
pub struct Watch {
    stream: BiStream,
    text: String,
    first: Option<Entry>,
}

fn odd(text: &str) -> CallError {
    Failure::new(Code::Unknown, format!("an answer that is none: {text}")).into()
}

impl Kv {
    /// A client of the service at these addresses, in order of preference. Every client has a name of its own.
    pub fn new(
        runtime: Arc<dyn Runtime>,
        addresses: &[String],
        name: &str,
        bug: Bug,
    ) -> Result<Kv, ConnectError> {
        let mut builder = Client::builder().keep_trying(true);
        for address in addresses {
            builder = builder.endpoint(address)?;
        }
        Ok(Kv {
            client: builder.build(runtime)?,
            name: name.to_owned(),
            changes: 0,
            bug,
        })
    }

    async fn session(&self) -> Result<Session, CallError> {
        let session = self.client.session().await;
        session.map_err(|_| CallError::NotSent(CallCause::NoConnection("no session could be made")))
    }

    /// Asks until there is an answer. The session asks again by itself while it lives; once it is lost, nobody
    /// knows what became of the request, and it is asked again on another.
    async fn ask(&self, method: &str, text: &str) -> Result<String, CallError> {
        loop {
            let session = self.session().await?;
            match session.request(method, text.to_owned()).await {
                Ok(answer) => return String::from_utf8(answer.into()).map_err(|_| odd("not text")),
                Err(error @ CallError::Failed(_)) => return Err(error),
                Err(CallError::NotSent(_) | CallError::MaybeExecuted(_)) => {}
            }
        }
    }

    /// The number makes sure that a change which is asked for again is done once.
    async fn change(&mut self, method: &str, key: &str, rest: &str) -> Result<String, CallError> {
        self.changes += 1;
        let text = format!("{} {} {key}{rest}", self.name, self.changes);
        self.ask(method, &text).await
    }

    pub async fn get(&self, key: &str) -> Result<Entry, CallError> {
        let answer = self.ask("get", key).await?;
        Entry::parse(&answer).ok_or_else(|| odd(&answer))
    }

    /// Sets a key; tells the new version.
    pub async fn put(&mut self, key: &str, value: &str) -> Result<u64, CallError> {
        let answer = self.change("put", key, &format!(" {value}")).await?;
        answer.parse().map_err(|_| odd(&answer))
    }

    /// Sets a key that is at version `expected`.
    pub async fn cas(&mut self, key: &str, expected: u64, value: &str) -> Result<Cas, CallError> {
        let answer = self.change("cas", key, &format!(" {expected} {value}")).await?;
        let cas = match answer.strip_prefix("mismatch ") {
            Some(version) => version.parse().map(Cas::Mismatch),
            None => answer.parse().map(Cas::Done),
        };
        cas.map_err(|_| odd(&answer))
    }

    pub async fn delete(&mut self, key: &str) -> Result<u64, CallError> {
        let answer = self.change("delete", key, "").await?;
        answer.parse().map_err(|_| odd(&answer))
    }

    /// Begins with what the key stands for. Ends with its session: watch again.
    pub async fn watch(&self, key: &str) -> Result<Watch, CallError> {
        let early = match self.bug {
            Bug::SubscribesLate => Some(self.get(key).await?),
            _ => None,
        };
        let lost = |error: String| CallError::from(Failure::new(Code::Unavailable, error));
        let session = self.session().await?;
        let opened = session.open_bi(Class::EVENTS).await;
        let mut stream = opened.map_err(|error| lost(error.to_string()))?;
        let asked = stream
            .write_all(key.as_bytes())
            .await
            .and_then(|()| stream.finish());
        asked.map_err(|error| lost(error.to_string()))?;
        let mut watch = Watch {
            stream,
            text: String::new(),
            first: None,
        };
        if early.is_some() {
            let skipped = watch.next().await;
            skipped.map_err(|error| lost(error.to_string()))?;
            watch.first = early;
        }
        Ok(watch)
    }
}

impl Watch {
    pub async fn next(&mut self) -> Result<Entry, StreamError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let entry = Entry::parse(line).ok_or(StreamError::Unknown)?;
                self.text = rest.to_owned();
                return Ok(entry);
            }
            match self.stream.read_chunk(4096).await? {
                Some(piece) => self.text.push_str(&String::from_utf8_lossy(&piece)),
                None => return Err(StreamError::Finished),
            }
        }
    }
}
