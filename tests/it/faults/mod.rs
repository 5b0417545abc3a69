//! Real faults on the real binary. Each test names the promise it checks, waits for evidence, and has a line in
//! docs/reliability.md, which `catalogue` holds against the sources.

mod at_work;
mod bits;
mod catalogue;
mod cgroup;
mod clocks;
mod disk;
mod files;
mod frozen;
mod injection;
mod kills;
mod mount;
mod namespace;
mod output;
mod powercut;
mod processes;
mod resources;
mod scripts;
mod storm;
mod terminal;
mod watches;

pub(crate) mod needs;

/// The most memory that a process ever had resident, in kB.
fn hwm_of(pid: i32) -> u64 {
    let status = crate::crew::text_of(std::path::Path::new(&format!("/proc/{pid}/status")));
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).expect("the kernel counts it")
}
