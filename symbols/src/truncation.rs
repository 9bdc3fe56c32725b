//! Files that become shorter while they are mapped.
//!
//! To read what went raises SIGBUS, which ends the process. Whoever calls [`survive`] gets zeros instead, and is told by
//! [`shortened`] that the answers are not to be trusted. This is a handler of the whole process, so that it is the
//! program's choice, not the library's. Signals that are not about this library's mappings are left to whoever had them.

#![allow(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Mappings that can be watched at one time. Files beyond are read.
const PLACES: usize = 1024;

/// A mapping that is watched: what the handler reads.
struct Place {
    /// 0: the place is free.
    start: AtomicUsize,
    end: AtomicUsize,
    is_shortened: AtomicBool,
}

static WATCHED: [Place; PLACES] =
    [const { Place { start: AtomicUsize::new(0), end: AtomicUsize::new(0), is_shortened: AtomicBool::new(false) } };
        PLACES];

/// What was done about SIGBUS before, once the handler is in place.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Bytes of a page, which the handler must not ask for.
static PAGE: AtomicUsize = AtomicUsize::new(4096);

/// What is watched, and what was found shortened. The handler never takes this.
static FILES: Mutex<Files> = Mutex::new(Files { watched: Vec::new(), shortened: Vec::new() });

struct Files {
    watched: Vec<(usize, PathBuf)>,
    shortened: Vec<PathBuf>,
}

fn files() -> std::sync::MutexGuard<'static, Files> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on, reading a mapped file that became shorter gives zeros instead of ending the process. Files that are mapped
/// already are not watched.
///
/// # Errors
/// The system refuses the handler.
pub fn survive() -> io::Result<()> {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if BEFORE.get().is_some() {
        return Ok(());
    }
    // SAFETY: it takes no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    PAGE.store(usize::try_from(page).map_err(io::Error::other)?, Ordering::Relaxed);
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
    // SAFETY: `sigaction` is plain data, for which zeros are valid: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    // On the stack that Rust's runtime has for the overflow of another one.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: as above.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: both point to a `sigaction`; the handler has the type that SA_SIGINFO asks for, and does only what is allowed
    // in a handler: it reads atomics and makes system calls.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, &raw mut before) } != 0 {
        return Err(io::Error::last_os_error());
    }
    BEFORE.get_or_init(|| before);
    Ok(())
}

/// The files that were found shorter than they had been when they were mapped.
pub fn shortened() -> Vec<PathBuf> {
    let files = files();
    let here = files.watched.iter().filter(|(place, _)| is_shortened(*place)).map(|(_, path)| path.clone());
    let mut all: Vec<PathBuf> = files.shortened.iter().cloned().chain(here).collect();
    all.sort();
    all.dedup();
    all
}

fn is_shortened(place: usize) -> bool {
    WATCHED.get(place).is_some_and(|place| place.is_shortened.load(Ordering::Acquire))
}

/// A mapping that is watched as long as this lives. It must end before the mapping does.
pub(crate) struct Watch(Option<usize>);

impl Watch {
    /// Watches a mapping of the file at `path`, if the program wants that. `None`: no more mappings can be watched.
    pub(crate) fn new(mapping: &[u8], path: &Path) -> Option<Self> {
        if BEFORE.get().is_none() {
            return Some(Self(None));
        }
        let mut files = files();
        let (number, place) = WATCHED.iter().enumerate().find(|(_, place)| place.start.load(Ordering::Relaxed) == 0)?;
        let start = mapping.as_ptr().addr();
        place.is_shortened.store(false, Ordering::Relaxed);
        place.end.store(start.checked_add(mapping.len())?, Ordering::Relaxed);
        place.start.store(start, Ordering::Release);
        files.watched.push((number, path.to_owned()));
        Some(Self(Some(number)))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(place) = self.0 else { return };
        let mut files = files();
        if let Some(at) = files.watched.iter().position(|(number, _)| *number == place) {
            let (_, path) = files.watched.swap_remove(at);
            if is_shortened(place) {
                files.shortened.push(path);
            }
        }
        if let Some(place) = WATCHED.get(place) {
            place.start.store(0, Ordering::Release);
        }
    }
}

/// Puts zeros in place of what cannot be read, and lets the instruction try again.
extern "C" fn on_bus_error(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a `siginfo_t`, which of a SIGBUS of its own has an address.
    let (address, code) = unsafe { ((*info).si_addr().addr(), (*info).si_code) };
    // SAFETY: it is this thread's own.
    let error = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *error };
    if code <= 0 || !replace_with_zeros(address) {
        give_back(code);
    }
    // SAFETY: as above. The code that was interrupted may be about to look at it.
    unsafe { *error = before };
}

/// Whether the address is in a watched mapping, which has zeros from there on now.
fn replace_with_zeros(address: usize) -> bool {
    let holds = |place: &&Place| {
        let start = place.start.load(Ordering::Acquire);
        start != 0 && (start..place.end.load(Ordering::Relaxed)).contains(&address)
    };
    let Some(place) = WATCHED.iter().find(holds) else { return false };
    let page = address - address % PAGE.load(Ordering::Relaxed);
    let rest = place.end.load(Ordering::Relaxed) - page;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: from this page to its end the mapping is this crate's own, and is there as long as its `Watch`, which a thread
    // that reads from it keeps; its owner unmaps it as a whole. What is read changes to zeros, every one a valid byte.
    let mapped = unsafe { libc::mmap(page as *mut libc::c_void, rest, libc::PROT_READ, flags, -1, 0) };
    place.is_shortened.store(true, Ordering::Release);
    mapped != libc::MAP_FAILED
}

/// Leaves a signal that is not about a watched mapping to whoever had SIGBUS before.
fn give_back(code: libc::c_int) {
    let Some(before) = BEFORE.get() else { return };
    // SAFETY: it was in place before. The instruction that raised the signal raises it again; one that a process sent is
    // sent again.
    unsafe {
        libc::sigaction(libc::SIGBUS, before, std::ptr::null_mut());
        if code <= 0 {
            libc::raise(libc::SIGBUS);
        }
    }
}
