//! What the SMTP side was told to refuse, where, with which reply and how often. The session asks; it decides nothing.

/// Where in an SMTP session something is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Greeting,
    SignIn,
    Sender(String),
    Recipient(String),
    Data,
    Content,
}

/// A reply that the SMTP side gives instead of accepting, for [`MailServer::refuse`](crate::MailServer::refuse).
///
/// ```
/// use postroom_testkit::Refusal;
/// let greylisted = Refusal::recipient("rui@acme.example", 451, "4.7.1 try again later").times(1);
/// ```
#[derive(Clone, Debug)]
pub struct Refusal {
    pub(crate) stage: Stage,
    code: u16,
    text: String,
    left: Option<u32>,
}

impl Refusal {
    fn new(stage: Stage, code: u16, text: &str) -> Self {
        Self { stage, code, text: text.to_owned(), left: None }
    }

    /// In place of the greeting, for example 421 or 554; the server then closes.
    #[must_use]
    pub fn greeting(code: u16, text: &str) -> Self {
        Self::new(Stage::Greeting, code, text)
    }

    /// After AUTH, even with the right password.
    #[must_use]
    pub fn sign_in(code: u16, text: &str) -> Self {
        Self::new(Stage::SignIn, code, text)
    }

    /// After MAIL FROM with this address, compared without regard to case.
    #[must_use]
    pub fn sender(address: &str, code: u16, text: &str) -> Self {
        Self::new(Stage::Sender(address.to_ascii_lowercase()), code, text)
    }

    /// After RCPT TO with this address, compared without regard to case.
    #[must_use]
    pub fn recipient(address: &str, code: u16, text: &str) -> Self {
        Self::new(Stage::Recipient(address.to_ascii_lowercase()), code, text)
    }

    /// After DATA, in place of 354.
    #[must_use]
    pub fn data(code: u16, text: &str) -> Self {
        Self::new(Stage::Data, code, text)
    }

    /// After the final dot; the mail is not kept.
    #[must_use]
    pub fn content(code: u16, text: &str) -> Self {
        Self::new(Stage::Content, code, text)
    }

    /// Refuses so many times and then accepts again. Without it, it refuses until it is taken back.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.left = Some(times);
        self
    }
}

/// The refusals in force; the first that fits is used.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Vec<Refusal>);

impl Refusals {
    pub(crate) fn add(&mut self, refusal: Refusal) {
        self.0.push(refusal);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The code and text to answer with at this stage; uses up one of a limited number.
    pub(crate) fn take(&mut self, stage: &Stage) -> Option<(u16, String)> {
        let refusal = self.0.iter_mut().find(|refusal| refusal.stage == *stage && refusal.left != Some(0))?;
        if let Some(left) = &mut refusal.left {
            *left -= 1;
        }
        Some((refusal.code, refusal.text.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_refusal_is_used_up() {
        let mut refusals = Refusals::default();
        refusals.add(Refusal::data(451, "later").times(2));
        let mut taken = || refusals.take(&Stage::Data).is_some();
        assert_eq!([taken(), taken(), taken()], [true, true, false]);
        assert!(refusals.take(&Stage::Content).is_none());
    }
}
