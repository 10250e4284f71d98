//! Calls as they come in, piece by piece: requests at the callee, answers at the caller.
//!
//! A driver that has a request or answer whole, as it mostly has, takes [`CallHead::take`] or
//! [`Answer::from_whole`](super::Answer::from_whole) instead, and copies nothing.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::answer::take_head;
use super::deadline::TimeLeft;
use super::error::{AnswerError, HeadError, ItemError};
use super::head::{CallKind, RequestHead};
use super::intern::PeerMethods;
use super::item::{ItemReader, Piece};
use super::metadata::Metadata;
use super::status::{Code, Failure, MAX_DETAILS, MAX_MESSAGE};
use super::trace::TraceContext;

/// What this end takes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest payload, in bytes.
    pub max_payload: usize,
    /// The longest item, in bytes.
    pub max_item: usize,
}

impl Default for Limits {
    /// 16 MiB and 4 MiB.
    fn default() -> Limits {
        Limits {
            max_payload: 16 * 1024 * 1024,
            max_item: 4 * 1024 * 1024,
        }
    }
}

/// Bytes in one piece as long as they come in one.
#[derive(Debug, Default)]
struct Gather {
    first: Bytes,
    more: BytesMut,
}

impl Gather {
    fn push(&mut self, data: Bytes) {
        if self.first.is_empty() && self.more.is_empty() {
            self.first = data;
        } else {
            self.more.put(std::mem::take(&mut self.first));
            self.more.put(data);
        }
    }

    fn len(&self) -> usize {
        self.first.len() + self.more.len()
    }

    fn take(&mut self) -> Bytes {
        match self.more.is_empty() {
            true => std::mem::take(&mut self.first),
            false => std::mem::take(&mut self.more).freeze(),
        }
    }
}

/// Which method a call that came is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalledMethod {
    /// By its number: [`PeerMethods::name`] has the name.
    Index(u32),
    /// By name alone.
    Named(Box<str>),
}

/// The head of a request that came, on its own feet. No allocation when there are no options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallHead {
    /// Which method.
    pub method: CalledMethod,
    /// Payload or items.
    pub kind: CallKind,
    /// How long the caller still waits, from the moment at which the head came.
    pub time_left: Option<TimeLeft>,
    /// Execute once under this key.
    pub key: Option<Bytes>,
    /// The trace to go on with.
    pub trace: Option<TraceContext>,
    /// Keys and values.
    pub metadata: Metadata,
    /// The caller says that executing this more than once does no harm.
    pub repeatable: bool,
    /// How many attempts came before this one.
    pub attempt: u64,
}

impl CallHead {
    /// Takes a head off the front of `body`, and notes the name that it defines; `None`, with `body` as
    /// it was, when there is not all of it yet. `finished` says that nothing will follow.
    ///
    /// # Errors
    /// [`HeadError`]
    #[inline]
    pub fn take(
        body: &mut Bytes,
        finished: bool,
        methods: &mut PeerMethods,
    ) -> Result<Option<CallHead>, HeadError> {
        let mut input = &body[..];
        let Some(head) = RequestHead::decode(&mut input)? else {
            return match finished {
                true => Err(HeadError::Cut),
                false => Ok(None),
            };
        };
        let used = body.len() - input.len();
        let resolved = methods.resolve(head.method)?;
        let method = match resolved.index {
            Some(index) => CalledMethod::Index(index),
            None => CalledMethod::Named(resolved.name.into()),
        };
        let head = CallHead {
            method,
            kind: head.kind,
            time_left: head.time_left,
            key: head.key.map(|key| body.slice_ref(key.as_bytes())),
            trace: head.trace,
            metadata: match head.metadata.is_empty() {
                true => Metadata::new(),
                false => head.metadata.to_owned(),
            },
            repeatable: head.repeatable,
            attempt: head.attempt,
        };
        body.advance(used);
        Ok(Some(head))
    }

    /// The method's name.
    pub fn name<'a>(&'a self, methods: &'a PeerMethods) -> &'a str {
        match &self.method {
            CalledMethod::Index(index) => methods.name(*index).unwrap_or_default(),
            CalledMethod::Named(name) => name,
        }
    }
}

/// A part of a request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestPart {
    /// The head, first.
    Head(Box<CallHead>),
    /// The whole payload, where the request is one. It comes when FIN has come, and nothing follows.
    Payload(Bytes),
    /// An item.
    Item(Bytes),
    /// There are no more items.
    End,
}

