//! How frames are written. PROTOCOL 4.

use bytes::BufMut;

use super::frame::{Frame, MAX_REASON, frame_type};
use super::id::StreamId;
use super::list::{MAX_ADDRESS, put_text};
use super::varint::{self, put};

impl Frame<'_> {
    /// Appends the frame, with its length where that is optional.
    ///
    /// A reason that is too long is cut at a character's end; an address that is too long is left
    /// empty.
    ///
    /// # Panics
    /// As [`BufMut::put_slice`] does when a buffer of fixed size has no room.
    pub fn encode(&self, out: &mut impl BufMut) {
        self.put(out, false);
    }

    /// Appends the frame as the last of its record: STREAM and DATAGRAM run to the end of the body and
    /// need no length.
    pub fn encode_last(&self, out: &mut impl BufMut) {
        self.put(out, true);
    }

    /// Bytes that [`Frame::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        self.measure(false)
    }

    /// Bytes that [`Frame::encode_last`] appends.
    pub fn encoded_last_len(&self) -> usize {
        self.measure(true)
    }

    fn put(&self, out: &mut impl BufMut, last: bool) {
        match *self {
            Frame::Stream {
                id,
                offset,
                fin,
                data,
            } => {
                StreamHeader::new(id, offset, fin, (!last).then_some(data.len())).encode(out);
                out.put_slice(data);
            }
            Frame::AckHere { count, delay_us } => numbers(out, frame_type::ACK_HERE, [count, delay_us]),
            Frame::Ack {
                path,
                lane,
                count,
                delay_us,
            } => {
                numbers(out, frame_type::ACK, [path, lane, count, delay_us]);
            }
            Frame::Datagram { number, class, data } => {
                let class_bit = if class.is_some() {
                    frame_type::DATAGRAM_CLASS
                } else {
                    0
                };
                let length_bit = if last { 0 } else { frame_type::DATAGRAM_LENGTH };
                numbers(out, frame_type::DATAGRAM | class_bit | length_bit, [number]);
                if let Some(class) = class {
                    put(out, class.number().into());
                }
                if !last {
                    put(out, data.len() as u64);
                }
                out.put_slice(data);
            }
            _ => self.put_control(out),
        }
    }

    fn put_control(&self, out: &mut impl BufMut) {
        match *self {
            Frame::Handshake { kind, body } => {
                numbers(out, kind as u8, [body.len() as u64]);
                out.put_slice(body);
            }
            Frame::AckLanes { delay_us, ref counts } => {
                numbers(out, frame_type::ACK_LANES, [delay_us]);
                counts.encode(out);
            }
            Frame::AckDatagrams { ref runs } => {
                numbers(out, frame_type::ACK_DATAGRAMS, []);
                runs.encode(out);
            }
            Frame::Ping { seq } => numbers(out, frame_type::PING, [seq]),
            Frame::Pong { seq } => numbers(out, frame_type::PONG, [seq]),
            Frame::ResetStream { id, code, final_size } => {
                numbers(out, frame_type::RESET_STREAM, [id.value(), code, final_size]);
            }
            Frame::StopSending { id, code } => numbers(out, frame_type::STOP_SENDING, [id.value(), code]),
            Frame::MaxData { class, value } => {
                numbers(out, frame_type::MAX_DATA, [class.number().into(), value]);
            }
            Frame::MaxStreams { class, kind, value } => {
                let packed = u64::from(class.number()) << 2 | kind as u64;
                numbers(out, frame_type::MAX_STREAMS, [packed, value]);
            }
            Frame::MaxStreamData { id, value } => {
                numbers(out, frame_type::MAX_STREAM_DATA, [id.value(), value]);
            }
            Frame::PathStatus {
                path,
                seq,
                status,
                in_flight,
            } => {
                numbers(
                    out,
                    frame_type::PATH_STATUS,
                    [path, seq, status as u64, in_flight],
                );
            }
            Frame::Advertise(ref advertise) => {
                numbers(out, frame_type::ADVERTISE, [advertise.seq]);
                advertise.addresses.encode(out);
            }
            Frame::PathAbandon {
                path,
                code,
                ref counts,
            } => {
                numbers(out, frame_type::PATH_ABANDON, [path, code]);
                counts.encode(out);
            }
            Frame::GoAway {
                code,
                reason,
                address,
            } => {
                numbers(out, frame_type::GOAWAY, [code]);
                put_text(out, clip(reason));
                put_text(out, fitting_address(address));
            }
            Frame::Close { code, reason } => {
                numbers(out, frame_type::CLOSE, [code]);
                put_text(out, clip(reason));
            }
            Frame::Stream { .. } | Frame::Datagram { .. } | Frame::Ack { .. } | Frame::AckHere { .. } => {}
        }
    }

    fn measure(&self, last: bool) -> usize {
        let tail = |len: usize| if last { len } else { counted(len) };
        1 + match *self {
            Frame::Handshake { body, .. } => counted(body.len()),
            Frame::Ack {
                path,
                lane,
                count,
                delay_us,
            } => lens([path, lane, count, delay_us]),
            Frame::AckHere { count, delay_us } => lens([count, delay_us]),
            Frame::AckLanes { delay_us, ref counts } => lens([delay_us]) + counts.encoded_len(),
            Frame::AckDatagrams { ref runs } => runs.encoded_len(),
            Frame::Ping { seq } | Frame::Pong { seq } => lens([seq]),
            Frame::ResetStream { id, code, final_size } => lens([id.value(), code, final_size]),
            Frame::StopSending { id, code: value } | Frame::MaxStreamData { id, value } => {
                lens([id.value(), value])
            }
            Frame::MaxData { value, .. } | Frame::MaxStreams { value, .. } => 1 + lens([value]),
            Frame::PathStatus {
                path, seq, in_flight, ..
            } => 1 + lens([path, seq, in_flight]),
            Frame::Advertise(ref advertise) => lens([advertise.seq]) + advertise.addresses.encoded_len(),
            Frame::PathAbandon {
                path,
                code,
                ref counts,
            } => lens([path, code]) + counts.encoded_len(),
            Frame::GoAway {
                code,
                reason,
                address,
            } => lens([code]) + counted(clip(reason).len()) + counted(fitting_address(address).len()),
            Frame::Close { code, reason } => lens([code]) + counted(clip(reason).len()),
            Frame::Stream { id, offset, data, .. } => {
                lens([id.value()]) + offset.map_or(0, varint::len) + tail(data.len())
            }
            Frame::Datagram { number, class, data } => {
                lens([number]) + usize::from(class.is_some()) + tail(data.len())
            }
        }
    }
}

