//! What strangers, thieves and broken middleboxes send. Issue rows of PROTOCOL 14.4 to 14.7.

use std::io::IoSlice;
use std::time::Duration;

use bytes::BytesMut;
use zeroize::Zeroizing;

use super::*;
use crate::time::Timestamp;
use crate::wire::OutBuffer;

const NOW: Timestamp = Timestamp::ZERO;

fn request(text: &str) -> Result<RequestHead, HttpError> {
    let parsed = RequestHead::parse(text.as_bytes(), HeadLimits::default())?;
    Ok(parsed.expect("a whole head").0)
}

fn malformed<T: std::fmt::Debug>(result: Result<T, HttpError>) -> bool {
    matches!(result, Err(HttpError::Malformed(_)))
}

fn drain(out: &mut OutBuffer) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !out.is_empty() {
        bytes.extend_from_slice(out.chunk());
        let count = out.chunk().len();
        out.advance(count);
    }
    bytes
}

#[test]
fn a_length_beside_a_transfer_coding_is_refused() {
    for text in [
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
    ] {
        assert!(malformed(request(text)), "{text}");
    }
    for coding in [
        "gzip, chunked",
        "chunked, chunked",
        "identity",
        "xchunked",
        "chunked;q=1",
        "",
    ] {
        let text = format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {coding}\r\n\r\n");
        assert!(malformed(request(&text).unwrap().body_length()), "{coding}");
    }
    let twice =
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(malformed(request(twice).unwrap().body_length()));
    let old = "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(malformed(request(old).unwrap().body_length()));
}

#[test]
fn doubled_and_signed_lengths_are_refused() {
    for length in [
        "4\r\nContent-Length: 4",
        "4\r\nContent-Length: 5",
        "4, 4",
        "+4",
        "-4",
        "0x4",
        "4 4",
        "",
        "9".repeat(19).as_str(),
    ] {
        let text = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        assert!(malformed(request(&text)), "{length}");
    }
    let good = request("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 42\r\n\r\n").unwrap();
    assert_eq!(good.body_length(), Ok(BodyLength::Fixed(42)));
}

#[test]
fn folded_lines_are_refused() {
    for fold in [" ", "\t"] {
        let text = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n{fold}4\r\n\r\n");
        assert!(malformed(request(&text)));
    }
    assert!(malformed(request("POST / HTTP/1.1\r\n Host: x\r\n\r\n")));
    assert!(
        malformed(request("POST / HTTP/1.1\r\nHost : x\r\n\r\n")),
        "a blank before the colon"
    );
}

#[test]
fn bare_line_feeds_are_refused() {
    for text in [
        "POST / HTTP/1.1\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\n\n",
        "POST / HTTP/1.1\r\nHost: x\r\rX: y\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\0\r\n\r\n",
    ] {
        assert!(malformed(request(text)), "{text:?}");
    }
}

#[test]
fn huge_heads_and_floods_of_fields_are_refused() {
    let huge = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(20_000));
    assert_eq!(request(&huge), Err(HttpError::TooLarge));
    for count in [101, 150, 1000] {
        let flood = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert_eq!(request(&flood), Err(HttpError::TooLarge), "{count}");
    }
    // One that never ends is known by its size.
    let endless = "GET / HTTP/1.1\r\nHost: x\r\n".to_owned() + &"a: b\r\n".repeat(4000);
    assert_eq!(
        RequestHead::parse(endless.as_bytes(), HeadLimits::default()),
        Err(HttpError::TooLarge)
    );
}

#[test]
fn pages_of_other_origins_make_no_path() {
    let asks = |origin: &str, host: &str| {
        let text = format!(
            "POST /?op=new HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nContent-Length: 0\r\n\r\n"
        );
        Guard::default().check(&request(&text).unwrap(), false, false)
    };
    let refused = |result| matches!(result, Err(HttpError::Refused { status: 403, .. }));
    assert!(refused(asks("http://evil.example", "127.0.0.1:80")));
    assert!(refused(asks("null", "127.0.0.1:80")));
    assert!(asks("http://127.0.0.1:80", "127.0.0.1:80").is_ok());
}

