//! HTTP semantics shared by both ends: the canonical request, header hygiene, bodies.

pub mod canonical;
