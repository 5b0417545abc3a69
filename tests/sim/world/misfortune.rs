//! What goes wrong from outside, and how it ends.

use crate::cast::{AGENTS, CANARY};

use super::{
    AgentName, Ending, Faults, LULL_MS_MAX, LULL_STEPS_MAX, Manners, Program, Shelf, World, people, requests,
};

impl World {
    /// What goes wrong from outside, and what people do.
    pub(super) fn misfortune(&self) {
        let options = &self.options;
        if self.power_cut_now.take() {
            self.cut_power();
        }
        let crew = self.crew();
        if let Some(crew) = crew.as_ref().filter(|_| self.chance(options.kills)) {
            crew.handle.kill_after(self.below(40) as u64);
        }
        if let Some(crew) = crew.as_ref().filter(|_| self.chance(options.syncs_interrupted)) {
            let dirs = [self.layout.shelf(Shelf::Done), self.layout.tasks(), self.layout.applied_dir()];
            crew.handle.kill_at_sync_of(dirs[self.below(dirs.len())].clone());
            self.power_cut_after_start.set(true);
        }
        if let Some(crew) = crew.as_ref().filter(|_| self.chance(options.cuts_at_publishing)) {
            crew.handle.kill_at_sync_of(self.layout.new_tasks());
            self.power_cut_at_death.set(true);
        }
        if let Some(crew) = crew.as_ref().filter(|_| self.chance(options.terms)) {
            self.tell(|| "TERM".into());
            crew.stop();
            self.kernel.borrow_mut().draining = true;
        }
        if let Some(crew) = crew.as_ref().filter(|crew| crew.is_broken() && self.chance(0.05)) {
            self.tell(|| "an operator restarts what is broken".into());
            crew.handle.kill();
        }
        if self.chance(options.power_cuts) {
            match crew {
                Some(crew) if self.chance(0.5) => {
                    self.power_cut_at_death.set(true);
                    crew.handle.kill_after(self.below(20) as u64);
                }
                Some(_) | None => self.cut_power(),
            }
        }
        if self.chance(options.agent_kills) {
            self.kill_an_agent();
        }
        if self.chance(options.disk_faults) {
            self.bother_disk();
        }
        if self.chance(options.pauses) {
            self.time.advance(self.below(600_000) as u64);
        }
        if self.chance(options.wall_jumps) {
            self.time.set_wall(1_200_000 - i64::try_from(self.below(2_400_000)).unwrap_or(0));
        }
        if self.chance(options.people) {
            people::act(self);
        }
        if self.chance(options.decisions) {
            requests::decide(self);
        }
        if self.chance(0.02) && self.kernel.borrow().has_room() {
            let handle = self.disk.process();
            self.kernel.borrow_mut().spawn(1, None, Manners::Civil, handle, Program::Bystander, 3_600_000);
        }
    }

    fn kill_an_agent(&self) {
        let mut kernel = self.kernel.borrow_mut();
        let pids: Vec<u32> = kernel.procs.keys().copied().collect();
        if pids.is_empty() {
            return;
        }
        let pid = pids[self.below(pids.len())];
        let stuck = kernel
            .procs
            .get(&pid)
            .is_none_or(|p| matches!(p.manners, Manners::Stuck(_)) || p.program.is_none());
        if !stuck {
            kernel.end(pid, Ending::Signal(9));
        }
    }

    fn bother_disk(&self) {
        let mut faults = Faults::default();
        match self.below(9) {
            0 => faults.sync_error = 3_000,
            1 => faults.sync_dir_error = 3_000,
            2 => faults.io_error = 1_000,
            3 => faults.open_error = 6_000,
            4 => faults.space = Some(self.below(2_000) as u64),
            5 => faults.inodes = Some(self.below(4) as u64),
            6 => faults.read_only = true,
            _ => {}
        }
        self.tell(|| format!("the disk: {faults:?}"));
        self.disk.set_faults(faults);
        self.mount_anew();
    }

    /// A file system that gave up takes nothing until somebody starts the machine anew.
    fn mount_anew(&self) {
        if self.disk.is_aborted() {
            self.cut_power();
        }
    }

    /// For a while everybody is left alone.
    pub(super) fn lull(&self) {
        self.tell(|| "a lull".into());
        let until = self.time.ms() + self.below(LULL_MS_MAX) as u64;
        for _ in 0..LULL_STEPS_MAX {
            if self.time.ms() >= until {
                break;
            }
            self.step();
        }
    }

    /// From now on nothing goes wrong any more, and what went wrong is put right as an operator would.
    pub(super) fn calm_down(&self) {
        self.tell(|| "CALM".into());
        self.calm.set(true);
        self.power_cut_at_death.set(false);
        self.disk.set_faults(Faults::default());
        self.mount_anew();
        // What a power cut spoiled of the operator's own files is the operator's to put right.
        self.install();
        self.disk.remove(&self.layout.halt());
        for agent in AGENTS {
            let agent: AgentName = agent.parse().expect("a name");
            self.disk.remove(&self.layout.stopped(&agent));
        }
        let mut kernel = self.kernel.borrow_mut();
        let now = self.time.ms();
        for process in kernel.procs.values_mut() {
            if matches!(process.program, Some(Program::Outsider { .. })) {
                process.wake_at = process.wake_at.min(now + 5_000);
            }
        }
        drop(kernel);
        // What a fault of the disk left to be tidied away is left to the next start.
        let faulty = self.options.disk_faults > 0.0;
        if let Some(crew) = self.crew().filter(|crew| faulty || crew.is_broken() || self.chance(0.3)) {
            crew.handle.kill();
        }
        self.bury();
        let handle = self.disk.process();
        if self.chance(0.5) {
            people::forget_failures(self, &handle);
        }
        people::submit(self, &handle, CANARY);
        // What died deserves another life, now that it can be done; some are let die again.
        for _ in 0..self.below(self.disk.names(&self.layout.shelf(Shelf::Dead)).len() + 1) {
            people::replay(self, &handle);
        }
        for _ in 0..self.below(3) {
            requests::review(self, &handle, self.chance(0.5));
        }
    }
}
