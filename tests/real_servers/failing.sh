# What fails names its stage, cause and remedy, holds up nobody else, and loses nothing. Sourced by real_servers.sh.

# probe_fails WHAT STAGE CAUSE REMEDY ARGUMENT..: with the servers' password on stdin.
probe_fails() {
    local what=$1 stage=$2 cause=$3 remedy=$4 said code
    shift 4
    said=$(printf '%s\n' "$PEER_PASSWORD" | postroom mailbox probe "$@" 2>&1)
    code=$?
    is "a probe with $what exits with 3" 3 "$code"
    has "a probe with $what names stage, cause and remedy" "$said" "at the stage $stage" "$cause" "what to do: $remedy"
}

inbox_form=(inbox --provider imap --user "$box-imap" --password-stdin)
here=(--server "$PEER_HOST" --port "$PEER_IMAP_PORT")
outbox_form=(outbox "${signed[@]}" --ca "$PEER_CA")
probe_fails 'an unknown host' dns 'does not resolve' "check the server's name" "${inbox_form[@]}" --ca "$PEER_CA" --server no-such-host.invalid
probe_fails 'a closed port' tcp 'nobody accepts' 'check server and port' "${inbox_form[@]}" --ca "$PEER_CA" --server "$PEER_HOST" --port 1
probe_fails 'no authority' tls 'is not trusted' 'use the name' "${inbox_form[@]}" "${here[@]}"
probe_fails 'another authority' tls 'is not trusted' 'use the name' "${inbox_form[@]}" "${here[@]}" --ca "$PEER_OTHER_CA"
probe_fails 'an unknown folder' folder 'no such folder' 'check the folder' "${inbox_form[@]}" "${here[@]}" --ca "$PEER_CA" --folder Nada
probe_fails 'a refused sender' rcpt-to '550' "read the server's words" "${outbox_form[@]}" --sender "$PEER_REFUSED"
said=$(echo wrong-canary | postroom mailbox probe "${inbox_form[@]}" "${here[@]}" --ca "$PEER_CA" 2>&1)
has 'a probe with a wrong password names stage, cause and remedy' "$said" 'at the stage sign-in' 'were refused' 'check user and password'
has 'a probe of an unknown folder lists the folders that exist' \
    "$(printf '%s\n' "$PEER_PASSWORD" | postroom mailbox probe "${inbox_form[@]}" "${here[@]}" --ca "$PEER_CA" --folder Nada 2>&1)" "$folder"

# Saved boxes that are wrong, each with a contract of its own, among those that are right.
wrong_password=$(echo wrong-canary | id mailbox add outbox --description 'wrong password' "${signed[@]}" --ca "$PEER_CA" --sender w@acme.example)
closed_port=$(id mailbox add outbox --description 'closed port' "${plain[@]}" --port 1 --sender c@acme.example)
wrong_authority=$(secret_id mailbox add outbox --description 'wrong authority' "${signed[@]}" --ca "$PEER_OTHER_CA" --sender t@acme.example)
no_folder=$(inbox imap "$PEER_IMAP_PORT" --folder Nada)
for pair in "PASSWORD $wrong_password" "PORT $closed_port" "AUTHORITY $wrong_authority"; do
    read -r contract outbox <<<"$pair"
    postroom contract link "$contract" --outbox "$outbox" >/dev/null
done
submit() {
    id send --contract "$1" --to "$2" --subject "$3" --text x
}
of_password=$(submit PASSWORD "$to" 'wrong password')
of_port=$(submit PORT "$to" 'closed port')
of_authority=$(submit AUTHORITY "$to" 'wrong authority')
postroom contract link REFUSED --outbox "$postfix" >/dev/null
of_refused=$(submit REFUSED "$PEER_REFUSED" 'refused')
of_deferred=$(submit REFUSED "$PEER_DEFERRED" 'deferred')
both=$(id send --contract REFUSED --to "$to" --to "$PEER_REFUSED" --subject 'one of two' --text x)
among=$(postroom --json send --contract A --to "$to" --subject 'among the failing' --text x)
letter "$run-among" 'among the failing' | put "$box-pop3" INBOX
begun=$SECONDS
drain >/dev/null
is "the mail of other contracts is not held up" '1 0 0' "$(arrived "$(field message_id <<<"$among")")"
is 'nor is what arrives for them' 1 "$(times_written "<$run-among@client.example>")"
is 'and the worker did not wait for the failing servers' yes "$([ $((SECONDS - begun)) -lt 60 ] && echo yes)"

# told WHAT ID STATE WORD..: what `queue show` says of a mail.
told() {
    local what=$1 id=$2 want=$3
    shift 3
    is "a mail behind $what is $want" "$want" "$(state "$id")"
    has "a mail behind $what shows stage, cause and remedy" "$(postroom queue show "$id")" "$@"
}
told 'a wrong password' "$of_password" queued sign-in 'were refused' 'check user and password'
told 'a closed port' "$of_port" queued tcp 'nobody accepts' 'check server and port'
told 'a wrong authority' "$of_authority" queued tls 'is not trusted' 'register the authority'
told 'a refusing server' "$of_refused" refused rcpt-to 550 'no such mailbox' 'correct the mail or the address'
told 'a busy server' "$of_deferred" queued rcpt-to 450 'mailbox is busy' 'tried again by itself'
has 'one refused recipient does not stop the other' "$(postroom queue show "$both")" "$to" accepted "$PEER_REFUSED" refused
has 'the health of a box says that a person must act' "$(postroom --json health "$wrong_password")" '"suspended":true' sign-in
has 'an unknown folder stands in the health of its box' "$(postroom --json health "$no_folder")" '"suspended":true' 'no such folder'
has 'and in the listing' "$(postroom mailbox list)" suspended

# Once they are mended, everything leaves.
printf '%s\n' "$PEER_PASSWORD" | postroom mailbox edit "$wrong_password" --password-stdin >/dev/null
postroom mailbox edit "$closed_port" --port "$PEER_SINK_A_PORT" >/dev/null 2>&1
printf '%s\n' "$PEER_PASSWORD" | postroom mailbox edit "$wrong_authority" --ca "$PEER_CA" --password-stdin >/dev/null
doveadm -c "$PEER_DOVECOT_CONF" mailbox create -u "$box-imap" Nada
postroom mailbox enable "$no_folder" >/dev/null
drain >/dev/null
for id in "$of_password" "$of_port" "$of_authority"; do
    is 'nothing is lost: a mended box sends what waited' accepted "$(state "$id")"
done
has 'a mended inbox is well' "$(postroom --json health "$no_folder")" '"suspended":false' '"failures":0'
is 'a mail that was refused is not sent by itself again' refused "$(state "$of_refused")"

# No password is in anything that was said or written.
is 'no password is in the database, nor in what the worker said' '' \
    "$(grep -laF -e wrong-canary -e "$POSTROOM_KEY" "$work"/postroom.db* "$work"/*.log 2>/dev/null)"
