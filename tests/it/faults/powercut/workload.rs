//! A busy hour of a crew, in seconds, on a disk that remembers; and all that was promised meanwhile, each promise
//! with the position of the tape at which it had been given.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::name::TaskId;
use nix::sys::signal::Signal;

use super::check::ledger_of;
use super::disk::Blocks;
use super::ground::{Ground, Kind, Mounted};
use super::recorder::{Recorder, Step, Tape};
use crate::crew::{Crew, Outsider, send, text_of};

/// The crew's directory on its disk.
pub(super) const CREW: &str = "crew";
/// Where updates of memory that append go.
pub(super) const LIST: &str = "notes/all";

pub(super) const HANDLER: &str = r#"#!/bin/sh
# /// agent
# handles = ["echo"]
# ///
cat >"$NIGHTCREW_OUTPUT"
"#;

/// Remembers by the command and by the shell functions of docs/protocol.md in turn, and notes on another disk what
/// is safe, and since when.
const DIARIST: &str = r#"
n=0
while [ "$(wc -l <'ACKS')" -lt 10 ]; do
    n=$((n + 1)) marker=$NIGHTCREW_RUN-$n
    if [ $((n % 2)) = 0 ]; then
        nightcrew remember append notes/all "\"$marker\"" >/dev/null || continue
    else
        remember append notes/all "\"$marker\"" || continue
    fi
    echo "$marker $(cat 'POSITION')" >>'ACKS'
done
"#;

/// What was promised.
#[derive(Debug, Clone)]
pub(super) enum Promise {
    /// `submit` returned.
    Submitted { task: TaskId, payload: String },
    /// `done` returned.
    HandedIn { task: TaskId, result: String },
    /// The supervisor took the open record away.
    Ended { task: TaskId, result: String },
    /// `remember` returned: this text is, or will be, under this key, alone or in [`LIST`].
    Remembered { key: String, marker: String },
    /// `stop`, `start`, `halt` or `resume` returned: the file, below `state/`, is there or not.
    Switched { file: &'static str, set: bool },
}

/// A promise, with where the tape was when the command began and when it had returned.
#[derive(Debug, Clone)]
pub(super) struct Ack {
    pub(super) begun: usize,
    pub(super) at: usize,
    pub(super) promise: Promise,
}

/// What is known of a busy hour.
pub(super) struct Recording {
    pub(super) base: Blocks,
    pub(super) tape: Vec<Step>,
    pub(super) history: History,
}

/// What was promised, and what became of it.
pub(super) struct History {
    /// The earliest first.
    pub(super) acks: Vec<Ack>,
    /// The bodies of the ledger's entries, in the end.
    pub(super) ledger: Vec<String>,
}

/// Lets the hour happen on a new file system; `under` is the program, if any, under which all of nightcrew runs.
/// Fails where such a file system, or FUSE, cannot be mounted at all.
pub(super) fn record(ground: &Ground, kind: Kind, under: &[&str]) -> Result<Recording, String> {
    let image = ground.make(kind, "recorded");
    let (fuse, at) = (ground.place("fuse"), ground.place("mnt"));
    let diary = ground.path("diary");
    fs::write(&diary, "").expect("a file");
    let mounted = Mounted::new(kind, &image, &at)?;
    hire(&at.join(CREW), &diary, &fuse.join("position"));
    mounted.unmount();

    let base = Blocks::of(&image);
    let recorder = Recorder::serve(&image, &fuse).map_err(|error| format!("FUSE: {error}"))?;
    let mounted = Mounted::new(kind, &recorder.disk(), &at)?;
    probe(&at, &recorder.tape);
    let crew = Crew::at(&at.join(CREW));
    let player = Player {
        owner: crew.outsider("sleep", &["1000"]),
        crew,
        under,
        tape: recorder.tape.clone(),
        acks: Mutex::default(),
        results: ground.place("results"),
    };
    let (mut acks, ledger) = play(player);
    mounted.unmount();
    let tape = recorder.tape.take();
    acks.extend(text_of(&diary).lines().filter_map(noted));
    acks.sort_by_key(|ack| ack.at);
    Ok(Recording { base, tape, history: History { acks, ledger } })
}

/// What is synced must be on the tape, and flushed: else nothing here would prove anything.
fn probe(at: &Path, tape: &Tape) {
    let text = b"what is synced is on the tape, and flushed";
    let mut file = File::create(at.join("probe")).expect("a file");
    file.write_all(text).expect("room");
    assert!(!tape.has_durably(text), "nobody asked for it to be written yet");
    file.sync_all().expect("an honest disk");
    assert!(tape.has_durably(text), "a sync does not reach the recorder");
}

/// A line of the diary.
fn noted(line: &str) -> Option<Ack> {
    let (marker, at) = line.split_once(' ')?;
    let at = at.parse().ok()?;
    Some(Ack { begun: at, at, promise: Promise::Remembered { key: LIST.into(), marker: marker.into() } })
}

/// The crew's agents, durable before anything is recorded.
fn hire(root: &Path, diary: &Path, position: &Path) {
    fs::create_dir_all(root.join("agents")).expect("agents/");
    let crew = Crew::at(root);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    let page = fs::read_to_string(page).expect("docs/protocol.md");
    let verbs = page.split("```sh\n").map(|part| part.split("```").next().unwrap_or_default());
    let verbs = verbs.last().expect("the verbs of an agent in shell");
    let loops = DIARIST.replace("ACKS", &diary.display().to_string());
    let loops = loops.replace("POSITION", &position.display().to_string());
    crew.agent("diarist.sh", &format!("#!/bin/sh\n{verbs}{loops}"));
    crew.agent("echo.sh", HANDLER).sleeper("idler");
}

/// Who gives the commands and writes down what they promise.
struct Player<'a> {
    crew: Crew,
    /// Who takes tasks; gone with the hour.
    owner: Outsider,
    under: &'a [&'a str],
    tape: Tape,
    acks: Mutex<Vec<Ack>>,
    results: PathBuf,
}