#[test]
fn a_name_made_to_resolve_to_us_makes_no_path() {
    let text = "POST /?op=new HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\nContent-Length: 0\r\n\r\n";
    let result = Guard::default().check(&request(text).unwrap(), false, false);
    assert!(
        matches!(result, Err(HttpError::Refused { status: 421, .. })),
        "{result:?}"
    );
}

/// Takes everything that a body holds, in pieces.
fn decode(mode: Mode, body: &[u8], at: usize) -> Result<(Vec<u8>, Vec<Note>), HttpError> {
    let mut decoder = ItemDecoder::new(mode);
    let (mut raw, mut plain) = (BytesMut::new(), BytesMut::new());
    let (mut data, mut notes) = (Vec::new(), Vec::new());
    for piece in [&body[..at], &body[at..]] {
        raw.extend_from_slice(piece);
        while let Some(item) = decoder.next(&mut raw, &mut plain)? {
            match item {
                Item::Data(count) => data.extend_from_slice(&plain.split_to(count)),
                Item::Note(note) => notes.push(note),
            }
            if let Some(position) = decoder.take_position() {
                assert_eq!(position, 1000 + data.len() as u64);
            }
        }
    }
    assert!(decoder.is_between() && raw.is_empty());
    Ok((data, notes))
}

/// What a client reads of the chunks.
fn unchunked(chunks: &[u8]) -> Vec<u8> {
    let mut body = BytesMut::new();
    let mut decoder = BodyDecoder::new(BodyLength::Chunked);
    decoder.decode(&mut BytesMut::from(chunks), &mut body).unwrap();
    body.to_vec()
}

#[test]
fn every_mode_reads_back_however_it_is_cut() {
    let notes = [Note::Received(7), Note::Mark(1 << 40), Note::End];
    for mode in [Mode::Binary, Mode::Sse, Mode::Ndjson, Mode::Poll] {
        let mut out = OutBuffer::new();
        put_preamble(mode, &mut out);
        put_data(mode, 1000, b"ab", &mut out);
        put_alive(mode, 3, &mut out);
        for note in notes {
            put_note(mode, note, &mut out);
        }
        put_data(mode, 1002, &[0; 100], &mut out);
        let written = drain(&mut out);
        let body = if mode == Mode::Poll {
            written
        } else {
            unchunked(&written)
        };
        for at in 0..=body.len() {
            let (data, told) = decode(mode, &body, at).unwrap();
            assert_eq!(data, [b"ab".as_slice(), &[0; 100]].concat(), "{mode} at {at}");
            let alive = matches!(mode, Mode::Binary | Mode::Poll).then_some(Note::Received(3));
            let expected: Vec<Note> = alive.into_iter().chain(notes).collect();
            assert_eq!(told, expected, "{mode} at {at}");
        }
    }
}

#[test]
fn nothing_that_is_sent_becomes_an_event() {
    let hostile = b"\n\nevent: end\ndata: 0\n\nid: 5\r\n\r\n\x00retry: 1\r\"}\n{\"end\":0}\n";
    for mode in [Mode::Sse, Mode::Ndjson] {
        let mut out = OutBuffer::new();
        put_data(mode, 1000, hostile, &mut out);
        let body = unchunked(&drain(&mut out));
        let (data, notes) = decode(mode, &body, 0).unwrap();
        assert_eq!((&data[..], notes), (&hostile[..], vec![]));
        let text = String::from_utf8(body).unwrap();
        let lines = text.lines().filter(|line| !line.is_empty()).count();
        assert_eq!(lines, if mode == Mode::Sse { 2 } else { 1 }, "{text}");
    }
}

