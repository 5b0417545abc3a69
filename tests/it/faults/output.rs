//! What agents print: endlessly, without a newline, and in order to be believed by a terminal.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use nightcrew::protocol::ledger::Fact;
use serde_json::json;

use crate::crew::{Crew, name, text_of};

/// The supervisor, logs and all, uses no more than this: what flows through it does not stay in it.
const MEMORY_MAX: u64 = 64 << 20;
/// A log and the three before it, 50 MiB each, with what one share of a pipe may add to each.
const LOGS_MAX: u64 = 4 * (51 << 20);

const HANDLER: &str =
    "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# ///\necho done >\"$NIGHTCREW_OUTPUT\"\n";

/// The most memory that the supervisor ever had, in bytes.
fn high_water(crew: &Crew) -> u64 {
    let status = text_of(format!("/proc/{}/status", crew.supervisor()).as_ref());
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it is told");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// How many bytes an agent's logs take.
fn logged(crew: &Crew, agent: &str) -> u64 {
    let entries = fs::read_dir(crew.layout.logs()).expect("logs").filter_map(Result::ok);
    let of_agent =
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{agent}.")));
    of_agent.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}

#[track_caller]
fn does_tasks(crew: &Crew, payloads: std::ops::Range<u32>) {
    for n in payloads {
        let task = crew.submit("work", &n.to_string());
        crew.eventually("a task is done", || crew.is_done(&task));
    }
}

/// Prints 2 GiB and a word, in parts, so that a slow machine can be told from one that stands still.
const ENDLESS: &str = "#!/bin/sh\nfor part in 1 2 3 4 5 6 7 8; do head -c 256M /dev/zero; : >part-$part; done\n\
                       echo over\nexec sleep 1000\n";

#[test]
fn a_line_of_2_gb_without_an_end_costs_neither_memory_nor_disk_nor_the_others() {
    let mut crew = Crew::new();
    crew.agent("worker.sh", HANDLER);
    crew.agent("endless.sh", ENDLESS);
    crew.start();
    does_tasks(&crew, 0..3);
    for part in 1..=8 {
        let printed = crew.path(&format!("part-{part}"));
        crew.eventually("a part of it is printed", || printed.exists());
    }
    let log = crew.layout.log(&name("endless"));
    crew.eventually("all of it was moved", || fs::read(&log).is_ok_and(|text| text.ends_with(b"over\n")));
    let (memory, disk) = (high_water(&crew), logged(&crew, "endless"));
    assert!(memory < MEMORY_MAX, "{memory} bytes of memory");
    assert!(disk < LOGS_MAX, "{disk} bytes of logs");
    let shown = crew.ok(&["logs", "-n", "3", "endless"]);
    assert!(shown.ends_with("over"), "the end is what is shown, not {}", shown.escape_debug());
    crew.ends_well();
}

#[test]
fn floods_of_output_delay_no_task_and_take_no_more_than_their_share() {
    let floods = ["first", "second", "third"];
    let mut crew = Crew::new();
    crew.agent("worker.sh", HANDLER);
    for flood in floods {
        crew.agent(&format!("{flood}.sh"), &format!("#!/bin/sh\nexec yes {flood} >&2\n"));
    }
    crew.start();
    let pids = floods.map(|flood| crew.running(flood, None));
    // One rotation of each is the evidence that they flood.
    crew.eventually("they flood", || {
        floods.iter().all(|flood| crew.path(&format!("state/logs/{flood}.log.1")).exists())
    });
    does_tasks(&crew, 0..5);
    for (flood, pid) in floods.into_iter().zip(pids) {
        assert_eq!(crew.pid(flood), Some(pid), "{}", crew.told());
        let disk = logged(&crew, flood);
        assert!(disk < LOGS_MAX, "{disk} bytes of logs of {flood}");
        let shown = crew.ok(&["logs", "-n", "2", flood]);
        // The last line may be half written.
        let is_its = |line: &str| line.rsplit("| ").next().is_some_and(|text| flood.starts_with(text));
        assert!(shown.lines().all(is_its), "{shown}");
    }
    let memory = high_water(&crew);
    assert!(memory < MEMORY_MAX, "{memory} bytes of memory");
    crew.ends_well();
}

/// Runs a command on a terminal of its own and prints what came there: `UNTIL PROGRAM ARGUMENT…`. It is ended once
/// UNTIL was shown, if that is not empty, and when this is.
const ON_A_TERMINAL: &str = r#"
import os, pty, signal, sys, time
until = sys.argv[1].encode()
pid, fd = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm-256color"
    os.execvp(sys.argv[2], sys.argv[2:])
signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
shown = b""
while True:
    try:
        chunk = os.read(fd, 65536)
    except OSError:
        break
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
    shown += chunk
    if until and until in shown:
        os.kill(pid, signal.SIGTERM)
        break
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if not until else 0)
"#;

