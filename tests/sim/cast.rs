//! Who is in the crew, and what its files say.

use std::path::{Path, PathBuf};

use fastrand::Rng;
use nightcrew::protocol::layout::Layout;

/// The agent that never does anything wrong, and always gets its turn.
pub(crate) const CANARY: &str = "canary";
/// The kind of task that handlers are started for, and the kind that agents claim by themselves.
pub(crate) const HANDLED: &str = "handled";
pub(crate) const CLAIMED: &str = "claimed";
/// The agents; each kind of task has more than one.
pub(crate) const AGENTS: [&str; 5] = ["hand", "other", "worker", "mate", CANARY];
/// What judges the results of handlers.
const GATE: &str = "check";

const MANIFESTS: [&str; 5] = [
    "command = [\"/bin/work\"]\nhandles = [\"handled\"]\nconcurrency = 2\ntimeout = \"20s\"\nstop_grace = \"1s\"\nmax_rss = \"1M\"\n",
    "command = [\"/bin/work\"]\nhandles = [\"handled\"]\ntimeout = \"40s\"\nstop_grace = \"2s\"\n",
    "command = [\"/bin/work\"]\nheartbeat = \"20s\"\nisolation_grace = \"20s\"\nstop_grace = \"1s\"\nmax_rss = \"1M\"\n",
    "command = [\"/bin/work\"]\nheartbeat = \"30s\"\nstop_grace = \"1s\"\n",
    "command = [\"/bin/work\"]\nhandles = [\"canary\"]\ntimeout = \"30s\"\n",
];

/// What a handler declares of the ends of its tasks.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a manifest declares each of these or does not")]
pub(crate) struct Ends {
    pub(crate) retries: Option<u32>,
    retry_on: bool,
    pub(crate) gate: bool,
    pub(crate) then: bool,
    fallback: bool,
}

/// What each of the handlers declares, the canary too.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cast([Ends; 2]);

impl Cast {
    /// Each seed draws its own; in many there is nothing of it, so that it hides nothing else.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut often = |share: f64| rng.f64() < share;
        let mut ends = || Ends {
            retries: None,
            retry_on: often(0.15),
            gate: often(0.35),
            then: often(0.25),
            fallback: often(0.3),
        };
        let mut all = [ends(), ends()];
        for ends in &mut all {
            ends.retries = if rng.bool() { Some(rng.u32(..4)) } else { None };
        }
        Self(all)
    }

    /// What this agent declares of the ends of its tasks.
    pub(crate) fn ends(&self, agent: &str) -> Ends {
        let n = AGENTS.iter().position(|name| *name == agent);
        n.and_then(|n| self.0.get(n)).cloned().unwrap_or_default()
    }

    /// The manifest of an agent, by its place in [`AGENTS`].
    pub(crate) fn manifest(&self, n: usize) -> String {
        let ends = self.ends(AGENTS[n]);
        let mut text = String::new();
        // What a power cut leaves of a file is its beginning: without a command it is none.
        let mut declare = |line: String| text.push_str(&line);
        if let Some(retries) = ends.retries {
            declare(format!("retries = {retries}\n"));
        }
        if ends.retry_on {
            declare("retry_on = [1]\nbackoff = \"2s\"\n".into());
        }
        if ends.gate {
            declare(format!("gate = \"{GATE}\"\n"));
        }
        if ends.then {
            declare(format!("then = \"{CLAIMED}\"\n"));
        }
        if ends.fallback {
            declare(format!("fallback = \"{CANARY}\"\n"));
        }
        text + MANIFESTS[n]
    }
}

/// True for those that get a process for each task.
pub(crate) fn is_handler(agent: &str) -> bool {
    AGENTS.iter().zip(MANIFESTS).any(|(name, text)| *name == agent && text.contains("handles"))
}

/// The program that judges results.
pub(crate) fn gate(layout: &Layout) -> PathBuf {
    layout.gates().join(GATE)
}

/// True if what is started is a gate.
pub(crate) fn is_gate(layout: &Layout, program: &Path) -> bool {
    program.parent() == Some(&layout.gates())
}
