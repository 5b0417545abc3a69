//! Making a process: `posix_spawn` into a session of its own.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags};
use nix::sys::signal::SigSet;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Launch;
use super::inherited::inherited;

/// `POSIX_SPAWN_SETSID` of glibc and musl, which nix does not name.
const SETSID: i32 = 0x80;
/// How much of a script is read to find its interpreter; the kernel itself reads no more.
const SHEBANG_LEN_MAX: u64 = 256;

/// Why a process could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnError {
    /// A string that no process can be given.
    #[error("{what} holds a NUL byte, which no process can be given: remove it")]
    Nul {
        /// Which.
        what: String,
    },
    /// No program was named.
    #[error("the command is empty: name a program")]
    Empty,
    /// Standard input or output could not be had.
    #[error("cannot open {path} for its {what}: {source}")]
    Stream {
        /// What it was to be.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is something else where the named pipe should be.
    #[error("{path} is no named pipe: remove it")]
    NoPipe {
        /// Where.
        path: PathBuf,
    },
    /// The payload is something that might block, or be endless.
    #[error("{path} is no regular file: remove it")]
    NoFile {
        /// Where.
        path: PathBuf,
    },
    /// The working directory is missing.
    #[error("the workdir {path} cannot be entered: {source}; make it, or change workdir")]
    Workdir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program is being written.
    #[error("{program} is being written: it is tried again when that is over")]
    Busy {
        /// Which.
        program: PathBuf,
    },
    /// The kernel would not run it.
    #[error("{0}")]
    Exec(String),
}

impl SpawnError {
    /// True if it will do once somebody is done writing the program.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }
}

