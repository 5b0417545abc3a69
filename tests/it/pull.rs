//! Workers that pull, and those who wait for what comes of it.

use std::collections::BTreeSet;
use std::fs;
use std::process::Output;
use std::time::{Duration, Instant};

use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::name::TaskId;
use nightcrew::protocol::task::{Phase, TaskRecord};
use nix::sys::signal::Signal;

use crate::crew::{Crew, Outsider, is_alive, name, send, text_of};

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn record(crew: &Crew, task: &TaskId) -> Option<TaskRecord> {
    serde_json::from_str(&text_of(&crew.layout.task(task))).ok()
}

fn is_ready(crew: &Crew, kind: &str, task: &TaskId) -> bool {
    text_of(&crew.layout.ready(&name(kind))).contains(task.as_str())
}

fn is_dead(crew: &Crew, task: &TaskId) -> bool {
    crew.path(&format!("state/tasks/dead/{task}.json")).exists()
}

/// A process that waits for a task, and holds it once it has one; what it was told is in `claimed`.
fn claimer(crew: &Crew) -> Outsider {
    let waits = crew.script("exec \"$0\" claim --wait work --owner-pid $PPID >claimed");
    crew.eventually("it waits", || waits.watches());
    waits
}

/// How a process ended that something woke: it would have looked again by itself, but only after half a minute.
fn soon(process: &mut Outsider) -> Option<i32> {
    let begun = Instant::now();
    let status = process.wait();
    assert!(begun.elapsed() < Duration::from_secs(20), "nothing woke it");
    status.code()
}

/// The pid that a command wrote to a file.
fn pid_in(crew: &Crew, file: &str) -> i32 {
    crew.await_some(file, || text_of(&crew.path(file)).trim().parse().ok())
}

#[test]
fn who_waits_for_a_task_has_it_as_soon_as_there_is_one() {
    let mut crew = Crew::new();
    crew.start();
    let mut waits = claimer(&crew);
    let task = crew.submit("work", "1");
    assert_eq!(soon(&mut waits), Some(0));
    assert_eq!(text_of(&crew.path("claimed")).trim(), task.as_str());
    crew.ok(&["done", task.as_str()]);
    crew.eventually("it is done", || crew.is_done(&task));
    crew.ends_well();
}

#[test]
fn a_halt_is_waited_out_unless_it_was_there_before_and_a_time_is_kept_to() {
    let mut crew = Crew::new();
    crew.start();
    let mut waits = claimer(&crew);
    crew.ok(&["halt", "lunch"]);
    crew.fact("the halt", |fact| matches!(fact, Fact::Control { .. }).then_some(()));
    let task = crew.submit("work", "1");
    crew.eventually("it is listed", || is_ready(&crew, "work", &task));
    let owner = crew.outsider("sleep", &["1000"]);
    let claim =
        |more: &[&str]| crew.nightcrew(&[&["claim", "--wait", "--owner-pid", &owner.pid()], more].concat());
    assert_eq!(code(&claim(&["work"])), Some(75), "halted from the start");
    assert!(!crew.layout.lock(&task).exists(), "and nobody claimed it meanwhile");
    crew.ok(&["resume"]);
    assert_eq!(soon(&mut waits), Some(0), "the halt is over");
    assert_eq!(text_of(&crew.path("claimed")).trim(), task.as_str());
    assert_eq!(code(&claim(&["work", "--within", "100ms"])), Some(66), "there is no other");
    drop(owner);
    crew.ends_well();
}

#[test]
fn nothing_is_claimed_for_a_process_that_has_ended_meanwhile() {
    let mut crew = Crew::new();
    crew.start();
    let mut owner = crew.outsider("sleep", &["1000"]);
    let pid = owner.pid();
    let mut waits = crew.script(&format!("exec \"$0\" claim --wait work --owner-pid {pid}"));
    crew.eventually("it waits", || waits.watches());
    owner.kill();
    let task = crew.submit("work", "1");
    assert_eq!(soon(&mut waits), Some(1));
    assert!(!crew.layout.lock(&task).exists());
    crew.ends_well();
}

