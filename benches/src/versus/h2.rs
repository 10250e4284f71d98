//! `h2`: bare HTTP/2 streams, one a call, over one connection. An item is a DATA frame.

use std::future::poll_fn;
use std::io;

use bytes::{Bytes, BytesMut};
use h2::client::{self, SendRequest};
use h2::server::{self, SendResponse};
use h2::{RecvStream, SendStream};
use http::{Request, Response};

use super::case::Test;
use super::items::{Receiver, Source};
use super::load::Load;
use super::net;
use super::peer::{Keep, Starting};
use super::rpc::{Client, MAX_IN_FLIGHT, Rpc, Service, endless_items};

/// See the [module](self).
pub(crate) struct H2;

/// Windows of a stream and of the connection, and the largest frame; `None` for the protocol's own.
type Windows = Option<(u32, u32, u32)>;

const VARIANTS: [(&str, Windows); 3] = [
    ("default windows", None),
    ("windows 1 and 4 MiB", Some((1 << 20, 4 << 20, 16 << 10))),
    (
        "windows 4 and 16 MiB, frames of 1 MiB",
        Some((4 << 20, 16 << 20, 1 << 20)),
    ),
];
/// What one stream buffers to send.
const SEND_BUFFER: usize = 2 << 20;
/// Small frames that may lie unread. The default is made for strangers.
const FRAME_BUDGET: usize = 64 << 20;

impl Rpc for H2 {
    type Client = Caller;

    fn key(&self) -> &'static str {
        "h2"
    }

    fn variants(&self, _test: Test) -> Vec<String> {
        VARIANTS
            .map(|(label, _)| format!("NODELAY, {label}, a task answers each stream"))
            .into()
    }

    async fn connect(&self, variant: usize, service: Service, load: &Load) -> io::Result<(Caller, Keep)> {
        let (_, windows) = VARIANTS[variant];
        let (client, server) = net::pair(None).await?;
        let mut builder = server::Builder::new();
        builder
            .max_concurrent_streams(MAX_IN_FLIGHT as u32)
            .max_send_buffer_size(SEND_BUFFER)
            .data_frame_budget(FRAME_BUDGET);
        if let Some((stream, connection, frame)) = windows {
            builder
                .initial_window_size(stream)
                .initial_connection_window_size(connection)
                .max_frame_size(frame);
        }
        let handshake = builder.handshake::<_, Bytes>(server);
        load.spawn(async move {
            let mut connection = handshake.await.map_err(io::Error::other)?;
            while let Some(request) = connection.accept().await {
                let (request, respond) = request.map_err(io::Error::other)?;
                tokio::spawn(answer(request, respond, service.clone()));
            }
            Ok(())
        });
        let mut builder = client::Builder::new();
        builder
            .initial_max_send_streams(MAX_IN_FLIGHT)
            .max_send_buffer_size(SEND_BUFFER)
            .data_frame_budget(FRAME_BUDGET);
        if let Some((stream, connection, frame)) = windows {
            builder
                .initial_window_size(stream)
                .initial_connection_window_size(connection)
                .max_frame_size(frame);
        }
        let handshake = builder.handshake(client).await;
        let (send, connection) = handshake.map_err(io::Error::other)?;
        load.spawn(async move { connection.await.map_err(io::Error::other) });
        Ok((Caller(send), Box::new(())))
    }

    fn items<'a>(&'a self, variant: usize, _source: Source, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (Caller(send), keep) = self.connect(variant, Service::Echo, load).await?;
            let mut receiver = Receiver::new(load.counter());
            load.spawn(async move {
                let mut send = send.ready().await.map_err(io::Error::other)?;
                let (response, _) = send
                    .send_request(request(ITEMS)?, true)
                    .map_err(io::Error::other)?;
                let mut body = response.await.map_err(io::Error::other)?.into_body();
                while let Some(item) = body.data().await {
                    let item = item.map_err(io::Error::other)?;
                    release(&mut body, item.len())?;
                    receiver.received(&item)?;
                }
                Err(io::ErrorKind::UnexpectedEof.into())
            });
            Ok(Some(keep))
        })
    }
}

const ECHO: &str = "http://versus/echo";
const ITEMS: &str = "http://versus/items";

fn request(uri: &'static str) -> io::Result<Request<()>> {
    Request::post(uri).body(()).map_err(io::Error::other)
}

/// A caller of the shared connection.
#[derive(Clone)]
pub(crate) struct Caller(SendRequest<Bytes>);

impl Client for Caller {
    async fn call(&mut self, payload: Bytes) -> io::Result<Bytes> {
        poll_fn(|cx| self.0.poll_ready(cx))
            .await
            .map_err(io::Error::other)?;
        let sent = self.0.send_request(request(ECHO)?, false);
        let (response, mut body) = sent.map_err(io::Error::other)?;
        // What the window has no room for is buffered.
        body.send_data(payload, true).map_err(io::Error::other)?;
        let answer = response.await.map_err(io::Error::other)?;
        read_all(answer.into_body()).await
    }
}

fn release(body: &mut RecvStream, bytes: usize) -> io::Result<()> {
    body.flow_control()
        .release_capacity(bytes)
        .map_err(io::Error::other)
}

async fn read_all(mut body: RecvStream) -> io::Result<Bytes> {
    let mut whole = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(io::Error::other)?;
        release(&mut body, data.len())?;
        if body.is_end_stream() && whole.is_empty() {
            return Ok(data);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    service: Service,
) -> io::Result<()> {
    let items = request.uri().path() == "/items";
    let payload = read_all(request.into_body()).await?;
    let payload = if items {
        payload
    } else {
        service.answer(payload).await
    };
    let mut body = respond
        .send_response(Response::new(()), false)
        .map_err(io::Error::other)?;
    if !items {
        return body.send_data(payload, true).map_err(io::Error::other);
    }
    for item in endless_items() {
        room(&mut body, item.len()).await?;
        body.send_data(item, false).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Waits until the stream may buffer so many bytes.
async fn room(body: &mut SendStream<Bytes>, bytes: usize) -> io::Result<()> {
    body.reserve_capacity(bytes);
    while body.capacity() < bytes {
        match poll_fn(|cx| body.poll_capacity(cx)).await {
            Some(more) => more.map_err(io::Error::other)?,
            None => return Err(io::ErrorKind::BrokenPipe.into()),
        };
    }
    Ok(())
}