/// Starts a process: its own session and process group, every signal at its default and unblocked, standard
/// input from the file or nothing, standard output and error into the named pipe. When it returns, the
/// program itself runs: a failure to execute it is an error here, not an exit code later (but for a launch
/// with a working directory, which goes by way of `launcher`).
///
/// The pipe is opened for reading too, so that the agent holds a reader of its own output: should the
/// supervisor die, it gets no SIGPIPE but waits, once the pipe is full, for the next supervisor.
///
/// Nothing else is inherited: every descriptor of ours is close-on-exec, and those that we were started with are
/// closed.
///
/// # Errors
/// [`SpawnError`]; no process is left behind.
pub(super) fn spawn(launch: &Launch, launcher: &Path) -> Result<rustix::process::Pid, SpawnError> {
    let program = PathBuf::from(launch.argv.first().ok_or(SpawnError::Empty)?);
    let (executable, argv) = match &launch.workdir {
        None => (program.as_path(), launch.argv.clone()),
        Some(workdir) => {
            check_before_launcher(workdir, &program)?;
            (launcher, through_launcher(launcher, workdir, &launch.argv))
        }
    };
    let path = c_string(executable.as_os_str(), || "the path of the program".into())?;
    let argv = argv
        .iter()
        .enumerate()
        .map(|(number, text)| c_string(text, || format!("argument {number}")))
        .collect::<Result<Vec<_>, _>>()?;
    let env = launch
        .env
        .iter()
        .map(|(name, value)| {
            let entry = [name.as_bytes(), b"=", value.as_bytes()].concat();
            c_string(OsStr::from_bytes(&entry), || format!("the variable {}", name.display()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let input = open_input(launch.stdin.as_deref())?;
    let output = open_output(&launch.output)?;
    posix_spawn(&path, &argv, &env, &input, &output).map_err(|error| {
        if Errno::from_io_error(&error) == Some(Errno::TXTBSY) {
            SpawnError::Busy { program: executable.to_owned() }
        } else {
            SpawnError::Exec(explain(executable, &error))
        }
    })
}

fn posix_spawn(
    path: &CString,
    argv: &[CString],
    env: &[CString],
    input: &OwnedFd,
    output: &OwnedFd,
) -> io::Result<rustix::process::Pid> {
    let mut actions = PosixSpawnFileActions::init()?;
    actions.add_dup2(input.as_raw_fd(), 0)?;
    actions.add_dup2(output.as_raw_fd(), 1)?;
    actions.add_dup2(output.as_raw_fd(), 2)?;
    for fd in inherited() {
        actions.add_close(*fd)?;
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::from_bits_retain(SETSID)
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
    )?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_sigmask(&SigSet::empty())?;
    let pid = nix::spawn::posix_spawn(path.as_c_str(), &actions, &attributes, argv, env)?;
    rustix::process::Pid::from_raw(pid.as_raw()).ok_or_else(|| Errno::SRCH.into())
}

fn c_string(text: &OsStr, what: impl FnOnce() -> String) -> Result<CString, SpawnError> {
    CString::new(text.as_bytes()).map_err(|_| SpawnError::Nul { what: what() })
}

fn through_launcher(launcher: &Path, workdir: &Path, argv: &[OsString]) -> Vec<OsString> {
    let head = [launcher.as_os_str(), "exec-agent".as_ref(), "--workdir".as_ref(), workdir.as_os_str()];
    let head = head.into_iter().chain([OsStr::new("--")]).map(OsStr::to_owned);
    head.chain(argv.iter().cloned()).collect()
}

/// What the launcher would fail at is found out before, so that it is told like any other failure to start
/// and not as an exit code of the agent.
fn check_before_launcher(workdir: &Path, program: &Path) -> Result<(), SpawnError> {
    let entered = std::fs::metadata(workdir).and_then(|metadata| {
        if metadata.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
    });
    entered.map_err(|source| SpawnError::Workdir { path: workdir.to_owned(), source })?;
    let program = workdir.join(program);
    rustix::fs::access(&program, rustix::fs::Access::EXEC_OK)
        .map_err(|errno| SpawnError::Exec(explain(&program, &errno.into())))
}

fn open_input(path: Option<&Path>) -> Result<OwnedFd, SpawnError> {
    let Some(path) = path else {
        let path = Path::new("/dev/null");
        return open(path, OFlags::RDONLY, "standard input");
    };
    // Without NONBLOCK, a FIFO put in its place would hold us up for ever.
    let input = open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, "standard input")?;
    match file_type(&input) {
        Some(FileType::RegularFile) => Ok(input),
        _ => Err(SpawnError::NoFile { path: path.to_owned() }),
    }
}

fn open_output(path: &Path) -> Result<OwnedFd, SpawnError> {
    const WHAT: &str = "standard output";
    match rustix::fs::mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => {
            return Err(SpawnError::Stream { what: WHAT, path: path.to_owned(), source: errno.into() });
        }
    }
    let output = open(path, OFlags::RDWR | OFlags::NOFOLLOW, WHAT)?;
    match file_type(&output) {
        Some(FileType::Fifo) => Ok(output),
        _ => Err(SpawnError::NoPipe { path: path.to_owned() }),
    }
}

fn open(path: &Path, flags: OFlags, what: &'static str) -> Result<OwnedFd, SpawnError> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| SpawnError::Stream {
        what,
        path: path.to_owned(),
        source: errno.into(),
    })
}

fn file_type(fd: impl AsFd) -> Option<FileType> {
    rustix::fs::fstat(fd).ok().map(|stat| FileType::from_raw_mode(stat.st_mode))
}

/// Says for a person why a program could not be executed, and what to do about it.
///
/// The kernel's own words mislead: for a script whose interpreter is missing it says that the *script* is.
#[must_use]
pub(in crate::edge) fn explain(program: &Path, error: &io::Error) -> String {
    let name = program.display();
    let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
    let there = program.exists();
    match errno {
        Errno::NOENT | Errno::NOTDIR if !there => format!("{name} is missing: put it there"),
        Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP | Errno::NOEXEC if there => {
            match interpreter(program) {
                Some(shebang) => explain_interpreter(program, &shebang, error),
                None if errno == Errno::NOEXEC && head_of(program).starts_with(b"\x7fELF") => format!(
                    "{name} is machine code that was cut off, or built for another machine: copy or build it again"
                ),
                None if errno == Errno::NOEXEC => {
                    format!("{name} is no program and has no shebang: begin it with a line such as #!/bin/sh")
                }
                None if errno == Errno::ACCESS => {
                    format!("{name} may not be executed: chmod +x it (or its file system is mounted noexec)")
                }
                None => format!("{name} needs a loader that is missing: it was built for another system"),
            }
        }
        Errno::TOOBIG => format!("{name}: arguments and environment are too large: {error}"),
        Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE => {
            format!("{name} could not be started, the host is out of processes, memory or files: {error}")
        }
        _ => format!("{name} could not be started: {error}"),
    }
}

