//! Bad luck from outside: kills again and again, a state that is moved away, a machine that stands still, and
//! directories where files should be.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nightcrew::protocol::layout::SEGMENT_EXT;
use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::request::Answer;
use nightcrew::protocol::status::Standing;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::crew::{Crew, is_alive, name, send, text_of};

/// Appends values that nobody else appends, by the protocol, and notes each once it is in the queue: that is the
/// acknowledgement. It queues a few at a time, so that there is always something to apply when a kill comes.
const APPENDING: &str = r#"#!/usr/bin/env python3
import json, os, time
agent, run, queue, tmp = (os.environ["NIGHTCREW_" + name] for name in ("AGENT", "RUN", "QUEUE", "TMP"))
noted = open(os.environ["NIGHTCREW_SCRATCH"] + "/acknowledged", "a")
try:
    applied = json.load(open("state/memory/applied/" + agent))["seq"]
except FileNotFoundError:
    applied = 0
seq, n = applied, 0
while not os.path.exists("enough"):
    if len(os.listdir(queue)) > 20:
        time.sleep(0.002)
        continue
    n += 1
    value = "%s-%s-%d" % (agent, run[-8:], n)
    temp = "%s/%s" % (tmp, value)
    with open(temp, "w") as file:
        update = dict(v=1, id=value, op="append", key="all", value=value)
        file.write(json.dumps(update, separators=(",", ":")) + "\n")
    while True:
        seq += 1
        try:
            os.link(temp, "%s/%d.json" % (queue, seq))
            break
        except FileExistsError:
            pass
    os.unlink(temp)
    noted.write(value + "\n")
    noted.flush()
"#;

#[test]
fn a_supervisor_killed_again_and_again_applies_each_acknowledged_update_once() {
    const KILLS: usize = 5;
    let agents = ["first", "second", "third"];
    let mut crew = Crew::new();
    for agent in agents {
        crew.agent(&format!("{agent}.py"), APPENDING);
    }
    crew.start();
    let all = crew.layout.value(&"all".parse().expect("a key"));
    for kill in 1..=KILLS {
        // All three are at it again, each time a little longer: the kill meets another moment of the work.
        let before = agents.map(|agent| applied_of(&crew, agent).len());
        crew.eventually("values of each are applied", || {
            agents.iter().zip(before).all(|(agent, n)| applied_of(&crew, agent).len() > n + 7 * kill)
        });
        // In the midst of a commit: when the journal has it and the store not yet, or the store and not what
        // counts it. Each is a matter of microseconds, so this looks without a rest in between.
        let watched = if kill % 2 == 1 { newest_in(&crew.layout.journal()) } else { all.clone() };
        let found = seen(&watched);
        crew.eventually("a commit is under way", || (0..1000).any(|_| seen(&watched) != found));
        crew.signal_supervisor(Signal::SIGKILL);
        crew.supervisors_end();
        crew.start();
    }
    fs::write(crew.path("enough"), "").expect("written");
    crew.eventually("all have ended and nothing is queued", || {
        let is_over = |agent: &str| {
            let queue = fs::read_dir(crew.layout.queue(&name(agent))).expect("a queue");
            crew.stands(agent) == Some(Standing::Finished) && queue.count() == 0
        };
        agents.into_iter().all(is_over)
    });
    crew.ends_well();

    let applied = counted(agents.iter().flat_map(|agent| applied_of(&crew, agent)));
    let twice: Vec<_> = applied.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "applied more than once: {twice:?}");
    for agent in agents {
        let acknowledged = text_of(&crew.scratch(agent, "acknowledged"));
        let lost: Vec<_> = acknowledged.lines().filter(|value| !applied.contains_key(*value)).collect();
        assert!(lost.is_empty(), "acknowledged to {agent} and not applied: {lost:?}");
        assert!(acknowledged.lines().count() > KILLS, "{agent} did something");
    }
    let told = counted(crew.ledger().into_iter().filter_map(|fact| match fact {
        Fact::Updated { id, .. } => Some(id),
        _ => None,
    }));
    for (id, times) in &applied {
        assert_eq!(told.get(id), Some(times), "how often the ledger tells of {id}");
    }
    assert_eq!(told.len(), applied.len(), "it tells of nothing else");
    assert!(!text_of(&crew.log()).contains("storage failed"), "{}", crew.told());
}

/// What tells one state of a file from the next.
fn seen(file: &Path) -> Option<(u64, u64)> {
    fs::metadata(file).ok().map(|file| (file.ino(), file.len()))
}

