//! The report of a probe: every stage with its result. It goes through the same code as real mail, disturbs nobody and
//! changes nothing in the box.

use crate::error::{Error, Stage};

/// How one stage went.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Outcome {
    /// It went well; with what was found.
    Passed(String),
    /// It failed. Stages that build on it were not tried; further senders were, where the server let them.
    Failed(Error),
}

/// Every stage that was tried, in order.
#[derive(Debug, Clone, Default)]
pub struct ProbeReport {
    stages: Vec<(Stage, Outcome)>,
}

impl ProbeReport {
    /// Records that a stage went well, with what was found.
    pub fn pass(&mut self, stage: Stage, found: impl Into<String>) {
        self.stages.push((stage, Outcome::Passed(found.into())));
    }

    /// Records a stage that went well before all others.
    #[must_use]
    pub fn behind(mut self, stage: Stage, found: impl Into<String>) -> Self {
        self.stages.insert(0, (stage, Outcome::Passed(found.into())));
        self
    }

    /// Records a failure, under its stage.
    pub fn fail(&mut self, error: Error) {
        self.stages.push((error.stage(), Outcome::Failed(error)));
    }

    /// The stages, in order. A stage can occur more than once: one MAIL FROM for each sender.
    #[must_use]
    pub fn stages(&self) -> &[(Stage, Outcome)] {
        &self.stages
    }

    /// The first failure.
    #[must_use]
    pub fn failure(&self) -> Option<&Error> {
        self.stages.iter().find_map(|(_, outcome)| match outcome {
            Outcome::Failed(error) => Some(error),
            Outcome::Passed(_) => None,
        })
    }

    /// Whether every stage went well.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failure().is_none()
    }
}
