//! The bodies of HELLO, WELCOME, JOIN, JOINED, CONFIRM and REJECT. PROTOCOL 5 and 6.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use super::params::{MAX_CREDIT, ParamError};
use super::reader::{Reader, put_bytes, put_varint};
use super::{HandshakeError, Params, RejectCode, Routing, Security, SessionId};

/// The protocol version of this crate. PROTOCOL 5.1.
pub const VERSION: u64 = 1;
/// The longest body of a handshake message.
pub const MAX_BODY: usize = 8 << 10;
/// The most versions that a HELLO may offer.
pub const MAX_VERSIONS: usize = 16;
/// The most live paths that a JOIN may list, and a session may have.
pub const MAX_LIVE_PATHS: usize = 8;
/// The most counts that a JOINED or CONFIRM may list.
pub const MAX_COUNTS: usize = 64;
/// The longest text of a REJECT.
pub const MAX_TEXT_LEN: usize = 256;

const FLAG_BOUND: u64 = 1;

/// How many records of a lane were received in order. PROTOCOL 6.3, 6.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathCount {
    /// The path.
    pub path: u64,
    /// Its lane.
    pub lane: u64,
    /// The records received in order, the first one included.
    pub count: u64,
}

/// The list of counts in JOINED and CONFIRM.
pub type Counts = SmallVec<[PathCount; 4]>;

/// The first message of a client that has no session yet. PROTOCOL 5.1.
///
/// It keeps the bytes that stand in the transcript, so that it is the same on every path and
/// parameters of later versions are covered too. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    path_id: u64,
    shared: Arc<HelloShared>,
}

#[derive(PartialEq, Eq)]
struct HelloShared {
    versions: SmallVec<[u64; 4]>,
    nonce: [u8; 16],
    share: [u8; 32],
    params: Params,
    transcript: Vec<u8>,
}

impl Hello {
    /// A HELLO that offers [`VERSION`].
    ///
    /// # Errors
    /// A parameter outside its range.
    pub fn new(path_id: u64, nonce: [u8; 16], share: [u8; 32], params: Params) -> Result<Hello, ParamError> {
        params.check()?;
        let versions: SmallVec<[u64; 4]> = smallvec::smallvec![VERSION];
        let mut transcript = Vec::with_capacity(128);
        put_varint(&mut transcript, versions.len() as u64);
        versions
            .iter()
            .for_each(|version| put_varint(&mut transcript, *version));
        transcript.extend_from_slice(&nonce);
        transcript.extend_from_slice(&share);
        params.encode(&mut transcript);
        let shared = HelloShared {
            versions,
            nonce,
            share,
            params,
            transcript,
        };
        Ok(Hello {
            path_id,
            shared: Arc::new(shared),
        })
    }

    /// The same HELLO for another path. PROTOCOL 5.1.
    pub fn on_path(&self, path_id: u64) -> Hello {
        Hello {
            path_id,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.path_id);
        out.extend_from_slice(&self.shared.transcript);
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<Hello, HandshakeError> {
        let mut reader = Reader::new("HELLO", body, MAX_BODY)?;
        let path_id = reader.varint("path id")?;
        let transcript = reader.rest().to_vec();
        let count = reader.count("versions", MAX_VERSIONS as u64)?;
        if count == 0 {
            let max = MAX_VERSIONS as u64;
            return Err(HandshakeError::OutOfRange {
                field: "version count",
                value: 0,
                min: 1,
                max,
            });
        }
        let versions = (0..count)
            .map(|_| reader.varint("version"))
            .collect::<Result<_, _>>()?;
        let nonce = reader.array("nonce")?;
        let share = reader.array("share")?;
        let params = Params::decode(reader.rest())?;
        let shared = HelloShared {
            versions,
            nonce,
            share,
            params,
            transcript,
        };
        Ok(Hello {
            path_id,
            shared: Arc::new(shared),
        })
    }

    /// The path that it came on or is for.
    pub fn path_id(&self) -> u64 {
        self.path_id
    }

    /// The versions offered.
    pub fn versions(&self) -> &[u64] {
        &self.shared.versions
    }

    /// Makes it idempotent.
    pub fn nonce(&self) -> &[u8; 16] {
        &self.shared.nonce
    }

    /// The client's X25519 share.
    pub fn share(&self) -> &[u8; 32] {
        &self.shared.share
    }

    /// The client's parameters.
    pub fn params(&self) -> &Params {
        &self.shared.params
    }

    /// `hello_t` of PROTOCOL 5.3: the body after the path id.
    pub fn transcript(&self) -> &[u8] {
        &self.shared.transcript
    }

    /// SHA-256 of [`Hello::transcript`]: tells whether two HELLOs are the same.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.shared.transcript).into()
    }
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("path_id", &self.path_id)
            .field("versions", &self.shared.versions)
            .field("nonce", &self.shared.nonce)
            .field("params", &self.shared.params)
            .finish_non_exhaustive()
    }
}

