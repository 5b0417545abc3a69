//! Single bits that a disk flipped, in every file of the state: the start works, says what it found, and goes on.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use nightcrew::protocol::layout::{Layout, SEGMENT_EXT};
use nightcrew::protocol::task::TaskRecord;
use serde_json::{Value, json};

use super::files::HANDLER;
use crate::crew::{Crew, Outsider, name, text_of};

/// How many bits of each kind of file are flipped at rest; more by `NIGHTCREW_FLIPS`.
const FLIPS: usize = 2;
/// A service that ends well, one that beats, and what both leave is what bits are flipped in.
const ONCE: &str = "#!/bin/sh\necho once\nexit 0\n";
const BEATS: &str = "#!/bin/sh\nwhile :; do echo beat | tee -a \"$NIGHTCREW_HEARTBEAT\"; sleep 0.1; done\n";

/// A crew with something in every file, whose log of facts may be damaged: only records are asked.
struct Old {
    crew: Crew,
    seed: u64,
    canaries: Vec<String>,
    owner: Outsider,
}

/// The kinds of files that bits are flipped in.
const KINDS: [&str; 11] = [
    "ledger",
    "journal",
    "tokens",
    "task",
    "lock",
    "outcome",
    "applied",
    "finished",
    "heartbeat",
    "status",
    "index",
];

impl Old {
    fn new() -> Self {
        let mut crew = Crew::new();
        crew.agent("worker.sh", HANDLER).agent("once.sh", ONCE).agent("beats.sh", BEATS);
        crew.start();
        crew.running("beats", None);
        crew.ok(&["submit", "nobodys", "{\"n\":1}", "--id", "waiting"]);
        crew.ok(&["submit", "held", "{\"n\":2}", "--id", "held"]);
        let owner = crew.outsider("sleep", &["1000"]);
        crew.eventually("one is held", || {
            crew.nightcrew(&["claim", "held", "--owner-pid", &owner.pid()]).status.success()
        });
        let mut old = Self { crew, seed: 20_261_120, canaries: Vec::new(), owner };
        old.works("before");
        let crew = &old.crew;
        crew.eventually("there is something everywhere", || {
            let kinds = KINDS.iter().filter(|kind| **kind != "outcome");
            kinds
                .into_iter()
                .all(|kind| old.file(kind).is_ok_and(|path| path.metadata().is_ok_and(|f| f.len() > 0)))
        });
        old
    }

    /// The file of a kind that there is now.
    fn file(&self, kind: &str) -> Result<PathBuf, String> {
        let layout = &self.crew.layout;
        let (waiting, held) = (name("waiting"), name("held"));
        Ok(match kind {
            "ledger" => newest_in(&layout.ledger()).ok_or("no ledger")?,
            "journal" => newest_in(&layout.journal()).ok_or("no journal")?,
            "tokens" => layout.tokens(),
            "task" => layout.task(&waiting),
            "lock" => layout.lock(&held),
            "outcome" => layout.outcome(&name("beats"), &waiting, 1, "nonce"),
            "applied" => layout.applied(&name("operator")),
            "finished" => layout.finished(&name("once")),
            "heartbeat" => layout.heartbeat(&name("beats")),
            "status" => layout.status(&name("beats")),
            "index" => layout.log_index(&name("beats")),
            other => return Err(format!("no such kind: {other}")),
        })
    }

