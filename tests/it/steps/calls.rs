//! Calls of `step`, outside tasks.

use std::fs;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::{crew, ended, paid, record_in, started, step, told};
use crate::crew::{Crew, send, text_of};

const SHARED: [&str; 5] = ["s", "--shared", "--key", "k", "--"];

fn shared(crew: &Crew, script: &str) -> (i32, String, String) {
    step(crew, &[&SHARED[..], &["sh", "-c", script]].concat())
}

#[test]
fn two_calls_at_once_pay_once_and_who_does_not_wait_is_told_who_does_it() {
    let crew = crew();
    let args = [&SHARED[..], &["./pay-slowly"]].concat();
    let first = started(&crew, &args, &[]);
    crew.eventually("the first pays", || crew.path("begun").exists());
    let (second, told_by_second) = (started(&crew, &args, &[]), crew.path("step.stderr"));
    crew.eventually("the second waits", || text_of(&told_by_second).ends_with("waiting\n"));
    let waits = text_of(&told_by_second);
    assert!(waits.contains(&format!("pid {}", first.id())), "{waits}");
    let no_wait = [&["s", "--no-wait"], &args[1..]].concat();
    let (code, out, err) = step(&crew, &no_wait);
    assert_eq!((code, out.as_str()), (75, ""), "{err}");
    assert!(err.contains(&format!("pid {} does it", first.id())), "{err}");
    fs::write(crew.path("go"), "").expect("written");
    for child in [first, second] {
        let (code, out, err) = ended(&crew, child);
        assert_eq!((code, out.as_str()), (0, "slowly"), "{err}");
    }
    assert_eq!(paid(&crew), 1);
    let left: Vec<_> = fs::read_dir(crew.layout.steps_of(None)).expect("a directory").collect();
    assert_eq!(left.len(), 1, "the record, and no lock: {left:?}");
}

#[test]
fn what_fails_is_printed_and_not_recorded() {
    let crew = crew();
    for n in 1..=2 {
        let (code, out, err) = shared(&crew, "./pay; echo why >&2; exit 7");
        assert_eq!((code, out, err), (7, n.to_string(), "why\n".to_owned()));
    }
    assert_eq!(shared(&crew, "./pay; kill -9 $$"), (137, "3".into(), String::new()));
    let (code, _, err) = step(&crew, &[&SHARED[..], &["no-such-program"]].concat());
    assert!(code == 1 && err.contains("no-such-program cannot be started"), "{code}: {err}");
    assert_eq!(shared(&crew, "./pay").1, "4");
    assert_eq!(shared(&crew, "./pay").1, "4", "now it is recorded");
    let (code, out, err) = step(&crew, &["large", "--shared", "--", "head", "-c", "20000000", "/dev/zero"]);
    assert_eq!((code, out.len()), (65, 0), "{err}");
    assert_eq!(crew.nightcrew(&["steps", "--json"]).stdout.split(|byte| *byte == b'\n').count(), 2);
}

#[test]
fn a_damaged_record_is_put_aside_and_never_printed() {
    let crew = crew();
    assert_eq!(shared(&crew, "./pay").1, "1");
    let record = record_in(&crew.layout.steps_of(None));
    let whole = fs::read(&record).expect("the record");
    let garbage = b"\0\xff no record at all".to_vec();
    let mut flipped = whole.clone();
    *flipped.last_mut().expect("it is not empty") ^= 1;
    let cut = whole[..whole.len() - 1].to_vec();
    for (n, damaged) in (2..).zip([cut, flipped, garbage, Vec::new()]) {
        fs::write(&record, &damaged).expect("written");
        let (code, out, err) = shared(&crew, "./pay");
        assert_eq!((code, out), (0, n.to_string()), "{err}");
        assert!(err.contains("not to be believed"), "{err}");
        let aside = record.with_extension(format!("{}.damaged", n - 1));
        assert_eq!(fs::read(&aside).expect("it is kept"), damaged);
        assert!(!text_of(&aside.with_extension("reason")).is_empty());
        assert_eq!(shared(&crew, "./pay"), (0, n.to_string(), String::new()));
    }
}

#[test]
fn what_is_newer_or_no_file_is_left_alone_and_nothing_is_paid() {
    let crew = crew();
    shared(&crew, "./pay");
    let record = record_in(&crew.layout.steps_of(None));
    fs::write(&record, "{\"v\":2,\"shape\":\"of the future\"}\n").expect("written");
    let (code, out, err) = shared(&crew, "./pay");
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("upgrade nightcrew"), "{err}");
    assert!(text_of(&record).contains("of the future"));
    fs::remove_file(&record).expect("removed");
    mkfifo(&record, Mode::S_IRWXU).expect("a FIFO");
    let (code, _, err) = shared(&crew, "./pay");
    assert!(code == 1 && err.contains("FIFO"), "{code}: {err}");
    assert_eq!(paid(&crew), 1);
}

