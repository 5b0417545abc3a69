//! In a pid namespace of its own, where a pid can be given out again at will.

use std::fs;

use nightcrew::protocol::ledger::Fact;

use super::needs;
use crate::crew::{Crew, text_of};

/// Runs a crew as the first process of a pid namespace. Twice it has a process end and another, which is none of the
/// crew's, get its pid and a session of that number: once while there is no supervisor, and once while it stands
/// still. It tells of what became of these others.
const REUSES: &str = r#"
import glob, json, os, signal, subprocess, sys, time

binary = sys.argv[1]

def until(what, probe):
    deadline = time.monotonic() + 25
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            sys.exit("not so: " + what)
        time.sleep(0.01)

def nightcrew(*args):
    return subprocess.run([binary, *args], capture_output=True, text=True)

def told(event, times=1):
    text = "".join(open(path).read() for path in sorted(glob.glob("state/ledger/*.jsonl")))
    return text.count('"event":"%s"' % event) >= times

def supervise(times):
    crew = subprocess.Popen([binary, "run"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    until("it supervises", lambda: told("supervisor_started", times))
    return crew

def service():
    try:
        status = json.load(open("state/status/service.json"))
        return status["runs"][0]["process"]["pid"] if status["state"] == "running" else None
    except (OSError, LookupError, TypeError):
        return None

def claim(times):
    owner = subprocess.Popen(["sleep", "1000"])
    until("it is claimed", lambda: nightcrew("claim", "work", "--owner-pid", str(owner.pid)).returncode == 0)
    until("the claim is known", lambda: told("claimed", times))
    return owner

def stranger(pid):
    """Another process with this pid, and a session that it leads."""
    for _ in range(100):
        open("/proc/sys/kernel/ns_last_pid", "w").write(str(pid - 1))
        other = subprocess.Popen(["env", "-i", "sleep", "1000"], start_new_session=True)
        if other.pid == pid:
            return other
        other.kill()
        other.wait()
    sys.exit("pid %d was not given out again" % pid)

log = open("supervisor.output", "a")
crew = supervise(1)
pid = until("the service runs", service)
nightcrew("submit", "work", "1")
owner = claim(1)
crew.kill()
crew.wait()
owner.kill()
owner.wait()
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
others = [stranger(owner.pid), stranger(pid)]

crew = supervise(2)
until("the dead owner's lock is vacated", lambda: told("vacated", 1))
until("the service runs anew", lambda: service() not in (None, pid))
owner = claim(2)
crew.send_signal(signal.SIGSTOP)
owner.kill()
owner.wait()
others.append(stranger(owner.pid))
crew.send_signal(signal.SIGCONT)
until("this one's is vacated", lambda: told("vacated", 2))
nightcrew("stop", "service")
crew.terminate()
code = crew.wait()
alive = [other.poll() is None for other in others]
json.dump(dict(code=code, alive=alive), open("told", "w"))
"#;

#[test]
fn a_process_that_got_the_pid_of_a_dead_one_is_neither_taken_for_it_nor_signalled() {
    let test = "a_process_that_got_the_pid_of_a_dead_one_is_neither_taken_for_it_nor_signalled";
    let crew = Crew::new();
    crew.sleeper("service");
    let mut apart = vec!["--pid", "--fork", "--mount-proc", "--kill-child"];
    if !nix::unistd::geteuid().is_root() {
        apart.extend(["--user", "--map-root-user"]);
    }
    let words = |program: &[&'static str]| [&apart[..], program].concat();
    if !needs::program(test, "unshare") {
        return;
    }
    if !crew.outsider("unshare", &words(&["test", "-w", "/proc/sys/kernel/ns_last_pid"])).wait().success() {
        needs::skipped(test, "no pid namespace can be made here, or its pids cannot be chosen");
        return;
    }
    fs::write(crew.path("reuses.py"), REUSES).expect("written");
    let program = ["python3", "reuses.py", env!("CARGO_BIN_EXE_nightcrew")];
    let ended = crew.outsider("unshare", &words(&program)).wait();
    assert!(ended.success(), "{ended}\n{}", crew.told());
    let told: serde_json::Value = serde_json::from_str(&text_of(&crew.path("told"))).expect("JSON");
    assert_eq!(told, serde_json::json!({"code": 0, "alive": [true, true, true]}), "{}", crew.told());
    assert_eq!(crew.count(|fact| matches!(fact, Fact::Vacated { .. })), 2, "{}", crew.told());
    crew.leaves_nothing();
}
