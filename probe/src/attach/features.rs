//! What this kernel can do: one table for errors, tests and `doctor`.

use std::{fs, io};

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{UProbeMultiFeature, is_helper_supported, is_map_supported, is_uprobe_multi_supported},
};
use aya_obj::generated::bpf_func_id::BPF_FUNC_get_attach_cookie;

use super::{btf, traps};

/// A feature of the kernel that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// BPF ring buffer.
    RingBuffer,
    /// `bpf_get_attach_cookie`.
    Cookie,
    /// Links to many uprobes.
    UprobeMulti,
    /// Such links for one process (all its threads).
    UprobeMultiPid,
    /// The kernel's type information.
    Btf,
    /// A tracepoint at which uprobes' breakpoints and steps can be told.
    TrapTimes,
}

impl Feature {
    /// All of them, the indispensable ones first.
    pub const ALL: [Self; 6] =
        [Self::RingBuffer, Self::Cookie, Self::UprobeMulti, Self::UprobeMultiPid, Self::Btf, Self::TrapTimes];

    /// As the documentation names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RingBuffer => "ring-buffer",
            Self::Cookie => "attach-cookie",
            Self::UprobeMulti => "uprobe-multi",
            Self::UprobeMultiPid => "uprobe-multi-pid",
            Self::Btf => "btf",
            Self::TrapTimes => "trap-times",
        }
    }

    /// The first kernel that has it.
    pub fn since(self) -> &'static str {
        match self {
            Self::RingBuffer => "Linux 5.8",
            Self::Cookie => "Linux 5.15",
            Self::UprobeMulti => "Linux 6.6",
            Self::UprobeMultiPid => "Linux 6.10",
            Self::Btf => "CONFIG_DEBUG_INFO_BTF",
            Self::TrapTimes => {
                "x86-64, the tracepoint notifier_run (Linux 6.18 has it, 6.1 has not) and CONFIG_DEBUG_INFO_BTF"
            }
        }
    }

    /// What works differently without it; none when nothing works.
    pub fn without(self) -> Option<&'static str> {
        match self {
            Self::RingBuffer | Self::Cookie => None,
            Self::UprobeMulti => Some("probes are attached one by one, and each takes about 0.1 s to remove"),
            Self::UprobeMultiPid => Some("with -p, other processes that run the same file pay for the traps too"),
            Self::TrapTimes => Some("--subtract-overhead goes by what probes cost at the start"),
            Self::Btf => Some(
                "--follow and `-- COMMAND` cannot follow children; Go assembly has no goroutine; no --kernel-stack",
            ),
        }
    }

    fn probe(self) -> io::Result<bool> {
        match self {
            Self::RingBuffer => is_map_supported(MapType::RingBuf).map_err(|error| error.io_error),
            Self::Cookie => is_helper_supported(ProgramType::KProbe, BPF_FUNC_get_attach_cookie).map_err(io_error),
            Self::UprobeMulti => is_uprobe_multi_supported(UProbeMultiFeature::LinkCreation),
            Self::UprobeMultiPid => is_uprobe_multi_supported(UProbeMultiFeature::ProcessScopedPidFilter),
            Self::Btf => Ok(fs::exists(BTF).unwrap_or(false)),
            Self::TrapTimes => {
                // arm64 keeps a list of its own for them.
                let btf = if cfg!(target_arch = "x86_64") { fs::read(BTF).unwrap_or_default() } else { Vec::new() };
                Ok(btf::has_type(&btf, traps::NOTIFIED_TYPE))
            }
        }
    }
}

fn io_error(error: aya::programs::ProgramError) -> io::Error {
    match super::error::os_error(&error) {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(error),
    }
}

/// Where the kernel keeps its type information.
pub const BTF: &str = "/sys/kernel/btf/vmlinux";

/// What this kernel has.
#[derive(Clone, Debug, Default)]
pub struct Features {
    missing: Vec<Feature>,
}

/// Names of features, comma-separated, to do as if the kernel lacked them: for tests.
pub const LACKS_VARIABLE: &str = "PROBE_KERNEL_LACKS";

impl Features {
    /// Asks the kernel, feature by feature.
    ///
    /// # Errors
    /// The kernel does not let us ask (no permission).
    pub fn detect() -> io::Result<Self> {
        let lacks = std::env::var(LACKS_VARIABLE).unwrap_or_default();
        let mut missing = Vec::new();
        for feature in Feature::ALL {
            if lacks.split(',').any(|name| name == feature.name()) || !feature.probe()? {
                missing.push(feature);
            }
        }
        Ok(Self { missing })
    }

    /// Whether the kernel has it.
    pub fn has(&self, feature: Feature) -> bool {
        !self.missing.contains(&feature)
    }

    /// The first missing feature without which nothing works.
    pub fn indispensable_missing(&self) -> Option<Feature> {
        self.missing.iter().copied().find(|feature| feature.without().is_none())
    }
}
