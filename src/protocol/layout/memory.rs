//! Where shared memory lies.

use std::path::PathBuf;

use super::{Layout, RECORD_EXT, below};
use crate::protocol::name::{AgentName, Key};

impl Layout {
    /// `state/memory/`
    #[must_use]
    pub fn memory(&self) -> PathBuf {
        below(&self.state, "memory")
    }
    /// `state/memory/queue/`
    #[must_use]
    pub fn queues(&self) -> PathBuf {
        below(&self.memory(), "queue")
    }
    /// `state/memory/queue/AGENT/`
    #[must_use]
    pub fn queue(&self, agent: &AgentName) -> PathBuf {
        below(&self.queues(), agent.as_str())
    }
    /// `state/memory/queue/AGENT/SEQ.json`
    #[must_use]
    pub fn update(&self, agent: &AgentName, seq: u64) -> PathBuf {
        below(&self.queue(agent), format!("{seq}.json"))
    }
    /// The number in an update's file name; `None` unless it is written as [`Layout::update`] writes it, so
    /// that no two names mean one number.
    #[must_use]
    pub fn update_seq(name: &str) -> Option<u64> {
        let digits = name.strip_suffix(RECORD_EXT)?.strip_suffix('.')?;
        let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        if plain { digits.parse().ok() } else { None }
    }
    /// True for the name of a file that is still being made: it is nobody's business in a queue.
    #[must_use]
    pub fn is_temporary(name: &str) -> bool {
        name.strip_suffix(".tmp").is_some()
    }
    /// `state/memory/applied/`
    #[must_use]
    pub fn applied_dir(&self) -> PathBuf {
        below(&self.memory(), "applied")
    }
    /// `state/memory/applied/AGENT`
    #[must_use]
    pub fn applied(&self, agent: &AgentName) -> PathBuf {
        below(&self.applied_dir(), agent.as_str())
    }
    /// `state/memory/store/`
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        below(&self.memory(), "store")
    }
    /// `state/memory/store/KEY.json`: the bare value.
    #[must_use]
    pub fn value(&self, key: &Key) -> PathBuf {
        below(&self.store_dir(), format!("{key}.json"))
    }
    /// `state/memory/rejected/`
    #[must_use]
    pub fn rejected_updates(&self) -> PathBuf {
        below(&self.memory(), "rejected")
    }
    /// `state/memory/rejected/AGENT.WHAT.json` and `AGENT.WHAT.reason`: what was rejected, and why. WHAT is
    /// the update's number, or a cleaned file name after `x-`; from the second of a name on, `.COPY` follows.
    #[must_use]
    pub fn rejected_update(&self, agent: &AgentName, what: &str, copy: u32) -> (PathBuf, PathBuf) {
        let stem = if copy <= 1 { format!("{agent}.{what}") } else { format!("{agent}.{what}.{copy}") };
        let dir = self.rejected_updates();
        (dir.join(format!("{stem}.{RECORD_EXT}")), dir.join(format!("{stem}.reason")))
    }
    /// `state/tmp/.supervisor/steward.SERIAL.tmp`: where the steward makes what it publishes.
    #[must_use]
    pub fn steward_temp(&self, serial: u64) -> PathBuf {
        below(&self.tmp_of_supervisor(), format!("steward.{serial}.tmp"))
    }
    /// `state/memory/journal/`
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        below(&self.memory(), "journal")
    }
}
