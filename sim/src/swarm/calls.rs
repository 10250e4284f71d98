//! Calls of all kinds, with deadlines, keys and attempts, and the book of what was executed: no key twice in one
//! program's life, and no outcome in other words than hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use sheetbend_runtime::{
    CallError, CallKind, Code, Context, Executed, Failure, ItemSender, Items, RouterBuilder, Session, Side,
};

use super::app::{Cx, Either, either};
use super::book::Phase;
use super::plan::What;
use super::work::Job;

/// What is known of executions.
#[derive(Default)]
pub(super) struct Executions {
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    routers: u32,
    /// By item and attempt: the routers that ran it.
    ran: BTreeMap<(u32, u64), Vec<u32>>,
    /// Attempts of which it was told that they were not executed.
    told_not: BTreeSet<(u32, u64)>,
}

impl Executions {
    fn new_router(&self) -> u32 {
        let mut ledger = self.ledger.lock();
        ledger.routers += 1;
        ledger.routers
    }

    /// A handler begins. What is wrong with that.
    fn begin(&self, item: u32, attempt: u64, router: u32, keyed: bool) -> Option<&'static str> {
        let mut ledger = self.ledger.lock();
        let again = ledger
            .ran
            .range((item, 0)..=(item, u64::MAX))
            .any(|((_, other), ran)| (keyed || *other == attempt) && ran.contains(&router));
        ledger.ran.entry((item, attempt)).or_default().push(router);
        if again {
            return Some("is executed twice");
        }
        ledger
            .told_not
            .contains(&(item, attempt))
            .then_some("is executed after it was told that it was not, and never will be")
    }

    /// How an attempt ended, by the words of its caller. What is wrong with them.
    fn told(&self, item: u32, attempt: u64, kind: CallKind, executed: Executed) -> Option<&'static str> {
        let mut ledger = self.ledger.lock();
        let ran = ledger.ran.contains_key(&(item, attempt));
        let any = ledger.ran.range((item, 0)..=(item, u64::MAX)).next().is_some();
        match executed {
            Executed::No => {
                ledger.told_not.insert((item, attempt));
                ran.then_some("was told not to be executed, and was")
            }
            // The handler of a call that streams begins before its first item comes, which says whose call it is.
            Executed::Yes => {
                let known = matches!(kind, CallKind::Unary | CallKind::ServerStreaming);
                (known && !any).then_some("was told to be executed, and was not")
            }
            Executed::Maybe => None,
        }
    }
}

fn method(kind: CallKind) -> &'static str {
    match kind {
        CallKind::Unary => "call",
        CallKind::ServerStreaming => "call.items",
        CallKind::ClientStreaming => "call.sum",
        CallKind::Bidirectional => "call.both",
    }
}

/// The bytes of an item's payload or of its `index`th item: they say whose they are.
fn body(item: u32, index: u32, size: u32) -> Vec<u8> {
    let mut bytes = [item.to_be_bytes(), index.to_be_bytes()].concat();
    let len = (item.wrapping_mul(2_654_435_761) ^ index.wrapping_mul(97)) % (size + 1);
    bytes.extend((0..len).map(|at| (at ^ item ^ index) as u8));
    bytes
}