/// The header of a STREAM frame. `len` is the LENGTH field, if there is to be one. PROTOCOL 4.4.
#[derive(Clone, Copy)]
pub(crate) struct StreamHeader {
    kind: u8,
    id: u64,
    offset: Option<u64>,
    len: Option<u64>,
}

impl StreamHeader {
    #[inline]
    pub(crate) fn new(id: StreamId, offset: Option<u64>, fin: bool, len: Option<usize>) -> StreamHeader {
        let fin_bit = if fin { frame_type::STREAM_FIN } else { 0 };
        let offset_bit = if offset.is_some() {
            frame_type::STREAM_OFFSET
        } else {
            0
        };
        let length_bit = if len.is_some() {
            frame_type::STREAM_LENGTH
        } else {
            0
        };
        StreamHeader {
            kind: frame_type::STREAM | fin_bit | offset_bit | length_bit,
            id: id.value(),
            offset,
            len: len.map(|len| len as u64),
        }
    }

    /// The header at the top of a word, and its length in bytes; `None` when that is over 16.
    ///
    /// Put together in registers, since bytes that are written one by one and copied at once stall
    /// the copy.
    #[inline]
    pub(crate) fn word(&self) -> Option<(u128, usize)> {
        let (mut word, mut used) = (u128::from(self.kind), 1);
        for value in [Some(self.id), self.offset, self.len].into_iter().flatten() {
            let (bytes, len) = varint::word(value)?;
            used += len;
            word = word << (8 * len) | u128::from(bytes);
        }
        if used > 16 {
            return None;
        }
        Some((word << (8 * (16 - used)), used))
    }

    #[inline(never)]
    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        out.put_u8(self.kind);
        for value in [Some(self.id), self.offset, self.len].into_iter().flatten() {
            put(out, value);
        }
    }

    /// Length in bytes.
    #[inline]
    pub(crate) fn encoded_len(&self) -> usize {
        let optional = [self.offset, self.len].into_iter().flatten();
        1 + varint::len(self.id) + optional.map(varint::len).sum::<usize>()
    }
}

#[inline]
fn numbers<const N: usize>(out: &mut impl BufMut, kind: u8, values: [u64; N]) {
    out.put_u8(kind);
    for value in values {
        put(out, value);
    }
}

fn lens<const N: usize>(values: [u64; N]) -> usize {
    values.into_iter().map(varint::len).sum()
}

/// `len` bytes behind their length.
fn counted(len: usize) -> usize {
    varint::len(len as u64) + len
}

/// The longest start of `reason` that may travel.
fn clip(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

fn fitting_address(address: &str) -> &str {
    if address.len() <= MAX_ADDRESS { address } else { "" }
}
