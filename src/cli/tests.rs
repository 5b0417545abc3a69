//! The command line as a whole.

use std::collections::BTreeSet;

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
