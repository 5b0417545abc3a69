//! Files of variables, such as `.env`.
//!
//! One `NAME=VALUE` a line; `export` may stand before it; empty lines and lines that begin with `#`
//! say nothing. Nothing is ever expanded: `$HOME` stays `$HOME`. A value is one of
//! - bare: as it stands, without the blanks around it, up to a `#` that follows a blank;
//! - in single quotes: all between them, line ends included;
//! - in double quotes: likewise, but `\"`, `\\`, `\$` and `` \` `` stand for the second character alone.
//!
//! Behind a closing quote only a comment may follow. Of two lines with one name the later counts.

use std::collections::BTreeMap;
use std::fmt;

use super::manifest::{ERRORS_MAX, is_variable, line_feeds};

/// The largest file of variables, in bytes: beyond what an environment can hold.
pub const ENV_FILE_LEN_MAX: usize = 128 * 1024;

/// One thing that is wrong with a file of variables. It quotes none of it: its values are secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvFileError {
    /// The file, as it was named to the parser.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// What is wrong.
    pub message: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

impl fmt::Display for EnvFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, message, remedy } = self;
        write!(f, "{file}:{line}: {message}; {remedy}")
    }
}

impl std::error::Error for EnvFileError {}

/// What may stand between `=` and a value.
const BLANKS: [char; 2] = [' ', '\t'];

/// What is wrong, and the remedy.
type Wrong = (&'static str, &'static str);

/// Reads a file of variables, `file` being what errors call it.
///
/// # Errors
/// All that is wrong, at most [`ERRORS_MAX`], by line.
pub fn parse(file: &str, bytes: impl AsRef<[u8]>) -> Result<BTreeMap<String, String>, Vec<EnvFileError>> {
    let refuse = |line, (message, remedy)| EnvFileError { file: file.to_owned(), line, message, remedy };
    let bytes = bytes.as_ref();
    if bytes.len() > ENV_FILE_LEN_MAX {
        return Err(vec![refuse(1, ("too large for a file of variables", "use at most 128 KiB"))]);
    }
    let text = str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        vec![refuse(1 + line_feeds(before), ("not UTF-8", "save the file as UTF-8"))]
    })?;
    let (mut variables, mut errors) = (BTreeMap::new(), Vec::new());
    let (mut rest, mut line) = (text, 1);
    while !rest.is_empty() && errors.len() < ERRORS_MAX {
        let after = match entry(rest) {
            Ok((found, after)) => {
                variables.extend(found);
                after
            }
            Err(wrong) => {
                errors.push(refuse(line, wrong));
                rest.split_once('\n').map_or("", |(_, after)| after)
            }
        };
        let taken = rest.len() - after.len();
        line += line_feeds(rest.as_bytes().get(..taken).unwrap_or_default());
        rest = after;
    }
    if errors.is_empty() { Ok(variables) } else { Err(errors) }
}

/// A name and its value.
type Variable = (String, String);

/// Reads one entry (or an empty line, or a comment) and returns what follows it. It always takes at
/// least one character, so that reading ends.
fn entry(text: &str) -> Result<(Option<Variable>, &str), Wrong> {
    let (line, after) = text.split_once('\n').unwrap_or((text, ""));
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok((None, after));
    }
    let declared = match line.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
        Some(_) | None => line,
    };
    let shape =
        ("not of the shape NAME=VALUE", "begin a comment with #, and put text of several lines in quotes");
    let (name, value) = declared.split_once('=').ok_or(shape)?;
    let name = name.trim_end();
    if !is_variable(name) {
        return Err(("the name is not one", "use up to 128 letters, digits and _, and no digit first"));
    }
    let value = value.trim_start_matches(BLANKS);
    let (value, after) = match value.chars().next() {
        Some(mark @ ('\'' | '"')) => {
            // A quoted value may go on beyond the line: it is read from where it begins in the text.
            let equals = text.find('=').ok_or(shape)?;
            let opened = text.get(equals + 1..).unwrap_or_default().trim_start_matches(BLANKS);
            quoted(mark, opened)?
        }
        Some(_) | None => (bare(value).to_owned(), after),
    };
    if value.contains('\0') {
        return Err(("holds a NUL character", "remove it: no variable can hold one"));
    }
    Ok((Some((name.to_owned(), value)), after))
}

