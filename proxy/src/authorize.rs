//! Authorization: the compiled rules of one destination, and the decision for a request.

use std::sync::Arc;

/// Who is asking, resolved once per connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// The peer's verified SPIFFE ID, `spiffe://trust.domain/path`.
    Spiffe(Arc<str>),
    /// No verified identity.
    Unauthenticated,
}

/// The deny and the allow rules of one destination, indexed.
#[derive(Debug)]
pub struct Authorization {}
