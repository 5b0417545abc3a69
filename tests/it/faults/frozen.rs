//! What stands still for a while and then goes on: a task's owner, the supervisor, all together.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::status::Standing;
use nix::sys::signal::Signal;

use super::cgroup::Cgroup;
use super::needs;
use crate::crew::{Crew, is_alive, name, send, text_of};

/// How far the clock leaps at once: less than what the loop takes for a standstill of its own.
const LEAP: Duration = Duration::from_millis(900);
/// After so many readings of the clock the loop has turned: its own waiting takes one of them at most.
const READS_A_TURN: u64 = 4;
/// How often it leaps before the test looks what came of it.
const LEAPS_A_LOOK: u32 = 20;
/// Generous, for these are two thousand turns of the loop: it only ends a test that fails.
const PATIENCE: Duration = Duration::from_mins(3);
/// A claimed lock that did not change for so long has expired.
const LOCK_LIFE: Duration = Duration::from_mins(30);

/// The supervisor's monotonic clock in the hands of a test.
struct Leaps {
    library: PathBuf,
    file: PathBuf,
}

impl Leaps {
    /// Builds what stands between the supervisor and the clock; None, said aloud, where there is no C compiler.
    fn new(test: &str, crew: &Crew) -> Option<Self> {
        if !needs::program(test, "cc") {
            return None;
        }
        let leaps = Self { library: crew.path("leap.so"), file: crew.path("leap") };
        fs::write(crew.path("leap.c"), include_str!("leap.c")).expect("written");
        fs::write(&leaps.file, [0; 16]).expect("written");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&leaps.library).arg(crew.path("leap.c"));
        assert!(compiler.status().expect("cc runs").success());
        Some(leaps)
    }

    fn start(&self, crew: &mut Crew) {
        let text = |path: &PathBuf| path.display().to_string();
        crew.spawn_supervisor(&[], &[("LD_PRELOAD", &text(&self.library)), ("LEAP", &text(&self.file))]);
        crew.fact("it is there", |fact| matches!(fact, Fact::SupervisorStarted { .. }).then_some(()));
    }

    /// Lets time pass for the supervisor, and for nobody else, until `holds`; tells how much that was.
    #[track_caller]
    fn pass_until(&self, crew: &Crew, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
        let file = File::options().read(true).write(true).open(&self.file).expect("it is there");
        let mut leapt = Duration::ZERO;
        let begun = Instant::now();
        while !holds() {
            for _ in 0..LEAPS_A_LOOK {
                leapt += LEAP;
                let ns = i64::try_from(leapt.as_nanos()).expect("not that long").to_ne_bytes();
                file.write_all_at(&ns, 0).expect("written");
                let before = reads(&file);
                while reads(&file) < before + READS_A_TURN {
                    assert!(begun.elapsed() < PATIENCE, "not so after {leapt:?}: {what}\n{}", crew.told());
                    // Whoever waits for the clock is not told that it leapt: this makes the loop look at it.
                    crew.signal_supervisor(Signal::SIGHUP);
                    std::thread::sleep(Duration::from_micros(500));
                }
            }
        }
        leapt + begun.elapsed()
    }
}

/// How often the supervisor's main thread has read the clock.
fn reads(file: &File) -> u64 {
    let mut count = [0; 8];
    file.read_exact_at(&mut count, 8).expect("it is that long");
    u64::from_ne_bytes(count)
}

/// An honest owner outside any run: claims, waits until it may go on, hands in, by the command and by files alone.
const OWNER: &str = r#"
until task=$(nightcrew claim work --owner-pid $$); do sleep 0.05; done
token=$(sed 's/.*"token":\([0-9]*\).*/\1/' "state/tasks/$task.lock")
nonce=$(sed 's/.*"nonce":"\([^"]*\)".*/\1/' "state/tasks/$task.lock")
echo "$task" >holds
until [ -e proceed ]; do sleep 0.01; done
nightcrew done "$task"; echo $? >ended
mkdir -p state/tasks/output/operator state/tasks/outcome/operator
echo mine >"state/tasks/output/operator/$task.$token"
printf '{"v":1,"task":"%s","token":%s,"nonce":"%s","status":"done"}\n' "$task" "$token" "$nonce" >late
mv late "state/tasks/outcome/operator/$task.$token.$nonce.json"
"#;

/// Its answer is another's; each time it is begun is seen.
const WORKER: &str = "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# ///\n\
                      echo again >>tries\necho others >\"$NIGHTCREW_OUTPUT\"\n";

fn stop(crew: &Crew, pid: i32) {
    send(pid, Signal::SIGSTOP);
    crew.eventually("it stands still", || text_of(format!("/proc/{pid}/stat").as_ref()).contains(") T "));
}

