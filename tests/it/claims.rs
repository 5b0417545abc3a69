//! One task, one owner.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::task::{Outcome, Verdict};
use nix::sys::signal::Signal;

use crate::crew::{Crew, name, send, text_of};

const HANDLER: &str = r#"#!/bin/sh
# /// agent
# handles = ["work"]
# ///
cat >"$NIGHTCREW_OUTPUT"
"#;

/// Pulls one task, says so, and hangs on to it.
const KEEPER: &str = r#"#!/bin/sh
while :; do
    task=$(nightcrew claim work) && break
    sleep 0.05
done
echo "$task" >"$NIGHTCREW_SCRATCH/holds"
exec sleep 1000
"#;

#[test]
fn a_handler_gets_a_process_a_task_and_its_output_is_kept() {
    let mut crew = Crew::new();
    crew.agent("worker.sh", HANDLER);
    crew.start();
    let task = crew.submit("work", r#"{"n":1}"#);
    crew.eventually("it is done", || crew.is_done(&task));
    assert_eq!(text_of(&crew.layout.result(&task)).trim(), r#"{"n":1}"#);
    let told = crew.ok(&["submit", "work", r#"{"n":1}"#]);
    assert!(told.contains("duplicate"), "the same again is none: {told}");
    crew.ends_well();
}

#[test]
fn the_lock_of_a_dead_run_is_vacated_at_once_and_another_does_the_task() {
    let mut crew = Crew::new();
    crew.agent("keeper.sh", KEEPER);
    crew.start();
    let task = crew.submit("work", r#"{"n":1}"#);
    let holds = crew.scratch("keeper", "holds");
    crew.eventually("the keeper holds it", || text_of(&holds).trim() == task.as_str());
    crew.fact("the claim is known", |fact| matches!(fact, Fact::Claimed { .. }).then_some(()));
    // Its next run is to find nothing: this one's death alone frees the task.
    crew.ok(&["stop", "keeper"]);
    crew.eventually("its lock is taken away", || !crew.layout.lock(&task).exists());
    crew.fact("and that is told", |fact| match fact {
        Fact::Vacated { agent, token, next_token, .. } if agent.as_str() == "keeper" => {
            assert!(next_token > token);
            Some(())
        }
        _ => None,
    });
    crew.agent("worker.sh", HANDLER);
    crew.eventually("another does it", || crew.is_done(&task));
    crew.ends_well();
}

#[test]
fn the_lock_of_a_killed_owner_is_vacated_and_its_late_outcome_refused() {
    let mut crew = Crew::new();
    crew.start();
    let task = crew.submit("work", "1");
    let mut owner = crew.outsider("sleep", &["1000"]);
    crew.eventually("it is claimed", || {
        crew.nightcrew(&["claim", "work", "--owner-pid", &owner.pid()]).status.success()
    });
    crew.fact("the claim is known", |fact| matches!(fact, Fact::Claimed { .. }).then_some(()));
    let lock: serde_json::Value =
        serde_json::from_str(&text_of(&crew.layout.lock(&task))).expect("the lock's line");
    owner.kill();
    crew.eventually("its lock is taken away", || !crew.layout.lock(&task).exists());

    let token = lock["token"].as_u64().expect("a token");
    let nonce = lock["nonce"].as_str().expect("a nonce").to_owned();
    let agent = name("operator");
    let outcome = Outcome::new(task.clone(), token, nonce.clone(), Verdict::Done, None);
    hand_in(&crew, &outcome);
    crew.fact("the late outcome is refused", |fact| match fact {
        Fact::OutcomeRefused { task: of, agent: by, .. } if *of == task && *by == agent => Some(()),
        _ => None,
    });
    let aside = crew.layout.refused_outcomes().join(format!("{task}.{token}.{nonce}.json"));
    crew.eventually("it is kept with its reason", || {
        aside.exists() && aside.with_extension("reason").exists()
    });
    assert!(!crew.is_done(&task));

    let mut second = crew.outsider("sleep", &["1000"]);
    crew.eventually("another may claim it", || {
        crew.nightcrew(&["claim", "work", "--owner-pid", &second.pid()]).status.success()
    });
    crew.ok(&["done", task.as_str()]);
    crew.eventually("and does it", || crew.is_done(&task));
    second.kill();
    crew.ends_well();
}

/// As an owner does: whole, and renamed in.
fn hand_in(crew: &Crew, outcome: &Outcome) {
    let dir = crew.layout.outcomes_of(&name("operator"));
    fs::create_dir_all(&dir).expect("a directory");
    let mut line = serde_json::to_vec(outcome).expect("JSON");
    line.push(b'\n');
    let temp = crew.path("late.json");
    fs::write(&temp, line).expect("written");
    fs::rename(temp, dir.join(format!("{}.{}.{}.json", outcome.task, outcome.token, outcome.nonce)))
        .expect("renamed");
}

#[test]
fn a_live_owners_lock_is_not_touched() {
    let mut crew = Crew::new();
    crew.agent("worker.sh", &HANDLER.replace("work", "other"));
    crew.start();
    let task = crew.submit("work", "1");
    let owner = crew.outsider("sleep", &["1000"]);
    crew.eventually("it is claimed", || {
        crew.nightcrew(&["claim", "work", "--owner-pid", &owner.pid()]).status.success()
    });
    crew.fact("the claim is known", |fact| matches!(fact, Fact::Claimed { .. }).then_some(()));
    let before = fs::metadata(crew.layout.lock(&task)).expect("a lock");
    // Everything is looked at again, and other work is done after that.
    crew.signal_supervisor(Signal::SIGHUP);
    let other = crew.submit("other", "1");
    crew.eventually("other work goes on", || crew.is_done(&other));
    let after = fs::metadata(crew.layout.lock(&task)).expect("the lock");
    assert_eq!((before.ino(), before.ctime_nsec()), (after.ino(), after.ctime_nsec()));
    assert_eq!(crew.count(|fact| matches!(fact, Fact::Vacated { .. })), 0);
    crew.ok(&["done", task.as_str()]);
    crew.eventually("its outcome is accepted", || crew.is_done(&task));
    drop(owner);
    crew.ends_well();
}

/// Submits tasks, and has each claimed, handed in and left by a process of its own, which exits at once.
const HASTY_OWNERS: &str = r#"
import json, os, sys, time
root = os.environ["NIGHTCREW_DIR"]
tasks = root + "/state/tasks"
count = int(sys.argv[1])
boot = open("/proc/sys/kernel/random/boot_id").read().strip()
ns = int(os.readlink("/proc/self/ns/pid")[5:-1])
os.makedirs(tasks + "/outcome/operator", exist_ok=True)

def publish(path, record, give):
    temp = "%s/state/tmp/.operator/%d.tmp" % (root, os.getpid())
    with open(temp, "w") as file:
        file.write(json.dumps(record, separators=(",", ":")) + "\n")
    give(temp, path)
    if give is os.link:
        os.unlink(temp)

def own(id):
    while True:
        try:
            record = json.load(open("%s/%s.json" % (tasks, id)))
            break
        except FileNotFoundError:
            time.sleep(0.001)
    start = int(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[19])
    claim = dict(v=1, task=id, token=record["token"], nonce="n" + id)
    owner = dict(agent="operator", pid=os.getpid(), start=start, boot=boot, ns=ns, at="2026-11-20T03:00:00Z")
    publish("%s/%s.lock" % (tasks, id), dict(claim, **owner), os.link)
    name = "%s/outcome/operator/%s.%d.n%s.json" % (tasks, id, record["token"], id)
    publish(name, dict(claim, status="done"), os.rename)

os.makedirs(root + "/state/tmp/.operator", exist_ok=True)
for n in range(count):
    id = "hasty-%d" % n
    task = dict(v=1, id=id, token=0, nonce="s%d" % n, kind="hasty", at="2026-11-20T03:00:00Z", payload=n)
    publish("%s/new/%s.json" % (tasks, id), task, os.link)
    pid = os.fork()
    if pid == 0:
        own(id)
        os._exit(0)
    os.waitpid(pid, 0)
"#;

#[test]
fn an_owner_that_hands_in_and_exits_is_always_accepted() {
    const COUNT: usize = 500;
    let mut crew = Crew::new();
    crew.start();
    let mut owners = crew.outsider("python3", &["-c", HASTY_OWNERS, &COUNT.to_string()]);
    assert!(owners.wait().success(), "{}", crew.told());
    crew.eventually("every outcome is accepted", || {
        let accepted = crew.ledger().into_iter().filter_map(|fact| match fact {
            Fact::Outcome { task, status, .. } if status == "done" => Some(task),
            _ => None,
        });
        accepted.collect::<BTreeSet<_>>().len() == COUNT
    });
    let lost = |fact: &Fact| matches!(fact, Fact::Vacated { .. } | Fact::OutcomeRefused { .. });
    assert_eq!(crew.count(lost), 0, "{}", crew.told());
    crew.ends_well();
}

/// Pulls until there is nothing, hands each task in, and is gone.
const HASTY_RUN: &str = r#"#!/bin/sh
# /// agent
# restart = "never"
# ///
task=$(nightcrew claim work) && nightcrew done "$task"
"#;

#[test]
fn a_run_that_hands_in_and_ends_is_always_accepted() {
    const COUNT: usize = 20;
    let mut crew = Crew::new();
    crew.start();
    for n in 0..COUNT {
        crew.submit("work", &n.to_string());
    }
    let ready = crew.layout.ready(&"work".parse().unwrap());
    crew.eventually("all are ready", || text_of(&ready).lines().count() == COUNT);
    for n in 0..COUNT {
        crew.agent(&format!("hasty-{n}.sh"), HASTY_RUN);
    }
    let accepted = |fact: &Fact| matches!(fact, Fact::Outcome { status, .. } if status == "done");
    crew.eventually("every outcome is accepted", || crew.count(accepted) == COUNT);
    assert_eq!(crew.count(|fact| matches!(fact, Fact::OutcomeRefused { .. })), 0, "{}", crew.told());
    crew.ends_well();
}

#[test]
fn a_failure_is_tried_again_and_a_bad_payload_is_not() {
    let mut crew = Crew::new();
    let fails = "#!/bin/sh\n# /// agent\n# handles = [\"shaky\"]\n# ///\n\
                 [ \"$NIGHTCREW_FAILURES\" -ge 1 ] || exit 1\n";
    let permanent = "#!/bin/sh\n# /// agent\n# handles = [\"bad\"]\n# ///\nexit 65\n";
    crew.agent("shaky.sh", fails).agent("strict.sh", permanent);
    crew.start();
    let (shaky, bad) = (crew.submit("shaky", "1"), crew.submit("bad", "1"));
    crew.eventually("the second try succeeds", || crew.is_done(&shaky));
    crew.eventually("a dead letter is kept", || crew.path(&format!("state/tasks/dead/{bad}.json")).exists());
    crew.ends_well();
}

#[test]
fn what_a_killed_run_held_waits_again_without_a_failure() {
    let mut crew = Crew::new();
    crew.agent("keeper.sh", KEEPER);
    crew.start();
    let task = crew.submit("work", "1");
    let holds = crew.scratch("keeper", "holds");
    crew.eventually("it is held", || text_of(&holds).trim() == task.as_str());
    let pid = crew.running("keeper", None);
    fs::remove_file(&holds).expect("removed");
    send(pid, Signal::SIGKILL);
    crew.eventually("its next run holds it", || text_of(&holds).trim() == task.as_str());
    let record: serde_json::Value =
        serde_json::from_str(&text_of(&crew.layout.task(&task))).expect("the record");
    assert_eq!(record["failures"], 0);
    crew.ends_well();
}

#[test]
fn claims_of_a_process_outside_any_run_leave_no_descriptors_behind() {
    let mut crew = Crew::new();
    crew.start();
    let owner = crew.outsider("sleep", &["1000"]);
    let pid = owner.pid();
    let open = || fs::read_dir(format!("/proc/{}/fd", crew.supervisor())).expect("ours").count();
    let mut before = 0;
    for n in 0..12 {
        let task = crew.submit("work", &n.to_string());
        crew.eventually("it may be claimed", || {
            text_of(&crew.layout.ready(&name("work"))).contains(task.as_str())
        });
        crew.ok(&["claim", "work", "--owner-pid", &pid]);
        crew.ok(&["done", task.as_str()]);
        crew.eventually("it is done", || crew.is_done(&task));
        before = if n == 1 { open() } else { before };
    }
    crew.eventually("none is left of ten claims", || open() < before + 5);
    drop(owner);
    crew.ends_well();
}
