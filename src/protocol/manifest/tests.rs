use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Manifest {
    from_toml("agents/a.toml", text, &Defaults::default()).unwrap()
}

fn errors(text: &str) -> Vec<String> {
    let errors = from_toml("agents/a.toml", text, &Defaults::default()).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

/// The one error that this text has, without the file's name.
fn error(text: &str) -> String {
    let errors = errors(text);
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].strip_prefix("agents/a.toml:").unwrap().to_owned()
}

#[test]
fn without_a_word_an_agent_is_a_service_with_the_defaults() {
    let manifest = from_script("agents/a.sh", b"#!/bin/sh\n", &Defaults::default()).unwrap();
    assert_eq!(manifest, Manifest::default());
    assert_eq!(manifest, read(""));
    assert!(manifest.enabled && !manifest.is_handler());
    assert_eq!((manifest.concurrency, manifest.restart), (1, Restart::OnFailure));
    assert_eq!((manifest.timeout_ms, manifest.stop_grace_ms), (1_800_000, 10_000));
    assert_eq!((manifest.stop_signal, manifest.max_rss_bytes), (15, None));
    assert_eq!((manifest.interval_ms(), manifest.grace_ms()), (Some(300_000), 300_000));
}

#[test]
fn a_service_may_say_all_this() {
    let manifest = read(
        "about = \"Watches\"\nenabled = false\nrestart = \"always\"\ncommand = [\"node\", \"x.js\"]\n\
         workdir = \"apps/x\"\nenv_file = \"apps/x/.env\"\nreload_on = [\"apps/x/**/*.js\", \"a{b,c}\"]\n\
         heartbeat = \"30s\"\nisolation_grace = \"1m\"\nstop_grace = \"2s\"\nstop_signal = \"SIGINT\"\n\
         max_rss = \"1.5G\"\npass_env = [\"KEY\"]\nargs = [\"-v\", \"\"]\n[env]\nA = \"b\"\n_1 = \"\"\n",
    );
    assert_eq!(manifest.about, "Watches");
    assert!(!manifest.enabled);
    assert_eq!(manifest.restart, Restart::Always);
    assert_eq!(manifest.command.as_deref(), Some(["node".to_owned(), "x.js".to_owned()].as_slice()));
    assert_eq!(manifest.workdir.as_deref(), Some("apps/x"));
    assert_eq!(manifest.env_file.as_deref(), Some("apps/x/.env"));
    assert_eq!(manifest.reload_on, ["apps/x/**/*.js", "a{b,c}"]);
    assert_eq!(manifest.heartbeat, Heartbeat::Every(30_000));
    assert_eq!((manifest.interval_ms(), manifest.grace_ms()), (Some(30_000), 60_000));
    assert_eq!((manifest.stop_grace_ms, manifest.stop_signal), (2000, 2));
    assert_eq!(manifest.max_rss_bytes, Some(3 << 29));
    assert_eq!(
        (manifest.pass_env.as_slice(), manifest.args.as_slice()),
        (["KEY".into()].as_slice(), ["-v".into(), String::new()].as_slice())
    );
    assert_eq!((manifest.env["A"].as_str(), manifest.env["_1"].as_str()), ("b", ""));
}

#[test]
fn a_handler_may_say_all_this_in_its_script() {
    let script =
        b"#!/usr/bin/env python3\n# /// agent\n# handles = [\n#   \"generate\",\n#   \"edit\",\n# ]\n\
        # concurrency = 256\n# timeout = \"10m\"\n# ///\nimport sys\n";
    let manifest = from_script("agents/a.py", script, &Defaults::default()).unwrap();
    assert!(manifest.is_handler());
    assert_eq!(manifest.handles.iter().map(Kind::as_str).collect::<Vec<_>>(), ["generate", "edit"]);
    assert_eq!((manifest.concurrency, manifest.timeout_ms), (256, 600_000));
}

