//! What others write, in every shape a file system has: it is put aside with its reason, and costs nobody else.
//!
//! FIFOs, sparse files, deep JSON and halves are in `badinput`, bad requests in `unlucky`; here is what they lack.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nightcrew::protocol::ledger::Fact;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, mknod};
use serde_json::json;

use super::{hwm_of, needs};
use crate::crew::{Crew, name, text_of};

pub(super) const HANDLER: &str = "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# ///\nexit 0\n";
/// A uid that nobody trusts.
const STRANGER: u32 = 54_321;
/// What no terminal may be sent.
const ESCAPE: &str = "\x1b]0;owned\x07";

/// Where records of a kind are handed in.
struct Desk {
    dir: PathBuf,
    /// Where what is no good ends.
    aside: PathBuf,
    /// The name of the nth file, as the protocol has it.
    named: fn(u32) -> String,
    /// A record that would be good, with this in the place of its name for something.
    record: fn(&str, u32) -> String,
}

fn desks(crew: &Crew) -> Vec<Desk> {
    let layout = &crew.layout;
    vec![
        Desk {
            dir: layout.new_tasks(),
            aside: layout.rejected_tasks(),
            named: |n| format!("odd-{n}.json"),
            record: |id, _| {
                format!(
                    r#"{{"v":1,"id":"{id}","nonce":"n","kind":"work","at":"2026-11-20T03:00:00Z","payload":1}}"#
                )
            },
        },
        Desk {
            dir: layout.outcomes_of(&name("bystander")),
            aside: layout.refused_outcomes(),
            named: |n| format!("odd.{n}.nonce.json"),
            record: |id, n| format!(r#"{{"v":1,"task":"{id}","token":{n},"nonce":"nonce","status":"done"}}"#),
        },
        Desk {
            dir: layout.queue(&name("bystander")),
            aside: layout.rejected_updates(),
            named: |n| format!("{n}.json"),
            record: |key, n| format!(r#"{{"v":1,"id":"u{n}","op":"set","key":"{key}","value":1}}"#),
        },
        Desk {
            dir: layout.requests(),
            aside: layout.rejected_tasks(),
            named: |n| format!("ask-{n}.json"),
            record: |id, _| format!(r#"{{"v":1,"id":"{id}","ask":"restart","agents":[]}}"#),
        },
    ]
}

/// The files outside the crew's business that a careless reader would touch.
fn foreign(crew: &Crew) -> PathBuf {
    let path = crew.path("foreign");
    crew.put(&path, "not yours\n", 0o640);
    if nix::unistd::geteuid().is_root() {
        chown(&path, Some(STRANGER), Some(STRANGER)).expect("chown");
    }
    path
}

fn look_of(path: &Path) -> (u64, u32, u32, Vec<u8>) {
    let meta = fs::metadata(path).expect("it is there");
    (meta.ino(), meta.uid(), meta.mode(), fs::read(path).expect("it can be read"))
}

/// Puts one of each odd thing into a desk; gives where they lie.
fn spoil(crew: &Crew, desk: &Desk, foreign: &Path) -> Vec<PathBuf> {
    fs::create_dir_all(&desk.dir).expect("a directory");
    let mut put = Vec::new();
    let mut place = |n: u32| {
        put.push(desk.dir.join((desk.named)(n)));
        desk.dir.join((desk.named)(n))
    };
    drop(UnixListener::bind(place(1)).expect("a socket"));
    let texts = [
        (desk.record)("../../../foreign", 2),
        (desk.record)("/etc/passwd", 3),
        (desk.record)("a\\u0000b", 4),
        (desk.record)("odd", 5).replacen("\"v\":1", "\"v\":1,\"v\":1", 1),
        (desk.record)(
            &ESCAPE.escape_unicode().to_string().replace("\\u{1b}", "\\u001b").replace("\\u{7}", "\\u0007"),
            6,
        ),
        (desk.record)("odd", 7).replacen("\"v\":1", "\"v\":2", 1),
    ];
    for (n, text) in (2u32..).zip(&texts) {
        crew.put(&place(n), text, 0o644);
    }
    if needs::root("a device, a foreign link and a foreign file among the odd things") {
        let null = nix::sys::stat::makedev(1, 3);
        mknod(&place(8), SFlag::S_IFCHR, Mode::S_IRWXU, null).expect("a device");
        fs::hard_link(foreign, place(9)).expect("a link");
        let stolen = place(10);
        crew.put(&stolen, &(desk.record)("odd-10", 10), 0o644);
        chown(&stolen, Some(STRANGER), None).expect("chown");
    } else {
        // Root reads it all the same.
        crew.put(&place(8), &(desk.record)("odd", 8), 0o000);
    }
    let odd: [&[u8]; 4] = [b"two\nlines.json", b"\x1b[31mred.json", b"not-\xff\xfe-utf8.json", &[b'x'; 255]];
    for odd in odd {
        let path = desk.dir.join(OsStr::from_bytes(odd));
        fs::write(&path, "{}").expect("written");
        put.push(path);
    }
    put
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn reasons(aside: &Path) -> usize {
    let entries = fs::read_dir(aside).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let told = paths.filter(|path| path.extension().is_some_and(|ending| ending == "reason"));
    told.filter(|path| !text_of(path).trim().is_empty()).count()
}

fn works_on(crew: &Crew, round: u32) {
    let task = crew.submit("work", &round.to_string());
    crew.eventually("other tasks are done", || crew.is_done(&task));
    crew.ok(&["remember", "--wait", "set", "round", &round.to_string()]);
    assert_eq!(crew.value("round"), Some(json!(round)));
}

/// Nothing that was handed in reaches a terminal as it is.
#[track_caller]
fn shows_no_escapes(crew: &Crew) {
    for args in [&["status"][..], &["logs", "bystander"], &["tasks"]] {
        let output = crew.nightcrew(args);
        let shown = [output.stdout, output.stderr].concat();
        assert!(!shown.contains(&0x1b), "{args:?}: {:?}", String::from_utf8_lossy(&shown));
    }
    let log = fs::read(crew.log()).expect("a log");
    assert!(!log.contains(&0x1b), "{:?}", String::from_utf8_lossy(&log));
}

#[track_caller]
fn odd_things_are_put_aside(mut crew: Crew, running: bool) {
    crew.agent("worker.sh", HANDLER).sleeper("bystander");
    let foreign = foreign(&crew);
    let before = look_of(&foreign);
    let desks = desks(&crew);
    let put =
        |crew: &Crew| -> Vec<Vec<PathBuf>> { desks.iter().map(|desk| spoil(crew, desk, &foreign)).collect() };
    let spoiled = if running {
        crew.start();
        crew.running("bystander", None);
        put(&crew)
    } else {
        let spoiled = put(&crew);
        crew.start();
        spoiled
    };
    let bystander = crew.running("bystander", None);
    works_on(&crew, 1);
    let mut wanted = std::collections::BTreeMap::new();
    for (desk, paths) in desks.iter().zip(&spoiled) {
        *wanted.entry(desk.aside.clone()).or_insert(0) += paths.len();
        let left = || paths.iter().filter(|path| is_there(path)).collect::<Vec<_>>();
        crew.eventually(&format!("nothing is left in {}", desk.dir.display()), || left().is_empty());
    }
    for (aside, wanted) in wanted {
        crew.eventually(&format!("{wanted} reasons in {}", aside.display()), || reasons(&aside) >= wanted);
    }
    assert_eq!(look_of(&foreign), before, "what is not the crew's is as it was");
    works_on(&crew, 2);
    shows_no_escapes(&crew);
    assert_eq!(crew.pid("bystander"), Some(bystander));
    crew.ends_well();
}

/// No file system that we know takes more links to one file.
const LINKS_MAX: usize = 30_000;

/// As many links to a file as that, each under a name of its own: they cost a directory entry, and are read like
/// any other file.
fn flood(crew: &Crew, dir: &Path, named: impl Fn(usize) -> String, count: usize) {
    fs::create_dir_all(dir).expect("a directory");
    let mut source = PathBuf::new();
    for n in 0..count {
        if n % LINKS_MAX == 0 {
            source = crew.path(&format!("source-{n}-{}", dir.file_name().unwrap_or_default().display()));
            fs::write(&source, "{\"v\":1,\"id\":3}").expect("written");
        }
        fs::hard_link(&source, dir.join(named(n))).expect("a link");
    }
}

/// Promises 4 and 7: a hundred thousand bad submissions delay nobody else's and cost little memory.
#[test]
fn a_flood_of_bad_submissions_delays_nobody_and_takes_no_memory() {
    const FLOOD: usize = 100_000;
    // A test's build; what the flood itself may cost is much less than the 150 MB that jobs for all of it would.
    const MEMORY_KB_MAX: u64 = 80_000;
    let mut crew = Crew::new();
    crew.agent("worker.sh", HANDLER).sleeper("bystander");
    crew.start();
    let bystander = crew.running("bystander", None);
    let dir = crew.layout.new_tasks();
    flood(&crew, &dir, |n| format!("bad-{n}.json"), FLOOD);
    // By its name it comes after all of them.
    crew.ok(&["submit", "work", "1", "--id", "zz-canary"]);
    crew.eventually("a task behind the flood is done", || crew.is_done(&name("zz-canary")));
    let left = fs::read_dir(&dir).expect("it is there").count();
    assert!(left > FLOOD / 20, "the flood is still there: {left}");
    crew.eventually("the flood is being put aside", || reasons(&crew.layout.rejected_tasks()) > 1500);
    crew.ok(&["remember", "--wait", "set", "canary", "1"]);
    let memory = hwm_of(crew.supervisor());
    assert!(memory < MEMORY_KB_MAX, "{memory} kB");
    assert_eq!(crew.pid("bystander"), Some(bystander));
    // What an operator would do; waiting for all of it proves no more, and takes a minute of a slow disk.
    fs::remove_dir_all(&dir).expect("removed");
    crew.eventually("it is made again", || dir.is_dir());
    let task = crew.submit("work", "2");
    crew.eventually("and looked at", || crew.is_done(&task));
    crew.ends_well();
}

/// Promise 4: floods of every kind at once are put aside to the last, while others go on.
#[test]
fn floods_of_bad_records_are_put_aside_to_the_last() {
    const FLOOD: usize = 600;
    let mut crew = Crew::new();
    crew.agent("worker.sh", HANDLER).sleeper("bystander");
    crew.start();
    let bystander = crew.running("bystander", None);
    let layout = crew.layout.clone();
    let agent = name("bystander");
    crew.ok(&["submit", "own", "1", "--id", "zz-own"]);
    crew.eventually("one more waits", || text_of(&layout.ready(&name("own"))).contains("zz-own"));
    let mut owner = crew.outsider("sleep", &["1000"]);
    crew.signal_supervisor(Signal::SIGSTOP);
    let dirs = [layout.new_tasks(), layout.requests(), layout.outcomes_of(&agent), layout.queue(&agent)];
    for dir in &dirs[..2] {
        flood(&crew, dir, |n| format!("bad-{n}.json"), FLOOD);
    }
    flood(&crew, &dirs[2], |n| format!("bad.{n}.nonce.json"), FLOOD);
    flood(&crew, &dirs[3], |n| format!("{}.json", n + 1), FLOOD);
    flood(&crew, &layout.tasks(), |n| format!("bad-{n}.lock"), FLOOD);
    // By the name of its lock, what is claimed then comes after all of them.
    crew.ok(&["claim", "own", "--owner-pid", &owner.pid()]);
    crew.signal_supervisor(Signal::SIGCONT);
    works_on(&crew, 1);
    let files = |dir: &Path| -> usize {
        let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
        entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())).count()
    };
    for dir in &dirs {
        crew.eventually(&format!("nothing is left in {}", dir.display()), || files(dir) == 0);
    }
    let locks = || {
        let entries = fs::read_dir(layout.tasks()).into_iter().flatten().filter_map(Result::ok);
        let locks = entries.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "lock"));
        locks.filter(|entry| entry.path() != layout.lock(&name("zz-own"))).count()
    };
    crew.eventually("no lock of nobody's task is left", || locks() == 0);
    assert_eq!(reasons(&layout.rejected_tasks()), 2 * FLOOD, "each submission and request has its reason");
    assert_eq!(reasons(&layout.rejected_updates()), FLOOD);
    assert!(reasons(&layout.refused_outcomes()) >= FLOOD);
    // Some of what is bad may be on its way already when the claim is seen, but by far not all of it.
    let told = crew.ledger();
    let is_claim = |fact: &Fact| matches!(fact, Fact::Claimed { task, .. } if task.as_str() == "zz-own");
    let (before, after) = told.split_at(told.iter().position(is_claim).expect("the claim is told"));
    let bad = |facts: &[Fact]| facts.iter().filter(|fact| matches!(fact, Fact::Rejected { .. })).count();
    assert!(bad(before) < 2 * bad(after), "{} before the claim was seen, {} after", bad(before), bad(after));
    owner.kill();
    works_on(&crew, 2);
    assert_eq!(crew.pid("bystander"), Some(bystander));
    crew.ends_well();
}

/// Promise 4: whatever is handed in while the crew works is put aside, and nothing outside is touched.
#[test]
fn odd_things_handed_in_are_put_aside() {
    odd_things_are_put_aside(Crew::new(), true);
}

/// Promise 4: what was handed in while nobody looked, too.
#[test]
fn odd_things_found_at_a_start_are_put_aside() {
    odd_things_are_put_aside(Crew::new(), false);
}
