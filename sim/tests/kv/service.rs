//! The service: a few keys with values and versions, kept in a journal if there is a place for it.
//!
//! It is written against the handles of sheetbend and [`Runtime`] alone. Nothing here knows of a simulator.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};

use sheetbend_runtime::{
    Address, BiStream, Class, Code, Failure, Files, IncomingRequest, Runtime, Server, Session,
};

/// A mistake that a test plants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bug {
    #[default]
    None,
    /// After a restart the service does not know what it has answered: what is tried again is done again.
    ForgetsAnswers,
    /// A watch begins with a value that was asked for before: what changes in between is missed.
    SubscribesLate,
}

/// What a key stands for. Version 0 has no value; every change, deletion included, counts one up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub version: u64,
    pub value: Option<String>,
}

impl Entry {
    pub fn to_line(&self) -> String {
        format!("{} {}", self.version, self.value.as_deref().unwrap_or("-"))
    }

    pub fn parse(line: &str) -> Option<Entry> {
        let (version, value) = line.split_once(' ')?;
        Some(Entry {
            version: version.parse().ok()?,
            value: (value != "-").then(|| value.to_owned()),
        })
    }
}

/// A queue between tasks, with one reader.
pub struct Feed<T>(Mutex<(VecDeque<T>, Option<Waker>)>);

impl<T> Feed<T> {
    fn new() -> Feed<T> {
        Feed(Mutex::new((VecDeque::new(), None)))
    }

