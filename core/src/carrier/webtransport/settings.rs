//! SETTINGS, RFC 9114 §7.2.4, and those that WebTransport needs.

use wtransport_proto::frame::Frame;
use wtransport_proto::settings::{SettingId, Settings};

use super::error::{Http3Error, code};
use super::fields::MAX_SECTION;
use super::units::put_varint;

/// Bytes of a SETTINGS frame that we take.
pub(super) const MAX_SETTINGS: u64 = 4096;

/// `SETTINGS_MAX_FIELD_SECTION_SIZE`, RFC 9114 §7.2.4.1.
const MAX_FIELD_SECTION_SIZE: u64 = 0x06;
/// `SETTINGS_ENABLE_CONNECT_PROTOCOL`, RFC 9220 §5.
const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;
/// `SETTINGS_H3_DATAGRAM`, RFC 9297 §2.1.1.
const H3_DATAGRAM: u64 = 0x33;
/// `SETTINGS_ENABLE_WEBTRANSPORT`, draft-ietf-webtrans-http3-02 §8.2.
const ENABLE_WEBTRANSPORT: u64 = 0x2b60_3742;
/// `SETTINGS_WEBTRANSPORT_MAX_SESSIONS`, draft-ietf-webtrans-http3-07 §8.2.
const WEBTRANSPORT_MAX_SESSIONS: u64 = 0xc671_706a;

/// What we say: no dynamic table for QPACK, which is the default, datagrams, and one session.
pub(super) fn ours(is_server: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |id, value| {
        put_varint(&mut out, id);
        put_varint(&mut out, value);
    };
    put(MAX_FIELD_SECTION_SIZE, MAX_SECTION);
    if is_server {
        put(ENABLE_CONNECT_PROTOCOL, 1);
    }
    put(H3_DATAGRAM, 1);
    put(ENABLE_WEBTRANSPORT, 1);
    put(WEBTRANSPORT_MAX_SESSIONS, 1);
    out
}

/// What the peer said that matters to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerSettings {
    pub(super) connect_protocol: bool,
    pub(super) datagrams: bool,
    pub(super) webtransport: bool,
}

impl PeerSettings {
    /// Reads the payload of a SETTINGS frame.
    pub(super) fn parse(payload: &[u8]) -> Result<PeerSettings, Http3Error> {
        let settings = Settings::with_frame(&Frame::new_settings(payload.into()))
            .map_err(|error| Http3Error::new(error.to_code().into_inner(), "SETTINGS that are not any"))?;
        let value = |id| settings.get(id).map_or(0, |value| value.into_inner());
        let flag = |id| match value(id) {
            value @ 0..=1 => Ok(value == 1),
            _ => Err(Http3Error::new(
                code::SETTINGS_ERROR,
                "a setting that is neither 0 nor 1",
            )),
        };
        let enabled = flag(SettingId::EnableWebTransport)?;
        Ok(PeerSettings {
            connect_protocol: flag(SettingId::EnableConnectProtocol)?,
            datagrams: flag(SettingId::H3Datagram)?,
            webtransport: enabled || value(SettingId::WebTransportMaxSessions) > 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(pairs: &[(u64, u64)]) -> u64 {
        let mut payload = Vec::new();
        for (id, value) in pairs {
            put_varint(&mut payload, *id);
            put_varint(&mut payload, *value);
        }
        PeerSettings::parse(&payload).map_or_else(|error| error.code, |_| 0)
    }

    #[test]
    fn ours_offer_webtransport() {
        let server = PeerSettings::parse(&ours(true)).expect("ours");
        assert!(server.connect_protocol && server.datagrams && server.webtransport);
        let client = PeerSettings::parse(&ours(false)).expect("ours");
        assert!(!client.connect_protocol && client.datagrams && client.webtransport);
        let none = PeerSettings::parse(&[]).expect("empty");
        assert!(!none.connect_protocol && !none.datagrams && !none.webtransport);
    }

    #[test]
    fn reserved_and_repeated_and_absurd_settings_are_refused() {
        for http2 in [0, 2, 3, 4, 5] {
            assert_eq!(code_of(&[(http2, 1)]), code::SETTINGS_ERROR);
        }
        assert_eq!(
            code_of(&[(H3_DATAGRAM, 1), (H3_DATAGRAM, 1)]),
            code::SETTINGS_ERROR
        );
        assert_eq!(code_of(&[(ENABLE_WEBTRANSPORT, 2)]), code::SETTINGS_ERROR);
        assert_eq!(code_of(&[(H3_DATAGRAM, (1 << 62) - 1)]), code::SETTINGS_ERROR);
        let cut = PeerSettings::parse(&[0x06]).expect_err("no value");
        assert_eq!(cut.code, code::FRAME_ERROR);
        // Reserved for exercise, and unknown: neither means anything.
        assert_eq!(code_of(&[(0x21, 5), (0x4d45, 9), (0x4d45, 9)]), 0);
    }
}
