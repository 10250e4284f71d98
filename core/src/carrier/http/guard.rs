//! Which pages and which names may reach us. PROTOCOL 14.5.

use super::{HttpError, RequestHead};

/// Whom a web-facing carrier serves.
///
/// A browser lets any page open a WebSocket to any host (cross-site hijacking), and any name may be made to
/// resolve to our address (DNS rebinding); it tells both in `Origin` and `Host`. What is no browser sends no
/// `Origin`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    origins: Vec<String>,
    any_origin: bool,
    hosts: Vec<String>,
    any_host: bool,
}

impl Guard {
    /// Serves pages of this origin: `https://app.example.com`.
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Guard {
        self.origins.push(origin.into().to_ascii_lowercase());
        self
    }

    /// Serves pages of every origin. For what is meant for the whole web: a page anywhere can then speak to
    /// this server from the browsers of its visitors.
    pub fn allow_any_origin(mut self) -> Guard {
        self.any_origin = true;
        self
    }

    /// Answers to this host name, without a port, beside IP addresses and `localhost`. Once there is one in the
    /// list, a name that is not in it is refused whoever asks.
    pub fn allow_host(mut self, host: impl Into<String>) -> Guard {
        self.hosts.push(host.into().to_ascii_lowercase());
        self
    }

    /// Answers to every host name.
    pub fn allow_any_host(mut self) -> Guard {
        self.any_host = true;
        self
    }

    /// Whether the request may go on. `encrypted`: it came over TLS that ends here, where no name can be
    /// another's; `page`: only a page would have left `Origin` out.
    ///
    /// # Errors
    /// [`HttpError::Refused`].
    pub fn check(&self, head: &RequestHead, encrypted: bool, page: bool) -> Result<(), HttpError> {
        let host = head.headers.single("host")?.unwrap_or_default();
        let origin = head.headers.single("origin")?;
        let must_know = !self.hosts.is_empty() || origin.is_some() || page;
        if must_know && !self.any_host && !self.knows_host(host, encrypted) {
            return Err(HttpError::Refused {
                status: 421,
                why: "this server does not answer to that Host",
            });
        }
        let Some(origin) = origin else { return Ok(()) };
        let scheme = if encrypted { "https://" } else { "http://" };
        let own = origin
            .strip_prefix(scheme)
            .is_some_and(|rest| rest.eq_ignore_ascii_case(host));
        let listed = self
            .origins
            .iter()
            .any(|listed| listed.eq_ignore_ascii_case(origin));
        if self.any_origin || own || listed {
            return Ok(());
        }
        Err(HttpError::Refused {
            status: 403,
            why: "pages of that Origin are not served",
        })
    }

    fn knows_host(&self, host: &str, encrypted: bool) -> bool {
        let name = without_port(host);
        let bare = name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(name);
        let literal = bare.parse::<core::net::IpAddr>().is_ok();
        let local = name.eq_ignore_ascii_case("localhost");
        let listed = self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name));
        literal || local || listed || (encrypted && self.hosts.is_empty())
    }
}

fn without_port(host: &str) -> &str {
    if host.starts_with('[') {
        return host.find(']').and_then(|end| host.get(..=end)).unwrap_or(host);
    }
    host.split(':').next().unwrap_or_default()
}
