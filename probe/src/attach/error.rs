//! The kernel's refusals in words: what failed, and what to do where we know it.

use anyhow::anyhow;

use super::features;

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
    let code = os_error(&error);
    let denied = matches!(code, Some(libc::EPERM | libc::EACCES));
    let missing = features::missing_capabilities();
    if denied && !missing.is_empty() {
        return anyhow!("{what}: permission denied: {}", how_to_be_permitted(&missing));
    }
    if denied {
        return anyhow!(error)
            .context(format!("{what}: the kernel refuses it in spite of our capabilities (lockdown? seccomp?)"));
    }
    anyhow!(error).context(what.to_owned())
}

/// What gives the missing capabilities.
pub fn how_to_be_permitted(missing: &[&str]) -> String {
    format!(
        "{} missing; run it with sudo, or once: sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep PATH/TO/probe",
        missing.join(" and ")
    )
}
