//! Who a session's client is, as far as the server can tell without its word for it.

use core::net::IpAddr;
use std::fmt;

use sha2::{Digest, Sha256};

/// Whom a session's memory is counted for: what authentication found, or else the carrier's source address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Nothing is known, as on carriers within one machine: only the budget for all of them counts.
    #[default]
    Unknown,
    /// An IPv4 address, or the first 64 bits of an IPv6 address: one subscriber has all the others.
    Network([u8; 8]),
    /// The first half of the SHA-256 of a name that was authenticated.
    Name([u8; 16]),
}

impl Origin {
    /// The origin of connections from this address. An IPv4 address written as IPv6 is the IPv4 address.
    pub fn of_address(address: IpAddr) -> Origin {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                // The documentation prefix 2001:db8::/32 stands before it: no client has an address in that.
                let [a, b, c, d] = address.octets();
                Origin::Network([0x20, 0x01, 0x0d, 0xb8, a, b, c, d])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Origin::Network([a, b, c, d, e, f, g, h])
            }
        }
    }

    /// The origin of a client that proved to be this one.
    pub fn of_name(name: &str) -> Origin {
        let mut half = [0; 16];
        half.copy_from_slice(&Sha256::digest(name.as_bytes())[..16]);
        Origin::Name(half)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Unknown => f.write_str("Unknown"),
            Origin::Network([0x20, 0x01, 0x0d, 0xb8, a, b, c, d]) => write!(f, "Network({a}.{b}.{c}.{d})"),
            Origin::Network(bits) => write!(f, "Network({:016x}/64)", u64::from_be_bytes(*bits)),
            Origin::Name(hash) => write!(f, "Name({:032x})", u128::from_be_bytes(*hash)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Origin {
        Origin::of_address(address.parse().expect("an address"))
    }

    #[test]
    fn addresses_of_one_subscriber_are_one_origin() {
        assert_eq!(of("2a00:1450:4001:81::1"), of("2a00:1450:4001:81:ffff::2"));
        assert_ne!(of("2a00:1450:4001:81::1"), of("2a00:1450:4001:82::1"));
        assert_eq!(of("::ffff:10.1.2.3"), of("10.1.2.3"));
        assert_ne!(of("10.1.2.3"), of("10.1.2.4"));
        assert_eq!(format!("{:?}", of("10.1.2.3")), "Network(10.1.2.3)");
        assert_ne!(Origin::of_name("a"), Origin::of_name("b"));
    }
}
