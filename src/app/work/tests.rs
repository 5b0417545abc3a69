//! Programs that work on tasks, real ones, with the supervisor's part played by hand.

use crossbeam_channel::{Sender, bounded};

use super::*;
use crate::app::client::tests::{Crew, NOW, name, owner};
use crate::app::world::{Disk, look_until};
use crate::protocol::name::TaskId;
use crate::protocol::task::Outcome;

/// Only a test that fails waits for so long.
const PATIENCE: Duration = Duration::from_mins(1);

/// What happens by then only happens too late.
const NEVER: Duration = Duration::from_hours(1);

/// One ready task, claimed by a process outside any run, and what is to work on it.
struct Job {
    crew: Crew,
    client: Client<Disk>,
    task: TaskId,
    claim: Option<Claim>,
    program: Program,
    /// Says that the worker is to end.
    end: Sender<()>,
    stop: Receiver<()>,
}

impl Job {
    fn new(script: &str) -> Self {
        let crew = Crew::new();
        let task = crew.ready_task("a", 7);
        let mut client = crew.operator();
        let claim = client.claim(&[], &owner(), NOW).unwrap();
        let program = Program {
            argv: ["/bin/sh", "-c", script].map(OsString::from).into(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into()), ("NIGHTCREW_TASK".into(), "outer".into())],
            workdir: crew.layout.crew().into(),
            renew_every: NEVER,
            stop_grace: NEVER,
        };
        let (end, stop) = bounded(2);
        Self { crew, client, task, claim, program, end, stop }
    }

    fn work(&mut self) -> Result<Worked, WorkError> {
        work(&mut self.client, self.claim.take().unwrap(), &self.program, &self.stop)
    }

    /// Works, while `meanwhile` happens once the program has made the file `up`.
    fn work_while(mut self, meanwhile: impl FnOnce(&Crew, &TaskId, &Sender<()>) + Send) -> (Worked, Crew) {
        let crew = &self.crew;
        let (client, claim) = (&mut self.client, self.claim.take().unwrap());
        let (task, end) = (&self.task, &self.end);
        let worked = std::thread::scope(|scope| {
            scope.spawn(move || {
                let _gives_up = GivesUp(end);
                awaited(crew, "up");
                meanwhile(crew, task, end);
            });
            work(client, claim, &self.program, &self.stop).unwrap()
        });
        (worked, self.crew)
    }

    fn nonce(&self) -> String {
        self.claim.as_ref().unwrap().lock.nonce.clone()
    }

    fn outcome(&self, nonce: &str) -> Outcome {
        self.crew.read(&self.crew.layout.outcome(&name("operator"), &self.task, 7, nonce))
    }
}

/// A test that fails has its program killed, rather than wait for it.
struct GivesUp<'a>(&'a Sender<()>);

impl Drop for GivesUp<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.send(()).and_then(|()| self.0.send(()));
        }
    }
}

fn awaited(crew: &Crew, file: &str) {
    let path = crew.layout.crew().join(file);
    assert!(look_until(crew.layout.crew(), PATIENCE, || crew.has(&path)).unwrap(), "{file} appears");
}

fn lock_changed(crew: &Crew, task: &TaskId) -> i128 {
    crew.store.stat(&crew.layout.lock(task)).unwrap().unwrap().mtime_ns
}

#[test]
fn a_program_gets_its_task_as_a_handler_does_and_its_result_is_handed_in() {
    let mut job = Job::new(
        "{ cat; cat \"$NIGHTCREW_TASK_FILE\"; \
         echo \" $NIGHTCREW_TASK $NIGHTCREW_TOKEN $NIGHTCREW_NONCE $NIGHTCREW_FAILURES\"; } >\"$NIGHTCREW_OUTPUT\"",
    );
    let nonce = job.nonce();
    let worked = job.work().unwrap();
    assert_eq!(worked, Worked { fate: Fate::HandedIn(Verdict::Done, None), is_told_to_end: false });
    let output = job.crew.layout.output(&name("operator"), &job.task, 7);
    let made = job.crew.store.read(&output, 1000).unwrap().bytes;
    assert_eq!(String::from_utf8(made).unwrap(), format!("11 {} 7 {nonce} 0\n", job.task));
    assert_eq!(job.outcome(&nonce).status, Verdict::Done);
    let temp = job.crew.store.list(&job.crew.layout.tmp_of_operator(), 10).unwrap();
    assert!(temp.is_empty(), "{temp:?}");
}

#[test]
fn an_exit_code_is_judged_as_that_of_a_handler() {
    for (code, verdict, permanent) in [
        (0, Verdict::Done, false),
        (66, Verdict::Done, false),
        (75, Verdict::Retry, false),
        (69, Verdict::Retry, false),
        (64, Verdict::Failed, true),
        (65, Verdict::Failed, true),
        (78, Verdict::Failed, true),
        (1, Verdict::Failed, false),
    ] {
        let mut job = Job::new(&format!("exit {code}"));
        let nonce = job.nonce();
        job.work().unwrap();
        let outcome = job.outcome(&nonce);
        assert_eq!((outcome.status, outcome.permanent), (verdict, permanent), "exit {code}");
        let error = (verdict != Verdict::Done).then(|| format!("exit {code}"));
        assert_eq!(outcome.error, error);
    }
    let mut job = Job::new("kill -9 $$");
    let killed = Fate::HandedIn(Verdict::Failed, Some("killed by signal 9".into()));
    assert_eq!(job.work().unwrap().fate, killed);
}

