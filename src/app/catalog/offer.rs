//! What is offered to run, put together from the program, its manifest and its environment files.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::edge::store::Store;
use crate::protocol::envfile;
use crate::protocol::manifest::{self, Manifest};
use crate::protocol::name::AgentName;
use crate::protocol::record::SMALL_LEN_MAX;
use crate::protocol::status::Refusal;

use super::clock::timetable;
use super::digest::Version;
use super::judge::{
    Covered, Declaration, Judge, Program, command_on_path, interpreter_is_there, misdeclared, read_trusted,
    unreadable,
};
use super::look::{self, Look};
use super::{Offer, Problem, shell_word};
use crate::app::reach::Reach;

impl<S: Store> Judge<'_, S> {
    /// Makes an offer of a program, a declaration, or both. What `reload_on` covers goes to `covered` as soon as
    /// it is known, so that a change there is noticed even if the agent is refused.
    pub(super) fn offer(
        &self,
        look: &mut Look<'_, S>,
        agent: AgentName,
        program: Option<Program>,
        declaration: Option<Declaration>,
        covered: &mut Covered,
    ) -> Result<Offer, Refusal> {
        let mut warnings = Vec::new();
        let mut version = Version::new();
        let (manifest, declared_in) = self.manifest(&agent, program.as_ref(), declaration.as_ref())?;
        if let Some(declaration) = declaration {
            version.add("declaration", &declaration.blob.bytes);
            version.add_rights("declaration's rights", &declaration.blob.signature);
            warnings.extend(declaration.warning);
        }
        let file = program.as_ref().map_or(&declared_in, |program| &program.file).clone();
        let complain = |problem: Problem| problem.about(declared_in.clone());

        let workdir = self.workdir(look, &manifest).map_err(complain)?;
        let mut env_file = |path: PathBuf, required: bool| {
            self.env_file(look, &path, required, &mut version, &mut warnings)
                .map_err(|problem| problem.about(self.shown(&path)))
        };
        let common = self.layout.default_env_file();
        let own = manifest.env_file.as_ref().map(|file| self.layout.crew().join(file));
        let dot_env = env_file(common, false)?;
        let env_file = own.map(|own| env_file(own, true)).transpose()?.unwrap_or_default();
        let search_path = self.terms.search_path(self.layout, &agent, &manifest, &dot_env, &env_file);

        let mut argv: Vec<OsString> = Vec::new();
        if let Some(program) = program {
            if let Some(interpreter) = &program.interpreter {
                interpreter_is_there(look, &search_path, interpreter, &program.file)
                    .map_err(|problem| problem.about(program.file.clone()))?;
            }
            version.add("program", program.content.digest.as_bytes());
            version.add_rights("program's rights", &program.found.signature);
            warnings.extend(program.warning);
            argv.push(program.path.into());
        } else if let Some((first, rest)) = manifest.command.as_deref().and_then(<[String]>::split_first) {
            argv.push(self.command(look, &search_path, first, workdir.as_deref()).map_err(complain)?.into());
            argv.extend(rest.iter().map(OsString::from));
        }
        argv.extend(manifest.args.iter().map(OsString::from));

        if !manifest.reload_on.is_empty() {
            let reload = Reach::new("reload_on", &manifest.reload_on).map_err(complain)?;
            let digest = reload.digest(self.store, self.layout);
            *covered = Some((reload, digest.clone()));
            version.add("reload_on", digest.map_err(complain)?.as_bytes());
        }
        let digest = version.finish();
        if !manifest.triggers.watch.is_empty() {
            Reach::new("watch", &manifest.triggers.watch).map_err(complain)?;
        }
        let table = timetable(&manifest, self.terms.crew_file.timezone.as_ref()).map_err(complain)?;
        Ok(Offer { agent, file, digest, manifest, table, argv, workdir, dot_env, env_file, warnings })
    }

    /// What the agent declares, and the file in which it does.
    fn manifest(
        &self,
        agent: &AgentName,
        program: Option<&Program>,
        declaration: Option<&Declaration>,
    ) -> Result<(Manifest, String), Refusal> {
        let defaults = &self.terms.crew_file.defaults;
        match (program, declaration) {
            (Some(program), None) => manifest::from_script(&program.file, &program.content.head, defaults)
                .map(|manifest| (manifest.of(agent), program.file.clone()))
                .map_err(|errors| misdeclared(&errors, &program.file)),
            (program, Some(declaration)) => {
                let file = &declaration.file;
                let manifest = manifest::from_toml(file, &declaration.blob.bytes, defaults)
                    .map_err(|errors| misdeclared(&errors, file))?;
                match (program, &manifest.command) {
                    (Some(program), Some(_)) => Err(Problem::new(
                        format!("it has a command, but {} lies beside it", program.file),
                        format!("remove command from {file}, or move {} away", program.file),
                    )
                    .about(file)),
                    (None, None) => Err(Problem::new(
                        format!("it has no command, and no executable {agent} or {agent}.* lies beside it"),
                        format!("add command = [\"…\"] to {file}, or put the script there and chmod +x it"),
                    )
                    .about(file)),
                    (Some(_), None) | (None, Some(_)) => Ok((manifest.of(agent), file.clone())),
                }
            }
            (None, None) => Err(Problem::new("there is nothing to run", "put an executable into agents/")
                .about(agent.to_string())),
        }
    }

    fn workdir(&self, look: &mut Look<'_, S>, manifest: &Manifest) -> Result<Option<PathBuf>, Problem> {
        let Some(workdir) = &manifest.workdir else { return Ok(None) };
        let path = self.layout.crew().join(workdir);
        match look.at(&path).map_err(|error| unreadable(&error, workdir))? {
            Some(found) if look::is_dir(&found.signature) => Ok(Some(path)),
            Some(_) => Err(Problem::new(
                format!("workdir: {workdir} is no directory"),
                "name a directory, relative to the crew",
            )),
            None => Err(Problem::new(
                format!("workdir: {workdir} is not there"),
                format!("mkdir -p {}", shell_word(&path.to_string_lossy())),
            )),
        }
    }

    /// The program that `command` names. Who may write to it is not judged: it need not be the crew's.
    fn command(
        &self,
        look: &mut Look<'_, S>,
        search_path: &OsStr,
        command: &str,
        workdir: Option<&Path>,
    ) -> Result<PathBuf, Problem> {
        if !command.contains('/') {
            return command_on_path(look, search_path, command);
        }
        let path = workdir.unwrap_or(self.layout.crew()).join(command);
        let word = shell_word(&path.to_string_lossy());
        match look.at(&path).map_err(|error| unreadable(&error, command))? {
            Some(found) if look::is_program(&found.signature) => Ok(path),
            Some(_) => {
                Err(Problem::new(format!("command: {command} is not executable"), format!("chmod +x {word}")))
            }
            None => Err(Problem::new(
                format!("command: {} is not there", path.display()),
                format!("ls -l {word}"),
            )),
        }
    }

    /// Reads an environment file; nothing if it may be missing, and is.
    fn env_file(
        &self,
        look: &mut Look<'_, S>,
        path: &Path,
        required: bool,
        version: &mut Version,
        warnings: &mut Vec<String>,
    ) -> Result<BTreeMap<String, String>, Problem> {
        let shown = self.shown(path);
        let len_max = u64::try_from(envfile::ENV_FILE_LEN_MAX).unwrap_or(SMALL_LEN_MAX);
        let read = read_trusted(look, path, &shown, len_max, |signature, file| {
            self.owners.judge_secret(signature, file)
        });
        let Some((blob, warning)) = read? else {
            return if required {
                Err(Problem::new(
                    format!("env_file: {shown} is not there"),
                    format!("write it (chmod 600 {}), or remove env_file", shell_word(&shown)),
                ))
            } else {
                Ok(BTreeMap::new())
            };
        };
        warnings.extend(warning);
        version.add("environment", &blob.bytes);
        envfile::parse(&shown, &blob.bytes).map_err(|errors| {
            let told =
                errors.first().map(|error| (format!("line {}: {}", error.line, error.message), error.remedy));
            let (reason, remedy) = told.unwrap_or_default();
            Problem::new(reason, remedy)
        })
    }
}
