//! `tarpc`: bincode over length-delimited TCP, one connection. It has no streaming calls.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use serde_bytes::ByteBuf;
use tarpc::client::{self, NewClient};
use tarpc::context;
use tarpc::serde_transport;
use tarpc::server::{self, BaseChannel, Channel};
use tarpc::{ClientMessage, Response};
use tokio::net::TcpStream;
use tokio_serde::formats::Bincode;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::case::Test;
use super::load::Load;
use super::net;
use super::peer::Keep;
use super::rpc::{Client, MAX_IN_FLIGHT, Rpc, Service};

/// See the [module](self).
pub(crate) struct Tarpc;

#[tarpc::service]
trait Echo {
    async fn echo(data: ByteBuf) -> ByteBuf;
}

/// A handler is spawned or runs in the connection's task; bytes of the buffers of read and of write.
const VARIANTS: [(bool, usize); 4] = [
    (true, 8 << 10),
    (true, 256 << 10),
    (false, 8 << 10),
    (false, 256 << 10),
];

impl Rpc for Tarpc {
    type Client = Caller;

    fn key(&self) -> &'static str {
        "tarpc"
    }

    fn variants(&self, _test: Test) -> Vec<String> {
        let label = |(spawned, buffer): (bool, usize)| {
            let handlers = if spawned {
                "a task"
            } else {
                "the connection's task"
            };
            format!(
                "NODELAY, bincode, handlers in {handlers}, buffers {} KiB, queues {MAX_IN_FLIGHT}",
                buffer >> 10
            )
        };
        VARIANTS.map(label).into()
    }

    async fn connect(&self, variant: usize, service: Service, load: &Load) -> io::Result<(Caller, Keep)> {
        let (spawned, buffer) = VARIANTS[variant];
        let (client, server) = net::pair(None).await?;
        let config = server::Config {
            pending_response_buffer: MAX_IN_FLIGHT,
        };
        let transport = serde_transport::new::<_, ClientMessage<EchoRequest>, Response<EchoResponse>, _>(
            framed(server, buffer),
            Bincode::default(),
        );
        let handlers = BaseChannel::new(config, transport).execute(EchoServer(service).serve());
        load.spawn(async move {
            match spawned {
                true => {
                    let mut handlers = std::pin::pin!(handlers);
                    while let Some(handler) = handlers.next().await {
                        tokio::spawn(handler);
                    }
                }
                false => handlers.for_each_concurrent(None, |handler| handler).await,
            }
            Ok(())
        });
        let mut config = client::Config::default();
        config.max_in_flight_requests = MAX_IN_FLIGHT;
        config.pending_request_buffer = MAX_IN_FLIGHT;
        let transport = serde_transport::new(framed(client, buffer), Bincode::default());
        let NewClient { client, dispatch } = EchoClient::new(config, transport);
        load.spawn(async move { dispatch.await.map_err(io::Error::other) });
        Ok((Caller(client), Box::new(())))
    }
}

fn framed(socket: TcpStream, buffer: usize) -> Framed<TcpStream, LengthDelimitedCodec> {
    let mut framed = Framed::with_capacity(socket, LengthDelimitedCodec::new(), buffer);
    framed.set_backpressure_boundary(buffer);
    framed
}

/// A caller of the shared channel.
#[derive(Clone)]
pub(crate) struct Caller(EchoClient);

impl Client for Caller {
    async fn call(&mut self, payload: Bytes) -> io::Result<Bytes> {
        let mut context = context::current();
        context.deadline = Instant::now() + Duration::from_secs(3600);
        let answer = self.0.echo(context, ByteBuf::from(payload)).await;
        Ok(answer.map_err(io::Error::other)?.into_vec().into())
    }
}

#[derive(Clone)]
struct EchoServer(Service);

impl Echo for EchoServer {
    async fn echo(self, _: context::Context, data: ByteBuf) -> ByteBuf {
        let answer = self.0.answer(data.into_vec().into()).await;
        ByteBuf::from(answer)
    }
}