    fn random(&mut self, below: u64) -> u64 {
        // Knuth's; the seed is in the sources, so that what failed fails again.
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    /// Flips one bit of a file in place; gives what there was and where, to be told.
    fn flip(&mut self, kind: &str) -> Option<(PathBuf, Vec<u8>, String)> {
        let path = self.file(kind).ok()?;
        if kind == "outcome" {
            let outcome = r#"{"v":1,"task":"waiting","token":1,"nonce":"nonce","status":"failed"}"#;
            self.crew.put(&path, outcome, 0o644);
        }
        // An earlier flip may have had it put aside for good.
        let before = fs::read(&path).ok().filter(|bytes| !bytes.is_empty())?;
        let at = self.random(before.len() as u64);
        let bit = self.random(8);
        let mut file = File::options().read(true).write(true).open(&path).expect("opened");
        let mut byte = [0];
        file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut byte)).expect("read");
        byte[0] ^= 1 << bit;
        file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(&byte)).expect("written");
        Some((path, before, format!("bit {bit} of byte {at} of {kind}")))
    }

    /// A canary task is done and a canary value kept, and all of the earlier ones are there still.
    fn works(&mut self, what: &str) {
        let crew = &self.crew;
        let task = crew.submit("work", &format!("\"{what} {}\"", self.canaries.len()));
        crew.eventually(&format!("{what}: a task is done"), || crew.is_done(&task));
        self.canaries.push(task.to_string());
        let tokens: Vec<u64> = self.canaries.iter().map(|task| token_of(crew, task)).collect();
        assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{what}: tokens went down: {tokens:?}");
        let count = json!(self.canaries.len());
        let kept = crew.nightcrew(&["remember", "--wait", "set", "canary", &count.to_string()]);
        let refused = String::from_utf8_lossy(&kept.stderr);
        let told = alerts(crew).contains("memory") || refused.contains("memory/applied");
        assert!(kept.status.success() || told, "{what}: no value is kept, and nobody is told: {refused}");
        assert!(!kept.status.success() || crew.value("canary") == Some(count), "{what}");
    }

    /// Ends it all in good order.
    fn ends_well(mut self) {
        self.owner.kill();
        self.crew.ends_well();
    }

    /// All that tells of damage, to be compared.
    fn said(&self) -> (usize, usize) {
        let layout = &self.crew.layout;
        let dirs = [
            layout.ledger(),
            layout.journal(),
            layout.rejected_tasks(),
            layout.refused_outcomes(),
            layout.rejected_updates(),
        ];
        let entries = dirs.iter().filter_map(|dir| Some(fs::read_dir(dir).ok()?.count()));
        (entries.sum(), alerts(&self.crew).len())
    }
}

fn alerts(crew: &Crew) -> String {
    let entries = fs::read_dir(crew.layout.alerts()).into_iter().flatten();
    entries.filter_map(|entry| Some(text_of(&entry.ok()?.path()))).collect()
}

fn newest_in(dir: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    entries.filter(|path| path.extension().is_some_and(|ending| ending == SEGMENT_EXT)).max()
}

fn token_of(crew: &Crew, task: &str) -> u64 {
    let record = text_of(&crew.path(&format!("state/tasks/done/{task}.json")));
    serde_json::from_str::<TaskRecord>(&record).expect("what was done before is kept").token
}

