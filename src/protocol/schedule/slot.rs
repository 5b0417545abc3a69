//! A slot: one time at which a schedule fires, by which the firing is known for ever.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::protocol::name::{AgentName, TaskId};
use crate::protocol::task::id_from_key;
use crate::protocol::time::Wall;

/// One time at which a schedule fires: a whole second, written in UTC, as `2026-11-20T04:00Z`, with seconds only
/// where there are any.
///
/// Times that coincide are one slot, whichever entries of a schedule they came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Slot(Timestamp);

impl Slot {
    /// The slot at this second since 1970-01-01T00:00Z; `None` beyond the years that have a name.
    #[must_use]
    pub fn at(second: i64) -> Option<Self> {
        Timestamp::from_second(second).ok().map(Self)
    }

    /// Seconds since 1970-01-01T00:00Z.
    #[must_use]
    pub fn second(self) -> i64 {
        self.0.as_second()
    }

    /// When it is.
    #[must_use]
    pub fn wall(self) -> Wall {
        Wall(self.0.as_millisecond())
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = if self.0.as_second() % 60 == 0 { "%Y-%m-%dT%H:%MZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
        write!(f, "{}", self.0.strftime(format))
    }
}

impl From<Slot> for String {
    fn from(slot: Slot) -> Self {
        slot.to_string()
    }
}

impl TryFrom<String> for Slot {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Slot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let slot = text.parse::<Timestamp>().ok().and_then(|at| Self::at(at.as_second()));
        // One slot has one name.
        slot.filter(|slot| slot.to_string() == text)
            .ok_or_else(|| format!("{text:?} is not a slot: it is written like 2026-11-20T04:00Z"))
    }
}

/// A slot of an agent, as it stands in records and in `$NIGHTCREW_SLOT`: `research@2026-11-20T04:00Z`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SlotId {
    /// Whose it is.
    pub agent: AgentName,
    /// When it is.
    pub slot: Slot,
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.agent, self.slot)
    }
}

impl SlotId {
    /// The task as which it is fired, one and the same for ever: `research-2026-11-20T04-00Z`.
    #[must_use]
    pub fn task(&self) -> TaskId {
        let readable = format!("{}-{}", self.agent, self.slot).replace(':', "-");
        // Beside a long name there is no room for the time.
        readable.parse().unwrap_or_else(|_| id_from_key(&self.agent, &self.to_string()))
    }
}

impl From<SlotId> for String {
    fn from(slot: SlotId) -> Self {
        slot.to_string()
    }
}

impl TryFrom<String> for SlotId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for SlotId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("{text:?} is not the slot of an agent");
        let (agent, slot) = text.split_once('@').ok_or_else(refuse)?;
        Ok(Self { agent: agent.parse().map_err(|_| refuse())?, slot: slot.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_one_name() {
        for (second, text) in [
            (1_795_147_200, "2026-11-20T04:00Z"),
            (1_795_147_201, "2026-11-20T04:00:01Z"),
            (0, "1970-01-01T00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00Z"),
        ] {
            let slot = Slot::at(second).unwrap();
            assert_eq!((slot.to_string().as_str(), slot.second()), (text, second));
            assert_eq!(text.parse(), Ok(slot));
            let id = SlotId { agent: "research".parse().unwrap(), slot };
            assert_eq!(id.to_string(), format!("research@{text}"));
            assert_eq!(id.to_string().parse(), Ok(id.clone()));
            let task = id.task();
            assert_eq!(task.as_str(), format!("research-{text}").replace(':', "-"));
            let long = SlotId { agent: "a".repeat(60).parse().unwrap(), slot };
            assert_eq!(long.task().as_str().len(), 16);
        }
        for other in
            ["2026-11-20T04:00:00Z", "2026-11-20T05:00+01:00", "2026-11-20 04:00Z", "2026-11-20T04:00", ""]
        {
            assert!(other.parse::<Slot>().is_err(), "{other}");
        }
        for other in ["@2026-11-20T04:00Z", "a/b@2026-11-20T04:00Z", "a2026-11-20T04:00Z", "a@", "a@b@c"] {
            assert!(other.parse::<SlotId>().is_err(), "{other}");
        }
    }
}
