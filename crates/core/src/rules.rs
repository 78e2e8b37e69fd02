//! The one table of rules that input must keep: code, field, limit, remedy. It is printed by `postroom rules`, shown in
//! forms, and walked by a test that breaks and keeps each of them. What checks a rule stands beside the value.

use serde::Serialize;

/// One rule on input.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Rule {
    /// The stable code, `noun.word`.
    pub code: &'static str,
    /// The field of the form that it is about.
    pub field: &'static str,
    /// What holds of a good value.
    pub limit: &'static str,
    /// What to do about a bad one.
    pub remedy: &'static str,
}

macro_rules! rules {
    ($($name:ident $code:literal $field:literal $limit:literal $remedy:literal;)+) => {
        $(
            #[doc = concat!("`", $code, "`: ", $limit, ".")]
            pub static $name: Rule = Rule { code: $code, field: $field, limit: $limit, remedy: $remedy };
        )+

        /// Every rule, in the order of the forms.
        pub static RULES: &[&Rule] = &[$(&$name),+];
    };
}

rules! {
    // Values that occur everywhere.
    NUMBER "value.number" "id" "a number is a whole number from 0" "give the number that a listing shows";
    UUID "value.uuid" "id" "an id is a UUID of 36 characters" "copy the id as a listing shows it";
    TIMESTAMP "value.timestamp" "time" "a time is in RFC 3339 form" "write it like 2026-11-22T17:31:04Z";
    ADDRESS "address.form" "address" "an address is local@domain, at most 254 bytes, without control characters" "write it like ana@acme.example";
    DISPLAY_NAME "address.name" "name" "a display name has at most 200 bytes and no control characters" "shorten the name or remove line breaks";
    DOMAIN "domain.form" "domain" "a domain is a host name, not an IP address" "write it like acme.example";
    ACTOR "actor.text" "actor" "an actor has 1 to 200 bytes and no control characters" "name the user who makes the change";

    // Mailboxes of both kinds.
    DESCRIPTION "mailbox.description" "description" "a description has 1 to 200 characters and no control characters" "say in a few words what the box is for";
    SERVER "mailbox.server" "server" "a server is a host name of at most 253 bytes or an IP address" "give the name without a scheme, port or path";
    PORT "mailbox.port" "port" "a port is 1 to 65535" "leave it empty for the protocol's default";
    STATUS "mailbox.status" "status" "a status is draft, active or disabled" "choose one of the three";
    AUTHORITY "mailbox.authority" "authority" "an authority is PEM with at least one certificate, no private key, at most 64 KiB" "paste the certificate of the authority that signed the server's";
    USER "mailbox.user" "user" "a user has 1 to 320 bytes and no control characters" "give the login name of the box";
    USER_ABSENT "mailbox.user-absent" "user" "an outbox without authentication has no user" "remove the user or require authentication";
    PASSWORD "mailbox.password" "password" "a password has 1 to 4096 bytes without NUL, CR or LF" "set the password of the box";
    PASSWORD_REQUIRED "mailbox.password-required" "password" "a box that signs in has a password" "set the password of the box";
    PASSWORD_ABSENT "mailbox.password-absent" "password" "an outbox without authentication has no password" "clear the password or require authentication";
    PASSWORD_AGAIN "mailbox.password-again" "password" "a kept password belongs to the server, port, user and security that it was given for" "give the password again, since one of them changes";
    OAUTH_ENDPOINT "oauth.token-endpoint" "oauth.token_endpoint" "a token endpoint is an https URL of at most 2000 bytes with a host, or an http URL where the box opts into plain text" "give the token endpoint of the provider's documentation";
    OAUTH_CLIENT "oauth.client" "oauth.client" "a client's id has 1 to 500 printable ASCII characters" "give the client id that the provider shows for the application";
    OAUTH_SCOPE "oauth.scope" "oauth.scope" "a scope has at most 2000 printable ASCII characters" "give the provider's words for mail by IMAP, POP3 or SMTP, or leave it empty";
    OAUTH_GRANT "oauth.grant" "oauth.grant" "what is given for an access token is refresh-token or client-credentials" "choose one of the two";
    OAUTH_SECRET "oauth.secret" "password" "the secret of OAuth2 is a refresh token or, with client-credentials, a client secret, or JSON with refresh_token and client_secret, printable ASCII, at most 4096 bytes" "set what the provider gave when the mailbox's owner consented";
    OAUTH_ABSENT "oauth.absent" "oauth" "only an outbox whose authentication is oauth2 has a token endpoint and a client" "remove them, or choose oauth2";
    DANGER_PLAINTEXT "mailbox.danger-plaintext" "danger_plaintext" "a password travels by TLS only, unless the box opts into plain text" "use TLS; in a closed test network only, set the dangerous opt-in";

    // Inboxes.
    PROVIDER "inbox.provider" "provider" "a provider is imap, imaps, pop3 or pop3s" "choose one of the four";
    FOLDER "inbox.folder" "folder" "a folder has 1 to 1000 bytes and no control characters" "give the folder's name as the mail program shows it";
    FOLDER_ABSENT "inbox.folder-absent" "folder" "a POP3 box has no folder" "leave the folder empty or use IMAP";
    AFTER "inbox.after" "after" "what happens to a stored mail is leave, seen, delete, delete:DAYS (1 to 3650) or move:FOLDER" "choose one of them";
    AFTER_POP3 "inbox.after-pop3" "after" "a POP3 box can only leave or delete" "choose leave, delete or delete:DAYS";
    AFTER_SAME_FOLDER "inbox.after-same-folder" "after" "mail is moved to another folder than it is read from" "choose another folder";
    BASELINE "inbox.baseline" "baseline" "a baseline is new, all or days:N (1 to 3650)" "choose which mail of the first contact counts";
    PER_ROUND "inbox.per-round" "per_round" "a round takes 1 to 10000 mails" "give a number in that range";
    EXTENSIONS "inbox.refused-extensions" "refused_extensions" "a file extension has 1 to 20 letters, digits, - or _, at most 200 of them, each once" "write extensions like exe";
    MAX_ATTACHMENT "inbox.max-attachment" "max_attachment" "the greatest attachment is 1 to 1073741824 bytes" "give a size in bytes";
    MAX_MESSAGE "mailbox.max-message" "max_message" "the greatest message is 1024 to 1073741824 bytes" "give a size in bytes";

    // Outboxes.
    TLS "outbox.tls" "tls" "TLS is none, starttls or implicit" "choose one of the three";
    AUTH "outbox.auth" "auth" "authentication is none, password or oauth2" "choose one of the three";
    SENDERS "outbox.senders" "senders" "an outbox has 1 to 100 senders" "register the addresses that the server lets it send from";
    SENDER_UNIQUE "outbox.sender-unique" "senders" "each sender's address is there once" "remove the repeated sender";
    DEFAULT_SENDER "outbox.default-sender" "default_sender" "the default sender is one of the senders" "choose one of the registered senders";
    CONNECTIONS "outbox.max-connections" "max_connections" "an outbox has 1 to 100 connections" "give a number in that range";
    PER_MINUTE "outbox.per-minute" "per_minute" "messages per minute are 1 to 1000000" "leave it empty for no limit";
    PER_DAY "outbox.recipients-per-day" "recipients_per_day" "recipients per day are 1 to 100000000" "leave it empty for no limit";
    PRESET "outbox.preset" "preset" "a preset is the name of a known provider" "leave it empty or choose one that `postroom rules` lists";
    COMPANION "outbox.companion" "companion" "a companion is a registered inbox" "choose an inbox, or none";
    SENT_COPY "outbox.sent-copy" "sent_copy" "a sent copy is no or append:FOLDER" "choose one of the two";
    SENT_COPY_COMPANION "outbox.sent-copy-companion" "sent_copy" "a sent copy needs a companion inbox by IMAP" "choose the companion inbox, or no sent copy";
    EHLO "outbox.ehlo-name" "ehlo_name" "an EHLO name is a host name or an IP address" "give this machine's public name, or leave it empty";

    // Contracts and steps.
    CONTRACT_ID "contract.id" "contract" "a contract's id has 1 to 200 bytes and no control characters" "give the host's own id of the contract";
    CONTRACT_OUTBOX "contract.outbox" "outbox" "a contract's outbox is a registered outbox" "choose a registered outbox, or Standard";
    CONTRACT_SENDER "contract.sender" "sender" "a contract's sender is one of its outbox's senders" "choose a sender of that outbox";
    CONTRACT_ALLOWED "contract.allowed-outboxes" "allowed_outboxes" "the outboxes that steps may use are at most 100 registered outboxes, each once" "choose registered outboxes";
    CONTRACT_INBOX "contract.inbox" "inboxes" "a contract's inboxes are registered inboxes within its limit, each once" "choose registered inboxes";
    CONTRACT_ADDRESSES "contract.addresses" "addresses" "a contract has at most 1000 addresses, each once" "remove addresses";
    CONTRACT_DOMAINS "contract.domains" "domains" "a contract has at most 1000 sender domains, each once" "remove domains";
    PUBLIC_DOMAIN "contract.public-domain" "domains" "a sender domain belongs to the client alone: no public mail provider, no public suffix" "name the client's people as addresses instead";
    REQUESTER "contract.requester" "requester" "unknown requesters are accepted, refused or asked for: accept, refuse, ask" "choose one of the three";
    LIMIT_NAME "contract.limit" "limits" "a limit is boxes, queued or per-day with a number from 1 to 1000000000" "write it like queued=10000";
    RETENTION "contract.retention" "retention" "a retention is bodies, raw, timelines or dead with 1 to 36500 days" "write it like bodies=30";
    FLOW_ID "step.flow" "flow" "a flow's id has 1 to 200 bytes and no control characters" "give the host's own id of the flow";
    STEP_ID "step.id" "step" "a step's id has 1 to 200 bytes and no control characters" "give the host's own id of the step";
    STEP_KEY "step.key" "step" "a step is written FLOW/STEP" "write a / inside of an id as %2F";
    STEP_NAME "step.name" "name" "a step's name has 1 to 200 characters and no control characters" "name the step as its flow does";
    STEP_OUTBOX "step.outbox" "outbox" "a step's outbox is a registered outbox" "choose a registered outbox, or the contract's";
    STEP_RECIPIENTS "step.recipients" "recipients" "a step has at most 100 recipients, each an address or a name of 1 to 200 bytes" "give addresses, or names that the host resolves";
    TEMPLATE "step.template" "template" "a template has a subject of one line, at most 1 MiB, and ${KEY} with a key of letters, digits, _ . or -" "write a literal ${ as $${";

    // Submissions.
    RECORD_ID "message.record" "record" "a record's id has 1 to 200 bytes and no control characters" "give the host's own id of what the mail is about";
    IDEMPOTENCY_KEY "message.idempotency-key" "idempotency_key" "an idempotency key has 1 to 200 bytes and no control characters" "give a key that is unique within the contract";
    RECIPIENTS "message.recipients" "to" "a mail has 1 to 1000 recipients in to, cc and bcc together" "give at least one recipient, or split the mail";
    SUBJECT "message.subject" "subject" "a subject has at most 1000 bytes and no control characters" "shorten it or remove line breaks";
    CONTENT "message.content" "text" "a mail has a text or an HTML body, or a step whose template gives it" "give at least one of them";
    HEADER "message.header" "headers" "a header's name has 1 to 76 printable ASCII characters without colon and is none that postroom sets; its value has no control characters, at most 4000 bytes; at most 100 headers" "use a name of your own such as X-Ticket";
    ATTACHMENT "message.attachment" "attachments" "an attachment has a name of 1 to 255 bytes without path and control characters, a media type type/subtype that is no multipart, and perhaps a Content-ID of 1 to 200 printable ASCII characters; at most 100 attachments" "name the file without a path";
    SIZE "message.size" "size" "a mail is at most as large as the outbox, or 64 MiB, allows" "send smaller attachments, or links";
    RAW "message.raw" "raw" "a raw mail has a header, CRLF line ends, lines of at most 998 bytes, no NUL, one From with one address, no Bcc, at most one Message-ID, and nothing beside it that changes it" "send the bytes that a mail program would";
    RAW_FROM "message.raw-from" "raw" "the From of a raw mail is one of the outbox's senders" "send it as one of the registered senders";
    EXPIRY "message.expiry" "expires" "a mail expires after it may first be sent" "give a later expiry or an earlier not-before";
    VALUES "message.values" "values" "each ${KEY} of the template has a value" "give the missing values";
    WHEN_UNAVAILABLE "message.when-unavailable" "when_unavailable" "when the outbox can not be used, a mail is refused, held or sent by standard: refuse, hold, standard" "choose one of the three";
    PRIORITY "message.priority" "priority" "a priority is low, normal or high" "choose one of the three";
    ON_DOUBT "message.on-doubt" "on_doubt" "what happens in doubt is hold or resend" "choose hold, unless a duplicate is better than a loss";
    AUTOMATIC "message.automatic" "automatic" "a mail that a program writes is a reply or a notice" "choose one of the two, or leave it out when a person writes";
    AUTOMATIC_KIND "mail.automatic" "automatic" "what a program wrote is a bounce, receipt, complaint, reply, list, bulk or notice" "choose one of them";
    REPORT_ACTION "mail.action" "action" "what a report says is failed, delayed, delivered, relayed, expanded or complained" "choose one of them";
    ON_SUPPRESSED "message.on-suppressed" "on_suppressed" "a mail to an address on the suppression list is refused or sent: refuse, send" "choose refuse, unless the address is known to be good again";
    SUPPRESSION "suppression.cause" "cause" "an address is on the list for a bounce, a complaint, an operator, or as allowed" "choose bounce, complaint, operator or allowed";
    REMOTE_KEY "ledger.key" "key" "a mail's key on its server is uid:N, uidl:TEXT or content:HASH:N" "copy the key as a listing shows it";
    STATE "queue.state" "state" "a state of the queue is queued, held, claimed, crossing, accepted, bounced, refused, expired, cancelled, dead or in-doubt" "choose one of them";
    LEDGER_STATE "ledger.state" "state" "a state of the ledger is stored, triage, quarantined, handled, ignored or dead" "choose one of them";
    QUEUE_EVENT "queue.event" "event" "an event of the queue is claim, release, mark, accept, refuse, defer, doubt, hold, unhold, expire, cancel, die, bounce or retry" "choose one of them";
    REROUTE "queue.reroute" "reroute" "a mail that is rerouted was composed by postroom, still has its content, is not signed, and has one From and at most one Reply-To" "cancel it and submit it again for the other outbox";
    ROLE "queue.role" "role" "a recipient's role is to, cc or bcc" "choose one of the three";
    LEDGER_EVENT "ledger.event" "event" "an event of the ledger is handle, defer, die, ignore, route or replay" "choose one of them";
    KIND "mailbox.kind" "kind" "a kind is inbox or outbox" "choose one of the two";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_there_once_and_has_a_remedy() {
        let mut codes: Vec<_> = RULES.iter().map(|rule| rule.code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), RULES.len());
        assert!(
            RULES
                .iter()
                .all(|rule| !rule.limit.is_empty() && !rule.remedy.is_empty() && !rule.field.is_empty())
        );
    }
}
