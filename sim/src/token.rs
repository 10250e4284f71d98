//! Replay tokens: a run in at most 128 characters.
//!
//! `SCENARIO.SEED` or `SCENARIO.SEED.KEPT`, and `~SUM` behind either where the seed stands for a plan: the scenario's name; the seed in hexadecimal digits; and, where items
//! of the seed's plan were left out, which ones are kept. KEPT is `b` and a bitmap, or `d` and differences, both
//! in base64url without padding. In the bitmap item *n* is bit *n* mod 8 of byte *n* div 8, the lowest bit first.
//! The differences are the first item's number, then for each further one how many lie between it and the one
//! before, each as a byte, or as two where it is above 127: the low seven bits with the high bit set, then the rest.
//! SUM is three base64url digits of the plan's hash: of a token that another version made, whose seed stands for
//! another plan, it is said so. A token without it runs whatever its seed stands for.

use std::fmt;
use std::str::FromStr;

use crate::scenario::{self, Scenario, Setup};
use crate::swarm::Plan;

/// The longest token.
pub const MAX_TOKEN_LEN: usize = 128;
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// The highest number of an item that a token can name.
const MAX_ITEM: u32 = 16_383;

/// A run: a scenario, a seed, and the items that are kept of its plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The scenario's name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// The items that are kept, in order; all if `None`.
    pub keep: Option<Vec<u32>>,
    /// Whether the token vouches for the plan.
    pub vouches: bool,
}

/// What is wrong with a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// More than [`MAX_TOKEN_LEN`] characters.
    #[error("a token has at most {MAX_TOKEN_LEN} characters, and this has {0}")]
    TooLong(usize),
    /// Not two or three parts.
    #[error("a token is SCENARIO.SEED or SCENARIO.SEED.ITEMS, with dots between, and '{0}' is not")]
    Parts(String),
    /// No such scenario.
    #[error("there is no scenario '{0}'")]
    Scenario(String),
    /// The seed is no number.
    #[error("the seed '{0}' is not a hexadecimal number of 64 bits")]
    Seed(String),
    /// Its seed stands for another plan than it did.
    #[error(
        "'{token}' is of another version: its seed stands for another plan by now. \
         '{bare}' runs what it stands for"
    )]
    Stale {
        /// The token.
        token: String,
        /// The same without its sum.
        bare: String,
    },
    /// The items do not parse.
    #[error("the items '{text}' {why}")]
    Items {
        /// What stands there.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Token {
    /// The token of a run. Items that are too many to be named make a token of the whole plan.
    pub fn new(scenario: &str, setup: &Setup) -> Token {
        let keep = setup.keep.clone().map(|mut keep| {
            keep.sort_unstable();
            keep.dedup();
            keep
        });
        Token {
            scenario: scenario.to_owned(),
            seed: setup.seed,
            keep,
            vouches: sum(scenario, setup.seed).is_some(),
        }
    }

    /// How to run it.
    pub fn setup(&self) -> Setup {
        Setup {
            seed: self.seed,
            keep: self.keep.clone(),
            ..Setup::default()
        }
    }

    /// Its scenario.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn find(&self) -> Result<&'static Scenario, TokenError> {
        scenario::find(&self.scenario).ok_or_else(|| TokenError::Scenario(self.scenario.clone()))
    }

    /// The two lines that run it again.
    pub fn commands(&self) -> [String; 2] {
        [
            format!(
                "SHEETBEND_SIM_REPLAY={self} cargo test -p sheetbend-sim --test swarm replay -- --nocapture"
            ),
            format!("sheetbend sim --replay {self}"),
        ]
    }
}

