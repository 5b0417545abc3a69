//! Whose files may say what runs: owners and permissions.

use crate::edge::store::Signature;

use super::Problem;

/// Writable by others.
const OTHERS_WRITE: u32 = 0o002;
/// Writable by the group.
const GROUP_WRITE: u32 = 0o020;
/// Readable by others.
const OTHERS_READ: u32 = 0o004;

/// Whose files are trusted, beside root's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owners {
    /// The user that we run as.
    pub us: u32,
    /// The owner of the crew's directory.
    pub crew: u32,
}

impl Owners {
    fn accept(self, uid: u32) -> bool {
        uid == 0 || uid == self.us || uid == self.crew
    }

    /// Judges a file that decides what runs. Gives what is doubtful, but tolerated.
    ///
    /// Whoever can write it can run programs as us. A group may be one's own and harmless, so it is only
    /// warned of, except where that would give a group root.
    pub(in crate::app) fn judge(self, signature: &Signature, file: &str) -> Result<Option<String>, Problem> {
        if !self.accept(signature.uid) {
            return Err(Problem::new(
                format!(
                    "it belongs to uid {}, who is neither root, the supervisor's user ({}) nor the owner of the \
                     crew ({})",
                    signature.uid, self.us, self.crew
                ),
                format!("chown {} {}", self.crew, super::shell_word(file)),
            ));
        }
        if signature.mode & OTHERS_WRITE != 0 {
            return Err(Problem::new(
                "everybody may write to it, and so run programs as the supervisor's user",
                format!("chmod o-w {}", super::shell_word(file)),
            ));
        }
        if signature.mode & GROUP_WRITE == 0 {
            return Ok(None);
        }
        let remedy = format!("chmod g-w {}", super::shell_word(file));
        if self.us == 0 {
            return Err(Problem::new(
                format!("its group (gid {}) may write to it, and so run programs as root", signature.gid),
                remedy,
            ));
        }
        Ok(Some(format!("the group (gid {}) of {file} may write to it: {remedy}", signature.gid)))
    }

    /// Judges a file that holds secrets: as [`Owners::judge`], and others must not read it.
    pub(super) fn judge_secret(self, signature: &Signature, file: &str) -> Result<Option<String>, Problem> {
        if signature.mode & OTHERS_READ != 0 {
            return Err(Problem::new(
                format!("{file} holds the agent's environment, and everybody may read it"),
                format!("chmod o-r {}", super::shell_word(file)),
            ));
        }
        self.judge(signature, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(uid: u32, mode: u32) -> Signature {
        Signature { dev: 1, ino: 1, size: 1, mtime_ns: 1, ctime_ns: 1, mode: 0o100_000 | mode, uid, gid: 7 }
    }

    #[test]
    fn who_may_write_what_runs() {
        let user = Owners { us: 1000, crew: 1001 };
        let root = Owners { us: 0, crew: 1001 };
        for uid in [0, 1000, 1001] {
            assert_eq!(user.judge(&file(uid, 0o755), "agents/a"), Ok(None));
        }
        assert_eq!(user.judge(&file(1002, 0o755), "agents/a").unwrap_err().remedy, "chown 1001 agents/a");
        assert_eq!(user.judge(&file(1000, 0o757), "agents/a").unwrap_err().remedy, "chmod o-w agents/a");
        assert!(user.judge(&file(1000, 0o775), "agents/a").unwrap().is_some());
        assert_eq!(root.judge(&file(0, 0o775), "agents/a").unwrap_err().remedy, "chmod g-w agents/a");
        assert_eq!(root.judge(&file(1000, 0o755), "a").unwrap_err().remedy, "chown 1001 a");
    }

    #[test]
    fn who_may_read_secrets() {
        let owners = Owners { us: 1000, crew: 1000 };
        assert_eq!(owners.judge_secret(&file(1000, 0o640), ".env"), Ok(None));
        assert_eq!(owners.judge_secret(&file(1000, 0o644), ".env").unwrap_err().remedy, "chmod o-r .env");
        assert!(owners.judge_secret(&file(1000, 0o662), ".env").is_err());
    }
}
