//! Who works in the storm, and what there is to do. Whoever does a task notes what happens in one file, `deeds`, which
//! is only appended to, so that its order is the order of what happened: `VERB TASK MORE…`.

use std::fs;

use nix::sys::statvfs::statvfs;
use serde_json::json;

use crate::crew::Crew;

/// Where the agents and what they pay for note what they do, in the crew's directory.
pub(super) const DEEDS: &str = "deeds";
/// The kind of what parents submit within their tasks.
pub(super) const CHILD: &str = "child";
/// How many handlers run at once.
pub(super) const AT_ONCE: usize = 4;

/// Every handler says that it tries, and is tried often enough to outlast every kill, unless it fails by itself.
const HANDLER: &str = r#"#!/bin/sh
# /// agent
# handles = [KINDS]
# concurrency = 4
# retries = 20
# backoff = "1ms"
# GATE
# ///
read -r word
echo "try $NIGHTCREW_TASK" >>deeds
"#;

/// Kinds, gate, and what is done.
const HANDLERS: [(&str, &str, &str, &str); 7] = [
    ("plain", r#""plain", "child""#, "", r#"echo "made of $word for $NIGHTCREW_TASK" >"$NIGHTCREW_OUTPUT""#),
    // Hands its outcome in by file, which may be late.
    (
        "filed",
        r#""filed""#,
        "",
        r#"result=$NIGHTCREW_SCRATCH/$NIGHTCREW_TASK.$NIGHTCREW_TOKEN
echo "made of $word for $NIGHTCREW_TASK" >"$result"
nightcrew done --output "$result" && exec rm "$result""#,
    ),
    // The second call finds what the first has recorded.
    (
        "paid",
        r#""paid""#,
        "",
        r#"first=$(nightcrew step pay -- ./deed pay) || exit
echo "told $NIGHTCREW_TASK $first" >>deeds
nightcrew step pay -- ./deed pay >"$NIGHTCREW_OUTPUT" || exit"#,
    ),
    (
        "letter",
        r#""letter""#,
        "",
        r#"nightcrew step send --effect --check ./was-done -- ./deed send >"$NIGHTCREW_OUTPUT" || exit
read -r nonce <"$NIGHTCREW_OUTPUT"
echo "told $NIGHTCREW_TASK $nonce" >>deeds"#,
    ),
    ("doomed", r#""doomed""#, "", "exit 65"),
    (
        "judged",
        r#""judged""#,
        r#"gate = "no-bad""#,
        r#"echo "made of $word for $NIGHTCREW_TASK" >"$NIGHTCREW_OUTPUT""#,
    ),
    // Another id each time: what is submitted twice is there twice.
    (
        "parent",
        r#""parent""#,
        r#"gate = "no-bad""#,
        r#"nightcrew submit child "\"$NIGHTCREW_TASK\"" --new >>"$NIGHTCREW_SCRATCH/told" || exit
[ "$word" != '"dead"' ] || exit 65
echo "made of $word for $NIGHTCREW_TASK" >"$NIGHTCREW_OUTPUT""#,
    ),
];

const NO_BAD: &str = r#"#!/bin/sh
read -r result
case $result in *'"bad"'*) echo "it is bad"; exit 1 ;; esac
"#;

/// What is paid for: it says what is recorded of its step when it begins, that its deed is done, and that it ends.
const DEED: &str = r#"#!/bin/sh
{ read -r record <"state/steps/tasks/$NIGHTCREW_TASK/$1.step"; } 2>/dev/null
case $record in
    *'"state":"done"'*) found=done ;;
    *'"state":"begun"'*) found=begun ;;
    *) found=nothing ;;
esac
read -r nonce </proc/sys/kernel/random/uuid
echo "begin $NIGHTCREW_TASK $nonce $found" >>deeds
sleep 0.01
echo "deed $NIGHTCREW_TASK $nonce" >>deeds
sleep 0.05
echo "end $NIGHTCREW_TASK $nonce" >>deeds
echo "$nonce"
"#;

