//! The least that a uprobe can cost: an empty BPF program on `uprobe.multi` links, by bpf(2) alone.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use anyhow::{Context as _, Result};

// Linux: include/uapi/linux/bpf.h
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_KPROBE: u32 = 2;
const BPF_TRACE_UPROBE_MULTI: u32 = 48;
/// `r0 = 0; exit`
const EMPTY: [u64; 2] = [0xb7, 0x95];

/// `union bpf_attr` of `BPF_PROG_LOAD`, up to what is needed of it.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// `union bpf_attr` of `BPF_LINK_CREATE` for `uprobe_multi`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    ref_ctr_offsets: u64,
    cookies: u64,
    cnt: u32,
    multi_flags: u32,
    pid: u32,
    pad: u32,
}

/// An empty program and its links; gone when dropped.
pub(crate) struct Bare {
    // Before the program: fields are dropped in this order.
    _links: Vec<OwnedFd>,
    _program: OwnedFd,
}

impl Bare {
    /// Attaches to file offsets, one link for each group; `pid` 0: in every process.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn attach(path: &Path, groups: &[Vec<u64>], pid: u32) -> Result<Self> {
        let program = load().context("failed to load an empty program")?;
        let path = CString::new(path.as_os_str().as_bytes())?;
        let links = groups
            .iter()
            .map(|offsets| link(&program, &path, offsets, pid))
            .collect::<io::Result<_>>()
            .context("failed to attach an empty program")?;
        Ok(Self { _links: links, _program: program })
    }
}

fn load() -> io::Result<OwnedFd> {
    let attr = ProgLoad {
        prog_type: BPF_PROG_TYPE_KPROBE,
        insn_cnt: EMPTY.len() as u32,
        insns: EMPTY.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: [0; 16],
        prog_ifindex: 0,
        expected_attach_type: BPF_TRACE_UPROBE_MULTI,
    };
    bpf(BPF_PROG_LOAD, &attr)
}

fn link(program: &OwnedFd, path: &CString, offsets: &[u64], pid: u32) -> io::Result<OwnedFd> {
    let attr = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_fd: 0,
        attach_type: BPF_TRACE_UPROBE_MULTI,
        flags: 0,
        path: path.as_ptr() as u64,
        offsets: offsets.as_ptr() as u64,
        ref_ctr_offsets: 0,
        cookies: 0,
        cnt: offsets.len() as u32,
        multi_flags: 0,
        pid,
        pad: 0,
    };
    bpf(BPF_LINK_CREATE, &attr)
}

#[expect(unsafe_code, reason = "a system call without a wrapper")]
fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is `union bpf_attr` of this command, as long as we say, and what it points to outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel has just made for us (close-on-exec).
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