/// Three digits of the plan that a seed stands for; `None` where it stands for none.
fn sum(scenario: &str, seed: u64) -> Option<String> {
    if scenario != "swarm" {
        return None;
    }
    let plan = format!("{:?}", Plan::from_seed(seed));
    // FNV-1a, folded to 18 bits.
    let hash = plan.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = hash ^ hash >> 18 ^ hash >> 36 ^ hash >> 54;
    let digit = |place: u32| char::from(DIGITS[(hash >> (6 * place)) as usize & 63]);
    Some([digit(2), digit(1), digit(0)].iter().collect())
}

fn bitmap(keep: &[u32]) -> Vec<u8> {
    let len = keep.iter().max().map_or(0, |most| *most as usize / 8 + 1);
    let mut bytes = vec![0; len];
    for item in keep {
        bytes[*item as usize / 8] |= 1 << (item % 8);
    }
    bytes
}

fn differences(keep: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut next = 0;
    for &item in keep {
        let gap = item.saturating_sub(next);
        next = item + 1;
        if gap > 127 {
            bytes.push(gap as u8 | 0x80);
            bytes.push((gap >> 7) as u8);
        } else {
            bytes.push(gap as u8);
        }
    }
    bytes
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(word >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        if chunk.len() == 1 {
            return None;
        }
        let mut word = 0_u32;
        for byte in chunk {
            let digit = DIGITS.iter().position(|digit| digit == byte)?;
            word = word << 6 | u32::try_from(digit).ok()?;
        }
        let word = word << (6 * (4 - chunk.len()));
        let used = chunk.len() - 1;
        let [_, all @ ..] = word.to_be_bytes();
        if all[used..].iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(&all[..used]);
    }
    Some(bytes)
}

