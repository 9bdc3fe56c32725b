//! The kernel's refusals in words: what failed, and what to do where we know it.

use anyhow::anyhow;

use super::{holder::Refusal, rights};

/// `ENOTSUPP`, which libc does not know: the instruction cannot be probed.
const ENOTSUPP: i32 = 524;

pub(super) fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    os_error(error).is_some_and(|code| code == ENOTSUPP || code == libc::EOPNOTSUPP || code == libc::EILSEQ)
}

/// The system's error number at the bottom of an error.
pub(super) fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(code) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            return Some(code);
        }
        next = error.source();
    }
    None
}

/// Says what to do where we know it.
pub(super) fn explain(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> anyhow::Error {
    let is_denied = is_denied(&error);
    let error = anyhow!(error);
    if is_denied { denied(what, error) } else { error.context(what.to_owned()) }
}

/// Whether it is that we may not. A program that the verifier refuses is `EACCES` too (Linux: kernel/bpf/verifier.c).
fn is_denied(error: &(dyn std::error::Error + 'static)) -> bool {
    let is_verdict = matches!(error.downcast_ref(), Some(aya::programs::ProgramError::LoadError { .. }))
        || error.downcast_ref().is_some_and(|refusal: &Refusal| refusal.is_verdict);
    match os_error(error) {
        Some(libc::EPERM) => true,
        Some(libc::EACCES) => !is_verdict,
        _ => false,
    }
}

/// The kernel does not let us: which capability is missing and what gives it, else what may stand in the way.
pub fn denied(what: &str, error: anyhow::Error) -> anyhow::Error {
    let missing = rights::missing();
    if !missing.is_empty() {
        return anyhow!("{what}: permission denied: {}", rights::how_to_get(&missing));
    }
    let obstacles = rights::obstacles();
    let code = error.chain().find_map(os_error);
    if obstacles.is_empty() && !matches!(code, Some(libc::EPERM | libc::EACCES)) {
        return error.context(what.to_owned());
    }
    if obstacles.is_empty() {
        return error.context(format!(
            "{what}: the kernel refuses it in spite of our capabilities; a security module (SELinux, AppArmor) may, too"
        ));
    }
    error.context(format!("{what}: the kernel refuses it in spite of our capabilities: {}", obstacles.join("; ")))
}
