//! The IO traits of `futures`, and of tokio with the feature `tokio-io`.
//!
//! Closing or shutting down a writer finishes the stream; flushing does nothing, since the driver
//! sends what is written without being asked.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::stream::{BiStream, RecvStream, SendStream, poll_read_io, poll_write_io};

macro_rules! writer {
    ($name:ty, $($half:tt)*) => {
        impl futures_io::AsyncWrite for $name {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
                poll_write_io(&mut self$($half)*, cx, data)
            }
            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
            fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                self$($half)*.poll_finish()
            }
        }

        #[cfg(feature = "tokio-io")]
        impl tokio::io::AsyncWrite for $name {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
                poll_write_io(&mut self$($half)*, cx, data)
            }
            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
            fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                self$($half)*.poll_finish()
            }
        }
    };
}

macro_rules! reader {
    ($name:ty, $($half:tt)*) => {
        impl futures_io::AsyncRead for $name {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                poll_read_io(&mut self$($half)*, cx, buffer)
            }
        }

        #[cfg(feature = "tokio-io")]
        impl tokio::io::AsyncRead for $name {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut tokio::io::ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let count = std::task::ready!(poll_read_io(&mut self$($half)*, cx, buffer.initialize_unfilled()))?;
                buffer.advance(count);
                Poll::Ready(Ok(()))
            }
        }
    };
}

writer!(SendStream,);
reader!(RecvStream,);
writer!(BiStream, .send);
reader!(BiStream, .recv);
