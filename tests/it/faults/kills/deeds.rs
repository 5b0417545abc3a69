//! What commands do to a crew that no supervisor works just then, and what must be there if one is killed in the
//! midst of it; and those that ask a supervisor, with one that they ask.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nightcrew::protocol::layout::Shelf;
use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::name::TaskId;
use nightcrew::protocol::task::{Phase, TaskRecord};
use nix::errno::Errno;

use crate::crew::{Crew, name, text_of};
use crate::survives::gate;

use super::judge::{Acknowledged, Fate, NOTES, files_below, judge};
use super::story::{WORKER, was_killed};
use super::tracer::{Counts, End, HELD_BACK, Point, Trace, follow};

/// The task that is claimed by hand.
const TASK: &str = "by-hand";
const RESULT: &str = "made by hand\n";
/// A run that no supervisor knows: the next one takes it for one that has died.
const RUN: &str = "01JD0000000000000000000000";
/// What is submitted at once, a line each.
const BATCH: [&str; 2] = ["submitted", "second"];
/// A task that fails for good whenever it is tried.
const DEAD: &str = "dead-letter";
const DOOMED: &str = "#!/bin/sh\n# /// agent\n# handles = [\"doomed\"]\n# ///\nexit 65\n";
/// A task whose result no gate lets pass.
const REVIEWED: &str = "reviewed";
const GATED: &str = "#!/bin/sh\n# /// agent\n# handles = [\"gated\"]\n# gate = \"shut\"\n# ///\n\
                     echo 'made behind a gate' >\"$NIGHTCREW_OUTPUT\"\n";
const RESULT_BEHIND_GATE: &str = "made behind a gate\n";
/// What a step pays for; it counts how often, in the crew's directory.
const PAY: &str = "#!/bin/sh\necho paid >>paid\necho 'made by paying'\n";
/// Like [`HELD_BACK`], of a command that reads what is handed in at once.
const FED: &str = r#"read -r go; exec "$0" "$@" <"$LINES""#;
/// What a command exits with when there is nothing of what it names.
const NOTHING_THERE: i32 = 66;

/// How a crew stands before a command is tried on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scene {
    /// The task may be claimed.
    Ready,
    /// It is held by a process that lives.
    Held,
    /// It was claimed by a run, which has beaten.
    HeldByRun,
    /// The crew is halted and the worker stopped.
    Halted,
}

/// What a command is to bring about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// Nothing: it only reads.
    Reading,
    /// A switch or a sign of life: files and no more.
    Files,
    /// Another task, which the worker does.
    Work,
    /// The task is held, by a process that lives; it can then be handed in.
    Claim,
    /// The task is done, with its result.
    Done,
    /// It failed once, and waits.
    Failed,
    /// It may be claimed again.
    Back,
    /// One more value in memory.
    Value,
    /// Several more tasks, which the worker does.
    Batch,
    /// A dead letter is tried once more.
    Replay,
    /// A step is recorded.
    Step,
    /// A supervisor makes a dead letter of the task.
    Cancel,
    /// A supervisor takes a result that lay in review.
    Approve,
}

/// A command, and what it is to bring about. Of its words `OWNER` stands for a process that lives, `RESULT` for a
/// file, `PAY` for a program, and `VALUE` for a value of its own.
struct Deed {
    words: &'static str,
    scene: Scene,
    aim: Aim,
    in_run: bool,
}

impl Deed {
    const fn by_hand(words: &'static str, scene: Scene, aim: Aim) -> Self {
        Self { words, scene, aim, in_run: false }
    }

    const fn in_run(words: &'static str, scene: Scene, aim: Aim) -> Self {
        Self { words, scene, aim, in_run: true }
    }
}

