//! What the first bytes of a script say of the program that runs it.

/// The kernel looks at no more of the first line than this.
const LINE_LEN_MAX: usize = 255;
/// What some editors put before the first character of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What kind of program a file is, judged by its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Head {
    /// A script whose first line names this interpreter.
    Script(Interpreter),
    /// A script whose first line ends in CR: the kernel would look for `sh\r`.
    CarriageReturn,
    /// A script that the kernel does not recognise, because a byte order mark stands before `#!`.
    ByteOrderMark,
    /// `#!` and nothing behind it, or a line longer than the kernel reads.
    NoInterpreter,
    /// A program for the machine itself.
    Binary,
    /// Nothing that the kernel can execute.
    Unknown,
}

/// The program that a first line names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Interpreter {
    /// This very file.
    At(String),
    /// What the file `env` (the first) finds on the path for the second.
    Found {
        /// The path of `env`.
        env: String,
        /// What it looks for.
        program: String,
    },
}

/// True if the file claims to be a script, runnable or not.
pub(super) fn claims_to_be_a_script(head: &[u8]) -> bool {
    head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(head).starts_with(b"#!")
}

/// Judges a file by its first bytes.
pub(super) fn judge(head: &[u8]) -> Head {
    if head.starts_with(b"\x7fELF") {
        return Head::Binary;
    }
    if !claims_to_be_a_script(head) {
        return Head::Unknown;
    }
    let Some(rest) = head.strip_prefix(b"#!") else { return Head::ByteOrderMark };
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let line = rest.get(..end).unwrap_or(rest);
    if line.ends_with(b"\r") {
        return Head::CarriageReturn;
    }
    if line.len() > LINE_LEN_MAX {
        return Head::NoInterpreter;
    }
    let line = String::from_utf8_lossy(line);
    let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
    let Some(program) = words.next() else { return Head::NoInterpreter };
    let is_env = program.rsplit('/').next() == Some("env");
    // Options of env and assignments come before the program that it looks for.
    let sought = words.find(|word| !word.starts_with('-') && !word.contains('='));
    Head::Script(match sought {
        Some(sought) if is_env && !sought.contains('/') => {
            Interpreter::Found { env: program.to_owned(), program: sought.to_owned() }
        }
        _ => Interpreter::At(program.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_head_says_what_runs_the_file() {
        let at = |path: &str| Head::Script(Interpreter::At(path.into()));
        let found = |program: &str| {
            Head::Script(Interpreter::Found { env: "/usr/bin/env".into(), program: program.into() })
        };
        for (head, expected) in [
            (&b"#!/bin/sh\necho"[..], at("/bin/sh")),
            (b"#! /bin/sh -eu\n", at("/bin/sh")),
            (b"#!/bin/sh", at("/bin/sh")),
            (b"#!/usr/bin/env python3\n", found("python3")),
            (b"#!/usr/bin/env -S LANG=C python3 -u\n", found("python3")),
            (b"#!/usr/bin/env /bin/sh\n", at("/usr/bin/env")),
            (b"#!/bin/sh\r\necho\r\n", Head::CarriageReturn),
            (b"\xef\xbb\xbf#!/bin/sh\n", Head::ByteOrderMark),
            (b"#!\n", Head::NoInterpreter),
            (b"#! \t\n", Head::NoInterpreter),
            (b"\x7fELF\x02\x01", Head::Binary),
            (b"echo hello\n", Head::Unknown),
            (b"", Head::Unknown),
        ] {
            assert_eq!(judge(head), expected, "{}", String::from_utf8_lossy(head));
        }
        let long = [b"#!/", &[b'x'; 300][..], b"\n"].concat();
        assert_eq!(judge(&long), Head::NoInterpreter);
    }

    proptest! {
        #[test]
        fn no_head_is_too_strange(
            start in prop::sample::select(vec![&b"#!"[..], b"\xef\xbb\xbf#!", b"#! /usr/bin/env ", b"\x7fEL", b""]),
            rest in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b" \t/=-\n\r".as_slice())], 0..300),
        ) {
            let head = [start, &rest].concat();
            if let Head::Script(interpreter) = judge(&head) {
                let (program, sought) = match &interpreter {
                    Interpreter::At(path) => (path, None),
                    Interpreter::Found { env, program } => (env, Some(program)),
                };
                prop_assert!(head.starts_with(b"#!") && !program.is_empty());
                // What is looked for on a path is one plain word: never an option, an assignment or a path.
                prop_assert!(sought.is_none_or(|word| !word.is_empty() && !word.contains(['/', '=', ' ', '\t', '\n'])));
            }
        }

        #[test]
        fn the_interpreter_is_the_first_word(
            path in "/[a-z/]{0,40}[a-df-z]", blanks in "[ \t]{0,3}", rest in "([ \t][ -~]{0,40})?", end in "\n?",
        ) {
            let head = format!("#!{blanks}{path}{rest}x{end}");
            let word = head[2..].trim_start().split([' ', '\t', '\n']).next().unwrap().to_owned();
            prop_assert_eq!(judge(head.as_bytes()), Head::Script(Interpreter::At(word)));
        }
    }
}
