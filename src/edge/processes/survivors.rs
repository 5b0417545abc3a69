//! What an earlier supervisor of this crew left behind.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::table::{self, Instance, Stat};
use super::{Survivor, identity};

use crate::protocol::name::{AgentName, RunId};
use crate::protocol::variables::{ENV_AGENT, ENV_DIR, ENV_RUN};

/// What a process's environment tells of the crew it is of.
#[derive(Debug)]
struct Marked {
    stat: Stat,
    agent: AgentName,
}

/// Finds the runs of this crew that live: those with a process whose environment names `crew`, exactly as it
/// is given here, and a run. We ourselves and our ancestors are none, and neither is what lives in another
/// pid namespace or cannot be read (it is another user's). Ordered by run.
///
/// To be asked before anything is started: what we started ourselves would be found too. A process that
/// wrote over its environment is not found, but is later taken for one of the tree if its parent is.
#[must_use]
pub fn survivors(crew: &Path) -> Vec<Survivor> {
    let table = table::scan().unwrap_or_else(|error| {
        log::error!("cannot look for processes that an earlier supervisor left: {error}");
        Vec::new()
    });
    let spared = ourselves_and_ancestors(&table);
    let mut environ = Vec::new();
    let mut runs: BTreeMap<RunId, Vec<Marked>> = BTreeMap::new();
    for stat in table.iter().filter(|stat| !stat.is_zombie() && !spared.contains(&stat.instance.pid)) {
        if table::read_environ(stat.instance.pid, &mut environ).is_err() {
            continue;
        }
        if table::variable(&environ, ENV_DIR) != Some(crew.as_os_str().as_bytes()) {
            continue;
        }
        if let (Some(run), Some(agent)) = (name(&environ, ENV_RUN), name(&environ, ENV_AGENT)) {
            runs.entry(run).or_default().push(Marked { stat: *stat, agent });
        }
    }
    runs.into_iter().filter_map(|(run, members)| survivor(run, &members)).collect()
}

fn name(environ: &[u8], variable: &str) -> Option<RunId> {
    std::str::from_utf8(table::variable(environ, variable)?).ok()?.parse().ok()
}

fn survivor(run: RunId, members: &[Marked]) -> Option<Survivor> {
    let pids: HashSet<u32> = members.iter().map(|member| member.stat.instance.pid).collect();
    let tops = members.iter().filter(|member| !pids.contains(&member.stat.parent));
    let eldest = tops.min_by_key(|member| (member.stat.instance.start, member.stat.instance.pid))?;
    let root = identity::identity(eldest.stat.instance).ok()?;
    // A pid could have changed hands between the two readings; then this was nobody's root.
    let same = table::read_stat(root.pid).map(|stat| stat.instance);
    if !matches!(same, Ok(Instance { start, .. }) if start == root.start) {
        return None;
    }
    Some(Survivor { run, agent: eldest.agent.clone(), root })
}

fn ourselves_and_ancestors(table: &[Stat]) -> HashSet<u32> {
    let mut spared = HashSet::from([1]);
    let mut pid = std::process::id();
    while spared.insert(pid) {
        match table::row(table, pid).and_then(|row| table.get(row)) {
            Some(stat) => pid = stat.parent,
            None => break,
        }
    }
    spared
}
