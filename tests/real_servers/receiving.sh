# Each received mail is written once, with the right contract and reasons. Sourced by real_servers.sh.

# The first contact was made by the sending part's worker: what was there before in the box that takes only new mail, is no mail.
letter "$run-imap" 'pela pasta' | put "$box-imap" "$folder"
letter "$run-imaps" 'by imaps' | put "$box-imaps" INBOX
letter "$run-pop3" 'by pop3' | put "$box-pop3" INBOX
letter "$run-a" 'for A' "Delivered-To: a@$PEER_BOXES_DOMAIN" | put "$box-pop3s" INBOX
letter "$run-b" 'for B' "Delivered-To: b@$PEER_BOXES_DOMAIN" | put "$box-pop3s" INBOX
letter "$run-nobody" 'for nobody' | put "$box-pop3s" INBOX
# A customer answers the first mail of contract A.
letter "$run-answer" 'Re: by its own' "In-Reply-To: $(field message_id <<<"$sent_a")" | put "$box-imap" "$folder"

drain >/dev/null

# handed NAME ID MAILBOX CONTRACT REASON
handed() {
    local file
    is "the mail $1 is written once" 1 "$(times_written "<$2@client.example>")"
    file=$(written "<$2@client.example>" | head -n 1)
    [ -n "$file" ] || return
    has "the mail $1 is of contract $4, and says why" "$(cat "$file")" "\"contract\": \"$4\"" "\"mailbox\": \"$3\"" "\"$5"
    holds "the raw bytes of the mail $1 are those that the server has" cmp "${file%.json}.eml" "$work/expected-$2"
}
letter "$run-imap" 'pela pasta' >"$work/expected-$run-imap"
letter "$run-imaps" 'by imaps' >"$work/expected-$run-imaps"
letter "$run-pop3" 'by pop3' >"$work/expected-$run-pop3"
letter "$run-a" 'for A' "Delivered-To: a@$PEER_BOXES_DOMAIN" >"$work/expected-$run-a"
letter "$run-b" 'for B' "Delivered-To: b@$PEER_BOXES_DOMAIN" >"$work/expected-$run-b"
letter "$run-answer" 'Re: by its own' "In-Reply-To: $(field message_id <<<"$sent_a")" >"$work/expected-$run-answer"
handed 'by imap, in a folder with a non-ASCII name,' "$run-imap" "$in_imap" A box
handed 'by imaps' "$run-imaps" "$in_imaps" B box
handed 'by pop3' "$run-pop3" "$in_pop3" A box
handed 'by pop3s for A' "$run-a" "$in_pop3s" A recipient
handed 'by pop3s for B' "$run-b" "$in_pop3s" B recipient
handed 'that answers' "$run-answer" "$in_imap" A box
answer=$(written "<$run-answer@client.example>")
[ -n "$answer" ] && has 'an answer comes with the record of what it answers' "$(cat "$answer")" '"record": "T-1"'

is 'the box that takes only new mail left the old one alone' 0 "$(times_written "<$run-old-imaps@client.example>")"
is 'the boxes that take all mail took the old one' 2 "$(postroom --json ledger list | grep -c '"subject":"before the first contact"')"
triage=$(postroom --json ledger list --state triage)
has 'a mail that no contract can be told for waits in triage' "$triage" '"subject":"for nobody"'
is 'and is not handed over' 0 "$(times_written "<$run-nobody@client.example>")"
has 'a mail is marked as read once it is safe' \
    "$(doveadm -c "$PEER_DOVECOT_CONF" fetch -u "$box-imaps" flags mailbox INBOX header message-id "<$run-imaps@client.example>")" '\Seen'

find "$out" -type f | sort >"$work/before"
touch "$work/then"
drain >/dev/null
find "$out" -type f | sort >"$work/after"
holds 'a second run writes nothing again' cmp "$work/before" "$work/after"
is 'and touches nothing' '' "$(find "$out" -type f -newer "$work/then")"
is 'a mail that was to be deleted is gone from the server, once it is safe' '' \
    "$(doveadm -c "$PEER_DOVECOT_CONF" search -u "$box-pop3s" mailbox INBOX all)"

waiting=$(grep -F 'for nobody' <<<"$triage" | field id)
postroom ledger route "$waiting" B >/dev/null
drain >/dev/null
has 'a mail is handed over once a person has named its contract' \
    "$(cat "$(written "<$run-nobody@client.example>")" 2>&1)" '"contract": "B"'

# The box that takes only new mail loses its numbers, and what it had before the first contact is a day old.
maildir="$PEER_MAIL/$box-imaps/Maildir"
grep -rlF 'before the first contact' "$maildir/cur" "$maildir/new" | xargs -r touch -d '1 day ago'
rm -f "$maildir"/dovecot-uidlist "$maildir"/dovecot.index*
drain >/dev/null
is 'known mail of a renumbered box is not written again' 1 "$(times_written "<$run-imaps@client.example>")"
is 'its old mail is written once' 1 "$(times_written "<$run-old-imaps@client.example>")"
has 'as historic' "$(cat "$(written "<$run-old-imaps@client.example>")" 2>&1)" '"historic": true'
is 'and is not marked as read' '' \
    "$(doveadm -c "$PEER_DOVECOT_CONF" search -u "$box-imaps" mailbox INBOX header message-id "<$run-old-imaps@client.example>" seen)"