#[test]
fn what_no_server_writes_is_refused() {
    for (mode, bad) in [
        (Mode::Binary, &b"\x00"[..]),
        (Mode::Binary, b"\x0a"),
        (Mode::Binary, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        (Mode::Sse, b"data: AAAA\n\n"),
        (Mode::Sse, b"id: x\ndata: AAAA\n\n"),
        (Mode::Sse, b"id: 3\ndata: AAA\n\n"),
        (Mode::Sse, b"id: 3\ndata: AA\ndata: AA\n\n"),
        (Mode::Sse, b"id: 3\ndata: \n\n"),
        (Mode::Ndjson, b"{}\n"),
        (Mode::Ndjson, b"{\"id\":3,\"data\":\"A\"}\n"),
        (Mode::Ndjson, b"{\"id\":-3,\"data\":\"AAAA\"}\n"),
        (Mode::Ndjson, b"{\"end\":0}x\n"),
        (Mode::Ndjson, b"nonsense\n"),
    ] {
        let mut decoder = ItemDecoder::new(mode);
        let result = decoder.next(&mut BytesMut::from(bad), &mut BytesMut::new());
        assert!(malformed(result), "{mode} {bad:?}");
    }
    let long = vec![b'x'; 200_000];
    for mode in [Mode::Sse, Mode::Ndjson] {
        let result = ItemDecoder::new(mode).next(&mut BytesMut::from(&long[..]), &mut BytesMut::new());
        assert_eq!(result, Err(HttpError::TooLarge));
    }
    // The longest line ends where the next byte would have been too many, whatever follows.
    let mut line = [&[b'x'; 128 * 1024 - 1][..], b"\r"].concat();
    let mut decoder = ItemDecoder::new(Mode::Sse);
    let mut body = BytesMut::from(&line[..]);
    assert_eq!(decoder.next(&mut body, &mut BytesMut::new()), Ok(None));
    assert_eq!(body.len(), line.len(), "LF may follow");
    line.extend_from_slice(b"yz");
    let mut body = BytesMut::from(&line[..]);
    assert_eq!(decoder.next(&mut body, &mut BytesMut::new()), Ok(None));
    assert_eq!(body, b"yz"[..]);
}

fn key(seed: u8) -> ExchangeKey {
    ExchangeKey::new(Zeroizing::new([seed; 32]))
}

const TOKEN: Token = Token([5; 16]);

fn server() -> ServerPath {
    let mut path = ServerPath::new(ServerConfig::default(), TOKEN, NOW);
    path.create(b"hello").unwrap();
    path.set_key(key(1));
    path
}

fn status(result: Result<(), HttpError>) -> u16 {
    result.map_or_else(|error| error.answer().0, |()| 200)
}

#[test]
fn a_stolen_token_opens_nothing() {
    let mut path = server();
    for operation in [
        Operation::Up,
        Operation::Stream,
        Operation::Both,
        Operation::Down,
        Operation::Events,
        Operation::Poll,
        Operation::Try,
        Operation::End,
    ] {
        let forged = key(2).sign(operation, TOKEN, 1, 5, 0);
        assert_eq!(status(path.begin(NOW, &forged, Mode::Sse, None)), 403);
    }
    // What was recorded is of no use again, nor with other numbers.
    let good = key(1).sign(Operation::Up, TOKEN, 1, 5, 0);
    assert_eq!(status(path.begin(NOW, &good, Mode::Sse, None)), 200);
    assert_eq!(status(path.begin(NOW, &good, Mode::Sse, None)), 409);
    let mut moved = good;
    moved.number = 2;
    assert_eq!(status(path.begin(NOW, &moved, Mode::Sse, None)), 403);
    assert_eq!((path.failure(), &path.incoming()[..]), (None, &b"hello"[..]));
    // Before the session has a key, nothing is proven.
    let mut young = ServerPath::new(ServerConfig::default(), TOKEN, NOW);
    assert_eq!(status(young.begin(NOW, &good, Mode::Sse, None)), 403);
}

#[test]
fn uploads_that_come_twice_or_late_double_nothing() {
    let mut path = server();
    let up = |path: &mut ServerPath, number, from, bytes: &[u8]| {
        let exchange = key(1).sign(Operation::Up, TOKEN, number, from, 0);
        status(path.begin(NOW, &exchange, Mode::Poll, None)) == 200
            && path.take(number, bytes) == Ok(Uploaded::Taken)
    };
    assert!(up(&mut path, 1, 5, b"abc"));
    // Again by a proxy, and made up by the client which had no answer.
    assert!(!up(&mut path, 1, 5, b"abc"));
    assert!(up(&mut path, 2, 5, b"abcde"));
    // One that was overtaken.
    assert_eq!(path.take(1, b"xyz"), Ok(Uploaded::Replaced));
    assert!(!up(&mut path, 1, 8, b"xyz"));
    assert_eq!(&path.incoming()[..], b"helloabcde");
    assert!(path.failure().is_none());
}

#[test]
fn uploads_out_of_order_end_the_path() {
    let mut path = server();
    let ahead = key(1).sign(Operation::Up, TOKEN, 1, 9, 0);
    assert_eq!(status(path.begin(NOW, &ahead, Mode::Poll, None)), 409);
    assert!(path.is_over() && path.failure().is_some());
    assert_eq!(&path.incoming()[..], b"hello");
}

#[test]
fn positions_that_cannot_be_end_the_path() {
    for (from, received) in [(5, 1), (5, u64::MAX >> 3)] {
        let mut path = server();
        let exchange = key(1).sign(Operation::Up, TOKEN, 1, from, received);
        assert_eq!(status(path.begin(NOW, &exchange, Mode::Poll, None)), 409);
        assert!(path.is_over());
    }
    let mut path = server();
    path.write(&[IoSlice::new(b"0123456789")]);
    let down = |path: &mut ServerPath, number, from| {
        let exchange = key(1).sign(Operation::Down, TOKEN, number, from, from);
        status(path.begin(NOW, &exchange, Mode::Binary, None))
    };
    assert_eq!(down(&mut path, 1, 6), 200);
    assert_eq!(down(&mut path, 2, 5), 409, "those bytes are gone");
    assert!(path.is_over());
}

/// The data of the events, and the number of events.
fn events(path: &mut ServerPath, number: u64) -> Vec<u8> {
    let mut out = OutBuffer::new();
    path.poll_down(NOW, number, &mut out);
    let body = unchunked(&drain(&mut out));
    let mut decoder = ItemDecoder::new(Mode::Sse);
    let (mut raw, mut plain) = (BytesMut::from(&body[..]), BytesMut::new());
    while decoder.next(&mut raw, &mut plain).unwrap().is_some() {}
    plain.to_vec()
}

#[test]
fn a_browser_goes_on_from_its_last_event() {
    let mut path = server();
    path.write(&[IoSlice::new(b"0123456789")]);
    let exchange = key(1).sign(Operation::Events, TOKEN, 1, 0, 0);
    path.begin(NOW, &exchange, Mode::Sse, None).unwrap();
    assert_eq!(events(&mut path, 1), b"0123456789");
    path.lose_down(NOW, 1);
    path.write(&[IoSlice::new(b"ab")]);
    path.begin(NOW, &exchange, Mode::Sse, Some(7)).unwrap();
    assert_eq!(events(&mut path, 1), b"789ab");
    // Not without, and not by an older one.
    assert_eq!(status(path.begin(NOW, &exchange, Mode::Sse, None)), 409);
    let next = key(1).sign(Operation::Events, TOKEN, 2, 9, 9);
    path.begin(NOW, &next, Mode::Sse, None).unwrap();
    assert_eq!(status(path.begin(NOW, &exchange, Mode::Sse, Some(9))), 409);
    assert_eq!(events(&mut path, 2), b"9ab");
    // What was not asked for a browser is good for one request.
    let own = key(1).sign(Operation::Down, TOKEN, 3, 9, 9);
    path.begin(NOW, &own, Mode::Sse, None).unwrap();
    path.lose_down(NOW, 3);
    assert_eq!(status(path.begin(NOW, &own, Mode::Sse, Some(9))), 409);
}

#[test]
fn a_path_that_nobody_asks_for_is_over() {
    let mut path = server();
    let at = path.poll_timeout().unwrap();
    assert_eq!(at, NOW + Duration::from_secs(20));
    path.handle_timeout(at);
    assert!(path.is_over());
    assert_eq!(path.poll_timeout(), None);
}

#[test]
fn a_downlink_with_nothing_to_say_shows_that_it_lives() {
    let mut path = server();
    let exchange = key(1).sign(Operation::Down, TOKEN, 1, 0, 0);
    path.begin(NOW, &exchange, Mode::Sse, None).unwrap();
    let mut out = OutBuffer::new();
    assert!(
        path.poll_down(NOW, 1, &mut out),
        "what proves the way comes at once"
    );
    assert_eq!(unchunked(&drain(&mut out)), b"event: received\ndata: 5\n\n");
    let at = path.poll_timeout().unwrap();
    path.handle_timeout(at);
    path.poll_down(at, 1, &mut out);
    assert_eq!(unchunked(&drain(&mut out)), b":\n\n");
    assert!(path.poll_timeout().unwrap() > at);
}

/// What a streaming upload brought is told in a downlink that lasts. Whoever polls is told in the answers to uploads, and
/// nothing must seem to be due that nobody does.
#[test]
fn what_came_by_a_stream_is_not_due_to_be_told_to_whoever_polls() {
    let mut path = server();
    let stream = key(1).sign(Operation::Stream, TOKEN, 1, 5, 0);
    path.begin(NOW, &stream, Mode::Binary, None).unwrap();
    assert_eq!(path.take_streamed(NOW, 1, b"abc"), Ok(Uploaded::Taken));
    path.lose_stream(NOW, 1);
    let poll = key(1).sign(Operation::Poll, TOKEN, 1, 0, 0);
    path.begin(NOW, &poll, Mode::Poll, None).unwrap();
    let hold = ServerConfig::default().hold;
    assert_eq!(path.poll_timeout(), Some(NOW + hold));
}

/// A client's path that was made, with its key, and the connections that it asked for.
fn client(mode: Option<Mode>) -> ClientPath {
    let mut config = ClientConfig::new("h".into(), "/".into());
    config.mode = mode;
    let mut path = ClientPath::new(config, NOW);
    path.write(&[IoSlice::new(b"hello")]);
    let mut out = OutBuffer::new();
    path.poll_transmit(NOW, Slot::Up, &mut out);
    assert!(drain(&mut out).starts_with(b"POST /?op=new HTTP/1.1\r\n"));
    let mut answer = BytesMut::from(
        format!("HTTP/1.1 200 OK\r\nSheetbend-Path: {TOKEN}\r\nContent-Length: 3\r\n\r\n\x08hi").as_bytes(),
    );
    path.handle_input(NOW, Slot::Up, &mut answer);
    assert_eq!(&path.incoming()[..], b"hi");
    path.set_key(NOW, key(1));
    path
}

/// Connects what is wanted, and gives the targets that are asked for.
fn requests(path: &mut ClientPath, now: Timestamp) -> Vec<String> {
    let mut asked = Vec::new();
    path.handle_timeout(now);
    while let Some(action) = path.poll_action() {
        if let Action::Connect(slot) = action {
            path.handle_connected(now, slot);
        }
    }
    for slot in Slot::ALL {
        let mut out = OutBuffer::new();
        path.poll_transmit(now, slot, &mut out);
        let text = String::from_utf8_lossy(&drain(&mut out)).into_owned();
        if let Some(line) = text.lines().next() {
            let accept = text.lines().find(|line| line.starts_with("Accept")).unwrap();
            asked.push(format!("{} {accept}", line.split('&').next().unwrap()));
        }
    }
    asked
}

#[test]
fn a_downlink_that_is_held_back_is_replaced_by_the_next_mode() {
    let mut path = client(None);
    let mut now = NOW;
    for (mode, expected) in [
        (Mode::Binary, "GET /?op=down Accept: application/octet-stream"),
        (Mode::Sse, "GET /?op=down Accept: text/event-stream"),
        (Mode::Poll, "GET /?op=poll Accept: application/octet-stream"),
    ] {
        assert_eq!(requests(&mut path, now), [expected]);
        assert_eq!(path.mode(), mode);
        // The head alone proves nothing.
        let mut head = BytesMut::from(&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..]);
        path.handle_input(now, Slot::Down, &mut head);
        now = path.poll_timeout().unwrap();
    }
    assert!(!path.is_over());
    // What was asked for is not changed.
    let mut path = client(Some(Mode::Sse));
    now = NOW;
    for _ in 0..3 {
        assert_eq!(
            requests(&mut path, now),
            ["GET /?op=down Accept: text/event-stream"]
        );
        now = path.poll_timeout().unwrap();
    }
    requests(&mut path, now);
    let now = path.poll_timeout().unwrap();
    path.handle_timeout(now);
    assert!(
        path.is_over() && path.failure().is_some(),
        "four in a row are enough"
    );
}

