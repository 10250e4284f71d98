//! What a class of streams may be told: its name, its treatment, its limits (REQUIREMENTS W7; PROTOCOL 2.3).

use std::borrow::Cow;

use super::config::Config;
use super::event::Delivery;
use crate::handshake::{MAX_CREDIT, MAX_STREAM_LIMIT, StreamLimits};
use crate::wire::Class;

/// The longest name of a class, in bytes.
pub const MAX_CLASS_NAME: usize = 64;

/// How a class of streams is treated by this end. What it announces to the peer, how many streams it may open and
/// how many bytes it may send at first, stands in [`Params`](crate::handshake::Params).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassConfig {
    /// What the program calls it. It does not travel: both ends are to mean the same by the class's number.
    pub name: Cow<'static, str>,
    /// 0 goes first, 7 last. Streams of one urgency share in round robin.
    pub urgency: u8,
    /// How its messages travel where the sender does not say.
    pub delivery: Delivery,
    /// The class's receive window grows up to this, in bytes; `None`: [`Config::max_class_window`].
    pub max_window: Option<u64>,
    /// The receive window of one of its streams grows up to this; `None`: [`Config::max_stream_window`].
    pub max_stream_window: Option<u64>,
    /// Its part of [`Config::max_message_queue`] at most, in bytes; `None`: all that the other classes leave.
    pub max_queue: Option<u64>,
    /// Its streams and reliable messages go on two paths at once, where there are two.
    pub redundant: bool,
}

impl ClassConfig {
    /// What the class is unless configured: the first four have names and urgencies of their own.
    pub fn new(class: Class) -> ClassConfig {
        let names = ["control", "requests", "events", "bulk"];
        ClassConfig {
            name: Cow::Borrowed(names.get(class.index()).copied().unwrap_or_default()),
            urgency: class.default_urgency(),
            delivery: Delivery::Ordered,
            max_window: None,
            max_stream_window: None,
            max_queue: None,
            redundant: false,
        }
    }
}

/// Why a class cannot be set up so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClassError {
    /// It has no name, or one that is too long.
    #[error("the name of a class has 1 to {MAX_CLASS_NAME} bytes, not {0}")]
    Name(usize),
    /// Another class has that name.
    #[error("class {} is called `{name}` already", .class.number())]
    Taken {
        /// The name.
        name: String,
        /// The class that has it.
        class: Class,
    },
    /// An urgency above 7.
    #[error("urgency {0}: 0 goes first, 7 last")]
    Urgency(u8),
    /// A window without a byte, or more than can be said.
    #[error("a window of {0} bytes: 1 to 2^62 are possible")]
    Window(u64),
    /// More streams than can be said.
    #[error("{0} streams: at most 2^40 can be allowed")]
    Streams(u64),
    /// A message queue without a byte.
    #[error("a message queue of no bytes")]
    Queue,
}

/// A class of the program's own, or one of the first four as the program wants it. What is not said stays as it was.
///
/// ```
/// use sheetbend_core::session::{ClassSettings, Config, Delivery};
/// use sheetbend_core::wire::Class;
///
/// # fn main() -> Result<(), sheetbend_core::session::ClassError> {
/// let telemetry = Class::USER[0];
/// let mut config = Config::default();
/// config.class(
///     telemetry,
///     ClassSettings::new("telemetry")
///         .urgency(5)
///         .delivery(Delivery::Unordered)
///         .window(64 * 1024),
/// )?;
/// assert_eq!(config.class_named("telemetry"), Some(telemetry));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ClassSettings {
    name: Cow<'static, str>,
    urgency: Option<u8>,
    delivery: Option<Delivery>,
    streams: Option<StreamLimits>,
    window: Option<u64>,
    stream_window: Option<u64>,
    queue: Option<u64>,
    redundant: Option<bool>,
}

impl ClassSettings {
    /// A class of this name, else as it was.
    pub fn new(name: impl Into<Cow<'static, str>>) -> ClassSettings {
        ClassSettings {
            name: name.into(),
            urgency: None,
            delivery: None,
            streams: None,
            window: None,
            stream_window: None,
            queue: None,
            redundant: None,
        }
    }

    /// 0 goes first, 7 last.
    #[must_use]
    pub fn urgency(mut self, urgency: u8) -> ClassSettings {
        self.urgency = Some(urgency);
        self
    }

    /// How its messages travel where the sender does not say.
    #[must_use]
    pub fn delivery(mut self, delivery: Delivery) -> ClassSettings {
        self.delivery = Some(delivery);
        self
    }

    /// How many streams of each kind the peer may have open in it at a time.
    #[must_use]
    pub fn streams(mut self, limits: StreamLimits) -> ClassSettings {
        self.streams = Some(limits);
        self
    }

    /// How many bytes of the class may be on their way to this end or wait to be read; it does not grow.
    #[must_use]
    pub fn window(mut self, bytes: u64) -> ClassSettings {
        self.window = Some(bytes);
        self
    }

    /// The same for each of its streams.
    #[must_use]
    pub fn stream_window(mut self, bytes: u64) -> ClassSettings {
        self.stream_window = Some(bytes);
        self
    }

    /// How many bytes of messages may wait here to go out or to be acknowledged.
    #[must_use]
    pub fn queue(mut self, bytes: u64) -> ClassSettings {
        self.queue = Some(bytes);
        self
    }

