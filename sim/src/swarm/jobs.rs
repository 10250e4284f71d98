//! How the work items are done.
//!
//! Nobody comes forward by writing: writers are woken once a good part of what they may write is free, and could
//! write a little before.

use std::time::Duration;

use sheetbend_runtime::{
    CallError, Class, Code, Delivery, ErrorCode, OpenError, Outcome, Reason, RecvStream, SendError,
    SendStream, Session, Side, State, StreamError, Tracked,
};

use super::app::{Cx, Either, ask, caller, either};
use super::calls;
use super::pattern::{Header, Way};
use super::receive::{RESET_CODE, STOP_CODE, read_back};
use super::work::{Answer, Ending, Job};

/// How long a visit waits for its session.
const PATIENCE: Duration = Duration::from_secs(5);

/// Does a work item, over the session that is there, or the next one.
pub(super) async fn run(cx: Cx, item: u32, client: usize, side: Side, job: Job) {
    if let Job::Visit { class, count, size } = job {
        visit(&cx, item, client, class, (count, size)).await;
        return cx.book.done(item);
    }
    let (end, session) = cx.book.session(client, side).await;
    cx.book.started(item, end);
    let header = Header {
        end,
        item,
        index: 0,
        len: 0,
    };
    match job {
        Job::Request {
            size, answer, cancel, ..
        } => {
            let header = Header { len: size, ..header };
            request(&cx, &session, header, answer, cancel).await;
        }
        Job::Call { .. } => calls::run(&cx, item, (client, side), (end, session), &job).await,
        Job::Stream { size, .. } => {
            let header = Header {
                len: size as u32,
                ..header
            };
            stream(&cx, &session, header, &job).await;
        }
        Job::Messages { .. } => messages(&cx, &session, header, &job).await,
        Job::Datagrams { count, size, pause } => {
            datagrams(&cx, &session, header, (count, size), pause).await;
        }
        Job::Close { code } => {
            cx.book.closing(end);
            let code = ErrorCode::application(code).unwrap_or(ErrorCode::NONE);
            session.close(code, "as planned").await;
        }
        Job::Drain => {
            cx.book.draining(end);
            session.drain("");
            session.closed().await;
        }
        Job::Visit { .. } => {}
    }
    cx.book.done(item);
}

async fn request(cx: &Cx, session: &Session, header: Header, answer: Answer, cancel: Option<Duration>) {
    cx.book.queued(&header, None);
    let request = ask(cx, session, "work", &header);
    let outcome = match cancel {
        None => request.await,
        Some(after) => match either(request, cx.host.sleep(after)).await {
            Either::Left(outcome) => outcome,
            Either::Right(()) => return,
        },
    };
    cx.host.progressed();
    let times = cx.book.times_received(header.item, 0);
    match (outcome, answer) {
        (Ok(body), Answer::Bytes(len)) => {
            if body.len() != len as usize || !header.matches(Way::Back, 0, &body) {
                cx.unsafe_(format!("{header:?}: another answer than was given"));
            }
            answered(cx, &header, times);
        }
        (Err(CallError::Failed(failure)), Answer::Fail(expected))
            if failure.code == Code::Application(expected) =>
        {
            answered(cx, &header, times);
        }
        (Err(CallError::Failed(failure)), Answer::Drop) if failure.reason == Some(Reason::Dropped) => {
            answered(cx, &header, times);
        }
        (Err(CallError::NotSent(words)), _) => {
            cx.book.told(&header, Outcome::NotSent, true);
            cx.only_at_the_end(session, header.end, || {
                format!("{header:?} was not sent: {words}")
            });
        }
        (Err(CallError::MaybeExecuted(words)), _) => {
            cx.only_at_the_end(session, header.end, || format!("{header:?} maybe: {words}"));
        }
        (outcome, answer) => cx.unsafe_(format!("{header:?}: {outcome:?} where {answer:?} was planned")),
    }
}

fn answered(cx: &Cx, header: &Header, times: usize) {
    if times == 0 {
        cx.unsafe_(format!("{header:?} was answered and never arrived"));
    }
}

/// The halves of a new stream.
async fn open(
    session: &Session,
    class: Class,
    bi: bool,
) -> Result<(SendStream, Option<RecvStream>), OpenError> {
    if bi {
        let (send, recv) = session.open_bi(class).await?.split();
        Ok((send, Some(recv)))
    } else {
        Ok((session.open_uni(class).await?, None))
    }
}

