//! Running a program in the foreground, for an operator who watches: its output goes where ours goes.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::store::{ReadError, Store};
use crate::protocol::process::Ending;

/// What to run.
#[derive(Debug, Clone)]
pub struct Foreground {
    /// Program (absolute) and arguments.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// What is on standard input; nothing if absent.
    pub stdin: Option<PathBuf>,
    /// The working directory.
    pub workdir: PathBuf,
}

/// Runs a program and waits for its end.
///
/// It stays in our process group, so that the terminal's Ctrl-C reaches it as it reaches us; we outlive that,
/// to tell how it ended. What is sent to us alone (TERM, HUP) is passed on.
///
/// # Errors
/// If it could not be started or waited for.
pub fn run(what: &Foreground) -> io::Result<Ending> {
    let Some((program, args)) = what.argv.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program is named"));
    };
    let stdin = match &what.stdin {
        Some(path) => Stdio::from(std::fs::File::open(path)?),
        None => Stdio::null(),
    };
    let mut signals = Signals::new([SIGINT, SIGQUIT, SIGTERM, SIGHUP])?;
    let handle = signals.handle();
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .envs(what.env.iter().map(|(name, value)| (name, value)))
        .stdin(stdin)
        .current_dir(&what.workdir)
        .spawn()?;
    // A descriptor, not the pid: that may be another process's by the time a signal comes.
    let process = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let passing_on = super::thread::spawn("nc-pass-on", move || {
        for number in signals.forever() {
            let passed = match number {
                SIGTERM => Some(Signal::TERM),
                SIGHUP => Some(Signal::HUP),
                // The terminal has sent these to the whole group.
                _ => None,
            };
            if let (Some(signal), Some(process)) = (passed, &process) {
                // It may have ended meanwhile; then there is nobody to tell.
                let _ = pidfd_send_signal(process.as_fd(), signal);
            }
        }
    });
    let status = child.wait();
    handle.close();
    super::thread::join(&mut passing_on.ok());
    let status = status?;
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Code(code),
        (None, Some(signal)) => Ending::Signal(signal),
        (None, None) => Ending::Unseen,
    })
}

/// Reads what a program that ran left behind, if it did; then removes it.
///
/// # Errors
/// [`ReadError`], other than that it is missing.
pub fn collect(store: &impl Store, path: &std::path::Path, max: u64) -> Result<Option<Vec<u8>>, ReadError> {
    let read = store.read(path, max);
    store.unlink(path)?;
    match read {
        Ok(blob) => Ok(Some(blob.bytes)),
        Err(ReadError::Missing) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::files::FsStore;

    fn shell(dir: &std::path::Path, script: &str, stdin: Option<PathBuf>) -> Ending {
        let argv = ["/bin/sh", "-c", script].map(OsString::from).into();
        let env = vec![("PATH".into(), "/usr/bin:/bin".into()), ("A".into(), "given".into())];
        run(&Foreground { argv, env, stdin, workdir: dir.to_path_buf() }).unwrap()
    }

    #[test]
    fn a_program_gets_what_it_is_given_and_its_end_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = FsStore::for_crew(dir.path()).unwrap();
        let payload = dir.path().join("payload");
        store.write_new(&payload, b"input", false).unwrap();
        // HOME stands for all that must not be inherited.
        let script = "printf '%s %s %s' \"$(cat)\" \"$A\" \"${HOME-none}\" >out; exit 7";
        assert_eq!(shell(dir.path(), script, Some(payload)), Ending::Code(7));
        let out = dir.path().join("out");
        assert_eq!(collect(&store, &out, 100).unwrap().unwrap(), b"input given none");
        assert_eq!(collect(&store, &out, 100).unwrap(), None, "it was taken away");
        assert_eq!(shell(dir.path(), "kill -9 $$", None), Ending::Signal(9));
        assert_eq!(shell(dir.path(), "cat", None), Ending::Code(0), "without input, it ends at once");
    }

    #[test]
    fn a_program_that_cannot_be_started_is_an_error() {
        let nothing = Foreground { argv: vec![], env: vec![], stdin: None, workdir: "/".into() };
        assert!(run(&nothing).is_err());
        assert!(run(&Foreground { argv: vec!["/no/such".into()], ..nothing }).is_err());
    }
}
