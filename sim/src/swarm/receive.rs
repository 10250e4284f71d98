//! What an end does with what comes.

use std::time::Duration;

use bytes::Bytes;
use sheetbend_runtime::{
    BiStream, Class, Code, Context, DeliveryKind, Failure, Reason, RecvStream, Router, SendStream, Session,
    Side, StreamError,
};

use super::app::{Cx, HELLO, NO_ITEM};
use super::calls;
use super::pattern::{HEADER, Header, Way};
use super::plan::What;
use super::work::{Answer, Ending, Job};

/// The code with which a reader stops a stream.
pub(super) const STOP_CODE: u64 = 8;
/// The code with which a writer resets one.
pub(super) const RESET_CODE: u64 = 7;

/// Takes in everything that comes to an end of a session, each kind in a task of its own.
pub(super) fn all(cx: &Cx, session: &Session, end: u32, router: &Router) {
    let (router, one) = (router.clone(), session.clone());
    session.spawn(async move {
        router.serve_with(one, end).await;
    });
    let (own, one) = (cx.clone(), session.clone());
    session.spawn(async move {
        while let Ok(datagram) = one.recv_datagram().await {
            own.host.progressed();
            take_payload(&own, end, &datagram, None);
        }
    });
    for &class in &cx.plan.classes {
        let (own, one) = (cx.clone(), session.clone());
        session.spawn(async move {
            while let Ok(stream) = one.accept_uni(class).await {
                own.host.progressed();
                let (own, one) = (own.clone(), one.clone());
                one.clone().spawn(async move {
                    take_stream(&own, &one, end, stream).await;
                });
            }
        });
        let (own, one) = (cx.clone(), session.clone());
        session.spawn(async move { messages(&own, &one, end, class).await });
        if class == Class::REQUESTS {
            continue;
        }
        let (own, one) = (cx.clone(), session.clone());
        session.spawn(async move {
            while let Ok(stream) = one.accept_bi(class).await {
                own.host.progressed();
                let (own, one) = (own.clone(), one.clone());
                one.clone()
                    .spawn(async move { take_bi(&own, &one, end, stream).await });
            }
        });
    }
}

async fn messages(cx: &Cx, session: &Session, end: u32, class: Class) {
    while let Ok(message) = session.recv_message(class).await {
        cx.host.progressed();
        if message.class != class {
            cx.unsafe_(format!(
                "a message of {:?} where {class:?} was asked for",
                message.class
            ));
        }
        let ordered = (message.delivery == DeliveryKind::Ordered).then(|| class.index());
        take_payload(cx, end, &message.payload, ordered);
    }
}

/// A whole payload: what it says it is, and every byte of it.
fn take_payload(cx: &Cx, end: u32, payload: &[u8], ordered: Option<usize>) -> Option<Header> {
    match Header::parse(payload) {
        Some(header) if header.matches_payload(payload) => {
            if header.item != NO_ITEM {
                cx.book.received(end, &header, ordered);
            }
            Some(header)
        }
        other => {
            cx.unsafe_(format!("{} bytes that nobody sent, of {other:?}", payload.len()));
            None
        }
    }
}

/// What a program answers: one router for all of its sessions.
pub(super) fn router(cx: &Cx) -> Router {
    let (hello, work) = (cx.clone(), cx.clone());
    let router = Router::builder()
        .unary(HELLO, move |context, payload| {
            let cx = hello.clone();
            async move {
                cx.host.progressed();
                if let Some(header) = take_request(&cx, &context, &payload) {
                    let end = end_of(&context);
                    cx.book.met(end, &header);
                    if let Some(client) = cx.book.client_of(&header) {
                        cx.book.publish(client, Side::Server, end, &context.session());
                    }
                }
                Ok(())
            }
        })
        .unary("work", move |context, payload| {
            let cx = work.clone();
            async move { answer(&cx, &context, &payload).await }
        });
    calls::serve(cx, router).build()
}

/// The end of the session over which a call came.
fn end_of(context: &Context) -> u32 {
    *context
        .state::<u32>()
        .expect("every session is served with its end")
}

fn take_request(cx: &Cx, context: &Context, payload: &[u8]) -> Option<Header> {
    let header = take_payload(cx, end_of(context), payload, None)?;
    if (header.item == NO_ITEM) != (context.method() == HELLO) {
        cx.unsafe_(format!("a call of {} for {header:?}", context.method()));
        return None;
    }
    Some(header)
}

async fn answer(cx: &Cx, context: &Context, payload: &[u8]) -> Result<Bytes, Failure> {
    cx.host.progressed();
    let nobody = || Failure::new(Code::Unknown, "nobody made this call");
    let header = take_request(cx, context, payload).ok_or_else(nobody)?;
    let Some(What::Work {
        job: Job::Request { answer, takes, .. },
        ..
    }) = cx.plan.item(header.item).map(|item| item.what.clone())
    else {
        cx.unsafe_(format!("{header:?} is no request"));
        return Err(nobody());
    };
    cx.rest(takes).await;
    match answer {
        Answer::Bytes(len) => Ok(header.piece(Way::Back, 0, len as usize).into()),
        Answer::Fail(code) => Err(Failure::new(Code::Application(code), "as planned")),
        Answer::Drop => Err(Failure::cut_short(Code::Internal, Reason::Dropped)),
    }
}