const DEEDS: &[Deed] = &[
    Deed::by_hand("submit work \"x\" --id submitted", Scene::Ready, Aim::Work),
    Deed::by_hand("submit -", Scene::Ready, Aim::Batch),
    Deed::by_hand("dead replay dead-letter", Scene::Ready, Aim::Replay),
    Deed::by_hand("cancel by-hand", Scene::Ready, Aim::Cancel),
    Deed::by_hand("review approve reviewed", Scene::Ready, Aim::Approve),
    Deed::by_hand("claim hand --owner-pid OWNER", Scene::Ready, Aim::Claim),
    Deed::by_hand("done by-hand --output RESULT", Scene::Held, Aim::Done),
    Deed::by_hand("fail by-hand why", Scene::Held, Aim::Failed),
    Deed::by_hand("release by-hand", Scene::Held, Aim::Back),
    Deed::by_hand("remember append notes VALUE", Scene::Ready, Aim::Value),
    Deed::in_run("claim hand", Scene::Ready, Aim::Back),
    Deed::in_run("done by-hand --output RESULT", Scene::HeldByRun, Aim::Done),
    Deed::in_run("step write -- PAY", Scene::HeldByRun, Aim::Step),
    Deed::in_run("beat --note busy", Scene::HeldByRun, Aim::Files),
    Deed::by_hand("halt reason", Scene::Ready, Aim::Files),
    Deed::by_hand("stop worker", Scene::Ready, Aim::Files),
    Deed::by_hand("resume", Scene::Halted, Aim::Files),
    Deed::by_hand("start worker", Scene::Halted, Aim::Files),
    Deed::by_hand("status", Scene::Ready, Aim::Reading),
    Deed::by_hand("tasks", Scene::Ready, Aim::Reading),
    Deed::by_hand("logs", Scene::Ready, Aim::Reading),
    Deed::by_hand("recall notes", Scene::Ready, Aim::Reading),
    Deed::by_hand("check", Scene::Ready, Aim::Reading),
];

/// What lies in a crew's state, but for what is being made.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files_of(crew: &Crew) -> Files {
    let state = crew.layout.state();
    let files = files_below(&state).into_iter().filter(|path| !path.starts_with(crew.layout.tmp_dir()));
    let below = |path: &PathBuf| path.strip_prefix(&state).expect("below").to_owned();
    files.map(|path| (below(&path), fs::read(&path).unwrap_or_default())).collect()
}

/// Crews to try commands on.
pub(super) struct Stage {
    crews: BTreeMap<Scene, Crew>,
    outside: tempfile::TempDir,
}

/// What a command does that nobody kills.
pub(super) struct Act {
    pub(super) counts: Counts,
    deed: &'static Deed,
    before: Files,
    after: Files,
}

impl Act {
    pub(super) fn name(&self) -> &'static str {
        self.deed.words
    }
}

impl Stage {
    /// # Errors
    /// If nothing can be traced here.
    pub(super) fn set() -> Result<Self, Errno> {
        let mut stage = Self { crews: BTreeMap::new(), outside: tempfile::tempdir().expect("a directory") };
        let outside = stage.outside.path();
        fs::write(outside.join("result"), RESULT).expect("written");
        let lines = BATCH.map(|id| format!("{{\"kind\":\"work\",\"id\":\"{id}\",\"payload\":\"x\"}}\n"));
        fs::write(outside.join("lines"), lines.concat()).expect("written");
        let mut crew = Crew::new();
        crew.put(&outside.join("pay"), PAY, 0o755);
        crew.agent("worker.sh", WORKER).agent("doomed.sh", DOOMED).agent("gated.sh", GATED);
        gate(&crew, "shut", "exit 1");
        crew.start();
        crew.ok(&["submit", "doomed", "0", "--id", DEAD]);
        crew.ok(&["submit", "gated", "0", "--id", REVIEWED]);
        crew.eventually("one is dead", || is_at(&crew, &name(DEAD), &Fate::Dead(1)));
        crew.eventually("one is in review", || is_at(&crew, &name(REVIEWED), &Fate::Review));
        crew.ok(&["submit", "hand", "0", "--id", TASK]);
        crew.ok(&["remember", "--wait", "append", NOTES, "\"first\""]);
        crew.eventually("it may be claimed", || text_of(&crew.layout.ready(&name("hand"))).contains(TASK));
        assert!(crew.term().success(), "{}", crew.told());
        let preparations = [
            (Scene::Held, vec![Deed::by_hand("claim hand --owner-pid OWNER", Scene::Held, Aim::Claim)]),
            (
                Scene::HeldByRun,
                vec![
                    Deed::in_run("claim hand", Scene::HeldByRun, Aim::Claim),
                    Deed::in_run("beat", Scene::HeldByRun, Aim::Files),
                ],
            ),
            (
                Scene::Halted,
                vec![
                    Deed::by_hand("halt reason", Scene::Halted, Aim::Files),
                    Deed::by_hand("stop worker", Scene::Halted, Aim::Files),
                ],
            ),
        ];
        for (scene, deeds) in preparations {
            let copy = Crew::copy_of(&crew);
            for deed in &deeds {
                let trace = stage.perform(&copy, deed, "", None)?;
                assert_eq!(trace.end, End::Exited(0), "{}: {}", deed.words, text_of(&copy.log()));
            }
            stage.crews.insert(scene, copy);
        }
        stage.crews.insert(Scene::Ready, crew);
        Ok(stage)
    }

