//! Jobs: agents whose processes are started by the clock.

use std::fs;

use nightcrew::protocol::layout::Shelf;
use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::schedule::SlotId;
use nix::sys::signal::Signal;

use crate::crew::{Crew, name, text_of};
use crate::survives::ended;

/// A job that writes down what it was fired for, and then does as `script` says.
fn job(triggers: &str, script: &str) -> String {
    format!(
        "#!/bin/sh\n# /// agent\n{triggers}\n# ///\necho \"$NIGHTCREW_SLOT $(cat)\" >>\"$NIGHTCREW_SCRATCH/told\"\n{script}\n"
    )
}

fn told(crew: &Crew, agent: &str) -> Vec<String> {
    text_of(&crew.scratch(agent, "told")).lines().map(str::to_owned).collect()
}

#[test]
fn a_job_is_fired_once_for_each_slot_and_told_which() {
    let mut crew = Crew::new();
    crew.agent("tick.sh", &job("# every = \"1s\"\n# overlap = \"queue\"", ""));
    crew.start();
    crew.eventually("three slots", || told(&crew, "tick").len() >= 3);
    let status = crew.ok(&["status"]);
    crew.ends_well();
    assert!(status.lines().any(|line| line.starts_with("tick")), "{status}");
    let lines = told(&crew, "tick");
    let mut slots: Vec<&str> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    for line in &lines {
        let (slot, payload) = line.split_once(' ').unwrap();
        assert!(slot.starts_with("tick@"), "{line}");
        assert_eq!(payload, format!("{{\"slot\":\"{slot}\"}}"));
    }
    slots.dedup();
    assert_eq!(slots.len(), lines.len(), "each comes once: {lines:?}");
    let submitted = crew.count(|fact| matches!(fact, Fact::Submitted { by, .. } if by == "schedule"));
    assert!(submitted >= lines.len(), "{submitted} were fired, {} ran", lines.len());
}

#[test]
fn a_slot_that_began_is_not_fired_again_by_the_next_supervisor() {
    let mut crew = Crew::new();
    crew.agent("slow.sh", &job("# every = \"1s\"\n# overlap = \"skip\"", "exec sleep 1000"));
    crew.start();
    crew.eventually("it runs", || told(&crew, "slow").len() == 1);
    let first = told(&crew, "slow")[0].split(' ').next().unwrap().to_owned();
    let task = first.parse::<SlotId>().unwrap().task();
    crew.signal_supervisor(Signal::SIGKILL);
    crew.supervisors_end();
    crew.start();
    crew.eventually("it is known to be cut short", || ended(&crew, Shelf::Dead, &task).is_some());
    crew.eventually("another one runs", || told(&crew, "slow").len() >= 2);
    assert!(!told(&crew, "slow")[1].starts_with(&first), "{:?}", told(&crew, "slow"));
    let dead = ended(&crew, Shelf::Dead, &task).unwrap();
    assert!(dead.reason.is_some_and(|why| why.starts_with("it was cut short")));
    crew.ends_well();
}

#[test]
fn what_a_schedule_decided_is_kept_and_a_stopped_job_says_why_it_does_not_run() {
    let mut crew = Crew::new();
    crew.agent("tick.sh", &job("# every = \"1s\"", ""));
    crew.start();
    let record = crew.layout.trigger(&name("tick"));
    crew.eventually("it is decided about", || text_of(&record).contains("\"decided\""));
    crew.ok(&["stop", "tick"]);
    crew.fact("it is skipped", |fact| match fact {
        Fact::SlotSkipped { why, .. } if why.starts_with("stopped") => Some(()),
        _ => None,
    });
    let now = crew.ok(&["start", "tick", "--now", "{\"by\":\"hand\"}"]);
    assert!(now.contains("fired as task"), "{now}");
    crew.ok(&["start", "tick"]);
    crew.eventually("it ran by hand", || {
        told(&crew, "tick").iter().any(|line| line.ends_with("{\"by\":\"hand\"}"))
    });
    crew.ends_well();
}

/// Moves a whole file to where a job watches.
fn drop_file(crew: &Crew, name: &str, text: &str) {
    let temp = crew.path(&format!(".{name}"));
    fs::write(&temp, text).expect("a file");
    fs::rename(&temp, crew.path("inbox").join(name)).expect("a name");
}

#[test]
fn a_job_is_given_what_changed_until_a_run_of_it_ends_well() {
    let mut crew = Crew::new();
    fs::create_dir(crew.path("inbox")).unwrap();
    drop_file(&crew, "old.md", "1");
    let script = "printf '%s' \"$NIGHTCREW_CHANGED\" >>\"$NIGHTCREW_SCRATCH/changed\"\n[ -e \"$NIGHTCREW_SCRATCH/well\" ] || exit 1";
    crew.agent("sort.sh", &job("# watch = [\"inbox/*.md\"]", script));
    crew.start();
    crew.eventually("what failed is given again", || told(&crew, "sort").len() >= 2);
    let lines = told(&crew, "sort");
    assert!(lines.iter().all(|line| line.contains("\"inbox/old.md\",\"change\":\"created\"")), "{lines:?}");
    fs::write(crew.scratch("sort", "well"), "").unwrap();
    let handled = crew.layout.handled_files(&name("sort"));
    crew.eventually("it is handled", || text_of(&handled).contains("inbox/old.md"));
    let before = told(&crew, "sort").len();
    // A supervisor that starts finds nothing new, and what came while none was there.
    crew.ends_well();
    drop_file(&crew, "new.md", "1");
    drop_file(&crew, "other.txt", "1");
    fs::remove_file(crew.path("inbox/old.md")).unwrap();
    crew.start();
    crew.eventually("the rest is handled", || {
        let handled = text_of(&handled);
        handled.contains("inbox/new.md") && !handled.contains("inbox/old.md")
    });
    let lines = told(&crew, "sort").split_off(before);
    let [line] = &lines[..] else { panic!("one run: {lines:?}") };
    assert!(
        line.contains("\"inbox/new.md\",\"change\":\"created\"") && !line.contains("other.txt"),
        "{line}"
    );
    assert!(line.contains("\"inbox/old.md\",\"change\":\"removed\""), "{line}");
    drop_file(&crew, "new.md", "22");
    crew.eventually("it is told of", || {
        told(&crew, "sort").iter().any(|line| line.contains("\"inbox/new.md\",\"change\":\"changed\""))
    });
    let changed = text_of(&crew.scratch("sort", "changed"));
    assert!(changed.lines().any(|line| line == "inbox/new.md"), "{changed}");
    crew.ends_well();
}

