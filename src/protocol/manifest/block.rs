//! The comment block by which a script declares its manifest.
//!
//! ```text
//! # /// agent
//! # about = "Turns a validated topic into an article"
//! # handles = ["generate"]
//! # ///
//! ```
//!
//! The leader is `#`, `//`, `--` or `;`, at the very start of each line and the same throughout. The
//! first line is exactly `# /// agent`, the last exactly `# ///`; what stands between them is TOML
//! behind the leader and one space (a line without content may be the bare leader). Blanks at the end
//! of a line do not matter. It is looked for in the first [`BLOCK_SEARCH_LEN`] bytes, and not beyond
//! the first NUL byte, so that a binary has none. A line that nearly is a first line is refused
//! rather than passed over: a declaration that nobody reads is worse than none.

use std::ops::ControlFlow;

use super::report::line_feeds;

/// How much of a script is searched for its block, in bytes.
pub const BLOCK_SEARCH_LEN: usize = 64 * 1024;

const LEADERS: [&str; 4] = ["#", "//", "--", ";"];
const MARK: &str = "///";
const KIND: &str = "agent";

/// The TOML of a block, and the line of the script on which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// What stands behind the leaders.
    pub(super) toml: String,
    /// The line of its first line in the script, from 1.
    pub(super) first_line: u32,
}

/// What is wrong with a block itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockError {
    /// The line in the script, from 1.
    pub(super) line: u32,
    /// What is wrong.
    pub(super) message: String,
    /// What to do about it.
    pub(super) remedy: String,
}

/// Finds the block of a script; `None` if there is none.
///
/// # Errors
/// The first thing that is wrong with the block: after that, what belongs to it is guesswork.
pub(super) fn find(script: &[u8]) -> Result<Option<Block>, BlockError> {
    let window = script.get(..BLOCK_SEARCH_LEN).unwrap_or(script);
    let text = window.split(|byte| *byte == 0).next().unwrap_or_default();
    let cut = text.len() < script.len();
    // Where the search is cut short, so perhaps is its last line, which is then not judged.
    let whole = if cut { text.iter().rposition(|byte| *byte == b'\n').unwrap_or(0) } else { text.len() };
    let text = text.get(..whole).unwrap_or_default();
    let mut search = Search::Outside(None);
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        search = search.line(number, line.trim_ascii_end())?;
    }
    match search {
        Search::Outside(found) => Ok(found),
        Search::Inside(open) => {
            let cut_at = line_feeds(text).saturating_add(2);
            Err(open.unterminated(cut.then_some(cut_at)))
        }
    }
}

/// Where in the script the search is.
enum Search {
    /// Not in a block; this one was found earlier.
    Outside(Option<Block>),
    /// Behind the first line of a block.
    Inside(Open),
}

/// A block whose end was not seen yet.
struct Open {
    leader: &'static str,
    /// The line that began it.
    line: u32,
    toml: String,
}

impl Search {
    /// Takes the next line of the script, without the blanks at its end.
    fn line(self, number: u32, line: &[u8]) -> Result<Self, BlockError> {
        match self {
            Self::Outside(found) => match (opening(number, line)?, found) {
                (None, found) => Ok(Self::Outside(found)),
                (Some(leader), None) => Ok(Self::Inside(Open { leader, line: number, toml: String::new() })),
                (Some(leader), Some(first)) => Err(BlockError {
                    line: number,
                    message: format!("a second `{leader} {MARK} {KIND}` block"),
                    remedy: format!("keep one; the first begins on line {}", first.first_line - 1),
                }),
            },
            Self::Inside(mut open) => match open.line(number, line)? {
                ControlFlow::Continue(()) => Ok(Self::Inside(open)),
                ControlFlow::Break(()) => {
                    Ok(Self::Outside(Some(Block { toml: open.toml, first_line: open.line + 1 })))
                }
            },
        }
    }
}

/// The leader, if this line begins a block.
fn opening(number: u32, line: &[u8]) -> Result<Option<&'static str>, BlockError> {
    let trimmed = line.trim_ascii_start();
    for leader in LEADERS {
        let Some(rest) = trimmed.strip_prefix(leader.as_bytes()) else { continue };
        let Some(kind) = rest.trim_ascii_start().strip_prefix(MARK.as_bytes()) else { continue };
        if !kind.trim_ascii_start().eq_ignore_ascii_case(KIND.as_bytes()) {
            continue;
        }
        let exact = format!("{leader} {MARK} {KIND}");
        if line == exact.as_bytes() {
            return Ok(Some(leader));
        }
        return Err(BlockError {
            line: number,
            message: "this is nearly the first line of a manifest, but not quite".into(),
            remedy: format!("write it as `{exact}`, from the start of the line"),
        });
    }
    Ok(None)
}

