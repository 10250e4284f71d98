//! Items of streaming calls: each with its length before it. PROTOCOL 11.5.
//!
//! ```text
//! item:  varint length + 1 || bytes
//! ```
//!
//! The length is written one higher, so that 0 is free to mark the end of an answer's items.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::error::ItemError;
use crate::wire::{WireError, varint};

/// Appends what goes before an item of `len` bytes.
#[inline]
pub fn put_item_head(out: &mut impl BufMut, len: usize) {
    varint::put(out, (len as u64).saturating_add(1));
}

/// Appends the mark behind the last item of an answer, when more than FIN is to be said.
#[inline]
pub fn put_end_mark(out: &mut impl BufMut) {
    varint::put(out, 0);
}

/// What a reader found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// An item.
    Item(Bytes),
    /// The mark: what follows is no item. [`ItemReader::into_rest`] has it.
    EndMark,
}

/// Cuts a stream's bytes into items.
///
/// [`push`](Self::push) what was read, then [`next`](Self::next) until there is none; at the stream's end
/// [`finish`](Self::finish). An item within one pushed piece is a slice of it, and costs no copy. At most
/// one item that is not complete is held, and what was pushed and not asked for.
#[derive(Debug, Default)]
pub struct ItemReader {
    max: usize,
    /// The pieces that came, in order.
    pieces: VecDeque<Bytes>,
    held: usize,
    /// Bytes at the front of the first piece that [`ItemReader::item`] shows.
    shown: usize,
    /// Length of the item whose head was read.
    body: Option<usize>,
    failed: Option<ItemError>,
}

impl ItemReader {
    /// A reader that takes items of up to `max` bytes.
    pub fn new(max: usize) -> ItemReader {
        ItemReader {
            max,
            ..ItemReader::default()
        }
    }

