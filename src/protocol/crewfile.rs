//! `nightcrew.toml`: what holds for the whole crew.
//!
//! ```toml
//! path = "/usr/local/bin:/usr/bin:/bin"   # the PATH of every agent
//! timezone = "Europe/Berlin"              # of schedules whose agents name none
//!
//! [defaults]                              # for every agent that does not say otherwise
//! stop_grace = "30s"
//! max_rss = "500M"
//!
//! [host]
//! tasks_at_once = 8                       # over all handlers together
//!
//! [keep]                                  # how long what ended is kept
//! done = "30d"
//! ```
//!
//! The file and all that is in it may be missing. What `[defaults]` may hold, and how a manifest goes
//! before it, is told in [`super::manifest`].

use super::manifest::{
    COMMON, Defaults, ManifestError, OWN, RESERVED, Section, Vocabulary, common, count, decode, duration,
    read, search_path, timezone,
};
use super::schedule::ZoneName;

/// The most tasks that `tasks_at_once` may allow.
pub const TASKS_AT_ONCE_MAX: u32 = 4096;

const KEYS: [&str; 5] = ["path", "timezone", "defaults", "host", "keep"];
const KEEP_KEYS: [&str; 3] = ["done", "dead", "count"];
/// For how long what is done is kept, where nothing else is declared: 30 days.
pub const KEEP_DONE_MS_DEFAULT: u64 = 30 * 86_400_000;
/// The most tasks that are kept on each shelf, where nothing else is declared.
pub const KEEP_COUNT_DEFAULT: u32 = 10_000;
/// The most that `count` may allow.
pub const KEEP_COUNT_MAX: u32 = 1_000_000;
const HOST_KEYS: [&str; 1] = ["tasks_at_once"];
const RESERVED_HERE: [&str; 4] = ["budget", "output_limit", "prices", "alerts"];

/// What holds for the whole crew.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CrewFile {
    /// The PATH of every agent: directories joined by `:`.
    pub path: Option<String>,
    /// The zone of schedules whose agents name none; the host's, if absent.
    pub timezone: Option<ZoneName>,
    /// What holds for an agent that does not say otherwise.
    pub defaults: Defaults,
    /// What the machine may be asked to bear.
    pub host: HostLimits,
    /// How long what ended is kept.
    pub keep: Keep,
}

/// How long, and how much, of what ended is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// Of what is done and what was put aside, in milliseconds; for ever if absent.
    pub done_ms: Option<u64>,
    /// Of dead letters and reviews, likewise.
    pub dead_ms: Option<u64>,
    /// The most tasks of each.
    pub count: u32,
}

impl Default for Keep {
    fn default() -> Self {
        Self { done_ms: Some(KEEP_DONE_MS_DEFAULT), dead_ms: None, count: KEEP_COUNT_DEFAULT }
    }
}

/// What the machine may be asked to bear.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostLimits {
    /// How many tasks all handlers together may work on at once; absent, it is twice the cores.
    pub tasks_at_once: Option<u32>,
}

/// Reads nightcrew.toml, `file` being what errors call it.
///
/// # Errors
/// All that is wrong, at most [`super::manifest::ERRORS_MAX`], by line.
pub fn parse(file: &str, bytes: impl AsRef<[u8]>) -> Result<CrewFile, Vec<ManifestError>> {
    let text = decode(file, bytes.as_ref())?;
    read(file, text, 1, crew)
}

fn crew(section: &mut Section<'_, '_>) -> CrewFile {
    section.check_keys(&Vocabulary {
        known: &KEYS,
        reserved: &RESERVED_HERE,
        elsewhere: &[
            (&COMMON, "below a line `[defaults]`"),
            (&HOST_KEYS, "below a line `[host]`"),
            (&KEEP_KEYS, "below a line `[keep]`"),
            (&OWN, "in the manifest of an agent"),
        ],
    });
    CrewFile {
        path: section.get("path", search_path),
        timezone: section.get("timezone", timezone),
        defaults: section.within("defaults", "[defaults]", defaults).unwrap_or_default(),
        host: section.within("host", "[host]", host).unwrap_or_default(),
        keep: section.within("keep", "[keep]", keep).unwrap_or_default(),
    }
}

fn defaults(section: &mut Section<'_, '_>) -> Defaults {
    section.check_keys(&Vocabulary {
        known: &COMMON,
        reserved: &RESERVED,
        elsewhere: &[
            (&OWN, "in the manifest of an agent"),
            (&KEYS, "at the top of the file"),
            (&HOST_KEYS, "below a line `[host]`"),
        ],
    });
    common(section)
}

fn keep(section: &mut Section<'_, '_>) -> Keep {
    section.check_keys(&Vocabulary {
        known: &KEEP_KEYS,
        reserved: &[],
        elsewhere: &[(&KEYS, "at the top of the file"), (&COMMON, "below a line `[defaults]`")],
    });
    let default = Keep::default();
    Keep {
        done_ms: section.get("done", duration).or(default.done_ms),
        dead_ms: section.get("dead", duration).or(default.dead_ms),
        count: section.get("count", |value| count(value, KEEP_COUNT_MAX)).unwrap_or(default.count),
    }
}

