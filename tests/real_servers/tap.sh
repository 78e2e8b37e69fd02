# Results and comparisons. Sourced by real_servers.sh.

ok() {
    good=$((good + 1))
    echo "ok - $1"
}

not_ok() {
    bad=$((bad + 1))
    echo "not ok - $1"
    # The reason, as a comment of the result.
    printf '%s\n' "${2:-}" | sed 's/^/#   /'
}

# is WHAT EXPECTED ACTUAL
is() {
    if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "expected: $2
actual:   $3"; fi
}

# has WHAT TEXT WORD..: the text holds every word.
has() {
    local what=$1 text=$2 word
    shift 2
    for word in "$@"; do
        if ! grep -qF -- "$word" <<<"$text"; then
            not_ok "$what" "missing: $word
in: $text"
            return
        fi
    done
    ok "$what"
}

# holds WHAT COMMAND..: the command succeeds.
holds() {
    local what=$1 said
    shift
    if said=$("$@" 2>&1); then ok "$what"; else not_ok "$what" "$* : $said"; fi
}

# eventually COMMAND..: within 30 s; for what a server does by itself after it has answered.
eventually() {
    local _
    for _ in $(seq 300); do
        if "$@"; then return 0; fi
        sleep 0.1
    done
    return 1
}
