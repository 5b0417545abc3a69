//! What operators and agents declare: manifests, nightcrew.toml, files of variables.

use std::time::Duration;

use nightcrew::protocol::crewfile;
use nightcrew::protocol::envfile::{self, ENV_FILE_LEN_MAX};
use nightcrew::protocol::manifest::{
    DECLARATION_LEN_MAX, Defaults, ERRORS_MAX, Heartbeat, Restart, from_script, from_toml,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use rustix::time::{ClockId, clock_gettime};

use super::any::{bytes, name, text};

/// What is told of a file that is wrong: no more than can be read, each with a line that the file has, and nothing
/// that a terminal would act upon.
fn told<T, E: ToString>(file: &[u8], result: &Result<T, Vec<E>>) -> Result<(), TestCaseError> {
    let Err(errors) = result else { return Ok(()) };
    prop_assert!((1..=ERRORS_MAX).contains(&errors.len()), "{} errors", errors.len());
    let lines = file.split(|byte| *byte == b'\n').count();
    for error in errors {
        let error = error.to_string();
        let line = error.strip_prefix("file:").and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
        prop_assert!(
            line.is_some_and(|line| (1..=lines).contains(&line)),
            "{:?} names no line of {}",
            error,
            lines
        );
        prop_assert!(!error.chars().any(char::is_control), "{:?} controls a terminal", error);
        prop_assert!(error.len() < 2000, "{:?} is long", error);
    }
    Ok(())
}

fn all_told(file: &[u8]) -> Result<(), TestCaseError> {
    let defaults = Defaults::default();
    told(file, &from_toml("file", file, &defaults))?;
    told(file, &from_script("file", file, &defaults))?;
    told(file, &crewfile::parse("file", file))?;
    told(file, &envfile::parse("file", file))
}

const LINES: [&str; 22] = [
    "# /// agent",
    "# ///",
    "// /// agent",
    "// ///",
    "# about = \"x\"",
    "// restart = 3",
    "[env]",
    "[defaults]",
    "[host]",
    "timeout = \"5m\"",
    "handles = [\"a\", 3, \"b.c\"]",
    "tasks_at_once = 0",
    "path = \"\"",
    "colour = 1",
    "A=b",
    "export B='c",
    "d' # e",
    "2x=\"\\\"\"",
    "env = { A = 1, B = \"\\u0000\" }",
    "max_rss = \"1.5Q\"",
    "\"a\\u001bb\" = 1",
    "x = \"\"\"",
];

/// A file that is nearly right, with something odd in it.
fn file() -> impl Strategy<Value = Vec<u8>> {
    let line =
        prop_oneof![6 => select(LINES.as_slice()).prop_map(|line| line.as_bytes().to_vec()), 1 => bytes(4)];
    let end = select(vec!["\n", "\r\n", "\n", "\r", "\0"]);
    vec((line, end), 0..12)
        .prop_map(|lines| lines.into_iter().flat_map(|(line, end)| [line, end.into()].concat()).collect())
}

/// A text as TOML writes it: as JSON does, but for one character more that must not stand as it is.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

fn variable() -> impl Strategy<Value = String> {
    "[A-Z_a-z][A-Za-z0-9_]{0,12}".prop_filter("nightcrew's own", |name| !name.starts_with("NIGHTCREW_"))
}

fn plain() -> impl Strategy<Value = String> {
    text().prop_map(|text| text.replace('\0', ""))
}

proptest! {
    #[test]
    fn all_that_is_wrong_is_told_by_line(file in file()) {
        all_told(&file)?;
    }

    #[test]
    fn whatever_is_in_a_file_it_is_read_or_refused(file in bytes(12)) {
        all_told(&file)?;
        all_told(&[b"# /// agent\n# ", &file[..], b"\n# ///\n"].concat())?;
        all_told(&[&b"about = \""[..], &file, b"\"\n"].concat())?;
        all_told(&[&b"[env]\n"[..], &file, b" = 1\n"].concat())?;
    }

    #[test]
    fn a_service_that_is_declared_is_read_as_it_was_meant(
        args in vec(plain(), 0..4), env in btree_map(variable(), plain(), 0..4), workdir in option::of(plain()),
        restart in select(vec![Restart::OnFailure, Restart::Always, Restart::Never]),
        heartbeat in option::of(1u64..1_000_000), stop_grace in 1u64..100_000, max_rss in option::of(1u64..1 << 40),
        enabled in any::<bool>(), defaults in btree_map(variable(), plain(), 0..3),
    ) {
        prop_assume!(workdir.as_deref() != Some(""));
        let mut lines = vec![format!("enabled = {enabled}"), format!("restart = \"{}\"", restart.as_str())];
        lines.push(format!("stop_grace = \"{stop_grace}ms\""));
        lines.push(format!("args = [{}]", args.iter().map(|arg| quoted(arg)).collect::<Vec<_>>().join(", ")));
        lines.extend(workdir.iter().map(|path| format!("workdir = {}", quoted(path))));
        lines.extend(heartbeat.map(|ms| format!("heartbeat = \"{ms}ms\"")));
        lines.extend(max_rss.map(|kib| format!("max_rss = \"{kib}K\"")));
        lines.push("[env]".into());
        lines.extend(env.iter().map(|(name, value)| format!("{name} = {}", quoted(value))));
        let defaults = Defaults { env: defaults, ..Defaults::default() };
        let manifest = from_toml("file", lines.join("\n"), &defaults).expect("a manifest");
        prop_assert_eq!((manifest.enabled, manifest.restart, manifest.stop_grace_ms), (enabled, restart, stop_grace));
        prop_assert_eq!((manifest.args, manifest.workdir), (args, workdir));
        prop_assert_eq!(manifest.heartbeat, heartbeat.map_or(Heartbeat::Default, Heartbeat::Every));
        prop_assert_eq!(manifest.max_rss_bytes, max_rss.map(|kib| kib * 1024));
        let mut all = defaults.env.clone();
        all.extend(env);
        prop_assert_eq!(manifest.env, all);
    }

    #[test]
    fn a_handler_that_is_declared_in_its_script_is_read_as_it_was_meant(
        kinds in prop::collection::btree_set(name(), 1..6), concurrency in 1u32..=256, about in "[ -~äö]{0,100}", blank in " {0,3}\r?",
    ) {
        let kinds: Vec<_> = kinds.into_iter().collect();
        let handles = kinds.iter().map(|kind| format!("\"{kind}\"")).collect::<Vec<_>>().join(", ");
        let script = format!(
            "#!/bin/sh\n# /// agent{blank}\n# about = {}\n# handles = [{handles}]\n#\n# concurrency = {concurrency}{blank}\n# ///\n",
            quoted(&about),
        );
        let manifest = from_script("file", script.as_bytes(), &Defaults::default()).expect("a manifest");
        prop_assert_eq!((manifest.handles, manifest.concurrency, manifest.about), (kinds, concurrency, about));
    }

    #[test]
    fn the_crew_is_declared_as_it_is_meant(path in plain(), tasks in 1u32..=4096, env in btree_map(variable(), plain(), 0..4)) {
        prop_assume!(!path.is_empty());
        let env_lines = env.iter().map(|(name, value)| format!("{name} = {}\n", quoted(value)));
        let env_lines = env_lines.collect::<Vec<_>>().concat();
        let text = format!("path = {}\n[defaults.env]\n{env_lines}[host]\ntasks_at_once = {tasks}\n", quoted(&path));
        let crew = crewfile::parse("file", text).expect("a crew");
        prop_assert_eq!((crew.path, crew.host.tasks_at_once, crew.defaults.env), (Some(path), Some(tasks), env));
    }

    #[test]
    fn variables_are_read_as_they_were_written(
        variables in btree_map(variable(), plain(), 0..8), export in any::<bool>(), end in select(vec!["\n", "\r\n", " # comment\n"]),
    ) {
        let export = if export { "export " } else { "" };
        let line = |(name, value): (&String, &String)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$").replace('`', "\\`");
            format!("{export}{name}=\"{value}\"{end}")
        };
        let text: String = variables.iter().map(line).collect();
        prop_assert_eq!(envfile::parse("file", text), Ok(variables));
    }

    /// Its values are secrets, and what is wrong with it ends up in logs.
    #[test]
    fn no_error_quotes_a_file_of_variables(file in file(), secret in "Zq[0-9]{12}") {
        let with_secret = String::from_utf8_lossy(&file).replace(['b', 'x', '='], &secret);
        for text in [with_secret.clone(), format!("{with_secret}=\"{secret}"), format!("A={secret}\n{with_secret}")] {
            for error in envfile::parse("file", text).err().into_iter().flatten() {
                prop_assert!(!error.to_string().contains(&secret), "{}", error);
            }
        }
    }
}

/// How long this thread was at work so far: what else a machine does is not in it.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("less than a second"))
}

/// Nobody waits for a file that was made to be slow, nor does its size decide how much is told of it.
#[test]
fn files_at_their_caps_are_read_or_refused() {
    for piece in ["a=1\n", "[a]\n", "a.", "[", "{a=", "\"", "'''\n", "éé=1\n", "[[a]]\n"] {
        let declared = piece.repeat(DECLARATION_LEN_MAX / piece.len());
        assert!(from_toml("file", &declared, &Defaults::default()).is_err(), "{piece}");
        assert!(crewfile::parse("file", &declared).is_err(), "{piece}");
        assert!(from_script("file", declared.as_bytes(), &Defaults::default()).is_ok(), "{piece}");
        let variables = envfile::parse("file", piece.repeat(ENV_FILE_LEN_MAX / piece.len()));
        assert_eq!(variables.is_ok(), piece == "a=1\n", "{piece}");
    }
    // Each of them is unknown, and all are long enough to take their time to be held against those that there are:
    // they must not take much longer than as many that are too many to be looked at.
    let keys = (0..1100).map(|n| format!("k{n:052}=1\n")).collect::<Vec<_>>().concat();
    let refused = |text: &str| {
        let begun = worked();
        let errors = from_toml("file", text, &Defaults::default()).expect_err("it is wrong");
        (errors.len(), worked().saturating_sub(begun))
    };
    let (told, many) = refused(&format!("[env]\n{keys}"));
    assert_eq!(told, 1);
    let (told, unknown) = refused(&keys);
    assert_eq!(told, ERRORS_MAX);
    assert!(unknown < 30 * many, "{unknown:?} to refuse unknown keys, {many:?} to refuse as many");
    for (len, refused) in [(DECLARATION_LEN_MAX, false), (DECLARATION_LEN_MAX + 1, true)] {
        let blank = "\n".repeat(len);
        assert_eq!(from_toml("file", &blank, &Defaults::default()).is_err(), refused);
        assert_eq!(crewfile::parse("file", &blank).is_err(), refused);
    }
}
