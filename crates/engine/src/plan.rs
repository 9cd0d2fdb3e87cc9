//! Plans: pure decisions.
