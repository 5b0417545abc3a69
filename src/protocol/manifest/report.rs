//! What is wrong with a declaration, and where: all of it, not only the first.

use std::fmt;

/// The most errors reported for one file; a file with more is not mended by reading them all.
pub const ERRORS_MAX: usize = 20;
/// The most characters of a file's own text that an error quotes.
const QUOTE_CHARS_MAX: usize = 60;

/// One thing that is wrong with a manifest or with nightcrew.toml.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// The file, as it was named to the parser.
    pub file: String,
    /// The line in that file, from 1. For a comment block: the line of the script.
    pub line: u32,
    /// The key it is about, where it is about one (an absurdly long one is cut).
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, key: _, message, remedy } = self;
        write!(f, "{file}:{line}: {message}; {remedy}")
    }
}

impl std::error::Error for ManifestError {}

/// Quotes text that came from outside, shortened and with control characters escaped.
pub(crate) fn quote(text: &str) -> String {
    if text.chars().nth(QUOTE_CHARS_MAX).is_none() {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(QUOTE_CHARS_MAX).chain(['…']).collect();
    format!("{start:?}")
}

/// Collects the errors of one file.
pub(crate) struct Report<'t> {
    file: &'t str,
    /// The TOML text, whose byte offsets errors are told by.
    text: &'t str,
    /// The line of the file on which that text begins.
    first_line: u32,
    errors: Vec<ManifestError>,
}

impl<'t> Report<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str, first_line: u32) -> Self {
        Self { file, text, first_line, errors: Vec::new() }
    }

    /// True if what else is wrong would not be kept.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.len() == ERRORS_MAX
    }

    /// Notes that something at the byte offset `at` is wrong. Beyond [`ERRORS_MAX`] it is not kept.
    pub(crate) fn refuse(&mut self, at: usize, key: Option<&str>, message: String, remedy: String) {
        if self.is_full() {
            return;
        }
        let before = self.text.as_bytes().get(..at).unwrap_or(self.text.as_bytes());
        let line = self.first_line.saturating_add(line_feeds(before));
        let key = key.map(|key| key.chars().take(QUOTE_CHARS_MAX).collect());
        self.errors.push(ManifestError { file: self.file.to_owned(), line, key, message, remedy });
    }

    /// All that is wrong, from the top of the file down.
    pub(crate) fn into_errors(mut self) -> Vec<ManifestError> {
        self.errors.sort_by_key(|error| error.line);
        self.errors
    }

    /// `value` if nothing is wrong, else all that is.
    pub(crate) fn conclude<T>(self, value: T) -> Result<T, Vec<ManifestError>> {
        if self.errors.is_empty() { Ok(value) } else { Err(self.into_errors()) }
    }
}

/// How many lines end in `bytes`.
pub(crate) fn line_feeds(bytes: &[u8]) -> u32 {
    let parts = bytes.split(|byte| *byte == b'\n').count();
    u32::try_from(parts.saturating_sub(1)).unwrap_or(u32::MAX)
}
