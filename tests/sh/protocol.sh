#!/bin/sh
# /// agent
# about = "Exercises the on-disk protocol as docs/protocol.md tells it"
# restart = "never"
# heartbeat = "30s"
# ///
#
# An agent in POSIX sh with coreutils alone, and no nightcrew command. Run by a supervisor as the agent of
# this file's stem, it does every step of the heartbeat, task, and memory parts of docs/protocol.md and
# prints `ok N - what` for each. It ends at the first that goes wrong with `not ok N - what` and exit 1.
# The same lines, and last of all `pass` or `fail`, are in $NIGHTCREW_SCRATCH/result, published whole.
#
# Every wait is for evidence, and bounded: NIGHTCREW_PROBE_SECONDS (60) for each.

# shellcheck disable=SC2317 # most functions are called by `check` and `await`

set -u
LC_ALL=C
export LC_ALL

: "${NIGHTCREW_DIR:?this is an agent: let a supervisor run it}"
: "${NIGHTCREW_AGENT:?}" "${NIGHTCREW_RUN:?}" "${NIGHTCREW_HEARTBEAT:?}" "${NIGHTCREW_SCRATCH:?}" "${NIGHTCREW_TMP:?}"
: "${NIGHTCREW_QUEUE:?}" "${NIGHTCREW_MEMORY:?}"

state=$NIGHTCREW_DIR/state
tasks=$state/tasks
outcomes=$tasks/outcome/$NIGHTCREW_AGENT
outputs=$tasks/output/$NIGHTCREW_AGENT
applied=$state/memory/applied/$NIGHTCREW_AGENT
rejected=$state/memory/rejected
kind=sh-probe
newline='
'
steps=0
transcript=

now() { date -u +%Y-%m-%dT%H:%M:%SZ; }
random() { od -An -N8 -tx1 /dev/urandom | tr -d ' \n'; }

finish() {
    printf '%s%s\n' "$transcript" "$1" >"$NIGHTCREW_TMP/result" &&
        sync "$NIGHTCREW_TMP/result" &&
        mv -fT "$NIGHTCREW_TMP/result" "$NIGHTCREW_SCRATCH/result"
    [ "$1" = pass ]
    exit $?
}
report() {
    printf '%s\n' "$1"
    transcript=$transcript$1$newline
}
ok() {
    steps=$((steps + 1))
    report "ok $steps - $1"
    beat "$1"
}
fail() {
    report "not ok $((steps + 1)) - $1"
    finish fail
}
# check WHAT COMMAND…: one step of the transcript.
check() {
    what=$1
    shift
    if "$@"; then ok "$what"; else fail "$what"; fi
}
# await WHAT COMMAND…: the same, for what the supervisor does in its own time.
await() {
    what=$1
    shift
    left=$((${NIGHTCREW_PROBE_SECONDS:-60} * 10))
    while ! "$@"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || fail "$what (waited in vain)"
        [ $((left % 50)) -ne 0 ] || beat "waiting: $what"
        sleep 0.1
    done
    ok "$what"
}

beat() { printf '%s progress=%d note="%s"\n' "$(now)" "$steps" "$1" >>"$NIGHTCREW_HEARTBEAT"; }

# contents FILE: what a file holds; nothing if it is not there (it may have been moved a moment ago).
contents() { cat "$1" 2>/dev/null; }
# field NAME RECORD: the first value of that name in a record, which is how far sh reads JSON.
field() {
    case $2 in *"\"$1\":"*) ;; *) return 1 ;; esac
    value=${2#*"\"$1\":"}
    case $value in
        \"*) value=${value#\"} value=${value%%\"*} ;;
        *) value=${value%%[,\}]*} ;;
    esac
    printf '%s' "$value"
}
# says FILE NAME VALUE: a record's field has this value.
says() { [ "$(field "$2" "$(contents "$1")")" = "$3" ]; }
holds() { [ "$(contents "$1")" = "$2" ]; }
# has_reason STEM: what was refused is kept as STEM.json, and why beside it.
has_reason() { [ -s "$1.reason" ]; }
refused_as() { ! "$@" 2>/dev/null; }

# ---- tasks: submit ------------------------------------------------------------------------------

# task_id KEY: what `nightcrew submit KIND --key KEY` gives too.
task_id() { printf '%s\0k\0%s' "$kind" "$1" | sha256sum | cut -c1-16; }