    fn push(&self, item: T) {
        let waker = {
            let mut own = locked(&self.0);
            own.0.push_back(item);
            own.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn next(&self) -> T {
        poll_fn(|cx| {
            let mut own = locked(&self.0);
            match own.0.pop_front() {
                Some(item) => Poll::Ready(item),
                None => {
                    own.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Store {
    entries: BTreeMap<String, Entry>,
    /// The last answer to each client's changes, by the number that the client gave it.
    answers: BTreeMap<String, (u64, String)>,
    watchers: Vec<(String, Weak<Feed<Entry>>)>,
}

/// A change as it stands in the journal.
struct Change {
    client: String,
    number: u64,
    key: String,
    entry: Entry,
}

impl Store {
    fn entry(&self, key: &str) -> Entry {
        self.entries.get(key).cloned().unwrap_or_default()
    }

    fn apply(&mut self, change: Change) {
        let Change {
            client,
            number,
            key,
            entry,
        } = change;
        self.answers.insert(client, (number, entry.version.to_string()));
        self.watchers.retain(|(watched, feed)| {
            let feed = feed.upgrade();
            if let (Some(feed), true) = (&feed, *watched == key) {
                feed.push(entry.clone());
            }
            feed.is_some()
        });
        self.entries.insert(key, entry);
    }
}

// ---- the journal: a line for each change, with a sum that a torn line does not have ----

struct Journal {
    files: Arc<dyn Files>,
    path: PathBuf,
}

fn sum(text: &str) -> u64 {
    let step = |sum: u64, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

impl Change {
    fn to_line(&self) -> String {
        let (client, number, key) = (&self.client, self.number, &self.key);
        let text = format!("{client} {number} {key} {}", self.entry.to_line());
        format!("{:016x} {text}\n", sum(&text))
    }

    fn parse(line: &str) -> Option<Change> {
        let (check, text) = line.strip_suffix('\n')?.split_once(' ')?;
        if check != format!("{:016x}", sum(text)) {
            return None;
        }
        let mut fields = text.splitn(4, ' ');
        Some(Change {
            client: fields.next()?.to_owned(),
            number: fields.next()?.parse().ok()?,
            key: fields.next()?.to_owned(),
            entry: Entry::parse(fields.next()?)?,
        })
    }
}

impl Journal {
    /// Reads what is whole into `store`, and writes it anew without what is not.
    async fn open(files: Arc<dyn Files>, dir: &Path, store: &mut Store) -> io::Result<Journal> {
        let (path, temp) = (dir.join("journal"), dir.join("journal.new"));
        files.create_dir(dir.to_owned()).await?;
        if let Some(parent) = dir.parent() {
            files.sync_dir(parent.to_owned()).await?;
        }
        let data = match files.read(path.clone(), 0, usize::MAX).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Default::default(),
            other => other?,
        };
        let mut whole = String::new();
        for line in String::from_utf8_lossy(&data).split_inclusive('\n') {
            let Some(change) = Change::parse(line) else { break };
            whole.push_str(line);
            store.apply(change);
        }
        match files.remove(temp.clone()).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        files.create(temp.clone(), whole.into()).await?;
        files.sync(temp.clone()).await?;
        files.rename(temp, path.clone()).await?;
        files.sync_dir(dir.to_owned()).await?;
        Ok(Journal { files, path })
    }

    async fn add(&self, change: &Change) -> io::Result<()> {
        self.files
            .append(self.path.clone(), change.to_line().into())
            .await?;
        self.files.sync(self.path.clone()).await
    }
}

// ---- the service ----

/// What a request that changes something says: who asks, the number of the change, and what it is.
fn understand(store: &Store, method: &str, text: &str) -> Option<Result<Change, String>> {
    let fields: Vec<&str> = text.split(' ').collect();
    let [client, number, key, rest @ ..] = fields.as_slice() else {
        return None;
    };
    let number = number.parse().ok()?;
    if let Some((last, answer)) = store.answers.get(*client)
        && *last == number
    {
        return Some(Err(answer.clone()));
    }
    let now = store.entry(key);
    let value = match (method, rest) {
        ("put", [value]) => Some((*value).to_owned()),
        ("cas", [expected, _]) if expected.parse() != Ok(now.version) => {
            return Some(Err(format!("mismatch {}", now.version)));
        }
        ("cas", [_, value]) => Some((*value).to_owned()),
        ("delete", []) => None,
        _ => return None,
    };
    let version = now.version + 1;
    Some(Ok(Change {
        client: (*client).to_owned(),
        number,
        key: (*key).to_owned(),
        entry: Entry { version, value },
    }))
}

/// Answers requests one after another: a change is in the journal before anybody hears of it.
async fn work(store: Arc<Mutex<Store>>, journal: Option<Journal>, calls: Arc<Feed<IncomingRequest>>) {
    loop {
        let request = calls.next().await;
        let text = String::from_utf8_lossy(request.payload()).into_owned();
        if request.method() == "get" {
            let line = locked(&store).entry(&text).to_line();
            request.respond(line);
            continue;
        }
        let understood = understand(&locked(&store), request.method(), &text);
        match understood {
            None => request.fail(Failure::new(Code::Application(36), "what is that?")),
            Some(Err(answer)) => request.respond(answer),
            Some(Ok(change)) => {
                if let Some(journal) = &journal
                    && let Err(error) = journal.add(&change).await
                {
                    // What is on the disk is not known: better no service than a wrong one.
                    return request.fail(Failure::new(Code::Application(37), error.to_string()));
                }
                let answer = change.entry.version.to_string();
                locked(&store).apply(change);
                request.respond(answer);
            }
        }
    }
}

/// Writes what a key stands for, and then every change of it.
async fn watch(store: Arc<Mutex<Store>>, mut stream: BiStream) -> Option<()> {
    let key = stream.read_to_end(1024).await.ok()?;
    let key = String::from_utf8(key.into()).ok()?;
    let feed = Arc::new(Feed::new());
    let mut entry = {
        let mut store = locked(&store);
        store.watchers.push((key.clone(), Arc::downgrade(&feed)));
        store.entry(&key)
    };
    loop {
        let line = entry.to_line() + "\n";
        stream.write_all(line.as_bytes()).await.ok()?;
        entry = feed.next().await;
    }
}

fn attend(session: &Session, store: &Arc<Mutex<Store>>, calls: &Arc<Feed<IncomingRequest>>) {
    let (own, calls) = (session.clone(), calls.clone());
    session.spawn(async move {
        while let Ok(request) = own.accept_request().await {
            calls.push(request);
        }
    });
    let (own, store) = (session.clone(), store.clone());
    session.spawn(async move {
        while let Ok(stream) = own.accept_bi(Class::EVENTS).await {
            let store = store.clone();
            own.spawn(async move {
                watch(store, stream).await;
            });
        }
    });
}

/// Serves until its runtime ends. With a directory, what it has answered outlives it. Tells where it listens.
pub async fn serve(
    runtime: Arc<dyn Runtime>,
    address: &str,
    dir: Option<PathBuf>,
    bug: Bug,
) -> Result<Address, Box<dyn Error + Send + Sync>> {
    let mut store = Store::default();
    let journal = match dir {
        Some(dir) => Some(Journal::open(runtime.files(), &dir, &mut store).await?),
        None => None,
    };
    if bug == Bug::ForgetsAnswers {
        store.answers.clear();
    }
    let server = Server::builder().listen(address)?.bind(runtime.clone()).await?;
    let bound = server.addresses()[0].clone();
    let (store, calls) = (Arc::new(Mutex::new(store)), Arc::new(Feed::new()));
    runtime.spawn(Box::pin(work(store.clone(), journal, calls.clone())));
    runtime.spawn(Box::pin(async move {
        while let Some(session) = server.accept().await {
            attend(&session, &store, &calls);
        }
    }));
    Ok(bound)
}
