//! Whether the files with one stem make an agent that can run, and if not, why and what to do.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::edge::store::{Blob, ReadError, Signature, Store};
use crate::protocol::layout::Layout;
use crate::protocol::manifest::ManifestError;
use crate::protocol::name::AgentName;
use crate::protocol::record::SMALL_LEN_MAX;
use crate::protocol::status::Refusal;

use super::access::Owners;
use super::digest::{self, Content};
use super::look::{self, Found, Look};
use super::shebang::{self, Head, Interpreter};
use super::{MANIFEST_EXT, Picture, Problem, Terms, shell_word, split};
use crate::app::reach::Reach;

/// What the globs of an agent covered when it was judged.
pub(super) type Covered = Option<(Reach, Result<String, Problem>)>;

/// All that judging rests on, beside the files of the agent.
pub(super) struct Judge<'a, S> {
    pub(super) layout: &'a Layout,
    pub(super) owners: Owners,
    pub(super) terms: &'a Terms,
    pub(super) store: &'a S,
}

/// A program in `agents/` that can run, as far as its own file tells.
pub(super) struct Program {
    /// Relative to the crew.
    pub(super) file: String,
    pub(super) path: PathBuf,
    pub(super) found: Found,
    pub(super) content: Content,
    /// What runs it; none for machine code.
    pub(super) interpreter: Option<Interpreter>,
    pub(super) warning: Option<String>,
}

/// A `NAME.toml`.
pub(super) struct Declaration {
    /// Relative to the crew.
    pub(super) file: String,
    pub(super) blob: Blob,
    pub(super) warning: Option<String>,
}

impl<S: Store> Judge<'_, S> {
    /// Judges the files with one stem. `accepted` is the one of them that was offered before.
    pub(super) fn group(
        &self,
        look: &mut Look<'_, S>,
        stem: &str,
        files: &[String],
        accepted: Option<&str>,
    ) -> (Picture, Covered) {
        let mut refusals = Vec::new();
        let mut programs = Vec::new();
        let mut declaration = None;
        for file in files {
            let relative = self.relative(file);
            if split(file).1 == Some(MANIFEST_EXT) {
                declaration = self.declaration(look, file).transpose();
                continue;
            }
            match self.program(look, file, accepted == Some(relative.as_str())) {
                Ok(program) => programs.extend(program),
                Err(problem) => refusals.push(problem.about(relative)),
            }
        }
        if programs.is_empty() && refusals.is_empty() && declaration.is_none() {
            return (Picture::default(), None);
        }
        let name: AgentName = match stem.parse() {
            Ok(name) => name,
            Err(error) => return (self.nameless(files, &error.to_string()), None),
        };
        let first = choose(programs, accepted, &mut refusals);
        let declaration = match declaration {
            None => None,
            Some(Ok(declaration)) => Some(declaration),
            Some(Err(refusal)) => {
                refusals.push(refusal);
                return (Picture { offer: None, refusals }, None);
            }
        };
        if first.is_none() && !refusals.is_empty() {
            return (Picture { offer: None, refusals }, None);
        }
        let mut covered = None;
        match self.offer(look, name, first, declaration, &mut covered) {
            Ok(offer) => (Picture { offer: Some(Box::new(offer)), refusals }, covered),
            Err(refusal) => {
                refusals.insert(0, refusal);
                (Picture { offer: None, refusals }, covered)
            }
        }
    }

    /// A file in `agents/` as people name it.
    fn relative(&self, file: &str) -> String {
        self.shown(&self.layout.agents().join(file))
    }

    pub(super) fn shown(&self, path: &Path) -> String {
        relative_to(self.layout, path)
    }

    fn nameless(&self, files: &[String], error: &str) -> Picture {
        let refusals = files.iter().map(|file| {
            let relative = self.relative(file);
            let good: String = split(file)
                .0
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
                .take(64)
                .collect();
            let ext = split(file).1.map(|ext| format!(".{ext}")).unwrap_or_default();
            let better = self.relative(&format!("{good}{ext}"));
            let remedy = format!("mv -- {} {}", shell_word(&relative), shell_word(&better));
            Problem::new(error, remedy).about(relative)
        });
        Picture { offer: None, refusals: refusals.collect() }
    }

    /// Judges one file that is no manifest; `None` if it is none of our business.
    fn program(
        &self,
        look: &mut Look<'_, S>,
        file: &str,
        accepted: bool,
    ) -> Result<Option<Program>, Problem> {
        let path = self.layout.agents().join(file);
        let relative = self.relative(file);
        let word = shell_word(&relative);
        let Some(found) = look.at(&path).map_err(|error| unreadable(&error, &relative))? else {
            if look.is_link(&path) {
                return Err(Problem::new("it is a symlink to nothing", format!("rm {word}")));
            }
            return Ok(None);
        };
        if look::is_dir(&found.signature) {
            return Ok(None);
        }
        if !look::is_regular(&found.signature) {
            return Err(Problem::new("it is no regular file", format!("rm {word}")));
        }
        if !look::is_program(&found.signature) {
            let head = look.read_at(&found, 0, 8).map_err(|error| unreadable(&error, &relative))?;
            if accepted || shebang::claims_to_be_a_script(&head) {
                return Err(Problem::new("it is not executable", format!("chmod +x {word}")));
            }
            return Ok(None);
        }
        let warning = self.owners.judge(&found.signature, &relative)?;
        let content = digest::content(look, &found).map_err(|error| unread(&error, &relative))?;
        let interpreter = interpreter(&content.head, &word)?;
        Ok(Some(Program { file: relative, path, found, content, interpreter, warning }))
    }

    /// Reads a `NAME.toml`; `None` if it is gone.
    fn declaration(&self, look: &mut Look<'_, S>, file: &str) -> Result<Option<Declaration>, Refusal> {
        let relative = self.relative(file);
        let path = self.layout.agents().join(file);
        read_trusted(look, &path, &relative, SMALL_LEN_MAX, |signature, file| {
            self.owners.judge(signature, file)
        })
        .map(|read| read.map(|(blob, warning)| Declaration { file: relative.clone(), blob, warning }))
        .map_err(|problem| problem.about(relative))
    }
}

