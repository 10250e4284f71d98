//! `velo`: NVIDIA's active messages over its own TCP transport, without its features that need native libraries.
//!
//! Each end dials the other: requests go on one connection and answers on another.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use velo::streaming::{MuxConfig, StreamFrame};
use velo::transports::tcp::TcpTransportBuilder;
use velo::{Handler, InstanceId};

use super::case::Test;
use super::items::{Receiver, Source};
use super::load::Load;
use super::peer::{Keep, Starting};
use super::rpc::{Client, Rpc, Service, endless_items};

/// See the [module](self).
pub(crate) struct Velo;

const TIMEOUT: Duration = Duration::from_secs(3600);

/// Items and bytes that a stream may have under way; `None` for a connection of its own.
const STREAMS: [(&str, Option<(u32, u32)>); 3] = [
    ("streams share a connection, default credit", Some((32, 1 << 20))),
    (
        "streams share a connection, credit of 16384 items and 16 MiB",
        Some((16_384, 16 << 20)),
    ),
    ("a connection for each stream", None),
];

impl Rpc for Velo {
    type Client = Caller;

    fn key(&self) -> &'static str {
        "velo"
    }

    fn variants(&self, test: Test) -> Vec<String> {
        match test {
            Test::Items => STREAMS
                .map(|(label, _)| format!("NODELAY, bytes, {label}"))
                .into(),
            _ => vec!["NODELAY, raw payloads, a task a message, a connection each way".into()],
        }
    }

    async fn connect(&self, _variant: usize, service: Service, _load: &Load) -> io::Result<(Caller, Keep)> {
        let (server, client) = (node(STREAMS[0].1).await?, node(STREAMS[0].1).await?);
        let handler = Handler::unary_handler_async("echo", move |context: velo::Context| {
            let service = service.clone();
            async move { Ok(Some(service.answer(context.payload).await)) }
        });
        server
            .register_handler(handler.build())
            .map_err(io::Error::other)?;
        meet(&client, &server, "echo").await?;
        let caller = Caller {
            node: client,
            server: server.instance_id(),
        };
        Ok((caller, Box::new(server)))
    }

    fn items<'a>(&'a self, variant: usize, _source: Source, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (_, credit) = STREAMS[variant];
            let (server, client) = (node(credit).await?, node(credit).await?);
            meet(&client, &server, "_anchor_attach").await?;
            meet(&server, &client, "_anchor_attach").await?;
            let mut anchor = client.create_anchor::<Bytes>();
            let handle = anchor.handle();
            let opened = match client.prebind_anchor(handle) {
                Some(ticket) => server.open_anchor_stream::<Bytes>(handle, ticket).await,
                None => server.attach_anchor::<Bytes>(handle).await,
            };
            let sender = opened.map_err(io::Error::other)?;
            load.spawn(async move {
                for item in endless_items() {
                    sender.send_bytes(&item).await.map_err(io::Error::other)?;
                }
                Ok(())
            });
            let mut receiver = Receiver::new(load.counter());
            load.spawn(async move {
                while let Some(frame) = anchor.next_bytes().await {
                    if let StreamFrame::Item(item) = frame.map_err(io::Error::other)? {
                        receiver.received(&item)?;
                    }
                }
                Err(io::ErrorKind::UnexpectedEof.into())
            });
            Ok(Some(Box::new((server, client)) as Keep))
        })
    }
}

async fn node(credit: Option<(u32, u32)>) -> io::Result<velo::Velo> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let transport = TcpTransportBuilder::new().from_listener(listener);
    let transport = transport
        .and_then(|builder| builder.build())
        .map_err(io::Error::other)?;
    let mut mux = MuxConfig::default();
    let mut builder = velo::Velo::builder().add_transport(Arc::new(transport));
    builder = match credit {
        Some((items, bytes)) => {
            mux.initial_credit = items;
            mux.slot_byte_budget = bytes;
            builder.mux_only()
        }
        None => {
            mux.enabled = false;
            builder.stream_bind_addr(Ipv4Addr::LOCALHOST.into())
        }
    };
    let builder = builder.messenger_mux(mux).map_err(io::Error::other)?;
    builder.build().await.map_err(io::Error::other)
}

/// Has `own` know `other`, and that it has the handler.
async fn meet(own: &velo::Velo, other: &velo::Velo, handler: &str) -> io::Result<()> {
    own.register_peer(other.peer_info()).map_err(io::Error::other)?;
    other.register_peer(own.peer_info()).map_err(io::Error::other)?;
    let known = own.wait_for_handler(other.instance_id(), handler).await;
    known.map_err(io::Error::other)
}

/// A caller of the shared node.
#[derive(Clone)]
pub(crate) struct Caller {
    node: velo::Velo,
    server: InstanceId,
}

impl Client for Caller {
    async fn call(&mut self, payload: Bytes) -> io::Result<Bytes> {
        let call = self.node.unary("echo").map_err(io::Error::other)?;
        let answer = call
            .raw_payload(payload)
            .instance(self.server)
            .timeout(TIMEOUT)
            .send();
        answer.await.map_err(io::Error::other)
    }
}
