//! The kernel's own records of mmap, fork, exec and exit, of all processes.
//!
//! Out: [`Recorded`] changes in the order of time. Taken from before the first probe on, so that a process that
//! lived for milliseconds is known after its end.
//!
//! Source: perf_event_open(2), `PERF_RECORD_MMAP2`, `_COMM`, `_FORK`, `_EXIT`.

use std::{
    fs,
    os::fd::{AsRawFd as _, BorrowedFd},
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use perf_event::{Builder, Clock, SampleFlag, Sampler, data, events::Software};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use crate::target::processes::{Change, Mapping, Recorded};

/// Bytes of each CPU's buffer: room for some 10,000 mappings, or 40,000.
const BUFFER: std::ops::RangeInclusive<usize> = 1 << 20..=1 << 22;
/// And of all together, as far as each has the least. Others may map hundreds of pieces in a millisecond (a JIT), and on machines with
/// few CPUs we wait the longest for one.
const BUFFERS: usize = 1 << 25;
/// Whoever waits for a buffer is woken when so much of it is new.
const WAKE_AT: usize = 1 << 17;
/// The least that is of use.
const SMALLEST_BUFFER: usize = 1 << 15;
/// `PROT_EXEC`
const EXECUTABLE: u32 = 4;
/// `PERF_RECORD_MISC_COMM_EXEC`
const COMM_EXEC: u16 = 1 << 13;

/// Reads the records.
pub struct Recorder {
    cpus: Vec<Sampler>,
    batch: Vec<Recorded>,
    lost: u64,
}

impl Recorder {
    /// Starts recording.
    ///
    /// # Errors
    /// The kernel refuses perf events (`CAP_PERFMON`, `perf_event_paranoid`).
    pub fn start() -> Result<Self> {
        let cpus = online_cpus()?;
        let mut buffer = buffer_bytes(cpus.len());
        loop {
            match record_all(&cpus, buffer) {
                Ok(cpus) => return Ok(Self { cpus, batch: Vec::new(), lost: 0 }),
                // A user's buffers are bounded (perf_event_open(2): perf_event_mlock_kb, 516 for each CPU, and
                // RLIMIT_MEMLOCK), all of them together, where there is no CAP_IPC_LOCK.
                Err(error) if buffer > SMALLEST_BUFFER && is_not_permitted(&error) => buffer /= 2,
                Err(error) => return Err(error),
            }
        }
    }

    /// What was recorded since, in the order of time.
    pub fn drain(&mut self) -> impl Iterator<Item = Recorded> + '_ {
        for cpu in &mut self.cpus {
            while let Some(record) = cpu.next_record() {
                let time_ns = trailing_time(&record.to_contiguous());
                let exec = record.misc() & COMM_EXEC != 0;
                match record.parse_record() {
                    Ok(data::Record::Lost(lost)) => self.lost += lost.lost,
                    Ok(parsed) => self.batch.extend(recorded(parsed, exec, time_ns)),
                    Err(_) => self.lost += 1,
                }
            }
        }
        // Each CPU's records are in order; a process may have been on several.
        self.batch.sort_by_key(|recorded| recorded.time_ns);
        self.batch.drain(..)
    }

    /// Waits, at most so long, until a buffer fills; whether one does. What finds no room in it is lost.
    #[expect(unsafe_code, reason = "the samplers lend their file descriptors as numbers only")]
    pub fn wait(&self, at_most: Duration) -> bool {
        let fd = |cpu: &Sampler| {
            // SAFETY: the sampler has it open, and is borrowed as long as this is.
            let fd = unsafe { BorrowedFd::borrow_raw(cpu.as_raw_fd()) };
            PollFd::from_borrowed_fd(fd, PollFlags::IN)
        };
        let mut fds: Vec<PollFd<'_>> = self.cpus.iter().map(fd).collect();
        let timeout = at_most.try_into().ok();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => false,
            Ok(_) if fds.iter().all(|fd| PollFlags::IN.contains(fd.revents())) => true,
            // A processor that was taken out of service would wake us again and again.
            Ok(_) | Err(_) => {
                thread::sleep(at_most);
                true
            }
        }
    }

    /// Records that found no room, since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