/// What runs a file that begins like this; `None` for machine code.
fn interpreter(head: &[u8], word: &str) -> Result<Option<Interpreter>, Problem> {
    if head.is_empty() {
        return Err(Problem::new("it is empty", format!("write the program into it, or rm {word}")));
    }
    match shebang::judge(head) {
        Head::Binary => Ok(None),
        Head::Script(interpreter) => Ok(Some(interpreter)),
        Head::CarriageReturn => Err(Problem::new(
            "its first line ends in CR (Windows line ends), so that no interpreter of that name is found",
            format!("sed -i 's/\\r$//' {word}"),
        )),
        Head::ByteOrderMark => Err(Problem::new(
            "a byte order mark stands before its #!, which the kernel does not recognise then",
            format!("sed -i '1s/^\\xEF\\xBB\\xBF//' {word}"),
        )),
        Head::NoInterpreter => Err(Problem::new(
            "its #! line names no interpreter, or is longer than the 255 bytes that the kernel reads",
            format!("write #!/bin/sh, or the like, as the first line of {word}"),
        )),
        Head::Unknown => Err(Problem::new(
            "missing shebang: it does not begin with #!, nor is it a program in machine code",
            format!("add #!/bin/sh, or the like, as the first line: sed -i '1i #!/bin/sh' {word}"),
        )),
    }
}

/// Judges whether what runs a script is there.
pub(super) fn interpreter_is_there(
    look: &mut Look<'_, impl Store>,
    search_path: &OsStr,
    interpreter: &Interpreter,
    file: &str,
) -> Result<(), Problem> {
    let (program, sought) = match interpreter {
        Interpreter::At(program) => (program, None),
        Interpreter::Found { env, program } => (env, Some(program)),
    };
    let there = look.at(Path::new(program)).ok().flatten();
    if !there.is_some_and(|found| look::is_program(&found.signature)) {
        return Err(Problem::new(
            format!("its interpreter {program} is not there, or is not executable"),
            format!("install {program}, or name another one in the first line of {}", shell_word(file)),
        ));
    }
    match sought {
        Some(program) => command_on_path(look, search_path, program).map(|_| ()),
        None => Ok(()),
    }
}

