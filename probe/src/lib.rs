//! The `probe` command as a library.
