//! The rules of the house that no compiler knows, checked over the sources.
//!
//! `protocol ← machine ← app ← cli` and `protocol ← edge ← app`: a layer names only what lies before it. `machine`
//! and `protocol` are pure. Paths are spelled in one file. Files fit a sitting.
//!
//! One thing is in every layer and of none: the wrong decisions of `src/mutants.rs`, which hang on what a thread has
//! chosen, and so are not pure. They are reached by `mutant!(…)` alone, which is `false` in all that is ever built
//! but the simulator under test.

use std::fs;
use std::path::{Path, PathBuf};

const LAYERS: [&str; 5] = ["protocol", "machine", "edge", "app", "cli"];
const LINES_MAX: usize = 520;
/// The one file that spells paths.
const LAYOUT: &str = "protocol/layout";
/// What touches the world, and has no place in a pure layer.
const IMPURE: [&str; 12] = [
    "std::fs",
    "std::io::Write",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "Instant",
    "SystemTime",
    "nix::",
    "rustix::",
    "notify::",
    "fs2::",
];
/// The names of the protocol's files and directories: a string that is one of them spells a path.
const PATH_WORDS: [&str; 16] = [
    "HALT",
    "agents",
    "alerts",
    "answers",
    "applied",
    "journal",
    "ledger",
    "logs",
    "queue",
    "rejected",
    "requests",
    "scratch",
    "state",
    "stopped",
    "supervisor.lock",
    "nightcrew.toml",
];
const ENDINGS: [&str; 10] =
    [".step", ".damaged", ".lock", ".heartbeat", ".reason", ".pipe", ".idx", ".output", ".claim", ".payload"];

/// What a layer may name beside itself.
fn may_name(layer: &str) -> &'static [&'static str] {
    match layer {
        "protocol" => &[],
        "machine" | "edge" => &["protocol"],
        "app" => &["protocol", "machine", "edge"],
        "cli" => &["protocol", "app"],
        other => panic!("src/{other} is no layer of DESIGN"),
    }
}

/// A source file: where it is, below src/, and its lines without comments.
struct Source {
    file: String,
    lines: Vec<String>,
}

impl Source {
    fn new(file: &str, text: &str) -> Self {
        Self { file: file.into(), lines: text.lines().map(|line| code_of(line).to_owned()).collect() }
    }

    fn layer(&self) -> &str {
        self.file.split('/').next().unwrap_or_default()
    }

    /// The code, white space left out: so a path or a group is found however it is broken into lines.
    fn squeezed(&self) -> String {
        self.lines.iter().flat_map(|line| line.chars()).filter(|c| !c.is_whitespace()).collect()
    }

    /// True for a file of tests, and what it holds for tests.
    fn is_test(&self) -> bool {
        self.file.ends_with("tests.rs") || self.file.contains("/tests/")
    }

    /// What stands before the tests of the file.
    fn product(&self) -> &[String] {
        let tests =
            self.lines.iter().position(|line| line.trim() == "mod tests {").unwrap_or(self.lines.len());
        if self.is_test() { &[] } else { &self.lines[..tests] }
    }

    fn broken_rules(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut told = |what: String| broken.push(format!("src/{}: {what}", self.file));
        if self.lines.len() > LINES_MAX {
            told(format!("{} lines, more than {LINES_MAX}: split it", self.lines.len()));
        }
        let text = self.squeezed();
        for (what, why) in [
            ("#[allow(", "use #[expect(…, reason = …)]"),
            ("#![allow(", "use #![expect(…)]"),
            ("todo!", "do it"),
        ] {
            if text.contains(what) {
                told(format!("{what}: {why}"));
            }
        }
        let layer = self.layer();
        if !LAYERS.contains(&layer) {
            return broken;
        }
        for other in LAYERS.into_iter().filter(|other| *other != layer && !may_name(layer).contains(other)) {
            if names(&text, other) {
                told(format!("{layer} must not name {other}"));
            }
        }
        if names(&text, "mutants") {
            told("a mutant is reached by mutant!(…) alone".to_owned());
        }
        if layer == "protocol" || layer == "machine" {
            let product = self.product().join("\n");
            for impure in IMPURE.into_iter().filter(|impure| product.contains(impure)) {
                told(format!("{layer} is pure, and names {impure}"));
            }
        }
        if !self.file.starts_with(LAYOUT) {
            for literal in self.product().iter().flat_map(|line| literals(line)) {
                if spells_a_path(literal) {
                    told(format!("{literal:?} spells a path: that is for protocol/layout.rs"));
                }
            }
        }
        broken
    }
}

/// The code of a line, without the comment at its end.
fn code_of(line: &str) -> &str {
    if line.trim_start().starts_with("//") { "" } else { line }
}