#[test]
fn silence_and_heartbeat_are_one_question() {
    let quiet = read("silence = \"15m\"\n");
    assert_eq!((quiet.interval_ms(), quiet.grace_ms()), (Some(900_000), 900_000));
    assert_eq!(read("silence = \"15m\"\nheartbeat = \"off\"\n").interval_ms(), Some(900_000));
    assert_eq!(read("heartbeat = \"off\"\n").interval_ms(), None);
    assert!(error("heartbeat = \"1m\"\nsilence = \"15m\"\n").starts_with("2: silence: `heartbeat` sets"));
    assert!(error("heartbeat = \"off\"\nisolation_grace = \"1m\"\n").starts_with("2: isolation_grace: with"));
}

#[test]
fn an_unknown_key_is_told_the_nearest_one_by_the_line_of_the_script() {
    let script = b"#!/usr/bin/env python3\n# /// agent\n# max_rs = \"300M\"\n# ///\n";
    let found = from_script("agents/writer.py", script, &Defaults::default()).unwrap_err();
    assert_eq!(found[0].to_string(), "agents/writer.py:3: unknown key \"max_rs\"; did you mean \"max_rss\"?");
    assert_eq!(found[0].key.as_deref(), Some("max_rs"));
    assert_eq!(found.len(), 1);
    assert_eq!(
        error("\nsandbx = 1"),
        "2: unknown key \"sandbx\"; did you mean \"sandbox\"? it is not in this version"
    );
    assert!(error("favourite_colour = 1").contains("the keys here are restart, env_file, "));
}

#[test]
fn every_key_of_a_later_version_is_refused_as_such() {
    for key in RESERVED {
        let expected =
            format!("1: \"{key}\" is not in this version; remove it: nothing here would act on it");
        for text in [format!("{key} = \"5m\""), format!("[{key}]\nx = 1")] {
            let found = from_toml("a.toml", text, &Defaults::default()).unwrap_err();
            assert_eq!(found[0].to_string(), format!("a.toml:{expected}"));
        }
    }
}

#[test]
fn a_wrong_value_is_told_what_a_right_one_is() {
    for (text, expected) in [
        (
            "timeout = \"5x\"",
            "1: timeout: \"5x\" is not a length of time; write it like \"90s\", \"5m\", \"1h30m\" or \"2d\"",
        ),
        (
            "timeout = 5",
            "1: timeout: expected a length of time, found a number; write it like \"90s\", \"5m\" or \"1h30m\"",
        ),
        ("timeout = \"0s\"", "1: timeout: \"0s\" is no time at all; use at least \"1ms\""),
        ("concurrency = 0", "1: concurrency: \"0\" is out of range; use 1 to 256"),
        ("concurrency = 257", "1: concurrency: \"257\" is out of range; use 1 to 256"),
        ("concurrency = -1", "1: concurrency: \"-1\" is out of range; use 1 to 256"),
        ("concurrency = \"2\"", "1: concurrency: expected a number, found text; write it like 4"),
        (
            "max_rss = \"300\"",
            "1: max_rss: \"300\" has no unit; write it like \"300M\" or \"1.5G\" (powers of 1024)",
        ),
        ("enabled = \"no\"", "1: enabled: expected true or false, found text; write it like true"),
        (
            "about = \"a\\nb\"",
            "1: about: is not one line of text; use at most 200 characters, and none that controls a terminal",
        ),
        (
            "stop_signal = \"KILL\"",
            "1: stop_signal: \"KILL\" is not a signal to stop by; use \"TERM\", \"INT\", \"QUIT\", \"HUP\", \"USR1\" or \"USR2\"",
        ),
        (
            "workdir = \"\"",
            "1: workdir: is empty; name a path relative to the crew's directory, or remove the key",
        ),
        ("args = [\"a\", 1]", "1: args: expected text, found a number; write it like [\"--fast\", \"x\"]"),
        ("args = [\"a\\u0000\"]", "1: args: holds a NUL character; remove it"),
        ("command = []", "1: command: names no program; write it like [\"node\", \"index.js\"]"),
        (
            "pass_env = [\"1A\"]",
            "1: pass_env: \"1A\" cannot name a variable; use up to 128 letters, digits and _, and no digit first",
        ),
        (
            "env = { NIGHTCREW_RUN = \"x\" }",
            "1: env: \"NIGHTCREW_RUN\" is nightcrew's own to set; choose a name that does not begin with NIGHTCREW_",
        ),
        (
            "env.PORT = 80",
            "1: env: PORT: expected text, found a number; write it like PORT = \"5\", in quotes",
        ),
        (
            "reload_on = [\"../x\"]",
            "1: reload_on: \"../x\" does not stay below the crew's directory in plain segments; write it like [\"lib/**/*.py\"], relative to the crew",
        ),
    ] {
        let text = if text.starts_with("timeout") || text.starts_with("conc") {
            format!("{text}\nhandles = [\"x\"]")
        } else {
            text.into()
        };
        assert_eq!(error(&text), expected, "{text}");
    }
    for bad in ["/etc/*", "", "a//b", "./a", "a/", "[", "{a", &"a".repeat(300)] {
        assert!(error(&format!("reload_on = [{bad:?}]")).starts_with("1: reload_on: "), "{bad}");
    }
    for bad in ["[\"x\", \"x\"]", "[]", "[\"a b\"]", "\"generate\""] {
        assert!(error(&format!("handles = {bad}")).starts_with("1: handles: "), "{bad}");
    }
    assert!(error("restart = \"sometimes\"").contains("use \"on-failure\", \"always\" or \"never\""));
}