/// The program of this name on the PATH that the agent gets.
pub(super) fn command_on_path(
    look: &mut Look<'_, impl Store>,
    search_path: &OsStr,
    program: &str,
) -> Result<PathBuf, Problem> {
    let path = search_path.to_string_lossy();
    let found = look.search(search_path, program).map_err(|error| {
        Problem::new(format!("{program} on PATH: {error}"), format!("check PATH: {path}"))
    })?;
    found.ok_or_else(|| {
        Problem::new(
            format!("{program} is not on the PATH that it gets ({path})"),
            format!("install {program}, or add its directory to path in nightcrew.toml"),
        )
    })
}

/// Reads a file that decides what runs, if `judge` agrees; `None` if it is missing.
pub(super) fn read_trusted<S: Store>(
    look: &mut Look<'_, S>,
    path: &Path,
    shown: &str,
    len_max: u64,
    judge: impl FnOnce(&Signature, &str) -> Result<Option<String>, Problem>,
) -> Result<Option<(Blob, Option<String>)>, Problem> {
    let Some(found) = look.at(path).map_err(|error| unreadable(&error, shown))? else {
        return Ok(None);
    };
    let warning = judge(&found.signature, shown)?;
    match look.read(&found, len_max) {
        Ok(blob) => Ok(Some((blob, warning))),
        Err(ReadError::Missing) => Ok(None),
        Err(error) => Err(unread(&error, shown)),
    }
}

/// A path as people name it: relative to the crew, where it lies in there.
pub(super) fn relative_to(layout: &Layout, path: &Path) -> String {
    path.strip_prefix(layout.crew()).unwrap_or(path).to_string_lossy().into_owned()
}

/// How many mistakes in one declaration are told at once.
const MISTAKES_TOLD_MAX: usize = 5;

/// All that is wrong, by line, as far as a reader takes it in at once; what follows is counted.
pub(super) fn misdeclared(errors: &[ManifestError], file: &str) -> Refusal {
    let told = errors.iter().take(MISTAKES_TOLD_MAX);
    let mut reasons: Vec<String> =
        told.clone().map(|error| format!("line {}: {}", error.line, error.message)).collect();
    let mut remedies: Vec<&str> = told.map(|error| error.remedy.as_str()).collect();
    remedies.dedup();
    if errors.len() > MISTAKES_TOLD_MAX {
        reasons.push(format!("and {} more", errors.len() - MISTAKES_TOLD_MAX));
    }
    let (reason, remedy) = (reasons.join("; "), remedies.join("; "));
    Problem::new(reason, remedy).about(file)
}

/// The program that the agent is; the others are refused. One that was accepted keeps the name even while its
/// file cannot run.
fn choose(programs: Vec<Program>, accepted: Option<&str>, refusals: &mut Vec<Refusal>) -> Option<Program> {
    let withheld = accepted.is_some_and(|accepted| refusals.iter().any(|refusal| refusal.file == accepted));
    let place = programs.iter().position(|program| Some(program.file.as_str()) == accepted).unwrap_or(0);
    let keeper = match accepted {
        Some(accepted) if withheld => accepted.to_owned(),
        _ => programs.get(place)?.file.clone(),
    };
    let mut chosen = None;
    for program in programs {
        if program.file == keeper {
            chosen = Some(program);
        } else {
            let remedy = format!("rename or remove one: mv {} …", shell_word(&program.file));
            let reason = format!("{keeper} has the same name without its ending, and came first");
            refusals.push(Problem::new(reason, remedy).about(program.file));
        }
    }
    chosen
}

pub(super) fn unreadable(error: &io::Error, file: &str) -> Problem {
    Problem::new(format!("it cannot be read: {error}"), format!("ls -lL {}", shell_word(file)))
}

fn unread(error: &ReadError, file: &str) -> Problem {
    Problem::new(format!("it cannot be read: {error}"), format!("ls -lL {}", shell_word(file)))
}
