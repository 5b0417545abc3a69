//! The command line as a whole.

use crate::protocol::variables::{ENV_AGENT, ENV_DIR, ENV_NONCE, ENV_RUN, ENV_TASK, ENV_TOKEN};
use std::collections::BTreeSet;

use crate::app::client::Caller;

use super::*;

#[test]
fn clap_finds_no_contradiction() {
    command().debug_assert();
}

#[test]
fn every_verb_stands_in_one_group_of_the_help_with_its_about_and_examples() {
    let command = command();
    let listed: Vec<&str> = GROUPS.iter().flat_map(|(_, verbs)| verbs.iter().copied()).collect();
    let known: BTreeSet<&str> =
        command.get_subcommands().filter(|verb| !verb.is_hide_set()).map(clap::Command::get_name).collect();
    assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), known);
    assert_eq!(listed.len(), known.len(), "a verb is listed twice");

    let help = command.clone().render_help().to_string();
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        assert!(
            help.contains(&format!("\n  {} ", verb.get_name())),
            "{} is missing:\n{help}",
            verb.get_name()
        );
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(!about.is_empty() && help.contains(&about), "{}", verb.get_name());
        let examples = verb.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        assert!(examples.contains(&format!("nightcrew {}", verb.get_name())), "{}", verb.get_name());
    }
}

#[test]
fn the_long_help_tells_the_exit_codes() {
    let help = command().render_long_help().to_string();
    assert!(help.contains("66  nothing there"), "{help}");
}

#[test]
fn a_verb_without_a_crew_says_what_to_do() {
    let nowhere = tempfile::tempdir().unwrap();
    let context = Context::new(None, Environment::of(nowhere.path(), &[]));
    let error = context.layout().unwrap_err();
    assert_eq!(error.exit().code(), 69);
    assert!(error.to_string().contains("\nhint: `nightcrew init DIR`"), "{error}");
}

#[test]
fn the_crew_is_named_before_the_verb() {
    let parse = |line: &[&str]| command().try_get_matches_from(line).map(|_| ());
    assert!(parse(&["nightcrew", "--crew", "x", "completions", "bash"]).is_ok());
    assert!(parse(&["nightcrew", "completions", "bash", "--crew", "x"]).is_err());
}

/// Two crews side by side; the environment is that of a handler of the first.
fn handler_environment(dir: &std::path::Path) -> Environment {
    for crew in ["one", "two"] {
        std::fs::DirBuilder::new().recursive(true).create(dir.join(crew).join("agents")).unwrap();
    }
    let variables = [
        (ENV_DIR, "one"),
        (ENV_AGENT, "writer"),
        (ENV_RUN, "R1"),
        (ENV_TASK, "t1"),
        (ENV_TOKEN, "7"),
        (ENV_NONCE, "n1"),
    ];
    Environment::of(dir, &variables)
}

#[test]
fn a_process_of_a_run_speaks_for_it_in_its_own_crew_only() {
    let dir = tempfile::tempdir().unwrap();
    let environment = handler_environment(dir.path());
    let at_home = Context::new(None, environment.clone());
    let caller = at_home.client().unwrap().caller().clone();
    assert_eq!(caller.name(), "writer");
    let given = at_home.given(&caller).unwrap();
    assert_eq!((given.task.as_str(), given.token, given.nonce.as_str()), ("t1", 7, "n1"));

    let abroad = Context::new(Some("two".into()), environment);
    let caller = abroad.client().unwrap().caller().clone();
    assert_eq!(caller, Caller::Operator);
    assert_eq!(abroad.given(&caller), None);
}

#[test]
fn agents_are_named_or_all_are_meant_but_not_both() {
    let parses = |line: &str| command().try_get_matches_from(line.split(' ')).is_ok();
    for verb in ["stop", "start", "restart"] {
        assert!(parses(&format!("nightcrew {verb} a b")));
        assert!(parses(&format!("nightcrew {verb} --all")));
        assert!(!parses(&format!("nightcrew {verb}")));
        assert!(!parses(&format!("nightcrew {verb} a --all")));
        assert!(!parses(&format!("nightcrew {verb} ../a")));
    }
    assert!(parses("nightcrew submit k --key x"));
    assert!(!parses("nightcrew submit k --key x --new"));
    assert!(parses("nightcrew submit k --needs a,b --needs c --on-dead run --priority -3 --delay 10m"));
    assert!(parses("nightcrew submit - --group g --expires 2h --not-before 2026-11-20T03:00:00Z"));
    assert!(!parses("nightcrew submit k --on-dead run"));
    assert!(!parses("nightcrew submit k --priority 128"));
    assert!(!parses("nightcrew submit k --delay 1m --not-before 2026-11-20T03:00:00Z"));
    assert!(parses("nightcrew tasks --state bound --kind k --agent a --group g"));
    assert!(parses("nightcrew tasks show a --json"));
    assert!(!parses("nightcrew tasks --state dead show a"));
    assert!(parses("nightcrew dead replay --where error~x --kind k --edit"));
    assert!(!parses("nightcrew dead list --where colour=red"));
    assert!(!parses("nightcrew cancel"));
    assert!(parses("nightcrew cancel a b --group g --why x"));
    assert!(!parses("nightcrew review approve"));
    assert!(!parses("nightcrew beat --busy-for 20"));
    assert!(!parses("nightcrew tasks --state lost"));
    assert!(parses("nightcrew fail --retry-after 7d no"));
    assert!(!parses("nightcrew fail --retry-after 8d no"));
    assert!(!parses("nightcrew fail --retry-after 1s --permanent no"));
}
