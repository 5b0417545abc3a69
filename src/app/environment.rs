//! The environment of an agent's process.
//!
//! It is made from nothing, never inherited whole: what a shell happened to hold when the supervisor
//! was started does not decide how an agent behaves months later. In this order, a later one winning:
//!
//! 1. of the supervisor's own environment: [`INHERITED`] and every `LC_*`; and what suits a program
//!    nobody watches, `PYTHONUNBUFFERED=1` and `TMPDIR` (the agent's own, which is cleaned up);
//! 2. the crew's `.env`;
//! 3. the agent's `env_file`;
//! 4. `pass_env`: the supervisor's own value, where it has one;
//! 5. `env`;
//! 6. `NIGHTCREW_*`. These nobody else can set: whatever begins so is dropped from all of the above,
//!    or the crew that nightcrew itself was perhaps started from would shine through.
//!
//! PATH is the one that 2 to 5 name, else `path` of nightcrew.toml, else the supervisor's own, else
//! [`PATH_DEFAULT`]; and behind it the directory of the nightcrew binary. Behind, so that what else
//! lies in that directory hides no program that the agent meant.
//!
//! `TERM` is not inherited: output goes to a log, and without it programs leave their colours out.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::protocol::crewfile::CrewFile;
use crate::protocol::layout::Layout;
use crate::protocol::manifest::{Manifest, OWN_VARIABLES};
use crate::protocol::name::{AgentName, RunId, TaskId};
use crate::protocol::schedule::SlotId;
use crate::protocol::variables::{
    ENV_AGENT, ENV_CHANGED, ENV_CHANGED_LEN_MAX, ENV_DIR, ENV_FAILURES, ENV_HEARTBEAT, ENV_MEMORY, ENV_MODE,
    ENV_NEEDS, ENV_NONCE, ENV_OUTPUT, ENV_QUEUE, ENV_RUN, ENV_SCRATCH, ENV_SLOT, ENV_TASK, ENV_TASK_FILE,
    ENV_TMP, ENV_TOKEN, ENV_USAGE, MODE_FALLBACK, MODE_NORMAL,
};

/// What an agent gets of the supervisor's environment without asking, beside every `LC_*`.
pub const INHERITED: [&str; 7] = ["HOME", "LANG", "LANGUAGE", "LOGNAME", "SHELL", "TZ", "USER"];
/// PATH, where nobody names one.
pub const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All that decides an agent's environment.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Where the crew is.
    pub layout: &'a Layout,
    /// Whose process it is.
    pub agent: &'a AgentName,
    /// Which run it is.
    pub run: &'a RunId,
    /// What the agent declares.
    pub manifest: &'a Manifest,
    /// What the crew declares.
    pub crew_file: &'a CrewFile,
    /// What the crew's `.env` holds.
    pub dot_env: &'a BTreeMap<String, String>,
    /// What the agent's `env_file` holds.
    pub env_file: &'a BTreeMap<String, String>,
    /// The supervisor's own environment.
    pub inherited: &'a BTreeMap<OsString, OsString>,
    /// The directory of the nightcrew binary.
    pub binary_dir: &'a Path,
    /// The file that the run beats on: with several runs at once, each has its own.
    pub heartbeat: &'a Path,
    /// The task that the process is for, if it is a handler's.
    pub task: Option<&'a TaskFacts>,
}

/// What a handler's process is told of its task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFacts {
    /// The task.
    pub task: TaskId,
    /// The token it was claimed with.
    pub token: u64,
    /// The claim's nonce.
    pub nonce: String,
    /// How often it failed before.
    pub failures: u32,
    /// The file that holds its payload.
    pub payload: PathBuf,
    /// The file that is to hold its result.
    pub output: PathBuf,
    /// The file that tells of the tasks that it needed.
    pub needs: Option<PathBuf>,
    /// The slot that it is the firing of, if it is one.
    pub slot: Option<SlotId>,
    /// The files that changed, if it is fired for that.
    pub changed: Vec<String>,
    /// True if the agent takes it in the place of another.
    pub fallback: bool,
}

