//! What cannot or must not run is refused, with its reason and the remedy in `status`.

use std::fs;
use std::os::unix::fs::chown;

use nightcrew::protocol::status::Refusal;

use crate::crew::Crew;

const RUNS: &str = "#!/bin/sh\nexec sleep 1000\n";

fn refusal(crew: &Crew, file: &str) -> Refusal {
    let (agent, _) = file.split_once('.').expect("an ending");
    crew.await_some(&format!("{file} is refused"), || {
        let of_agent = agent.parse().ok().and_then(|agent| crew.status_of(&agent)?.refusal);
        let of_crew = || {
            let refusals = crew.crew_status().map(|status| status.refusals).unwrap_or_default();
            refusals.into_iter().find(|refusal| refusal.file == format!("agents/{file}"))
        };
        of_agent.or_else(of_crew)
    })
}

#[test]
fn every_refusal_has_its_reason_and_remedy_in_status() {
    let mut crew = Crew::new();
    let manifest =
        |line: &str| format!("#!/bin/sh\n# /// agent\n# about = \"x\"\n# {line}\n# ///\nexec sleep 1000\n");
    crew.sleeper("good");
    let cases: [(&str, &str, u32, &[&str]); 9] = [
        ("unexecutable.sh", RUNS, 0o644, &["not executable", "chmod +x"]),
        ("shebangless.sh", "exec sleep 1000\n", 0o755, &["shebang", "#!"]),
        ("windows.sh", "#!/bin/sh\r\nexec sleep 1000\r\n", 0o755, &["CR", "sed"]),
        ("empty.sh", "", 0o755, &["empty"]),
        ("public.sh", RUNS, 0o757, &["everybody", "chmod o-w"]),
        ("bad name.sh", RUNS, 0o755, &["name", "mv"]),
        ("misspelled.sh", &manifest("max_rs = \"1M\""), 0o755, &["line 4", "max_rs", "max_rss"]),
        ("mistyped.sh", &manifest("stop_grace = 3"), 0o755, &["line 4", "stop_grace"]),
        ("reserved.sh", &manifest("sandbox = true"), 0o755, &["line 4", "not in this version"]),
    ];
    for (file, text, mode, _) in &cases {
        crew.file_with_mode(file, text, *mode);
    }
    crew.start();
    let good = crew.running("good", None);
    for (file, _, _, words) in &cases {
        let refusal = refusal(&crew, file);
        let told = format!("{}: {}; {}", refusal.file, refusal.reason, refusal.remedy);
        assert!(told.contains(&format!("agents/{file}")), "{told}");
        for word in *words {
            assert!(told.contains(word), "{file} lacks {word:?}: {told}");
        }
        assert!(!refusal.remedy.is_empty(), "{told}");
        let shown = crew.ok(&["status"]);
        assert!(shown.contains(&refusal.reason) && shown.contains(&refusal.remedy), "{shown}");
    }
    let running: Vec<String> = crew.processes().into_iter().map(|(_, command)| command).collect();
    assert_eq!(running.len(), 2, "the supervisor and the good one: {running:?}");
    assert_eq!(crew.pid("good"), Some(good));

    // What is put right runs.
    crew.file_with_mode("unexecutable.sh", RUNS, 0o755);
    crew.running("unexecutable", None);
    crew.ends_well();
}

#[test]
fn an_agent_of_somebody_else_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can give a file to somebody else");
        return;
    }
    let mut crew = Crew::new();
    crew.sleeper("good").sleeper("theirs");
    chown(crew.layout.agents().join("theirs.sh"), Some(12345), None).expect("chown");
    crew.start();
    crew.running("good", None);
    let refusal = refusal(&crew, "theirs.sh");
    assert!(refusal.reason.contains("12345"), "{refusal:?}");
    assert!(refusal.remedy.contains("chown"), "{refusal:?}");
    crew.ends_well();
}

#[test]
fn what_is_no_agent_is_passed_over() {
    let mut crew = Crew::new();
    crew.sleeper("good");
    for file in [".hidden.sh", "edited.sh~", "old.bak", "notes.md", "notes.txt", "x.swp", "x.tmp"] {
        crew.agent(file, RUNS);
    }
    fs::create_dir(crew.layout.agents().join("lib")).expect("a directory");
    crew.file_with_mode("data.csv", "a,b\n", 0o644);
    crew.start();
    crew.running("good", None);
    let told = crew.ok(&["status"]);
    assert!(!told.contains("refused"), "{told}");
    assert_eq!(crew.processes().len(), 2);
    crew.ends_well();
}

#[test]
fn of_two_files_with_one_stem_the_one_that_runs_stays() {
    let mut crew = Crew::new();
    crew.sleeper("twin");
    crew.start();
    let pid = crew.running("twin", None);
    crew.agent("twin.py", "#!/usr/bin/env python3\nprint('never')\n");
    let refusal = refusal(&crew, "twin.py");
    assert!(refusal.file.contains("twin.py"), "{refusal:?}");
    assert_eq!(crew.pid("twin"), Some(pid));
    crew.ends_well();
}
