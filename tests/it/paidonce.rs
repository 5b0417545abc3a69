//! The story of README's "What is paid for once", for real: its agent and its programs, killed where it says.

use std::fs;

use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::name::TaskId;
use nix::sys::signal::Signal;

use crate::crew::{Crew, send, text_of};

/// As README prints them, which is held against it.
const LETTER: &str = r#"#!/bin/sh
# /// agent
# handles = ["letter"]
# ///
text=$(nightcrew step write -- ./ask-model) || exit
./pause between
nightcrew step send --effect --check ./was-sent -- ./send "$text" >"$NIGHTCREW_OUTPUT"
"#;
const ASK_MODEL: &str = r#"#!/bin/sh
echo call >>asked
echo "Good morning."
"#;
const SEND: &str = r#"#!/bin/sh
echo "$NIGHTCREW_TASK $1" >>sent
./pause within
echo "sent: $1"
"#;
const WAS_SENT: &str = r#"#!/bin/sh
echo call >>checked
grep "^$NIGHTCREW_TASK " sent
"#;
const PAUSE: &str = r#"#!/bin/sh
touch "at-$1"
while [ -e "hold-$1" ]; do sleep 0.1; done
"#;

const PROGRAMS: [(&str, &str); 4] =
    [("ask-model", ASK_MODEL), ("send", SEND), ("was-sent", WAS_SENT), ("pause", PAUSE)];

/// Whom `kill -9` meets.
#[derive(Clone, Copy)]
enum Victim {
    Handler,
    Supervisor,
    Both,
}

fn crew() -> Crew {
    let crew = Crew::new();
    crew.agent("letter.sh", LETTER);
    for (name, script) in PROGRAMS {
        crew.put(&crew.path(name), script, 0o755);
    }
    crew
}

fn lines(crew: &Crew, file: &str) -> usize {
    text_of(&crew.path(file)).lines().count()
}

/// Waits until the handler comes to a place, at which it is held, kills, and lets whoever comes next pass.
fn kill_at(crew: &mut Crew, place: &str, victim: Victim) {
    crew.eventually(&format!("it is at {place}"), || crew.path(&format!("at-{place}")).exists());
    let handler = crew.running("letter", None);
    if matches!(victim, Victim::Supervisor | Victim::Both) {
        crew.signal_supervisor(Signal::SIGKILL);
        crew.supervisors_end();
    }
    if matches!(victim, Victim::Handler | Victim::Both) {
        send(handler, Signal::SIGKILL);
        crew.eventually("it is dead", || !crate::crew::is_alive(handler));
    }
    if !matches!(victim, Victim::Handler) {
        crew.start();
    }
    // Nothing of the run is left by then: what is held must not get to the end of what was killed.
    let taken = |fact: &Fact| matches!(fact, Fact::Outcome { .. } | Fact::Vacated { .. });
    crew.eventually("its task is taken from it", || crew.count(taken) > 0);
    fs::remove_file(crew.path(&format!("hold-{place}"))).expect("it was held");
}

fn is_told(crew: &mut Crew, task: &TaskId, result: &str) {
    crew.eventually("it is done", || crew.is_done(task));
    assert_eq!(text_of(&crew.layout.result(task)), result);
    crew.ends_well();
}

#[test]
fn readme_tells_this_very_story() {
    let readme = include_str!("../../README.md");
    for script in [LETTER, ASK_MODEL, SEND, WAS_SENT, PAUSE] {
        assert!(readme.contains(script), "README has not:\n{script}");
    }
}

#[test]
fn what_was_asked_before_the_kill_is_not_asked_again() {
    for victim in [Victim::Handler, Victim::Supervisor, Victim::Both] {
        let mut crew = crew();
        fs::write(crew.path("hold-between"), "").expect("written");
        crew.start();
        let task = crew.submit("letter", "1");
        kill_at(&mut crew, "between", victim);
        is_told(&mut crew, &task, "sent: Good morning.\n");
        assert_eq!((lines(&crew, "asked"), lines(&crew, "sent"), lines(&crew, "checked")), (1, 1, 0));
    }
}

#[test]
fn what_was_sent_before_the_kill_is_asked_for_and_not_sent_again() {
    for victim in [Victim::Handler, Victim::Supervisor, Victim::Both] {
        let mut crew = crew();
        fs::write(crew.path("hold-within"), "").expect("written");
        crew.start();
        let task = crew.submit("letter", "1");
        kill_at(&mut crew, "within", victim);
        is_told(&mut crew, &task, &format!("{task} Good morning.\n"));
        assert_eq!((lines(&crew, "asked"), lines(&crew, "sent"), lines(&crew, "checked")), (1, 1, 1));
    }
}
