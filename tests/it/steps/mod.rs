//! Steps: what was paid for once is never paid for again. Each payment is a line in the crew's file `paid`.

mod calls;
mod tasks;

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::crew::{Crew, text_of};

/// The binary under test.
const NIGHTCREW: &str = env!("CARGO_BIN_EXE_nightcrew");

/// Pays, and prints the number of its payment.
const PAY: &str =
    "#!/bin/sh\necho paid >>\"$NIGHTCREW_DIR/paid\"\nwc -l <\"$NIGHTCREW_DIR/paid\" | tr -d '\\n'\n";

/// Pays and, unless there is a file `go`, says that it has begun and waits for it.
const PAY_SLOWLY: &str = "#!/bin/sh\necho paid >>\"$NIGHTCREW_DIR/paid\"\necho $PPID >\"$NIGHTCREW_DIR/begun.new\"\n\
                          mv \"$NIGHTCREW_DIR/begun.new\" \"$NIGHTCREW_DIR/begun\"\n\
                          while [ ! -e \"$NIGHTCREW_DIR/go\" ]; do sleep 0.05; done\nprintf slowly\n";

fn crew() -> Crew {
    let crew = Crew::new();
    crew.put(&crew.path("pay"), PAY, 0o755).put(&crew.path("pay-slowly"), PAY_SLOWLY, 0o755);
    crew
}

fn paid(crew: &Crew) -> usize {
    text_of(&crew.path("paid")).lines().count()
}

/// `nightcrew step …` outside any task, and what came of it.
fn step(crew: &Crew, args: &[&str]) -> (i32, String, String) {
    told(&crew.nightcrew(&[&["step"], args].concat()))
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// `nightcrew step …` that goes on beside the test, with more in its environment; what it complains of is in the
/// crew's file `step.stderr` until the next.
fn started(crew: &Crew, args: &[&str], env: &[(&str, &str)]) -> Child {
    let mut command = Command::new(NIGHTCREW);
    command.arg("step").args(args).envs(env.iter().copied()).env("NIGHTCREW_DIR", crew.layout.crew());
    command.current_dir(crew.layout.crew()).process_group(0);
    let stderr = File::create(crew.path("step.stderr")).expect("a file");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().expect("it starts")
}

/// What came of it in the end.
fn ended(crew: &Crew, child: Child) -> (i32, String, String) {
    let (code, out, _) = told(&child.wait_with_output().expect("it ends"));
    (code, out, text_of(&crew.path("step.stderr")))
}

/// The one step recorded below this directory.
fn record_in(dir: &Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(dir).expect("a directory").filter_map(|entry| Some(entry.ok()?.path()));
    let mut steps = files.filter(|path| path.extension().is_some_and(|ending| ending == "step"));
    let step = steps.next().expect("a record");
    assert_eq!(steps.next(), None);
    step
}
