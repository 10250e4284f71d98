//! Heads of requests and responses. What another parser might read differently is refused (RFC 9112 §11.2).

use std::mem::MaybeUninit;

use super::HttpError;

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes up to and with the empty line.
    pub bytes: usize,
    /// Header fields; at most 128 are parsed in any case.
    pub fields: usize,
}

impl Default for HeadLimits {
    /// 16 KiB and 100 fields.
    fn default() -> HeadLimits {
        HeadLimits {
            bytes: 16 * 1024,
            fields: 100,
        }
    }
}

const MAX_FIELDS: usize = 128;

/// Header fields in the order in which they came, names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Names and values, one behind the other.
    text: String,
    /// Where each name ends, and its value.
    ends: Vec<(usize, usize)>,
}

impl Headers {
    /// Fields that did not come in a head of HTTP/1.1; names are in lower case.
    #[cfg(feature = "webtransport")]
    pub(in crate::carrier) fn new(fields: Vec<(String, String)>) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.push(&name, &value);
        }
        headers
    }

    #[cfg(feature = "webtransport")]
    fn push(&mut self, name: &str, value: &str) {
        let start = self.text.len();
        self.text.push_str(name);
        let end = self.text.len();
        if let Some(name) = self.text.get_mut(start..) {
            name.make_ascii_lowercase();
        }
        self.text.push_str(value);
        self.ends.push((end, self.text.len()));
    }

    /// The fields.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let part = |from, to| self.text.get(from..to).unwrap_or_default();
        let mut start = 0;
        self.ends.iter().map(move |&(name, value)| {
            let field = (part(start, name), part(name, value));
            start = value;
            field
        })
    }

    /// The only value of a field; `name` is in lower case.
    ///
    /// # Errors
    /// When it is there more than once.
    pub fn single(&self, name: &str) -> Result<Option<&str>, HttpError> {
        let mut values = self.values(name);
        let first = values.next();
        match values.next() {
            Some(_) => Err(HttpError::Malformed("a field that may be there once is repeated")),
            None => Ok(first),
        }
    }

    /// Every value of a field; `name` is in lower case.
    pub fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let mut start = 0;
        self.ends.iter().filter_map(move |&(name_end, value_end)| {
            let begin = std::mem::replace(&mut start, value_end);
            let known = name_end - begin == name.len() && self.text.get(begin..name_end) == Some(name);
            known.then(|| self.text.get(name_end..value_end).unwrap_or_default())
        })
    }

    /// Every member of a field that is a list of tokens, over all its lines; `name` is in lower case.
    pub fn tokens<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.values(name)
            .flat_map(|value| value.split(','))
            .map(|token| token.trim_matches([' ', '\t']))
            .filter(|token| !token.is_empty())
    }

    /// Whether a list has a token, in any case of letters.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|known| known.eq_ignore_ascii_case(token))
    }
}

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// `GET`.
    pub method: String,
    /// As it came, `/path?query`.
    pub target: String,
    /// Whether it is HTTP/1.1, and not 1.0.
    pub is_http11: bool,
    /// Its fields.
    pub headers: Headers,
}

impl RequestHead {
    /// Parses the head at the front of `bytes`, and tells its length; `None` when it is not complete.
    ///
    /// # Errors
    /// It is too large, or not beyond doubt.
    pub fn parse(bytes: &[u8], limits: HeadLimits) -> Result<Option<(RequestHead, usize)>, HttpError> {
        let Some(end) = end_of_head(bytes, limits)? else {
            return Ok(None);
        };
        let head = bytes.get(..end).unwrap_or_default();
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut []);
        complete(request.parse_with_uninit_headers(head, &mut fields), end)?;
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version)
        else {
            return Err(HttpError::Malformed("no request line"));
        };
        let head = RequestHead {
            method: method.to_owned(),
            target: target.to_owned(),
            is_http11: version == 1,
            headers: headers(request.headers, limits)?,
        };
        if head.is_http11 && head.headers.single("host")?.is_none() {
            return Err(HttpError::Malformed("no Host"));
        }
        Ok(Some((head, end)))
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Whether it announces a body.
    pub fn has_body(&self) -> bool {
        let length = self.headers.values("content-length").any(|length| length != "0");
        length || self.headers.values("transfer-encoding").next().is_some()
    }
}

/// The head of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// Its status.
    pub status: u16,
    /// The words behind the status.
    pub reason: String,
    /// Its fields.
    pub headers: Headers,
}