/// As many whole lines as the variable holds.
fn lines(paths: &[String]) -> String {
    let mut text = String::new();
    for path in paths.iter().take_while(|path| !path.contains('\n')) {
        if text.len() + path.len() > ENV_CHANGED_LEN_MAX {
            break;
        }
        text.push_str(path);
        text.push('\n');
    }
    text
}

impl TaskFacts {
    /// The variables that tell a process of its task.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let Self { task, token, nonce, failures, payload, output, needs, slot, changed, .. } = self;
        let mut all = vec![
            (ENV_TASK, task.as_str().into()),
            (ENV_TASK_FILE, payload.into()),
            (ENV_TOKEN, token.to_string().into()),
            (ENV_NONCE, nonce.into()),
            (ENV_FAILURES, failures.to_string().into()),
            (ENV_OUTPUT, output.into()),
        ];
        all.extend(slot.iter().map(|slot| (ENV_SLOT, slot.to_string().into())));
        if !changed.is_empty() {
            all.push((ENV_CHANGED, lines(changed).into()));
        }
        all.extend(needs.iter().map(|path| (ENV_NEEDS, path.into())));
        all
    }
}

/// The whole environment of a process, by name.
#[must_use]
pub fn environment(inputs: &Inputs<'_>) -> Vec<(OsString, OsString)> {
    let mut variables = chosen(inputs);
    variables.retain(|name, _| !name.as_bytes().starts_with(OWN_VARIABLES.as_bytes()));
    let path = variables.remove(OsStr::new("PATH"));
    variables.insert("PATH".into(), search_path(path, inputs));
    variables.extend(ours(inputs).into_iter().map(|(name, value)| (name.into(), value)));
    variables.into_iter().collect()
}

/// Layers 1 to 5, in which a later one wins.
fn chosen(inputs: &Inputs<'_>) -> BTreeMap<OsString, OsString> {
    let text = |(name, value): (&String, &String)| (name.into(), value.into());
    let copied = |(name, value): (&OsString, &OsString)| (name.clone(), value.clone());
    let allowed = |name: &OsStr| {
        INHERITED.iter().any(|known| name == OsStr::new(known)) || name.as_bytes().starts_with(b"LC_")
    };
    let mut all = BTreeMap::new();
    all.extend(inputs.inherited.iter().filter(|(name, _)| allowed(name)).map(copied));
    all.insert("PYTHONUNBUFFERED".into(), "1".into());
    all.insert("TMPDIR".into(), inputs.layout.tmp(inputs.agent).into());
    all.extend(inputs.dot_env.iter().map(text));
    all.extend(inputs.env_file.iter().map(text));
    let passed = inputs.manifest.pass_env.iter().map(OsStr::new);
    all.extend(passed.filter_map(|name| inputs.inherited.get_key_value(name)).map(copied));
    all.extend(inputs.manifest.env.iter().map(text));
    all
}

/// PATH: what was `chosen` for the agent or holds for all, and the nightcrew binary's directory.
fn search_path(chosen: Option<OsString>, inputs: &Inputs<'_>) -> OsString {
    let of_crew = || inputs.crew_file.path.as_ref().map(OsString::from);
    let inherited = || inputs.inherited.get(OsStr::new("PATH")).cloned();
    let filled = |path: &OsString| !path.is_empty();
    let path = chosen
        .filter(filled)
        .or_else(of_crew)
        .or_else(inherited)
        .filter(filled)
        .unwrap_or_else(|| PATH_DEFAULT.into());
    let own = inputs.binary_dir.as_os_str();
    // A directory whose name holds a `:` cannot stand in a PATH, and an empty one would mean "here".
    let unfit = own.is_empty() || own.as_bytes().contains(&b':');
    if unfit || path.as_bytes().split(|byte| *byte == b':').any(|dir| dir == own.as_bytes()) {
        return path;
    }
    let mut bytes = path.into_vec();
    bytes.push(b':');
    bytes.extend_from_slice(own.as_bytes());
    OsString::from_vec(bytes)
}

