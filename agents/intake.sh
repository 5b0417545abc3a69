#!/bin/sh
# /// agent
# about = "Submits what is to be done with each text dropped into inbox/"
# heartbeat = "20s"
# ///
#
# Written in POSIX sh with coreutils alone, and without any nightcrew command: docs/protocol.md is all
# that it relies on. For each text there are three tasks: a summary and the facts, which go on side by side,
# and a page, which needs both. They are submitted once for each content that the text has had: going
# back to an earlier content is no new task.

set -u
LC_ALL=C
export LC_ALL
cd "$NIGHTCREW_DIR" || exit 75

bytes_max=4194304
looks_per_beat=5
tasks=$NIGHTCREW_DIR/state/tasks
newline='
'

say() { printf '%s\n' "$*"; }

# Appends, so that `tail -f` can follow. The supervisor cuts the file when it grows long.
beat() {
    printf '%s progress=%d note="%s"\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$submitted" "$1" >>"$NIGHTCREW_HEARTBEAT"
}

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

# The tasks of one text. Whatever a crash leaves out, the next look adds: each has its id from the text.
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
    # A thousand texts at once take a while, in which this agent is not hung.
    beat "submitted $publish"
}

# Looks at one file; returns 1 if it has to be looked at again.
consider() {
    case $1 in
        *[[:cntrl:]]*) refuse "a name with control characters"; return 0 ;;
        *~ | *.part | *.swp | *.tmp) return 0 ;;
    esac
    # A symlink may lead anywhere, and reading a FIFO may never end.
    if [ -L "$1" ] || [ ! -f "$1" ]; then refuse "$1: not a regular file"; return 0; fi
    look=$(stat -c '%n|%s|%y|%i' "$1" 2>/dev/null) || return 1
    # A file still being copied looks different each time.
    case $newline$last$newline in
        *"$newline$look$newline"*) ;;
        *) return 1 ;;
    esac
    case $newline$settled$newline in *"$newline$look$newline"*) return 0 ;; esac
    bytes=$(stat -c %s "$1" 2>/dev/null) || return 1
    if [ "$bytes" -eq 0 ]; then
        refuse "$1: empty"
    elif [ "$bytes" -gt "$bytes_max" ]; then
        refuse "$1: $bytes bytes, where $bytes_max are allowed"
    elif [ ! -r "$1" ]; then
        refuse "$1: not readable"
    elif ! hand_in "$1"; then
        return 1
    fi
    settled=$settled$newline$look
}

# Says a reason once, not once a look.
refuse() {
    case $newline$refused$newline in *"$newline$1$newline"*) return ;; esac
    [ ${#refused} -lt 65536 ] || refused=
    refused=$refused$newline$1
    say "refused: $1"
}

# `wait` returns when a signal comes, where a plain `sleep` would be slept to its end. Ending by the
# signal itself, not by `exit 0`, says that this service was stopped and did not finish.
trap 'kill "$nap" 2>/dev/null; trap - TERM; kill -TERM $$' TERM
nap=

submitted=0 looks=0 last='' settled='' refused='' calm=
while :; do
    [ -d inbox ] || mkdir -p inbox
    now=$(stat -c '%n|%s|%y|%i' inbox/* 2>/dev/null)
    [ $? -ne 126 ] || refuse "inbox/ holds too many files for one command line: move old ones away"
    # At rest a look is a single stat(1).
    if [ "$now" != "$last" ] || [ -z "$calm" ]; then
        calm=yes
        for path in inbox/*; do
            [ -e "$path" ] || [ -L "$path" ] || continue
            consider "$path" || calm=
        done
        [ -z "$calm" ] || [ -z "$now" ] || settled=$now
        last=$now
    fi
    looks=$((looks + 1))
    # No beat at the first look: what lies in the inbox is submitted at the second, and whoever waits for
    # this agent to be under way (`run --until-idle`) should wait for that.
    if [ "$looks" -eq 2 ] || [ $((looks % looks_per_beat)) -eq 0 ]; then
        beat "$submitted submitted since the start"
    fi
    sleep 1 &
    nap=$!
    wait "$nap"
    nap=
done
