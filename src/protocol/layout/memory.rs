//! Where shared memory lies.

use std::path::{Path, PathBuf};

use super::{Layout, RECORD_EXT};
use crate::protocol::name::{AgentName, Key, Name};

impl Layout {
    /// `state/memory/`
    #[must_use]
    pub fn memory(&self) -> PathBuf {
        self.state().join("memory")
    }
    /// `state/memory/queue/`
    #[must_use]
    pub fn queues(&self) -> PathBuf {
        self.memory().join("queue")
    }
    /// `state/memory/queue/AGENT/`
    #[must_use]
    pub fn queue(&self, agent: &AgentName) -> PathBuf {
        self.queues().join(agent.as_str())
    }
    /// `state/memory/queue/AGENT/SEQ.json`
    #[must_use]
    pub fn update(&self, agent: &AgentName, seq: u64) -> PathBuf {
        self.queue(agent).join(format!("{seq}.json"))
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
    /// The temporary name of a writer of an update: the id makes it its own.
    #[must_use]
    pub fn update_temp(tmp_dir: &Path, id: &Name) -> PathBuf {
        tmp_dir.join(format!("update.{id}.tmp"))
    }
    /// `state/memory/applied/`
    #[must_use]
    pub fn applied_dir(&self) -> PathBuf {
        self.memory().join("applied")
    }
    /// `state/memory/applied/AGENT`
    #[must_use]
    pub fn applied(&self, agent: &AgentName) -> PathBuf {
        self.applied_dir().join(agent.as_str())
    }
    /// `state/memory/store/`
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        self.memory().join("store")
    }
    /// `state/memory/store/KEY.json`: the bare value.
    #[must_use]
    pub fn value(&self, key: &Key) -> PathBuf {
        self.store_dir().join(format!("{key}.json"))
    }
    /// `state/memory/rejected/`
    #[must_use]
    pub fn rejected_updates(&self) -> PathBuf {
        self.memory().join("rejected")
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
        self.tmp_of_supervisor().join(format!("steward.{serial}.tmp"))
    }
    /// `state/memory/journal/`
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.memory().join("journal")
    }
}
