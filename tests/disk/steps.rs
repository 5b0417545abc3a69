//! A step on a disk that is killed and loses power at every call: paid once where it was recorded, and never half.

use std::cell::Cell;
use std::ffi::OsString;
use std::path::Path;

use fastrand::Rng;
use nightcrew::app::client::{Caller, Client};
use nightcrew::app::steps::{Hands, Order, StepError, StepInput, Taken, take};
use nightcrew::edge::capture::{CaptureError, Captured};
use nightcrew::protocol::layout::Layout;
use nightcrew::protocol::process::Ending;
use nightcrew::protocol::step::{KeyOf, StepId, hash_of};
use nightcrew::protocol::time::Wall;

use crate::crashes::at;
use crate::disk::{Disk, Faults, Handle};

const SEEDS: u64 = 40;
/// More than a step makes.
const CALLS_MAX: u64 = 60;
const CHECK: &str = "was it done";

/// What the world outside knows.
#[derive(Default)]
struct Outside {
    calls: Cell<u64>,
    deeds: Cell<u32>,
    warnings: Cell<u32>,
}

/// The hands of one process, which may be killed when the deed is done.
struct Acting<'a> {
    outside: &'a Outside,
    process: &'a Handle,
    dies_doing: bool,
}

impl Hands for Acting<'_> {
    type Lock = ();

    fn lock(&mut self, _: &Path) -> Result<(), StepError> {
        Ok(())
    }

    fn run(&mut self, argv: &[OsString], _: StepInput<'_>) -> Result<Captured, CaptureError> {
        let is_check = argv.last().is_some_and(|word| word == CHECK);
        let deeds = &self.outside.deeds;
        if !is_check {
            deeds.set(deeds.get() + 1);
            if self.dies_doing {
                self.process.kill();
            }
        }
        let code = i32::from(deeds.get() == 0);
        let output = format!("deed {}", deeds.get()).into_bytes();
        Ok(Captured { ending: Ending::Code(code), output, overflowed: false, interrupted: None })
    }

    fn wall(&self) -> Wall {
        Wall(1_795_143_600_000)
    }

    fn warn(&mut self, _: &str) {
        self.outside.warnings.set(self.outside.warnings.get() + 1);
    }
}

struct Story {
    disk: Disk,
    outside: Outside,
    id: StepId,
    effect: bool,
    check: bool,
}

impl Story {
    fn new(seed: u64, effect: bool, check: bool) -> Self {
        let disk = Disk::new(seed);
        disk.mkdir(at("/crew/state"));
        disk.settle();
        let name = |text: &str| text.parse().expect("a name");
        let id = StepId { task: Some(name("t")), name: name("pay"), hash: hash_of(KeyOf::Text("k"), None) };
        Self { disk, outside: Outside::default(), id, effect, check }
    }

    /// One call of `step`, by one process.
    fn call(&self, process: &Handle, dies_doing: bool) -> Result<Taken, StepError> {
        let calls = &self.outside.calls;
        calls.set(calls.get() + 1);
        let random = Rng::with_seed(calls.get());
        let mut client = Client::new(process.clone(), Layout::new("/crew"), Caller::Operator, 7, random);
        let check = OsString::from(CHECK);
        let order = Order {
            id: &self.id,
            key: Some("k"),
            argv: &["pay".into()],
            input: StepInput::Ours,
            effect: self.effect,
            check: self.check.then_some(check.as_os_str()),
            ttl_ms: None,
            held: None,
        };
        take(&mut client, &order, &mut Acting { outside: &self.outside, process, dies_doing })
    }

    fn power_cut(&self, seed: u64) {
        self.disk.power_cut(&mut Rng::with_seed(seed));
    }

    /// A call in good order gives a deed's result, and every call after it the same, paid no more.
    #[track_caller]
    fn ends_well(&self, told: Option<&[u8]>, seed: u64) {
        let result = |process: &Handle| match self.call(process, false) {
            Ok(Taken::Result(output)) => output,
            other => panic!("no result: {other:?}"),
        };
        let output = result(&self.disk.process());
        assert!(output.starts_with(b"deed "), "{output:?}");
        assert!(told.is_none_or(|told| told == output), "it was told something else before");
        let deeds = self.outside.deeds.get();
        self.power_cut(seed);
        assert_eq!(result(&self.disk.process()), output);
        assert_eq!(self.outside.deeds.get(), deeds, "it was paid for already");
        assert_eq!(self.outside.warnings.get(), 0, "no crash makes a damaged record");
    }
}