    /// Adds what the stream gave.
    pub fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.held = self.held.saturating_add(data.len());
            self.pieces.push_back(data);
        }
    }

    /// Bytes that are held: of an item that is not complete, and what was not asked for yet.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Steps onto the next item, which [`item`](Self::item) then shows where it lies, if all of it is in the piece
    /// that is read. Otherwise nothing is changed, and [`next`](Self::next) tells more.
    #[inline]
    pub fn step(&mut self) -> bool {
        self.leave_shown();
        if self.body.is_some() || self.failed.is_some() {
            return false;
        }
        let Some(front) = self.pieces.front_mut() else {
            return false;
        };
        let mut rest = &front[..];
        let Ok(written @ 1..) = varint::field(&mut rest, "item length") else {
            return false;
        };
        let len = written - 1;
        if len > self.max as u64 || len > rest.len() as u64 {
            return false;
        }
        // No longer than what lies there.
        let len = len as usize;
        let head = front.len() - rest.len();
        front.advance(head);
        self.held -= head + len;
        self.shown = len;
        true
    }

    /// The item that was [stepped](Self::step) onto; empty once anything else was asked for.
    #[inline]
    pub fn item(&self) -> &[u8] {
        let front = self.pieces.front();
        front
            .and_then(|front| front.get(..self.shown))
            .unwrap_or_default()
    }

    /// What was shown was read.
    #[inline]
    fn leave_shown(&mut self) {
        let Some(front) = self.pieces.front_mut() else {
            return;
        };
        if front.len() > self.shown {
            front.advance(self.shown);
        } else {
            self.pieces.pop_front();
        }
        self.shown = 0;
    }

    /// The next item, or `None` until more is pushed.
    ///
    /// # Errors
    /// [`ItemError`], and the same ever after. A length over the limit is refused before its bytes come.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Piece>, ItemError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.leave_shown();
        let len = match self.body {
            Some(len) => len,
            None => match self.take_head() {
                Ok(Some(0)) => return Ok(Some(Piece::EndMark)),
                Ok(Some(len)) => {
                    // One less than written; over the limit was refused.
                    let len = len - 1;
                    self.body = Some(len);
                    len
                }
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.failed = Some(error);
                    return Err(error);
                }
            },
        };
        if self.held < len {
            return Ok(None);
        }
        self.body = None;
        Ok(Some(Piece::Item(self.take(len))))
    }

    /// The stream ended.
    ///
    /// # Errors
    /// [`ItemError::Cut`] when it ended within an item, or the error that [`next`](Self::next) gave.
    pub fn finish(&self) -> Result<(), ItemError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.held > 0 || self.body.is_some() => Err(ItemError::Cut),
            None => Ok(()),
        }
    }

    /// What was pushed and is no item: for what follows the end mark.
    pub fn into_rest(mut self) -> Bytes {
        self.leave_shown();
        self.take(self.held)
    }

    /// A length as written, or `None` when it is not all there.
    fn take_head(&mut self) -> Result<Option<usize>, ItemError> {
        let Some(first) = self.pieces.front() else {
            return Ok(None);
        };
        let mut scratch = [0; varint::MAX_LEN];
        let mut input = &first[..];
        let mut had = input.len();
        if had < varint::MAX_LEN && self.pieces.len() > 1 {
            had = 0;
            for byte in self
                .pieces
                .iter()
                .flat_map(|piece| piece.iter())
                .take(scratch.len())
            {
                scratch[had] = *byte;
                had += 1;
            }
            input = &scratch[..had];
        }
        let written = match varint::field(&mut input, "item length") {
            Ok(written) => written,
            Err(WireError::Truncated { .. }) => return Ok(None),
            Err(error) => return Err(ItemError::Wire(error)),
        };
        let used = had - input.len();
        if written.saturating_sub(1) > self.max as u64 {
            return Err(ItemError::TooLong {
                len: written - 1,
                max: self.max,
            });
        }
        self.skip(used);
        Ok(Some(usize::try_from(written).unwrap_or(usize::MAX)))
    }

    fn skip(&mut self, mut count: usize) {
        self.held -= count;
        while let Some(front) = self.pieces.front_mut() {
            if front.len() > count {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.pieces.pop_front();
        }
    }

    /// The next `len` bytes, which are there.
    fn take(&mut self, len: usize) -> Bytes {
        let Some(front) = self.pieces.front_mut() else {
            return Bytes::new();
        };
        if front.len() > len {
            self.held -= len;
            return front.split_to(len);
        }
        if front.len() == len {
            self.held -= len;
            return self.pieces.pop_front().unwrap_or_default();
        }
        let mut whole = BytesMut::with_capacity(len);
        while whole.len() < len {
            let Some(front) = self.pieces.front_mut() else {
                break;
            };
            let part = front.len().min(len - whole.len());
            whole.put_slice(&front[..part]);
            self.skip(part);
        }
        whole.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(items: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for item in items {
            put_item_head(&mut out, item.len());
            out.extend_from_slice(item);
        }
        out
    }

    fn all(reader: &mut ItemReader) -> Vec<Bytes> {
        let mut found = Vec::new();
        while let Some(piece) = reader.next().unwrap() {
            match piece {
                Piece::Item(item) => found.push(item),
                Piece::EndMark => panic!("an end mark"),
            }
        }
        found
    }

    #[test]
    fn however_it_is_cut() {
        let long = vec![9; 300];
        let items: [&[u8]; 5] = [b"one", b"", b"three", &long, b"x"];
        let bytes = wire(&items);
        for size in 1..bytes.len() {
            let mut reader = ItemReader::new(1000);
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                reader.push(Bytes::copy_from_slice(piece));
                found.extend(all(&mut reader));
            }
            assert_eq!(found, items, "pieces of {size}");
            assert_eq!((reader.finish(), reader.held()), (Ok(()), 0));
        }
    }

    #[test]
    fn an_item_within_a_piece_is_not_copied() {
        let bytes = Bytes::from(wire(&[b"hello", b"world"]));
        let mut reader = ItemReader::new(10);
        reader.push(bytes.clone());
        let items = all(&mut reader);
        assert_eq!(items[0].as_ptr(), bytes[1..].as_ptr());
        assert_eq!(items[1].as_ptr(), bytes[7..].as_ptr());
    }

    #[test]
    fn items_are_shown_where_they_lie() {
        let bytes = Bytes::from(wire(&[b"hello", b"", b"world", b"cut"]));
        let (first, second) = (bytes.slice(..9), bytes.slice(9..));
        let mut reader = ItemReader::new(10);
        assert!(!reader.step(), "nothing has come");
        reader.push(first.clone());
        assert!(reader.step());
        assert_eq!((reader.item(), reader.held()), (&b"hello"[..], 3));
        assert_eq!(reader.item().as_ptr(), first[1..].as_ptr());
        assert!(reader.step());
        assert_eq!(reader.item(), b"");
        // The next lies in two pieces.
        assert!(!reader.step());
        assert_eq!(reader.item(), b"");
        assert_eq!(reader.next(), Ok(None));
        reader.push(second);
        assert!(!reader.step());
        assert_eq!(reader.next(), Ok(Some(Piece::Item(Bytes::from_static(b"world")))));
        assert!(reader.step());
        assert_eq!((reader.item(), reader.held()), (&b"cut"[..], 0));
        assert_eq!(
            (reader.finish(), reader.next(), reader.step()),
            (Ok(()), Ok(None), false)
        );
        // An end mark, a length over the limit and a head that is wrong are for `next`.
        for bad in [&[0][..], &[13, 1], &[0x80, 0x01]] {
            let mut reader = ItemReader::new(10);
            reader.push(Bytes::copy_from_slice(bad));
            assert!(!reader.step());
            assert_ne!(reader.next(), Ok(None));
            assert!(!reader.step());
        }
    }

    #[test]
    fn limits_and_cuts() {
        let mut reader = ItemReader::new(4);
        reader.push(Bytes::from(wire(&[b"four"])));
        assert_eq!(all(&mut reader), [&b"four"[..]]);
        reader.push(Bytes::from_static(&[6]));
        let error = ItemError::TooLong { len: 5, max: 4 };
        assert_eq!(
            (reader.next(), reader.next(), reader.finish()),
            (Err(error), Err(error), Err(error))
        );
        for cut in [&[5, 1][..], &[0x81], &[5]] {
            let mut reader = ItemReader::new(200);
            reader.push(Bytes::from(cut.to_vec()));
            assert_eq!((reader.next(), reader.finish()), (Ok(None), Err(ItemError::Cut)));
        }
        let mut reader = ItemReader::new(usize::MAX);
        reader.push(Bytes::from(vec![0xff; 9]));
        assert!(!matches!(reader.next(), Ok(Some(_))));
        let mut reader = ItemReader::new(9);
        reader.push(Bytes::from_static(&[0x80, 0x01]));
        assert!(matches!(reader.next(), Err(ItemError::Wire(_))));
    }

    #[test]
    fn the_end_mark_and_what_follows() {
        let mut bytes = wire(&[b"a"]);
        put_end_mark(&mut bytes);
        bytes.extend_from_slice(b"rest");
        let mut reader = ItemReader::new(9);
        for byte in bytes {
            reader.push(Bytes::from(vec![byte]));
        }
        assert_eq!(reader.next(), Ok(Some(Piece::Item(Bytes::from_static(b"a")))));
        assert_eq!(reader.next(), Ok(Some(Piece::EndMark)));
        assert_eq!(reader.into_rest(), &b"rest"[..]);
    }

    #[test]
    fn any_bytes_in_any_pieces() {
        bolero::check!()
            .with_type::<(Vec<u8>, u8)>()
            .for_each(|(bytes, size)| {
                let mut whole = ItemReader::new(50);
                whole.push(Bytes::from(bytes.clone()));
                let mut parts = ItemReader::new(50);
                for piece in bytes.chunks(usize::from(*size).max(1)) {
                    parts.push(Bytes::copy_from_slice(piece));
                }
                let mut shown = ItemReader::new(50);
                for piece in bytes.chunks(usize::from(*size).max(1)) {
                    shown.push(Bytes::copy_from_slice(piece));
                }
                loop {
                    let (a, b) = (whole.next(), parts.next());
                    assert_eq!(a, b);
                    let c = match shown.step() {
                        true => Ok(Some(Piece::Item(Bytes::copy_from_slice(shown.item())))),
                        false => shown.next(),
                    };
                    assert_eq!(a, c);
                    assert_eq!(whole.held(), shown.held());
                    assert_eq!(whole.held(), parts.held());
                    if !matches!(a, Ok(Some(Piece::Item(_)))) {
                        break;
                    }
                }
                assert_eq!(whole.finish(), parts.finish());
            });
    }
}