#[test]
fn a_key_that_would_do_nothing_is_refused() {
    for key in ["timeout = \"5m\"", "concurrency = 2"] {
        assert!(error(key).contains("only for agents with `handles`"), "{key}");
    }
    for key in ["restart = \"never\"", "heartbeat = \"5m\"", "silence = \"5m\"", "isolation_grace = \"5m\""] {
        assert!(error(&format!("handles = [\"x\"]\n{key}")).starts_with("2: "), "{key}");
    }
    let script = b"# /// agent\n# command = [\"x\"]\n# ///\n";
    let found = from_script("a.sh", script, &Defaults::default()).unwrap_err();
    assert_eq!(
        found[0].to_string(),
        "a.sh:2: command: a script is its own command; use `args`, or move it to NAME.toml and the script out of agents/"
    );
}

#[test]
fn all_that_is_wrong_is_told_by_line_but_not_without_end() {
    let all = errors(
        "timeot = \"5m\"\nstop_grace = \"x\"\nargs = [\n  1,\n  \"a\",\n  2,\n]\nbudget = 3\n[env]\nA = 1\n\"b c\" = \"x\"\n",
    );
    let lines: Vec<_> = all.iter().filter_map(|error| error.split(':').nth(1)).collect();
    assert_eq!(lines, ["1", "2", "4", "6", "8", "10", "11"]);
    let many: Vec<_> = (0..100).map(|n| format!("unknown{n} = 1")).collect();
    assert_eq!(errors(&many.join("\n")).len(), ERRORS_MAX);
}

#[test]
fn broken_toml_is_told_by_line_and_alone() {
    for (text, line) in [
        ("a = 1\nabout = \"x\nb = 2\n", "2"),
        ("\n\ntimeout = 5m\n", "3"),
        ("enabled = true\nenabled = true\n", "2"),
        ("[env\nA = 1\n", "1"),
        ("about\n", "1"),
    ] {
        let all = errors(text);
        assert!(all.iter().all(|error| error.contains(": not TOML: ")), "{all:?}");
        assert!(all[0].starts_with(&format!("agents/a.toml:{line}: ")), "{all:?}");
    }
    let script = b"#!/bin/sh\n\n; /// agent\n; about = 'x'\n; enabled = yes\n; ///\n";
    let found = from_script("a.sh", script, &Defaults::default()).unwrap_err();
    assert_eq!(found[0].line, 5);
    let half = from_script("a.sh", b"\n# /// agent\n", &Defaults::default()).unwrap_err();
    assert_eq!(
        half[0].to_string(),
        "a.sh:2: the manifest that begins here has no end; add the line `# ///` below its last key"
    );
}