/// Why a request cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// In its head.
    #[error("{0}")]
    Head(#[from] HeadError),
    /// In its items.
    #[error("{0}")]
    Item(#[from] ItemError),
    /// The payload is longer than this end takes.
    #[error("the request exceeds {max} bytes")]
    TooLarge {
        /// What is accepted.
        max: usize,
    },
}

impl RequestError {
    /// The answer to such a request.
    pub fn failure(&self) -> Failure {
        match self {
            RequestError::Head(error) => error.failure(),
            RequestError::Item(error) => error.failure(),
            RequestError::TooLarge { .. } => {
                let mut failure = Failure::refused(Code::ResourceExhausted, super::Reason::TooLarge);
                failure.message = self.to_string();
                failure
            }
        }
    }
}

#[derive(Debug)]
enum RequestStage {
    Head,
    Payload,
    Items(ItemReader),
    Done,
    Failed(RequestError),
}

/// Reads a request as it comes. [`push`](Self::push) and [`finish`](Self::finish) what the stream gives,
/// then [`next`](Self::next) until there is none.
#[derive(Debug)]
pub struct RequestReader {
    limits: Limits,
    stage: RequestStage,
    gather: Gather,
    finished: bool,
}

impl RequestReader {
    /// A reader at the start of a stream.
    pub fn new(limits: Limits) -> RequestReader {
        RequestReader {
            limits,
            stage: RequestStage::Head,
            gather: Gather::default(),
            finished: false,
        }
    }

    /// Adds what the stream gave.
    pub fn push(&mut self, data: Bytes) {
        match &mut self.stage {
            RequestStage::Items(items) => items.push(data),
            RequestStage::Head | RequestStage::Payload => self.gather.push(data),
            RequestStage::Done | RequestStage::Failed(_) => {}
        }
    }

    /// FIN came.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        match &self.stage {
            RequestStage::Items(items) => items.held(),
            _ => self.gather.len(),
        }
    }

    /// The next part, or `None` until more comes.
    ///
    /// # Errors
    /// [`RequestError`], and the same ever after: answer with [`RequestError::failure`] and stop reading.
    pub fn next(&mut self, methods: &mut PeerMethods) -> Result<Option<RequestPart>, RequestError> {
        let part = self.advance(methods);
        if let Err(error) = part {
            self.stage = RequestStage::Failed(error);
            self.gather = Gather::default();
        }
        part
    }

    fn advance(&mut self, methods: &mut PeerMethods) -> Result<Option<RequestPart>, RequestError> {
        match &mut self.stage {
            RequestStage::Failed(error) => Err(*error),
            RequestStage::Done => Ok(None),
            RequestStage::Head => {
                let mut body = self.gather.take();
                let head = CallHead::take(&mut body, self.finished, methods)?;
                let Some(head) = head else {
                    self.gather.push(body);
                    return Ok(None);
                };
                self.stage = match head.kind.request_items() {
                    false => {
                        self.gather.push(body);
                        RequestStage::Payload
                    }
                    true => {
                        let mut items = ItemReader::new(self.limits.max_item);
                        items.push(body);
                        RequestStage::Items(items)
                    }
                };
                Ok(Some(RequestPart::Head(Box::new(head))))
            }
            RequestStage::Payload => {
                let max = self.limits.max_payload;
                if self.gather.len() > max {
                    return Err(RequestError::TooLarge { max });
                }
                if !self.finished {
                    return Ok(None);
                }
                self.stage = RequestStage::Done;
                Ok(Some(RequestPart::Payload(self.gather.take())))
            }
            RequestStage::Items(items) => match items.next()? {
                Some(Piece::Item(item)) => Ok(Some(RequestPart::Item(item))),
                Some(Piece::EndMark) => Err(ItemError::EndMark.into()),
                None if self.finished => {
                    items.finish()?;
                    self.stage = RequestStage::Done;
                    Ok(Some(RequestPart::End))
                }
                None => Ok(None),
            },
        }
    }
}

/// A part of an answer that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerPart {
    /// The call is being answered; the callee has the method's name.
    Head(Metadata),
    /// The whole payload, where the answer is one. [`AnswerPart::End`] follows.
    Payload(Bytes),
    /// An item.
    Item(Bytes),
    /// The answer is over.
    End {
        /// What the callee added at the end.
        trailers: Metadata,
        /// Success, or the failure.
        result: Result<(), Failure>,
    },
}

#[derive(Debug)]
enum AnswerStage {
    Head,
    Payload,
    Items(ItemReader),
    /// Behind the end mark.
    Trailers,
    /// Code and metadata of a failure were read; it goes on to FIN.
    Failure(Code, Metadata),
    /// Success was said; nothing may follow but FIN.
    Over(Metadata),
    Done,
    Failed(AnswerError),
}

/// Reads an answer as it comes, as [`RequestReader`] does a request.
#[derive(Debug)]
pub struct AnswerReader {
    limits: Limits,
    items: bool,
    stage: AnswerStage,
    gather: Gather,
    finished: bool,
}

impl AnswerReader {
    /// A reader at the start of the answer to a call of this kind.
    pub fn new(kind: CallKind, limits: Limits) -> AnswerReader {
        AnswerReader {
            limits,
            items: kind.answer_items(),
            stage: AnswerStage::Head,
            gather: Gather::default(),
            finished: false,
        }
    }

