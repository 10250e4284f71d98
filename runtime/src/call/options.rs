//! What may be said of a call, the same wherever one is made.

/// The methods of a builder that has `deadline: Option<Timestamp>`, `options: Option<Box<Options>>` and `now()`.
macro_rules! call_options {
    () => {
        fn options(&mut self) -> &mut Options {
            self.options.get_or_insert_default()
        }

        /// Keys and values that go with the request.
        pub fn metadata(mut self, metadata: Metadata) -> Self {
            self.options().metadata = metadata;
            self
        }

        /// Adds one key with its value to those that go with the request.
        ///
        /// # Errors
        /// When the key is no key, or all of them are too much: PROTOCOL 11.3.
        pub fn header(mut self, key: &str, value: &[u8]) -> Result<Self, MetadataError> {
            let options = self.options();
            let entries = options.metadata.iter().chain([(key, value)]);
            options.metadata = Metadata::from_entries(entries)?;
            Ok(self)
        }

        /// When the call is to be done: then it fails here, and the work at the other end stops. The earlier one
        /// counts if it is set more than once.
        pub fn deadline(mut self, at: Timestamp) -> Self {
            self.deadline = Some(self.deadline.map_or(at, |before| before.min(at)));
            self
        }

        /// A [`deadline`](Self::deadline), from now.
        pub fn timeout(self, left: Duration) -> Self {
            let now = self.now();
            self.deadline(now + left)
        }

        /// Executed once under this key, 1 to 64 bytes, however often it is sent (PROTOCOL 11.8).
        ///
        /// # Errors
        /// When the key is empty or too long.
        pub fn key(mut self, key: impl Into<Bytes>) -> Result<Self, HeadError> {
            let key = key.into();
            IdempotencyKey::new(&key)?;
            self.options().key = key;
            Ok(self)
        }

        /// The trace that the work at the other end belongs to.
        pub fn trace(mut self, trace: TraceContext) -> Self {
            self.options().trace = Some(trace);
            self
        }

        /// Executing this more than once does no harm.
        pub fn repeatable(mut self) -> Self {
            self.options().repeatable = true;
            self
        }

        /// How many attempts of this call came before.
        pub fn attempt(mut self, number: u64) -> Self {
            if number > 0 {
                self.options().attempt = number;
            }
            self
        }
    };
}

pub(crate) use call_options;