fn item_of(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

/// What a handler has to do.
struct Served {
    item: u32,
    count: u32,
    size: u32,
}

/// Notes that a handler has begun, and takes its time.
async fn begin(cx: &Cx, router: u32, context: &Context, first: &[u8]) -> Result<Served, Failure> {
    cx.host.progressed();
    let planned = item_of(first).and_then(|item| Some((item, cx.plan.item(item)?.what.clone())));
    let Some((
        item,
        What::Work {
            job:
                Job::Call {
                    kind,
                    count,
                    size,
                    takes,
                    keyed,
                    ..
                },
            ..
        },
    )) = planned
    else {
        cx.unsafe_("a call that nobody planned");
        return Err(Failure::new(Code::Unknown, "nobody planned this"));
    };
    if kind != context.kind() || keyed != context.key().is_some() {
        cx.unsafe_(format!("item {item} came as {context:?}"));
    }
    if let Some(wrong) = cx.book.executions.begin(item, context.attempt(), router, keyed) {
        cx.unsafe_(format!("item {item}, attempt {}: it {wrong}", context.attempt()));
    }
    cx.rest(takes).await;
    Ok(Served { item, count, size })
}

/// Adds the handlers of calls.
pub(super) fn serve(cx: &Cx, router: RouterBuilder) -> RouterBuilder {
    let number = cx.book.executions.new_router();
    let (one, two, three, four) = (cx.clone(), cx.clone(), cx.clone(), cx.clone());
    router
        .unary(method(CallKind::Unary), move |context, payload| {
            let cx = one.clone();
            async move {
                let served = begin(&cx, number, &context, &payload).await?;
                check(&cx, &payload, &served, 0);
                Ok(body(served.item, 1, served.size))
            }
        })
        .server_streaming(
            method(CallKind::ServerStreaming),
            move |context, payload, mut out| {
                let cx = two.clone();
                async move {
                    let served = begin(&cx, number, &context, &payload).await?;
                    check(&cx, &payload, &served, 0);
                    for index in 0..served.count {
                        out.send(body(served.item, index, served.size)).await?;
                    }
                    Ok(())
                }
            },
        )
        .client_streaming(method(CallKind::ClientStreaming), move |context, mut items| {
            let cx = three.clone();
            async move {
                let Some(first) = items.next().await? else {
                    return Ok(0_u32.to_be_bytes().to_vec());
                };
                let served = begin(&cx, number, &context, &first).await?;
                check(&cx, &first, &served, 0);
                let mut count = 1_u32;
                while let Some(item) = items.next().await? {
                    check(&cx, &item, &served, count);
                    count += 1;
                }
                Ok(count.to_be_bytes().to_vec())
            }
        })
        .bidirectional(method(CallKind::Bidirectional), move |context, items, out| {
            let cx = four.clone();
            async move { both(&cx, number, &context, items, out).await }
        })
}

async fn both(
    cx: &Cx,
    number: u32,
    context: &Context,
    mut items: Items,
    mut out: ItemSender,
) -> Result<(), Failure> {
    let Some(first) = items.next().await? else {
        return Ok(());
    };
    let served = begin(cx, number, context, &first).await?;
    let (mut next, mut index) = (Some(first), 0);
    while let Some(item) = next {
        check(cx, &item, &served, index);
        out.send(item).await?;
        index += 1;
        next = items.next().await?;
    }
    Ok(())
}

fn check(cx: &Cx, bytes: &[u8], served: &Served, index: u32) {
    cx.host.progressed();
    if bytes != body(served.item, index, served.size) {
        cx.unsafe_(format!(
            "item {}, {index}: other bytes than were sent",
            served.item
        ));
    }
}

/// Makes a call, and tries it again as long as it may be.
pub(super) async fn run(
    cx: &Cx,
    item: u32,
    (client, side): (usize, Side),
    (mut end, mut session): (u32, Session),
    job: &Job,
) {
    let &Job::Call {
        kind,
        deadline,
        keyed,
        tries,
        cancel,
        ..
    } = job
    else {
        return;
    };
    for attempt in 0..u64::from(tries) {
        if attempt > 0 {
            cx.host.sleep(Duration::from_millis(20)).await;
            // Where the other end has crashed there may be none any more.
            let next = either(cx.book.reached(Phase::Closing), cx.book.session(client, side));
            (end, session) = match next.await {
                Either::Left(()) => return,
                Either::Right(next) => next,
            };
            cx.book.started(item, end);
        }
        let made = one(cx, (end, &session), item, attempt, job);
        let outcome = match cancel {
            None => made.await,
            Some(after) => match either(made, cx.host.sleep(after)).await {
                Either::Left(outcome) => outcome,
                Either::Right(()) => return,
            },
        };
        cx.host.progressed();
        let word = outcome
            .as_ref()
            .map_or_else(CallError::executed, |any| match any {
                true => Executed::Yes,
                false => Executed::Maybe,
            });
        if let Some(wrong) = cx.book.executions.told(item, attempt, kind, word) {
            cx.unsafe_(format!("item {item}, attempt {attempt}: it {wrong}: {outcome:?}"));
        }
        let error = match outcome {
            Ok(_) => return,
            Err(error) => error,
        };
        let late = error.code() == Code::DeadlineExceeded && deadline.is_some();
        match &error {
            _ if late => {}
            CallError::Failed(failure) if failure.code != Code::Cancelled => {
                cx.unsafe_(format!("item {item}, attempt {attempt}: {error}"));
            }
            _ => cx.only_at_the_end(&session, end, || {
                format!("item {item}, attempt {attempt}: {error}")
            }),
        }
        if !keyed && error.executed() != Executed::No {
            return;
        }
    }
}

/// One attempt. Tells whether a handler has run for sure: one without items does nothing.
async fn one(
    cx: &Cx,
    (end, session): (u32, &Session),
    item: u32,
    attempt: u64,
    job: &Job,
) -> Result<bool, CallError> {
    let &Job::Call {
        kind,
        count,
        size,
        deadline,
        keyed,
        ..
    } = job
    else {
        return Ok(false);
    };
    let mut call = session.call(method(kind)).attempt(attempt);
    if let Some(left) = deadline {
        call = call.timeout(left);
    }
    if keyed {
        call = call.key(item.to_be_bytes().to_vec()).expect("a short key");
    }
    let wrong = |what: &str| cx.unsafe_(format!("item {item}, attempt {attempt}: {what}"));
    let comes_forward = || {
        cx.host.progressed();
        cx.book.progressed(end);
    };
    let payload = body(item, 0, size);
    match kind {
        CallKind::Unary => {
            let reply = call.unary(payload).await?;
            if reply.payload != body(item, 1, size) {
                wrong("another answer than was given");
            }
            Ok(true)
        }
        CallKind::ServerStreaming => {
            let mut answers = call.server_streaming(payload).await?;
            for index in 0..count {
                if answers.next().await? != Some(Bytes::from(body(item, index, size))) {
                    wrong("other items than were sent");
                }
                comes_forward();
            }
            if answers.next().await?.is_some() {
                wrong("more items than were sent");
            }
            Ok(true)
        }
        CallKind::ClientStreaming => {
            let mut call = call.client_streaming().await?;
            for index in 0..count {
                // The answer says why.
                if call.send(body(item, index, size)).await.is_err() {
                    break;
                }
                comes_forward();
            }
            let reply = call.finish().await?;
            if reply.payload[..] != count.to_be_bytes() {
                wrong("another number of items than were sent");
            }
            Ok(count > 0)
        }
        CallKind::Bidirectional => {
            let (mut out, mut answers) = call.bidirectional().await?;
            for index in 0..count {
                let one = body(item, index, size);
                let sent = out.send(one.clone()).await;
                if answers.next().await? != Some(Bytes::from(one)) && sent.is_ok() {
                    wrong("another item than was sent");
                }
                comes_forward();
            }
            out.finish();
            if answers.next().await?.is_some() {
                wrong("more items than were sent");
            }
            Ok(count > 0)
        }
    }
}
