//! Names that are safe to give to a file in a folder.

use std::fmt;

/// The longest name, in bytes: with the frame of a partial file's name it stays below the 255 of file systems.
pub const MAX_NAME_BYTES: usize = 200;

/// A plain file name: one component, not hidden, printable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

/// Why a text is not a [`FileName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is nothing in it.
    #[error("the name is empty")]
    Empty,
    /// More than [`MAX_NAME_BYTES`].
    #[error("the name is longer than {MAX_NAME_BYTES} bytes")]
    TooLong,
    /// `/` or `\`.
    #[error("the name holds a '/' or a '\\'")]
    Separator,
    /// `.`, `..`, and everything else that begins with a dot.
    #[error("the name begins with a dot")]
    Hidden,
    /// A control character, or one that changes the direction of text.
    #[error("the name holds a control character")]
    Control,
    /// Not UTF-8.
    #[error("the name is not UTF-8")]
    NotUtf8,
}

impl FileName {
    /// Takes `bytes` as a name.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(bytes: &[u8]) -> Result<FileName, NameError> {
        if bytes.is_empty() {
            return Err(NameError::Empty);
        }
        if bytes.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong);
        }
        let name = std::str::from_utf8(bytes).map_err(|_| NameError::NotUtf8)?;
        if name.contains(['/', '\\']) {
            return Err(NameError::Separator);
        }
        if name.starts_with('.') {
            return Err(NameError::Hidden);
        }
        // Directional overrides make `exe.txt` of `txt.exe` on a screen.
        let overrides =
            |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if name.chars().any(|c| c.is_control() || overrides(c)) {
            return Err(NameError::Control);
        }
        Ok(FileName(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        for name in [
            "a",
            "data.tar.gz",
            "-rf",
            "a..b",
            "straße 7 (ü).txt",
            "~",
            "C:",
            "日本",
        ] {
            assert_eq!(FileName::parse(name.as_bytes()).expect(name).as_str(), name);
        }
        assert!(FileName::parse(&[b'x'; MAX_NAME_BYTES]).is_ok());
    }

    #[test]
    fn names_that_could_do_harm_do_not() {
        for (name, error) in [
            (&b""[..], NameError::Empty),
            (b".", NameError::Hidden),
            (b"..", NameError::Hidden),
            (b".bashrc", NameError::Hidden),
            (b"/etc/passwd", NameError::Separator),
            (b"../x", NameError::Separator),
            (b"a/b", NameError::Separator),
            (b"..\\x", NameError::Separator),
            (b"a\0b", NameError::Control),
            (b"a\nb", NameError::Control),
            (b"\x1b[31m", NameError::Control),
            ("a\u{202e}txt.exe".as_bytes(), NameError::Control),
            (b"\xff\xfe", NameError::NotUtf8),
            (&[b'x'; MAX_NAME_BYTES + 1], NameError::TooLong),
        ] {
            assert_eq!(FileName::parse(name), Err(error), "{name:?}");
        }
    }
}
