# Each mail leaves once, by the right server, as the right sender. Sourced by real_servers.sh.

to=ana@elsewhere.example
sent_a=$(postroom --json send --contract A --to "Ana <$to>" --subject 'by its own' --text 'olá' --record T-1)
sent_b=$(postroom --json send --contract B --to "$to" --subject 'by Standard' --text hello --attach "$PEER_CA")
sent_step=$(postroom --json notify --contract B --step TICKET/opened --value N=7 --value WHO=Ana)
has 'a submitted mail is told with its outbox, sender and reasons' "$sent_a" "\"outbox\":\"$sink_a\"" 'a@acme.example' '"reasons":["contract"'
is 'what was submitted waits in the queue' 3 "$(postroom --json queue list --state queued | grep -c '"id"')"

drain >/dev/null

# left NAME DOCUMENT WHERE DUMP ENVELOPE: how a mail left; WHERE counts it at sink A, sink B and behind Postfix.
left() {
    local message_id
    message_id=$(field message_id <<<"$2")
    eventually arrived_as "$message_id" "$3"
    is "the mail $1 arrived once, at the right server alone" "$3" "$(arrived "$message_id")"
    is "the mail $1 has the right sender and recipient" "$5" "$(envelope "$message_id" "$4")"
    is "the mail $1 is accepted" accepted "$(state "$(field id <<<"$2")")"
}
left 'of contract A' "$sent_a" '1 0 0' "$PEER_SINK_A_DUMP" "<a@acme.example> <$to>"
left 'of contract B' "$sent_b" '0 1 0' "$PEER_SINK_B_DUMP" "<standard@house.example> <$to>"
left 'of the step' "$sent_step" '0 0 1' "$PEER_SINK_RELAY_DUMP" '<flow@acme.example> <desk@elsewhere.example>'
has 'the From of the mail is the registered sender' \
    "$(cat "$(grep -rlF -- "Message-ID: $(field message_id <<<"$sent_a")" "$PEER_SINK_A_DUMP")")" 'Suporte A' '<a@acme.example>'
has 'the timeline tells from the submission to the reply' "$(postroom queue show "$(field id <<<"$sent_a")")" queued accepted '250 2.0.0'

drain >/dev/null
for sent in "$sent_a" "$sent_b" "$sent_step"; do
    places=$(arrived "$(field message_id <<<"$sent")")
    is 'a second run sends nothing again' 1 "$((${places// /+}))"
done