#[test]
fn two_workers_do_each_task_once() {
    const COUNT: usize = 20;
    let mut crew = Crew::new();
    crew.start();
    let tasks: BTreeSet<String> =
        (0..COUNT).map(|n| crew.submit("work", &n.to_string()).to_string()).collect();
    let work = "exec \"$0\" work work --until-empty -- sh -c \
                'cat >\"$NIGHTCREW_OUTPUT\"; echo \"$NIGHTCREW_TASK\" >>did'";
    let mut workers = [crew.script(work), crew.script(work)];
    assert!(workers.iter_mut().all(|worker| soon(worker) == Some(0)));
    let did = text_of(&crew.path("did"));
    assert_eq!(did.lines().count(), COUNT, "{did}");
    assert_eq!(did.lines().map(str::to_owned).collect::<BTreeSet<_>>(), tasks);
    for task in &tasks {
        let task = task.parse().expect("an id");
        crew.eventually("it is accepted", || crew.is_done(&task));
        assert!(text_of(&crew.layout.result(&task)).parse::<usize>().is_ok());
    }
    let not_as_usual = |fact: &Fact| matches!(fact, Fact::Vacated { .. } | Fact::OutcomeRefused { .. });
    assert_eq!(crew.count(not_as_usual), 0, "{}", crew.told());
    crew.ends_well();
}

#[test]
fn the_task_of_a_worker_that_was_killed_is_done_by_another() {
    let mut crew = Crew::new();
    crew.start();
    let task = crew.submit("work", "1");
    let mut first = crew.script("exec \"$0\" work work -- sh -c 'echo $$ >at-it; exec sleep 1000'");
    let left = pid_in(&crew, "at-it");
    first.kill();
    let mut second = crew.script("exec \"$0\" work work --count 1 -- true");
    assert_eq!(soon(&mut second), Some(0));
    crew.eventually("it is done", || crew.is_done(&task));
    // No process of a run's: it is fenced, and nobody's to kill.
    send(left, Signal::SIGKILL);
    crew.ends_well();
}

#[test]
fn a_worker_that_gets_term_hands_its_task_back_and_ends_well() {
    let mut crew = Crew::new();
    crew.start();
    let mut idle = crew.script("exec \"$0\" work other -- true");
    let task = crew.submit("work", "1");
    let mut worker = crew.script("exec \"$0\" work work -- sh -c 'echo $$ >at-it; exec sleep 1000'");
    let at_it = pid_in(&crew, "at-it");
    worker.signal(Signal::SIGTERM);
    assert_eq!(soon(&mut worker), Some(0));
    assert!(!is_alive(at_it));
    crew.eventually("it is ready again", || is_ready(&crew, "work", &task));
    crew.eventually("no failure counts", || record(&crew, &task).is_some_and(|record| record.failures == 0));
    crew.fact("it was handed back", |fact| matches!(fact, Fact::Vacated { .. }).then_some(()));
    crew.eventually("the other waits", || idle.watches());
    idle.signal(Signal::SIGTERM);
    assert_eq!(soon(&mut idle), Some(0));
    crew.ends_well();
}

#[test]
fn a_service_may_be_a_worker() {
    let mut crew = Crew::new();
    let worker = "#!/bin/sh\nexec nightcrew work work -- sh -c '\
                  read -r wanted; [ \"$wanted\" = 1 ] || { echo $$ >\"$NIGHTCREW_SCRATCH/at-it\"; exec sleep 1000; }'\n";
    crew.agent("worker.sh", worker);
    crew.start();
    let task = crew.submit("work", "1");
    crew.eventually("it is done", || crew.is_done(&task));
    let long = crew.submit("work", "2");
    let at_it: i32 = crew.await_some("the next is worked on", || {
        text_of(&crew.scratch("worker", "at-it")).trim().parse().ok()
    });
    crew.ok(&["stop", "worker"]);
    crew.eventually("it is ready again", || is_ready(&crew, "work", &long));
    assert!(!is_alive(at_it));
    let no_failure = |fact: &Fact| !matches!(fact, Fact::Outcome { status, .. } if status == "failed");
    assert!(crew.ledger().iter().all(no_failure), "{}", crew.told());
    crew.ends_well();
}

