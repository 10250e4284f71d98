//! The CONNECT request with which a session begins, and its answer. RFC 9220, draft-ietf-webtrans-http3 §3.

use std::sync::Arc;

use super::error::{Http3Error, code};
use super::fields;
use crate::carrier::http::{Guard, Headers, HttpError, RequestHead};

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHandshake {
    /// The pseudo-header `:authority`: the name, and the port where it is not 443.
    pub authority: String,
    /// The path and query, `/` at least.
    pub target: String,
    /// The field `origin`, where the server wants one.
    pub origin: Option<String>,
}

/// What a server grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHandshake {
    /// Who is served.
    pub guard: Arc<Guard>,
    /// The only path that is served; every path where it is `/`.
    pub path: Arc<str>,
}

/// By these two names drafts up to 06 tell each other which of them they speak.
const DRAFT_OFFERED: &str = "sec-webtransport-http3-draft02";
const DRAFT_CHOSEN: (&str, &str) = ("sec-webtransport-http3-draft", "draft02");

impl ClientHandshake {
    /// The field section of the request.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut list = vec![
            (":method", "CONNECT"),
            (":protocol", "webtransport"),
            (":scheme", "https"),
            (":authority", self.authority.as_str()),
            (":path", self.target.as_str()),
            (DRAFT_OFFERED, "1"),
        ];
        list.extend(self.origin.as_deref().map(|origin| ("origin", origin)));
        fields::encode(&list)
    }
}

fn malformed(what: &'static str) -> Http3Error {
    Http3Error::new(code::MESSAGE_ERROR, what)
}

/// A field section whose form has been checked, RFC 9114 §4.2 and §4.3.
struct Section {
    pseudo: Vec<(String, String)>,
    headers: Vec<(String, String)>,
}

impl Section {
    fn parse(list: Vec<(String, String)>, known: &[&str]) -> Result<Section, Http3Error> {
        let (mut pseudo, mut headers): (Vec<(String, String)>, Vec<_>) = (Vec::new(), Vec::new());
        for (name, value) in list {
            let bad_value = value.bytes().any(|byte| matches!(byte, 0 | b'\r' | b'\n'));
            if bad_value || value.trim_matches([' ', '\t']) != value {
                return Err(malformed("a field value that HTTP forbids"));
            }
            if name.starts_with(':') {
                if !headers.is_empty() {
                    return Err(malformed("a pseudo-header behind a field"));
                }
                if !known.contains(&name.as_str()) || pseudo.iter().any(|(other, _)| *other == name) {
                    return Err(malformed("a pseudo-header that is unknown or repeated"));
                }
                pseudo.push((name, value));
            } else {
                let token = |byte: u8| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
                };
                if name.is_empty() || !name.bytes().all(token) {
                    return Err(malformed("a field name that HTTP forbids"));
                }
                // RFC 9114 §4.2: what belongs to a connection of HTTP/1.1.
                let hop = [
                    "connection",
                    "keep-alive",
                    "proxy-connection",
                    "transfer-encoding",
                    "upgrade",
                ];
                if hop.contains(&name.as_str()) {
                    return Err(malformed("a field of HTTP/1.1"));
                }
                headers.push((name, value));
            }
        }
        Ok(Section { pseudo, headers })
    }

    fn pseudo(&self, name: &str) -> Option<&str> {
        let found = self.pseudo.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl ServerHandshake {
    /// The field section that answers a good request.
    ///
    /// # Errors
    /// The request is malformed, which is an error of its stream alone, or refused: `Ok(Err(_))`.
    pub(super) fn answer(
        &self,
        request: Vec<(String, String)>,
    ) -> Result<Result<Vec<u8>, HttpError>, Http3Error> {
        let known = [":method", ":protocol", ":scheme", ":authority", ":path"];
        let section = Section::parse(request, &known)?;
        let method = section.pseudo(":method").ok_or_else(|| malformed("no :method"))?;
        let refused = |status, why| Ok(Err(HttpError::Refused { status, why }));
        if method != "CONNECT" {
            return refused(405, "this server speaks WebTransport here");
        }
        let Some(protocol) = section.pseudo(":protocol") else {
            return refused(405, "this server is no proxy");
        };
        let (Some(scheme), Some(authority), Some(target)) = (
            section.pseudo(":scheme"),
            section.pseudo(":authority"),
            section.pseudo(":path"),
        ) else {
            return Err(malformed(
                "an extended CONNECT without :scheme, :authority or :path",
            ));
        };
        if protocol != "webtransport" {
            // RFC 9220 §3.
            return refused(501, "this server speaks WebTransport alone");
        }
        if scheme != "https" {
            return refused(400, "WebTransport is https");
        }
        if authority.is_empty() || !target.starts_with('/') {
            return Err(malformed("an empty :authority, or a :path that is none"));
        }
        self.admit(&section, authority, target)
    }

    fn admit(
        &self,
        section: &Section,
        authority: &str,
        target: &str,
    ) -> Result<Result<Vec<u8>, HttpError>, Http3Error> {
        let mut list = vec![("host".to_owned(), authority.to_owned())];
        for (name, value) in &section.headers {
            if name != "host" {
                list.push((name.clone(), value.clone()));
            } else if !value.eq_ignore_ascii_case(authority) {
                return Err(malformed("host is not :authority"));
            }
        }
        let head = RequestHead {
            method: "CONNECT".to_owned(),
            target: target.to_owned(),
            is_http11: false,
            headers: Headers::new(list),
        };
        if let Err(refusal) = self.guard.check(&head, true, false) {
            return Ok(Err(refusal));
        }
        if *self.path != *"/" && *self.path != *head.path() {
            return Ok(Err(HttpError::Refused {
                status: 404,
                why: "nothing is served at this path",
            }));
        }
        let mut list = vec![(":status", "200")];
        if head.headers.values(DRAFT_OFFERED).next().is_some() {
            list.push(DRAFT_CHOSEN);
        }
        Ok(Ok(fields::encode(&list)))
    }
}

/// The whole refusal: a field section and a body.
pub(super) fn refusal(error: &HttpError) -> (Vec<u8>, String) {
    let (status, why) = error.answer();
    let (status, body) = (status.to_string(), format!("{why}\n"));
    let mut list = vec![
        (":status", status.as_str()),
        ("content-type", "text/plain;charset=utf-8"),
        ("cache-control", "no-store"),
    ];
    if status == "405" {
        list.push(("allow", "CONNECT"));
    }
    (fields::encode(&list), body)
}

/// The status of an answer.
pub(super) fn status(response: Vec<(String, String)>) -> Result<u16, Http3Error> {
    let section = Section::parse(response, &[":status"])?;
    let status = section.pseudo(":status").ok_or_else(|| malformed("no :status"))?;
    let digits = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
    match status.parse() {
        Ok(status @ 100..=599) if digits => Ok(status),
        _ => Err(malformed("a :status that is none")),
    }
}
