//! One exchange: which path it belongs to, what it is for, and who may ask for it. PROTOCOL 14.7.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::mode::{number, push_decimal};
use super::{HttpError, RequestHead};

/// What brings an exchange to its path. It authorises nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub [u8; 16]);

impl Token {
    /// The token that a header or a query has.
    pub fn parse(text: &str) -> Option<Token> {
        decode(text).map(Token)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Sixteen bytes in 22 characters.
fn decode(text: &str) -> Option<[u8; 16]> {
    if text.len() != 22 {
        return None;
    }
    let mut bytes = [0; 16];
    let count = BASE64URL_NOPAD.decode_mut(text.as_bytes(), &mut bytes).ok()?;
    (count == bytes.len()).then_some(bytes)
}

/// What an exchange is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// POST: the client's next bytes.
    Up,
    /// POST without end: the client's bytes from here on, as blocks.
    Stream,
    /// The same, whose response may become the downlink.
    Both,
    /// GET without end: the server's bytes from here on.
    Down,
    /// The same for a browser's EventSource, which asks again with the same URL when its connection ends.
    Events,
    /// GET: the server's next bytes.
    Poll,
    /// GET: the beginning of a downlink, and nothing of the path.
    Try,
    /// POST: the client's last bytes; the path is over.
    End,
}

impl Operation {
    /// As it is written in a query.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Up => "up",
            Operation::Stream => "stream",
            Operation::Both => "both",
            Operation::Down => "down",
            Operation::Events => "events",
            Operation::Poll => "poll",
            Operation::Try => "try",
            Operation::End => "end",
        }
    }

    fn of(name: &str) -> Option<Operation> {
        Some(match name {
            "up" => Operation::Up,
            "stream" => Operation::Stream,
            "both" => Operation::Both,
            "down" => Operation::Down,
            "events" => Operation::Events,
            "poll" => Operation::Poll,
            "try" => Operation::Try,
            "end" => Operation::End,
            _ => return None,
        })
    }

    /// `GET` or `POST`.
    pub fn method(self) -> &'static str {
        match self {
            Operation::Up | Operation::Stream | Operation::Both | Operation::End => "POST",
            Operation::Down | Operation::Events | Operation::Poll | Operation::Try => "GET",
        }
    }
}

/// An exchange of a path that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What it is for.
    pub operation: Operation,
    /// Whose it is.
    pub token: Token,
    /// Counts the exchanges of one direction, from 1.
    pub number: u64,
    /// The position at which the bytes of the exchange begin.
    pub from: u64,
    /// The position up to which the client has the server's bytes.
    pub received: u64,
    mac: [u8; 16],
}

/// What a request to a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A new path; the body is its first bytes.
    Create,
    /// An exchange of a path.
    Exchange(Exchange),
}

/// Proves that an exchange is the session's. Made of the session's keys: PROTOCOL 5.3.
#[derive(Clone)]
pub struct ExchangeKey(Hmac<Sha256>);

impl fmt::Debug for ExchangeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExchangeKey { .. }")
    }
}

impl ExchangeKey {
    /// The key that a session gives: [`Session::exchange_key`](crate::session::Session::exchange_key).
    pub fn new(key: Zeroizing<[u8; 32]>) -> ExchangeKey {
        // RFC 2104: a key shorter than the block is padded with zeros.
        let mut block = Zeroizing::new([0_u8; 64]);
        block[..32].copy_from_slice(&*key);
        ExchangeKey(Hmac::new((&*block).into()))
    }

    fn mac(&self, exchange: &Exchange) -> [u8; 16] {
        let mut mac = self.0.clone();
        mac.update(exchange.operation.name().as_bytes());
        mac.update(&[0]);
        mac.update(&exchange.token.0);
        for value in [exchange.number, exchange.from, exchange.received] {
            mac.update(&value.to_be_bytes());
        }
        let whole: [u8; 32] = mac.finalize().into_bytes().into();
        let mut half = [0; 16];
        half.copy_from_slice(&whole[..16]);
        half
    }

    /// An exchange with its proof.
    pub fn sign(
        &self,
        operation: Operation,
        token: Token,
        number: u64,
        from: u64,
        received: u64,
    ) -> Exchange {
        let mut exchange = Exchange {
            operation,
            token,
            number,
            from,
            received,
            mac: [0; 16],
        };
        exchange.mac = self.mac(&exchange);
        exchange
    }

    /// Whether the exchange is the session's.
    pub fn verify(&self, exchange: &Exchange) -> bool {
        self.mac(exchange).ct_eq(&exchange.mac).into()
    }
}

/// What a query says that means something to us, and how often.
#[derive(Default)]
struct Fields<'a> {
    op: Field<'a>,
    path: Field<'a>,
    number: Field<'a>,
    from: Field<'a>,
    received: Field<'a>,
    mac: Field<'a>,
}

#[derive(Clone, Copy, Default)]
struct Field<'a> {
    value: Option<&'a str>,
    repeated: bool,
}

impl<'a> Fields<'a> {
    fn of(query: &'a str) -> Fields<'a> {
        let mut fields = Fields::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let field = match name {
                "op" => &mut fields.op,
                "path" => &mut fields.path,
                "n" => &mut fields.number,
                "from" => &mut fields.from,
                "received" => &mut fields.received,
                "mac" => &mut fields.mac,
                _ => continue,
            };
            field.repeated |= field.value.replace(value).is_some();
        }
        fields
    }
}