const WAS_DONE: &str = r#"#!/bin/sh
if line=$(grep "^deed $NIGHTCREW_TASK " deeds); then
    echo "asked $NIGHTCREW_TASK yes" >>deeds
    echo "${line##* }"
else
    echo "asked $NIGHTCREW_TASK no" >>deeds
    exit 1
fi
"#;

/// In memory, where there is such a place: a kill leaves all that was written, synced or not, so that waiting for a
/// disk would show nothing more.
const IN_MEMORY: &str = "/dev/shm";
/// It takes a fourth of that.
const ROOM_WANTED: u64 = 512 << 20;

fn is_room_in_memory() -> bool {
    let free = statvfs(IN_MEMORY).map_or(0, |found| found.blocks_available() * found.fragment_size());
    free >= ROOM_WANTED && tempfile::tempdir_in(IN_MEMORY).is_ok()
}

/// A crew of all of them.
pub(super) fn crew() -> Crew {
    let crew = if is_room_in_memory() { Crew::below(IN_MEMORY.as_ref()) } else { Crew::new() };
    for (name, kinds, gate, does) in HANDLERS {
        let gate = if gate.is_empty() { String::new() } else { format!("# {gate}\n") };
        let script = HANDLER.replace("KINDS", kinds).replace("# GATE\n", &gate);
        crew.agent(&format!("{name}.sh"), &format!("{script}{does}\n"));
    }
    fs::create_dir(crew.layout.gates()).expect("gates/");
    crew.put(&crew.path("gates/no-bad"), NO_BAD, 0o755);
    crew.put(&crew.path("deed"), DEED, 0o755).put(&crew.path("was-done"), WAS_DONE, 0o755);
    crew.put(&crew.layout.crew_file(), &format!("[host]\ntasks_at_once = {AT_ONCE}\n"), 0o644);
    crew
}

/// What must become of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    Dead,
    Review,
}

/// A task to hand in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) id: String,
    pub(super) kind: &'static str,
    word: &'static str,
    pub(super) fate: Fate,
}

/// Of a hundred tasks, how many are such.
const MIX: [(u32, &str, &str, Fate); 10] = [
    (55, "plain", "good", Fate::Done),
    (8, "filed", "good", Fate::Done),
    (10, "paid", "good", Fate::Done),
    (10, "letter", "good", Fate::Done),
    (4, "doomed", "good", Fate::Dead),
    (3, "judged", "good", Fate::Done),
    (2, "judged", "bad", Fate::Review),
    (5, "parent", "good", Fate::Done),
    (2, "parent", "dead", Fate::Dead),
    (1, "parent", "bad", Fate::Review),
];

impl Planned {
    /// The `n`th task, of a kind that is drawn.
    pub(super) fn nth(n: usize, dice: &mut fastrand::Rng) -> Self {
        let all: u32 = MIX.iter().map(|(share, ..)| share).sum();
        let mut drawn = dice.u32(..all);
        let (_, kind, word, fate) = MIX
            .into_iter()
            .find(|(share, ..)| {
                let is_it = drawn < *share;
                drawn = drawn.saturating_sub(*share);
                is_it
            })
            .expect("it is one of them");
        Self { id: format!("{kind}-{n}"), kind, word, fate }
    }

    pub(super) fn payload(&self) -> String {
        format!("\"{}\"", self.word)
    }

    /// As `submit -` reads it.
    pub(super) fn line(&self) -> String {
        json!({"kind": self.kind, "id": self.id, "payload": self.word}).to_string()
    }

    /// Its result, where what was given alone makes it.
    pub(super) fn result(&self) -> Option<String> {
        let is_made = ["plain", "filed", "judged", "parent"].contains(&self.kind);
        (is_made && self.fate != Fate::Dead).then(|| format!("made of \"{}\" for {}\n", self.word, self.id))
    }

    pub(super) fn is_parent(&self) -> bool {
        self.kind == "parent"
    }
}