/// The last file of a directory by its name: of a log, the segment that grows.
fn newest_in(dir: &Path) -> PathBuf {
    let entries = fs::read_dir(dir).expect("a directory");
    let segments = entries.map(|entry| entry.expect("an entry").path());
    let segments = segments.filter(|path| path.extension().is_some_and(|ending| ending == SEGMENT_EXT));
    segments.max().expect("a segment")
}

/// What an agent appended so far, as the store shows it.
fn applied_of(crew: &Crew, agent: &str) -> Vec<String> {
    let all = crew.value("all").and_then(|all| serde_json::from_value::<Vec<String>>(all).ok());
    let mut all = all.unwrap_or_default();
    all.retain(|value| value.starts_with(agent));
    all
}

fn counted(values: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts
}

/// Counts in the crew's own directory, whatever becomes of `state/`.
const COUNTING: &str = "#!/bin/sh\nwhile :; do\n    echo on >>\"NAME.count\"\n    sleep 0.03\ndone\n";

#[test]
fn a_state_that_is_moved_away_stops_no_agent_and_is_not_made_again() {
    let agents = ["one", "two"];
    let mut crew = Crew::new();
    for agent in agents {
        crew.agent(&format!("{agent}.sh"), &COUNTING.replace("NAME", agent));
    }
    crew.start();
    let pids = agents.map(|agent| crew.running(agent, None));
    let counts = || agents.map(|agent| text_of(&crew.path(&format!("{agent}.count"))).len());
    let go_on = |what: &str| {
        let before = counts();
        crew.eventually(what, || counts().iter().zip(before).all(|(now, before)| *now > before));
    };
    go_on("they work");

    let state = crew.layout.state();
    fs::rename(&state, crew.path("elsewhere")).expect("moved");
    crew.eventually("it says what is wrong", || {
        let said = text_of(&crew.log());
        said.lines().any(|line| line.contains("error") && line.contains("state was removed or replaced"))
    });
    go_on("they go on");
    let refused = crew.nightcrew(&["run"]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(75), "{told}");
    // One that appears now would have it write, if anything did.
    crew.sleeper("late");
    go_on("they still go on");
    assert!(pids.iter().all(|pid| is_alive(*pid)), "{}", crew.told());
    assert!(!state.exists(), "nothing was made in its place");

    crew.term();
    crew.leaves_nothing();
    assert!(!state.exists(), "not at the end either");
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
}

/// Beats a little more often than it must.
const BEATING: &str = r#"#!/bin/sh
# /// agent
# heartbeat = "1s"
# isolation_grace = "1h"
# ///
while :; do
    echo beat >>"$NIGHTCREW_HEARTBEAT"
    sleep 0.1
done
"#;

#[test]
fn a_machine_that_stands_still_for_a_while_isolates_nobody() {
    let agents = ["one", "two", "three"];
    let mut crew = Crew::new();
    for agent in agents {
        crew.agent(&format!("{agent}.sh"), BEATING);
    }
    crew.start();
    let pids = agents.map(|agent| crew.running(agent, None));
    let beats = || agents.map(|agent| text_of(&crew.layout.heartbeat(&name(agent))).len());
    let beat_on = |what: &str| {
        let before = beats();
        crew.eventually(what, || beats().iter().zip(before).all(|(now, before)| *now > before));
    };
    beat_on("they beat");

    // All that they beat was seen before: what the watchdog finds afterwards is silence.
    let modified = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    crew.eventually("the watchdog has seen their last beats", || {
        let looked = modified(&crew.layout.canary());
        agents.iter().all(|agent| modified(&crew.layout.heartbeat(&name(agent))) < looked)
    });
    let everyone = || [crew.supervisor()].into_iter().chain(pids);
    // Each leads a process group of its own, so that what it waits for stands still with it.
    everyone().for_each(|leader| send(-leader, Signal::SIGSTOP));
    crew.eventually("all stand still", || everyone().all(|leader| state_of(leader) == Some('T')));
    let looked = text_of(&crew.layout.canary());
    // This is the bad luck itself, and no wait for anything: thrice the silence that isolates.
    std::thread::sleep(Duration::from_secs(4));
    // The worst order: the watchdog looks at them before they can beat.
    send(-crew.supervisor(), Signal::SIGCONT);
    crew.eventually("the watchdog looks", || text_of(&crew.layout.canary()) != looked);
    for leader in pids {
        send(-leader, Signal::SIGCONT);
    }

    beat_on("they beat again");
    // One that never beats is found out: by then the watchdog has judged all of them for two intervals and more.
    crew.agent("silent.sh", &BEATING.replace("echo beat", ": quiet"));
    crew.fact("the silent one is isolated", |fact| match fact {
        Fact::Isolated { agent, .. } if agent.as_str() == "silent" => Some(()),
        _ => None,
    });
    assert_eq!(crew.count(|fact| matches!(fact, Fact::Isolated { .. })), 1, "{}", crew.told());
    assert_eq!(agents.map(|agent| crew.pid(agent)), pids.map(Some), "{}", crew.told());
    crew.ends_well();
}

