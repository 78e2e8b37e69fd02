# The registry: outboxes on two plain sinks and on Postfix, inboxes by every protocol, links. Sourced by real_servers.sh.

box=$run-box # the user of each inbox begins with it
folder='Suporte/Clientes São Paulo'
for user in imap imaps pop3 pop3s; do
    letter "$run-old-$user" 'before the first contact' | put "$box-$user" INBOX
done
doveadm -c "$PEER_DOVECOT_CONF" mailbox create -u "$box-imap" "$folder"

postroom migrate >/dev/null
plain=(--server 127.0.0.1 --tls none --auth none)
sink_a=$(id mailbox add outbox --description 'sink A' "${plain[@]}" --port "$PEER_SINK_A_PORT" --sender 'Suporte A <a@acme.example>')
sink_b=$(id mailbox add outbox --description 'sink B' "${plain[@]}" --port "$PEER_SINK_B_PORT" --sender 'Padrão <standard@house.example>')
signed=(--server "$PEER_HOST" --port "$PEER_SUBMISSION_PORT" --tls starttls --auth password --user "$PEER_USER" --password-stdin)
postfix=$(secret_id mailbox add outbox --description Postfix "${signed[@]}" --ca "$PEER_CA" --sender "Fluxo <flow@acme.example>")

# inbox PROVIDER PORT OPTION..
inbox() {
    local provider=$1 port=$2
    shift 2
    secret_id mailbox add inbox --description "by $provider" --server "$PEER_HOST" --port "$port" --provider "$provider" \
        --user "$box-$provider" --password-stdin --ca "$PEER_CA" "$@"
}
in_imap=$(inbox imap "$PEER_IMAP_PORT" --folder "$folder" --baseline all)
in_imaps=$(inbox imaps "$PEER_IMAPS_PORT" --baseline new --after seen)
in_pop3=$(inbox pop3 "$PEER_POP3_PORT" --baseline all)
in_pop3s=$(inbox pop3s "$PEER_POP3S_PORT" --baseline all --after delete)

is 'seven mailboxes are registered and listed' 7 "$(postroom --json mailbox list | grep -c '"id"')"
for mailbox in "$sink_a" "$sink_b" "$postfix" "$in_imap" "$in_imaps" "$in_pop3" "$in_pop3s"; do
    holds "the probe of mailbox $mailbox passes every stage" postroom mailbox probe "$mailbox"
done
implicit=(--server "$PEER_HOST" --port "$PEER_SUBMISSIONS_PORT" --tls implicit --auth password --user "$PEER_USER" --password-stdin)
has 'so does a probe of settings that are not saved, with TLS from the first byte' \
    "$(printf '%s\n' "$PEER_PASSWORD" | postroom --json mailbox probe outbox "${implicit[@]}" --ca "$PEER_CA" --sender x@acme.example)" '"passed":true' sign-in

postroom contract link A --outbox "$sink_a" >/dev/null
postroom contract link B --standard >/dev/null
postroom standard "$sink_b" >/dev/null
postroom contract inbox A "$in_imap" >/dev/null
postroom contract inbox A "$in_pop3" >/dev/null
postroom contract inbox B "$in_imaps" >/dev/null
# One box of two contracts: the address that a mail is for tells them apart.
postroom contract inbox A "$in_pop3s" >/dev/null
postroom contract inbox B "$in_pop3s" >/dev/null
postroom contract set A --address "a@$PEER_BOXES_DOMAIN" >/dev/null
postroom contract set B --address "b@$PEER_BOXES_DOMAIN" >/dev/null
postroom step link TICKET opened --specific "$postfix" --name 'Chamado aberto' --recipient "desk@elsewhere.example" \
    --template $'Subject: Chamado ${N}\n\nOlá, ${WHO}.' >/dev/null

has 'contract A sends by its own outbox, and says why' "$(postroom --json explain --contract A)" "\"outbox\":\"$sink_a\"" '"reasons":["contract"'
has 'contract B sends by Standard, and says why' "$(postroom --json explain --contract B)" "\"outbox\":\"$sink_b\"" '"reasons":["standard"'
has 'the step sends by its specific outbox, and says why' "$(postroom --json explain --contract B --step TICKET/opened)" \
    "\"outbox\":\"$postfix\"" '"reasons":["step"'
