//! Which proxy leads where.

use super::{NoProxy, Proxy, ProxyKind, ProxyParseError};

/// Which proxy leads to a target, if one is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyRules {
    /// For everything but HTTP and WebSocket without TLS.
    tunnel: Option<Proxy>,
    /// For these.
    web: Option<Proxy>,
    except: NoProxy,
}

/// A variable of the environment that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VariableError {
    /// What it holds is no proxy.
    #[error("{0}: {1}")]
    Proxy(
        /// The variable.
        &'static str,
        /// What is wrong.
        ProxyParseError,
    ),
}

impl ProxyRules {
    /// One proxy for everything.
    pub fn all(proxy: Proxy) -> ProxyRules {
        ProxyRules {
            tunnel: Some(proxy.clone()),
            web: Some(proxy),
            except: NoProxy::default(),
        }
    }

    /// Reaches these without a proxy.
    pub fn except(mut self, except: NoProxy) -> ProxyRules {
        self.except = except;
        self
    }

    /// What the variables of an environment say, which `value` tells by their names.
    ///
    /// Every transport goes through a tunnel, which is what `HTTPS_PROXY` is for; `ws` and `http` look at `HTTP_PROXY`
    /// first, and `ALL_PROXY` is the last resort of all. `NO_PROXY` lists what needs none: [`NoProxy::of_environment`].
    /// Names in lower case come first, and an empty variable is none. `HTTP_PROXY` in capitals is not looked at where
    /// there is `REQUEST_METHOD`: in a CGI program the one who asks could set it.
    ///
    /// # Errors
    /// A variable that names what is no proxy.
    pub fn from_variables(
        mut value: impl FnMut(&'static str) -> Option<String>,
    ) -> Result<ProxyRules, VariableError> {
        let cgi = value("REQUEST_METHOD").is_some();
        let mut first = |names: [&'static str; 2]| {
            let mut set = names.into_iter().filter_map(|name| Some((name, value(name)?)));
            set.find(|(_, text)| !text.trim().is_empty())
        };
        let parse = |found: Option<(&'static str, String)>| {
            let parsed = found.map(|(name, text)| {
                let proxy = text.trim().parse::<Proxy>();
                proxy.map_err(|error| VariableError::Proxy(name, error))
            });
            parsed.transpose()
        };
        let all = parse(first(["all_proxy", "ALL_PROXY"]))?;
        let tunnel = parse(first(["https_proxy", "HTTPS_PROXY"]))?.or(all);
        let upper = if cgi { "http_proxy" } else { "HTTP_PROXY" };
        let web = parse(first(["http_proxy", upper]))?.or_else(|| tunnel.clone());
        let except = match first(["no_proxy", "NO_PROXY"]) {
            Some((_, text)) => NoProxy::of_environment(&text),
            None => NoProxy::default(),
        };
        Ok(ProxyRules { tunnel, web, except })
    }

    /// The proxy that leads to a host name or address (IPv6 without brackets) over a transport (`tcp`, `tls`, `ws`,
    /// `wss`, `http`, `https`); `None` where it is reached without one.
    pub fn proxy(&self, transport: &str, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = match transport {
            "ws" | "http" => &self.web,
            _ => &self.tunnel,
        };
        let proxy = proxy.as_ref()?;
        (!self.except.contains(host, port)).then_some(proxy)
    }

    /// Whether one of the proxies is spoken to inside TLS.
    pub fn has_encrypted(&self) -> bool {
        let proxies = [&self.tunnel, &self.web];
        let mut proxies = proxies.into_iter().flatten();
        proxies.any(|proxy| proxy.kind() == ProxyKind::Https)
    }

    /// Whether nothing goes through a proxy.
    pub fn is_empty(&self) -> bool {
        self.tunnel.is_none() && self.web.is_none()
    }
}