/// Every call on the disk at which a process may be killed, with and without a power cut then, in many worlds.
fn everywhere(effect: bool, check: bool, mut after: impl FnMut(&Story, Result<Taken, StepError>, u64)) {
    let (mut survived, mut died) = (0, 0);
    for seed in 0..SEEDS {
        for n in 0..CALLS_MAX {
            for cut in [false, true] {
                let story = Story::new(seed, effect, check);
                let process = story.disk.process();
                process.kill_after(n);
                let first = story.call(&process, false);
                *(if process.is_dead() { &mut died } else { &mut survived }) += 1;
                if cut {
                    story.power_cut(seed);
                }
                after(&story, first, seed);
            }
        }
    }
    assert!(survived > SEEDS && died > 10 * SEEDS, "{survived} survived, {died} died");
}

fn told(first: Result<Taken, StepError>) -> Option<Vec<u8>> {
    match first {
        Ok(Taken::Result(output)) => Some(output),
        Ok(Taken::Failed { .. }) => panic!("the deed does not fail"),
        Err(_) => None,
    }
}

#[test]
fn a_result_that_was_told_is_told_for_ever_and_paid_once() {
    everywhere(false, false, |story, first, seed| {
        let first = told(first);
        let deeds = story.outside.deeds.get();
        story.ends_well(first.as_deref(), seed);
        assert!(first.is_none() || story.outside.deeds.get() == deeds);
        assert!(story.outside.deeds.get() <= 2, "cut off once, done twice at most");
    });
}

#[test]
fn an_effect_is_done_once_wherever_it_was_cut_off() {
    everywhere(true, true, |story, first, seed| {
        story.ends_well(told(first).as_deref(), seed);
        assert_eq!(story.outside.deeds.get(), 1);
    });
}

#[test]
fn an_effect_without_a_check_is_never_done_twice() {
    let (mut refused, mut done) = (0, 0);
    everywhere(true, false, |story, first, _| {
        let first = told(first);
        match story.call(&story.disk.process(), false) {
            Ok(Taken::Result(_)) => done += 1,
            Err(StepError::Begun { .. }) => refused += 1,
            other => panic!("{other:?}"),
        }
        assert!(story.outside.deeds.get() <= 1);
        assert!(first.is_none() || story.outside.deeds.get() == 1);
    });
    assert!(refused > 0 && done > 0, "{refused} refused, {done} done");
}

#[test]
fn a_process_that_dies_when_the_deed_is_done_leaves_an_effect_to_be_asked_for() {
    for (effect, deeds) in [(false, 2), (true, 1)] {
        for seed in 0..SEEDS {
            let story = Story::new(seed, effect, effect);
            let process = story.disk.process();
            assert!(story.call(&process, true).is_err());
            story.power_cut(seed);
            story.ends_well(None, seed);
            assert_eq!(story.outside.deeds.get(), deeds);
        }
    }
}

/// A disk that fails tells nothing and believes nothing; an effect is not begun where that cannot be recorded.
#[test]
fn a_disk_that_fails_keeps_nothing_half() {
    let fault =
        |sync_error, sync_dir_error, space| Faults { sync_error, sync_dir_error, space, ..Faults::default() };
    for seed in 0..SEEDS {
        for faults in [fault(20_000, 0, None), fault(0, 20_000, None), fault(0, 0, Some(seed * 10))] {
            for effect in [false, true] {
                let story = Story::new(seed, effect, effect);
                story.disk.set_faults(faults);
                let first = told(story.call(&story.disk.process(), false));
                story.disk.set_faults(Faults::default());
                story.power_cut(seed);
                story.ends_well(first.as_deref(), seed);
                assert!(!effect || story.outside.deeds.get() == 1);
            }
        }
    }
}

/// Bits that rot: put aside and said, and for an effect not a reason to do it again.
#[test]
fn a_damaged_record_is_kept_aside_and_never_told() {
    let layout = Layout::new("/crew");
    for (effect, deeds) in [(false, 2), (true, 1)] {
        let whole = Story::new(1, effect, effect);
        whole.ends_well(None, 1);
        let path = layout.step(&whole.id);
        let file = whole.disk.text(&path).expect("a record");
        for n in 0..CALLS_MAX {
            let story = Story { disk: whole.disk.fork(), ..Story::new(n, effect, effect) };
            story.outside.deeds.set(1);
            story.outside.calls.set(whole.outside.calls.get());
            story.disk.put(&path, &file[..file.len() - 1]);
            story.disk.settle();
            let process = story.disk.process();
            process.kill_after(n);
            let first = told(story.call(&process, false));
            assert!(first.is_none_or(|output| output == format!("deed {deeds}").as_bytes()));
            assert!(story.outside.warnings.take() <= 1);
            story.power_cut(n);
            let again = told(story.call(&story.disk.process(), false)).expect("a result");
            assert!(again.starts_with(b"deed "));
            assert!(!effect || story.outside.deeds.get() == 1, "done again blindly, killed at {n}");
            let aside = story.disk.names(at("/crew/state/steps/tasks/t"));
            assert!(aside.iter().any(|name| name.ends_with(".damaged")), "{aside:?}");
        }
    }
}
