//! Proxies that are asked where to lead: HTTP CONNECT and SOCKS5, on one port.
//!
//! What they do to the connections through them is that of a relay: [`RelayConfig`].

use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use sheetbend_core::carrier::http::{HeadLimits, RequestHead};
use sheetbend_core::carrier::proxy::Proxy;

use crate::host::Host;
use crate::net::TcpStream;
use crate::relay::{RelayConfig, serve_to};
use crate::world::World;

/// The port of [`World::proxy`].
pub const PROXY_PORT: u16 = 3128;
/// How long a client may take to say where to.
const PATIENCE: Duration = Duration::from_secs(10);

/// A user and a password.
type Login = (String, String);

impl World {
    /// Makes a host that leads clients where they ask it to, by HTTP CONNECT or SOCKS5, on [`PROXY_PORT`]. With a login
    /// it leads nobody else.
    pub fn proxy(
        &mut self,
        name: &str,
        networks: &[&str],
        login: Option<(&str, &str)>,
        config: RelayConfig,
    ) -> Host {
        let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
        let host = self.boot(name, networks, move |host| run(host, login.clone()));
        host.relay(|state| state.config = config);
        host
    }
}

/// The program of such a proxy.
pub(crate) async fn run(host: Host, login: Option<Login>) {
    let Ok(listener) = host.listen_tcp(PROXY_PORT) else {
        return;
    };
    while let Ok(client) = listener.accept().await {
        let (own, login) = (host.clone(), login.clone());
        host.spawn(async move {
            let asked = within(&own, PATIENCE, lead(&own, client, login.as_ref())).await;
            if let Some(Ok(Some((client, server)))) = asked {
                serve_to(&own, client, server).await;
            }
        });
    }
}

/// What comes of the work, if it is done in time.
async fn within<T>(host: &Host, time: Duration, work: impl Future<Output = T>) -> Option<T> {
    let (mut work, mut timer) = (pin!(work), pin!(host.sleep(time)));
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Takes a client's wish, connects it, and answers. `None`: it was refused.
async fn lead(
    host: &Host,
    mut client: TcpStream,
    login: Option<&Login>,
) -> io::Result<Option<(TcpStream, TcpStream)>> {
    let mut first = [0];
    client.read_exact(&mut first).await?;
    let socks = first[0] == 5;
    let asked = match socks {
        true => socks5(&mut client, login).await?,
        false => connect(&mut client, first[0], login).await?,
    };
    let Some((name, port)) = asked else {
        return Ok(None);
    };
    let server = host.connect_tcp(&name, port).await;
    let answer: &[u8] = match (socks, server.is_ok()) {
        (true, true) => &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        (true, false) => &[5, 4, 0, 1, 0, 0, 0, 0, 0, 0],
        (false, true) => b"HTTP/1.1 200 Connection established\r\n\r\n",
        (false, false) => b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
    };
    client.write_all(answer).await?;
    Ok(server.ok().map(|server| (client, server)))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

async fn connect(
    client: &mut TcpStream,
    first: u8,
    login: Option<&Login>,
) -> io::Result<Option<(String, u16)>> {
    let mut bytes = vec![first];
    let head = loop {
        let parsed = RequestHead::parse(&bytes, HeadLimits::default());
        match parsed.map_err(|_| invalid("not a request"))? {
            Some((head, _)) => break head,
            None => {
                let mut next = [0];
                client.read_exact(&mut next).await?;
                bytes.push(next[0]);
            }
        }
    };
    if head.method != "CONNECT" {
        client
            .write_all(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: CONNECT\r\nContent-Length: 0\r\n\r\n")
            .await?;
        return Ok(None);
    }
    let told = head.headers.single("proxy-authorization").ok().flatten();
    if login.is_some_and(|login| told != Some(&basic(login))) {
        client
            .write_all(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"simulated\"\r\n\
                  Content-Length: 0\r\n\r\n",
            )
            .await?;
        return Ok(None);
    }
    // An authority reads as a proxy's own does.
    let target: Proxy = head.target.parse().map_err(|_| invalid("not a target"))?;
    Ok(Some((target.host().to_owned(), target.port())))
}

/// RFC 7617 §2.
fn basic((user, password): &Login) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = "Basic ".to_owned();
    for three in format!("{user}:{password}").as_bytes().chunks(3) {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= three.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}

async fn socks5(client: &mut TcpStream, login: Option<&Login>) -> io::Result<Option<(String, u16)>> {
    let methods = counted(client).await?;
    let method = if login.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        client.write_all(&[5, 0xff]).await?;
        return Ok(None);
    }
    client.write_all(&[5, method]).await?;
    if let Some((user, password)) = login {
        let mut version = [0];
        client.read_exact(&mut version).await?;
        let told = (counted(client).await?, counted(client).await?);
        let granted = version == [1] && told.0 == user.as_bytes() && told.1 == password.as_bytes();
        client.write_all(&[1, u8::from(!granted)]).await?;
        if !granted {
            return Ok(None);
        }
    }
    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    let name = match head {
        [5, 1, 0, 1] => {
            let mut address = [0; 4];
            client.read_exact(&mut address).await?;
            Ipv4Addr::from(address).to_string()
        }
        [5, 1, 0, 4] => {
            let mut address = [0; 16];
            client.read_exact(&mut address).await?;
            Ipv6Addr::from(address).to_string()
        }
        [5, 1, 0, 3] => String::from_utf8(counted(client).await?).map_err(|_| invalid("no name"))?,
        _ => return Err(invalid("not a request")),
    };
    let mut port = [0; 2];
    client.read_exact(&mut port).await?;
    Ok(Some((name, u16::from_be_bytes(port))))
}

/// Bytes behind their number.
async fn counted(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut count = [0];
    client.read_exact(&mut count).await?;
    let mut bytes = vec![0; usize::from(count[0])];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_told_in_base64() {
        for (password, text) in [("", "Basic dTo="), ("p", "Basic dTpw"), ("pw", "Basic dTpwdw==")] {
            assert_eq!(basic(&("u".to_owned(), password.to_owned())), text);
        }
    }
}
