//! The systemd unit for a crew.

use std::io;
use std::path::{Path, PathBuf};

use crate::edge::environment;
use crate::protocol::manifest::STOP_GRACE_MS_DEFAULT;

use super::survey::Survey;

/// What ending a supervisor takes, beside its agents' grace: killing what is left, flushing, syncing.
const FLUSH_S: u64 = 20;

/// What a unit is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The nightcrew binary, absolute.
    pub binary: PathBuf,
    /// The crew, absolute.
    pub crew: PathBuf,
    /// True for a unit of the whole system, false for one of the user.
    pub system: bool,
    /// The uid to run as, for a unit of the whole system.
    pub uid: u32,
    /// The longest `stop_grace` of the agents, in milliseconds.
    pub stop_grace_ms: u64,
}

/// Why no unit can be written.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} holds a character that a unit cannot hold")]
pub struct UnitError(PathBuf);

impl Facts {
    /// Those of this crew, this program and this user. Started by root, agents run as the crew's owner.
    ///
    /// # Errors
    /// If the path of this program cannot be found out.
    pub fn here(survey: &Survey, stop_grace_ms: Option<u64>) -> io::Result<Self> {
        Ok(Self {
            binary: environment::binary()?,
            crew: survey.layout.crew().to_path_buf(),
            system: survey.owners.us == 0,
            uid: survey.owners.crew,
            stop_grace_ms: stop_grace_ms.unwrap_or(STOP_GRACE_MS_DEFAULT),
        })
    }
}

/// Writes the unit, with how to install it.
///
/// # Errors
/// If a path holds what a unit cannot hold.
pub fn systemd(facts: &Facts) -> Result<String, UnitError> {
    let name = facts.crew.file_name().map_or_else(|| "crew".into(), |name| name.to_string_lossy());
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let (binary, crew) = (quoted(&facts.binary)?, quoted(&facts.crew)?);
    let (directory, sudo, scope, target) = if facts.system {
        ("/etc/systemd/system", "sudo ", "", "multi-user.target")
    } else {
        ("~/.config/systemd/user", "", " --user", "default.target")
    };
    let write = if facts.system { "| sudo tee" } else { ">" };
    let linger = if facts.system {
        String::new()
    } else {
        "#   loginctl enable-linger     # or it ends with your last session, and does not start at boot\n"
            .into()
    };
    let user = if facts.system { format!("User={}\n", facts.uid) } else { String::new() };
    let stop_s = facts.stop_grace_ms.div_ceil(1000).saturating_add(FLUSH_S);
    Ok(format!(
        "# To install:\n\
         #   nightcrew --crew {crew} unit {write} {directory}/{name}.service\n\
         #   {sudo}systemctl{scope} daemon-reload\n\
         #   {sudo}systemctl{scope} enable --now {name}.service\n\
         {linger}\
         # To see:  systemctl{scope} status {name}; nightcrew --crew {crew} status\n\
         \n\
         [Unit]\n\
         Description=nightcrew: {name}\n\
         Documentation=man:nightcrew(1)\n\
         # A crew that keeps failing is tried again for ever: nobody may be there to reset a limit.\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=exec\n\
         {user}\
         WorkingDirectory={directory_value}\n\
         ExecStart={binary} --crew {crew} run\n\
         # TERM goes to the supervisor alone, which stops its agents in good order; what is left is killed.\n\
         KillMode=mixed\n\
         TimeoutStopSec={stop_s}\n\
         Restart=always\n\
         RestartSec=1\n\
         # A cgroup of its own to manage, so that no process of an agent is lost sight of.\n\
         Delegate=yes\n\
         \n\
         [Install]\n\
         WantedBy={target}\n",
        directory_value = percent_escaped(&facts.crew)?,
    ))
}

/// A path as a word of a unit's command line: quoted, with what systemd would expand doubled.
fn quoted(path: &Path) -> Result<String, UnitError> {
    let text = percent_escaped(path)?.replace('$', "$$");
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./%+@:,=".contains(c));
    Ok(if plain { text } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) })
}

fn percent_escaped(path: &Path) -> Result<String, UnitError> {
    let text = path.to_str().filter(|text| !text.chars().any(char::is_control));
    text.map(|text| text.replace('%', "%%")).ok_or_else(|| UnitError(path.to_path_buf()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(crew: &str, system: bool) -> Facts {
        let binary = "/usr/bin/nightcrew".into();
        Facts { binary, crew: crew.into(), system, uid: 1000, stop_grace_ms: 10_500 }
    }

    #[test]
    fn a_unit_waits_for_the_longest_grace_and_names_the_user() {
        let unit = systemd(&facts("/srv/my crew", true)).unwrap();
        for line in [
            "ExecStart=/usr/bin/nightcrew --crew \"/srv/my crew\" run",
            "WorkingDirectory=/srv/my crew",
            "TimeoutStopSec=31",
            "User=1000",
            "KillMode=mixed",
            "WantedBy=multi-user.target",
        ] {
            assert!(unit.lines().any(|known| known == line), "{line} is missing:\n{unit}");
        }
        assert!(!unit.contains("linger"));
        let own = systemd(&facts("/home/u/50%", false)).unwrap();
        assert!(own.contains("enable-linger") && !own.contains("User="), "{own}");
        assert!(own.contains("--crew /home/u/50%% run"), "{own}");
        assert!(systemd(&facts("/srv/new\nline", true)).is_err());
    }
}
