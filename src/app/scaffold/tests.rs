//! What is made is what the catalogue accepts.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::app::survey::{self, Survey};
use crate::edge::environment::Environment;

fn made() -> (tempfile::TempDir, Survey) {
    let dir = tempfile::tempdir().unwrap();
    let crew = dir.path().join("crew");
    let layout = Layout::new(&crew);
    let store = survey::found(&crew).unwrap();
    init(&store, &layout, "/usr/local/bin:/usr/bin:/bin:/odd \"\\", 1).unwrap();
    let survey = Survey::new(layout, &Environment::of(&crew, &[])).unwrap();
    (dir, survey)
}

#[test]
fn a_new_crew_and_its_new_agents_are_accepted() {
    let (_dir, survey) = made();
    let kind: Kind = "texts".parse().unwrap();
    let mut names = vec!["hello".to_owned()];
    for (language, ext) in [(Language::Sh, "sh"), (Language::Python, "py"), (Language::Node, "mjs")] {
        for (purpose, what) in [(Purpose::Service, "service"), (Purpose::Handler(kind.clone()), "handler")] {
            let name: AgentName = format!("{what}-{ext}").parse().unwrap();
            let path = agent(&survey.store, &survey.layout, &name, &purpose, language, 1).unwrap();
            assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o755);
            let picture = survey.agent(&name).unwrap();
            if let Some(refusal) = picture.refusals.first() {
                // The one thing that a template cannot bring along.
                assert!(refusal.reason.contains("is not on the PATH"), "{refusal:?}");
                println!("skipped: {}", refusal.reason);
                continue;
            }
            assert_eq!(picture.offer.unwrap().manifest.is_handler(), what == "handler");
            names.push(name.to_string());
        }
    }
    names.sort_unstable();
    let roster = survey.roster().unwrap();
    let offered: Vec<String> = roster.offers.iter().map(|offer| offer.agent.to_string()).collect();
    assert_eq!(offered, names);
    assert!(roster.offers.iter().all(|offer| offer.warnings.is_empty()));
    assert!(names.contains(&"handler-sh".to_owned()));
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    let (_dir, survey) = made();
    let again = init(&survey.store, &survey.layout, "/bin", 1);
    assert!(matches!(again, Err(ScaffoldError::Exists(_))), "{again:?}");
    let name: AgentName = "hello".parse().unwrap();
    let other = agent(&survey.store, &survey.layout, &name, &Purpose::Service, Language::Python, 1);
    assert!(matches!(other, Err(ScaffoldError::Exists(_))), "another ending is the same name: {other:?}");
    let left = survey.store.list(&survey.layout.tmp_of_operator(), 10).unwrap();
    assert!(left.is_empty(), "{left:?}");
}