fn host(section: &mut Section<'_, '_>) -> HostLimits {
    section.check_keys(&Vocabulary {
        known: &HOST_KEYS,
        reserved: &[],
        elsewhere: &[(&KEYS, "at the top of the file"), (&COMMON, "below a line `[defaults]`")],
    });
    HostLimits { tasks_at_once: section.get("tasks_at_once", |value| count(value, TASKS_AT_ONCE_MAX)) }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::{Heartbeat, Manifest, from_script, from_toml};
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        parse("nightcrew.toml", text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_of_it_may_be_missing() {
        for text in ["", "# nothing\n", "[defaults]\n[host]\n"] {
            assert_eq!(parse("nightcrew.toml", text), Ok(CrewFile::default()), "{text:?}");
        }
    }

    #[test]
    fn every_part_is_read() {
        let crew = parse(
            "nightcrew.toml",
            "path = \"/opt/bin:/bin\"\n[defaults]\nstop_grace = \"30s\"\nheartbeat = \"off\"\n\
             pass_env = [\"A\"]\n[defaults.env]\nB = \"b\"\n[host]\ntasks_at_once = 3\n[keep]\ndone = \"2d\"\ncount = 5\n",
        )
        .unwrap();
        assert_eq!(crew.path.as_deref(), Some("/opt/bin:/bin"));
        assert_eq!(crew.host.tasks_at_once, Some(3));
        assert_eq!(crew.keep, Keep { done_ms: Some(172_800_000), dead_ms: None, count: 5 });
        assert_eq!(crew.defaults.stop_grace_ms, Some(30_000));
        assert_eq!(crew.defaults.heartbeat, Some(Heartbeat::Off));
        assert_eq!(crew.defaults.pass_env, ["A"]);
        assert_eq!(crew.defaults.env["B"], "b");
    }

    #[test]
    fn a_manifest_goes_before_the_defaults_and_they_before_what_is_built_in() {
        let crew = parse(
            "nightcrew.toml",
            "[defaults]\nstop_grace = \"30s\"\nsilence = \"2m\"\nenv = { A = \"crew\", B = \"crew\" }\n\
             pass_env = [\"X\", \"Y\"]\n",
        )
        .unwrap();
        let inherits = from_script("a", b"", &crew.defaults).unwrap();
        assert_eq!((inherits.stop_grace_ms, inherits.silence_ms), (30_000, Some(120_000)));
        assert_eq!(inherits.interval_ms(), Some(120_000));

        let text = "stop_grace = \"1s\"\nheartbeat = \"1m\"\npass_env = [\"X\"]\n[env]\nA = \"own\"\n";
        let own = from_toml("a.toml", text, &crew.defaults).unwrap();
        assert_eq!((own.stop_grace_ms, own.stop_signal), (1000, Manifest::default().stop_signal));
        assert_eq!((own.heartbeat, own.silence_ms), (Heartbeat::Every(60_000), None), "not both");
        assert_eq!((own.env["A"].as_str(), own.env["B"].as_str()), ("own", "crew"));
        assert_eq!(own.pass_env, ["X", "Y"]);
    }

    #[test]
    fn a_key_in_the_wrong_place_is_told_the_right_one() {
        assert_eq!(
            errors(
                "timeout = \"5m\"\ntasks_at_once = 2\nhandles = [\"x\"]\nbudget = \"UTC\"\nPath = \"/bin\"\n"
            ),
            [
                "nightcrew.toml:1: \"timeout\" does not belong here; set it below a line `[defaults]`",
                "nightcrew.toml:2: \"tasks_at_once\" does not belong here; set it below a line `[host]`",
                "nightcrew.toml:3: \"handles\" does not belong here; set it in the manifest of an agent",
                "nightcrew.toml:4: \"budget\" is not in this version; remove it: nothing here would act on it",
                "nightcrew.toml:5: unknown key \"Path\"; did you mean \"path\"?",
            ]
        );
        assert_eq!(
            errors(
                "[defaults]\nhandles = []\nschedule = 5\npath = \"/bin\"\n[host]\ncores = 1\ntimeout = \"1s\"\n"
            ),
            [
                "nightcrew.toml:2: \"handles\" does not belong here; set it in the manifest of an agent",
                "nightcrew.toml:3: \"schedule\" does not belong here; set it in the manifest of an agent",
                "nightcrew.toml:4: \"path\" does not belong here; set it at the top of the file",
                "nightcrew.toml:6: unknown key \"cores\"; the keys here are tasks_at_once",
                "nightcrew.toml:7: \"timeout\" does not belong here; set it below a line `[defaults]`",
            ]
        );
    }

    #[test]
    fn wrong_values_are_refused() {
        assert_eq!(
            errors("defaults = 3\nhost = \"big\"\npath = [\"/bin\"]\n"),
            [
                "nightcrew.toml:1: defaults: expected a table; write it like [defaults]",
                "nightcrew.toml:2: host: expected a table; write it like [host]",
                "nightcrew.toml:3: path: expected directories, found a list; write it like \
                 \"/usr/local/bin:/usr/bin:/bin\"",
            ]
        );
        assert_eq!(
            errors("[host]\ntasks_at_once = 0\n"),
            ["nightcrew.toml:2: tasks_at_once: \"0\" is out of range; use 1 to 4096"]
        );
    }
}
