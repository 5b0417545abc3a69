//! What a run that seems to hang looks like.

use std::fs;
use std::io::Read;

use serde_json::{Value, json};

use super::table::{Instance, Stat};

/// How many open files are listed.
const FILES_MAX: usize = 32;
/// How many processes are listed.
const PROCESSES_MAX: usize = 64;
/// How much of a file in `/proc` is read.
const TEXT_LEN_MAX: u64 = 256;

/// Describes a run: the root's `state`, `wchan` (where in the kernel it waits), `syscall`, `threads`,
/// `files` (at most 32), and of the whole tree `cpu_ms`, `rss_bytes`, `processes` (at most 64, each
/// `pid name (state)`) and `process_count`. What cannot be read is absent.
pub(super) fn gather(root: Option<Instance>, members: &[&Stat]) -> Value {
    let ticks: u64 = members.iter().map(|stat| stat.cpu_ticks).sum();
    let pages: u64 = members.iter().map(|stat| stat.rss_pages).sum();
    let processes: Vec<String> =
        members.iter().take(PROCESSES_MAX).map(|stat| stat.label_with_state()).collect();
    let mut evidence = json!({
        "cpu_ms": ticks.saturating_mul(1000) / ticks_per_second(),
        "rss_bytes": pages.saturating_mul(page_size()),
        "process_count": members.len(),
        "processes": processes,
    });
    let root = root.and_then(|root| members.iter().find(|stat| stat.instance == root));
    if let (Some(root), Some(fields)) = (root, evidence.as_object_mut()) {
        let pid = root.instance.pid;
        fields.insert("state".into(), root.state.to_string().into());
        fields.insert("threads".into(), root.threads.into());
        fields.insert("files".into(), open_files(pid).into());
        for name in ["wchan", "syscall"] {
            if let Some(text) = short_text(pid, name) {
                fields.insert(name.into(), text.into());
            }
        }
    }
    evidence
}

fn ticks_per_second() -> u64 {
    sysconf(nix::unistd::SysconfVar::CLK_TCK, 100)
}

fn page_size() -> u64 {
    sysconf(nix::unistd::SysconfVar::PAGE_SIZE, 4096)
}

fn sysconf(variable: nix::unistd::SysconfVar, usual: u64) -> u64 {
    let value = nix::unistd::sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok());
    value.filter(|value| *value > 0).unwrap_or(usual)
}

fn short_text(pid: u32, name: &str) -> Option<String> {
    let mut text = Vec::new();
    fs::File::open(format!("/proc/{pid}/{name}")).ok()?.take(TEXT_LEN_MAX).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).trim().to_owned())
}

fn open_files(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let mut files: Vec<(u32, String)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            Some((number, format!("{number} {}", target.display())))
        })
        .take(FILES_MAX)
        .collect();
    files.sort_unstable();
    files.into_iter().map(|(_, file)| file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::processes::table;

    #[test]
    fn evidence_of_ourselves() {
        let own = table::read_stat(std::process::id()).expect("readable");
        let evidence = gather(Some(own.instance), &[&own]);
        assert_eq!(evidence["process_count"], 1);
        assert!(evidence["rss_bytes"].as_u64().expect("a number") > 100_000);
        assert!(
            evidence["files"].as_array().is_some_and(|files| files.len() >= 3 && files.len() <= FILES_MAX)
        );
        assert!(evidence["wchan"].is_string());
        assert!(evidence["threads"].as_u64().expect("a number") >= 1);
    }

    #[test]
    fn a_root_that_is_gone_leaves_the_tree_to_tell_of() {
        let own = table::read_stat(std::process::id()).expect("readable");
        let evidence = gather(None, &[&own]);
        assert_eq!(evidence["process_count"], 1);
        assert!(evidence.get("state").is_none());
    }
}
