#!/bin/sh
# /// agent
# about = "Submits what is to be done with each text dropped into inbox/"
# watch = ["inbox/*"]
# debounce = "200ms"
# max_wait = "2s"
# timeout = "10m"
# ///
#
# A job: one process whenever files in inbox/ changed, which is told which. What a run that fails was told, the
# next one is told again. Written in POSIX sh with coreutils alone, and without any nightcrew command:
# docs/protocol.md is all that it relies on. For each text there are three tasks: a summary and the facts, which go on
# side by side, and a page, which needs both. They are submitted once for each content that the text has had: going
# back to an earlier content is no new task. Of a text that is still being copied the half is submitted, perhaps, and
# then the whole: it is another change, and nothing is published of two versions.

set -u
LC_ALL=C
export LC_ALL
cd "$NIGHTCREW_DIR" || exit 75

bytes_max=4194304
nothing_to_do=66
tasks=$NIGHTCREW_DIR/state/tasks
newline='
'

say() { printf '%s\n' "$*"; }

# JSON allows any character in a string but control characters (refused before) and these two.
json_text() {
    rest=$1 escaped=
    while :; do
        case $rest in
            *[\\\"]*)
                plain=${rest%%[\\\"]*}
                rest=${rest#"$plain"}
                escaped=$escaped$plain\\${rest%"${rest#?}"}
                rest=${rest#?}
                ;;
            *) break ;;
        esac
    done
    printf '%s' "$escaped$rest"
}

# id_of KIND KEY: the same kind and key is the same task.
id_of() { printf '%s\0k\0%s' "$1" "$2" | sha256sum | cut -c1-16; }

# submit KIND ID MORE PAYLOAD: publishes a task record, in which MORE are further fields. It is written to
# a file of our own, made durable, and only then given its name by link(2), which fails if the name is
# taken. So a record is there whole, once, or not at all.
submit() {
    kind=$1 id=$2 more=$3 payload=$4
    # A dead letter's place would be free, but whether it is tried again is for a person to say; what is open,
    # done or in review would be dropped as a duplicate anyway.
    for shelf in . new done dead review; do
        [ ! -e "$tasks/$shelf/$id.json" ] || return 0
    done
    nonce=$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
    temp=$NIGHTCREW_TMP/$id.$nonce
    record='{"v":1,"id":"%s","token":0,"nonce":"%s","kind":"%s","at":"%s","by":"%s",%s"payload":%s}\n'
    # shellcheck disable=SC2059 # the format is the constant above
    if ! printf "$record" "$id" "$nonce" "$kind" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$NIGHTCREW_AGENT" "$more" "$payload" >"$temp" ||
        ! sync "$temp"; then
        rm -f "$temp"
        return 1
    fi
    if ln -T "$temp" "$tasks/new/$id.json" 2>/dev/null; then
        rm -f "$temp"
        sync "$tasks/new"
        fresh=yes
    else
        rm -f "$temp"
        # Taken means that the same text is on its way already. Anything else is tried again.
        [ -e "$tasks/new/$id.json" ] || [ -e "$tasks/$id.json" ] || return 1
    fi
}

# The tasks of one text. Whatever a crash leaves out, the next run adds: each has its id from the text.
hand_in() {
    file=$1 name=${1#inbox/} fresh=
    content=$(sha256sum <"$file") || return 1
    key="${content%% *} $name"
    edit=$(id_of edit "$key") facts=$(id_of facts "$key") publish=$(id_of publish "$key")
    text="{\"file\":\"$(json_text "$file")\",\"title\":\"$(json_text "$name")\"}"
    submit edit "$edit" '' "$text" &&
        submit facts "$facts" '' "$text" &&
        submit publish "$publish" "\"needs\":[\"$edit\",\"$facts\"]," "{\"summary\":\"$edit\",\"facts\":\"$facts\"}" ||
        return 1
    [ -n "$fresh" ] || return 0
    submitted=$((submitted + 1))
    say "submitted $name: edit $edit, facts $facts, publish $publish"
}

refuse() { say "refused: $*"; }

# Looks at one file; returns 1 if it has to be looked at again.
consider() {
    case $1 in
        *[[:cntrl:]]*) refuse "a name with control characters"; return 0 ;;
        *~ | *.part | *.swp | *.tmp) return 0 ;;
    esac
    # It was removed, now or meanwhile: its page stays.
    [ -e "$1" ] || [ -L "$1" ] || return 0
    # A symlink may lead anywhere, and reading a FIFO may never end.
    if [ -L "$1" ] || [ ! -f "$1" ]; then refuse "$1: not a regular file"; return 0; fi
    bytes=$(stat -c %s "$1" 2>/dev/null) || return 0
    if [ "$bytes" -eq 0 ]; then
        refuse "$1: empty"
    elif [ "$bytes" -gt "$bytes_max" ]; then
        refuse "$1: $bytes bytes, where $bytes_max are allowed"
    elif [ ! -r "$1" ]; then
        refuse "$1: not readable"
    else
        hand_in "$1"
    fi
}

# How many files this run is told of: within a name no such words can stand, since JSON escapes its quotes.
told=$(grep -o '","change":"' "$NIGHTCREW_TASK_FILE" | wc -l)
# The variable holds whole lines, 32 KiB of them; the payload on standard input holds all.
listed=$(printf %s "${NIGHTCREW_CHANGED:-}" | wc -l)

submitted=0 failed=''
set -f
IFS=$newline
# shellcheck disable=SC2086 # one word a line
set -- ${NIGHTCREW_CHANGED:-}
if [ "$listed" -ne "$told" ] || [ "$told" -eq 0 ]; then
    # Too many for the variable, or started by hand: look at all. What is submitted already is passed over.
    set +f
    set -- inbox/*
fi
unset IFS
for path in "$@"; do
    consider "$path" || failed=$path
done
if [ -n "$failed" ]; then
    say "not all could be submitted, the last being $failed: they come again"
    exit 1
fi
[ "$submitted" -gt 0 ] || exit "$nothing_to_do"
say "$submitted submitted"
