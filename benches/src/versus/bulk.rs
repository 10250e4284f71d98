//! `bulk`: one stream that is written without end; bytes a second where they are received.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::case::{Better, Case, Metric, Shape, Test, workers_label};
use super::load::Load;

const WRITE_KIB: [usize; 2] = [16, 64];

pub(crate) fn cases(workers: usize) -> Vec<Case> {
    let case = |kib| Case {
        test: Test::Bulk,
        shape: Shape::Bulk {
            write_bytes: kib * 1024,
        },
        workers,
        op: "MiB",
        metrics: vec![Metric {
            setting: format!("{kib} KiB writes, {}", workers_label(workers)),
            unit: "B/s",
            better: Better::Higher,
        }],
    };
    WRITE_KIB.map(case).into()
}

/// Spawns the sending side.
pub(crate) fn write_forever<W>(mut writer: W, write_bytes: usize, load: &Load)
where
    W: AsyncWrite + Unpin + Send + 'static,
{
    let shared = load.clone();
    load.spawn(async move {
        let chunk = payload(write_bytes);
        while !shared.stopped() {
            writer.write_all(&chunk).await?;
        }
        Ok(())
    });
}

/// Spawns the receiving side with a buffer of `read_bytes`.
pub(crate) fn read_forever<R>(mut reader: R, read_bytes: usize, load: &Load)
where
    R: AsyncRead + Unpin + Send + 'static,
{
    let counter = load.counter();
    load.spawn(async move {
        let mut buffer = vec![0; read_bytes];
        loop {
            match reader.read(&mut buffer).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => counter.add(n as u64),
            }
        }
    });
}

/// Bytes that do not compress to nothing.
pub(crate) fn payload(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next)
        .take(len.div_ceil(8))
        .flatten()
        .collect();
    bytes.truncate(len);
    bytes
}
