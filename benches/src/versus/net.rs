//! Loopback TCP as every peer uses it: TCP_NODELAY, port 0.

use std::io;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

/// A connected pair, client first. `buffer_bytes` sets the kernel's send and receive buffers; `None` leaves
/// them to its tuning.
pub(crate) async fn pair(buffer_bytes: Option<usize>) -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    pair_on(&listener, buffer_bytes).await
}

/// Likewise, on a listener that stands.
pub(crate) async fn pair_on(
    listener: &TcpListener,
    buffer_bytes: Option<usize>,
) -> io::Result<(TcpStream, TcpStream)> {
    let (client, server) = tokio::join!(TcpStream::connect(listener.local_addr()?), listener.accept());
    let (client, server) = (client?, server?.0);
    for socket in [&client, &server] {
        socket.set_nodelay(true)?;
        if let Some(bytes) = buffer_bytes {
            SockRef::from(socket).set_send_buffer_size(bytes)?;
            SockRef::from(socket).set_recv_buffer_size(bytes)?;
        }
    }
    Ok((client, server))
}

/// How a report calls kernel buffers of that size.
pub(crate) fn kernel_label(buffer_bytes: Option<usize>) -> String {
    match buffer_bytes {
        None => "kernel buffers by default".into(),
        Some(bytes) => format!("kernel buffers {} KiB", bytes >> 10),
    }
}
