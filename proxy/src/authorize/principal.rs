//! Who asks.

use std::sync::Arc;

/// Who is asking, as the TLS handshake proved it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// The peer's verified SPIFFE ID, `spiffe://trust.domain/path`.
    Spiffe(Arc<str>),
    /// No verified identity.
    Unauthenticated,
}

impl Principal {
    /// The SPIFFE ID, if there is one.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Spiffe(id) => Some(id),
            Self::Unauthenticated => None,
        }
    }
}