/// True if the code names the layer `other` by a path from the crate's root: alone, or in a group.
fn names(text: &str, other: &str) -> bool {
    ["crate::", "nightcrew::", "super::"].into_iter().any(|root| {
        text.match_indices(root).any(|(at, _)| {
            let rest = &text[at + root.len()..];
            match rest.strip_prefix('{') {
                None => begins_with_word(rest, other),
                Some(group) => top_level(group).into_iter().any(|name| begins_with_word(name, other)),
            }
        })
    })
}

fn begins_with_word(text: &str, word: &str) -> bool {
    text.strip_prefix(word).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// The members of a `{…}` group, without those of groups within it.
fn top_level(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut members) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                members.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    members
}

/// The string literals of a line, as far as they begin and end in it.
fn literals(line: &str) -> Vec<&str> {
    line.split('"').skip(1).step_by(2).collect()
}

fn spells_a_path(literal: &str) -> bool {
    let below_state = literal.starts_with("state/") && !literal.contains(' ');
    let ending = ENDINGS.into_iter().any(|ending| literal.ends_with(ending) && !literal.contains(' '));
    below_state || ending
}

/// A word alone is a path only where it is joined to one.
fn joins_a_path(line: &str) -> bool {
    PATH_WORDS.iter().any(|word| line.contains(&format!(".join(\"{word}\")")))
}

fn sources_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources_below(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_sources_keep_the_rules_of_the_house() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources_below(&root, &mut files);
    assert!(files.len() > 50, "the sources are there");
    let mut broken = Vec::new();
    for path in files {
        let file = path.strip_prefix(&root).expect("below").to_string_lossy().into_owned();
        let source = Source::new(&file, &fs::read_to_string(&path).expect("a text"));
        broken.extend(source.broken_rules());
        if !file.starts_with(LAYOUT) {
            let joined = source.product().iter().filter(|line| joins_a_path(line));
            broken.extend(joined.map(|line| format!("src/{file}: {} spells a path", line.trim())));
        }
    }
    broken.sort();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// A mutant that decides nothing anywhere would be no control.
#[test]
fn every_mutant_has_its_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources_below(&root, &mut files);
    let text: String = files.iter().map(|path| fs::read_to_string(path).expect("a text")).collect();
    let list = fs::read_to_string(root.join("mutants.rs")).expect("the mutants");
    let (_, list) = list.split_once("    mutants! {").expect("their list");
    let (list, _) = list.split_once("\n    }").expect("its end");
    let names = list.lines().filter(|line| line.ends_with("\","));
    let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 12, "the list is read: {names:?}");
    let idle = names.iter().filter(|name| !text.contains(&format!("mutant!({name})")));
    assert_eq!(idle.collect::<Vec<_>>(), Vec::<&&str>::new(), "they decide nothing");
}

/// A rule that cannot be seen to fail proves nothing.
#[test]
fn each_rule_can_be_broken() {
    let broken = |file: &str, text: &str| !Source::new(file, text).broken_rules().is_empty();
    for (file, text) in [
        ("machine/x.rs", "use crate::edge::files;"),
        ("machine/x.rs", "use crate::{protocol::name, edge};"),
        ("machine/x.rs", "use crate::{\n    protocol::{name, time},\n    app::world,\n};"),
        ("machine/x.rs", "let x = crate::cli::main();"),
        ("machine/x.rs", "use super::super::edge::files;"),
        ("machine/x.rs", "use std::time::Instant;"),
        ("protocol/x.rs", "use std::fs;"),
        ("protocol/x.rs", "use crate::machine::State;"),
        ("edge/x.rs", "use crate::machine::State;"),
        ("edge/x.rs", "fn f() { crate::app::world::f() }"),
        ("app/x.rs", "use crate::cli;"),
        ("machine/x.rs", "if crate::mutants::is(Mutant::PidAlone) {}"),
        ("cli/x.rs", "use crate::edge::files;"),
        ("cli/x.rs", "use crate::machine::State;"),
        ("cli/x.rs", "#[allow(dead_code)]"),
        ("cli/x.rs", "fn f() { todo!() }"),
        ("app/x.rs", "let lock = format!(\"{id}.lock\");"),
        ("app/x.rs", "let dir = crew.join(\"state/tasks\");"),
    ] {
        assert!(broken(file, text), "{file}: {text}");
    }
    assert!(broken("app/x.rs", &"\n".repeat(LINES_MAX + 1)));
    assert!(joins_a_path("let dir = crew.join(\"state\");"));
    for (file, text) in [
        ("machine/x.rs", "use crate::protocol::{name, time};\nuse super::agents;\nfn editor(app: u8) {}"),
        ("machine/x.rs", "// crate::edge does this, and state/x.lock is its file"),
        ("app/x.rs", "use crate::{edge, machine, protocol};"),
        ("cli/x.rs", "println!(\"see state/ for more\");"),
    ] {
        let source = Source::new(file, text);
        assert!(source.broken_rules().is_empty(), "{:?}", source.broken_rules());
    }
}