fn play(mut player: Player<'_>) -> (Vec<Ack>, Vec<String>) {
    // Nobody supervises yet, and the directories are still to be made.
    player.submit("echo", 0);
    player.submit("pull", 0);
    player.remember(0, false);
    player.start();
    player.pull(0);
    player.bustle(1, 6);
    if player.under.is_empty() {
        // What it does when it comes back is done on the recorded disk too.
        player.crew.signal_supervisor(Signal::SIGKILL);
        player.crew.supervisors_end();
        player.submit("echo", 7);
        player.remember(7, false);
        player.start();
        player.bustle(8, 12);
    }
    player.switch(&["stop", "idler"], "stopped/idler", true);
    player.switch(&["start", "idler"], "stopped/idler", false);
    player.switch(&["halt"], "HALT", true);
    player.switch(&["resume"], "HALT", false);
    player.switch(&["stop", "idler"], "stopped/idler", true);
    player.crew.eventually("all that was submitted has ended", || player.open().is_empty());
    player.end();
    player.submit("echo", 13);
    player.remember(13, false);
    let ledger = ledger_of(&player.crew.layout).0;
    assert!(!ledger.is_empty(), "the ledger tells nothing");
    let acks = std::mem::take(&mut *player.acks());
    (acks, ledger)
}

