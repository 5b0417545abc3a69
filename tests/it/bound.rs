//! What is submitted within a task counts once that one is done.

use std::fs;

use nightcrew::protocol::ledger::Fact;
use nix::sys::signal::Signal;

use crate::crew::{Crew, text_of};
use crate::survives::ended;
use nightcrew::protocol::layout::Shelf;

const NEXT: &str = "#!/bin/sh\n# /// agent\n# handles = [\"next\"]\n# ///\nexit 0\n";

/// A handler of `work` that submits a follow-up, twice, and then does as `script` says.
fn worker(script: &str) -> String {
    format!(
        "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# retries = 1\n# backoff = \"1ms\"\n# ///\n\
         told=\"$NIGHTCREW_SCRATCH/told\"\n\
         nightcrew submit next '{{\"of\":1}}' >>\"$told\"\nnightcrew submit next '{{\"of\":1}}' >>\"$told\"\n{script}\n"
    )
}

/// How often a task of kind `next` was submitted, and how often `work` was done before that.
fn submitted_and_done_before(crew: &Crew) -> (usize, usize) {
    let (mut submitted, mut done, mut before) = (0, 0, 0);
    for fact in crew.ledger() {
        match fact {
            Fact::Submitted { kind, .. } if kind.as_str() == "next" => {
                submitted += 1;
                before = done;
            }
            Fact::Outcome { agent, status, .. } if agent.as_str() == "worker" && status == "done" => {
                done += 1;
            }
            _ => {}
        }
    }
    (submitted, before)
}

fn bound(crew: &Crew) -> usize {
    fs::read_dir(crew.layout.bound_dir().join("worker")).map_or(0, Iterator::count)
}

#[test]
fn a_follow_up_counts_once_its_task_is_done_and_a_retry_does_not_double_it() {
    let mut crew = Crew::new();
    crew.agent("worker.sh", &worker("[ \"$NIGHTCREW_FAILURES\" -ge 1 ]")).agent("next.sh", NEXT);
    crew.start();
    let task = crew.submit("work", "1");
    let next = crew.fact("it counts", |fact| match fact {
        Fact::Submitted { task, kind, .. } if kind.as_str() == "next" => Some(task.clone()),
        _ => None,
    });
    crew.eventually("it is done", || crew.is_done(&next));
    assert_eq!(submitted_and_done_before(&crew), (1, 1));
    let told = text_of(&crew.scratch("worker", "told"));
    let lines: Vec<&str> = told.lines().collect();
    let accepted = format!("accepted {next}, bound to task {task}");
    assert!(lines.len() == 4 && lines[0] == accepted && lines[2] == accepted, "{told}");
    assert!(lines[1].starts_with(&format!("duplicate of {next}, bound at ")), "{told}");
    crew.eventually("nothing of it is left", || bound(&crew) == 0);
    crew.ends_well();
}

#[test]
fn a_follow_up_of_what_fails_for_good_never_counts_and_one_at_once_does() {
    let mut crew = Crew::new();
    crew.agent("worker.sh", &worker("nightcrew submit next 2 --now >>\"$told\"\nexit 65"))
        .agent("next.sh", NEXT);
    crew.start();
    let task = crew.submit("work", "1");
    crew.eventually("it is dead", || ended(&crew, Shelf::Dead, &task).is_some());
    crew.eventually("what was bound to it is dropped", || bound(&crew) == 0);
    crew.eventually("the other one is done", || {
        crew.ok(&["tasks", "--kind", "next", "--json"]).contains("\"done\"")
    });
    assert_eq!(submitted_and_done_before(&crew), (1, 0));
    assert_eq!(crew.ok(&["tasks", "--kind", "next", "--json"]).lines().count(), 1);
    crew.ends_well();
}

#[test]
fn a_follow_up_is_shown_while_its_task_is_at_work_and_goes_with_a_killed_supervisor() {
    let mut crew = Crew::new();
    let script = worker("echo $$ >>at-work; while [ ! -e go ]; do sleep 0.05; done");
    crew.agent("worker.sh", &script).agent("next.sh", NEXT);
    crew.start();
    let task = crew.submit("work", "1");
    let tries = || text_of(&crew.path("at-work")).lines().count();
    crew.eventually("it is at work", || tries() == 1);
    let listed = crew.ok(&["tasks", "--state", "bound", "--json"]);
    assert!(listed.lines().count() == 1 && listed.contains(&format!("\"within\":\"{task}\"")), "{listed}");
    assert!(crew.ok(&["tasks", "show", task.as_str()]).contains("bound to it"), "{listed}");
    crew.signal_supervisor(Signal::SIGKILL);
    crew.supervisors_end();
    crew.start();
    let tries = || text_of(&crew.path("at-work")).lines().count();
    crew.eventually("it is at work again", || tries() == 2);
    fs::write(crew.path("go"), "").expect("written");
    crew.eventually("it is done", || crew.is_done(&task));
    crew.eventually("the follow-up is done", || {
        crew.ok(&["tasks", "--kind", "next", "--state", "done", "--json"]).lines().count() == 1
    });
    assert_eq!(submitted_and_done_before(&crew), (1, 1));
    crew.ends_well();
}

/// Pulls one task, submits two follow-ups within it of which one needs the other, and hands it in.
const PULLER: &str = r#"#!/bin/sh
# /// agent
# restart = "never"
# ///
nightcrew submit before 1
while :; do
    task=$(nightcrew claim pulled) && break
    sleep 0.05
done
first=$(nightcrew submit next 1 --json | sed 's/.*"task":"\([^"]*\)".*/\1/')
nightcrew submit next 2 --needs "$first" >"$NIGHTCREW_SCRATCH/told"
while [ ! -e go ]; do sleep 0.05; done
nightcrew done
nightcrew submit after 1
exec sleep 1000
"#;

#[test]
fn a_puller_submits_within_the_one_task_that_it_holds() {
    let mut crew = Crew::new();
    crew.agent("worker.sh", PULLER).agent("next.sh", NEXT);
    crew.start();
    let task = crew.submit("pulled", "1");
    let told = crew.scratch("worker", "told");
    crew.eventually("both are bound", || text_of(&told).ends_with(&format!("bound to task {task}\n")));
    assert_eq!(crew.ok(&["tasks", "--kind", "next", "--json"]).lines().count(), 2);
    crew.eventually("what came before is a task", || {
        !crew.ok(&["tasks", "--kind", "before", "--json"]).is_empty()
    });
    fs::write(crew.path("go"), "").expect("written");
    crew.eventually("both are done", || {
        crew.ok(&["tasks", "--kind", "next", "--state", "done", "--json"]).lines().count() == 2
    });
    crew.eventually("what came after is a task", || {
        crew.ok(&["tasks", "--kind", "after", "--json"]).contains("\"ready\"")
    });
    crew.ends_well();
}
