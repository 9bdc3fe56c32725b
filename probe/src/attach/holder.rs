//! The holder: a process of our own that makes, holds and removes the links to uprobes, so that whoever kills `probe` does not
//! kill it in the middle of that.
//!
//! Linux: when a thread is killed while it places breakpoints or takes them out, the kernel gives up on those that are left
//! (`__get_user_pages` in mm/gup.c ends on a fatal signal, `uprobe_unregister_nosync` in kernel/events/uprobes.c then says
//! "leaking uprobe"). They stay in the program, and what they remember of its code stays in the kernel until the machine
//! starts anew: a later probe at the same place of a file that was rewritten carries out an instruction of the old one
//! (docs/uprobes.md). So that is done in a process that nobody has a reason to kill. It is in a session of its own, its name
//! is not ours, and it ends by itself as soon as we are gone; what a process leaves as it ends the kernel removes undisturbed.
//!
//! It is a fork of ours, made when the kernel half's maps are there: it has them, and loads the programs.

mod inside;

use std::{
    collections::BTreeSet,
    io::{self, BufRead as _, BufReader, IoSlice, Write as _},
    mem::MaybeUninit,
    net::Shutdown,
    num::NonZeroU32,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use aya::Ebpf;
use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, SigmaskHow, sigprocmask},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork},
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::{Deserialize, Serialize};

use super::error;

/// What the holder is called, as `ps` and `pkill` see it: not `probe`.
const NAME: &str = "links-holder";

/// The holder, as `probe` sees it. When dropped it ends, and every link with it.
pub(super) struct Holder {
    pid: Pid,
    answers: BufReader<UnixStream>,
    /// Programs.
    loaded: BTreeSet<String>,
    /// It did not answer: it is about to end.
    is_silent: bool,
}

/// For who ends this process without dropping anything: what its holder is told its end by, and its number.
static RUNNING: Mutex<Option<(UnixStream, Pid)>> = Mutex::new(None);

/// Waits for ever once this process is to exit.
fn running() -> MutexGuard<'static, Option<(UnixStream, Pid)>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the holder end, if there is one, and every link with it, and waits for that: to be called before `exit`. As the first
/// process of a container ends, the kernel kills all others, whatever they do.
pub(super) fn end() {
    let mut running = running();
    if let Some((socket, pid)) = running.take() {
        end_of(&socket, pid);
    }
    // Locked for good: who finds the holder gone now must not come to tell of it, or to exit first.
    std::mem::forget(running);
}

/// At the end of its socket it ends.
fn end_of(socket: &UnixStream, pid: Pid) {
    let _ = socket.shutdown(Shutdown::Both);
    while waitpid(pid, None) == Err(Errno::EINTR) {}
}

/// A link, by the holder's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LinkNumber(u32);

/// Where a probe is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// File offset, bytes.
    pub(super) offset: u64,
    /// What the program is told of the place.
    pub(super) cookie: u64,
}

/// In what order links go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// One after another, as they are given.
    Given,
    /// All at once, because for each the kernel waits until every CPU has been seen outside of it (tens of ms).
    Any,
}

/// A line of JSON, to the holder.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// Loads a program, if it is not loaded yet.
    Load { program: String },
    /// Attaches a program to places in the file whose descriptor comes with it; `process` none: in all processes.
    Attach { program: String, places: Vec<Place>, process: Option<NonZeroU32> },
    /// Removes links.
    Remove { links: Vec<LinkNumber>, order: Order },
}

/// A line of JSON, from the holder.
type Answer = Result<Option<LinkNumber>, Failure>;

/// What the kernel, or `aya` before it, has against a request.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    said: String,
    /// The system's error number.
    code: Option<i32>,
    /// It is the verifier that refuses a program.
    is_verdict: bool,
}

/// The same, as an error.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
pub(super) struct Refusal {
    said: String,
    #[source]
    cause: Option<io::Error>,
    /// It is the verifier that refuses a program.
    pub(super) is_verdict: bool,
}

impl From<Failure> for Refusal {
    fn from(Failure { said, code, is_verdict }: Failure) -> Self {
        Self { said, cause: code.map(io::Error::from_raw_os_error), is_verdict }
    }
}

impl Refusal {
    /// The holder does not answer.
    fn silence(error: io::Error) -> Self {
        let said = format!("the process that holds the probes ({NAME}) does not answer");
        Self { said, cause: Some(error), is_verdict: false }
    }
}