    /// Every command, as it is when nobody kills it.
    pub(super) fn acts(&self) -> Vec<Act> {
        let acts = DEEDS.iter().map(|deed| {
            let mut crew = Crew::copy_of(&self.crews[&deed.scene]);
            let before = files_of(&crew);
            if deed.asks() {
                supervise(&mut crew);
            }
            let trace = self.perform(&crew, deed, "killed", None).expect("it can be traced");
            assert_eq!(trace.end, End::Exited(0), "{}: {}", deed.words, text_of(&crew.log()));
            if deed.asks() {
                assert!(crew.term().success(), "{}", crew.told());
            }
            Act { counts: trace.counts, deed, before, after: files_of(&crew) }
        });
        acts.collect()
    }

    fn perform(&self, crew: &Crew, deed: &Deed, value: &str, point: Option<&Point>) -> Result<Trace, Errno> {
        let outside = |file: &str| self.outside.path().join(file).display().to_string();
        let words = deed.words.split(' ').map(|word| match word {
            "OWNER" => std::process::id().to_string(),
            "RESULT" => outside("result"),
            "PAY" => outside("pay"),
            "VALUE" => format!("\"{value}\""),
            word => word.to_owned(),
        });
        let log = fs::OpenOptions::new().create(true).append(true).open(crew.log()).expect("a log");
        let mut command = crew.awaiting(if deed.aim == Aim::Batch { FED } else { HELD_BACK });
        command.env("LINES", outside("lines"));
        command.args(words).stdout(Stdio::null()).stderr(log);
        if deed.in_run {
            let heartbeat = crew.layout.heartbeat(&name("worker"));
            command.env("NIGHTCREW_RUN", RUN).env("NIGHTCREW_AGENT", "worker");
            command.env("NIGHTCREW_HEARTBEAT", heartbeat);
        }
        follow(&mut command, point, |_| {})
    }

    /// Kills the command at a point; what it was to do must be done wholly or not at all, and the same command once
    /// more does it. False if the point was not reached.
    pub(super) fn kill_at(&self, act: &Act, point: &Point) -> bool {
        let deed = act.deed;
        let mut crew = Crew::copy_of(&self.crews[&deed.scene]);
        if deed.asks() {
            supervise(&mut crew);
        }
        let trace = self.perform(&crew, deed, "killed", Some(point)).expect("it can be traced");
        let killed = was_killed(&trace);
        if deed.asks() {
            self.ask_again(&mut crew, deed, killed);
            return killed;
        }
        let found = files_of(&crew);
        act.is_whole(&found);
        if killed && found == act.before {
            // Nothing was done yet, and what was being made is cleared away by any start.
            return killed;
        }
        if killed {
            let paid = paid(&crew);
            let again = self.perform(&crew, deed, "retried", None).expect("it can be traced").end;
            // The claim that was killed may hold the task; what was to be replayed may lie in `new/`.
            let is_held = again == End::Exited(NOTHING_THERE)
                && matches!(deed.aim, Aim::Claim | Aim::Back | Aim::Replay);
            assert!(again == End::Exited(0) || is_held, "once more: {again:?}\n{}", text_of(&crew.log()));
            let is_recorded = found.keys().any(|path| path.extension().is_some_and(|is| is == "step"));
            assert!(!is_recorded || paid == self::paid(&crew), "it is recorded, and was paid for again");
        }
        let found = files_of(&crew);
        if deed.aim != Aim::Value {
            // Where a step is recorded nobody looks at its lock, which goes with it.
            let kept: Vec<_> = found.keys().filter(|path| !is_step_lock(path)).collect();
            assert!(kept.iter().copied().eq(act.after.keys()), "{kept:?}\n{:?}", act.after.keys());
        }
        if !matches!(deed.aim, Aim::Reading | Aim::Files) {
            come_to_rest(&mut crew, deed, killed);
        }
        killed
    }
}

