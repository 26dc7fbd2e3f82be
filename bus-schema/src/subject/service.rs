//! The NATS service API (ADR-32).

use crate::Incarnation;

/// The subjects of the NATS service API (ADR-32) that an exporter answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceVerb {
    /// Who is there?
    Ping,
    /// What do you serve?
    Info,
    /// How much have you served?
    Stats,
}

impl ServiceVerb {
    /// Every verb.
    pub const ALL: &[Self] = &[Self::Ping, Self::Info, Self::Stats];

    /// The name of the service that every exporter is an instance of.
    pub const SERVICE: &str = "jmp-exporter";

    /// The three subjects on which instance `id` answers this verb.
    pub fn subjects(self, id: Incarnation) -> [String; 3] {
        let verb = match self {
            Self::Ping => "PING",
            Self::Info => "INFO",
            Self::Stats => "STATS",
        };
        let service = Self::SERVICE;
        [
            format!("$SRV.{verb}"),
            format!("$SRV.{verb}.{service}"),
            format!("$SRV.{verb}.{service}.{id}"),
        ]
    }
}
