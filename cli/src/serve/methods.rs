//! The methods to play with, and those for files.

use crate::transfer::name::FileName;
use crate::transfer::store::Store;
use sheetbend_tokio::{Code, Failure, Router, RouterBuilder};
use std::io::{self, ErrorKind};
use std::time::SystemTime;
use tokio::io::AsyncReadExt;
use tokio::task::spawn_blocking;

/// The most numbers that `count` counts to.
const MAX_COUNT: u64 = 1_000_000_000;
/// Bytes of a file in one item.
const PIECE: usize = 64 * 1024;

/// What every server has; the files of `store` as well, if they are shared.
pub(super) fn router(store: Option<Store>) -> Router {
    let router = Router::builder()
        .unary("echo", |_, payload| async move { Ok(payload) })
        .unary("time", |_, _| async move {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            Ok(format!("{:.6}", since.unwrap_or_default().as_secs_f64()))
        })
        .server_streaming("count", |_, payload, mut out| async move {
            let to = match payload.is_empty() {
                true => 10,
                false => number(&payload)?,
            };
            if to > MAX_COUNT {
                let message = format!("it counts to {MAX_COUNT}, not to {to}");
                return Err(Failure::new(Code::OutOfRange, message));
            }
            for number in 1..=to {
                out.feed(number.to_string()).await?;
                if number % 64 == 0 {
                    out.flush().await?;
                }
            }
            Ok(())
        })
        .client_streaming("sum", |_, mut items| async move {
            let mut sum = 0_u64;
            while let Some(item) = items.next().await? {
                sum = sum
                    .checked_add(number(&item)?)
                    .ok_or_else(|| Failure::new(Code::OutOfRange, "the sum is over 64 bits"))?;
            }
            Ok(sum.to_string())
        });
    match store {
        Some(store) => files(router, store),
        None => router,
    }
    .build()
}

fn files(router: RouterBuilder, store: Store) -> RouterBuilder {
    let listed = store.clone();
    router
        .server_streaming("files", move |_, _, mut out| {
            let store = listed.clone();
            async move {
                let files = spawn_blocking(move || store.list()).await;
                for (name, size) in files.map_err(internal)?.map_err(internal)? {
                    out.feed(format!("{size} {name}")).await?;
                }
                Ok(())
            }
        })
        .server_streaming("read", move |_, payload, mut out| {
            let store = store.clone();
            async move {
                let name = FileName::parse(&payload)
                    .map_err(|error| Failure::new(Code::InvalidArgument, error.to_string()))?;
                let opened = spawn_blocking(move || store.read(&name)).await;
                let file = opened.map_err(internal)?.map_err(|error| match error.kind() {
                    ErrorKind::NotFound => Failure::new(Code::NotFound, "there is no such file"),
                    _ => internal(error),
                })?;
                let mut file = tokio::fs::File::from_std(file);
                loop {
                    let mut piece = bytes::BytesMut::with_capacity(PIECE);
                    if file.read_buf(&mut piece).await.map_err(internal)? == 0 {
                        return Ok(());
                    }
                    out.send(piece).await?;
                }
            }
        })
}

fn internal(error: impl Into<io::Error>) -> Failure {
    Failure::new(Code::Internal, error.into().to_string())
}

fn number(bytes: &[u8]) -> Result<u64, Failure> {
    let text = std::str::from_utf8(bytes).unwrap_or_default().trim();
    text.parse()
        .map_err(|_| Failure::new(Code::InvalidArgument, format!("'{text}' is not a number")))
}