/// Lets downlinks fail until polls are left.
fn fallen() -> (ClientPath, Timestamp) {
    let mut path = client(None);
    let mut now = NOW;
    loop {
        let asked = requests(&mut path, now);
        if path.mode() == Mode::Poll {
            assert_eq!(asked, ["GET /?op=poll Accept: application/octet-stream"]);
            break;
        }
        now = path.poll_timeout().unwrap();
    }
    (path, now)
}

/// Lives by its deadlines until it asks for something: what, and when. Polls are answered at once.
fn next_request(path: &mut ClientPath) -> (String, Timestamp) {
    for _ in 0..100 {
        let now = path.poll_timeout().unwrap();
        let mut answer = BytesMut::from(&b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"[..]);
        path.handle_input(now, Slot::Down, &mut answer);
        let asked = requests(path, now);
        if let Some(one) = asked.iter().find(|one| !one.contains("op=poll")) {
            return (one.clone(), now);
        }
    }
    panic!("nothing is asked for");
}

#[test]
fn a_better_way_down_is_tried_again_ever_more_rarely_and_taken_when_it_gets_through() {
    let (mut path, mut last) = fallen();
    for (form, wait) in [
        ("application/octet-stream", 30),
        ("text/event-stream", 60),
        ("application/octet-stream", 120),
        ("text/event-stream", 240),
        ("application/octet-stream", 300),
    ] {
        let (asked, at) = next_request(&mut path);
        assert_eq!(asked, format!("GET /?op=try Accept: {form}"));
        // The first is counted from where the first form fell, and each has its own time to come.
        let waited = at.since(last).as_secs();
        assert!(waited.abs_diff(wait) <= 1, "{waited} s instead of {wait}");
        // The head alone proves nothing, as it may be all that gets through.
        let mut head = BytesMut::from(&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..]);
        path.handle_input(at, Slot::Trial, &mut head);
        assert_eq!(path.mode(), Mode::Poll);
        last = at;
    }
    let (asked, at) = next_request(&mut path);
    assert_eq!(asked, "GET /?op=try Accept: text/event-stream");
    let first =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n19\r\nevent: received\ndata: 5\n\n\r\n";
    path.handle_input(at, Slot::Trial, &mut BytesMut::from(&first[..]));
    assert_eq!(path.mode(), Mode::Sse);
    assert_eq!(
        requests(&mut path, at),
        ["GET /?op=down Accept: text/event-stream"]
    );
}

