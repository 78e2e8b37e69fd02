//! Which part of its work a worker does, and whether it ends by itself.

/// What a worker works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Work {
    pub(super) send: bool,
    pub(super) receive: bool,
    pub(super) until_idle: bool,
}

impl Work {
    /// Sends and receives until it is stopped.
    pub fn all() -> Self {
        Self { send: true, receive: true, until_idle: false }
    }

    /// Sends only.
    pub fn only_sending(mut self) -> Self {
        self.receive = false;
        self
    }

    /// Receives only.
    pub fn only_receiving(mut self) -> Self {
        self.send = false;
        self
    }

    /// Ends by itself when queue and boxes have nothing due and no claim of any worker is open.
    pub fn until_idle(mut self) -> Self {
        self.until_idle = true;
        self
    }
}