/// Promises 1, 2, 4 and 6: whatever bit of whatever file is wrong at a start, the others work, no token is given out
/// again, and what cannot be believed is said and kept.
#[test]
fn a_bit_flipped_at_rest_is_said_and_costs_the_others_nothing() {
    let flips = std::env::var("NIGHTCREW_FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(FLIPS);
    let mut old = Old::new();
    old.crew.term();
    for _ in 0..flips {
        for kind in KINDS {
            let before = old.said();
            let Some((path, was, what)) = old.flip(kind) else { continue };
            old.crew.spawn_supervisor(&[], &[]);
            if kind == "tokens" && newer(&path) {
                let ended = old.crew.supervisors_end();
                assert!(!ended.success() && text_of(&old.crew.log()).contains("upgrade"), "{what}");
                fs::write(&path, &was).expect("mended");
                old.crew.spawn_supervisor(&[], &[]);
            }
            old.works(&what);
            if ["ledger", "journal"].contains(&kind) {
                assert_ne!(old.said(), before, "{what}: nothing was said or kept");
            }
            if kind == "task" {
                let record = fs::read(old.crew.layout.task(&name("waiting"))).unwrap_or_default();
                let aside = old.crew.layout.rejected_tasks().join("waiting.json");
                assert!(!record.is_empty() || aside.exists(), "{what}: the task is neither here nor there");
                if record.is_empty() {
                    // What an operator does who has mended it.
                    fs::write(old.crew.layout.new_task(&name("waiting")), was).expect("written");
                    fs::remove_file(aside).expect("it was there");
                }
            }
            old.crew.eventually(&format!("{what}: the service runs"), || old.crew.pid("beats").is_some());
            let ended = old.crew.term();
            assert!(ended.success(), "{what}: {ended}");
        }
    }
    old.owner.kill();
    old.crew.leaves_nothing();
}

fn newer(tokens: &Path) -> bool {
    let version = serde_json::from_slice::<Value>(&fs::read(tokens).unwrap_or_default()).ok();
    version.and_then(|tokens| tokens["v"].as_u64()).is_some_and(|v| v > 1)
}

/// Promises 1, 2 and 4: bits flipped under a supervisor stop nothing, and the next start finds and says them.
#[test]
fn bits_flipped_while_it_runs_stop_nothing() {
    let mut old = Old::new();
    for kind in KINDS {
        let Some((_, _, what)) = old.flip(kind) else { continue };
        old.works(&what);
    }
    let ended = old.crew.term();
    assert!(ended.success(), "{ended}");
    old.crew.spawn_supervisor(&[], &[]);
    old.works("started again");
    for log in ["ledger", "journal"] {
        let alert = old.crew.layout.alert(&format!("{log}-damaged"));
        assert!(alert.exists(), "the damage of the {log} is said: {}", alerts(&old.crew));
    }
    old.ends_well();
}

/// Promise 2: where nothing is left of the counter, tokens still go on behind all that were given out.
#[test]
fn tokens_go_on_where_their_counter_is_gone_or_lies() {
    let mut old = Old::new();
    let path = old.crew.layout.tokens();
    for (what, bytes) in [
        ("gone", None),
        ("empty", Some(&b""[..])),
        ("garbage", Some(b"\0\xff")),
        ("lower", Some(b"{\"v\":1,\"reserved\":1,\"crc\":\"00000000\"}\n")),
    ] {
        old.crew.term();
        fs::remove_file(&path).expect("it was there");
        if let Some(bytes) = bytes {
            fs::write(&path, bytes).expect("written");
        }
        let before = alerts(&old.crew).len();
        old.crew.spawn_supervisor(&[], &[]);
        old.works(what);
        assert!(alerts(&old.crew).len() != before || before > 0, "{what}");
        assert!(alerts(&old.crew).contains("fencing tokens go on"), "{what}: {}", alerts(&old.crew));
    }
    old.ends_well();
}

/// Promise 1: what a later nightcrew wrote is never rewritten, and it is said.
#[test]
fn what_a_later_nightcrew_wrote_is_left_as_it_is() {
    let mut old = Old::new();
    old.crew.term();
    let layout = old.crew.layout.clone();
    let ledger = newest_in(&layout.ledger()).expect("a ledger");
    for path in [layout.tokens(), ledger] {
        let was = fs::read(&path).expect("read");
        let later = if path == layout.tokens() {
            b"{\"v\":2,\"shape\":\"of the future\"}\n".to_vec()
        } else {
            let header = "{\"seq\":1,\"segment\":{\"v\":2,\"previous\":0,\"committed\":0}";
            format!("{header},\"crc\":\"{:08x}\"}}\n", crc32fast::hash(header.as_bytes())).into_bytes()
        };
        fs::write(&path, &later).expect("written");
        old.crew.spawn_supervisor(&[], &[]);
        let ended = old.crew.supervisors_end();
        assert!(!ended.success(), "{}", path.display());
        let told = text_of(&old.crew.log());
        let told = told.lines().last().unwrap_or_default();
        assert!(told.contains("newer") && told.contains("upgrade"), "{told}");
        assert_eq!(fs::read(&path).expect("read"), later, "{}", path.display());
        fs::write(&path, was).expect("mended");
    }
    let task = layout.task(&name("waiting"));
    let later = text_of(&task).replacen("\"v\":1", "\"v\":2", 1);
    fs::write(&task, &later).expect("written");
    old.crew.spawn_supervisor(&[], &[]);
    old.works("a later task");
    let aside = layout.rejected_tasks().join("waiting.json");
    assert_eq!(text_of(&aside), later, "it is put aside as it is");
    assert!(text_of(&Layout::reason_beside(&aside)).contains("upgrade"));
    old.ends_well();
}

/// Promises 4 and 5: modes that somebody gave `state/` and `agents/` stop nobody: what can be done is done.
#[test]
fn modes_of_directories_that_somebody_changed_stop_nobody() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut old = Old::new();
    old.crew.term();
    let layout = old.crew.layout.clone();
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    let modes = [
        (layout.state(), 0o700),
        (layout.tasks(), 0o2775),
        (layout.new_tasks(), 0o1777),
        (layout.agents(), 0o555),
    ];
    for (path, mode) in &modes {
        set(path, *mode);
    }
    old.crew.spawn_supervisor(&[], &[]);
    old.works("odd modes");
    for (path, mode) in &modes {
        assert_eq!(
            fs::metadata(path).expect("it is there").permissions().mode() & 0o7777,
            *mode,
            "{}",
            path.display()
        );
    }
    set(&layout.agents(), 0o755);
    old.crew.sleeper("late");
    old.crew.eventually("agents are looked at", || old.crew.pid("late").is_some());
    old.ends_well();
}