/// The server's answer to HELLO. PROTOCOL 5.2.
///
/// Made without its MAC; [`super::SessionKeys`], which need its transcript, put it in.
#[derive(Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The path that it came on or is for.
    pub path_id: u64,
    /// The proof of the server over the transcript and the path id.
    pub mac: [u8; 32],
    shared: Arc<WelcomeShared>,
}

#[derive(PartialEq, Eq)]
struct WelcomeShared {
    version: u64,
    session_id: SessionId,
    routing: Routing,
    share: [u8; 32],
    params: Params,
    transcript: Vec<u8>,
}

impl Welcome {
    /// A WELCOME whose MAC is still zero: sign it with [`super::SessionKeys::sign_welcome`].
    ///
    /// # Errors
    /// A parameter outside its range.
    pub fn new(
        path_id: u64,
        version: u64,
        session_id: SessionId,
        routing: Routing,
        share: [u8; 32],
        params: Params,
    ) -> Result<Welcome, ParamError> {
        params.check()?;
        let mut transcript = Vec::with_capacity(128);
        put_varint(&mut transcript, version);
        transcript.extend_from_slice(&session_id.0);
        put_bytes(&mut transcript, routing.as_bytes());
        transcript.extend_from_slice(&share);
        let mut encoded = Vec::new();
        params.encode(&mut encoded);
        put_bytes(&mut transcript, &encoded);
        let shared = WelcomeShared {
            version,
            session_id,
            routing,
            share,
            params,
            transcript,
        };
        Ok(Welcome {
            path_id,
            mac: [0; 32],
            shared: Arc::new(shared),
        })
    }

    /// The same WELCOME for another path, its MAC still zero. PROTOCOL 5.2.
    pub fn on_path(&self, path_id: u64) -> Welcome {
        Welcome {
            path_id,
            mac: [0; 32],
            shared: Arc::clone(&self.shared),
        }
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.path_id);
        out.extend_from_slice(&self.shared.transcript);
        out.extend_from_slice(&self.mac);
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<Welcome, HandshakeError> {
        let mut reader = Reader::new("WELCOME", body, MAX_BODY)?;
        let path_id = reader.varint("path id")?;
        let start = reader.rest();
        let version = reader.varint("version")?;
        let session_id = SessionId(reader.array("session id")?);
        let routing = Routing::read(&mut reader)?;
        let share = reader.array("share")?;
        let params = Params::decode(reader.bytes("params", MAX_BODY)?)?;
        let length = start.len().saturating_sub(reader.rest().len());
        let transcript = start.get(..length).unwrap_or_default().to_vec();
        let mac = reader.array("mac")?;
        reader.finish("WELCOME")?;
        let shared = WelcomeShared {
            version,
            session_id,
            routing,
            share,
            params,
            transcript,
        };
        Ok(Welcome {
            path_id,
            mac,
            shared: Arc::new(shared),
        })
    }

    /// The version chosen.
    pub fn version(&self) -> u64 {
        self.shared.version
    }

    /// The session's name.
    pub fn session_id(&self) -> SessionId {
        self.shared.session_id
    }

    /// To be repeated in every JOIN.
    pub fn routing(&self) -> &Routing {
        &self.shared.routing
    }

    /// The server's X25519 share.
    pub fn share(&self) -> &[u8; 32] {
        &self.shared.share
    }

    /// The server's parameters.
    pub fn params(&self) -> &Params {
        &self.shared.params
    }

    /// `welcome_t` of PROTOCOL 5.3: the body between the path id and the MAC.
    pub fn transcript(&self) -> &[u8] {
        &self.shared.transcript
    }

