//! Steps of tasks, which are tried again, replayed and taken away.

use std::fs;

use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::name::TaskId;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{crew, ended, paid, record_in, started, step, told};
use crate::crew::{Crew, send, text_of};

fn handler(body: &str) -> String {
    format!("#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# ///\n{body}\n")
}

fn result(crew: &Crew, task: &TaskId) -> String {
    crew.eventually("it is done", || crew.is_done(task));
    text_of(&crew.layout.result(task))
}

#[test]
fn a_step_is_done_once_in_a_task_by_name_and_key() {
    let mut crew = crew();
    let body = "step() { nightcrew step \"$@\"; }\n\
                { step read -- cat; step read -- cat; step pay -- ./pay; step pay -- ./pay\n\
                step pay --key k -- ./pay; step pay --key k -- ./pay; } >\"$NIGHTCREW_OUTPUT\"";
    crew.agent("worker.sh", &handler(body));
    crew.start();
    let (one, two) = (crew.submit("work", "[1]"), crew.submit("work", "[2]"));
    assert!(["[1][1]1122", "[1][1]3344"].contains(&result(&crew, &one).as_str()), "{}", result(&crew, &one));
    assert!(["[2][2]1122", "[2][2]3344"].contains(&result(&crew, &two).as_str()), "{}", result(&crew, &two));
    let listed = crew.ok(&["steps", one.as_str(), "--json"]);
    assert_eq!(listed.lines().count(), 3, "{listed}");
    let first: Value = serde_json::from_str(listed.lines().next().expect("a line")).expect("JSON");
    assert_eq!(
        (&first["step"], &first["state"], &first["bytes"]),
        (&"pay".into(), &"done".into(), &1.into())
    );
    crew.ends_well();
}

#[test]
fn a_handler_killed_between_two_steps_pays_for_neither_again_nor_does_a_replay() {
    let mut crew = crew();
    let body = "one=$(nightcrew step one -- ./pay) || exit\n\
                [ -e killed ] || { touch killed; kill -9 $$; }\n\
                two=$(nightcrew step two -- ./pay) || exit\n\
                echo \"$one $two $NIGHTCREW_FAILURES\" >\"$NIGHTCREW_OUTPUT\"";
    crew.agent("worker.sh", &handler(body));
    crew.start();
    let task = crew.submit("work", "1");
    assert_eq!(result(&crew, &task), "1 2 1\n");
    assert_eq!(paid(&crew), 2);
    let (done, new) = (crew.path(&format!("state/tasks/done/{task}.json")), crew.layout.new_task(&task));
    fs::rename(done, new).expect("moved");
    crew.eventually("the replay is done", || {
        text_of(&crew.layout.result(&task)) == "1 2 0\n" && crew.is_done(&task)
    });
    assert_eq!(paid(&crew), 2);
    crew.ends_well();
}

/// A handler whose effect is killed in the middle, before or after the deed; gives how the task ended and what was
/// sent.
fn killed_in_its_effect(send_first: bool, check: &str) -> (Crew, TaskId) {
    let mut crew = crew();
    let (before, after) = if send_first { ("echo sent >>sent", "") } else { ("", "echo sent >>sent") };
    let hangs = "[ -e begun ] || { touch begun; exec sleep 1000; }";
    crew.put(&crew.path("mail"), &format!("#!/bin/sh\n{before}\n{hangs}\n{after}\necho mailed\n"), 0o755);
    let body = format!("nightcrew step mail --effect {check} -- ./mail >\"$NIGHTCREW_OUTPUT\"");
    crew.agent("mailer.sh", &handler(&body));
    crew.start();
    let task = crew.submit("work", "1");
    crew.eventually("the effect is begun", || crew.path("begun").exists());
    send(crew.running("mailer", None), Signal::SIGKILL);
    (crew, task)
}

const CHECK: &str = "--check 'grep -q . sent 2>/dev/null && echo found'";

#[test]
fn an_effect_that_was_cut_off_after_its_deed_is_found_and_not_repeated() {
    let (mut crew, task) = killed_in_its_effect(true, CHECK);
    assert_eq!(result(&crew, &task), "found\n");
    assert_eq!(text_of(&crew.path("sent")), "sent\n");
    crew.ends_well();
}

#[test]
fn an_effect_that_was_cut_off_before_its_deed_is_done() {
    // grep ends with 2 where there is no file, which would say that it does not know either.
    let check = CHECK.replace("grep", "touch sent; grep");
    let (mut crew, task) = killed_in_its_effect(false, &check);
    assert_eq!(result(&crew, &task), "mailed\n");
    assert_eq!(text_of(&crew.path("sent")), "sent\n");
    crew.ends_well();
}

#[test]
fn an_effect_that_was_cut_off_and_cannot_be_asked_for_is_a_dead_letter() {
    let (mut crew, task) = killed_in_its_effect(true, "");
    crew.eventually("it is a dead letter", || crew.path(&format!("state/tasks/dead/{task}.json")).exists());
    assert_eq!(text_of(&crew.path("sent")), "sent\n");
    let told = text_of(&crew.layout.log(&"mailer".parse().expect("a name")));
    assert!(told.contains("it may have been done") && told.contains("--check"), "{told}");
    assert!(text_of(&record_in(&crew.layout.steps_of(Some(&task)))).contains("\"state\":\"begun\""));
    crew.ends_well();
}