#[test]
fn the_same_change_twice_is_two_firings_and_a_restart_is_none() {
    let mut crew = Crew::new();
    fs::create_dir(crew.path("inbox")).unwrap();
    crew.agent("sort.sh", &job("# watch = [\"inbox/*.md\"]\n# debounce = \"100ms\"", ""));
    let checked = crew.ok(&["check"]);
    assert!(checked.contains("changes of inbox/*.md"), "{checked}");
    crew.start();
    // Perhaps before the directory is watched.
    drop_file(&crew, "a.md", "1");
    crew.eventually("it is told of", || told(&crew, "sort").len() == 1);
    // What comes back is what it was: size, time, mode and owner.
    fs::rename(crew.path("inbox/a.md"), crew.path("a.md")).unwrap();
    crew.eventually("that it is gone too", || told(&crew, "sort").len() == 2);
    fs::rename(crew.path("a.md"), crew.path("inbox/a.md")).unwrap();
    crew.eventually("and that it is back", || told(&crew, "sort").len() == 3);
    let lines = told(&crew, "sort");
    assert_eq!(lines[0], lines[2]);
    assert!(lines[1].contains("\"inbox/a.md\",\"change\":\"removed\""), "{lines:?}");
    let handled = crew.layout.handled_files(&name("sort"));
    crew.eventually("all of it is handled", || text_of(&handled).contains("\"firings\":3"));
    crew.ends_well();
    assert!(!text_of(&crew.layout.trigger(&name("sort"))).contains("dirty"));
    crew.spawn_supervisor(&["--until-idle"], &[]);
    assert!(crew.supervisors_end().success());
    assert_eq!(told(&crew, "sort"), lines, "nothing changed meanwhile");
}

#[test]
fn ten_thousand_files_at_once_are_one_run_within_max_wait() {
    const COUNT: usize = 10_000;
    let mut crew = Crew::new();
    fs::create_dir(crew.path("inbox")).unwrap();
    let triggers = "# watch = [\"inbox/*.md\"]\n# debounce = \"1s\"\n# max_wait = \"60s\"";
    let script = "grep -o '\"path\"' \"$NIGHTCREW_TASK_FILE\" | wc -l >>\"$NIGHTCREW_SCRATCH/counts\"";
    crew.agent("sort.sh", &job(triggers, script));
    crew.start();
    fs::create_dir(crew.path("filled")).unwrap();
    for n in 0..COUNT {
        fs::write(crew.path("filled").join(format!("{n}.md")), "x").unwrap();
    }
    for n in 0..COUNT {
        fs::rename(crew.path(&format!("filled/{n}.md")), crew.path(&format!("inbox/{n}.md"))).unwrap();
    }
    let handled = crew.layout.handled_files(&name("sort"));
    crew.eventually("all are handled", || text_of(&handled).matches("inbox/").count() == COUNT);
    let counts = text_of(&crew.scratch("sort", "counts"));
    let counts: Vec<usize> = counts.lines().map(|line| line.trim().parse().unwrap()).collect();
    assert_eq!(counts.iter().sum::<usize>(), COUNT, "each once: {counts:?}");
    assert!(counts.len() <= 3, "merged as far as a payload holds: {counts:?}");
    crew.ends_well();
}

#[test]
fn the_coming_firings_are_listed_in_the_zone_of_their_schedule() {
    let crew = Crew::new();
    crew.agent("digest.sh", &job("# schedule = \"0 7 * * *\"\n# timezone = \"Asia/Kolkata\"", ""));
    let listed = crew.ok(&["next", "digest", "-n", "2", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let all = listed.as_array().unwrap();
    assert_eq!(all.len(), 2);
    for line in all {
        assert!(line["at"].as_str().unwrap().ends_with("T07:00:00+05:30"), "{line}");
        assert!(line["slot"].as_str().unwrap().ends_with("T01:30Z"), "{line}");
    }
    let checked = crew.ok(&["check"]);
    assert!(
        checked.contains("at 07:00 (Asia/Kolkata)") && checked.contains("digest next fires at "),
        "{checked}"
    );
    crew.agent("never.sh", &job("# schedule = \"0 0 30 2 *\"", ""));
    let refused = crew.nightcrew(&["check"]);
    let told = String::from_utf8_lossy(&refused.stdout);
    assert!(!refused.status.success() && told.contains("never comes"), "{told}");
}