    /// SHA-256 of [`transcript`](Welcome::transcript), by which a repeated WELCOME is known.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.shared.transcript).into()
    }
}

impl fmt::Debug for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Welcome")
            .field("path_id", &self.path_id)
            .field("version", &self.shared.version)
            .field("session_id", &self.shared.session_id)
            .field("routing", &self.shared.routing)
            .field("params", &self.shared.params)
            .finish_non_exhaustive()
    }
}

/// The first message of a path that joins a session. PROTOCOL 6.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The session.
    pub session_id: SessionId,
    /// As WELCOME gave it.
    pub routing: Routing,
    /// The new path.
    pub path_id: u64,
    /// The client's nonce.
    pub nonce: [u8; 16],
    /// Whether the proof covers the carrier's TLS exporter.
    pub bound: bool,
    /// The session's security floor, as the client holds it.
    pub floor: Security,
    /// The client's first in-flight bound on this path, in bytes.
    pub in_flight: u64,
    /// The client's live paths, this one not included; all others are to be fenced.
    pub live: SmallVec<[u64; MAX_LIVE_PATHS]>,
    /// The client's proof.
    pub proof: [u8; 32],
}

impl Join {
    /// Appends the body. At most [`MAX_LIVE_PATHS`] live paths are written.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_unproven(out);
        out.extend_from_slice(&self.proof);
    }

    pub(super) fn encode_unproven(&self, out: &mut Vec<u8>) {
        debug_assert!(self.live.len() <= MAX_LIVE_PATHS);
        out.extend_from_slice(&self.session_id.0);
        put_bytes(out, self.routing.as_bytes());
        put_varint(out, self.path_id);
        out.extend_from_slice(&self.nonce);
        put_varint(out, if self.bound { FLAG_BOUND } else { 0 });
        put_varint(out, self.floor.value());
        put_varint(out, self.in_flight);
        let live = &self.live[..self.live.len().min(MAX_LIVE_PATHS)];
        put_varint(out, live.len() as u64);
        live.iter().for_each(|path| put_varint(out, *path));
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<Join, HandshakeError> {
        let mut reader = Reader::new("JOIN", body, MAX_BODY)?;
        let session_id = SessionId(reader.array("session id")?);
        let routing = Routing::read(&mut reader)?;
        let path_id = reader.varint("path id")?;
        let nonce = reader.array("nonce")?;
        let bound = reader.varint_in("flags", 0, FLAG_BOUND)? == FLAG_BOUND;
        let floor = reader.varint_in("floor", 0, Security::Encrypted.value())?;
        let floor = Security::from_value(floor).unwrap_or(Security::Encrypted);
        let in_flight = reader.varint_in("in-flight bound", 1, MAX_CREDIT)?;
        let count = reader.count("live paths", MAX_LIVE_PATHS as u64)?;
        let live = (0..count)
            .map(|_| reader.varint("live path"))
            .collect::<Result<_, _>>()?;
        let proof = reader.array("proof")?;
        reader.finish("JOIN")?;
        Ok(Join {
            session_id,
            routing,
            path_id,
            nonce,
            bound,
            floor,
            in_flight,
            live,
            proof,
        })
    }

    /// SHA-256 of the whole body, which the later proofs cover. PROTOCOL 6.3.
    pub fn digest(&self) -> [u8; 32] {
        digest(|out| self.encode(out))
    }
}

/// The server's answer to JOIN. PROTOCOL 6.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The new path.
    pub path_id: u64,
    /// The server's nonce.
    pub nonce: [u8; 16],
    /// The server's first in-flight bound on this path, in bytes.
    pub in_flight: u64,
    /// What the server received on paths that are not settled yet.
    pub counts: Counts,
    /// The server's proof.
    pub proof: [u8; 32],
}

impl Joined {
    /// Appends the body. At most [`MAX_COUNTS`] counts are written.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_unproven(out);
        out.extend_from_slice(&self.proof);
    }

    pub(super) fn encode_unproven(&self, out: &mut Vec<u8>) {
        put_varint(out, self.path_id);
        out.extend_from_slice(&self.nonce);
        put_varint(out, self.in_flight);
        put_counts(out, &self.counts);
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<Joined, HandshakeError> {
        let mut reader = Reader::new("JOINED", body, MAX_BODY)?;
        let path_id = reader.varint("path id")?;
        let nonce = reader.array("nonce")?;
        let in_flight = reader.varint_in("in-flight bound", 1, MAX_CREDIT)?;
        let counts = read_counts(&mut reader)?;
        let proof = reader.array("proof")?;
        reader.finish("JOINED")?;
        Ok(Joined {
            path_id,
            nonce,
            in_flight,
            counts,
            proof,
        })
    }

    /// SHA-256 of the whole body, which CONFIRM covers. PROTOCOL 6.4.
    pub fn digest(&self) -> [u8; 32] {
        digest(|out| self.encode(out))
    }
}