#[test]
fn an_effect_is_asked_for_until_the_check_knows() {
    let crew = crew();
    let effect = |check: &str, command: &str| {
        let args = ["e", "--shared", "--key", "k", "--effect", "--check", check, "--", "sh", "-c", command];
        step(&crew, &args)
    };
    assert_eq!(effect("exit 1", "./pay; exit 9").0, 9, "it is begun, and may have been done");
    let (code, out, err) = effect("echo maybe; exit 2", "./pay");
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("nothing is known"), "{err}");
    let (code, _, err) = step(&crew, &["e", "--shared", "--key", "k", "--", "./pay"]);
    assert_eq!(code, 65, "a plain step does not repeat what was begun as an effect: {err}");
    assert_eq!(paid(&crew), 1);
    assert_eq!(effect("echo yes", "./pay"), (0, "yes\n".into(), String::new()));
    assert_eq!(effect("exit 1", "./pay"), (0, "yes\n".into(), String::new()));
    assert_eq!(paid(&crew), 1);
    let missing = ["m", "--shared", "--effect", "--", "no-such-program"];
    assert_eq!(step(&crew, &missing).0, 1);
    assert_eq!(step(&crew, &missing).0, 1, "what never began needs no check");
}

#[test]
fn a_shared_step_is_paid_for_once_by_two_tasks() {
    let mut crew = crew();
    let body = "nightcrew step llm --shared --key 'the prompt' -- ./pay >\"$NIGHTCREW_OUTPUT\"";
    crew.agent("worker.sh", &handler(body));
    crew.start();
    let tasks = [crew.submit("work", "1"), crew.submit("work", "2")];
    for task in &tasks {
        assert_eq!(result(&crew, task), "1");
    }
    assert_eq!(paid(&crew), 1);
    crew.ends_well();
}

#[test]
fn a_pulled_task_has_steps_too() {
    let mut crew = crew();
    let pulls = "#!/bin/sh\n# /// agent\n# restart = \"never\"\n# ///\n\
                 while ! nightcrew claim work; do sleep 0.05; done\n\
                 { nightcrew step pay -- ./pay; nightcrew step pay -- ./pay; } | nightcrew done --output -\n";
    crew.agent("puller.sh", pulls);
    crew.start();
    let task = crew.submit("work", "1");
    assert_eq!(result(&crew, &task), "11");
    crew.ends_well();
}

/// A claim made outside any run, and the environment by which a handler would hold it.
fn held_by(crew: &Crew, owner: &str) -> (TaskId, Vec<(&'static str, String)>) {
    let task = crew.submit("work", "1");
    crew.eventually("it is claimed", || {
        crew.nightcrew(&["claim", "work", "--owner-pid", owner]).status.success()
    });
    crew.fact("the claim is known", |fact| matches!(fact, Fact::Claimed { .. }).then_some(()));
    let lock: Value = serde_json::from_str(&text_of(&crew.layout.lock(&task))).expect("the lock's line");
    let env = vec![
        ("NIGHTCREW_AGENT", "late".to_owned()),
        ("NIGHTCREW_RUN", "R1".to_owned()),
        ("NIGHTCREW_TASK", task.to_string()),
        ("NIGHTCREW_TOKEN", lock["token"].to_string()),
        ("NIGHTCREW_NONCE", lock["nonce"].as_str().expect("a nonce").to_owned()),
    ];
    (task, env)
}

#[test]
fn who_has_lost_its_claim_pays_for_nothing_and_records_nothing() {
    let mut crew = crew();
    crew.start();
    let mut owner = crew.outsider("sleep", &["1000"]);
    let (task, env) = held_by(&crew, &owner.pid());
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let recorded = started(&crew, &["first", "--", "./pay"], &env);
    assert_eq!(ended(&crew, recorded), (0, "1".into(), String::new()));
    let slow = started(&crew, &["second", "--", "./pay-slowly"], &env);
    crew.eventually("it pays", || crew.path("begun").exists());
    owner.kill();
    crew.eventually("its claim is taken away", || !crew.layout.lock(&task).exists());
    fs::write(crew.path("go"), "").expect("written");
    let (code, out, err) = ended(&crew, slow);
    assert_eq!((code, out.as_str()), (75, ""), "{err}");
    assert!(err.contains("is not recorded"), "{err}");
    let late = |name: &str| ended(&crew, started(&crew, &[name, "--", "./pay"], &env));
    let (code, out, err) = late("third");
    assert_eq!((code, out.as_str()), (75, ""), "{err}");
    assert!(err.contains("too late"), "{err}");
    assert_eq!(late("first").1, "1", "what is recorded costs nothing");
    assert_eq!(paid(&crew), 2);
    crew.ends_well();
}

#[test]
fn a_trial_records_nothing() {
    let crew = crew();
    crew.agent("worker.sh", &handler("nightcrew step pay -- ./pay >\"$NIGHTCREW_OUTPUT\""));
    for n in 1..=2 {
        let (code, out, err) = told(&crew.nightcrew(&["try", "worker", "1"]));
        assert_eq!((code, out), (0, n.to_string()), "{err}");
        assert!(err.contains("nothing is recorded"), "{err}");
    }
    assert!(!crew.layout.steps().exists());
}