# submit ID NUMBER: whole, durable, and under a name that was free; or not at all.
submit() {
    temp=$NIGHTCREW_TMP/$1.new
    printf '{"v":1,"id":"%s","token":0,"nonce":"%s","kind":"%s","at":"%s","by":"%s","payload":{"probe":%d}}\n' \
        "$1" "$(random)" "$kind" "$(now)" "$NIGHTCREW_AGENT" "$2" >"$temp" || return 1
    sync "$temp" && ln -T "$temp" "$tasks/new/$1.json"
    linked=$?
    rm -f "$temp"
    sync "$tasks/new"
    return "$linked"
}
listed_ready() {
    for id in "$@"; do
        case $newline$(contents "$tasks/ready/$kind")$newline in
            *"$newline$id$newline"*) ;;
            *) return 1 ;;
        esac
    done
}
is_ready() { says "$tasks/$1.json" state ready && [ ! -e "$tasks/$1.lock" ]; }

# ---- tasks: claim -------------------------------------------------------------------------------

# Who this run is: pid, start time, boot and pid namespace. The command in field 2 of stat may hold
# spaces and brackets, so what counts is after the last bracket: field 3 first, field 22 the twentieth.
line=$(contents "/proc/$$/stat")
# shellcheck disable=SC2086 # to be split into fields
set -- ${line##*) }
start=${20}
boot=$(contents /proc/sys/kernel/random/boot_id)
ns=$(readlink "/proc/$$/ns/pid")
ns=${ns#*\[}
ns=${ns%\]}

# claim ID: sets token and nonce; fails if the task is not ready, or another was faster.
claim() {
    record=$(contents "$tasks/$1.json")
    [ "$(field state "$record")" = ready ] || return 1
    token=$(field token "$record") nonce=$(random)
    temp=$NIGHTCREW_TMP/$1.claim
    printf '{"v":1,"task":"%s","token":%d,"nonce":"%s","agent":"%s","run":"%s","pid":%d,"start":%d,"boot":"%s","ns":%d,"at":"%s"}\n' \
        "$1" "$token" "$nonce" "$NIGHTCREW_AGENT" "$NIGHTCREW_RUN" "$$" "$start" "$boot" "$ns" "$(now)" >"$temp" || return 1
    # Not made durable: no lock outlives a boot.
    ln -T "$temp" "$tasks/$1.lock"
    linked=$?
    rm -f "$temp"
    return "$linked"
}
# Between reading the token and publishing the lock much may have happened: only now is it ours.
claim_stands() {
    says "$tasks/$1.lock" nonce "$nonce" && says "$tasks/$1.json" state ready && says "$tasks/$1.json" token "$token" &&
        [ ! -e "$state/HALT" ] && [ ! -e "$state/stopped/$NIGHTCREW_AGENT" ]
}

# ---- tasks: finish ------------------------------------------------------------------------------

# hand_in ID TOKEN NONCE STATUS [ERROR]
hand_in() {
    temp=$NIGHTCREW_TMP/$1.outcome
    printf '{"v":1,"task":"%s","token":%d,"nonce":"%s","status":"%s"%s}\n' \
        "$1" "$2" "$3" "$4" "${5:+,\"error\":\"$5\"}" >"$temp" &&
        sync "$temp" && mv -T "$temp" "$outcomes/$1.$2.$3.json" && sync "$outcomes"
}
write_output() { printf '%s\n' "$3" >"$outputs/$1.$2" && sync "$outputs/$1.$2" "$outputs"; }
is_done() { says "$tasks/done/$1.json" state "done" && [ ! -e "$tasks/$1.json" ] && [ ! -e "$tasks/$1.lock" ]; }
moved_on() { is_ready "$1" && ! says "$tasks/$1.json" token "$2"; }

# ---- memory -------------------------------------------------------------------------------------

# How far the steward has come with this agent's updates; 0 before the first.
applied_seq() { field seq "$(contents "$applied")" || printf 0; }
highest() {
    high=$(applied_seq)
    for file in "$NIGHTCREW_QUEUE"/*.json; do
        number=${file##*/} number=${number%.json}
        case $number in '' | *[!0-9]*) continue ;; esac
        [ "$number" -le "$high" ] || high=$number
    done
    printf '%d' "$high"
}
# update OP KEY [VALUE]: sets seq to the update's place in this agent's order.
update() {
    temp=$NIGHTCREW_TMP/update
    printf '{"v":1,"id":"%s","op":"%s","key":"%s"%s}\n' "$(random)" "$1" "$2" "${3:+,\"value\":$3}" >"$temp" || return 1
    sync "$temp" || return 1
    seq=$(($(highest) + 1)) tries=0
    # EEXIST means that another process of this agent took the place: the next one, then.
    until ln -T "$temp" "$NIGHTCREW_QUEUE/$seq.json" 2>/dev/null; do
        seq=$((seq + 1)) tries=$((tries + 1))
        [ "$tries" -lt 1000 ] || return 1
    done
    rm -f "$temp"
    sync "$NIGHTCREW_QUEUE"
}
applied_up_to() { [ "$(applied_seq)" -ge "$1" ] && [ ! -e "$NIGHTCREW_QUEUE/$1.json" ]; }
gone() { [ ! -e "$1" ]; }

