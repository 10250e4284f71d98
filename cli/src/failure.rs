//! How a command fails: one line for a person, one number for a script.

use std::fmt;

/// Why a command ended without success. Its `Display` is one line that says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The command line is wrong; nothing was tried. Exit code 2.
    Usage(String),
    /// The command ran and did not succeed. Exit code 1.
    Failed(String),
}

impl Failure {
    /// A wrong command line.
    pub fn usage(message: impl Into<String>) -> Self {
        Failure::Usage(message.into())
    }

    /// A command that ran and did not succeed.
    pub fn failed(message: impl Into<String>) -> Self {
        Failure::Failed(message.into())
    }

    /// The process's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Failed(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Usage(message) | Failure::Failed(message)) = self;
        f.write_str(&one_line(message))
    }
}

impl std::error::Error for Failure {}

impl From<clap::Error> for Failure {
    /// Folds clap's paragraphs into one line: the error, its tips, and where help is.
    fn from(error: clap::Error) -> Self {
        let text = error.render().to_string();
        let mut parts: Vec<String> = Vec::new();
        let mut help = "sheetbend --help".to_owned();
        for paragraph in text.split("\n\n") {
            let paragraph = one_line(paragraph);
            if let Some(usage) = paragraph.strip_prefix("Usage: ") {
                help = help_command(usage);
            } else if let Some(tips) = paragraph.strip_prefix("tip: ") {
                parts.extend(tips.split(" tip: ").map(str::to_owned));
            } else if !paragraph.starts_with("For more information") && !paragraph.is_empty() {
                parts.push(paragraph.strip_prefix("error: ").unwrap_or(&paragraph).to_owned());
            }
        }
        Failure::Usage(format!("{} (see '{help}')", parts.join("; ")))
    }
}

/// `sheetbend send [OPTIONS] …` gives `sheetbend send --help`.
fn help_command(usage: &str) -> String {
    let words = usage
        .split(' ')
        .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase()));
    let mut command: Vec<&str> = words.collect();
    command.push("--help");
    command.join(" ")
}

/// `text` with every run of white space and control characters turned into one space: text of a peer or of
/// the system cannot break the line or drive the terminal.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
    {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_whatever_is_in_it() {
        let failure = Failure::failed("cannot\nwrite:\r\n\x1b[31mred\t\u{7f}x");
        assert_eq!(failure.to_string(), "cannot write: [31mred x");
        assert_eq!(failure.code(), 1);
        assert_eq!(Failure::usage("x").code(), 2);
    }
}
