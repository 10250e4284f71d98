//! `jsonrpsee`: JSON-RPC over WebSocket, one connection. JSON has no bytes: the payload travels as hexadecimal.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jsonrpsee_core::client::ClientT;
use jsonrpsee_core::params::ArrayParams;
use jsonrpsee_server::{RpcModule, Server, ServerConfig};
use jsonrpsee_ws_client::{WsClient, WsClientBuilder};

use super::case::Test;
use super::load::Load;
use super::peer::Keep;
use super::rpc::{Client, MAX_IN_FLIGHT, Rpc, Service};

/// See the [module](self).
pub(crate) struct Jsonrpsee;

const MAX_MESSAGE: u32 = 4 << 20;

impl Rpc for Jsonrpsee {
    type Client = Caller;

    fn key(&self) -> &'static str {
        "jsonrpsee"
    }

    fn variants(&self, _test: Test) -> Vec<String> {
        vec![format!(
            "WebSocket, NODELAY, hexadecimal in JSON, no pings, queues {MAX_IN_FLIGHT}"
        )]
    }

    async fn connect(&self, _variant: usize, service: Service, _load: &Load) -> io::Result<(Caller, Keep)> {
        let config = ServerConfig::builder()
            .ws_only()
            .max_request_body_size(MAX_MESSAGE)
            .max_response_body_size(MAX_MESSAGE)
            .set_message_buffer_capacity(MAX_IN_FLIGHT as u32)
            .set_tcp_no_delay(true)
            .disable_ws_ping()
            .build();
        let server = Server::builder()
            .set_config(config)
            .build(("127.0.0.1", 0))
            .await?;
        let address = server.local_addr()?;
        let mut methods = RpcModule::new(service);
        methods
            .register_async_method("echo", |params, service, _| async move {
                let text: String = params.one().unwrap_or_default();
                match *service {
                    // As an application would that has text: no way round by bytes.
                    Service::Echo => text,
                    Service::Hold(_) => hex(&service.answer(Bytes::new()).await),
                }
            })
            .map_err(io::Error::other)?;
        let handle = server.start(methods);
        let client = WsClientBuilder::new()
            .max_concurrent_requests(MAX_IN_FLIGHT)
            .max_request_size(MAX_MESSAGE)
            .max_response_size(MAX_MESSAGE)
            .request_timeout(Duration::from_secs(3600))
            .set_tcp_no_delay(true)
            .disable_ws_ping()
            .build(format!("ws://{address}"))
            .await
            .map_err(io::Error::other)?;
        Ok((Caller(Arc::new(client)), Box::new(handle)))
    }
}

/// A caller of the shared client.
#[derive(Clone)]
pub(crate) struct Caller(Arc<WsClient>);

impl Client for Caller {
    async fn call(&mut self, payload: Bytes) -> io::Result<Bytes> {
        let mut params = ArrayParams::new();
        params.insert(hex(&payload)).map_err(io::Error::other)?;
        let answer: String = self.0.request("echo", params).await.map_err(io::Error::other)?;
        bytes(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(DIGITS[usize::from(digit)]));
        }
    }
    text
}

fn bytes(hex: &str) -> Option<Bytes> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let bytes = pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect::<Option<Vec<u8>>>()?;
    rest.is_empty().then(|| bytes.into())
}