#[test]
fn what_fails_for_good_is_dead_at_once_and_who_asks_for_a_wait_gets_it() {
    let mut crew = Crew::new();
    crew.start();
    let bad = crew.submit("bad", "1");
    let mut worker = crew.script("exec \"$0\" work bad --count 1 -- sh -c 'exit 65'");
    assert_eq!(soon(&mut worker), Some(0));
    crew.eventually("a dead letter", || is_dead(&crew, &bad));

    let owner = crew.outsider("sleep", &["1000"]);
    let claimed = |kind: &str| {
        let task = crew.submit(kind, "1");
        let claim = ["claim", "--wait", kind, "--owner-pid", &owner.pid()];
        assert_eq!(crew.ok(&claim), task.as_str());
        task
    };
    let worse = claimed("worse");
    crew.ok(&["fail", "--permanent", worse.as_str(), "no such feed"]);
    crew.eventually("a dead letter", || is_dead(&crew, &worse));
    let busy = claimed("busy");
    crew.ok(&["fail", "--retry-after", "90s", busy.as_str(), "429"]);
    let (record, at) = crew.await_some("it waits", || {
        let record = record(&crew, &busy).filter(|record| record.state == Phase::Waiting)?;
        let at = record.wishes.not_before?;
        Some((record, at))
    });
    let wait_ms = at.0 - record.attempts.last().expect("it was tried").at.0;
    assert_eq!((record.failures, wait_ms), (1, 90_000));
    drop(owner);
    crew.ends_well();
}

#[test]
fn waiting_tells_by_its_exit_code_how_tasks_ended() {
    let mut crew = Crew::new();
    crew.agent(
        "judge.sh",
        "#!/bin/sh\n# /// agent\n# handles = [\"judge\"]\n# ///\n\
         read -r code; echo \"said $code\" >\"$NIGHTCREW_OUTPUT\"; exit \"$code\"\n",
    );
    let early = crew.submit("judge", "66");
    let mut waits = crew.script(&format!("exec \"$0\" wait {early} >told"));
    crew.eventually("it waits", || waits.watches());
    crew.start();
    assert_eq!(soon(&mut waits), Some(0));
    assert_eq!(text_of(&crew.path("told")), format!("{early} done\n"));

    let (done, dead, open) = (crew.submit("judge", "0"), crew.submit("judge", "65"), crew.submit("x", "1"));
    let wait = |words: &[&str]| crew.nightcrew(&[&["wait"], words].concat());
    let (done, dead, open) = (done.as_str(), dead.as_str(), open.as_str());
    let both = wait(&[done, dead, done]);
    assert_eq!((code(&both), told(&both)), (Some(1), format!("{done} done\n{dead} dead exit 65")));
    let already = wait(&[done]);
    assert_eq!((code(&already), told(&already)), (Some(0), format!("{done} done")));
    let over = wait(&[done, open, "--within", "100ms"]);
    assert_eq!((code(&over), told(&over)), (Some(75), format!("{done} done")));
    let any = wait(&["--any", open, done]);
    assert_eq!((code(&any), told(&any)), (Some(0), format!("{done} done")));
    let unknown = wait(&[open, "nobody"]);
    assert_eq!((code(&unknown), told(&unknown)), (Some(66), String::new()));
    let output = wait(&["--output", done]);
    assert_eq!((code(&output), told(&output)), (Some(0), "said 0".to_owned()));
    let json: serde_json::Value = serde_json::from_str(&told(&wait(&["--json", dead]))).expect("JSON");
    assert_eq!((json["id"].as_str(), json["state"].as_str()), (Some(dead), Some("dead")));
    assert_eq!(json["error"].as_str(), Some("exit 65"));
    crew.ends_well();
}

#[test]
fn a_task_that_goes_while_it_is_waited_for_is_told_as_unknown() {
    let crew = Crew::new();
    let task = crew.submit("work", "1");
    let path = crew.layout.new_task(&task);
    let mut waits = crew.script(&format!("exec \"$0\" wait {task} --within 1s"));
    crew.eventually("it waits", || waits.watches());
    fs::remove_file(path).expect("removed");
    assert_eq!(soon(&mut waits), Some(66));
}