impl Player<'_> {
    fn acks(&self) -> MutexGuard<'_, Vec<Ack>> {
        // A promise is pushed whole or not at all, whoever panicked.
        self.acks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn promised(&self, begun: usize, promise: Promise) {
        let at = self.tape.position();
        self.acks().push(Ack { begun, at, promise });
    }

    /// Runs a command that must succeed; gives what it said.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = self.crew.nightcrew_under(self.under, args);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "nightcrew {args:?}: {}\n{told}{}", output.status, self.crew.told());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The pid of the supervisor itself, not of the program under which it runs.
    fn supervisor(&self) -> Option<i32> {
        i32::try_from(self.crew.crew_status()?.supervisor.pid).ok()
    }

    fn start(&mut self) {
        let starts = |crew: &Crew| crew.count(|fact| matches!(fact, Fact::SupervisorStarted { .. }));
        let before = starts(&self.crew);
        self.crew.spawn_supervisor_under(self.under, &[], &[]);
        self.crew.eventually("the supervisor's start is in the ledger", || starts(&self.crew) > before);
    }

    fn end(&mut self) {
        let pid = self.supervisor().expect("the supervisor shows itself");
        send(pid, Signal::SIGTERM);
        let status = self.crew.supervisors_end();
        assert!(status.success(), "the supervisor ended with {status}\n{}", self.crew.told());
    }

    /// Submitters, an owner, and somebody who remembers, all at once; `from` to `to` number what they do.
    fn bustle(&self, from: u32, to: u32) {
        std::thread::scope(|scope| {
            scope.spawn(|| (from..=to).for_each(|n| self.submit("echo", n)));
            scope.spawn(|| (from..=to).for_each(|n| self.remember(n, n == to)));
            scope.spawn(|| {
                for n in from..=to {
                    self.submit("pull", n);
                    self.pull(n);
                }
            });
            let before = self.ended();
            for n in 1..=(to - from) as usize {
                self.crew.eventually("another task ends", || {
                    self.watch();
                    self.ended() >= before + n
                });
            }
        });
    }

    fn submit(&self, kind: &str, n: u32) {
        // Some fill more than a block.
        let text = "night ".repeat(if n.is_multiple_of(3) { 1500 } else { 1 });
        let payload = format!(r#"{{"n":{n},"text":"{text}"}}"#);
        let begun = self.tape.position();
        let told = self.ok(&["submit", kind, &payload, "--json"]);
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        let task = told["task"].as_str().and_then(|id| id.parse().ok()).expect("an id");
        self.promised(begun, Promise::Submitted { task, payload });
    }

    /// Takes a task as an operator does, and hands it back with a result.
    fn pull(&self, n: u32) {
        let owner = self.owner.pid();
        let task: TaskId = self.crew.await_some("there is a task to take", || {
            let output = self.crew.nightcrew_under(self.under, &["claim", "pull", "--owner-pid", &owner]);
            let id = String::from_utf8_lossy(&output.stdout).trim().parse();
            id.ok().filter(|_| output.status.success())
        });
        let result = format!("result {n} {}", "of work ".repeat(if n.is_multiple_of(2) { 1000 } else { 1 }));
        let file = self.results.join(task.as_str());
        fs::write(&file, &result).expect("a file");
        let begun = self.tape.position();
        self.ok(&["done", task.as_str(), "--output", &file.display().to_string()]);
        self.promised(begun, Promise::HandedIn { task, result });
    }

    fn remember(&self, n: u32, wait: bool) {
        let marker = format!("operator-{n}");
        let value = format!("\"{marker}\"");
        let key = format!("notes/{n}");
        let begun = self.tape.position();
        let (op, key) = if n.is_multiple_of(2) { ("append", LIST) } else { ("set", key.as_str()) };
        let args: &[&str] =
            if wait { &["remember", "--wait", op, key, &value] } else { &["remember", op, key, &value] };
        self.ok(args);
        self.promised(begun, Promise::Remembered { key: key.into(), marker });
    }

    fn switch(&self, args: &[&str], file: &'static str, set: bool) {
        let begun = self.tape.position();
        self.ok(args);
        self.promised(begun, Promise::Switched { file, set });
    }

    /// The tasks that were submitted and have not ended, as far as that was seen.
    fn open(&self) -> Vec<(TaskId, String)> {
        self.watch();
        self.unended()
    }

    fn unended(&self) -> Vec<(TaskId, String)> {
        let acks = self.acks();
        let ended = |id: &TaskId| {
            acks.iter().any(|ack| matches!(&ack.promise, Promise::Ended { task, .. } if task == id))
        };
        let submitted = acks.iter().filter_map(|ack| match &ack.promise {
            Promise::Submitted { task, payload } if !ended(task) => Some((task.clone(), payload.clone())),
            _ => None,
        });
        submitted.collect()
    }

    fn ended(&self) -> usize {
        self.acks().iter().filter(|ack| matches!(ack.promise, Promise::Ended { .. })).count()
    }

    /// Looks for what the supervisor has done with.
    fn watch(&self) {
        for (task, payload) in self.unended() {
            if self.crew.is_done(&task) && !self.crew.layout.task(&task).exists() {
                // What was handed in lies there; a handler gives back what it got.
                let handed = text_of(&self.results.join(task.as_str()));
                let result = if handed.is_empty() { payload } else { handed };
                self.promised(self.tape.position(), Promise::Ended { task, result });
            }
        }
    }
}
