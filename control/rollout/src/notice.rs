//! What is told once, at the moment it happens.

/// Something to tell people and tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// An event on the Canary, with the text that Flagger gives it.
    Event {
        /// How serious it is.
        level: Level,
        /// The text.
        message: String,
    },
}

/// How serious an event is; Kubernetes knows these two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Normal,
    /// Somebody may want to look.
    Warning,
}

impl Level {
    /// As Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}