#[test]
fn what_is_no_text_or_has_no_bounds_is_refused() {
    let defaults = Defaults::default();
    let latin = from_toml("a.toml", b"about = 1\n# \xe4\n", &defaults).unwrap_err();
    assert_eq!(latin[0].to_string(), "a.toml:2: not UTF-8; save the file as UTF-8");
    let huge = from_toml("a.toml", vec![b'\n'; DECLARATION_LEN_MAX + 1], &defaults).unwrap_err();
    assert!(huge[0].message.contains("too many"));
    for deep in [
        format!("about = {}", "[".repeat(60_000)),
        format!("{} = 1", "a.".repeat(30_000) + "a"),
        format!("[{}]", "a.".repeat(30_000) + "a"),
        format!("args = {}{}", "[".repeat(30_000), "]".repeat(30_000)),
        "a={".repeat(20_000),
        format!("reload_on = [\"{}\"]", "{".repeat(255)),
    ] {
        assert!(from_toml("a.toml", deep, &defaults).is_err());
    }
    let long = error(&format!("stop_grace = \"{}\"", "x".repeat(60_000)));
    assert!(long.len() < 300, "{long}");
    for long in [format!("{} = 1", "x".repeat(60_000)), format!("env.{} = 1", "x".repeat(60_000))] {
        let found = from_toml("a.toml", long, &defaults).unwrap_err();
        assert!(format!("{found:?}").len() < 700, "{found:?}");
    }
}

/// A value of any type, right for some keys.
const VALUES: [&str; 16] = [
    "\"5m\"",
    "\"off\"",
    "\"\"",
    "\"never\"",
    "\"TERM\"",
    "\"1.5G\"",
    "true",
    "0",
    "3",
    "-1.5",
    "[]",
    "[\"a\", \"b/*\"]",
    "[[1]]",
    "{ A = \"b\" }",
    "1979-05-27",
    "\"\"\"\nx\"\"\"",
];

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = from_toml("f", &bytes, &Defaults::default());
        let _ = from_script("f", &bytes, &Defaults::default());
        let mut block = b"# /// agent\n# ".to_vec();
        block.extend(bytes);
        let _ = from_script("f", &block, &Defaults::default());
    }

    #[test]
    fn no_lines_of_a_block_make_it_panic(
        lines in prop::collection::vec("(#|//|--|;)? ?(///)? ?(agent|about = 'x')?\r?", 0..8),
    ) {
        let _ = from_script("f", lines.join("\n").as_bytes(), &Defaults::default());
    }

    #[test]
    fn any_keys_and_values_are_read_alike_from_a_script_and_from_a_file(
        pairs in prop::collection::vec((0..COMMON.len() + OWN.len(), 0..VALUES.len()), 0..8),
    ) {
        let keys = [COMMON.as_slice(), OWN.as_slice()].concat();
        let lines: Vec<_> = pairs.iter().map(|(key, value)| format!("{} = {}", keys[*key], VALUES[*value])).collect();
        let text = lines.join("\n");
        prop_assume!(!text.contains("command"));
        let commented: Vec<_> = text.split('\n').map(|line| format!("// {line}")).collect();
        let script = format!("\n\n// /// agent\n{}\n// ///\n", commented.join("\n"));
        let of_file = from_toml("f", &text, &Defaults::default());
        let of_script = from_script("f", script.as_bytes(), &Defaults::default());
        let shifted = of_file.map_err(|mut errors| {
            for error in &mut errors {
                error.line += 3;
            }
            errors
        });
        prop_assert_eq!(of_script, shifted);
    }
}
