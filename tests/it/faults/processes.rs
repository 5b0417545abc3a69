//! Agents that do what they should not with processes, groups, descriptors and their environment.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::status::Standing;
use nix::sys::signal::Signal;

use super::cgroup::Cgroup;
use crate::crew::{Crew, is_alive, name, send, text_of};

const HANDLER: &str =
    "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# ///\necho done >\"$NIGHTCREW_OUTPUT\"\n";

/// Waits until a process wrote its pid into this file of the crew.
#[track_caller]
fn pid_in(crew: &Crew, file: &str) -> i32 {
    crew.await_some(&format!("a pid is in {file}"), || text_of(&crew.path(file)).trim().parse().ok())
}

/// Forks twice, into a session of its own, closes all it has, and waits; its root lives on.
const DAEMONIC: &str = r#"#!/usr/bin/env python3
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 100)
        os.chdir("/")
        with open(os.environ["NIGHTCREW_DIR"] + "/daemon", "w") as file:
            file.write("%d\n" % os.getpid())
        time.sleep(1000)
    os._exit(0)
os.wait()
time.sleep(1000)
"#;

#[test]
fn a_daemon_is_found_again_though_its_supervisor_and_its_agent_were_killed() {
    let mut crew = Crew::new();
    crew.agent("daemonic.py", DAEMONIC).sleeper("bystander");
    crew.start();
    let daemon = pid_in(&crew, "daemon");
    let agent = crew.running("daemonic", None);
    crew.signal_supervisor(Signal::SIGKILL);
    crew.supervisors_end();
    send(agent, Signal::SIGKILL);
    crew.eventually("of the agent only its daemon is left", || !is_alive(agent) && is_alive(daemon));
    fs::remove_file(crew.path("daemon")).expect("removed");

    crew.start();
    crew.running("daemonic", Some(agent));
    assert!(!is_alive(daemon), "it is ended before its agent's successor begins");
    let second = pid_in(&crew, "daemon");
    send(crew.running("daemonic", None), Signal::SIGKILL);
    crew.eventually("with its agent, its daemon dies", || !is_alive(second));
    crew.ends_well();
}

#[test]
fn an_agent_that_is_stopped_hears_that_it_is_to_end() {
    let mut crew = Crew::new();
    crew.agent("polite.sh", "#!/bin/sh\ntrap 'echo goodbye; exit 0' TERM\necho ready\nwhile :; do sleep 0.02; done\n")
        .agent("deaf.sh", "#!/bin/sh\n# /// agent\n# stop_grace = \"200ms\"\n# ///\ntrap '' TERM\necho ready\nwhile :; do sleep 0.02; done\n");
    crew.start();
    let pids = ["polite", "deaf"].map(|agent| {
        let log = crew.layout.log(&name(agent));
        crew.eventually("it is ready", || text_of(&log).contains("ready"));
        let pid = crew.running(agent, None);
        send(-pid, Signal::SIGSTOP);
        pid
    });
    crew.ok(&["stop", "polite", "deaf"]);
    for (agent, pid) in ["polite", "deaf"].into_iter().zip(pids) {
        crew.eventually("it is stopped", || crew.stands(agent) == Some(Standing::Stopped));
        assert!(!is_alive(pid));
    }
    assert!(text_of(&crew.layout.log(&name("polite"))).contains("goodbye"), "it had its say");
    crew.ends_well();
}

/// Forks as fast as it is let, in all its descendants, half of them in sessions of their own.
const BOMB: &str = r"#!/usr/bin/env python3
import os, time
while True:
    try:
        if os.fork() == 0 and os.getpid() % 2:
            os.setsid()
    except OSError:
        time.sleep(0.02)
";
/// So many processes and threads of the whole crew; the bomb takes all that is left of them.
const BOUND: usize = 120;

#[test]
fn a_fork_bomb_is_ended_by_name_and_the_others_go_on() {
    let Some(cgroup) = Cgroup::pids("a_fork_bomb_is_ended_by_name_and_the_others_go_on") else { return };
    cgroup.write("pids.max", &BOUND.to_string());
    let mut crew = Crew::new();
    crew.sleeper("bystander").agent("worker.sh", HANDLER);
    cgroup.start(&mut crew);
    let bystander = crew.running("bystander", None);
    let first = crew.submit("work", "1");
    crew.eventually("tasks are done", || crew.is_done(&first));
    // Only a file that appears: should the group not hold, it is not there before that is known.
    assert_eq!(cgroup.read("pids.max"), BOUND.to_string());
    crew.agent("bomb.py", BOMB);
    crew.eventually("nothing can be forked any more", || {
        cgroup.read("pids.current").parse::<usize>().is_ok_and(|count| count >= BOUND)
    });
    let second = crew.submit("work", "2");
    crew.fact("the task is taken up", |fact| match fact {
        Fact::Submitted { task, .. } if *task == second => Some(()),
        _ => None,
    });
    crew.ok(&["stop", "bomb"]);
    crew.eventually("the bomb is over", || crew.stands("bomb") == Some(Standing::Stopped));
    let left = crew.processes();
    assert!(!left.iter().any(|(_, command)| command.contains("bomb.py")), "{left:?}");
    crew.eventually("the task is done", || crew.is_done(&second));
    assert_eq!(crew.pid("bystander"), Some(bystander));
    crew.ends_well();
}