    /// Adds what the stream gave.
    pub fn push(&mut self, data: Bytes) {
        match &mut self.stage {
            AnswerStage::Items(items) => items.push(data),
            AnswerStage::Failed(_) => {}
            _ => self.gather.push(data),
        }
    }

    /// FIN came.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Whether the head of the answer was read: [`MethodTable::handle_answer`](super::MethodTable::handle_answer).
    pub fn has_begun(&self) -> bool {
        !matches!(self.stage, AnswerStage::Head | AnswerStage::Failed(_))
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        match &self.stage {
            AnswerStage::Items(items) => items.held(),
            _ => self.gather.len(),
        }
    }

    /// Steps onto the answer's next item, which [`item`](Self::item) then shows: [`ItemReader::step`].
    #[inline]
    pub fn step(&mut self) -> bool {
        match &mut self.stage {
            AnswerStage::Items(items) => items.step(),
            _ => false,
        }
    }

    /// The item that was [stepped](Self::step) onto; empty once anything else was asked for.
    #[inline]
    pub fn item(&self) -> &[u8] {
        match &self.stage {
            AnswerStage::Items(items) => items.item(),
            _ => &[],
        }
    }

    /// The next part, or `None` until more comes; `None` for ever after [`AnswerPart::End`].
    ///
    /// # Errors
    /// [`AnswerError`], and the same ever after. The call may have been executed.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<AnswerPart>, AnswerError> {
        let part = self.advance();
        if let Err(error) = part {
            self.stage = AnswerStage::Failed(error);
            self.gather = Gather::default();
        }
        part
    }

    fn advance(&mut self) -> Result<Option<AnswerPart>, AnswerError> {
        loop {
            match &mut self.stage {
                AnswerStage::Failed(error) => return Err(*error),
                AnswerStage::Done => {
                    return match self.gather.len() {
                        0 => Ok(None),
                        _ => Err(AnswerError::AfterEnd),
                    };
                }
                AnswerStage::Head => {
                    let Some((code, metadata)) = self.take_head()? else {
                        return Ok(None);
                    };
                    if code != Code::Ok {
                        self.stage = AnswerStage::Failure(code, metadata);
                        continue;
                    }
                    self.stage = match self.items {
                        false => AnswerStage::Payload,
                        true => {
                            let mut items = ItemReader::new(self.limits.max_item);
                            items.push(self.gather.take());
                            AnswerStage::Items(items)
                        }
                    };
                    return Ok(Some(AnswerPart::Head(metadata)));
                }
                AnswerStage::Payload => {
                    let max = self.limits.max_payload;
                    if self.gather.len() > max {
                        return Err(AnswerError::TooLarge { max });
                    }
                    if !self.finished {
                        return Ok(None);
                    }
                    self.stage = AnswerStage::Over(Metadata::new());
                    return Ok(Some(AnswerPart::Payload(self.gather.take())));
                }
                AnswerStage::Items(items) => match items.next()? {
                    Some(Piece::Item(item)) => return Ok(Some(AnswerPart::Item(item))),
                    Some(Piece::EndMark) => {
                        self.gather.push(std::mem::take(items).into_rest());
                        self.stage = AnswerStage::Trailers;
                    }
                    None if self.finished => {
                        items.finish()?;
                        self.stage = AnswerStage::Over(Metadata::new());
                    }
                    None => return Ok(None),
                },
                AnswerStage::Trailers => {
                    let Some((code, trailers)) = self.take_head()? else {
                        return Ok(None);
                    };
                    self.stage = match code {
                        Code::Ok => AnswerStage::Over(trailers),
                        code => AnswerStage::Failure(code, trailers),
                    };
                }
                AnswerStage::Over(trailers) => {
                    if self.gather.len() > 0 {
                        return Err(AnswerError::AfterEnd);
                    }
                    if !self.finished {
                        return Ok(None);
                    }
                    let trailers = std::mem::take(trailers);
                    self.stage = AnswerStage::Done;
                    return Ok(Some(AnswerPart::End {
                        trailers,
                        result: Ok(()),
                    }));
                }
                AnswerStage::Failure(code, trailers) => {
                    if self.gather.len() > MAX_MESSAGE + MAX_DETAILS + 64 {
                        return Err(AnswerError::DetailsTooLong);
                    }
                    if !self.finished {
                        return Ok(None);
                    }
                    let failure = Failure::decode(*code, self.gather.take())?;
                    let trailers = std::mem::take(trailers);
                    self.stage = AnswerStage::Done;
                    return Ok(Some(AnswerPart::End {
                        trailers,
                        result: Err(failure),
                    }));
                }
            }
        }
    }

    fn take_head(&mut self) -> Result<Option<(Code, Metadata)>, AnswerError> {
        let mut body = self.gather.take();
        let head = take_head(&mut body)?;
        self.gather.push(body);
        match head {
            None if self.finished => Err(AnswerError::Cut),
            head => Ok(head),
        }
    }
}
