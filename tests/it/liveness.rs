//! Hung agents, silent agents, and agents that eat memory.

use std::fs;

use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::status::Standing;
use nix::sys::signal::Signal;

use crate::crew::{Crew, is_alive, send};

/// Beats ten times an interval.
const BEATING: &str = r#"#!/bin/sh
# /// agent
# heartbeat = "500ms"
# isolation_grace = "GRACE"
# ///
while :; do
    echo beat >>"$NIGHTCREW_HEARTBEAT"
    sleep 0.03
done
"#;

fn is_isolation(fact: &Fact) -> bool {
    matches!(fact, Fact::Isolated { .. })
}

#[test]
fn a_hung_service_is_isolated_with_evidence_and_reinstated_when_it_beats_again() {
    let mut crew = Crew::new();
    crew.agent("hangs.sh", &BEATING.replace("GRACE", "1h")).sleeper("plain");
    crew.start();
    let (pid, plain) = (crew.running("hangs", None), crew.running("plain", None));
    assert_eq!(crew.count(is_isolation), 0, "it beats");

    send(pid, Signal::SIGSTOP);
    let (why, evidence) = crew.fact("it is isolated", |fact| match fact {
        Fact::Isolated { agent, why, evidence, .. } if agent.as_str() == "hangs" => {
            Some((why.clone(), evidence.clone()))
        }
        _ => None,
    });
    assert!(why.contains("no sign of life"), "{why}");
    assert_eq!(evidence["state"], "T", "the evidence says that it is stopped: {evidence}");
    crew.eventually("its status says so", || crew.stands("hangs") == Some(Standing::Isolated));
    assert!(is_alive(pid), "it is left alone for its grace");
    crew.eventually("a person is told", || {
        fs::read_dir(crew.layout.alerts()).is_ok_and(|mut alerts| alerts.next().is_some())
    });

    send(pid, Signal::SIGCONT);
    crew.fact("it is reinstated", |fact| matches!(fact, Fact::Reinstated { .. }).then_some(()));
    crew.eventually("it is the same process", || crew.pid("hangs") == Some(pid));
    assert_eq!(crew.pid("plain"), Some(plain), "one that never beat is left alone");
    crew.ends_well();
}

#[test]
fn a_service_that_stays_silent_is_killed_and_started_again() {
    let mut crew = Crew::new();
    crew.agent("hangs.sh", &BEATING.replace("GRACE", "300ms")).sleeper("plain");
    crew.start();
    let (pid, plain) = (crew.running("hangs", None), crew.running("plain", None));
    send(pid, Signal::SIGSTOP);
    let again = crew.running("hangs", Some(pid));
    assert!(!is_alive(pid));
    assert_eq!(crew.count(is_isolation), 1, "isolated first");
    crew.fact("the kill is told", |fact| match fact {
        Fact::Killed { agent, .. } if agent.as_str() == "hangs" => Some(()),
        _ => None,
    });
    assert_eq!(crew.pid("plain"), Some(plain));
    assert_eq!(crew.pid("hangs"), Some(again));
    crew.ends_well();
}

#[test]
fn a_plain_script_that_never_beats_is_left_alone() {
    let mut crew = Crew::new();
    crew.sleeper("plain").agent("hangs.sh", &BEATING.replace("GRACE", "10ms"));
    crew.start();
    let (plain, hangs) = (crew.running("plain", None), crew.running("hangs", None));
    // The watchdog looked, and judged another: that is the evidence that it judged this one too.
    send(hangs, Signal::SIGSTOP);
    crew.running("hangs", Some(hangs));
    assert_eq!(crew.pid("plain"), Some(plain));
    let told = crew.ok(&["status", "plain"]);
    assert!(told.contains("unchecked"), "{told}");
    crew.ends_well();
}

#[test]
fn a_tree_that_eats_memory_in_a_grandchild_is_killed() {
    let mut crew = Crew::new();
    let eater =
        "x = bytearray(); [x.extend(b\"x\" * 10**6) for _ in range(200)]; import time; time.sleep(1000)";
    fs::write(crew.path("eat.py"), eater).expect("written");
    crew.agent(
        "hungry.sh",
        "#!/bin/sh\n# /// agent\n# max_rss = \"100M\"\n# ///\nsh -c 'python3 eat.py; exit 0' &\nwait\n",
    );
    crew.sleeper("other");
    crew.start();
    let (pid, other) = (crew.running("hungry", None), crew.running("other", None));
    let why = crew.fact("the tree is killed", |fact| match fact {
        Fact::Killed { agent, why, .. } if agent.as_str() == "hungry" => Some(why.clone()),
        _ => None,
    });
    assert!(why.contains("max_rss"), "{why}");
    crew.eventually("its root is gone", || !is_alive(pid));
    crew.remove_agent("hungry.sh");
    crew.eventually("the eater is gone too", || {
        !crew.processes().iter().any(|(_, command)| command.contains("eat.py"))
    });
    assert_eq!(crew.pid("other"), Some(other));
    crew.ends_well();
}
