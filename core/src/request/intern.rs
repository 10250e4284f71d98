//! Names of methods, sent once for each session. PROTOCOL 11.6.
//!
//! The caller numbers names. Each call of a method carries number and name until the caller has an answer
//! to one that did: then the callee's table has it, whatever became of the order of streams or of paths,
//! and from then on the number stands alone. An acknowledgement would not do: it says that the session has
//! the bytes, not that somebody has read them before a later stream is read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::HeadError;
use super::head::Method;

/// The most methods that are numbered, and the highest number. PROTOCOL 10.
pub const MAX_METHODS: u32 = 1024;
/// The most bytes of names that are numbered. PROTOCOL 10.
pub const MAX_METHOD_BYTES: usize = 64 * 1024;
/// The longest name, in bytes. PROTOCOL 10.
pub const MAX_METHOD_NAME: usize = 255;

/// A name that is no method's: empty, or over [`MAX_METHOD_NAME`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a method's name has 1 to {MAX_METHOD_NAME} bytes, not {len}")]
pub struct NameError {
    /// Its length in bytes.
    pub len: usize,
}

fn check(name: &str) -> Result<(), NameError> {
    match name.len() {
        1..=MAX_METHOD_NAME => Ok(()),
        len => Err(NameError { len }),
    }
}

struct Known {
    name: Arc<str>,
    /// The peer has answered a call that carried the name.
    confirmed: bool,
}

/// The caller's table of one session: numbers for the methods that it calls.
///
/// [`method`](Self::method) for each call; [`handle_answer`](Self::handle_answer) when the head of an
/// answer came to a call whose [`Method::defines`] gave an index. A new session needs a new table.
#[derive(Default)]
pub struct MethodTable {
    by_name: BTreeMap<Arc<str>, u32>,
    /// Number `n` at `n − 1`.
    known: Vec<Known>,
    bytes: usize,
}

impl MethodTable {
    /// An empty table.
    pub fn new() -> MethodTable {
        MethodTable::default()
    }

    /// How a call of `name` is to name its method. When the table is full the name goes along each time.
    ///
    /// # Errors
    /// [`NameError`]
    pub fn method<'a>(&mut self, name: &'a str) -> Result<Method<'a>, NameError> {
        if let Some(&index) = self.by_name.get(name) {
            return Ok(self.by_index(index, name));
        }
        check(name)?;
        let bytes = self.bytes.saturating_add(name.len());
        if self.known.len() >= MAX_METHODS as usize || bytes > MAX_METHOD_BYTES {
            return Ok(Method::Named(name));
        }
        self.bytes = bytes;
        let name_here: Arc<str> = name.into();
        self.known.push(Known {
            name: name_here.clone(),
            confirmed: false,
        });
        let index = self.known.len() as u32;
        self.by_name.insert(name_here, index);
        Ok(Method::Define { index, name })
    }

    fn by_index<'a>(&self, index: u32, name: &'a str) -> Method<'a> {
        match self.entry(index) {
            Some(known) if known.confirmed => Method::Index(index),
            _ => Method::Define { index, name },
        }
    }

    fn entry(&self, index: u32) -> Option<&Known> {
        self.known.get((index as usize).checked_sub(1)?)
    }

    /// An answer came to a call that carried the name of `index`, so the peer has it. An answer that says
    /// [`Reason::MalformedHead`](super::Reason::MalformedHead) does not count: the head was not read to its end.
    pub fn handle_answer(&mut self, index: u32) {
        let at = (index as usize).wrapping_sub(1);
        if let Some(known) = self.known.get_mut(at) {
            known.confirmed = true;
        }
    }

    /// How many methods are numbered.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The name of a number.
    pub fn name(&self, index: u32) -> Option<&str> {
        self.entry(index).map(|known| &*known.name)
    }
}

/// The method of a call that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved<'a> {
    /// Its number in this session, to look a handler up by; `None` when the caller has numbered too many.
    pub index: Option<u32>,
    /// Its name.
    pub name: &'a str,
}

/// The callee's table of one session: what the peer's numbers stand for.
///
/// Heads may come in any order: a head with a name may come after others with the same name, never after
/// one with the number alone. At most [`MAX_METHODS`] numbers and [`MAX_METHOD_BYTES`] of names.
#[derive(Default)]
pub struct PeerMethods {
    /// Number `n` at `n − 1`.
    names: Vec<Option<Box<str>>>,
    bytes: usize,
}

impl PeerMethods {
    /// An empty table.
    pub fn new() -> PeerMethods {
        PeerMethods::default()
    }

    /// What `method`, as it came, means; remembers what it defines.
    ///
    /// To be called for every head that parses, also of calls that are then refused.
    ///
    /// # Errors
    /// [`HeadError::UnknownIndex`], [`HeadError::IndexTaken`], [`HeadError::TableFull`]: that call fails.
    pub fn resolve<'a>(&'a mut self, method: Method<'a>) -> Result<Resolved<'a>, HeadError> {
        let index = match method {
            Method::Named(name) => return Ok(Resolved { index: None, name }),
            Method::Index(index) => index,
            Method::Define { index, name } => {
                self.define(index, name)?;
                index
            }
        };
        match self.name(index) {
            Some(name) => Ok(Resolved {
                index: Some(index),
                name,
            }),
            None => Err(HeadError::UnknownIndex { index }),
        }
    }

