# Calling the command line, reading its documents, looking into the servers. Sourced by real_servers.sh.

export POSTROOM_DATABASE=sqlite://$work/postroom.db
POSTROOM_KEY=$("$binary" key generate)
export POSTROOM_KEY
out=$work/out
# Other tests use the same servers: what is ours bears this name.
run=cli$$

postroom() {
    timeout 120 "$binary" "$@"
}

# The work that is due, by one worker. A claim that a killed worker left behind runs out after 2 s.
drain() {
    postroom --json run --until-idle --lease 2 --deliver-to "$out" "$@" 2>>"$work/worker.log"
}

# field NAME, of the document on stdin: the first text or number of that name.
field() {
    grep -oE "\"$1\":(\"[^\"]*\"|[0-9]+|true|false|null)" | head -n 1 | sed -E 's/^"[^"]*"://; s/^"//; s/"$//'
}

# id COMMAND..: what a command printed as "id".
id() {
    postroom --json "$@" 2>>"$work/stderr.log" | field id
}

# secret_id COMMAND..: as id, with the servers' password on stdin.
secret_id() {
    printf '%s\n' "$PEER_PASSWORD" | id "$@"
}

# The state of a mail in the queue.
state() {
    postroom --json queue show "$1" | field state
}

# mails MESSAGE_ID DUMP: how many dumped mails bear it.
mails() {
    grep -rlF -- "Message-ID: $1" "$2" 2>/dev/null | wc -l
}

# arrived MESSAGE_ID: where it was accepted, and how often: `a b relay`.
arrived() {
    echo "$(mails "$1" "$PEER_SINK_A_DUMP") $(mails "$1" "$PEER_SINK_B_DUMP") $(mails "$1" "$PEER_SINK_RELAY_DUMP")"
}

arrived_as() {
    [ "$(arrived "$1")" = "$2" ]
}

# envelope MESSAGE_ID DUMP: the sender and recipients that the server was told.
envelope() {
    local file
    file=$(grep -rlF -- "Message-ID: $1" "$2" | head -n 1)
    sed -nE 's/^X-(Mail|Rcpt)-Args: (<[^>]*>).*/\2/p' "$file" | tr '\n' ' ' | sed 's/ $//'
}

# letter ID SUBJECT [HEADER]: a mail of a customer.
letter() {
    printf 'From: Rui <rui@client.example>\r\nTo: box@%s\r\nSubject: %s\r\nMessage-ID: <%s@client.example>\r\n%s\r\nIt is broken.\r\n' \
        "$PEER_BOXES_DOMAIN" "$2" "$1" "${3:+$3$'\r\n'}"
}

# put USER FOLDER: the mail on stdin into a mailbox.
put() {
    doveadm -c "$PEER_DOVECOT_CONF" save -u "$1" -m "$2"
}

# written MESSAGE_ID: the JSON files of the mails that were handed over with it.
written() {
    grep -rlF --include='*.json' -- "\"message_id\": \"$1\"" "$out" 2>/dev/null
}

times_written() {
    written "$1" | wc -l
}
