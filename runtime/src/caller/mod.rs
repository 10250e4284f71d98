//! Calls with a policy: retries, hedges and circuit breakers over one session or many.
//!
//! The decisions are the core's ([`sheetbend_core::policy`]); this drives them.

mod attempt;
mod hedged;
mod retried;
mod target;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use sheetbend_core::policy::breaker::{Breakers, Config as BreakerConfig, MethodId, State as BreakerState};
use sheetbend_core::policy::budget::{Budget, BudgetPolicy};
use sheetbend_core::policy::hedge::{HedgePolicy, Latencies};
use sheetbend_core::policy::retry::{Marks, RetryPolicy};
use sheetbend_core::request::{
    CallError, Executed, HeadError, IdempotencyKey, Metadata, MetadataError, TraceContext,
};
use sheetbend_core::rng::Rng;
use sheetbend_core::time::Timestamp;

use crate::call::Reply;
use crate::call::options::call_options;
use crate::calls::Options;
use crate::rt::Runtime;

pub use target::{Pick, Picked, RoundRobin, Target, TargetId};

/// Methods of which latencies are kept, and that breakers tell apart.
const METHODS: usize = 1024;

/// Collects the policy of a [`Caller`].
pub struct CallerBuilder {
    target: Box<dyn Target>,
    retry: RetryPolicy,
    hedge: Option<HedgePolicy>,
    budget: BudgetPolicy,
    breakers: Option<BreakerConfig>,
}

impl CallerBuilder {
    /// How calls are retried.
    pub fn retry(mut self, policy: RetryPolicy) -> CallerBuilder {
        self.retry = policy;
        self
    }

    /// Hedges the calls that are safe to repeat ([`PolicyCall::repeatable`], [`PolicyCall::key`]), instead of
    /// retrying them.
    pub fn hedge(mut self, policy: HedgePolicy) -> CallerBuilder {
        self.hedge = Some(policy);
        self
    }

    /// How many retries and hedges may be added to the calls, all of them together.
    pub fn budget(mut self, policy: BudgetPolicy) -> CallerBuilder {
        self.budget = policy;
        self
    }

    /// Leaves a target alone that fails most calls of a method, for a while.
    pub fn breakers(mut self, config: BreakerConfig) -> CallerBuilder {
        self.breakers = Some(config);
        self
    }

    /// The caller.
    pub fn build(self, runtime: Arc<dyn Runtime>) -> Caller {
        let now = runtime.now();
        let state = State {
            budget: Budget::new(self.budget, now),
            breakers: self
                .breakers
                .map(|config| Breakers::new(config, runtime.seed(), now)),
            methods: BTreeMap::new(),
            rng: Rng::from_seed(runtime.seed()),
            stats: CallerStats::default(),
        };
        Caller {
            inner: Arc::new(Inner {
                target: self.target,
                runtime,
                retry: self.retry,
                hedge: self.hedge,
                state: Mutex::new(state),
            }),
        }
    }
}

/// What a [`Caller`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallerStats {
    /// Calls.
    pub calls: u64,
    /// Attempts of them, the first ones included.
    pub attempts: u64,
    /// Calls that succeeded.
    pub succeeded: u64,
    /// Attempts that a breaker held back; they are among `attempts`.
    pub held_back: u64,
}

struct Method {
    id: MethodId,
    latencies: Latencies,
}

struct State {
    budget: Budget,
    breakers: Option<Breakers>,
    methods: BTreeMap<Box<str>, Method>,
    rng: Rng,
    stats: CallerStats,
}

impl State {
    /// What is known of a method; `None` when there are too many.
    fn method(&mut self, name: &str) -> Option<&mut Method> {
        if !self.methods.contains_key(name) {
            if self.methods.len() >= METHODS {
                return None;
            }
            let method = Method {
                id: MethodId(self.methods.len() as u64 + 1),
                latencies: Latencies::new(),
            };
            self.methods.insert(name.into(), method);
        }
        self.methods.get_mut(name)
    }

    fn method_id(&mut self, name: &str) -> MethodId {
        self.method(name).map_or(MethodId(0), |method| method.id)
    }
}

struct Inner {
    target: Box<dyn Target>,
    runtime: Arc<dyn Runtime>,
    retry: RetryPolicy,
    hedge: Option<HedgePolicy>,
    state: Mutex<State>,
}