/// The letter that the kernel has for what a process does.
fn state_of(pid: i32) -> Option<char> {
    let stat = text_of(Path::new(&format!("/proc/{pid}/stat")));
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn directories_in_the_place_of_locks_are_put_aside_and_their_tasks_done() {
    let tasks = ["first", "second"].map(name);
    let mut crew = Crew::new();
    crew.start();
    for round in 1..=2 {
        for task in &tasks {
            if round == 1 {
                crew.ok(&["submit", "work", "1", "--id", task.as_str()]);
            } else {
                fs::rename(crew.path(&format!("state/tasks/done/{task}.json")), crew.layout.new_task(task))
                    .expect("replayed");
            }
            let record = crew.layout.task(task);
            crew.eventually("it is ready", || text_of(&record).contains(r#""state":"ready""#));
            let made = crew.path("made.lock");
            fs::create_dir(&made).expect("a directory");
            fs::write(made.join("inside"), format!("{task} {round}")).expect("written");
            fs::rename(made, crew.layout.lock(task)).expect("it takes the lock's name");
        }
        if round == 1 {
            crew.agent("worker.sh", "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# ///\n");
        } else {
            crew.ok(&["start", "worker"]);
        }
        for task in &tasks {
            crew.eventually("the task is done", || crew.is_done(task));
            let kept = kept_in(&crew.layout.refused_outcomes());
            assert!(kept.contains(&format!("{task} {round}")), "what was inside is kept: {kept:?}");
            crew.eventually("nothing is in the lock's place", || !crew.layout.lock(task).exists());
        }
        crew.ok(&["stop", "worker"]);
        crew.eventually("it is stopped", || crew.stands("worker") == Some(Standing::Stopped));
    }
    assert_eq!(kept_in(&crew.layout.refused_outcomes()).len(), 4, "{}", crew.told());
    crew.ends_well();
}

/// What the directories in `dir` hold in their files.
fn kept_in(dir: &Path) -> Vec<String> {
    let paths = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
    };
    paths(dir).iter().flat_map(|aside| paths(aside)).map(|file| text_of(&file)).collect()
}

#[test]
fn a_request_that_makes_no_sense_is_answered_so() {
    let mut crew = Crew::new();
    crew.sleeper("service");
    crew.start();
    let pid = crew.running("service", None);
    let cases = [
        ("garbage", "not JSON at all\n"),
        ("unknown", "{\"v\":1,\"id\":\"unknown\",\"ask\":\"dance\"}\n"),
        ("newer", "{\"v\":1000,\"id\":\"newer\",\"ask\":\"restart\",\"agents\":[]}\n"),
        ("mistyped", "{\"v\":1,\"id\":\"mistyped\",\"ask\":\"restart\",\"agents\":[\"../x\"]}\n"),
        ("another", "{\"v\":1,\"id\":\"somebody\",\"ask\":\"restart\",\"agents\":[]}\n"),
        ("half", "{\"v\":1,\"id\":\"half\",\"ask\":\"rest"),
    ];
    for (id, text) in cases {
        crew.put(&crew.layout.request(&name(id)), text, 0o644);
    }
    for (id, _) in cases {
        let answer = answer_to(&crew, id);
        assert!(!answer.ok && !answer.text.is_empty(), "{answer:?}");
        assert_eq!(answer.id, name(id));
        crew.eventually("it is out of the way", || !crew.layout.request(&name(id)).exists());
    }
    assert_eq!(crew.pid("service"), Some(pid), "nothing was done");
    let whole = json!({"v": 1, "id": "whole", "ask": "restart", "agents": ["service"]});
    crew.put(&crew.layout.request(&name("whole")), &format!("{whole}\n"), 0o644);
    assert!(answer_to(&crew, "whole").ok);
    crew.running("service", Some(pid));
    crew.ends_well();
}

fn answer_to(crew: &Crew, id: &str) -> Answer {
    crew.await_some(&format!("{id} is answered"), || {
        serde_json::from_str(&text_of(&crew.layout.answer(&name(id)))).ok()
    })
}
