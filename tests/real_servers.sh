#!/usr/bin/env bash
# The journeys on real servers, by the command line alone: two plain smtp-sinks, Postfix with STARTTLS and sign-in, Dovecot by imap,
# imaps, pop3 and pop3s. Started by `cargo xtask test`, or by hand with `cargo xtask peers -- tests/real_servers.sh POSTROOM`, where
# POSTROOM is the built binary; crates/xtask/src/peers.rs says what the environment holds. Each line `ok - ..` or `not ok - ..` is a
# result. Nothing is used but bash, coreutils, grep, sed and Dovecot's doveadm.

set -u -o pipefail
binary=$(realpath "${1:?usage: tests/real_servers.sh POSTROOM}")
: "${PEER_HOST:?run it under cargo xtask peers}"
parts=$(dirname "$(realpath "$0")")/real_servers

work=$(mktemp -d)
worker=
# The worker that a test left behind, if any, ends with the script; the folder goes unless something failed.
leave() {
    [ -z "$worker" ] || kill -KILL "$worker" 2>/dev/null
    if [ "$bad" -eq 0 ]; then rm -rf "$work"; else echo "# what was at hand is in $work"; fi
}
trap leave EXIT
good=0 bad=0

for part in tap desk registry sending receiving killing failing; do
    # shellcheck source=/dev/null
    . "$parts/$part.sh"
done

echo "1..$((good + bad))"
[ "$bad" -eq 0 ]
