# Workers are killed at random moments: nothing is lost, and nothing is sent twice. What a killed worker may have handed over is in
# doubt, and shown. Sourced by real_servers.sh.

# kill_loop TURNS OPTION..: so many workers are started, and each is killed within half a second.
kill_loop() {
    local turns=$1 killed=0 _
    shift
    for _ in $(seq "$turns"); do
        # Not by way of `postroom`: its `timeout` would be killed in its stead.
        "$binary" --json run --lease 2 --deliver-to "$out" "$@" >/dev/null 2>>"$work/worker.log" &
        worker=$!
        sleep "0.$((RANDOM % 5))$((RANDOM % 10))"
        kill -KILL "$worker" && killed=$((killed + 1))
        wait "$worker" 2>/dev/null
    done
    worker=
    is "$turns workers were killed at random moments" "$turns" "$killed"
}

# message_ids DUMP..: each Message-ID that was dumped, as often as it was.
message_ids() {
    grep -rh '^Message-ID: ' "$@" | tr -d '\r' | sed 's/^Message-ID: //' | sort
}

# ids_of STATE FILE: the Message-IDs of our mails in this state, of those that FILE lists as submitted.
ids_of() {
    postroom --json queue list --state "$1" | grep -oE '"message_id":"[^"]*"' | cut -d'"' -f4 | sort | comm -12 - "$2"
}

postroom --json send --contract A --to "$to" --subject 'killed' --text x --repeat 400 >"$work/sent"
postroom --json send --contract B --step TICKET/opened --to "$to" --subject 'killed' --text x --repeat 100 >>"$work/sent"
grep -oE '"message_id":"[^"]*"' "$work/sent" | cut -d'"' -f4 | sort >"$work/submitted"
is 'each of 500 mails is its own' 500 "$(sort -u "$work/submitted" | wc -l)"
kill_loop 12 --only send
drain --only send >/dev/null

ids_of accepted "$work/submitted" >"$work/accepted"
ids_of in-doubt "$work/submitted" >"$work/doubted"
is 'each is accepted or shown as in doubt' 500 "$(sort -u "$work/accepted" "$work/doubted" | wc -l)"
echo "# $(wc -l <"$work/doubted") of 500 are in doubt"
all_accepted_arrived() {
    # Not by comm, which would hide that one of them is there twice.
    message_ids "$PEER_SINK_A_DUMP" "$PEER_SINK_RELAY_DUMP" | grep -xFf "$work/submitted" >"$work/arrived"
    [ -z "$(comm -23 "$work/accepted" "$work/arrived")" ]
}
eventually all_accepted_arrived
is 'each accepted mail arrived' '' "$(comm -23 "$work/accepted" "$work/arrived")"
is 'and none arrived twice' '' "$(uniq -d "$work/arrived")"
is 'what is in doubt does not exceed four mails of each connection that was killed' yes \
    "$([ "$(wc -l <"$work/doubted")" -le $((4 * 12 * 10)) ] && echo yes)"

# A person settles what is in doubt by what the servers have.
settle() {
    local id message_id verdict
    while read -r line; do
        id=$(field id <<<"$line") message_id=$(field message_id <<<"$line")
        verdict=refused
        if grep -qxF -- "$message_id" "$work/arrived"; then verdict=accepted; fi
        postroom queue settle "$id" "$verdict" >/dev/null || return 1
        if [ "$verdict" = refused ]; then postroom queue retry "$id" >/dev/null || return 1; fi
    done < <(postroom --json queue list --state in-doubt)
}
holds 'what is in doubt is settled by a person, and sent again where it did not arrive' settle
drain --only send >/dev/null
ids_of accepted "$work/submitted" >"$work/accepted"
is 'then all 500 are accepted' 500 "$(wc -l <"$work/accepted")"
eventually all_accepted_arrived
is 'and each arrived once' '' "$(diff "$work/submitted" "$work/arrived")"

for number in $(seq 60); do
    letter "$run-kill-$number" "killed $number" | put "$box-imap" "$folder"
    letter "$run-kill-pop-$number" "killed $number" | put "$box-pop3s" INBOX
done
postroom contract inbox A "$in_pop3s" --remove >/dev/null
kill_loop 10 --only receive
drain >/dev/null
for number in $(seq 60); do echo "<$run-kill-$number@client.example>" && echo "<$run-kill-pop-$number@client.example>"; done |
    sort >"$work/put"
grep -rhoE --include='*.json' '"message_id": "[^"]*"' "$out" | cut -d'"' -f4 | sort | grep -F "$run-kill-" >"$work/handed"
is 'each of 120 received mails is written once, whoever was killed' '' "$(diff "$work/put" "$work/handed")"
is 'each pair is whole' "$(find "$out" -name '*.eml' | wc -l)" "$(find "$out" -name '*.json' | wc -l)"
is 'and no mail is left on the server that takes its mail away' '' \
    "$(doveadm -c "$PEER_DOVECOT_CONF" search -u "$box-pop3s" mailbox INBOX all)"
postroom contract inbox A "$in_pop3s" >/dev/null