impl Stage {
    /// A supervisor was asked, or not, by one that was killed; the same command once more has it done.
    fn ask_again(&self, crew: &mut Crew, deed: &Deed, killed: bool) {
        let acknowledged = deed.acknowledged(killed);
        if killed {
            let end = self.perform(crew, deed, "retried", None).expect("it can be traced").end;
            // It is refused where the supervisor has done already what the first one asked for.
            crew.eventually("it is as it was asked", || is_settled(crew, &acknowledged));
            assert!(matches!(end, End::Exited(0 | 1 | NOTHING_THERE)), "once more: {end:?}\n{}", crew.told());
            assert!(crew.term().success(), "{}", crew.told());
            // Nobody removes an answer but who asked, and what was being made is cleared away by the next start.
            for answer in files_below(&crew.layout.answers()) {
                fs::remove_file(answer).expect("it lies there");
            }
            supervise(crew);
        }
        rests(crew, &acknowledged);
    }
}

/// True for the lock of a step, in the crew's state.
fn is_step_lock(path: &Path) -> bool {
    path.starts_with("steps") && path.extension().is_some_and(|is| is == "lock")
}

/// How often a step was paid for.
fn paid(crew: &Crew) -> usize {
    text_of(&crew.path("paid")).lines().count()
}

/// Starts the next supervisor.
fn supervise(crew: &mut Crew) {
    let starts = |crew: &Crew| crew.count(|fact| matches!(fact, Fact::SupervisorStarted { .. }));
    let before = starts(crew);
    crew.spawn_supervisor(&[], &[]);
    crew.eventually("the next supervisor has begun", || starts(crew) > before);
}

/// The next supervisor makes of it what it should be.
fn come_to_rest(crew: &mut Crew, deed: &Deed, killed: bool) {
    supervise(crew);
    if deed.aim == Aim::Claim {
        crew.ok(&["done", TASK]);
    }
    rests(crew, &deed.acknowledged(killed));
}

/// All comes to be as it should.
fn rests(crew: &mut Crew, acknowledged: &Acknowledged) {
    crew.eventually("all is as it should be", || is_settled(crew, acknowledged));
    assert!(crew.term().success(), "{}", crew.told());
    let wrong = judge(crew, acknowledged);
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), crew.told());
}

impl Deed {
    /// What must be there once it was performed, once more if it was `killed`.
    fn acknowledged(&self, killed: bool) -> Acknowledged {
        let mut acknowledged = Acknowledged::default();
        acknowledged.values.insert("first".to_owned());
        let dead = Fate::Dead(if self.aim == Aim::Replay { 2 } else { 1 });
        acknowledged.tasks.insert(name(DEAD), dead);
        let approved = Fate::Done(Some(RESULT_BEHIND_GATE.to_owned()));
        acknowledged
            .tasks
            .insert(name(REVIEWED), if self.aim == Aim::Approve { approved } else { Fate::Review });
        let fate = match self.aim {
            Aim::Done => Fate::Done(Some(RESULT.to_owned())),
            Aim::Claim => Fate::Done(None),
            Aim::Failed => Fate::Failed(1),
            Aim::Cancel => Fate::Dead(0),
            Aim::Reading
            | Aim::Files
            | Aim::Work
            | Aim::Back
            | Aim::Value
            | Aim::Batch
            | Aim::Replay
            | Aim::Step
            | Aim::Approve => Fate::Ready,
        };
        acknowledged.tasks.insert(name(TASK), fate);
        let tasks = match self.aim {
            Aim::Work => &BATCH[..1],
            Aim::Batch => &BATCH[..],
            _ => &[],
        };
        for task in tasks {
            acknowledged.tasks.insert(name(task), Fate::Done(Some("made of \"x\"\n".to_owned())));
        }
        if self.aim == Aim::Value {
            acknowledged.values.insert(if killed { "retried" } else { "killed" }.to_owned());
        }
        acknowledged
    }