impl ResponseHead {
    /// Parses the head at the front of `bytes`, and tells its length; `None` when it is not complete.
    ///
    /// # Errors
    /// It is too large, or not beyond doubt.
    pub fn parse(bytes: &[u8], limits: HeadLimits) -> Result<Option<(ResponseHead, usize)>, HttpError> {
        let Some(end) = end_of_head(bytes, limits)? else {
            return Ok(None);
        };
        let head = bytes.get(..end).unwrap_or_default();
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        complete(
            config.parse_response_with_uninit_headers(&mut response, head, &mut fields),
            end,
        )?;
        let Some(status) = response.code else {
            return Err(HttpError::Malformed("no status line"));
        };
        let head = ResponseHead {
            status,
            reason: response.reason.unwrap_or_default().to_owned(),
            headers: headers(response.headers, limits)?,
        };
        Ok(Some((head, end)))
    }
}

fn complete(parsed: httparse::Result<usize>, end: usize) -> Result<(), HttpError> {
    match parsed {
        Ok(httparse::Status::Complete(len)) if len == end => Ok(()),
        Ok(_) => Err(HttpError::Malformed("the head does not end where it seems to")),
        Err(httparse::Error::TooManyHeaders) => Err(HttpError::TooLarge),
        Err(_) => Err(HttpError::Malformed("not an HTTP/1.1 head")),
    }
}

/// Where the head ends. Every line ends with CR LF, and neither is anywhere else; no line is folded.
fn end_of_head(bytes: &[u8], limits: HeadLimits) -> Result<Option<usize>, HttpError> {
    let window = bytes.get(..limits.bytes.min(bytes.len())).unwrap_or_default();
    let (mut start, mut before, mut at) = (0, 0, 0);
    while let Some(&byte) = window.get(at) {
        if at == start && matches!(byte, b' ' | b'\t') {
            return Err(HttpError::Malformed("a folded line"));
        }
        if before != b'\r'
            && at > start
            && let Some(word) = window.get(at..).and_then(<[u8]>::first_chunk)
        {
            // What most of it is.
            let plain = plain_bytes(*word);
            if plain > 0 {
                (before, at) = (word[plain - 1], at + plain);
                continue;
            }
        }
        match byte {
            0 => return Err(HttpError::Malformed("a NUL byte")),
            b'\n' if before != b'\r' => return Err(HttpError::Malformed("LF without CR")),
            b'\n' if at == start + 1 => return Ok(Some(at + 1)),
            b'\n' => start = at + 1,
            _ if before == b'\r' => return Err(HttpError::Malformed("CR without LF")),
            _ => {}
        }
        (before, at) = (byte, at + 1);
    }
    if window.len() >= limits.bytes {
        return Err(HttpError::TooLarge);
    }
    Ok(None)
}

/// How many bytes come before the first NUL, CR or LF among eight.
fn plain_bytes(word: [u8; 8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    // The high bit of each byte that is zero, and perhaps of some behind the first of them.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let with = |byte: u8| zeros(u64::from_le_bytes(word) ^ u64::from_ne_bytes([byte; 8]));
    let found = with(0) | with(b'\r') | with(b'\n');
    found.trailing_zeros() as usize / 8
}

/// Without blanks on either side.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn headers(fields: &[httparse::Header<'_>], limits: HeadLimits) -> Result<Headers, HttpError> {
    if fields.len() > limits.fields {
        return Err(HttpError::TooLarge);
    }
    let bytes = fields.iter().map(|field| field.name.len() + field.value.len());
    let (mut text, mut ends) = (Vec::with_capacity(bytes.sum()), Vec::with_capacity(fields.len()));
    for field in fields {
        let start = text.len();
        text.extend_from_slice(field.name.as_bytes());
        let end = text.len();
        text[start..].make_ascii_lowercase();
        text.extend_from_slice(trimmed(field.value));
        ends.push((end, text.len()));
    }
    // Names are ASCII and never empty: where all of it is text, each value is.
    let text = String::from_utf8(text).map_err(|_| HttpError::Malformed("a field is not text"))?;
    let headers = Headers { text, ends };
    // RFC 9112 §6.3: both, or a length that is not one number, is how requests are smuggled.
    let length = headers.single("content-length")?;
    let digits =
        |text: &str| !text.is_empty() && text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    if length.is_some_and(|length| !digits(length)) {
        return Err(HttpError::Malformed("Content-Length is not a number"));
    }
    if length.is_some() && headers.values("transfer-encoding").next().is_some() {
        return Err(HttpError::Malformed("Content-Length beside Transfer-Encoding"));
    }
    Ok(headers)
}