/// Leaves a process behind that holds its output open and hides: another session, none of its environment. Two
/// agents run, so that it cannot be told whose it is.
const HIDES: &str = r"#!/bin/sh
echo begun
env -i setsid sh -c 'echo $$ >hidden; exec sleep 1000' &
until [ -s hidden ]; do sleep 0.01; done
echo ended
exit 1
";

#[test]
fn what_holds_an_agents_output_open_after_it_delays_nothing_and_loses_nothing() {
    let mut crew = Crew::new();
    crew.sleeper("bystander");
    crew.start();
    crew.running("bystander", None);
    crew.agent("hides.sh", HIDES);
    let hidden = pid_in(&crew, "hidden");
    // Its output is complete though somebody still could add to it, and it is started again.
    crew.fact("its end is told", |fact| match fact {
        Fact::Exited { agent, .. } if agent.as_str() == "hides" => Some(()),
        _ => None,
    });
    let log = crew.layout.log(&name("hides"));
    crew.eventually("all it said is kept", || text_of(&log).starts_with("begun\nended\n"));
    crew.eventually("it is tried again", || text_of(&log).matches("begun").count() >= 2);
    crew.ends_well();
    crew.eventually("what hid ends with the crew", || !is_alive(hidden));
}

/// Says which descriptors it was given, and what they are.
const LISTS: &str = r#"#!/usr/bin/env python3
import os, time
found = []
for fd in os.listdir("/proc/self/fd"):
    try:
        found.append(fd + " " + os.readlink("/proc/self/fd/" + fd))
    except OSError:
        pass
with open("made", "w") as file:
    file.write("\n".join(found) + "\n")
os.rename("made", "descriptors")
time.sleep(1000)
"#;

/// The descriptors that an agent found, by their numbers.
fn descriptors(crew: &Crew) -> BTreeSet<String> {
    let told = crew.path("descriptors");
    crew.eventually("it tells", || told.exists());
    text_of(&told).lines().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect()
}

#[test]
fn an_agent_inherits_nothing_not_even_what_the_supervisor_did() {
    let mut crew = Crew::new();
    crew.agent("lists.py", LISTS);
    // As `flock FILE nightcrew run` does, or a shell that redirects: the descriptor is not the supervisor's own.
    let held = "exec 7>held 9<. && exec \"$@\"";
    crew.spawn_supervisor_under(&["sh", "-c", held, "sh"], &[], &[]);
    let expected: BTreeSet<String> = ["0", "1", "2"].map(str::to_owned).into();
    assert_eq!(descriptors(&crew), expected, "{}", text_of(&crew.path("descriptors")));
    crew.ends_well();
}

/// Lets go of nothing that it was given, in a daemon that nobody sees end.
const CLINGS: &str = "#!/bin/sh\nsetsid sh -c 'echo $$ >clings; exec sleep 1000' &\nwait\n";

#[test]
fn the_crews_lock_is_free_once_its_supervisor_was_killed_whatever_its_agents_hold() {
    let mut crew = Crew::new();
    crew.agent("clings.sh", CLINGS);
    crew.start();
    let clinging = pid_in(&crew, "clings");
    crew.signal_supervisor(Signal::SIGKILL);
    crew.supervisors_end();
    assert!(is_alive(clinging), "it outlives the supervisor");
    let locked = [crew.layout.crew().to_owned(), crew.layout.supervisor_lock()];
    for pid in crew.processes().iter().map(|(pid, _)| *pid) {
        let held = fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("ours")
            .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        let held: Vec<_> = held.filter(|path| locked.contains(path)).collect();
        assert!(held.is_empty(), "{pid} holds {held:?}");
    }
    // It waits until the new one holds the crew.
    crew.start();
    crew.eventually("the one before is ended", || !is_alive(clinging));
    crew.ends_well();
}