#[test]
fn an_owner_that_wakes_after_its_locks_life_is_refused_and_another_did_the_task_once() {
    let test = "an_owner_that_wakes_after_its_locks_life_is_refused_and_another_did_the_task_once";
    let mut crew = Crew::new();
    let Some(leaps) = Leaps::new(test, &crew) else { return };
    leaps.start(&mut crew);
    let task = crew.submit("work", "1");
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_nightcrew"));
    let dir = binary.parent().expect("a directory").display();
    let mut owner = crew.outsider("sh", &["-c", &format!("PATH={dir}:$PATH\n{OWNER}")]);
    crew.eventually("it holds the task", || text_of(&crew.path("holds")).trim() == task.as_str());
    crew.fact("the claim is known", |fact| matches!(fact, Fact::Claimed { .. }).then_some(()));
    let pid: i32 = owner.pid().parse().expect("a pid");
    stop(&crew, pid);

    let is_vacated = |fact: &Fact| matches!(fact, Fact::Vacated { why, .. } if why.contains("expired"));
    let passed = leaps.pass_until(&crew, "its lock expires", || crew.count(is_vacated) > 0);
    assert!(passed >= LOCK_LIFE, "only {passed:?} had passed");
    assert!(is_alive(pid), "what is no run of ours is fenced, and not signalled");
    crew.agent("worker.sh", WORKER);
    crew.eventually("another does it", || crew.is_done(&task));

    fs::write(crew.path("proceed"), "").expect("written");
    send(pid, Signal::SIGCONT);
    assert!(owner.wait().success());
    assert_ne!(text_of(&crew.path("ended")).trim(), "0", "it is told that it comes too late");
    crew.fact("the late outcome is refused", |fact| match fact {
        Fact::OutcomeRefused { task: of, .. } if *of == task => Some(()),
        _ => None,
    });
    assert_eq!(text_of(&crew.layout.result(&task)), "others\n");
    assert_eq!(text_of(&crew.path("tries")), "again\n");
    crew.ends_well();
}

/// A run that claims a task, says so, and hands in when it may.
const KEEPER: &str = r#"#!/bin/sh
# /// agent
# isolation_grace = "GRACE"
# heartbeat = "500ms"
# ///
until task=$(nightcrew claim work); do echo beat >>"$NIGHTCREW_HEARTBEAT"; sleep 0.05; done
echo "$task" >holds
until [ -e proceed ]; do echo beat >>"$NIGHTCREW_HEARTBEAT"; sleep 0.02; done
echo mine >mine
nightcrew done "$task" --output mine
exec sleep 1000
"#;

/// Its beats are short: with it the watchdog looks often, in time that is not leapt over.
const PULSE: &str = "#!/bin/sh\n# /// agent\n# heartbeat = \"500ms\"\n# ///\n\
                     while :; do echo beat >>\"$NIGHTCREW_HEARTBEAT\"; sleep 0.05; done\n";

#[test]
fn a_run_that_sleeps_through_its_locks_life_is_withheld_then_ended_and_the_task_given_away_once() {
    let test = "a_run_that_sleeps_through_its_locks_life_is_withheld_then_ended_and_the_task_given_away_once";
    let mut crew = Crew::new();
    let Some(leaps) = Leaps::new(test, &crew) else { return };
    // It never beats, so that only its lock can tell of it.
    let silent =
        KEEPER.replace("# heartbeat = \"500ms\"\n", "").replace("echo beat >>\"$NIGHTCREW_HEARTBEAT\"", ":");
    crew.agent("keeper.sh", &silent.replace("GRACE", "1s"));
    leaps.start(&mut crew);
    let task = crew.submit("work", "1");
    crew.eventually("it holds the task", || text_of(&crew.path("holds")).trim() == task.as_str());
    crew.fact("the claim is known", |fact| matches!(fact, Fact::Claimed { .. }).then_some(()));
    let keeper = crew.running("keeper", None);
    crew.agent("worker.sh", WORKER);
    crew.eventually("another could do it", || crew.stands("worker") == Some(Standing::Idle));
    stop(&crew, keeper);

    let isolated = |fact: &Fact| matches!(fact, Fact::Isolated { why, .. } if why.contains("expire"));
    let passed = leaps.pass_until(&crew, "it is isolated", || crew.count(isolated) > 0);
    assert!(passed >= LOCK_LIFE, "only {passed:?} had passed");
    assert!(crew.layout.lock(&task).exists(), "its task is withheld with it");
    assert!(!crew.path("tries").exists() && is_alive(keeper));
    // Its grace is over at one of the watchdog's next looks.
    crew.agent("pulse.sh", PULSE);
    crew.eventually("another does the task", || crew.is_done(&task));
    assert!(!is_alive(keeper), "the owner was ended first");
    assert_eq!(text_of(&crew.path("tries")), "again\n");
    let facts = crew.ledger();
    let at = |is: &dyn Fn(&Fact) -> bool| facts.iter().position(is).expect("it is told");
    let killed = at(&|fact| matches!(fact, Fact::Killed { agent, .. } if agent.as_str() == "keeper"));
    let vacated = at(&|fact| matches!(fact, Fact::Vacated { task: of, .. } if *of == task));
    assert!(at(&isolated) < killed && killed < vacated, "{}", crew.told());
    crew.ends_well();
}

