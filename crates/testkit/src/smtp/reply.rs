//! An SMTP reply as text (RFC 5321 section 4.2), and the replies to what is no command. Nothing is written here.

use smtp_proto::Error;
use std::{borrow::Cow, fmt};

/// A code and its lines.
pub(crate) struct Reply {
    pub(crate) code: u16,
    lines: Vec<String>,
}

impl Reply {
    pub(crate) fn new(code: u16, text: impl Into<String>) -> Self {
        Self { code, lines: vec![text.into()] }
    }

    pub(crate) fn many(code: u16, lines: Vec<String>) -> Self {
        Self { code, lines }
    }

    /// The reply to a line that the grammar does not take.
    pub(crate) fn to_error(error: Error) -> Self {
        let text: Cow<'_, str> = match error {
            Error::UnknownCommand => return Self::new(500, "5.5.1 Command unrecognized"),
            Error::InvalidSenderAddress => return Self::new(501, "5.1.7 Bad sender address syntax"),
            Error::InvalidRecipientAddress => return Self::new(501, "5.1.3 Bad recipient address syntax"),
            Error::UnsupportedParameter { param } => {
                return Self::new(555, format!("5.5.4 Unsupported {param}"));
            }
            Error::SyntaxError { syntax } => format!("Syntax: {syntax}").into(),
            Error::InvalidParameter { param } => format!("Invalid {param}").into(),
            _ => "Syntax error".into(),
        };
        Self::new(501, format!("5.5.4 {text}"))
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.lines.len().saturating_sub(1);
        for (at, line) in self.lines.iter().enumerate() {
            write!(f, "{}{}{line}\r\n", self.code, if at == last { ' ' } else { '-' })?;
        }
        Ok(())
    }
}
