//! What commands ask of a running supervisor: `requests/ID.json`, answered in `requests/answers/`.

use serde::{Deserialize, Serialize};

use super::name::{AgentName, Name, TaskId};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Stop these agents and start them again; forget their failures.
    Restart {
        /// Which; none means all.
        agents: Vec<AgentName>,
    },
    /// Make dead letters of these open tasks; whoever works on one is stopped.
    Cancel {
        /// Which.
        tasks: Vec<TaskId>,
        /// And all of this group.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<Name>,
        /// Why, for people.
        why: String,
    },
    /// Take the result of a task in review as it lies there: the task is done.
    Approve {
        /// Which.
        task: TaskId,
    },
    /// Do not: the task becomes a dead letter.
    Reject {
        /// Which.
        task: TaskId,
        /// Why, for people.
        why: String,
    },
}

/// `requests/ID.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The version of the format.
    pub v: u32,
    /// The request's id; the file's name says the same.
    pub id: Name,
    /// What is asked.
    #[serde(flatten)]
    pub ask: Ask,
}

/// `requests/answers/ID.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The version of the format.
    pub v: u32,
    /// The request's id.
    pub id: Name,
    /// True if it is being done.
    pub ok: bool,
    /// In a sentence.
    pub text: String,
}