#[test]
fn a_trial_that_is_refused_or_broken_off_costs_nothing() {
    for refusal in [
        &b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..],
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"",
    ] {
        let (mut path, _) = fallen();
        let (_, at) = next_request(&mut path);
        if refusal.is_empty() {
            path.handle_closed(at, Slot::Trial);
        } else {
            path.handle_input(at, Slot::Trial, &mut BytesMut::from(refusal));
        }
        let (asked, again) = next_request(&mut path);
        assert_eq!(asked, "GET /?op=try Accept: text/event-stream");
        assert!(again.since(at) >= Duration::from_secs(60));
        assert!(!path.is_over() && path.mode() == Mode::Poll);
    }
}

#[test]
fn a_form_that_was_asked_for_is_not_left() {
    let mut path = client(Some(Mode::Poll));
    requests(&mut path, NOW);
    let due = path.poll_timeout().unwrap();
    assert!(
        due > NOW + Duration::from_secs(39),
        "only the poll itself may be late"
    );
}

#[test]
fn a_downlink_that_goes_mute_is_seen_by_what_uploads_are_told() {
    let mut path = client(None);
    requests(&mut path, NOW);
    let mut first =
        BytesMut::from(&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\x15\r\n"[..]);
    path.handle_input(NOW, Slot::Down, &mut first);
    path.write(&[IoSlice::new(b"question")]);
    let asked = requests(&mut path, NOW);
    assert_eq!(asked, ["POST /?op=up Accept: */*", "POST /?op=both Accept: */*"]);
    let mut told = BytesMut::from(
        &b"HTTP/1.1 204 No Content\r\nSheetbend-Received: 13\r\nSheetbend-Sent: 50\r\n\r\n"[..],
    );
    path.handle_input(NOW, Slot::Up, &mut told);
    // The streaming upload is given up first, as nobody says that it is read.
    let due = path.poll_timeout().unwrap();
    assert_eq!(due, NOW + Duration::from_secs(1));
    assert_eq!(
        requests(&mut path, due),
        ["GET /?op=down Accept: text/event-stream"]
    );
}

#[test]
fn a_streaming_upload_carries_only_once_it_is_read() {
    let mut path = client(None);
    requests(&mut path, NOW);
    let mut first =
        BytesMut::from(&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\x15\r\n"[..]);
    path.handle_input(NOW, Slot::Down, &mut first);
    // What is on the way ends a request whose response has begun.
    assert_eq!(requests(&mut path, NOW), ["POST /?op=both Accept: */*"]);
    path.handle_closed(NOW, Slot::Stream);
    assert_eq!(requests(&mut path, NOW), ["POST /?op=stream Accept: */*"]);
    path.write(&[IoSlice::new(b"abc")]);
    assert_eq!(requests(&mut path, NOW), ["POST /?op=up Accept: */*"]);
    // The mark comes while the upload is under way.
    path.handle_input(NOW, Slot::Down, &mut BytesMut::from(&b"1\r\n\x0b\r\n"[..]));
    path.write(&[IoSlice::new(b"def")]);
    assert!(path.streams() && requests(&mut path, NOW).is_empty());
    path.take_news();
    let mut told = BytesMut::from(&b"HTTP/1.1 204 No Content\r\nSheetbend-Received: 8\r\n\r\n"[..]);
    path.handle_input(NOW, Slot::Up, &mut told);
    assert!(path.take_news(), "what waited for this can go");
    let mut out = OutBuffer::new();
    path.poll_transmit(NOW, Slot::Stream, &mut out);
    assert_eq!(unchunked(&drain(&mut out)), b"\x23\x0cdef", "mark 8, three bytes");
    // Nothing of it is acknowledged: it goes again by itself, and another is tried.
    let due = path.poll_timeout().unwrap();
    assert_eq!(
        requests(&mut path, due),
        ["POST /?op=up Accept: */*", "POST /?op=stream Accept: */*"]
    );
    assert!(!path.streams());
}

/// A path whose downlink has become the response to its streaming upload. The server has "helloabc".
fn turned() -> ClientPath {
    let mut path = client(None);
    requests(&mut path, NOW);
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n";
    let begins = |block: &[u8]| BytesMut::from(&[&head[..], block, b"\r\n"].concat()[..]);
    path.handle_input(NOW, Slot::Down, &mut begins(b"\x15"));
    assert_eq!(requests(&mut path, NOW), ["POST /?op=both Accept: */*"]);
    path.handle_input(NOW, Slot::Stream, &mut begins(b"\x07"));
    let mut out = OutBuffer::new();
    path.poll_transmit(NOW, Slot::Stream, &mut out);
    assert_eq!(unchunked(&drain(&mut out)), b"\x09\x06", "has 2, and turns");
    // Until the server has turned, everything goes as before.
    path.write(&[IoSlice::new(b"abc")]);
    assert_eq!(requests(&mut path, NOW), ["POST /?op=up Accept: */*"]);
    let mut told = BytesMut::from(&b"HTTP/1.1 204 No Content\r\nSheetbend-Received: 8\r\n\r\n"[..]);
    path.handle_input(NOW, Slot::Up, &mut told);
    assert!(!path.streams());
    let went_on = b"1\r\n\x0b\r\n1\r\n\x21\r\n4\r\n\x0cxyz\r\n";
    path.handle_input(NOW, Slot::Stream, &mut BytesMut::from(&went_on[..]));
    assert_eq!(path.poll_action(), Some(Action::Close(Slot::Down)));
    assert_eq!(&path.incoming()[..], b"hixyz");
    path
}

#[test]
fn one_connection_carries_both_directions_where_it_gets_through() {
    let mut path = turned();
    assert!(path.streams());
    path.write(&[IoSlice::new(b"def")]);
    let mut out = OutBuffer::new();
    path.poll_transmit(NOW, Slot::Stream, &mut out);
    assert_eq!(
        unchunked(&drain(&mut out)),
        b"\x23\x15\x0cdef",
        "goes on at 8, has 5, three bytes"
    );
    // It is cut: what was not acknowledged goes again by itself, and both directions are asked for anew.
    path.handle_closed(NOW, Slot::Stream);
    assert!(!path.is_over() && !path.streams());
    assert_eq!(
        requests(&mut path, NOW),
        [
            "POST /?op=up Accept: */*",
            "GET /?op=down Accept: application/octet-stream"
        ]
    );
}

#[test]
fn a_connection_that_cannot_be_made_again_is_done_without() {
    let mut path = turned();
    path.handle_closed(NOW, Slot::Stream);
    requests(&mut path, NOW);
    let begins = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\x15\r\n";
    path.handle_input(NOW, Slot::Down, &mut BytesMut::from(&begins[..]));
    // Something on the way lets no third connection pass.
    let mut refused = 0;
    path.handle_timeout(NOW);
    while let Some(action) = path.poll_action() {
        assert_eq!(action, Action::Connect(Slot::Stream));
        path.handle_closed(NOW, Slot::Stream);
        path.handle_timeout(NOW);
        refused += 1;
        assert!(refused < 10, "it is asked for again and again");
    }
    assert!(refused > 0 && !path.is_over());
}

#[test]
fn a_connection_of_both_directions_that_goes_mute_is_left_for_the_next_mode() {
    // Nothing at all comes, or nothing of what was sent is acknowledged.
    for (says, late) in [(&b""[..], 40), (b"def", 1)] {
        let mut path = turned();
        path.write(&[IoSlice::new(says)]);
        path.poll_transmit(NOW, Slot::Stream, &mut OutBuffer::new());
        let due = path.poll_timeout().unwrap();
        assert_eq!(due, NOW + Duration::from_secs(late));
        let asked = requests(&mut path, due);
        assert!(
            asked.contains(&"GET /?op=down Accept: text/event-stream".to_owned()),
            "{asked:?}"
        );
        assert!(!path.is_over() && !path.streams());
    }
}

#[test]
fn what_comes_down_before_it_was_turned_to_is_not_taken() {
    for early in [&b"4\r\n\x0cxyz\r\n"[..], b"1\r\n\x0b\r\n", b"1\r\n\x02\r\n"] {
        let mut path = client(None);
        requests(&mut path, NOW);
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut first = BytesMut::from(&[&head[..], b"1\r\n\x15\r\n"].concat()[..]);
        path.handle_input(NOW, Slot::Down, &mut first);
        requests(&mut path, NOW);
        let mut said = BytesMut::from(&[&head[..], early].concat()[..]);
        path.handle_input(NOW, Slot::Stream, &mut said);
        assert_eq!(path.poll_action(), Some(Action::Close(Slot::Stream)));
        assert!(!path.is_over() && &path.incoming()[..] == b"hi");
    }
}

#[test]
fn a_server_turns_only_in_responses_that_it_has_begun() {
    let mut path = server();
    path.write(&[IoSlice::new(b"0123456789")]);
    let down = key(1).sign(Operation::Down, TOKEN, 1, 0, 0);
    path.begin(NOW, &down, Mode::Binary, None).unwrap();
    let plain = key(1).sign(Operation::Stream, TOKEN, 1, 5, 0);
    path.begin(NOW, &plain, Mode::Binary, None).unwrap();
    assert!(malformed(path.take_note(NOW, 1, Note::Turn)));
    let both = key(1).sign(Operation::Both, TOKEN, 2, 5, 0);
    path.begin(NOW, &both, Mode::Binary, None).unwrap();
    assert!(!path.is_turned(2));
    path.take_note(NOW, 2, Note::Received(4)).unwrap();
    assert_eq!(path.take_note(NOW, 2, Note::Turn), Ok(Uploaded::Taken));
    let mut out = OutBuffer::new();
    assert!(path.poll_turned(NOW, 2, &mut out));
    assert_eq!(
        unchunked(&drain(&mut out)),
        b"\x13\x15\x18456789",
        "goes on at 4, has 5, six bytes"
    );
    // What was the downlink is none any more, and nothing is sent twice for being asked twice.
    assert!(!path.poll_down(NOW, 1, &mut out));
    assert!(malformed(path.take_note(NOW, 2, Note::Turn)));
    path.lose_stream(NOW, 2);
    assert!(!path.is_turned(2));
    assert_eq!(path.poll_timeout(), Some(NOW + Duration::from_secs(20)));
}
