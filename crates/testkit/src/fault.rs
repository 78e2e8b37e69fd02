//! Where the SMTP side was told to break off, fall silent, slow down or say something else, and how often. The session asks and does it; what is a
//! proper reply that refuses is in `refusal`.

use std::time::Duration;

/// A step of an SMTP session, for [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Step {
    /// The server's first words.
    Greeting,
    /// EHLO or HELO, also the one after STARTTLS.
    Ehlo,
    /// STARTTLS, up to its reply; the handshake comes later.
    StartTls,
    /// AUTH with all that belongs to it; its reply is the last one.
    Auth,
    /// MAIL.
    Mail,
    /// Each RCPT.
    Rcpt,
    /// DATA; its reply is 354.
    Data,
    /// The content with its final dot; its reply says that the mail was taken.
    Dot,
}

impl Step {
    /// Every step, in the order of a session.
    pub const ALL: [Self; 8] = [
        Self::Greeting,
        Self::Ehlo,
        Self::StartTls,
        Self::Auth,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Dot,
    ];
}

/// When, within a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// When the command was read, and before it has any effect.
    InPlace,
    /// When the command has had its effect, instead of the reply or while it is written.
    Reply,
    /// When the reply was written.
    After,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Close,
    Stall,
    Drip(Duration),
    Split(Duration),
    Twice,
    Late,
    Instead(u16, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    At(Step, Moment, Action),
    Beyond(usize),
}

/// A way in which the SMTP side fails, for [`MailServer::fault`](crate::MailServer::fault).
///
/// ```
/// use postroom_testkit::{Fault, Step};
/// let nothing_taken = Fault::close(Step::Dot).times(1);
/// let taken_and_not_said = Fault::lost_reply().times(1);
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    kind: Kind,
    left: Option<u32>,
}

impl Fault {
    fn at(step: Step, moment: Moment, action: Action) -> Self {
        Self { kind: Kind::At(step, moment, action), left: None }
    }

    /// The connection ends instead of this step: it has no effect and no reply. At [`Step::Dot`] the content was read and is
    /// thrown away.
    ///
    /// Wherever a fault ends a connection, the server ends its own side and reads on until the client has ended, too, so that no
    /// reset of the connection overtakes a reply that was written before.
    #[must_use]
    pub fn close(step: Step) -> Self {
        Self::at(step, Moment::InPlace, Action::Close)
    }

    /// The connection ends after the reply of this step.
    #[must_use]
    pub fn close_after(step: Step) -> Self {
        Self::at(step, Moment::After, Action::Close)
    }

    /// The server says nothing more instead of this step, which has no effect; it reads on and the connection stays open.
    #[must_use]
    pub fn stall(step: Step) -> Self {
        Self::at(step, Moment::InPlace, Action::Stall)
    }

    /// The server says nothing more after the reply of this step; it reads on and the connection stays open.
    #[must_use]
    pub fn stall_after(step: Step) -> Self {
        Self::at(step, Moment::After, Action::Stall)
    }

    /// The reply of this step comes byte by byte, with this pause after each.
    #[must_use]
    pub fn drip(step: Step, pause: Duration) -> Self {
        Self::at(step, Moment::Reply, Action::Drip(pause))
    }

    /// The reply of this step comes in two pieces, broken in the middle of its code, with this pause between them.
    #[must_use]
    pub fn split(step: Step, pause: Duration) -> Self {
        Self::at(step, Moment::Reply, Action::Split(pause))
    }

    /// The reply of this step is said twice, in one piece: from then on each reply is one place behind.
    #[must_use]
    pub fn twice(step: Step) -> Self {
        Self::at(step, Moment::Reply, Action::Twice)
    }

    /// The reply of this step comes behind the next one that the server gives, in one piece with it. A client that waits for
    /// it waits for ever: only one that pipelines gets replies in the wrong order.
    #[must_use]
    pub fn late(step: Step) -> Self {
        Self::at(step, Moment::Reply, Action::Late)
    }

    /// This reply comes in place of the step's own. The step has had its effect and the session goes on as if nothing was:
    /// a mail that is refused so was taken and recorded.
    #[must_use]
    pub fn instead(step: Step, code: u16, text: &str) -> Self {
        Self::at(step, Moment::Reply, Action::Instead(code, text.to_owned()))
    }

    /// The mail is taken and recorded, and the connection ends instead of the reply that says so (RFC 1047).
    #[must_use]
    pub fn lost_reply() -> Self {
        Self::at(Step::Dot, Moment::Reply, Action::Close)
    }

    /// A connection that makes more than `limit` open SMTP connections is greeted with 421 and closed.
    #[must_use]
    pub fn connections(limit: usize) -> Self {
        Self { kind: Kind::Beyond(limit), left: None }
    }

    /// Fails so many times and then works again. Without it, it fails until it is taken back.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.left = Some(times);
        self
    }
}

/// The faults in force; the first that fits is used.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// What is to be done at this moment; uses up one of a limited number.
    pub(crate) fn take(&mut self, step: Step, moment: Moment) -> Option<Action> {
        self.first(|kind| match kind {
            Kind::At(at, when, action) if (*at, *when) == (step, moment) => Some(action.clone()),
            _ => None,
        })
    }

    /// Whether so many open connections are too many; uses up one of a limited number.
    pub(crate) fn take_beyond(&mut self, open: usize) -> bool {
        let beyond = |kind: &Kind| matches!(kind, Kind::Beyond(limit) if open > *limit).then_some(());
        self.first(beyond).is_some()
    }

    fn first<R>(&mut self, fits: impl Fn(&Kind) -> Option<R>) -> Option<R> {
        let left = self.0.iter_mut().filter(|fault| fault.left != Some(0));
        let (fault, found) = left.filter_map(|fault| fits(&fault.kind).map(|found| (fault, found))).next()?;
        if let Some(left) = &mut fault.left {
            *left -= 1;
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_fits_its_step_and_moment_alone_and_is_used_up() {
        let mut faults = Faults::default();
        faults.add(Fault::close_after(Step::Mail).times(2));
        assert_eq!(faults.take(Step::Mail, Moment::InPlace), None);
        assert_eq!(faults.take(Step::Rcpt, Moment::After), None);
        assert!(!faults.take_beyond(100));
        let mut taken = || faults.take(Step::Mail, Moment::After);
        assert_eq!([taken(), taken(), taken()], [Some(Action::Close), Some(Action::Close), None]);
    }

    #[test]
    fn a_limit_of_connections_counts_the_one_that_asks() {
        let mut faults = Faults::default();
        faults.add(Fault::connections(2).times(1));
        assert_eq!([2, 3, 3].map(|open| faults.take_beyond(open)), [false, true, false]);
    }
}