#[test]
fn a_result_that_is_no_file_is_a_failure_and_a_program_that_is_none_hands_the_task_back() {
    let mut job = Job::new("mkdir \"$NIGHTCREW_OUTPUT\"");
    let Fate::HandedIn(Verdict::Failed, Some(why)) = job.work().unwrap().fate else { panic!("not failed") };
    assert!(why.starts_with("its output was refused: "), "{why}");

    let mut job = Job::new("");
    job.program.argv = vec!["/no/such/program".into()];
    let nonce = job.nonce();
    assert!(matches!(job.work(), Err(WorkError::Start { .. })));
    assert_eq!(job.outcome(&nonce).status, Verdict::Released);
}

#[test]
fn a_claim_is_renewed_while_the_program_runs() {
    let mut job = Job::new("echo >up; while [ ! -e go ]; do sleep 0.01; done");
    job.program.renew_every = Duration::from_millis(1);
    let (worked, _crew) = job.work_while(|crew, task, _| {
        let before = lock_changed(crew, task);
        let tasks = crew.layout.tasks();
        assert!(look_until(&tasks, PATIENCE, || lock_changed(crew, task) > before).unwrap(), "it is renewed");
        let between = lock_changed(crew, task);
        assert!(look_until(&tasks, PATIENCE, || lock_changed(crew, task) > between).unwrap(), "and again");
        crew.store.write_new(&crew.layout.crew().join("go"), b"", false).unwrap();
    });
    assert_eq!(worked.fate, Fate::HandedIn(Verdict::Done, None));
}

#[test]
fn a_program_whose_claim_is_taken_away_is_killed_at_once_and_nothing_is_handed_in() {
    let job = Job::new("echo >\"$NIGHTCREW_OUTPUT\"; echo >up; sleep 60; echo >finished");
    let (task, nonce) = (job.task.clone(), job.nonce());
    let (worked, crew) = job.work_while(|crew, task, _| {
        crew.change_token(task, 8);
        crew.store.unlink(&crew.layout.lock(task)).unwrap();
    });
    assert!(matches!(worked.fate, Fate::Lost(_)), "{worked:?}");
    assert!(!crew.has(&crew.layout.crew().join("finished")), "it was killed");
    assert!(!crew.has(&crew.layout.outcome(&name("operator"), &task, 7, &nonce)));
    assert!(!crew.has(&crew.layout.output(&name("operator"), &task, 7)), "its result is of no use to anyone");
}

#[test]
fn a_claim_that_was_lost_before_it_was_watched_is_noticed_too() {
    let mut job = Job::new("sleep 60; echo >finished");
    let lock = job.crew.layout.lock(&job.task);
    job.crew.change_token(&job.task, 8);
    job.crew.store.unlink(&lock).unwrap();
    assert!(matches!(job.work().unwrap().fate, Fate::Lost(_)));
    assert!(!job.crew.has(&job.crew.layout.crew().join("finished")), "it was killed");
}

#[test]
fn what_the_program_handed_in_itself_goes_before_its_exit_code() {
    let mut job = Job::new("");
    let nonce = job.nonce();
    let path = job.crew.layout.outcome(&name("operator"), &job.task, 7, &nonce);
    job.crew.store.create_dir(parent(&path)).unwrap();
    job.program.argv[2] = format!("echo by-itself >'{}'; exit 1", path.display()).into();
    assert_eq!(job.work().unwrap().fate, Fate::ByItself);
    assert_eq!(job.crew.store.read(&path, 100).unwrap().bytes, b"by-itself\n");
}

#[test]
fn a_worker_that_is_told_to_end_hands_its_task_back_unless_it_was_done() {
    let end = |_: &Crew, _: &TaskId, end: &Sender<()>| end.send(()).unwrap();
    let (worked, _crew) = Job::new("echo >up; exec sleep 60").work_while(end);
    let why = Some("killed by signal 15".into());
    assert_eq!(worked, Worked { fate: Fate::HandedIn(Verdict::Released, why), is_told_to_end: true });

    let careful = "trap 'exit 0' TERM; echo >up; sleep 60; exit 1";
    let (worked, _crew) = Job::new(careful).work_while(end);
    assert_eq!(worked, Worked { fate: Fate::HandedIn(Verdict::Done, None), is_told_to_end: true });

    let stubborn = "trap '' TERM; echo >up; sleep 60";
    let mut job = Job::new(stubborn);
    job.program.stop_grace = Duration::from_millis(20);
    let (worked, _crew) = job.work_while(end);
    assert_eq!(worked.fate, Fate::HandedIn(Verdict::Released, Some("killed by signal 9".into())));
    let (worked, _crew) = Job::new(stubborn).work_while(|_, _, end| {
        end.send(()).unwrap();
        end.send(()).unwrap();
    });
    assert_eq!(worked.fate, Fate::HandedIn(Verdict::Released, Some("killed by signal 9".into())));
}