#[test]
fn agents_that_close_their_streams_or_signal_their_group_harm_nobody() {
    let mut crew = Crew::new();
    crew.sleeper("bystander").agent("worker.sh", HANDLER);
    crew.agent("closes.sh", "#!/bin/sh\nexec <&- >&- 2>&-\necho $$ >closed\nexec sleep 1000\n");
    crew.agent("moves.py", "#!/usr/bin/env python3\nimport os, time\nif os.fork() == 0:\n    os.setpgid(0, 0)\n    open('moved', 'w').write('%d\\n' % os.getpid())\ntime.sleep(1000)\n");
    crew.start();
    let bystander = crew.running("bystander", None);
    let (closes, moved) = (pid_in(&crew, "closed"), pid_in(&crew, "moved"));
    crew.agent("kills.sh", "#!/bin/sh\necho struck >>struck\nkill -9 0\n");
    crew.eventually("it struck twice", || text_of(&crew.path("struck")).lines().count() >= 2);
    let ends = |fact: &Fact| matches!(fact, Fact::Exited { agent, .. } if agent.as_str() != "kills");
    let task = crew.submit("work", "1");
    crew.eventually("tasks are done", || crew.is_done(&task));
    assert!([bystander, closes, moved].into_iter().all(is_alive), "{}", crew.told());
    assert_eq!(crew.count(ends), 1, "the worker's, which was done: {}", crew.told());
    crew.ends_well();
    assert!(![bystander, closes, moved].into_iter().any(is_alive), "those that moved or closed end too");
}

/// Writes what it was given to a file, as bytes.
const SHOWS: &str = "#!/bin/sh\n# /// agent\n# pass_env = [\"ODD\", \"EMPTY\"]\n# restart = \"never\"\n# ///\n\
                     cp /proc/self/environ shown.new; mv shown.new shown\nexec sleep 1000\n";

#[test]
fn odd_variables_arrive_as_they_are_and_impossible_ones_are_refused_with_their_reason() {
    let mut crew = Crew::new();
    crew.agent("shows.sh", SHOWS).sleeper("bystander");
    crew.agent("nul.sh", "#!/bin/sh\n# /// agent\n# [env]\n# BAD = \"a\\u0000b\"\n# ///\nexec sleep 1000\n");
    crew.agent("named.sh", "#!/bin/sh\n# /// agent\n# [env]\n# \"a=b\" = \"c\"\n# ///\nexec sleep 1000\n");
    crew.put(&crew.path(".env"), "QUOTED='a b  \"c\" $HOME \\n'\nUNICODE=größe\n", 0o600);
    // Set by printf, because no string of ours can hold such bytes.
    let odd = "ODD=$(printf 'x\\377\\200 = y\\n\\tz'); export ODD EMPTY=; exec \"$@\"";
    crew.spawn_supervisor_under(&["sh", "-c", odd, "sh"], &[], &[]);
    let shown = crew.path("shown");
    crew.eventually("it shows", || shown.exists());
    let bytes = fs::read(&shown).expect("read");
    let variables: BTreeSet<&[u8]> = bytes.split(|byte| *byte == 0).collect();
    for expected in [
        &b"ODD=x\xff\x80 = y\n\tz"[..],
        b"EMPTY=",
        b"QUOTED=a b  \"c\" $HOME \\n",
        "UNICODE=größe".as_bytes(),
    ] {
        assert!(variables.contains(expected), "{}: {}", expected.escape_ascii(), bytes.escape_ascii());
    }
    for refused in ["nul", "named"] {
        let refusal = crew.await_some(&format!("{refused} is refused"), || crew.status(refused)?.refusal);
        assert!(refusal.reason.contains("line 4") && !refusal.remedy.is_empty(), "{refusal:?}");
    }
    crew.running("bystander", None);
    crew.ends_well();
}

#[test]
fn a_lock_that_names_a_pid_that_is_another_process_by_now_is_vacated_and_that_one_left_alone() {
    let mut crew = Crew::new();
    crew.start();
    let task = crew.submit("work", "1");
    let stranger = crew.outsider("sleep", &["1000"]);
    crew.eventually("it is claimed", || {
        crew.nightcrew(&["claim", "work", "--owner-pid", &stranger.pid()]).status.success()
    });
    crew.fact("the claim is known", |fact| matches!(fact, Fact::Claimed { .. }).then_some(()));
    crew.signal_supervisor(Signal::SIGKILL);
    crew.supervisors_end();
    // The same pid, but its owner began a tick earlier: the process that bears it now is another.
    let path = crew.layout.lock(&task);
    let mut lock: serde_json::Value = serde_json::from_str(&text_of(&path)).expect("the lock's line");
    lock["start"] = (lock["start"].as_u64().expect("a start time") - 1).into();
    crew.put(&path, &format!("{lock}\n"), 0o644);
    crew.start();
    crew.fact("it is vacated", |fact| match fact {
        Fact::Vacated { task: of, .. } if *of == task => Some(()),
        _ => None,
    });
    crew.agent("worker.sh", HANDLER);
    crew.eventually("another does it", || crew.is_done(&task));
    let pid: i32 = stranger.pid().parse().expect("a pid");
    assert!(
        is_alive(pid) && Path::new(&format!("/proc/{pid}")).exists(),
        "a process that is not ours lives on"
    );
    drop(stranger);
    crew.ends_well();
}
