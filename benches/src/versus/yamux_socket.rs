//! A TCP socket as yamux wants it, with buffers that yamux itself does not have.
//!
//! Left alone, yamux takes two writes and two reads for each frame: header, then body. The buffers here make
//! that one read for all that has come, and one write for each frame, since yamux flushes after each.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::io::{AsyncRead, AsyncWrite};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

/// When buffered bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// No buffers at all.
    Unbuffered,
    /// When yamux flushes.
    PerFrame,
}

/// A TCP stream with buffers.
pub(crate) struct Socket {
    tcp: TcpStream,
    flush: Flush,
    out: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    taken: usize,
    filled: usize,
}

const BUFFER_BYTES: usize = 64 << 10;

impl Socket {
    pub(crate) fn new(tcp: TcpStream, flush: Flush) -> Socket {
        let bytes = if flush == Flush::Unbuffered {
            0
        } else {
            BUFFER_BYTES
        };
        Socket {
            tcp,
            flush,
            out: Vec::with_capacity(bytes),
            written: 0,
            input: vec![0; bytes],
            taken: 0,
            filled: 0,
        }
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            match ready!(poll_tcp_write(&mut self.tcp, cx, &self.out[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
        }
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(&mut self.input);
        ready!(tokio::io::AsyncRead::poll_read(
            Pin::new(&mut self.tcp),
            cx,
            &mut buffer
        ))?;
        (self.taken, self.filled) = (0, buffer.filled().len());
        Poll::Ready(Ok(()))
    }
}

fn poll_tcp_write(tcp: &mut TcpStream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    tokio::io::AsyncWrite::poll_write(Pin::new(tcp), cx, bytes)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let inner = self.get_mut();
        if inner.taken == inner.filled {
            if out.len() >= inner.input.len() {
                let mut buffer = ReadBuf::new(out);
                ready!(tokio::io::AsyncRead::poll_read(
                    Pin::new(&mut inner.tcp),
                    cx,
                    &mut buffer
                ))?;
                return Poll::Ready(Ok(buffer.filled().len()));
            }
            ready!(inner.poll_fill(cx))?;
        }
        let n = out.len().min(inner.filled - inner.taken);
        out[..n].copy_from_slice(&inner.input[inner.taken..inner.taken + n]);
        inner.taken += n;
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let inner = self.get_mut();
        if inner.flush == Flush::Unbuffered {
            return poll_tcp_write(&mut inner.tcp, cx, bytes);
        }
        if !inner.out.is_empty() && inner.out.len() + bytes.len() > BUFFER_BYTES {
            ready!(inner.poll_write_out(cx))?;
        }
        if bytes.len() >= BUFFER_BYTES {
            return poll_tcp_write(&mut inner.tcp, cx, bytes);
        }
        inner.out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = self.get_mut();
        match inner.flush {
            Flush::PerFrame => inner.poll_write_out(cx),
            Flush::Unbuffered => Poll::Ready(Ok(())),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = self.get_mut();
        ready!(inner.poll_write_out(cx))?;
        tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut inner.tcp), cx)
    }
}