#[test]
fn an_isolated_owner_that_wakes_in_its_grace_finishes_its_task_itself() {
    let mut crew = Crew::new();
    crew.agent("keeper.sh", &KEEPER.replace("GRACE", "1h"));
    crew.start();
    let task = crew.submit("work", "1");
    crew.eventually("it holds the task", || text_of(&crew.path("holds")).trim() == task.as_str());
    crew.fact("the claim is known", |fact| matches!(fact, Fact::Claimed { .. }).then_some(()));
    let keeper = crew.running("keeper", None);
    crew.agent("worker.sh", WORKER);
    crew.eventually("another could do it", || crew.stands("worker") == Some(Standing::Idle));
    stop(&crew, keeper);
    crew.fact("it is isolated", |fact| matches!(fact, Fact::Isolated { .. }).then_some(()));
    // Others of its kind are done meanwhile: that is the evidence that this one was not given to them.
    let other = crew.submit("work", "2");
    crew.eventually("another task is done", || crew.is_done(&other));
    fs::write(crew.path("proceed"), "").expect("written");
    send(keeper, Signal::SIGCONT);
    crew.eventually("its outcome is accepted", || crew.is_done(&task));
    assert_eq!(text_of(&crew.layout.result(&task)), "mine\n");
    assert_eq!(text_of(&crew.path("tries")), "again\n", "the other task, and no more");
    assert_eq!(crew.count(|fact| matches!(fact, Fact::OutcomeRefused { .. })), 0);
    crew.ends_well();
}

/// Beats ten times an interval.
const BEATING: &str = "#!/bin/sh\n# /// agent\n# heartbeat = \"500ms\"\n# isolation_grace = \"1h\"\n# ///\n\
                       while :; do echo beat >>\"$NIGHTCREW_HEARTBEAT\"; sleep 0.05; done\n";

#[test]
fn a_machine_that_is_paused_and_wakes_isolates_nobody_and_goes_on() {
    let test = "a_machine_that_is_paused_and_wakes_isolates_nobody_and_goes_on";
    let Some(cgroup) = Cgroup::freezer(test) else { return };
    let agents = ["one", "two", "three"];
    let mut crew = Crew::new();
    for agent in agents {
        crew.agent(&format!("{agent}.sh"), BEATING);
    }
    crew.agent("worker.sh", WORKER);
    cgroup.start(&mut crew);
    let pids = agents.map(|agent| crew.running(agent, None));
    let beats = || agents.map(|agent| text_of(&crew.layout.heartbeat(&name(agent))).len());
    crew.eventually("they beat", || beats().iter().all(|beats| *beats > 0));

    let begun = Instant::now();
    let frozen = cgroup.freeze(&crew);
    let before = beats();
    let task = crew.submit("work", "1");
    // This is the fault itself: six intervals, where two isolate.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(beats(), before, "nothing moved");
    drop(frozen);
    let paused = begun.elapsed();

    crew.eventually("the task is done", || crew.is_done(&task));
    let beaten = beats();
    crew.eventually("they beat again", || beats().iter().zip(beaten).all(|(now, then)| *now > then + 50));
    // One that never beats is found out: by then the watchdog has judged all of them.
    crew.agent("silent.sh", &BEATING.replace("echo beat", ": quiet"));
    crew.fact("the silent one is isolated", |fact| match fact {
        Fact::Isolated { agent, .. } if agent.as_str() == "silent" => Some(()),
        _ => None,
    });
    assert_eq!(crew.count(|fact| matches!(fact, Fact::Isolated { .. })), 1, "{}", crew.told());
    assert_eq!(agents.map(|agent| crew.pid(agent)), pids.map(Some), "{}", crew.told());
    let gap = crew.fact("the pause is told", |fact| match fact {
        Fact::SupervisorPaused { gap_ms } => Some(Duration::from_millis(*gap_ms)),
        _ => None,
    });
    assert!(gap <= paused, "{gap:?} of {paused:?}");
    crew.ends_well();
}