impl Open {
    /// Takes a line behind the first; breaks if it is the last.
    fn line(&mut self, number: u32, line: &[u8]) -> Result<ControlFlow<()>, BlockError> {
        let Some(rest) = line.strip_prefix(self.leader.as_bytes()) else {
            return Err(self.unterminated(None));
        };
        let content = match rest {
            [] => rest,
            [b' ', content @ ..] => content,
            _ => return Err(self.misshapen(number, "this line is not shaped like one of the manifest's")),
        };
        if content == MARK.as_bytes() {
            return Ok(ControlFlow::Break(()));
        }
        let Ok(content) = str::from_utf8(content) else {
            return Err(self.misshapen(number, "this line of the manifest is not UTF-8"));
        };
        self.toml.push_str(content);
        self.toml.push('\n');
        Ok(ControlFlow::Continue(()))
    }

    fn misshapen(&self, line: u32, message: &str) -> BlockError {
        let leader = self.leader;
        BlockError {
            line,
            message: message.into(),
            remedy: format!("begin it with `{leader} `, or end the manifest above it with `{leader} {MARK}`"),
        }
    }

    /// The block has no end; if the search was cut short, on the line `cut_at`.
    fn unterminated(&self, cut_at: Option<u32>) -> BlockError {
        let Self { leader, line, .. } = self;
        let within = cut_at.map(|at| format!(" before line {at}, where the search for it ends"));
        BlockError {
            line: *line,
            message: format!("the manifest that begins here has no end{}", within.unwrap_or_default()),
            remedy: format!("add the line `{leader} {MARK}` below its last key"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(script: &str) -> Option<(String, u32)> {
        find(script.as_bytes()).unwrap().map(|block| (block.toml, block.first_line))
    }

    fn refused(script: &[u8]) -> (u32, String) {
        let BlockError { line, message, remedy } = find(script).unwrap_err();
        (line, format!("{message}; {remedy}"))
    }

    #[test]
    fn every_leader_serves() {
        for leader in LEADERS {
            let script = format!(
                "#!/usr/bin/env x\n{leader} /// agent\n{leader} a = 1\n{leader}\n{leader}   b = 2\n{leader} ///\nrest"
            );
            assert_eq!(found(&script), Some(("a = 1\n\n  b = 2\n".into(), 3)), "{leader}");
        }
    }

    #[test]
    fn a_script_need_not_have_one() {
        for script in
            ["", "\n\n", "#!/bin/sh\necho hi\n", "# /// script\n# dependencies = []\n# ///\n", "/// agent\n"]
        {
            assert_eq!(found(script), None, "{script:?}");
        }
    }

    #[test]
    fn carriage_returns_and_blanks_at_the_end_do_not_matter() {
        assert_eq!(found("# /// agent \r\n# a = 1\r\n#\r\n# ///\t\r\n"), Some(("a = 1\n\n".into(), 2)));
        assert_eq!(found("# /// agent\n# ///"), Some((String::new(), 2)), "nor does a missing last newline");
    }

    #[test]
    fn a_binary_has_none() {
        assert_eq!(find(b"\x7fELF\x02\x01\x01\0\n# /// agent\n"), Ok(None));
        let mut archive = b"#!/bin/sh\n# /// agent\n# a = 1\n# ///\nexit\n".to_vec();
        archive.extend([0, 159, 146, 150]);
        assert_eq!(find(&archive).unwrap().unwrap().toml, "a = 1\n", "but a script before a payload has");
    }

    #[test]
    fn a_block_without_an_end_is_refused_where_it_begins() {
        for script in
            ["\n# /// agent\n# a = 1\n", "\n# /// agent\n# a = 1\n\n# ///\n", "\n# /// agent\n// ///\n"]
        {
            let (line, text) = refused(script.as_bytes());
            assert_eq!(line, 2, "{script:?}");
            assert!(text.contains("no end; add the line `# ///`"), "{text}");
        }
    }

    #[test]
    fn a_second_block_is_refused_where_it_begins() {
        let (line, text) = refused(b"# /// agent\n# ///\n\n// /// agent\n// ///\n");
        assert_eq!(line, 4);
        assert!(text.contains("the first begins on line 1"), "{text}");
    }

    #[test]
    fn nearly_a_block_is_refused_and_not_passed_over() {
        for near in
            ["#/// agent", "#  /// agent", "# ///agent", "# /// Agent", "  # /// agent", "//\t/// agent"]
        {
            let (line, text) = refused(near.as_bytes());
            assert_eq!(line, 1);
            assert!(text.contains("/// agent`, from the start of the line"), "{near}: {text}");
        }
        for inside in ["#a = 1", "#\ta = 1", "#///", "# \u{e4}"] {
            let mut script = b"# /// agent\n".to_vec();
            // As Latin-1, which the last one is then not UTF-8 for.
            script.extend(inside.chars().map(|c| u8::try_from(u32::from(c)).unwrap()));
            assert_eq!(refused(&script).0, 2, "{inside:?}");
        }
    }

    #[test]
    fn the_search_is_bounded() {
        let mut far = vec![b'\n'; BLOCK_SEARCH_LEN];
        far.extend(b"# /// agent\n# ///\n");
        assert_eq!(find(&far), Ok(None));

        let mut long = b"# /// agent\n".to_vec();
        while long.len() < BLOCK_SEARCH_LEN {
            long.extend(b"#\n");
        }
        long.extend(b"# ///\n");
        let (line, text) = refused(&long);
        assert_eq!(line, 1);
        assert!(text.contains("where the search for it ends"), "{text}");
    }
}
