//! `-- COMMAND`: started when the probes are in place, and not before.
//!
//! The child waits between fork and exec, on a pipe. One byte lets it execute, another ends it; the pipe's end (we
//! were killed) lets it go on untraced: it must not be left waiting.

use std::{
    ffi::OsString,
    io::{self, Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Child, Command, ExitStatus},
    thread::JoinHandle,
};

use anyhow::{Context as _, Result, anyhow};

use super::user::User;

const GO: u8 = b'g';
const STOP: u8 = b's';

/// A child that has not executed its program yet.
pub struct Waiting {
    pid: u32,
    gate: io::PipeWriter,
    /// `Command::spawn` returns when the child has executed, so it waits in a thread of its own.
    spawner: JoinHandle<io::Result<Child>>,
    program: String,
}

/// Starting the program failed: what `std` said, and the exit status that shells use for it.
#[derive(Debug)]
pub struct NotStarted {
    /// 127 when there is no such program, else 126.
    pub status: u8,
    /// For the user.
    pub message: String,
}

impl Waiting {
    /// Forks the child. It executes its program as this user (none: as ours).
    ///
    /// # Errors
    /// No such user, no pipe, no process.
    #[expect(unsafe_code, reason = "pre_exec")]
    pub fn fork(command: &[OsString], user: Option<&str>) -> Result<Self> {
        let (program, arguments) = command.split_first().context("no command after --")?;
        let shown = match user {
            Some(user) => format!("{} as {user}", program.to_string_lossy()),
            None => program.to_string_lossy().into_owned(),
        };
        let user = user.map(User::find).transpose()?;
        let (gate_reader, gate) = io::pipe().context("failed to make a pipe")?;
        let (mut pid_reader, pid_writer) = io::pipe().context("failed to make a pipe")?;
        let gate_fd = gate.as_raw_fd();
        let mut child = Command::new(program);
        child.args(arguments);
        if let Some(user) = &user {
            child.envs(user.environment());
        }
        // SAFETY: between fork and exec only signal(2), write(2), read(2), close(2), getpid(2), setgroups(2), setgid(2) and
        // setuid(2) are called, on what the child inherited: all async-signal-safe, no allocation. The last three through
        // libc, which has no other thread to tell of it in the child.
        unsafe {
            child.pre_exec(move || {
                // Our handlers would swallow a Ctrl-C until the exec. What is ignored (nohup) stays so.
                for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                    if libc::signal(signal, libc::SIG_DFL) == libc::SIG_IGN {
                        libc::signal(signal, libc::SIG_IGN);
                    }
                }
                (&pid_writer).write_all(&std::process::id().to_ne_bytes())?;
                // Our own copy of the writing end would keep the pipe from ending when the parent does.
                libc::close(gate_fd);
                let mut word = [GO];
                loop {
                    match (&gate_reader).read(&mut word) {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Ok(_) | Err(_) => break,
                    }
                }
                if word[0] == STOP {
                    return Err(io::Error::from_raw_os_error(libc::ECANCELED));
                }
                user.as_ref().map_or(Ok(()), User::become_it)
            });
        }
        let spawner = std::thread::spawn(move || {
            let spawned = child.spawn();
            drop(child);
            spawned
        });
        let mut pid = [0; 4];
        if pid_reader.read_exact(&mut pid).is_err() {
            let error = spawner.join().map_err(|_| anyhow!("failed to start a process"))?;
            return Err(anyhow!("failed to start a process: {:?}", error.err()));
        }
        Ok(Self { pid: u32::from_ne_bytes(pid), gate, spawner, program: shown })
    }

    /// The process it is, and will stay.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it execute its program.
    ///
    /// # Errors
    /// The program cannot be executed.
    pub fn start(mut self) -> Result<Running, NotStarted> {
        let _ = self.gate.write_all(&[GO]);
        drop(self.gate);
        match self.spawner.join() {
            Ok(Ok(child)) => Ok(Running { child }),
            Ok(Err(error)) => {
                let status = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
                Err(NotStarted { status, message: format!("failed to start {}: {error}", self.program) })
            }
            Err(_) => Err(NotStarted { status: 126, message: format!("failed to start {}", self.program) }),
        }
    }

    /// Ends it without having executed anything.
    pub fn cancel(mut self) {
        let _ = self.gate.write_all(&[STOP]);
        drop(self.gate);
        let _ = self.spawner.join();
    }
}

/// A child that runs.
pub struct Running {
    child: Child,
}

impl Running {
    /// Its exit status, once it has ended.
    pub fn poll(&mut self) -> Option<u8> {
        self.child.try_wait().ok().flatten().map(status)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> u8 {
        self.child.wait().map_or(1, status)
    }
}

/// As shells count: 128 + N for a signal.
fn status(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => 128_u8.wrapping_add(signal as u8),
        (None, None) => 1,
    }
}
