//! What a process is started with.

use std::collections::BTreeMap;

use crate::app::catalog::Offer;
use crate::app::environment::{Inputs, TaskFacts, environment};
use crate::edge::clock::Clock;
use crate::edge::processes::{Launch, Processes};
use crate::edge::store::Store;
use crate::machine::effect::{Grant, Mode};
use crate::protocol::layout::Shelf;
use crate::protocol::manifest::Manifest;
use crate::protocol::name::{RunId, TaskId};
use crate::protocol::task::{Made, TaskRecord, WATCH};
use crate::protocol::trigger::Changes;
use crate::protocol::variables::{ENV_TASK, ENV_TASK_FILE};

use super::{Helpers, Supervisor};

impl<S: Store, C: Clock, P: Processes, H: Helpers> Supervisor<S, C, P, H> {
    /// The process of one run: a service's, or a handler's with the task it is granted.
    pub(super) fn launch_of(
        &self,
        run: &RunId,
        offer: &Offer,
        grant: Option<&Grant>,
        record: Option<&TaskRecord>,
    ) -> Launch {
        let layout = &self.options.layout;
        let agent = &offer.agent;
        let payload = layout.payload(agent, run);
        let facts = grant.map(|grant| TaskFacts {
            task: grant.lock.task.clone(),
            token: grant.lock.token,
            nonce: grant.lock.nonce.clone(),
            failures: grant.failures,
            payload: payload.clone(),
            output: layout.output(agent, &grant.lock.task, grant.lock.token),
            needs: Some(layout.needs(agent, run)).filter(|path| self.is_there(path)),
            slot: record.and_then(|record| record.slot.clone()),
            changed: record.map(changed_in).unwrap_or_default(),
            fallback: grant.mode == Mode::Fallback,
        });
        // A handler may have several runs at once, and its beats are its own affair: a file each.
        let heartbeat =
            if grant.is_some() { layout.heartbeat_of_run(agent, run) } else { layout.heartbeat(agent) };
        let terms = &self.options.terms;
        let env = environment(&Inputs {
            layout,
            agent,
            run,
            manifest: &offer.manifest,
            crew_file: &terms.crew_file,
            dot_env: &offer.dot_env,
            env_file: &offer.env_file,
            inherited: &terms.inherited,
            binary_dir: &terms.binary_dir,
            heartbeat: &heartbeat,
            task: facts.as_ref(),
        });
        Launch {
            run: run.clone(),
            agent: agent.clone(),
            argv: offer.argv.clone(),
            env,
            stdin: grant.map(|_| payload),
            output: layout.pipe(agent, run),
            workdir: offer.workdir.clone(),
        }
    }

    /// The process that judges a task's result: the gate, with the result on its standard input.
    pub(super) fn gate_of(&self, run: &RunId, task: &TaskId, made: &Made) -> Result<Launch, String> {
        let layout = &self.options.layout;
        let path = layout.gate(&made.gate);
        let shown = format!("gates/{}", made.gate);
        let found = self.store.stat(&path).map_err(|error| format!("{shown}: {error}"))?;
        let Some(signature) = found else { return Err(format!("there is no {shown}")) };
        self.options
            .owners
            .judge(&signature, &shown)
            .map_err(|problem| format!("{shown}: {}; {}", problem.reason, problem.remedy))?;
        let terms = &self.options.terms;
        let manifest = Manifest::default();
        let mut env = environment(&Inputs {
            layout,
            agent: &made.agent,
            run,
            manifest: &manifest,
            crew_file: &terms.crew_file,
            dot_env: &BTreeMap::new(),
            env_file: &BTreeMap::new(),
            inherited: &terms.inherited,
            binary_dir: &terms.binary_dir,
            heartbeat: &layout.heartbeat_of_run(&made.agent, run),
            task: None,
        });
        env.push((ENV_TASK.into(), task.as_str().into()));
        env.push((ENV_TASK_FILE.into(), layout.task(task).into()));
        let result = layout.result_on(Shelf::Review, task);
        Ok(Launch {
            run: run.clone(),
            agent: made.agent.clone(),
            argv: vec![path.into()],
            env,
            stdin: self.is_there(&result).then_some(result),
            output: layout.pipe(&made.agent, run),
            workdir: None,
        })
    }
}

/// The files of a firing by changes.
fn changed_in(record: &TaskRecord) -> Vec<String> {
    let changes = (record.by == WATCH).then(|| serde_json::from_str::<Changes>(record.payload.get()).ok());
    changes
        .flatten()
        .map(|it| it.changed.into_iter().map(|changed| changed.path).collect())
        .unwrap_or_default()
}