    /// Its streams and reliable messages go on two paths at once, where there are two: twice the bytes, and no gap when
    /// either dies.
    #[must_use]
    pub fn redundant(mut self, yes: bool) -> ClassSettings {
        self.redundant = Some(yes);
        self
    }

    fn check(&self) -> Result<(), ClassError> {
        if self.name.is_empty() || self.name.len() > MAX_CLASS_NAME {
            return Err(ClassError::Name(self.name.len()));
        }
        if let Some(urgency) = self.urgency.filter(|urgency| *urgency > 7) {
            return Err(ClassError::Urgency(urgency));
        }
        for window in [self.window, self.stream_window].into_iter().flatten() {
            if window == 0 || window > MAX_CREDIT {
                return Err(ClassError::Window(window));
            }
        }
        if let Some(limits) = self.streams {
            let most = limits.bi.max(limits.uni).max(limits.unordered);
            if most > MAX_STREAM_LIMIT {
                return Err(ClassError::Streams(most));
            }
        }
        if self.queue == Some(0) {
            return Err(ClassError::Queue);
        }
        Ok(())
    }
}

impl Config {
    /// Sets a class up.
    ///
    /// # Errors
    /// When another class has the name, or a setting is out of its range. Nothing has changed then.
    pub fn class(&mut self, class: Class, settings: ClassSettings) -> Result<&mut Config, ClassError> {
        settings.check()?;
        if let Some(other) = self.class_named(&settings.name)
            && other != class
        {
            return Err(ClassError::Taken {
                name: settings.name.into_owned(),
                class: other,
            });
        }
        let index = class.index();
        let own = &mut self.classes[index];
        own.name = settings.name;
        own.urgency = settings.urgency.unwrap_or(own.urgency);
        own.delivery = settings.delivery.unwrap_or(own.delivery);
        own.max_window = settings.window.or(own.max_window);
        own.max_stream_window = settings.stream_window.or(own.max_stream_window);
        own.max_queue = settings.queue.or(own.max_queue);
        own.redundant = settings.redundant.unwrap_or(own.redundant);
        let params = &mut self.params;
        params.max_streams[index] = settings.streams.unwrap_or(params.max_streams[index]);
        params.max_data[index] = settings.window.unwrap_or(params.max_data[index]);
        let stream = settings.stream_window.unwrap_or(params.max_stream_data[index]);
        // No stream may have more than its class.
        params.max_stream_data[index] = stream.min(params.max_data[index]);
        Ok(self)
    }

    /// The class of this name.
    pub fn class_named(&self, name: &str) -> Option<Class> {
        Class::ALL
            .into_iter()
            .find(|class| !name.is_empty() && self.classes[class.index()].name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_set_up_whole() {
        let mut config = Config::default();
        let class = Class::USER[1];
        let limits = StreamLimits {
            bi: 2,
            uni: 3,
            unordered: 4,
        };
        let settings = ClassSettings::new("video")
            .urgency(1)
            .delivery(Delivery::Unordered)
            .streams(limits)
            .window(30_000)
            .stream_window(50_000)
            .queue(9000);
        config.class(class, settings).expect("sound");
        let own = &config.classes[5];
        assert_eq!((own.name.as_ref(), own.urgency), ("video", 1));
        assert_eq!(own.delivery, Delivery::Unordered);
        assert_eq!(own.max_queue, Some(9000));
        assert_eq!(config.params.max_streams[5], limits);
        assert_eq!(config.params.max_data[5], 30_000);
        assert_eq!(config.params.max_stream_data[5], 30_000, "no more than the class");
        assert_eq!(config.class_named("video"), Some(class));
        assert_eq!(config.class_named("bulk"), Some(Class::BULK));
        assert_eq!(config.class_named(""), None);
        // What is not said again stays.
        config.class(class, ClassSettings::new("film")).expect("sound");
        assert_eq!(config.classes[5].urgency, 1);
        assert_eq!(config.class_named("video"), None);
    }

    #[test]
    fn mistakes_are_named() {
        let mut config = Config::default();
        let mut refused = |settings| match config.class(Class::USER[0], settings) {
            Ok(_) => panic!("it was taken"),
            Err(error) => error,
        };
        let named = || ClassSettings::new("own");
        assert_eq!(refused(ClassSettings::new("")), ClassError::Name(0));
        assert_eq!(refused(ClassSettings::new("x".repeat(65))), ClassError::Name(65));
        let taken = refused(ClassSettings::new("bulk"));
        assert_eq!(taken.to_string(), "class 3 is called `bulk` already");
        assert_eq!(refused(named().urgency(8)), ClassError::Urgency(8));
        assert_eq!(refused(named().window(0)), ClassError::Window(0));
        assert_eq!(
            refused(named().stream_window(u64::MAX)),
            ClassError::Window(u64::MAX)
        );
        assert_eq!(refused(named().queue(0)), ClassError::Queue);
        let limits = StreamLimits {
            bi: u64::MAX,
            ..StreamLimits::DEFAULT
        };
        assert_eq!(refused(named().streams(limits)), ClassError::Streams(u64::MAX));
        assert_eq!(config.classes[4], ClassConfig::new(Class::USER[0]));
    }
}