/// A value without quotes: up to a comment.
fn bare(value: &str) -> &str {
    let comment = value.char_indices().find(|(at, c)| {
        let before = value.get(..*at).unwrap_or_default();
        *c == '#' && before.chars().next_back().is_none_or(char::is_whitespace)
    });
    value.get(..comment.map_or(value.len(), |(at, _)| at)).unwrap_or_default().trim_end()
}

/// A value in quotes, which `text` begins with, and what follows its line.
fn quoted(mark: char, text: &str) -> Result<(String, &str), Wrong> {
    let mut value = String::new();
    let mut chars = text.chars();
    chars.next();
    loop {
        match chars.next() {
            None => return Err(("a quote that is never closed", "close it, or escape it by a backslash")),
            Some(c) if c == mark => break,
            Some('\\') if mark == '"' => match chars.clone().next() {
                Some(c @ ('"' | '\\' | '$' | '`')) => {
                    chars.next();
                    value.push(c);
                }
                Some(_) | None => value.push('\\'),
            },
            Some(c) => value.push(c),
        }
    }
    let (trailing, after) = chars.as_str().split_once('\n').unwrap_or((chars.as_str(), ""));
    let trailing = trailing.trim();
    if trailing.is_empty() || trailing.starts_with('#') {
        return Ok((value, after));
    }
    Err(("text behind the closing quote", "put all of the value in one pair of quotes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<Variable> {
        parse(".env", text).unwrap().into_iter().collect()
    }

    fn refused(text: &[u8]) -> Vec<String> {
        parse(".env", text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_form_of_a_value_is_read() {
        for (text, value) in [
            ("A=b", "b"),
            ("  export  A = b c  \r\n", "b c"),
            ("export\tA=b", "b"),
            ("A=", ""),
            ("A= # nothing", ""),
            ("A=b#c # d", "b#c"),
            ("A=$HOME/`x`", "$HOME/`x`"),
            ("A=x=y", "x=y"),
            ("A=it's", "it's"),
            ("A='b # \\n \"c\" $D' # e", "b # \\n \"c\" $D"),
            (r#"A="b \"c\" \\ \$D \n" "#, r#"b "c" \ $D \n"#),
            ("A=\"one\ntwo\"\n", "one\ntwo"),
            ("A = 'one\ntwo'\n", "one\ntwo"),
            ("A=first\nA=later", "later"),
        ] {
            assert_eq!(read(text), [("A".into(), value.into())], "{text:?}");
        }
        assert_eq!(read("\n # A=b\n\n"), []);
        assert_eq!(read("export=x"), [("export".into(), "x".into())]);
        assert_eq!(read("A='1\n2'\nB=3"), [("A".into(), "1\n2".into()), ("B".into(), "3".into())]);
    }

    #[test]
    fn what_is_wrong_is_told_by_line_and_never_quoted() {
        let text =
            b"OK=1\nsk-secret\n1A=secret\nB='secret' secret\nC='two\nlines'\nD=a\0secret\nE=\"secret\n";
        let errors = refused(text);
        let lines: Vec<_> = errors.iter().filter_map(|error| error.split(' ').next()).collect();
        assert_eq!(lines, [".env:2:", ".env:3:", ".env:4:", ".env:7:", ".env:8:"]);
        assert!(errors.iter().all(|error| !error.contains("secret")), "{errors:?}");
        assert_eq!(refused(b"A=1\nB=\xff\n"), [".env:2: not UTF-8; save the file as UTF-8"]);
        assert_eq!(refused("x\n".repeat(1000).as_bytes()).len(), ERRORS_MAX);
        assert_eq!(refused(&vec![b'#'; ENV_FILE_LEN_MAX + 1]).len(), 1);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse("f", &bytes);
        }

        #[test]
        fn nor_does_what_looks_like_variables(text in "([A-Z ]{0,3}=?['\"\\\\$#a ä\n]{0,8}\n?){0,6}") {
            let _ = parse("f", &text);
        }

        #[test]
        fn a_value_in_single_quotes_comes_back_whole(value in "[^'\0]{0,40}") {
            prop_assert_eq!(read(&format!("A='{value}'\n")), [("A".to_owned(), value)]);
        }

        #[test]
        fn a_value_in_double_quotes_comes_back_whole(value in "[^\0]{0,40}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(read(&format!("A=\"{escaped}\"\n")), [("A".to_owned(), value)]);
        }
    }
}
