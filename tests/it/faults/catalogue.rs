//! docs/reliability.md says which fault is tried by which test. A line without its test, or a test of a fault
//! without its line, fails here, so that the catalogue cannot drift from what is tried.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A line of the catalogue: what happens, the promise that must hold, the tests that try it, what was seen.
struct Row {
    line: usize,
    cells: Vec<String>,
}

fn rows(text: &str) -> Vec<Row> {
    let tables = text.lines().enumerate().filter(|(_, line)| line.starts_with("| "));
    let cells = tables.map(|(number, line)| {
        let cells = line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
        Row { line: number + 1, cells }
    });
    cells.filter(|row| row.cells.first().is_some_and(|cell| cell != "fault")).collect()
}

/// The names between backticks in the third cell: `path::to::test`.
fn tests_of(row: &Row) -> Vec<&str> {
    row.cells.get(2).map_or(Vec::new(), |cell| cell.split('`').skip(1).step_by(2).collect())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The sources a test named `a::b::name` may be in: below `tests/a`, or `tests/a.rs`.
fn sources_of(test: &str) -> Vec<PathBuf> {
    let parts: Vec<&str> = test.split("::").collect();
    let below: PathBuf = parts[..parts.len() - 1].iter().collect();
    let base = root().join("tests").join(&below);
    [base.with_extension("rs"), base.join("mod.rs"), base.join("main.rs")].into()
}

fn exists(test: &str) -> bool {
    let name = test.rsplit("::").next().unwrap_or_default();
    let wanted = format!("fn {name}(");
    sources_of(test).iter().any(|path| fs::read_to_string(path).unwrap_or_default().contains(&wanted))
}

/// Every test of a fault, as `it::faults::module::name`.
fn tests_of_faults(dir: &Path, module: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        let stem = entry.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        if entry.is_dir() {
            tests_of_faults(&entry, &format!("{module}::{stem}"), found);
            continue;
        }
        let module = if stem == "mod" { module.to_owned() } else { format!("{module}::{stem}") };
        let text = fs::read_to_string(&entry).expect("a source");
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.trim() != "#[test]" {
                continue;
            }
            let function = lines.find_map(|line| line.trim().strip_prefix("fn "));
            let name = function.and_then(|rest| rest.split('(').next()).expect("a test has a name");
            found.insert(format!("{module}::{name}"));
        }
    }
}

#[test]
fn every_fault_has_its_test_and_every_test_its_fault() {
    let text = fs::read_to_string(root().join("docs/reliability.md")).expect("the catalogue");
    let rows = rows(&text);
    let mut wrong = Vec::new();
    let mut named = BTreeSet::new();
    for row in &rows {
        let tests = tests_of(row);
        if row.cells.len() != 4 || row.cells.iter().any(String::is_empty) || tests.is_empty() {
            wrong.push(format!("line {}: wants fault, promise, `test`, figures", row.line));
        }
        let missing = tests.iter().filter(|test| !exists(test));
        wrong.extend(missing.map(|test| format!("line {}: there is no test {test}", row.line)));
        named.extend(tests.into_iter().map(str::to_owned));
    }
    let mut written = BTreeSet::new();
    tests_of_faults(&root().join("tests/it/faults"), "it::faults", &mut written);
    let own = "it::faults::catalogue::";
    let unnamed = written.iter().filter(|test| !test.starts_with(own) && !named.contains(*test));
    wrong.extend(unnamed.map(|test| format!("{test} has no line in the catalogue")));
    assert!(wrong.is_empty(), "docs/reliability.md:\n{}", wrong.join("\n"));
}
