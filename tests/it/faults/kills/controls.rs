//! Whether the sweeps would notice: the judge is shown crews that broke their promises, and the tracer has to kill
//! where it says.

use std::fs;
use std::path::PathBuf;

use nightcrew::protocol::framing::{Body, Start, commit_lines, scan};
use nightcrew::protocol::layout::Shelf;
use nightcrew::protocol::ledger::{Entry, Fact};
use nightcrew::protocol::name::TaskId;
use nightcrew::protocol::time::Wall;

use crate::crew::{Crew, name};
use crate::faults::needs::skipped;

use super::calls;
use super::judge::{Acknowledged, Fate, NOTES, judge};
use super::story::Story;
use super::tracer::{Counts, End, HELD_BACK, Point, follow};

/// Adds an entry to the ledger, by its rules.
fn tell(crew: &Crew, fact: Fact) {
    let path = segment(crew);
    let mut bytes = fs::read(&path).expect("the ledger");
    let next = scan(&bytes, Start::Segment).committed.expect("it has lines") + 1;
    let body = Body::of(&Entry { at: Wall(0), fact }).expect("an entry");
    bytes.extend(commit_lines(next, &[body]).0);
    fs::write(path, bytes).expect("written");
}

fn segment(crew: &Crew) -> PathBuf {
    crew.layout.ledger().join("0000000000000001.jsonl")
}

/// Changes the list in memory.
fn remember(crew: &Crew, change: impl FnOnce(&mut Vec<String>)) {
    let mut list = serde_json::from_value(crew.value(NOTES).expect("a value")).expect("a list");
    change(&mut list);
    let path = crew.layout.value(&NOTES.parse().expect("a key"));
    fs::write(path, serde_json::to_vec(&list).expect("JSON")).expect("written");
}

/// One that the worker did.
fn done_task(acknowledged: &Acknowledged) -> TaskId {
    let is_work = |fate: &Fate| matches!(fate, Fate::Done(Some(output)) if output.starts_with("made of"));
    acknowledged.tasks.iter().find(|(_, fate)| is_work(fate)).expect("a task").0.clone()
}

/// What is done to a crew, and what has to be said of it.
type Wrong = (&'static str, fn(&Crew, &TaskId));

const WRONGS: &[Wrong] = &[
    ("should be Done", |crew, task| {
        fs::remove_file(crew.layout.ended(Shelf::Done, task)).expect("removed");
    }),
    ("the result of", |crew, task| fs::write(crew.layout.result(task), "something else\n").expect("written")),
    ("accepted twice", |crew, task| {
        let is_of = |fact: &Fact| matches!(fact, Fact::Outcome { task: of, .. } if of == task);
        tell(crew, crew.ledger().into_iter().find(is_of).expect("an outcome"));
    }),
    ("was admitted 2 times", |crew, task| {
        let is_of = |fact: &Fact| matches!(fact, Fact::Submitted { task: of, .. } if of == task);
        tell(crew, crew.ledger().into_iter().find(is_of).expect("an admission"));
    }),
    ("was given out twice", |crew, _| {
        let (task, agent, why) = (name("other"), name("worker"), String::new());
        tell(crew, Fact::Vacated { task, token: 0, next_token: 1, agent, why });
    }),
    ("do not rise", |crew, task| {
        let (task, agent, why) = (task.clone(), name("worker"), String::new());
        tell(crew, Fact::Vacated { task, token: 0, next_token: 0, agent, why });
    }),
    ("has two owners", |crew, task| {
        for agent in ["one", "two"] {
            tell(crew, Fact::Claimed { task: task.clone(), token: 900, agent: name(agent), run: None });
        }
    }),
    ("is held with an old token", |crew, task| {
        for token in [901, 900] {
            tell(crew, Fact::Claimed { task: task.clone(), token, agent: name("one"), run: None });
        }
    }),
    ("damage", |crew, _| {
        let mut bytes = fs::read(segment(crew)).expect("the ledger");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(segment(crew), bytes).expect("written");
    }),
    ("is lost", |crew, _| remember(crew, |list| drop(list.remove(0)))),
    ("holds a value twice", |crew, _| remember(crew, |list| list.push(list[0].clone()))),
    ("values in memory", |crew, _| remember(crew, |list| list.push("nobody's".to_owned()))),
    ("left behind: state/tmp/worker/1.1.tmp", |crew, _| {
        fs::write(crew.layout.tmp(&name("worker")).join("1.1.tmp"), "").expect("written");
    }),
    ("left behind: state/tasks/", |crew, task| fs::write(crew.layout.lock(task), "").expect("written")),
];

/// Every promise that the judge looks at, broken by hand: a judge that says nothing of it is none.
#[test]
fn the_judge_sees_what_is_lost_or_done_twice_or_left_behind() {
    let mut story = Story::new();
    story.come_to_rest();
    let acknowledged = story.acknowledged();
    assert_eq!(judge(&story.crew, &acknowledged), Vec::<String>::new(), "{}", story.crew.told());
    let task = done_task(&acknowledged);
    for (expected, break_it) in WRONGS {
        let crew = Crew::copy_of(&story.crew);
        break_it(&crew, &task);
        let wrong = judge(&crew, &acknowledged);
        assert!(wrong.iter().any(|line| line.contains(expected)), "{expected}: {wrong:#?}");
    }
    let stray = story.crew.outsider("sleep", &["1000"]);
    // It is seen once it runs its own program.
    story.crew.eventually("the stray runs", || !story.crew.processes().is_empty());
    let wrong = judge(&story.crew, &acknowledged);
    assert!(wrong.iter().any(|line| line.contains("left running")), "{wrong:?}");
    drop(stray);
}

/// A kill at a call comes before what the call does, and after all that came before it.
#[test]
fn a_kill_at_a_call_comes_before_the_call_and_after_the_one_before() {
    let test = "a_kill_at_a_call_comes_before_the_call_and_after_the_one_before";
    let task: TaskId = name("t");
    let submit = |crew: &Crew, point: Option<&Point>| {
        let mut command = crew.awaiting(HELD_BACK);
        follow(command.args(["submit", "work", "1", "--id", "t"]), point, |_| {})
    };
    let counts: Counts = match submit(&Crew::new(), None) {
        Ok(trace) => trace.counts,
        Err(errno) => {
            skipped(test, &format!("no process may trace another here: {errno}"));
            return;
        }
    };
    let begun = |crew: &Crew| fs::read_dir(crew.layout.tmp_of_operator()).expect("tmp").count();
    for (call, linked) in [("link", false), ("unlink", true)] {
        let is_of = |name: &str| name.trim_end_matches("at") == call;
        let mut points = counts.points().into_iter();
        let point = points.find(|point| is_of(&calls::name(point.call))).expect("it makes this call");
        let crew = Crew::new();
        let trace = submit(&crew, Some(&point)).expect("traced");
        assert_eq!(trace.end, End::Killed);
        assert_eq!((crew.layout.new_task(&task).exists(), begun(&crew)), (linked, 1), "{call}");
    }
}