async fn stream(cx: &Cx, session: &Session, header: Header, job: &Job) {
    let Job::Stream {
        back, class, ending, ..
    } = job
    else {
        return;
    };
    let (mut send, recv) = match open(session, *class, back.is_some()).await {
        Ok(halves) => halves,
        Err(error) => {
            return cx.only_at_the_end(session, header.end, || {
                format!("{header:?} cannot be opened: {error}")
            });
        }
    };
    cx.book.queued(&header, None);
    match write(cx, &mut send, &header, job).await {
        Ok(()) => {}
        Err(StreamError::Stopped(STOP_CODE)) if matches!(ending, Ending::StopAt(_)) => return,
        Err(error) => {
            return cx.only_at_the_end(session, header.end, || format!("{header:?}, written: {error}"));
        }
    }
    if matches!(ending, Ending::ResetAt(_)) {
        return;
    }
    if let (Some(recv), Some(len), Ending::Whole) = (recv, *back, *ending) {
        read_back(cx, session, &header, recv, len).await;
    }
    match send.acknowledged().await {
        Ok(()) => cx.book.told(&header, Outcome::Acknowledged, true),
        Err(StreamError::Stopped(STOP_CODE)) if matches!(ending, Ending::StopAt(_)) => {}
        Err(error) => cx.only_at_the_end(session, header.end, || format!("{header:?}, finished: {error}")),
    }
}

async fn write(cx: &Cx, send: &mut SendStream, header: &Header, job: &Job) -> Result<(), StreamError> {
    let Job::Stream {
        write: (chunk, pause),
        ending,
        ..
    } = job
    else {
        return Ok(());
    };
    let reset_at = match ending {
        Ending::ResetAt(at) => *at,
        _ => u64::MAX,
    };
    send.write_all(&header.bytes()).await?;
    let len = u64::from(header.len);
    let mut offset = 0;
    while offset < len {
        if offset >= reset_at {
            break;
        }
        let count = (len - offset).min(u64::from(*chunk)) as usize;
        let piece = header.piece(Way::There, offset, count);
        // Both ways of writing get their turns.
        if (offset / 7 + u64::from(header.item)).is_multiple_of(2) {
            send.write_all(&piece).await?;
        } else {
            send.write_chunk(piece).await?;
        }
        offset += count as u64;
        cx.rest(*pause).await;
    }
    match ending {
        Ending::ResetAt(_) => send.reset(RESET_CODE),
        _ => send.finish(),
    }
}

async fn messages(cx: &Cx, session: &Session, header: Header, job: &Job) {
    let Job::Messages {
        class,
        delivery,
        count,
        size,
        pause,
        tracked,
    } = *job
    else {
        return;
    };
    let ordered = (delivery == Delivery::Ordered).then(|| class.index());
    let mut waiting: Vec<(Header, Tracked)> = Vec::new();
    for index in 0..count {
        // Sizes of one item differ, and are known from the number.
        let len = (u64::from(index) * 7919 % (u64::from(size) + 1)) as u32;
        let header = Header { index, len, ..header };
        let sent = if tracked {
            let told = session
                .send_message_tracked(class, delivery, header.payload())
                .await;
            told.map(|told| waiting.push((header, told)))
        } else {
            session.send_message(class, delivery, header.payload()).await
        };
        match sent {
            Ok(()) => cx.book.queued(&header, ordered),
            Err(SendError::TooLarge { .. }) if ordered.is_none() || session.state() != State::Connected => {}
            Err(error) => {
                cx.only_at_the_end(session, header.end, || {
                    format!("{header:?} cannot be sent: {error}")
                });
                break;
            }
        }
        cx.rest(pause).await;
    }
    for (header, told) in waiting {
        let outcome = told.await;
        cx.book.told(&header, outcome, session.state().is_terminal());
    }
}

async fn datagrams(cx: &Cx, session: &Session, header: Header, (count, size): (u32, u32), pause: Duration) {
    for index in 0..count {
        let len = (u64::from(index) * 7919 % (u64::from(size) + 1)) as u32;
        let header = Header { index, len, ..header };
        match session.send_datagram(header.payload()) {
            Ok(()) => cx.book.queued(&header, None),
            Err(SendError::Full | SendError::TooLarge { .. }) => {}
            Err(error) => {
                return cx.only_at_the_end(session, header.end, || {
                    format!("{header:?} cannot be sent: {error}")
                });
            }
        }
        cx.rest(pause).await;
    }
}

/// A session of its own, which is let go once everything is queued: what was queued is still delivered, unless no
/// connection lasts for long enough.
async fn visit(cx: &Cx, item: u32, client: usize, class: Class, (count, size): (u32, u32)) {
    let end = cx.book.begin_end(Side::Client, Some(client));
    cx.book.started(item, end);
    // Nobody watches this end: its peer may see it close at any time from here on.
    cx.book.closing(end);
    let Either::Left(Ok(session)) = either(caller(cx, client).connect(), cx.host.sleep(PATIENCE)).await
    else {
        return;
    };
    for index in 0..count {
        let len = (u64::from(index) * 7919 % (u64::from(size) + 1)) as u32;
        let header = Header {
            end,
            item,
            index,
            len,
        };
        match session
            .send_message(class, Delivery::Ordered, header.payload())
            .await
        {
            Ok(()) => cx.book.queued(&header, Some(class.index())),
            Err(error) => {
                return cx.only_at_the_end(&session, end, || format!("{header:?} cannot be sent: {error}"));
            }
        }
    }
}
