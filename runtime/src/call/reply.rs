//! The answer to a call, and its conversions.

use bytes::Bytes;
use sheetbend_core::request::Metadata;

/// An answer that is a success: a payload, and keys and values that go before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The payload.
    pub payload: Bytes,
    /// Keys and values; mostly none.
    pub metadata: Metadata,
}

impl Reply {
    /// An answer of one payload.
    pub fn new(payload: impl Into<Bytes>) -> Reply {
        Reply {
            payload: payload.into(),
            metadata: Metadata::new(),
        }
    }

    /// Sets the keys and values that go before the payload.
    pub fn with_metadata(mut self, metadata: Metadata) -> Reply {
        self.metadata = metadata;
        self
    }
}

macro_rules! from_payload {
    ($($type:ty),*) => {$(
        impl From<$type> for Reply {
            fn from(payload: $type) -> Reply {
                Reply::new(payload)
            }
        }
    )*};
}

from_payload!(
    Bytes,
    bytes::BytesMut,
    Vec<u8>,
    String,
    &'static str,
    &'static [u8],
    Box<[u8]>
);

impl From<()> for Reply {
    fn from((): ()) -> Reply {
        Reply::default()
    }
}

/// Trailers: what a handler has to say behind its items.
impl From<Metadata> for Reply {
    fn from(metadata: Metadata) -> Reply {
        Reply::default().with_metadata(metadata)
    }
}