/// A power of two, as the kernel wants it.
fn buffer_bytes(cpus: usize) -> usize {
    let share = BUFFERS / cpus.max(1);
    (1_usize << share.max(1).ilog2()).clamp(*BUFFER.start(), *BUFFER.end())
}

fn record_all(cpus: &[usize], buffer: usize) -> Result<Vec<Sampler>> {
    let record = |&cpu| record_cpu(cpu, buffer).with_context(|| format!("failed to record mappings on CPU {cpu}"));
    cpus.iter().map(record).collect()
}

fn is_not_permitted(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.raw_os_error() == Some(libc::EPERM))
}

fn record_cpu(cpu: usize, buffer: usize) -> std::io::Result<Sampler> {
    let mut sampler = Builder::new(Software::DUMMY)
        .any_pid()
        .one_cpu(cpu)
        .mmap(true)
        .mmap2(true)
        .comm(true)
        .comm_exec(true)
        .task(true)
        .sample(SampleFlag::TIME)
        .sample_id_all(true)
        .clockid(Clock::MONOTONIC)
        .wakeup_watermark(WAKE_AT.min(buffer / 2))
        .build()?
        .sampled(buffer)?;
    sampler.as_counter_mut().enable()?;
    Ok(sampler)
}

/// With `sample_id_all` and only the time sampled, every record ends in its time.
fn trailing_time(record: &[u8]) -> u64 {
    record.last_chunk().map_or(0, |time| u64::from_ne_bytes(*time))
}

fn recorded(record: data::Record<'_>, exec: bool, time_ns: u64) -> Option<Recorded> {
    let (pid, change) = match record {
        data::Record::Mmap2(mmap) if mmap.prot & EXECUTABLE != 0 => {
            let path = PathBuf::from(mmap.filename_os());
            let mapping = Mapping {
                start: mmap.addr,
                end: mmap.addr.checked_add(mmap.len)?,
                offset: mmap.pgoff,
                inode: mmap.ino().unwrap_or(0),
                path,
            };
            (mmap.pid, Change::Map(mapping))
        }
        // Threads have names of their own.
        data::Record::Comm(comm) if comm.pid == comm.tid => {
            let name = String::from_utf8_lossy(&comm.comm).trim_end_matches('\0').to_owned();
            (comm.pid, Change::Name { comm: name, exec })
        }
        data::Record::Fork(fork) if fork.pid != fork.ppid => (fork.pid, Change::Fork { parent: fork.ppid }),
        data::Record::Exit(exit) if exit.pid == exit.tid => (exit.pid, Change::Exit),
        _ => return None,
    };
    // The kernel writes numbers of our own PID namespace. In a container that has one, other processes have none.
    (pid != 0 && pid != u32::MAX).then_some(Recorded { time_ns, pid, change })
}

/// The kernel's list, such as `0-3,8`.
pub(super) fn online_cpus() -> Result<Vec<usize>> {
    let text = fs::read_to_string("/sys/devices/system/cpu/online").context("failed to read the list of CPUs")?;
    Ok(parse_cpus(text.trim()))
}

fn parse_cpus(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewer_cpus_there_are_the_more_room_has_each() {
        for (cpus, mib) in [(1, 4), (2, 4), (8, 4), (9, 2), (16, 2), (33, 1), (1000, 1)] {
            assert_eq!(buffer_bytes(cpus), mib << 20, "{cpus}");
        }
    }

    #[test]
    fn cpu_lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_cpus("0"), [0]);
        assert_eq!(parse_cpus("0-2,5,7-8"), [0, 1, 2, 5, 7, 8]);
    }
}
