//! The words by which mail programs mark what they quote, in English, Portuguese, Spanish, German, French, Italian and Dutch.
//! All in lower case. How they are put together is in `reply`.

/// What stands between the dashes above a quoted mail.
pub(super) const ORIGINAL_MESSAGE: &[&str] = &[
    "original message",
    "original appointment",
    "reply message",
    "mensagem original",
    "mensaje original",
    "ursprüngliche nachricht",
    "originalnachricht",
    "original-nachricht",
    "message d'origine",
    "message d’origine",
    "message original",
    "messaggio originale",
    "oorspronkelijk bericht",
    "originele bericht",
];

/// What stands in the line above a forwarded mail.
pub(super) const FORWARDED: &[&str] = &[
    "forwarded message",
    "forwarded by",
    "mensagem encaminhada",
    "mensagem reencaminhada",
    "mensaje reenviado",
    "weitergeleitete nachricht",
    "anfang der weitergeleiteten",
    "message transféré",
    "début du message réexpédié",
    "messaggio inoltrato",
    "doorgestuurd bericht",
];

/// With what the subject of a forwarded mail begins.
pub(super) const FORWARDED_SUBJECTS: &[&str] = &["fw:", "fwd:", "enc:", "rv:", "wg:", "tr:", "doorst:", "i:"];

/// With what the line above a quote begins, unless it begins with an address or a name before one.
pub(super) const ATTRIBUTION_OPENERS: &[&str] = &["on ", "em ", "el ", "am ", "le ", "il ", "op ", "a "];

/// The verb of that line.
pub(super) const ATTRIBUTION_VERBS: &[&str] = &[
    " wrote",
    " escreveu",
    " escribió",
    " escribio",
    " schrieb",
    " geschrieben",
    " a écrit",
    " ha scritto",
    " schreef",
    " het volgende geschreven",
];

/// How an author says that the answers stand in the quoted mail.
pub(super) const INLINE_HINTS: &[&str] = &[
    "inline",
    "in line below",
    "in-line",
    "answers below",
    "comments below",
    "see below",
    "respostas abaixo",
    "comentários abaixo",
    "veja abaixo",
    "respuestas abajo",
    "más abajo",
    "siehe unten",
    "weiter unten",
    "im text",
    "ci-dessous",
    "di seguito",
    "qui sotto",
    "hieronder",
    "zie onder",
];

/// With what the line begins that a program on a telephone adds.
pub(super) const MOBILE_SIGNATURES: &[&str] = &[
    "sent from my ",
    "sent from mail for windows",
    "sent from outlook for ",
    "sent from yahoo mail",
    "sent via ",
    "get outlook for ",
    "enviado do meu ",
    "enviado a partir do ",
    "enviado do outlook",
    "enviado do yahoo",
    "obter o outlook para ",
    "obtenha o outlook para ",
    "enviado desde mi ",
    "enviado desde outlook",
    "obtener outlook para ",
    "von meinem ",
    "gesendet von ",
    "diese nachricht wurde von meinem ",
    "holen sie sich outlook",
    "envoyé de mon ",
    "envoyé depuis ",
    "envoyé à partir de ",
    "obtenir outlook pour ",
    "télécharger outlook pour ",
    "inviato da ",
    "inviato dal ",
    "scarica outlook per ",
    "ottieni outlook per ",
    "verstuurd vanaf ",
    "verzonden vanaf ",
    "verzonden met ",
    "outlook voor ",
    "download outlook voor ",
];

/// A field of the header that a program puts above a quoted mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    From,
    Date,
    Subject,
    /// To, Cc, Reply-To, Importance.
    Other,
}

const FROM: &[&str] = &["from", "de", "von", "da", "van"];
const DATE: &[&str] = &[
    "sent",
    "date",
    "enviado",
    "enviada",
    "enviada em",
    "enviado em",
    "enviado el",
    "data",
    "fecha",
    "gesendet",
    "datum",
    "envoyé",
    "envoyé le",
    "inviato",
    "verzonden",
];
const SUBJECT: &[&str] = &["subject", "assunto", "asunto", "betreff", "objet", "oggetto", "onderwerp"];
const OTHER: &[&str] = &[
    "to",
    "cc",
    "bcc",
    "reply-to",
    "importance",
    "priority",
    "attachments",
    "para",
    "cco",
    "importância",
    "prioridade",
    "anexos",
    "importancia",
    "prioridad",
    "datos adjuntos",
    "an",
    "antwort an",
    "priorität",
    "wichtigkeit",
    "anlagen",
    "à",
    "importance",
    "pièces jointes",
    "a",
    "importanza",
    "priorità",
    "allegati",
    "aan",
    "prioriteit",
    "bijlagen",
    "when",
    "where",
    "organization",
];

/// Which field of a header a line is, with or without the asterisks of bold text.
pub(super) fn field(line: &str) -> Option<Field> {
    let (name, value) = line.split_at_checked(line.find(':')?)?;
    let name = name.trim_matches(|c: char| c == '*' || c.is_whitespace() || c == '\u{a0}');
    // No name is longer; this also bounds the work on a long line.
    if name.is_empty() || name.len() > 24 || value.starts_with("://") {
        return None;
    }
    let name = name.to_lowercase();
    let one_of = |names: &[&str]| names.contains(&name.as_str());
    if one_of(FROM) {
        Some(Field::From)
    } else if one_of(DATE) {
        Some(Field::Date)
    } else if one_of(SUBJECT) {
        Some(Field::Subject)
    } else if one_of(OTHER) {
        Some(Field::Other)
    } else {
        None
    }
}