#[test]
fn a_result_that_is_too_old_is_made_anew_and_replaced() {
    let crew = crew();
    let with_ttl = |ttl: &str| step(&crew, &["s", "--shared", "--ttl", ttl, "--key", "k", "--", "./pay"]).1;
    assert_eq!(with_ttl("7d"), "1");
    assert_eq!(with_ttl("7d"), "1");
    let record = record_in(&crew.layout.steps_of(None));
    let text = text_of(&record);
    let (before, after) = text.split_once("\"at\":\"").expect("a time");
    let (_, after) = after.split_once('"').expect("its end");
    fs::write(&record, format!("{before}\"at\":\"2020-01-01T00:00:00.000Z\"{after}")).expect("written");
    assert_eq!(shared(&crew, "exit 9").1, "1", "without a limit it is as good as ever");
    let failing = ["s", "--shared", "--ttl", "7d", "--key", "k", "--", "false"];
    assert_eq!(step(&crew, &failing).0, 1);
    assert_eq!(with_ttl("7d"), "2");
    assert_eq!(shared(&crew, "exit 9").1, "2", "it is replaced");
}

#[test]
fn while_halted_what_is_recorded_is_printed_and_nothing_is_paid() {
    let crew = crew();
    shared(&crew, "./pay");
    crew.ok(&["halt", "the bill"]);
    assert_eq!(shared(&crew, "./pay").1, "1");
    let (code, out, err) = step(&crew, &["other", "--shared", "--", "./pay"]);
    assert_eq!((code, out.as_str()), (75, ""), "{err}");
    assert!(err.contains("halted: the bill"), "{err}");
    assert_eq!(paid(&crew), 1);
    crew.ok(&["resume"]);
    assert_eq!(step(&crew, &["other", "--shared", "--", "./pay"]).1, "2");
}

#[test]
fn a_mebibyte_with_every_byte_comes_back_as_it_was() {
    let crew = crew();
    let data: Vec<u8> = (0..1024 * 1024_u32).flat_map(u32::to_le_bytes).step_by(3).take(1 << 20).collect();
    assert!(data.len() == 1 << 20 && data.contains(&0) && data.contains(&b'\n') && data.contains(&0xff));
    fs::write(crew.path("data"), &data).expect("written");
    for _ in 0..2 {
        let output = crew.nightcrew(&["step", "large", "--shared", "--", "cat", "data"]);
        assert!(output.status.success() && output.stdout == data);
        // The second time there is nothing to read.
        fs::write(crew.path("data"), "").expect("written");
    }
}

#[test]
fn a_shared_step_is_told_by_all_that_can_reach_its_command() {
    let crew = crew();
    let piped = |input: &str, args: &str| {
        let script = format!("printf %s {input} | \"$0\" step {args}");
        told(&crew.awaiting(&script).output().expect("it runs")).1
    };
    let keyed = "llm --shared --stdin-key -- sh -c './pay; cat'";
    assert_eq!(piped("one", keyed), "1one");
    assert_eq!(piped("two", keyed), "2two");
    assert_eq!(piped("one", keyed), "1one");
    let by_command = "llm --shared -- sh -c './pay; cat'";
    assert_eq!(piped("one", by_command), "3", "what does not count for the key is not handed on");
    assert_eq!(piped("one", "llm --shared --key k -- sh -c './pay; cat'"), "4one", "the caller vouches");
    assert_eq!(piped("one", "llm --shared -- sh -c './pay; cat; :'"), "5", "another command");
    assert_eq!(piped("one", "other --shared -- sh -c './pay; cat'"), "6", "another name");
    assert_eq!(piped("three", by_command), "3");
    let listed = crew.ok(&["steps"]);
    assert_eq!(listed.lines().count(), 1 + 6, "{listed}");
}

#[test]
fn the_command_of_a_step_that_was_killed_holds_no_lock() {
    let crew = crew();
    let mut first = started(&crew, &[&SHARED[..], &["./pay-slowly"]].concat(), &[]);
    crew.eventually("it pays", || crew.path("begun").exists());
    first.kill().expect("it runs");
    first.wait().expect("a child of ours");
    let (code, out, err) = step(&crew, &["s", "--shared", "--no-wait", "--key", "k", "--", "./pay"]);
    assert_eq!((code, out.as_str()), (0, "2"), "{err}");
    fs::write(crew.path("go"), "").expect("written");
}

#[test]
fn a_step_that_is_told_to_end_passes_it_on_and_records_nothing() {
    let crew = crew();
    let traps = "trap 'echo half; exit 0' TERM; ./pay-slowly >/dev/null 2>&1 & wait $!";
    let child = started(&crew, &[&SHARED[..], &["sh", "-c", traps]].concat(), &[]);
    crew.eventually("it pays", || crew.path("begun").exists());
    send(i32::try_from(child.id()).expect("a pid"), Signal::SIGTERM);
    let (code, out, err) = ended(&crew, child);
    assert_eq!((code, out.as_str()), (143, "half\n"), "{err}");
    fs::write(crew.path("go"), "").expect("written");
    assert_eq!(shared(&crew, "./pay").1, "2");
}

#[test]
fn outside_a_task_a_step_of_a_task_says_what_to_do() {
    let crew = crew();
    let (code, _, err) = step(&crew, &["s", "--", "./pay"]);
    assert_eq!((code, paid(&crew)), (66, 0));
    assert!(err.contains("--shared"), "{err}");
    for wrong in
        [&["s", "--shared"][..], &["s", "--ttl", "1h", "--", "true"], &["s", "--check", "x", "--", "true"]]
    {
        assert_eq!(step(&crew, wrong).0, 2, "{wrong:?}");
    }
}