/// The client's proof over the server's answer. PROTOCOL 5.4, 6.4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirm {
    /// The path that it travels on.
    pub path_id: u64,
    /// What the client received on paths that are not settled yet.
    pub counts: Counts,
    /// The client's proof.
    pub proof: [u8; 32],
}

impl Confirm {
    /// Appends the body. At most [`MAX_COUNTS`] counts are written.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_unproven(out);
        out.extend_from_slice(&self.proof);
    }

    pub(super) fn encode_unproven(&self, out: &mut Vec<u8>) {
        put_varint(out, self.path_id);
        put_counts(out, &self.counts);
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<Confirm, HandshakeError> {
        let mut reader = Reader::new("CONFIRM", body, MAX_BODY)?;
        let path_id = reader.varint("path id")?;
        let counts = read_counts(&mut reader)?;
        let proof = reader.array("proof")?;
        reader.finish("CONFIRM")?;
        Ok(Confirm {
            path_id,
            counts,
            proof,
        })
    }
}

/// Refuses a path, and only that path. PROTOCOL 5.7.
///
/// Nothing proves a REJECT: on a plain carrier anyone on the way can make one up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Why.
    pub code: RejectCode,
    /// For people; at most [`MAX_TEXT_LEN`] bytes.
    pub detail: String,
    /// Where to go instead, for REDIRECT and DRAINING; at most [`MAX_TEXT_LEN`] bytes.
    pub address: String,
}

impl Reject {
    /// A REJECT without an address.
    pub fn new(code: RejectCode, detail: impl Into<String>) -> Reject {
        Reject {
            code,
            detail: detail.into(),
            address: String::new(),
        }
    }

    /// The same with an address.
    pub fn with_address(mut self, address: impl Into<String>) -> Reject {
        self.address = address.into();
        self
    }

    /// Appends the body; too long a detail is cut, too long an address is left out.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.code.value());
        let mut end = self.detail.len().min(MAX_TEXT_LEN);
        while !self.detail.is_char_boundary(end) {
            end -= 1;
        }
        put_bytes(out, &self.detail.as_bytes()[..end]);
        let address = if self.address.len() <= MAX_TEXT_LEN {
            self.address.as_bytes()
        } else {
            &[]
        };
        put_bytes(out, address);
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<Reject, HandshakeError> {
        let mut reader = Reader::new("REJECT", body, MAX_BODY)?;
        let code = RejectCode::from(reader.varint("code")?);
        let detail = reader.text("detail", MAX_TEXT_LEN)?.to_owned();
        let address = reader.text("address", MAX_TEXT_LEN)?.to_owned();
        reader.finish("REJECT")?;
        Ok(Reject {
            code,
            detail,
            address,
        })
    }
}

fn put_counts(out: &mut Vec<u8>, counts: &[PathCount]) {
    debug_assert!(counts.len() <= MAX_COUNTS);
    let counts = &counts[..counts.len().min(MAX_COUNTS)];
    put_varint(out, counts.len() as u64);
    for PathCount { path, lane, count } in counts {
        put_varint(out, *path);
        put_varint(out, *lane);
        put_varint(out, *count);
    }
}

fn read_counts(reader: &mut Reader<'_>) -> Result<Counts, HandshakeError> {
    let count = reader.count("counts", MAX_COUNTS as u64)?;
    (0..count)
        .map(|_| {
            Ok(PathCount {
                path: reader.varint("path")?,
                lane: reader.varint("lane")?,
                count: reader.varint("count")?,
            })
        })
        .collect()
}

fn digest(encode: impl FnOnce(&mut Vec<u8>)) -> [u8; 32] {
    let mut body = Vec::with_capacity(256);
    encode(&mut body);
    Sha256::digest(&body).into()
}