fn parse_items(text: &str) -> Result<Vec<u32>, TokenError> {
    let wrong = |why| TokenError::Items {
        text: text.to_owned(),
        why,
    };
    let form = text.chars().next().ok_or_else(|| wrong("are missing"))?;
    if form != 'b' && form != 'd' {
        return Err(wrong(
            "begin neither with b, for a bitmap, nor with d, for differences",
        ));
    }
    let bytes = decode(&text[1..]).ok_or_else(|| wrong("are not base64url"))?;
    if form == 'b' {
        let bits = (0..bytes.len() as u32 * 8).filter(|bit| bytes[*bit as usize / 8] >> (bit % 8) & 1 == 1);
        return Ok(bits.collect());
    }
    let (mut keep, mut next, mut rest) = (Vec::new(), 0, bytes.iter());
    while let Some(&byte) = rest.next() {
        let mut gap = u32::from(byte & 0x7f);
        if byte > 127 {
            let high = rest
                .next()
                .ok_or_else(|| wrong("end in the middle of a number"))?;
            gap |= u32::from(*high) << 7;
        }
        let item = next + gap;
        if item > MAX_ITEM {
            return Err(wrong("name an item beyond all plans"));
        }
        keep.push(item);
        next = item + 1;
    }
    Ok(keep)
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = format!("{}.{:x}", self.scenario, self.seed);
        let sum = sum(&self.scenario, self.seed).filter(|_| self.vouches);
        let sum = sum.map(|sum| format!("~{sum}")).unwrap_or_default();
        let Some(keep) = &self.keep else {
            return write!(f, "{start}{sum}");
        };
        let (map, list) = (encode(&bitmap(keep)), encode(&differences(keep)));
        let text = if map.len() <= list.len() {
            format!("{start}.b{map}")
        } else {
            format!("{start}.d{list}")
        };
        let fits = text.len() + sum.len() <= MAX_TOKEN_LEN && keep.iter().all(|item| *item <= MAX_ITEM);
        write!(f, "{}{sum}", if fits { text } else { start })
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Token, TokenError> {
        if text.len() > MAX_TOKEN_LEN {
            return Err(TokenError::TooLong(text.chars().count()));
        }
        let (bare, vouched) = match text.split_once('~') {
            Some((bare, sum)) => (bare, Some(sum)),
            None => (text, None),
        };
        let parts: Vec<&str> = bare.split('.').collect();
        let (name, seed, items) = match parts[..] {
            [name, seed] => (name, seed, None),
            [name, seed, items] => (name, seed, Some(items)),
            _ => return Err(TokenError::Parts(text.to_owned())),
        };
        if scenario::find(name).is_none() {
            return Err(TokenError::Scenario(name.to_owned()));
        }
        let digits = !seed.is_empty() && seed.bytes().all(|byte| byte.is_ascii_hexdigit());
        let seed = u64::from_str_radix(seed, 16)
            .ok()
            .filter(|_| digits)
            .ok_or_else(|| TokenError::Seed(seed.to_owned()))?;
        let keep = items.map(parse_items).transpose()?;
        if vouched.is_some() && vouched != sum(name, seed).as_deref() {
            return Err(TokenError::Stale {
                token: text.to_owned(),
                bare: bare.to_owned(),
            });
        }
        Ok(Token {
            scenario: name.to_owned(),
            seed,
            keep,
            vouches: vouched.is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(seed: u64, keep: Option<Vec<u32>>) -> Token {
        Token {
            scenario: "swarm".to_owned(),
            seed,
            keep,
            vouches: false,
        }
    }

    #[test]
    fn stale_tokens_say_so() {
        let fresh = Token::new(
            "swarm",
            &Setup {
                seed: 7,
                keep: Some(vec![1, 2]),
                ..Setup::default()
            },
        );
        let text = fresh.to_string();
        assert_eq!(text.parse(), Ok(fresh));
        let (bare, sum) = text.split_once('~').expect("it vouches");
        assert_eq!((bare, sum.len()), ("swarm.7.bBg", 3));
        // The sum of another seed's plan.
        let stale = format!("swarm.8.bBg~{sum}");
        let error = stale.parse::<Token>().expect_err("another plan").to_string();
        assert!(
            error.contains("another version") && error.contains("'swarm.8.bBg'"),
            "{error}"
        );
        for wrong in ["swarm.7~", "swarm.7~abcd", "partition.7~abc"] {
            assert!(
                matches!(wrong.parse::<Token>(), Err(TokenError::Stale { .. })),
                "{wrong}"
            );
        }
        assert_eq!(
            Token::new("partition", &Setup::default()).to_string(),
            "partition.0"
        );
    }

    #[test]
    fn tokens_come_back() {
        let keeps = [
            None,
            Some(vec![]),
            Some(vec![0]),
            Some(vec![149]),
            Some(vec![1, 2, 3, 130]),
            Some((0..150).collect()),
            Some((0..150).filter(|item| item % 3 != 1).collect()),
            Some(vec![5, 700]),
        ];
        for keep in keeps {
            for seed in [0, 7, u64::MAX] {
                let token = token(seed, keep.clone());
                let text = token.to_string();
                assert!(text.len() <= MAX_TOKEN_LEN, "{text}");
                assert_eq!(text.parse(), Ok(token), "{text}");
            }
        }
        assert_eq!(token(255, Some(vec![0, 1, 9])).to_string(), "swarm.ff.bAwI");
        assert_eq!(token(1, Some(vec![149])).to_string(), "swarm.1.dlQE");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("swarm", "SCENARIO.SEED"),
            ("warm.1", "no scenario 'warm'"),
            ("swarm.xyz", "the seed 'xyz'"),
            ("swarm.+1", "the seed '+1'"),
            ("swarm.", "the seed ''"),
            ("swarm.1.", "are missing"),
            ("swarm.1.q", "neither with b"),
            ("swarm.1.b!", "not base64url"),
            ("swarm.1.dlQ", "middle of a number"),
            ("swarm.11112222333344445", "64 bits"),
        ];
        for (text, words) in cases {
            let error = text.parse::<Token>().expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        let long = "s".repeat(200);
        assert_eq!(long.parse::<Token>(), Err(TokenError::TooLong(200)));
    }
}
