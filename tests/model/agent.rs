//! The agents: docs/protocol.md, "Claim" and "Finish", a step for each file-system call. An agent claims once; what
//! it does next can take for ever, and it can die before any step.

use crate::files::{Lock, Nonce, Outcome, Verdict};
use crate::world::{Rules, Variant, World};

/// How an agent came to be, and what is known of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// A run of ours that claims by itself. Its death can be proved; it is never given up alive.
    Puller,
    /// A run of ours that is started for the task: the supervisor lays the lock out before.
    Handler,
    /// No process of ours. Its lock may expire though it lives: it is fenced, and wakes late.
    Outside,
}

/// Where an agent stands. The number is the token that it read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stand {
    Idle,
    /// It read the record.
    Read(u8),
    /// It linked its lock.
    Linked(u8),
    /// It read the lock again, and it was its own.
    Seen(u8),
    /// It read the record again, and it was the same: the task is its own.
    Working(u8),
    /// The verification failed: it has to hand the claim back.
    Refuted(u8),
    /// Its outcome has its name, and the directory is not yet synced.
    Named(u8),
    /// What it handed in is acknowledged, or it gave up; it has ended, or will.
    Over,
    Dead,
    /// Naive variants: it judged that holder's lock stale, and is about to act on that.
    Judged(u8, Nonce),
    /// Naive variants: it looked again, and it was still that lock.
    JudgedTwice(u8),
    /// Naive variant: it moved a lock aside, which should have been that holder's, and was the other's.
    Aside(u8, Nonce, Lock),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Agent {
    pub(crate) kind: Kind,
    pub(crate) stand: Stand,
}

impl Agent {
    pub(crate) fn is_gone(self) -> bool {
        matches!(self.stand, Stand::Dead | Stand::Over)
    }

    /// The token under which it verified its claim and works on.
    pub(crate) fn works_with(self) -> Option<u8> {
        if let Stand::Working(token) = self.stand { Some(token) } else { None }
    }
}

impl World {
    /// True if the agent has a step to take that needs no choice.
    pub(crate) fn agent_goes_on(&self, agent: usize) -> bool {
        match self.agents[agent].stand {
            Stand::Idle => {
                self.agents[agent].kind != Kind::Handler
                    && self.open_to_claims
                    && self.disk.open.get().is_some()
            }
            Stand::Working(_) | Stand::Over | Stand::Dead => false,
            Stand::Read(_)
            | Stand::Linked(_)
            | Stand::Seen(_)
            | Stand::Refuted(_)
            | Stand::Named(_)
            | Stand::Judged(..)
            | Stand::JudgedTwice(_)
            | Stand::Aside(..) => true,
        }
    }

    /// The agent takes its next step.
    pub(crate) fn agent_step(&mut self, rules: &Rules, agent: usize) {
        let nonce = u8::try_from(agent).expect("few agents");
        let found = self.disk.lock.get();
        let next = match self.agents[agent].stand {
            Stand::Idle => self.disk.shown_token().map_or(Stand::Idle, Stand::Read),
            Stand::Read(token) => match found {
                None => {
                    self.link_lock(token, nonce);
                    Stand::Linked(token)
                }
                Some(lock) => self.taken(rules, token, lock),
            },
            Stand::Linked(token) if found.and_then(Lock::nonce) == Some(nonce) => Stand::Seen(token),
            Stand::Seen(token) if self.disk.shown_token() == Some(token) => Stand::Working(token),
            Stand::Linked(token) | Stand::Seen(token) => Stand::Refuted(token),
            Stand::Refuted(token) => self.name_outcome(agent, token, Verdict::Released),
            Stand::Named(_) => {
                self.disk.outcomes[agent].sync();
                Stand::Over
            }
            Stand::Judged(token, holder) => self.act_on_stale(rules, token, holder),
            Stand::JudgedTwice(token) => {
                self.put_lock(None);
                Stand::Read(token)
            }
            Stand::Aside(token, holder, lock) => {
                if lock.nonce() != Some(holder) && found.is_none() {
                    self.put_lock(Some(lock));
                }
                Stand::Read(token)
            }
            stand @ (Stand::Working(_) | Stand::Over | Stand::Dead) => stand,
        };
        self.agents[agent].stand = next;
    }

    /// The name of the lock is taken. A good agent leaves it; a naive one asks whether its holder lives. (Here it
    /// is always right about that: what it does of it is wrong nevertheless.)
    fn taken(&self, rules: &Rules, token: u8, lock: Lock) -> Stand {
        let naive = matches!(
            rules.variant,
            Variant::UnlinkIfStale | Variant::RereadThenUnlink | Variant::RenameVerifyRestore
        );
        match lock.nonce() {
            Some(holder) if naive && self.agents[usize::from(holder)].stand == Stand::Dead => {
                Stand::Judged(token, holder)
            }
            Some(_) | None => Stand::Idle,
        }
    }

    /// What a naive agent does about a lock that it judged stale.
    fn act_on_stale(&mut self, rules: &Rules, token: u8, holder: Nonce) -> Stand {
        let found = self.disk.lock.get();
        match (rules.variant, found) {
            (Variant::RereadThenUnlink, Some(lock)) if lock.nonce() == Some(holder) => {
                Stand::JudgedTwice(token)
            }
            (Variant::RereadThenUnlink, _) | (_, None) => Stand::Read(token),
            (Variant::RenameVerifyRestore, Some(lock)) => {
                self.put_lock(None);
                Stand::Aside(token, holder, lock)
            }
            (_, Some(_)) => {
                self.put_lock(None);
                Stand::Read(token)
            }
        }
    }

    /// The work is done, or failed: the outcome gets its name.
    pub(crate) fn agent_finishes(&mut self, agent: usize, token: u8, verdict: Verdict) {
        self.agents[agent].stand = self.name_outcome(agent, token, verdict);
    }

    fn name_outcome(&mut self, agent: usize, token: u8, verdict: Verdict) -> Stand {
        self.disk.outcomes[agent].put(Some(Outcome { token, verdict }), self.cuts > 0);
        if self.cuts > 0 { Stand::Named(token) } else { Stand::Over }
    }
}
