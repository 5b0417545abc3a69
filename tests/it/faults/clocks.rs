//! Clocks that jump, and times that somebody else wrote: no silence is judged by either.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nightcrew::protocol::ledger::{Entry, Fact};

use super::needs;
use crate::crew::{Crew, name, text_of};

const HOUR_MS: i64 = 3_600_000;
/// Beats a little more often than it must, in the way that is put in.
const BEATING: &str = "#!/bin/sh\n# /// agent\n# heartbeat = \"1s\"\n# isolation_grace = \"1h\"\n# ///\nn=0\n\
    while :; do\n    n=$((n + 1))\n    BEAT\n    echo $n >>\"$NIGHTCREW_SCRATCH/beats\"\n    sleep 0.1\ndone\n";
const HANDLER: &str = "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# ///\nexit 0\n";

/// The library that lies about the time, where its package puts it.
fn faketime(test: &str) -> Option<PathBuf> {
    let dirs = fs::read_dir("/usr/lib").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let found = dirs.map(|dir| dir.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    if found.is_none() {
        needs::skipped(test, "libfaketime is not installed");
    }
    found
}

/// The supervisor's wall clock, as a file says it.
struct Lie {
    library: PathBuf,
    file: PathBuf,
}

impl Lie {
    fn tell(&self, time: &str) {
        fs::write(&self.file, format!("{time}\n")).expect("written");
    }

    fn start(&self, crew: &mut Crew) {
        let starts = crew.count(|fact| matches!(fact, Fact::SupervisorStarted { .. }));
        let env = [
            ("LD_PRELOAD", self.library.to_str().expect("a path")),
            ("FAKETIME_TIMESTAMP_FILE", self.file.to_str().expect("a path")),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ];
        crew.spawn_supervisor(&[], &env);
        crew.eventually("it has started", || {
            crew.count(|fact| matches!(fact, Fact::SupervisorStarted { .. })) > starts
        });
    }
}

/// When the ledger says that the task was submitted, in milliseconds.
fn submitted_at(crew: &Crew, task: &str) -> Option<i64> {
    let segments = fs::read_dir(crew.layout.ledger()).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let text: String = segments.map(|path| text_of(&path)).collect();
    let entries = text.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
    let mut times = entries.filter_map(|entry| match entry.fact {
        Fact::Submitted { task: of, .. } if of.as_str() == task => Some(entry.at.0),
        _ => None,
    });
    times.next()
}

fn now_ms() -> i64 {
    let path = tempfile::NamedTempFile::new().expect("a file");
    let time = path.as_file().metadata().and_then(|file| file.modified()).expect("a time");
    let since = time.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("it fits")
}

fn beats(crew: &Crew, agent: &str) -> usize {
    text_of(&crew.scratch(agent, "beats")).lines().count()
}

fn beat_on(crew: &Crew, agents: &[&str]) {
    // Several intervals of what each must beat once in.
    let before: Vec<usize> = agents.iter().map(|agent| beats(crew, agent)).collect();
    crew.eventually("they beat on", || {
        agents.iter().zip(&before).all(|(agent, n)| beats(crew, agent) > n + 25)
    });
}

fn is_isolated(crew: &Crew, wanted: &str) -> bool {
    crew.count(|fact| matches!(fact, Fact::Isolated { agent, .. } if agent.as_str() == wanted)) > 0
}

/// Tokens rise from submission to submission, and no run's id is used twice.
fn are_unique(crew: &Crew, runs_min: usize) {
    let facts = crew.ledger();
    let tokens: Vec<u64> = facts
        .iter()
        .filter_map(|fact| match fact {
            Fact::Submitted { token, .. } => Some(*token),
            _ => None,
        })
        .collect();
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{tokens:?}");
    let runs: Vec<_> = facts
        .iter()
        .filter_map(|fact| match fact {
            Fact::Started { run, .. } => Some(run.clone()),
            _ => None,
        })
        .collect();
    assert!(runs.len() >= runs_min, "{runs:?}");
    assert_eq!(runs.iter().collect::<BTreeSet<_>>().len(), runs.len(), "{runs:?}");
}

/// Promise 4: a wall clock that jumps an hour back and a day on isolates nobody, stops nothing and repeats no id.
#[test]
fn a_wall_clock_that_jumps_isolates_nobody_and_repeats_nothing() {
    let Some(library) = faketime("a_wall_clock_that_jumps_isolates_nobody_and_repeats_nothing") else {
        return;
    };
    let agents = ["one", "two"];
    let mut crew = Crew::new();
    let lie = Lie { library, file: crew.path("faketime") };
    lie.tell("+0");
    let beating = BEATING.replace("BEAT", "echo beat >>\"$NIGHTCREW_HEARTBEAT\"");
    for agent in agents {
        crew.agent(&format!("{agent}.sh"), &beating);
    }
    crew.agent("worker.sh", HANDLER);
    lie.start(&mut crew);
    let pids = agents.map(|agent| crew.running(agent, None));
    for (time, skew) in [("+0", 0), ("-1h", -HOUR_MS), ("+1d", 24 * HOUR_MS), ("-1h", -HOUR_MS)] {
        lie.tell(time);
        let task = crew.submit("work", &format!("\"{time} after {}\"", beats(&crew, "one")));
        crew.eventually("it is done", || crew.is_done(&task));
        let at = submitted_at(&crew, task.as_str()).expect("it is in the ledger");
        let off = at - now_ms() - skew;
        assert!(off.abs() < HOUR_MS / 2, "the clock was to jump by {time}, and is {off} ms off that");
        beat_on(&crew, &agents);
    }
    assert_eq!(crew.count(|fact| matches!(fact, Fact::Isolated { .. })), 0, "{}", crew.told());
    // One that never beats is found out all the same.
    crew.agent("silent.sh", &BEATING.replace("BEAT", ":"));
    crew.eventually("the silent one is isolated", || is_isolated(&crew, "silent"));
    assert_eq!(agents.map(|agent| crew.pid(agent)), pids.map(Some), "{}", crew.told());
    are_unique(&crew, 6);
    crew.ends_well();
}

/// Promises 1 and 4: a start with a clock of long ago loses nothing, gives no token out again and works.
#[test]
fn a_start_with_a_clock_of_long_ago_goes_on_where_the_last_one_ended() {
    let Some(library) = faketime("a_start_with_a_clock_of_long_ago_goes_on_where_the_last_one_ended") else {
        return;
    };
    let mut crew = Crew::new();
    let lie = Lie { library, file: crew.path("faketime") };
    crew.agent("worker.sh", HANDLER).sleeper("service");
    crew.agent("once.sh", "#!/bin/sh\nexit 0\n");
    let mut done = Vec::new();
    for (round, time) in ["+0", "@2001-01-01 00:00:00", "@1971-01-01 00:00:00", "+0"].iter().enumerate() {
        lie.tell(time);
        lie.start(&mut crew);
        crew.running("service", None);
        crew.fact("the one that ends ended once", |fact| match fact {
            Fact::Exited { agent, .. } if agent.as_str() == "once" => Some(()),
            _ => None,
        });
        for n in 0..2 {
            let task = crew.submit("work", &format!("\"round {round}, {n}\""));
            crew.eventually("it is done", || crew.is_done(&task));
            done.push(task);
        }
        assert!(done.iter().all(|task| crew.is_done(task)), "what was done before stays done");
        crew.ok(&["remember", "--wait", "append", "rounds", &round.to_string()]);
        crew.ends_well();
    }
    assert_eq!(crew.value("rounds"), Some(serde_json::json!([0, 1, 2, 3])));
    let once = crew.count(|fact| matches!(fact, Fact::Started { agent, .. } if agent.as_str() == "once"));
    assert_eq!(once, 1, "what ended well is not started again for a clock");
    are_unique(&crew, 12);
}

/// Promise 4: what time a heartbeat bears is its agent's business; that it changed is the sign of life.
#[test]
fn heartbeats_of_the_far_future_and_past_are_signs_of_life_like_others() {
    let agents = ["future", "past", "back"];
    let mut crew = Crew::new();
    let touches = [
        "touch -d \"2099-01-01 00:00:$((n % 60))\" \"$NIGHTCREW_HEARTBEAT\"",
        "touch -d \"1975-01-01 00:00:$((n % 60))\" \"$NIGHTCREW_HEARTBEAT\"",
        "touch -d \"@$((4000000000 - n))\" \"$NIGHTCREW_HEARTBEAT\"",
    ];
    for (agent, touch) in agents.iter().zip(touches) {
        crew.agent(&format!("{agent}.sh"), &BEATING.replace("BEAT", touch));
    }
    crew.agent("volunteer.sh", "#!/bin/sh\nsleep 0.3\ntouch \"$NIGHTCREW_HEARTBEAT\"\nexec sleep 1000\n");
    // An earlier run of it left this, and it promised no beats.
    crew.sleeper("plain");
    let left = crew.layout.heartbeat(&name("plain"));
    fs::create_dir_all(left.parent().expect("a directory")).expect("made");
    let far = std::time::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000);
    fs::File::create(&left).and_then(|file| file.set_modified(far)).expect("it is from the future");
    crew.start();
    let pids = agents.map(|agent| crew.running(agent, None));
    beat_on(&crew, &agents);
    crew.agent("silent.sh", &BEATING.replace("BEAT", ":"));
    crew.eventually("the silent one is isolated", || is_isolated(&crew, "silent"));
    let isolated = crew.count(|fact| matches!(fact, Fact::Isolated { .. }));
    assert_eq!(isolated, 1, "{}", crew.told());
    assert_eq!(agents.map(|agent| crew.pid(agent)), pids.map(Some), "{}", crew.told());
    let liveness_of = |agent| crew.status(agent).map(|status| status.liveness).unwrap_or_default();
    crew.eventually("one that beats unasked is judged from then on", || {
        liveness_of("volunteer").contains("heartbeat every")
    });
    let liveness = liveness_of("plain");
    assert!(liveness.contains("unchecked"), "a file of an earlier run is no beat of this one: {liveness}");
    assert!(Path::new(&left).exists());
    crew.ends_well();
}