fn explain_interpreter(program: &Path, interpreter: &Path, error: &io::Error) -> String {
    let (name, shebang) = (program.display(), interpreter.display());
    if shebang.to_string().ends_with('\r') {
        return format!(
            "{name} has Windows line endings, so its shebang fails: convert it, as by sed -i 's/\\r$//'"
        );
    }
    if !interpreter.is_absolute() {
        return format!("{name}: its shebang names {shebang:?}, which is no absolute path: correct it");
    }
    if !interpreter.exists() {
        return format!("{name}: its interpreter {shebang} is missing: install it or correct the shebang");
    }
    if rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_err() {
        return format!("{name} may not be executed: chmod +x it");
    }
    format!("{name}: its interpreter {shebang} could not be started: {error}")
}

/// What a program begins with; nothing of one that cannot be read.
fn head_of(program: &Path) -> Vec<u8> {
    // Without NONBLOCK, a FIFO of that name would hold us up for ever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut head = Vec::new();
    if let Ok(file) = rustix::fs::open(program, flags, Mode::empty()) {
        // What was read before an error tells as much as there is to be had.
        let _ = std::fs::File::from(file).take(SHEBANG_LEN_MAX).read_to_end(&mut head);
    }
    head
}

/// The interpreter that a script's first line names.
fn interpreter(program: &Path) -> Option<PathBuf> {
    let head = head_of(program);
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let from = line.iter().position(|byte| !blank(byte))?;
    let path = line.get(from..)?.split(blank).next()?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("agent");
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        (dir, path)
    }

    fn told(text: &str, mode: u32, errno: Errno) -> String {
        let (_dir, path) = script(text, mode);
        explain(&path, &errno.into())
    }

    #[test]
    fn a_failure_to_execute_says_what_to_do() {
        let missing = explain(Path::new("/nowhere/agent"), &Errno::NOENT.into());
        assert_eq!(missing, "/nowhere/agent is missing: put it there");
        assert!(
            told("#! /no/such/sh -e\n", 0o755, Errno::NOENT).contains("interpreter /no/such/sh is missing")
        );
        assert!(told("#!/bin/sh\r\n", 0o755, Errno::NOENT).contains("Windows line endings"));
        assert!(told("#!python3\n", 0o755, Errno::NOENT).contains("no absolute path"));
        assert!(told("echo hello\n", 0o755, Errno::NOEXEC).contains("no shebang"));
        assert!(told("\x7fELF\x02", 0o755, Errno::NOEXEC).contains("cut off"));
        assert!(told("#!/bin/sh\n", 0o644, Errno::ACCESS).contains("chmod +x"));
    }

    #[test]
    fn the_launcher_gets_the_arguments_untouched() {
        let argv = ["/bin/echo".into(), "--".into(), "--workdir".into()];
        let whole = through_launcher(Path::new("/bin/nc"), Path::new("/srv/x"), &argv);
        let expected = ["/bin/nc", "exec-agent", "--workdir", "/srv/x", "--", "/bin/echo", "--", "--workdir"];
        assert_eq!(whole, expected);
    }

    #[test]
    fn output_goes_to_a_named_pipe_and_nothing_else() {
        let (dir, file) = script("", 0o644);
        assert!(matches!(open_output(&file), Err(SpawnError::NoPipe { .. })));
        let pipe = dir.path().join("pipe");
        open_output(&pipe).expect("it is made");
        open_output(&pipe).expect("it is there");
        assert!(matches!(open_input(Some(&pipe)), Err(SpawnError::NoFile { .. })));
        open_input(Some(&file)).expect("a regular file");
    }
}