/// Reads the header of a stream. `None` where the stream or the session ended before.
async fn header(cx: &Cx, session: &Session, end: u32, stream: &mut RecvStream) -> Option<Header> {
    let mut bytes = [0; HEADER];
    let mut got = 0;
    while got < HEADER {
        match stream.read_some(&mut bytes[got..]).await {
            Ok(0) => {
                cx.unsafe_(format!("a stream of {got} bytes"));
                return None;
            }
            Ok(count) => got += count,
            // Whoever reset it said so in its plan, which is not known without a header.
            Err(StreamError::Reset(RESET_CODE)) => return None,
            Err(error) => {
                cx.only_at_the_end(session, end, || format!("a stream's header: {error}"));
                return None;
            }
        }
        cx.host.progressed();
    }
    Header::parse(&bytes)
}

struct Reading {
    way: Way,
    len: u64,
    chunk: usize,
    pause: Duration,
    ending: Ending,
}

/// Reads a stream as planned; whether it came to its end.
async fn read(
    cx: &Cx,
    session: &Session,
    stream: &mut RecvStream,
    header: &Header,
    reading: &Reading,
) -> bool {
    let mut offset = 0;
    let mut buffer = vec![0; reading.chunk];
    loop {
        if let Ending::StopAt(at) = reading.ending
            && offset >= at
        {
            let _ = stream.stop(STOP_CODE);
            return false;
        }
        // Both ways of reading get their turns.
        let read = if header.item.is_multiple_of(2) {
            stream
                .read_some(&mut buffer)
                .await
                .map(|count| buffer[..count].to_vec())
        } else {
            let chunk = stream.read_chunk(reading.chunk).await;
            chunk.map(|chunk| chunk.map_or_else(Vec::new, |chunk| chunk.to_vec()))
        };
        cx.host.progressed();
        match read {
            Ok(bytes) if bytes.is_empty() => break,
            Ok(bytes) => {
                if !header.matches(reading.way, offset, &bytes) {
                    cx.unsafe_(format!("{header:?}: other bytes than were sent at {offset}"));
                }
                offset += bytes.len() as u64;
                cx.book.progressed(header.end);
            }
            Err(StreamError::Reset(RESET_CODE)) if matches!(reading.ending, Ending::ResetAt(_)) => {
                return false;
            }
            Err(error) => {
                cx.only_at_the_end(session, header.end, || format!("{header:?} at {offset}: {error}"));
                return false;
            }
        }
        cx.rest(reading.pause).await;
    }
    if offset != reading.len {
        cx.unsafe_(format!("{header:?}: {offset} bytes came of {}", reading.len));
    }
    true
}

/// Takes a stream in; its header, if it came to its end.
async fn take_stream(cx: &Cx, session: &Session, end: u32, mut stream: RecvStream) -> Option<Header> {
    let header = header(cx, session, end, &mut stream).await?;
    let Some(What::Work {
        job: Job::Stream {
            read: (chunk, pause),
            ending,
            ..
        },
        ..
    }) = cx.plan.item(header.item).map(|item| item.what.clone())
    else {
        cx.unsafe_(format!("{header:?} is no stream"));
        return None;
    };
    cx.book.received(end, &header, None);
    let reading = Reading {
        way: Way::There,
        len: u64::from(header.len),
        chunk: chunk as usize,
        pause,
        ending,
    };
    let whole = read(cx, session, &mut stream, &header, &reading).await;
    if whole {
        cx.book.finished(&header);
    }
    whole.then_some(header)
}

async fn take_bi(cx: &Cx, session: &Session, end: u32, stream: BiStream) {
    let (mut send, recv) = stream.split();
    let Some(header) = take_stream(cx, session, end, recv).await else {
        let _ = send.reset(RESET_CODE);
        return;
    };
    let Some(What::Work {
        job: Job::Stream { back: Some(back), .. },
        ..
    }) = cx.plan.item(header.item).map(|item| &item.what)
    else {
        return cx.unsafe_(format!("{header:?} has one direction"));
    };
    if let Err(error) = write_back(&mut send, &header, *back).await {
        cx.only_at_the_end(session, header.end, || {
            format!("{header:?}, the way back: {error}")
        });
    }
}

async fn write_back(send: &mut SendStream, header: &Header, len: u64) -> Result<(), StreamError> {
    send.write_chunk(header.piece(Way::Back, 0, len as usize)).await?;
    send.finish()
}

/// Reads what comes back on a stream with both directions.
pub(super) async fn read_back(cx: &Cx, session: &Session, header: &Header, mut recv: RecvStream, len: u64) {
    let reading = Reading {
        way: Way::Back,
        len,
        chunk: 20_000,
        pause: Duration::ZERO,
        ending: Ending::Whole,
    };
    read(cx, session, &mut recv, header, &reading).await;
}
