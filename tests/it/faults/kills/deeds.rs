//! What commands do to a crew that no supervisor works just then, and what must be there if one is killed in the
//! midst of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use nightcrew::protocol::layout::Shelf;
use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::name::TaskId;
use nightcrew::protocol::task::{Phase, TaskRecord};
use nix::errno::Errno;

use crate::crew::{Crew, name, text_of};

use super::judge::{Acknowledged, Fate, NOTES, files_below, judge};
use super::story::{WORKER, was_killed};
use super::tracer::{Counts, End, HELD_BACK, Point, Trace, follow};

/// The task that is claimed by hand.
const TASK: &str = "by-hand";
const RESULT: &str = "made by hand\n";
/// A run that no supervisor knows: the next one takes it for one that has died.
const RUN: &str = "01JD0000000000000000000000";
/// What `claim` exits with when there is nothing to claim.
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
}

/// A command, and what it is to bring about. Of its words `OWNER` stands for a process that lives, `RESULT` for a
/// file, and `VALUE` for a value of its own.
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
    Deed::by_hand("claim hand --owner-pid OWNER", Scene::Ready, Aim::Claim),
    Deed::by_hand("done by-hand --output RESULT", Scene::Held, Aim::Done),
    Deed::by_hand("fail by-hand why", Scene::Held, Aim::Failed),
    Deed::by_hand("release by-hand", Scene::Held, Aim::Back),
    Deed::by_hand("remember append notes VALUE", Scene::Ready, Aim::Value),
    Deed::in_run("claim hand", Scene::Ready, Aim::Back),
    Deed::in_run("done by-hand --output RESULT", Scene::HeldByRun, Aim::Done),
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
        fs::write(stage.outside.path().join("result"), RESULT).expect("written");
        let mut crew = Crew::new();
        crew.agent("worker.sh", WORKER);
        crew.start();
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
            let crew = Crew::copy_of(&self.crews[&deed.scene]);
            let before = files_of(&crew);
            let trace = self.perform(&crew, deed, "killed", None).expect("it can be traced");
            assert_eq!(trace.end, End::Exited(0), "{}: {}", deed.words, text_of(&crew.log()));
            Act { counts: trace.counts, deed, before, after: files_of(&crew) }
        });
        acts.collect()
    }

    fn perform(&self, crew: &Crew, deed: &Deed, value: &str, point: Option<&Point>) -> Result<Trace, Errno> {
        let result = self.outside.path().join("result").display().to_string();
        let words = deed.words.split(' ').map(|word| match word {
            "OWNER" => std::process::id().to_string(),
            "RESULT" => result.clone(),
            "VALUE" => format!("\"{value}\""),
            word => word.to_owned(),
        });
        let log = fs::OpenOptions::new().create(true).append(true).open(crew.log()).expect("a log");
        let mut command = crew.awaiting(HELD_BACK);
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
        let trace = self.perform(&crew, deed, "killed", Some(point)).expect("it can be traced");
        let killed = was_killed(&trace);
        let found = files_of(&crew);
        act.is_whole(&found);
        if killed && found == act.before {
            // Nothing was done yet, and what was being made is cleared away by any start.
            return killed;
        }
        if killed {
            let again = self.perform(&crew, deed, "retried", None).expect("it can be traced").end;
            // The claim that was killed may hold the task.
            let is_held = again == End::Exited(NOTHING_THERE) && deed.words.starts_with("claim");
            assert!(again == End::Exited(0) || is_held, "once more: {again:?}\n{}", text_of(&crew.log()));
        }
        let found = files_of(&crew);
        if deed.aim != Aim::Value {
            assert!(found.keys().eq(act.after.keys()), "{:?}\n{:?}", found.keys(), act.after.keys());
        }
        if !matches!(deed.aim, Aim::Reading | Aim::Files) {
            come_to_rest(&mut crew, deed, killed);
        }
        killed
    }
}

/// The next supervisor makes of it what it should be.
fn come_to_rest(crew: &mut Crew, deed: &Deed, killed: bool) {
    let mut acknowledged = Acknowledged::default();
    acknowledged.values.insert("first".to_owned());
    let fate = match deed.aim {
        Aim::Done => Fate::Done(Some(RESULT.to_owned())),
        Aim::Claim => Fate::Done(None),
        Aim::Failed => Fate::Failed(1),
        Aim::Reading | Aim::Files | Aim::Work | Aim::Back | Aim::Value => Fate::Ready,
    };
    acknowledged.tasks.insert(name(TASK), fate);
    match deed.aim {
        Aim::Work => {
            let output = Fate::Done(Some("made of \"x\"\n".to_owned()));
            drop(acknowledged.tasks.insert(name("submitted"), output));
        }
        Aim::Value => {
            acknowledged.values.insert(if killed { "retried" } else { "killed" }.to_owned());
        }
        _ => {}
    }
    crew.spawn_supervisor(&[], &[]);
    crew.eventually("the next supervisor has begun", || {
        crew.count(|fact| matches!(fact, Fact::SupervisorStarted { .. })) == 2
    });
    if deed.aim == Aim::Claim {
        crew.ok(&["done", TASK]);
    }
    crew.eventually("all is as it should be", || is_settled(crew, &acknowledged));
    assert!(crew.term().success(), "{}", crew.told());
    let wrong = judge(crew, &acknowledged);
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), crew.told());
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
            });
            let shown = String::from_utf8_lossy(bytes);
            assert!(
                is_same || before.is_none() && is_like || is_appended(before, bytes),
                "{}: {shown}",
                path.display()
            );
        }
        let gone =
            self.before.keys().find(|path| !found.contains_key(*path) && self.after.contains_key(*path));
        assert!(gone.is_none(), "it is gone: {gone:?}");
    }
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
    if let Fate::Done(_) = fate {
        return layout.ended(Shelf::Done, task).exists() && !layout.task(task).exists();
    }
    let record: Option<TaskRecord> = serde_json::from_str(&text_of(&layout.task(task))).ok();
    record.is_some_and(|record| match fate {
        Fate::Failed(times) => record.failures == *times,
        Fate::Ready | Fate::Done(_) => record.state == Phase::Ready,
    })
}