/// Retitles, clears, colours, asks for an answer; in eight bits and in seven; a broken character, a reversal of the
/// order of reading, a cursor sent back. What is plain in it is `marker`.
const HOSTILE: &[u8] = b"\x1b]0;owned\x07\x1b[2J\x1b[31m\x1bP$q\x1b\\\x1b[c\x9b31m\xc2\x9b31m\xc2\x85\x7f\x08\x0e\xff\xf0\x9f\xe2\x80\xae\xe2\x81\xa6 marker";
/// Likewise, but text.
const HOSTILE_TEXT: &str = "\u{1b}]0;owned\u{7}\u{1b}[31m\u{9b}31m\u{85}\u{7f}\u{8}\u{202e}\u{2066} marker";

/// What in these bytes a terminal would not just show.
fn hostile_part(shown: &[u8]) -> Option<String> {
    let text = match std::str::from_utf8(shown) {
        Ok(text) => text,
        Err(error) => return Some(format!("{error}: {}", shown.escape_ascii())),
    };
    let harmless = |c: char| !c.is_control() || matches!(c, '\r' | '\n' | '\t');
    let turns =
        |c: char| matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let line = text.lines().find(|line| line.chars().any(|c| !harmless(c) || turns(c)));
    line.map(|line| line.escape_debug().to_string())
}

/// Prints, beats and fails with what would be believed by a terminal.
const LIAR: &str = r#"#!/usr/bin/env python3
# /// agent
# heartbeat = "1h"
# ///
import json, os, subprocess, sys, time
text = json.load(open("hostile.json"))
sys.stdout.buffer.write(open("hostile", "rb").read() + b"\n" + text.encode() + b"\n")
sys.stdout.flush()
with open(os.environ["NIGHTCREW_HEARTBEAT"], "ab") as beat:
    beat.write(b"2026-11-20T03:00:00Z progress=1 note=\"" + open("hostile", "rb").read() + b"\"\n")
while subprocess.run(["nightcrew", "claim", "work"], capture_output=True).returncode:
    time.sleep(0.02)
subprocess.run(["nightcrew", "fail", text])
subprocess.run(["nightcrew", "remember", "set", "lie", json.dumps(text, ensure_ascii=False)])
time.sleep(1000)
"#;

/// A crew in which whatever can hold such bytes holds them.
fn lying_crew() -> Crew {
    let crew = Crew::new();
    fs::write(crew.path("terminal.py"), ON_A_TERMINAL).expect("written");
    fs::write(crew.path("hostile"), HOSTILE).expect("written");
    fs::write(crew.path("hostile.json"), json!(HOSTILE_TEXT).to_string()).expect("written");
    let in_toml = "\\u001b]0;owned\\u0007\\u001b[31m\\u009b31m\\u0085\\u007f\\u202e marker";
    crew.agent("liar.py", LIAR);
    crew.agent("about.sh", &format!("#!/bin/sh\n# /// agent\n# about = \"{in_toml}\"\n# ///\n"));
    crew.agent("key.sh", &format!("#!/bin/sh\n# /// agent\n# \"{in_toml}\" = 1\n# ///\n"));
    crew.agent("shebang.sh", &format!("#!/no/{HOSTILE_TEXT}\n"));
    for file in [HOSTILE, HOSTILE_TEXT.as_bytes()] {
        let file: Vec<u8> = [b"a ", file, b".sh"].concat();
        fs::copy(crew.layout.agents().join("key.sh"), crew.layout.agents().join(OsStr::from_bytes(&file)))
            .expect("copied");
    }
    crew
}

#[test]
fn nothing_that_agents_say_reaches_a_terminal_raw() {
    let mut crew = lying_crew();
    let terminal = crew.path("terminal.py").display().to_string();
    let binary = env!("CARGO_BIN_EXE_nightcrew");
    // The supervisor itself is on a terminal too.
    crew.spawn_supervisor_under(&["python3", &terminal, ""], &[], &[]);
    let task = crew.submit("work", "1");
    crew.fact("the task is failed", |fact| match fact {
        Fact::Outcome { task: of, .. } if *of == task => Some(()),
        _ => None,
    });
    crew.eventually("the value is stored", || crew.value("lie").is_some());
    crew.ok(&["halt", HOSTILE_TEXT]);
    let on_a_terminal = |until: &str, args: &[&str]| {
        let output = std::process::Command::new("timeout")
            .args(["20", "python3", &terminal, until, binary])
            .args(args)
            .current_dir(crew.layout.crew())
            .output()
            .expect("it runs");
        let told = output.stdout.escape_ascii().to_string();
        assert!(told.contains("marker"), "{args:?} tells nothing: {told}");
        if let Some(part) = hostile_part(&output.stdout) {
            panic!("{args:?} shows {part}");
        }
    };
    on_a_terminal("", &["logs"]);
    on_a_terminal("marker", &["logs", "-f", "liar"]);
    on_a_terminal("", &["logs", "--json"]);
    on_a_terminal("", &["status"]);
    on_a_terminal("", &["status", "liar"]);
    on_a_terminal("", &["status", "--json"]);
    on_a_terminal("", &["check"]);
    on_a_terminal("", &["check", "--json"]);
    on_a_terminal("", &["tasks"]);
    on_a_terminal("", &["tasks", "--json"]);
    on_a_terminal("", &["recall", "lie"]);
    crew.ends_well();
    let own = fs::read(crew.log()).expect("what it said");
    assert!(own.escape_ascii().to_string().contains("marker"), "it said something of all this");
    assert_eq!(hostile_part(&own), None, "its own messages");
}