/// What nightcrew tells an agent.
fn ours(inputs: &Inputs<'_>) -> Vec<(&'static str, OsString)> {
    let Inputs { layout, agent, run, heartbeat, .. } = inputs;
    let mut all = vec![
        (ENV_DIR, layout.crew().into()),
        (ENV_AGENT, agent.as_str().into()),
        (ENV_RUN, run.as_str().into()),
        (ENV_HEARTBEAT, heartbeat.into()),
        (ENV_SCRATCH, layout.scratch(agent).into()),
        (ENV_TMP, layout.tmp(agent).into()),
        (ENV_QUEUE, layout.queue(agent).into()),
        (ENV_MEMORY, layout.store_dir().into()),
        (ENV_USAGE, layout.usage(agent).into()),
        (
            ENV_MODE,
            if inputs.task.is_some_and(|task| task.fallback) { MODE_FALLBACK } else { MODE_NORMAL }.into(),
        ),
    ];
    all.extend(inputs.task.into_iter().flat_map(TaskFacts::variables));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::manifest::{Defaults, from_toml};

    /// What the tests vary; all else is fixed.
    #[derive(Default)]
    struct World {
        manifest: &'static str,
        crew_file: CrewFile,
        dot_env: &'static [(&'static str, &'static str)],
        env_file: &'static [(&'static str, &'static str)],
        inherited: &'static [(&'static str, &'static str)],
        task: Option<TaskFacts>,
    }

    impl World {
        fn environment(&self) -> Vec<(OsString, OsString)> {
            let text = |pairs: &[(&str, &str)]| {
                pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
            };
            environment(&Inputs {
                layout: &Layout::new("/crew"),
                agent: &"writer".parse().unwrap(),
                run: &"RUN1".parse().unwrap(),
                manifest: &from_toml("writer.toml", self.manifest, &Defaults::default()).unwrap(),
                crew_file: &self.crew_file,
                dot_env: &text(self.dot_env),
                env_file: &text(self.env_file),
                inherited: &self.inherited.iter().map(|(name, value)| (name.into(), value.into())).collect(),
                binary_dir: Path::new("/opt/nightcrew"),
                heartbeat: Path::new("/crew/state/status/writer.heartbeat"),
                task: self.task.as_ref(),
            })
        }

        fn get(&self, name: &str) -> Option<String> {
            let all = self.environment();
            let (_, value) = all.iter().find(|(known, _)| known == name)?;
            Some(value.to_str().unwrap().to_owned())
        }
    }

    #[test]
    fn a_service_gets_this_and_nothing_else() {
        let world = World {
            inherited: &[
                ("HOME", "/home/u"),
                ("LC_ALL", "C.UTF-8"),
                ("TERM", "xterm"),
                ("TMPDIR", "/elsewhere"),
                ("OPENAI_API_KEY", "secret"),
                ("NIGHTCREW_TASK", "from-an-outer-crew"),
                ("PATH", "/usr/bin"),
            ],
            ..World::default()
        };
        let expected = [
            ("HOME", "/home/u"),
            ("LC_ALL", "C.UTF-8"),
            ("NIGHTCREW_AGENT", "writer"),
            ("NIGHTCREW_DIR", "/crew"),
            ("NIGHTCREW_HEARTBEAT", "/crew/state/status/writer.heartbeat"),
            ("NIGHTCREW_MEMORY", "/crew/state/memory/store"),
            ("NIGHTCREW_MODE", "normal"),
            ("NIGHTCREW_QUEUE", "/crew/state/memory/queue/writer"),
            ("NIGHTCREW_RUN", "RUN1"),
            ("NIGHTCREW_SCRATCH", "/crew/state/scratch/writer"),
            ("NIGHTCREW_TMP", "/crew/state/tmp/writer"),
            ("NIGHTCREW_USAGE", "/crew/state/scratch/writer/usage.jsonl"),
            ("PATH", "/usr/bin:/opt/nightcrew"),
            ("PYTHONUNBUFFERED", "1"),
            ("TMPDIR", "/crew/state/tmp/writer"),
        ];
        let expected: Vec<(OsString, OsString)> =
            expected.map(|(name, value)| (name.into(), value.into())).into();
        assert_eq!(world.environment(), expected);
    }

    #[test]
    fn a_handler_is_told_of_its_task() {
        let task = TaskFacts {
            slot: None,
            changed: Vec::new(),
            needs: Some("/crew/state/tmp/writer/RUN1.needs".into()),
            fallback: true,
            task: "t1".parse().unwrap(),
            token: 7,
            nonce: "n".into(),
            failures: 2,
            payload: "/crew/state/tmp/writer/RUN1.payload".into(),
            output: "/crew/state/tasks/output/writer/t1.7".into(),
        };
        let world = World { task: Some(task), ..World::default() };
        for (name, value) in [
            ("NIGHTCREW_TASK", "t1"),
            ("NIGHTCREW_TASK_FILE", "/crew/state/tmp/writer/RUN1.payload"),
            ("NIGHTCREW_TOKEN", "7"),
            ("NIGHTCREW_NONCE", "n"),
            ("NIGHTCREW_FAILURES", "2"),
            ("NIGHTCREW_OUTPUT", "/crew/state/tasks/output/writer/t1.7"),
        ] {
            assert_eq!(world.get(name).as_deref(), Some(value), "{name}");
        }
    }

    #[test]
    fn each_layer_wins_over_the_one_before() {
        let mut world =
            World { inherited: &[("LANG", "1"), ("PASSED", "4"), ("TZ", "4")], ..World::default() };
        assert_eq!(world.get("LANG").as_deref(), Some("1"));
        world.dot_env = &[("LANG", "2"), ("PASSED", "2"), ("PYTHONUNBUFFERED", "")];
        assert_eq!(world.get("LANG").as_deref(), Some("2"));
        assert_eq!(world.get("PYTHONUNBUFFERED").as_deref(), Some(""));
        world.env_file = &[("LANG", "3"), ("PASSED", "3")];
        assert_eq!(world.get("LANG").as_deref(), Some("3"));
        assert_eq!(world.get("PASSED").as_deref(), Some("3"));
        world.manifest = "pass_env = [\"PASSED\", \"LANG\", \"ABSENT\"]";
        assert_eq!(world.get("PASSED").as_deref(), Some("4"));
        assert_eq!(world.get("ABSENT"), None);
        world.manifest = "pass_env = [\"PASSED\"]\nenv = { LANG = \"5\", PASSED = \"5\", TMPDIR = \"/big\" }";
        for (name, value) in [("LANG", "5"), ("PASSED", "5"), ("TMPDIR", "/big"), ("TZ", "4")] {
            assert_eq!(world.get(name).as_deref(), Some(value), "{name}");
        }
    }

    #[test]
    fn nobody_else_sets_what_is_ours() {
        let world = World {
            dot_env: &[("NIGHTCREW_RUN", "forged"), ("NIGHTCREW_TASK", "forged")],
            env_file: &[("NIGHTCREW_DIR", "/forged"), ("NIGHTCREW_ANYTHING", "forged")],
            inherited: &[("NIGHTCREW_OUTPUT", "/forged")],
            ..World::default()
        };
        let all = world.environment();
        assert!(all.iter().all(|(_, value)| !value.to_str().unwrap().contains("forged")), "{all:?}");
    }

    #[test]
    fn path_is_the_nearest_one_named_and_the_binary_is_on_it() {
        let mut world = World::default();
        assert_eq!(world.get("PATH").unwrap(), format!("{PATH_DEFAULT}:/opt/nightcrew"));
        world.inherited = &[("PATH", "/inherited:/opt/nightcrew:/x")];
        assert_eq!(world.get("PATH").unwrap(), "/inherited:/opt/nightcrew:/x");
        world.crew_file.path = Some("/crew/bin:/opt/nightcrew/x".into());
        assert_eq!(world.get("PATH").unwrap(), "/crew/bin:/opt/nightcrew/x:/opt/nightcrew");
        world.dot_env = &[("PATH", "/dot")];
        assert_eq!(world.get("PATH").unwrap(), "/dot:/opt/nightcrew");
        world.manifest = "env = { PATH = \"\" }";
        assert_eq!(world.get("PATH").unwrap(), "/crew/bin:/opt/nightcrew/x:/opt/nightcrew");
    }
}
