//! `tonic`: gRPC over HTTP/2, messages by prost as generated code has them, one connection.

use std::convert::Infallible;
use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{self, Iter};
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::server::{ServerStreamingService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::case::Test;
use super::items::{Receiver, Source};
use super::load::Load;
use super::peer::{Keep, Starting};
use super::rpc::{self, Client, MAX_IN_FLIGHT, Rpc, Service, endless_items};

/// See the [module](self).
pub(crate) struct Tonic;

#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
}

type Codec = ProstCodec<Payload, Payload>;

const ECHO: &str = "/versus.Echo/Echo";
const ITEMS: &str = "/versus.Echo/Items";
const ITEMS_AT_HAND: &str = "/versus.Echo/ItemsAtHand";
/// Items between the task that makes them and the connection.
const CHANNEL: usize = 1024;
/// The largest message, and what is around the payload.
const MAX_MESSAGE: usize = (1 << 20) + 64;

/// Windows of a stream and of the connection, and the largest frame. With the default windows, h2's bound on small
/// frames that lie unread ends the connection when a thousand calls come at once.
const VARIANTS: [(&str, u32, u32, u32); 3] = [
    ("windows 256 KiB and 1 MiB", 256 << 10, 1 << 20, 16 << 10),
    ("windows 1 and 4 MiB", 1 << 20, 4 << 20, 16 << 10),
    (
        "windows 4 and 16 MiB, frames of 1 MiB",
        4 << 20,
        16 << 20,
        1 << 20,
    ),
];

impl Rpc for Tonic {
    type Client = Caller;

    fn key(&self) -> &'static str {
        "tonic"
    }

    fn variants(&self, _test: Test) -> Vec<String> {
        VARIANTS
            .map(|(label, ..)| format!("NODELAY, {label}, prost with bytes"))
            .into()
    }

    async fn connect(&self, variant: usize, service: Service, load: &Load) -> io::Result<(Caller, Keep)> {
        let (_, stream, connection, frame) = VARIANTS[variant];
        let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into())?.with_nodelay(Some(true));
        let address = incoming.local_addr()?;
        let server = Server::builder()
            .max_concurrent_streams(MAX_IN_FLIGHT as u32)
            .initial_stream_window_size(stream)
            .initial_connection_window_size(connection)
            .max_frame_size(frame);
        let endpoint = Endpoint::new(format!("http://{address}")).map_err(io::Error::other)?;
        let endpoint = endpoint
            .tcp_nodelay(true)
            .buffer_size(MAX_IN_FLIGHT)
            .initial_stream_window_size(stream)
            .initial_connection_window_size(connection)
            .max_frame_size(frame);
        load.spawn(async move {
            let serving = server.serve_with_incoming(Routes(service), incoming);
            serving.await.map_err(io::Error::other)
        });
        let channel = endpoint.connect().await.map_err(io::Error::other)?;
        let caller = Caller(tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE));
        Ok((caller, Box::new(())))
    }

    fn items<'a>(&'a self, variant: usize, source: Source, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (Caller(mut grpc), keep) = self.connect(variant, Service::Echo, load).await?;
            let mut receiver = Receiver::new(load.counter());
            load.spawn(async move {
                grpc.ready().await.map_err(io::Error::other)?;
                let request = Request::new(Payload::default());
                let path = PathAndQuery::from_static(match source {
                    Source::Task => ITEMS,
                    Source::AtHand => ITEMS_AT_HAND,
                });
                let answer = grpc.server_streaming(request, path, Codec::default()).await;
                let mut items = answer.map_err(io::Error::other)?.into_inner();
                while let Some(item) = items.message().await.map_err(io::Error::other)? {
                    receiver.received(&item.data)?;
                }
                Err(io::ErrorKind::UnexpectedEof.into())
            });
            Ok(Some(keep))
        })
    }
}

/// A caller of the shared channel.
#[derive(Clone)]
pub(crate) struct Caller(tonic::client::Grpc<Channel>);

impl Client for Caller {
    async fn call(&mut self, data: Bytes) -> io::Result<Bytes> {
        self.0.ready().await.map_err(io::Error::other)?;
        let request = Request::new(Payload { data });
        let path = PathAndQuery::from_static(ECHO);
        let answer = self.0.unary(request, path, Codec::default()).await;
        Ok(answer.map_err(io::Error::other)?.into_inner().data)
    }
}

/// What the generated server of these two methods is, without a router around it.
#[derive(Clone)]
struct Routes(rpc::Service);

impl tonic::codegen::Service<http::Request<Body>> for Routes {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut grpc = tonic::server::Grpc::new(Codec::default()).max_decoding_message_size(MAX_MESSAGE);
        let service = self.0.clone();
        match request.uri().path() {
            ITEMS => Box::pin(async move { Ok(grpc.server_streaming(FromTask, request).await) }),
            ITEMS_AT_HAND => Box::pin(async move { Ok(grpc.server_streaming(AtHand, request).await) }),
            _ => Box::pin(async move { Ok(grpc.unary(Echo(service), request).await) }),
        }
    }
}

struct Echo(rpc::Service);

impl UnaryService<Payload> for Echo {
    type Response = Payload;
    type Future = BoxFuture<Response<Payload>, Status>;

    fn call(&mut self, request: Request<Payload>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            let data = service.answer(request.into_inner().data).await;
            Ok(Response::new(Payload { data }))
        })
    }
}

struct FromTask;

impl ServerStreamingService<Payload> for FromTask {
    type Response = Payload;
    type ResponseStream = ReceiverStream<Result<Payload, Status>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, _: Request<Payload>) -> Self::Future {
        let (sender, receiver) = mpsc::channel(CHANNEL);
        tokio::spawn(async move {
            for data in endless_items() {
                if sender.send(Ok(Payload { data })).await.is_err() {
                    return;
                }
            }
        });
        Box::pin(async move { Ok(Response::new(ReceiverStream::new(receiver))) })
    }
}

struct AtHand;

type Items = Box<dyn Iterator<Item = Result<Payload, Status>> + Send>;

impl ServerStreamingService<Payload> for AtHand {
    type Response = Payload;
    type ResponseStream = Iter<Items>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, _: Request<Payload>) -> Self::Future {
        let items: Items = Box::new(endless_items().map(|data| Ok(Payload { data })));
        Box::pin(async move { Ok(Response::new(stream::iter(items))) })
    }
}