impl Holder {
    /// Starts it. It has the maps that `ebpf` has now. `one_by_one`: it makes no links to many points.
    ///
    /// # Errors
    /// The kernel has no process or no descriptors for us.
    #[expect(unsafe_code, reason = "fork")]
    pub(super) fn start(ebpf: &mut Ebpf, one_by_one: bool) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().context("failed to make a pair of sockets")?;
        // No handler of ours is to run in the child.
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
        // SAFETY: other threads may run, and a lock that one of them holds is held for ever in the child. What that does takes
        // none that another thread takes, but for starting threads, which the standard library may lock for: it calls `aya` on
        // `ebpf`, which is this thread's, reads and writes its socket, and ends with `_exit`, running nobody's destructors.
        // glibc makes its allocator and its threads usable in it (`fork` in sysdeps/nptl). Threads of ours that begin or end at
        // this moment there are none but one that asks debuginfod and was given up.
        let forked = unsafe { fork() };
        if matches!(forked, Ok(ForkResult::Child)) {
            drop(ours);
            inside::serve(ebpf, theirs, one_by_one)
        }
        let unmasked = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
        let pid = match forked.context("failed to start a process")? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => unreachable!("it serves"),
        };
        drop(theirs);
        // From here on it is waited for, whatever fails.
        let mut holder = Self { pid, answers: BufReader::new(ours), loaded: BTreeSet::new(), is_silent: false };
        unmasked?;
        let known = holder.answers.get_ref().try_clone().context("failed to copy a descriptor")?;
        *running() = Some((known, pid));
        // Its first words are that it is ready.
        let ready = holder.answer().map_err(Refusal::silence).and_then(|answer| answer.map_err(Refusal::from));
        ready.context("failed to start the process that holds the probes")?;
        Ok(holder)
    }

    /// Loads a program, if it is not loaded yet.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub(super) fn load(&mut self, program: &str) -> Result<()> {
        if !self.loaded.contains(program) {
            let request = Request::Load { program: program.to_owned() };
            self.ask(&request, None).map_err(|refusal| error::explain("failed to load the kernel half", refusal))?;
            self.loaded.insert(program.to_owned());
        }
        Ok(())
    }

    /// Attaches a loaded program to places in a file; `process` none: in all processes.
    ///
    /// # Errors
    /// The kernel refuses one of them. None is attached then.
    pub(super) fn attach(
        &mut self,
        program: &str,
        places: Vec<Place>,
        file: BorrowedFd<'_>,
        process: Option<NonZeroU32>,
    ) -> Result<LinkNumber, Refusal> {
        let request = Request::Attach { program: program.to_owned(), places, process };
        let number = self.ask(&request, Some(file))?;
        number.ok_or_else(|| Refusal::silence(io::Error::from(io::ErrorKind::InvalidData)))
    }

    /// Removes links. Those that it does not know are gone already.
    ///
    /// # Errors
    /// It has ended, and all links with it.
    pub(super) fn remove(&mut self, links: Vec<LinkNumber>, order: Order) -> Result<(), Refusal> {
        if links.is_empty() {
            return Ok(());
        }
        self.ask(&Request::Remove { links, order }, None).map(|_| ())
    }

    /// How it has ended, and every link with it, though nobody asked it to. Where it did not answer, that is waited for.
    pub(super) fn has_ended(&self) -> Option<String> {
        let _running = running();
        let flags = (!self.is_silent).then_some(WaitPidFlag::WNOHANG);
        let ended = loop {
            match waitpid(self.pid, flags) {
                Err(Errno::EINTR) => {}
                ended => break ended,
            }
        };
        match ended {
            Ok(WaitStatus::StillAlive) => None,
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(format!("was killed ({signal})")),
            Ok(WaitStatus::Exited(_, 0)) => Some("has ended".to_owned()),
            Ok(WaitStatus::Exited(_, status)) => Some(format!("has failed (status {status})")),
            _ => Some("has ended".to_owned()),
        }
    }

    fn ask(&mut self, request: &Request, file: Option<BorrowedFd<'_>>) -> Result<Option<LinkNumber>, Refusal> {
        let answer = self.exchange(request, file).map_err(Refusal::silence)?;
        answer.map_err(Refusal::from)
    }

    fn exchange(&mut self, request: &Request, file: Option<BorrowedFd<'_>>) -> io::Result<Answer> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let answered = self.send(&line, file).and_then(|()| self.answer());
        if answered.is_err() {
            drop(running());
            // If it lives, it does so no longer.
            let _ = self.answers.get_ref().shutdown(Shutdown::Both);
            self.is_silent = true;
        }
        answered
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let mut answer = String::new();
        if self.answers.read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&answer)?)
    }

    /// A descriptor goes with the first byte.
    fn send(&mut self, line: &[u8], file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let files: Vec<BorrowedFd<'_>> = file.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut with = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !with.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let socket = self.answers.get_mut();
        let sent = sendmsg(socket.as_fd(), &[IoSlice::new(line)], &mut with, SendFlags::NOSIGNAL)?;
        socket.write_all(&line[sent..])
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let mut running = running();
        running.take_if(|(_, pid)| *pid == self.pid);
        end_of(self.answers.get_ref(), self.pid);
    }
}