    fn define(&mut self, index: u32, name: &str) -> Result<(), HeadError> {
        let at = match (index as usize).checked_sub(1) {
            Some(at) if index <= MAX_METHODS => at,
            _ => {
                return Err(HeadError::IndexTooLarge {
                    index: u64::from(index),
                });
            }
        };
        if let Some(Some(known)) = self.names.get(at) {
            return match &**known == name {
                true => Ok(()),
                false => Err(HeadError::IndexTaken { index }),
            };
        }
        let bytes = self.bytes.saturating_add(name.len());
        if bytes > MAX_METHOD_BYTES {
            return Err(HeadError::TableFull);
        }
        self.bytes = bytes;
        if self.names.len() <= at {
            self.names.resize(at + 1, None);
        }
        if let Some(place) = self.names.get_mut(at) {
            *place = Some(name.into());
        }
        Ok(())
    }

    /// The name of a number, or `None`.
    pub fn name(&self, index: u32) -> Option<&str> {
        self.names.get((index as usize).checked_sub(1)?)?.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_goes_along_until_an_answer_came() {
        let mut ours = MethodTable::new();
        assert_eq!(
            ours.method("echo"),
            Ok(Method::Define {
                index: 1,
                name: "echo"
            })
        );
        assert_eq!(
            ours.method("time"),
            Ok(Method::Define {
                index: 2,
                name: "time"
            })
        );
        assert_eq!(
            ours.method("echo"),
            Ok(Method::Define {
                index: 1,
                name: "echo"
            })
        );
        ours.handle_answer(1);
        assert_eq!(ours.method("echo"), Ok(Method::Index(1)));
        assert_eq!(
            ours.method("time"),
            Ok(Method::Define {
                index: 2,
                name: "time"
            })
        );
        for unknown in [0, 9, u32::MAX] {
            ours.handle_answer(unknown);
        }
        assert_eq!((ours.name(2), ours.name(0), ours.len()), (Some("time"), None, 2));
    }

    #[test]
    fn limits_of_the_caller() {
        let mut ours = MethodTable::new();
        assert_eq!(ours.method(""), Err(NameError { len: 0 }));
        assert!(ours.method(&"x".repeat(256)).is_err());
        for n in 0..MAX_METHODS {
            assert!(ours.method(&format!("m{n}")).unwrap().defines().is_some());
        }
        assert_eq!(ours.method("more"), Ok(Method::Named("more")));
        let mut ours = MethodTable::new();
        let named = (0..300).filter(|n| ours.method(&format!("{n:0>255}")).unwrap().defines().is_none());
        assert_eq!(named.count(), 300 - MAX_METHOD_BYTES / 255);
    }

    #[test]
    fn the_callee_takes_any_order_and_bounds_what_it_keeps() {
        let mut theirs = PeerMethods::new();
        let high = Method::Define {
            index: 1024,
            name: "last",
        };
        assert_eq!(theirs.resolve(high).unwrap().index, Some(1024));
        assert_eq!(
            theirs.resolve(Method::Index(3)),
            Err(HeadError::UnknownIndex { index: 3 })
        );
        assert_eq!(theirs.resolve(high).unwrap().name, "last");
        assert_eq!(
            theirs.resolve(Method::Define {
                index: 1024,
                name: "other"
            }),
            Err(HeadError::IndexTaken { index: 1024 })
        );
        assert_eq!(
            theirs.resolve(Method::Define {
                index: 1025,
                name: "x"
            }),
            Err(HeadError::IndexTooLarge { index: 1025 })
        );
        assert_eq!(theirs.resolve(Method::Index(1024)).unwrap().name, "last");
        assert_eq!(
            theirs.resolve(Method::Named("once")).unwrap(),
            Resolved {
                index: None,
                name: "once"
            }
        );
        let long = "y".repeat(255);
        let full = (1..1024).find(|&index| theirs.resolve(Method::Define { index, name: &long }).is_err());
        assert_eq!(full, Some(1 + (MAX_METHOD_BYTES as u32 - 4) / 255));
    }

    /// Calls go out, heads arrive in any order, answers too, some calls die with their path and come
    /// later or never: no head that arrives is ever one that the callee cannot resolve.
    #[test]
    fn no_order_of_arrival_breaks_it() {
        bolero::check!().with_type::<Vec<(u8, u8)>>().for_each(|steps| {
            let names = ["a", "bb", "ccc", "dddd"];
            let (mut ours, mut theirs) = (MethodTable::new(), PeerMethods::new());
            let mut under_way: Vec<(&str, Method<'static>)> = Vec::new();
            let mut answers: Vec<u32> = Vec::new();
            for &(what, which) in steps {
                match what % 4 {
                    0 | 1 => {
                        let name = names[usize::from(which) % names.len()];
                        under_way.push((name, ours.method(name).unwrap()));
                    }
                    2 if !under_way.is_empty() => {
                        let (name, method) = under_way.remove(usize::from(which) % under_way.len());
                        // A quarter are reset before they are read.
                        if which % 4 != 3 {
                            assert_eq!(theirs.resolve(method).unwrap().name, name);
                            answers.extend(method.defines());
                        }
                    }
                    3 if !answers.is_empty() => {
                        ours.handle_answer(answers.swap_remove(usize::from(which) % answers.len()));
                    }
                    _ => {}
                }
            }
        });
    }
}
