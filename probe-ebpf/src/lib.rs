//! The event ABI that both halves share.