    /// True if it asks a running supervisor.
    fn asks(&self) -> bool {
        matches!(self.aim, Aim::Cancel | Aim::Approve)
    }
}

impl Act {
    /// Fails if anything is there that the command would not have left, or a part of it, or if something is gone.
    fn is_whole(&self, found: &Files) {
        for (path, bytes) in found {
            let before = self.before.get(path);
            let is_same = before == Some(bytes) || self.after.get(path) == Some(bytes);
            // Nonces and times differ from one time to the next.
            let is_like = self.after.get(path).is_some_and(|after| {
                let is_json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).is_ok();
                bytes.ends_with(b"\n") && is_json(bytes) && is_json(after)
                    // The line of a step's record, and what it printed.
                    || is_json(line_of(bytes)) && bytes.len() == after.len() && behind(bytes) == behind(after)
            });
            // Who finds it takes it: the lock is the kernel's, and the file's name no more than its place.
            let is_free = is_step_lock(path);
            let shown = String::from_utf8_lossy(bytes);
            assert!(
                is_same || is_free || before.is_none() && is_like || is_appended(before, bytes),
                "{}: {shown}",
                path.display()
            );
        }
        let gone =
            self.before.keys().find(|path| !found.contains_key(*path) && self.after.contains_key(*path));
        assert!(gone.is_none(), "it is gone: {gone:?}");
    }
}

/// The first line, with its newline.
fn line_of(bytes: &[u8]) -> &[u8] {
    bytes.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// What comes after the first line.
fn behind(bytes: &[u8]) -> &[u8] {
    &bytes[line_of(bytes).len()..]
}

/// True if whole lines were appended.
fn is_appended(before: Option<&Vec<u8>>, found: &[u8]) -> bool {
    before.is_some_and(|before| found.starts_with(before) && found.ends_with(b"\n"))
}

/// Everything that was handed in was dealt with, and each task is where it should be.
fn is_settled(crew: &Crew, acknowledged: &Acknowledged) -> bool {
    let layout = &crew.layout;
    let is_idle = [layout.new_tasks(), layout.outcomes(), layout.queues()]
        .iter()
        .all(|dir| files_below(dir).is_empty());
    is_idle && acknowledged.tasks.iter().all(|(task, fate)| is_at(crew, task, fate))
}

fn is_at(crew: &Crew, task: &TaskId, fate: &Fate) -> bool {
    let layout = &crew.layout;
    if layout.lock(task).exists() {
        return false;
    }
    let read = |path: PathBuf| serde_json::from_str::<TaskRecord>(&text_of(&path)).ok();
    let is_open = layout.task(task).exists();
    match fate {
        Fate::Done(_) => layout.ended(Shelf::Done, task).exists() && !is_open,
        Fate::Dead(times) => {
            let replays = times.saturating_sub(1);
            read(layout.ended(Shelf::Dead, task)).is_some_and(|record| record.replays == replays) && !is_open
        }
        Fate::Review => layout.ended(Shelf::Review, task).exists() && !is_open,
        Fate::Failed(times) => read(layout.task(task)).is_some_and(|record| record.failures == *times),
        Fate::Ready => read(layout.task(task)).is_some_and(|record| record.state == Phase::Ready),
    }
}