/// Makes calls by a policy. Clones share its budget and its breakers.
///
/// ```
/// # use std::time::Duration;
/// # use sheetbend_runtime::{CallError, Caller, Client, RetryPolicy};
/// # async fn example(client: Client, runtime: std::sync::Arc<dyn sheetbend_runtime::Runtime>) -> Result<(), CallError> {
/// // A client makes another session where one is lost.
/// let caller = Caller::builder(client).retry(RetryPolicy::default()).build(runtime);
/// let reply = caller
///     .call("orders.list")
///     .repeatable()
///     .timeout(Duration::from_secs(5))
///     .unary("")
///     .await?;
/// # let _ = reply;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Caller {
    inner: Arc<Inner>,
}

impl Caller {
    /// A builder for calls to a [`Session`](crate::Session), a [`Client`](crate::Client), a [`RoundRobin`] of such,
    /// or a target of your own, with the default policy of retries and without hedges and breakers.
    pub fn builder(target: impl Target) -> CallerBuilder {
        CallerBuilder {
            target: Box::new(target),
            retry: RetryPolicy::default(),
            hedge: None,
            budget: BudgetPolicy::default(),
            breakers: None,
        }
    }

    /// A call of a method.
    pub fn call<'a>(&'a self, method: &'a str) -> PolicyCall<'a> {
        PolicyCall {
            caller: self,
            method,
            deadline: None,
            options: None,
        }
    }

    /// A session for a call that the policy has no part in, such as one of items.
    ///
    /// # Errors
    /// When there is none: nothing was sent.
    pub async fn session(&self) -> Result<Picked, CallError> {
        self.inner
            .target
            .pick(Pick::default())
            .await
            .map_err(CallError::NotSent)
    }

    /// What it has done so far.
    pub fn stats(&self) -> CallerStats {
        self.inner.state.lock().stats
    }

    /// Where the breaker of a target and method stands; closed where there is none.
    pub fn breaker(&self, target: TargetId, method: &str) -> BreakerState {
        let mut state = self.inner.state.lock();
        let id = state.method_id(method);
        match &mut state.breakers {
            Some(breakers) => {
                breakers.handle_timeout(self.inner.runtime.now());
                breakers.state(target, id)
            }
            None => BreakerState::Closed,
        }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("stats", &self.stats()).finish()
    }
}

/// A call that is about to be made by a policy: [`Caller::call`].
#[derive(Clone)]
#[must_use = "a call is made by `unary`"]
pub struct PolicyCall<'a> {
    caller: &'a Caller,
    method: &'a str,
    deadline: Option<Timestamp>,
    options: Option<Box<Options>>,
}

/// What every attempt of a call says.
#[derive(Clone)]
struct Request {
    method: Box<str>,
    deadline: Option<Timestamp>,
    options: Option<Box<Options>>,
    payload: Bytes,
}

impl PolicyCall<'_> {
    fn now(&self) -> Timestamp {
        self.caller.inner.runtime.now()
    }

    call_options!();

    /// All that is said besides the method and the deadline.
    #[cfg(feature = "tower")]
    pub(crate) fn with(mut self, options: Option<Box<Options>>) -> Self {
        self.options = options;
        self
    }

    /// One payload there, one back. A call that may have been executed is sent again only if it is
    /// [`repeatable`](Self::repeatable) or has a [`key`](Self::key).
    ///
    /// # Errors
    /// That of the last attempt. It says *not executed* only if that holds for all of them.
    pub async fn unary(self, payload: impl Into<Bytes>) -> Result<Reply, CallError> {
        let PolicyCall {
            caller,
            method,
            deadline,
            options,
        } = self;
        let inner = &caller.inner;
        let marks = Marks {
            safe_to_repeat: options
                .as_ref()
                .is_some_and(|options| options.repeatable || !options.key.is_empty()),
            deadline,
        };
        let request = Request {
            method: method.into(),
            deadline,
            options,
            payload: payload.into(),
        };
        let outcome = match inner.hedge {
            Some(policy) if marks.safe_to_repeat => hedged::run(inner, policy, marks, request).await,
            _ => retried::run(inner, marks, request).await,
        };
        let stats = &mut inner.state.lock().stats;
        stats.calls += 1;
        stats.succeeded += u64::from(outcome.is_ok());
        outcome
    }
}

/// The error of a call, of which attempts before the last may have been executed.
fn truly(error: CallError, maybe: bool) -> CallError {
    match error {
        CallError::NotSent(cause) if maybe => CallError::MaybeExecuted(cause),
        CallError::Failed(failure) if maybe && failure.executed == Executed::No => {
            CallError::Failed(failure.with_executed(Executed::Maybe))
        }
        error => error,
    }
}