# ---- the story ----------------------------------------------------------------------------------

beat "begun"
check "the first beat is written" [ -s "$NIGHTCREW_HEARTBEAT" ]

# The run's id makes the ids new for each run of this script.
a=$(task_id "$NIGHTCREW_RUN a") b=$(task_id "$NIGHTCREW_RUN b") c=$(task_id "$NIGHTCREW_RUN c")
check "a task is submitted" submit "$a" 1
check "a second is submitted" submit "$b" 2
check "a third is submitted" submit "$c" 3
await "all three are admitted and listed as ready" listed_ready "$a" "$b" "$c"
check "an admitted task has a token" [ "$(field token "$(contents "$tasks/$a.json")")" -gt 0 ]
await "a submission that was admitted is gone from tasks/new" gone "$tasks/new/$a.json"

check "the first task is claimed" claim "$a"
check "the claim stands" claim_stands "$a"
a_token=$token a_nonce=$nonce
check "a second claim of a held task fails" refused_as claim "$a"
check "the failed claim left the lock as it was" says "$tasks/$a.lock" nonce "$a_nonce"
check "its output is written" write_output "$a" "$a_token" "a result of $NIGHTCREW_RUN"
check "its outcome is handed in: done" hand_in "$a" "$a_token" "$a_nonce" "done"
await "the task is on the shelf done/, and its lock is gone" is_done "$a"
await "its output lies beside it" holds "$tasks/done/$a.output" "a result of $NIGHTCREW_RUN"

check "the second task is claimed" claim "$b"
check "that claim stands" claim_stands "$b"
b_token=$token b_nonce=$nonce
check "its outcome is handed in: failed" hand_in "$b" "$b_token" "$b_nonce" failed "the probe fails it on purpose"
await "the failure is counted" says "$tasks/$b.json" failures 1

check "the third task is claimed" claim "$c"
check "that claim stands too" claim_stands "$c"
c_token=$token c_nonce=$nonce
check "its outcome is handed in: released" hand_in "$c" "$c_token" "$c_nonce" released
await "the task is ready again, with a new token" moved_on "$c" "$c_token"
check "no failure is counted for it" says "$tasks/$c.json" failures 0

late=$(random)
check "an outcome with the old token is handed in" hand_in "$c" "$c_token" "$late" "done"
await "it is refused, with a reason" has_reason "$tasks/refused/$c.$c_token.$late"
await "it is taken out of the way" gone "$outcomes/$c.$c_token.$late.json"
check "the task is as ready as before" is_ready "$c"

check "the released task is claimed with its new token" claim "$c"
check "that claim stands as well" claim_stands "$c"
check "and done without an output" hand_in "$c" "$token" "$nonce" "done"
await "it is on the shelf done/" is_done "$c"
await "the failed task is ready for another try" moved_on "$b" "$b_token"
check "it is claimed again" claim "$b"
check "and the claim stands" claim_stands "$b"
check "this time it is done" hand_in "$b" "$token" "$nonce" "done"
await "nothing of the probe's tasks is left open" is_done "$b"

memory=$NIGHTCREW_MEMORY/sh-probe
check "set is queued" update set sh-probe/facts '{"a":1}'
await "set is applied" holds "$memory/facts.json" '{"a":1}'
check "merge is queued" update merge sh-probe/facts '{"a":null,"b":2}'
await "merge is applied, as RFC 7396 says" holds "$memory/facts.json" '{"b":2}'
check "append to what is not there is queued" update append sh-probe/list '"x"'
check "append to what is then there is queued" update append sh-probe/list '"y"'
await "both are applied, in order" holds "$memory/list.json" '["x","y"]'
await "the queue is empty up to there" applied_up_to "$seq"
check "append to what is no list is queued" update append sh-probe/facts '1'
bad=$seq
await "it is rejected, with a reason" has_reason "$rejected/$NIGHTCREW_AGENT.$bad"
check "and changed nothing" holds "$memory/facts.json" '{"b":2}'
check "delete is queued" update delete sh-probe/facts
await "delete is applied" gone "$memory/facts.json"
check "the list is deleted too" update delete sh-probe/list
await "the rejected update held up none after it" applied_up_to "$seq"

finish pass
