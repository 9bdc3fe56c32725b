//! What the holder does, in its own process.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, IoSliceMut, Write as _},
    mem::MaybeUninit,
    num::NonZeroU32,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
        unix::{ffi::OsStrExt as _, net::UnixStream},
    },
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    thread,
};

use aya::{
    Ebpf,
    programs::{
        ProgramError, UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope},
    },
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::{super::error::os_error, Answer, Failure, LinkNumber, NAME, Order, Place, Request};
use crate::attach::rights;

/// Does what it is asked until nobody is there any more to ask, and ends.
#[expect(unsafe_code, reason = "_exit")]
pub(super) fn serve(ebpf: &mut Ebpf, socket: UnixStream, one_by_one: bool) -> ! {
    // Nothing may unwind into what the process was that this is a copy of.
    let served = catch_unwind(AssertUnwindSafe(|| {
        let ready = live_apart(&socket, one_by_one);
        let failed = |error: &io::Error| refused("it cannot get ready", error);
        let mut requests = Requests { socket, read: Vec::new() };
        requests.answer(&ready.as_ref().map(|()| None).map_err(failed))?;
        ready?;
        requests.answer_all(&mut Links { ebpf, held: BTreeMap::new(), next: 0 })
    }));
    let status = i32::from(!matches!(served, Ok(Ok(()))));
    // SAFETY: it ends this process. Links are not dropped one by one: what a process leaves as it ends is removed even if it is
    // killed meanwhile (Linux: `prepare_signal` in kernel/signal.c lets nothing through to one that ends).
    unsafe { libc::_exit(status) }
}

/// Away from terminals, from what is sent to `probe`'s group, from what its name draws, and from what it may.
fn live_apart(socket: &UnixStream, one_by_one: bool) -> io::Result<()> {
    nix::unistd::setsid()?;
    rustix::thread::set_name(&std::ffi::CString::new(NAME)?)?;
    close_others(socket.as_raw_fd())?;
    // Whoever reads what `probe` writes waits for its end, not for ours.
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    // Where probes are attached one by one, each has a descriptor.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
    rights::keep_what_holding_links_needs(one_by_one)
}

/// Closes what was open when we were forked: files that would stay on the disk, pipes whose ends somebody waits for. Not
/// maps and type information, which programs are loaded with.
#[expect(unsafe_code, reason = "close")]
fn close_others(socket: RawFd) -> io::Result<()> {
    let entries = std::fs::read_dir("/proc/self/fd")?.flatten();
    let open: Vec<RawFd> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in open.into_iter().filter(|&number| number != socket && number > 2) {
        let link = std::fs::read_link(format!("/proc/self/fd/{number}"));
        let is_needed = |link: &[u8]| link.starts_with(b"anon_inode:bpf") || link.starts_with(b"anon_inode:btf");
        if link.is_ok_and(|link| !is_needed(link.as_os_str().as_bytes())) {
            // SAFETY: whoever owned it is of the process that we were forked from: nothing of that runs here, or is dropped.
            unsafe { libc::close(number) };
        }
    }
    Ok(())
}

/// The asking half's end of the socket.
struct Requests {
    socket: UnixStream,
    /// Read, and not answered yet.
    read: Vec<u8>,
}

impl Requests {
    fn answer_all(mut self, links: &mut Links<'_>) -> io::Result<()> {
        while let Some((line, file)) = self.next()? {
            self.answer(&links.answer(serde_json::from_slice(&line)?, file))?;
        }
        Ok(())
    }

    fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        let mut answer = serde_json::to_vec(answer)?;
        answer.push(b'\n');
        self.socket.write_all(&answer)
    }

    /// The next line, and the descriptor that came with it; none at the end. Nobody asks before he is answered, so nothing is
    /// behind a line's end.
    fn next(&mut self) -> io::Result<Option<(Vec<u8>, Option<File>)>> {
        let mut file = None;
        while self.read.last() != Some(&b'\n') {
            let mut bytes = [0; 1 << 16];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut with = RecvAncillaryBuffer::new(&mut space);
            let parts = &mut [IoSliceMut::new(&mut bytes)];
            let received = match recvmsg(self.socket.as_fd(), parts, &mut with, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => continue,
                received => received?,
            };
            for message in with.drain() {
                if let RecvAncillaryMessage::ScmRights(files) = message {
                    file = files.last().map(|file: OwnedFd| File::from(file)).or(file);
                }
            }
            if received.bytes == 0 {
                return Ok(None);
            }
            self.read.extend_from_slice(&bytes[..received.bytes]);
        }
        Ok(Some((std::mem::take(&mut self.read), file)))
    }
}

/// Links, and the programs that they lead to.
struct Links<'a> {
    ebpf: &'a mut Ebpf,
    held: BTreeMap<u32, UProbeLink>,
    next: u32,
}

impl Links<'_> {
    fn answer(&mut self, request: Request, file: Option<File>) -> Answer {
        match request {
            Request::Load { program } => self.program(&program).and_then(load).map(|()| None),
            Request::Attach { program, places, process } => match file {
                Some(file) => self.attach(&program, &places, &file, process).map(Some),
                // unix(7): descriptors for which there is no room are left out.
                None => Err(refused("failed to pass a descriptor", &io::Error::from_raw_os_error(libc::EMFILE))),
            },
            Request::Remove { links, order } => {
                self.remove(&links, order);
                Ok(None)
            }
        }
    }

    fn program(&mut self, name: &str) -> Result<&mut UProbe, Failure> {
        let program = self.ebpf.program_mut(name).map(TryInto::try_into);
        let missing = || Failure { said: format!("the kernel half has no {name}"), code: None, is_verdict: false };
        program.ok_or_else(missing)?.map_err(|error: ProgramError| failure(&error))
    }

    fn attach(
        &mut self,
        program: &str,
        places: &[Place],
        file: &File,
        process: Option<NonZeroU32>,
    ) -> Result<LinkNumber, Failure> {
        // What was read is what is probed, whatever has its name by now.
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let scope = process.map_or(UProbeScope::AllProcesses, UProbeScope::OneProcess);
        let points = places.iter().map(|place| UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(place.offset),
            cookie: Some(place.cookie),
        });
        let program = self.program(program)?;
        let attached = program.attach(points, &path, scope).and_then(|id| program.take_link(id));
        let link = attached.map_err(|error| failure(&error))?;
        let number = self.next;
        self.next += 1;
        self.held.insert(number, link);
        Ok(LinkNumber(number))
    }

    fn remove(&mut self, links: &[LinkNumber], order: Order) {
        let gone = links.iter().filter_map(|number| self.held.remove(&number.0));
        match order {
            Order::Given => gone.for_each(drop),
            Order::Any => thread::scope(|scope| {
                for link in gone {
                    // Where no thread can be had, the link goes here and now.
                    let _ = thread::Builder::new().spawn_scoped(scope, || drop(link));
                }
            }),
        }
    }
}

fn load(program: &mut UProbe) -> Result<(), Failure> {
    match program.fd() {
        Ok(_) => Ok(()),
        Err(_) => program.load().map_err(|error| failure(&error)),
    }
}

fn refused(what: &str, error: &io::Error) -> Failure {
    Failure { said: what.to_owned(), code: error.raw_os_error(), is_verdict: false }
}

fn failure(error: &ProgramError) -> Failure {
    let code = os_error(error);
    let mut said = Vec::new();
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        next = error.source();
        // The system's own words come back with its number.
        if next.is_some() || code.is_none() {
            said.push(error.to_string());
        }
    }
    said.dedup();
    Failure { said: said.join(": "), code, is_verdict: matches!(error, ProgramError::LoadError { .. }) }
}