impl<'a> Field<'a> {
    fn get(self) -> Result<Option<&'a str>, HttpError> {
        match self.repeated {
            true => Err(HttpError::Malformed("a field of the query is repeated")),
            false => Ok(self.value),
        }
    }

    fn number(self) -> Result<u64, HttpError> {
        number(self.get()?.unwrap_or_default().as_bytes())
    }
}

impl Asked {
    /// What a request asks for; `None` where it is nothing of ours.
    ///
    /// # Errors
    /// It is meant for us, and wrong.
    pub fn of(head: &RequestHead) -> Result<Option<Asked>, HttpError> {
        let refused = |status, why| Err(HttpError::Refused { status, why });
        let query = head.target.split_once('?').map_or("", |(_, query)| query);
        let fields = Fields::of(query);
        let Some(name) = fields.op.get()? else {
            return Ok(None);
        };
        if name == "new" {
            return match head.method.as_str() {
                "POST" => Ok(Some(Asked::Create)),
                _ => refused(405, "a path begins with POST"),
            };
        }
        let Some(operation) = Operation::of(name) else {
            return refused(404, "no such operation");
        };
        if head.method != operation.method() {
            return refused(405, "another method belongs to that operation");
        }
        let token = fields.path.get()?.and_then(Token::parse);
        let token = token.ok_or(HttpError::Malformed("no path"))?;
        let mac = fields.mac.get()?.and_then(decode);
        let mac = mac.ok_or(HttpError::Malformed("no proof"))?;
        Ok(Some(Asked::Exchange(Exchange {
            operation,
            token,
            number: fields.number.number()?,
            from: fields.from.number()?,
            received: fields.received.number()?,
            mac,
        })))
    }

    /// Appends the target of a request for it, below the target of the server's URL.
    pub fn put_target(&self, base: &str, out: &mut String) {
        out.push_str(base);
        out.push(if base.contains('?') { '&' } else { '?' });
        let exchange = match self {
            Asked::Create => return out.push_str("op=new"),
            Asked::Exchange(exchange) => exchange,
        };
        out.push_str("op=");
        out.push_str(exchange.operation.name());
        out.push_str("&path=");
        BASE64URL_NOPAD.encode_append(&exchange.token.0, out);
        for (name, value) in [
            ("&n=", exchange.number),
            ("&from=", exchange.from),
            ("&received=", exchange.received),
        ] {
            out.push_str(name);
            push_decimal(value, out);
        }
        out.push_str("&mac=");
        BASE64URL_NOPAD.encode_append(&exchange.mac, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carrier::http::HeadLimits;

    fn read(method: &str, target: &str) -> Result<Option<Asked>, HttpError> {
        let text = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, _) = RequestHead::parse(text.as_bytes(), HeadLimits::default())?.unwrap();
        Asked::of(&head)
    }

    fn target(asked: &Asked, base: &str) -> String {
        let mut target = String::new();
        asked.put_target(base, &mut target);
        target
    }

    #[test]
    fn exchanges_read_back_and_prove_themselves() {
        let key = ExchangeKey::new(Zeroizing::new([7; 32]));
        for operation in [
            Operation::Up,
            Operation::Stream,
            Operation::Both,
            Operation::Down,
            Operation::Events,
            Operation::Poll,
            Operation::Try,
            Operation::End,
        ] {
            let exchange = key.sign(operation, Token([9; 16]), 3, 1 << 40, 17);
            let asked = Asked::Exchange(exchange);
            for base in ["/", "/deep?tenant=1"] {
                assert_eq!(read(operation.method(), &target(&asked, base)), Ok(Some(asked)));
            }
            assert!(key.verify(&exchange));
            assert!(!ExchangeKey::new(Zeroizing::new([8; 32])).verify(&exchange));
            let other = Exchange {
                received: 18,
                ..exchange
            };
            assert!(!key.verify(&other));
        }
        assert_eq!(
            read("POST", &target(&Asked::Create, "/")),
            Ok(Some(Asked::Create))
        );
        assert_eq!(read("GET", "/index.html?x=1"), Ok(None));
    }

    #[test]
    fn what_is_half_an_exchange_is_refused() {
        let key = ExchangeKey::new(Zeroizing::new([7; 32]));
        let good = target(
            &Asked::Exchange(key.sign(Operation::Up, Token([9; 16]), 3, 4, 5)),
            "/",
        );
        assert!(read("POST", &good).is_ok());
        assert!(read("GET", &good).is_err());
        for bad in [
            good.replace("n=3", "n=-3"),
            good.replace("n=3", "n=+3"),
            good.replace("n=3", "n="),
            good.replace("from=4", "from=18446744073709551615"),
            good.replace("&from=4", ""),
            good.replace("op=up", "op=up&op=end"),
            good.replace("op=up", "op=down2"),
            good.replace("path=", "path=x"),
            good.replace("&mac=", "&mac=x"),
        ] {
            assert!(read("POST", &bad).is_err(), "{bad}");
        }
        assert!(read("GET", "/?op=new").is_err());
    }
}
