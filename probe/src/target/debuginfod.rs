//! debuginfod: debug files from servers that know them by build id. Asked on request only (`--debuginfod`), before
//! anything is attached, and never while a trace runs.
//!
//! In: a build id. Out: a file in the cache that elfutils' client has too. A server is not trusted: what it sends is
//! bounded, waited for no longer than `DEBUGINFOD_TIMEOUT`, and kept only if it has that build id.
//! Source: debuginfod_find_debuginfo(3) and debuginfod-client-config(7) of elfutils.

use std::{
    env,
    fmt::Display,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use symbols::debugfile;

use super::debugfiles;
use crate::output::{escape, talk};

/// Where Debian and others leave the addresses of servers.
const LISTS: &str = "/etc/debuginfod";
/// What a server has to send within the timeout, as elfutils' client has it.
const PIECE: u64 = 100 << 10;
/// The largest debug files (browsers) have 3 GB.
const MAX_BYTES: u64 = 8 << 30;
const TIMEOUT_S: u64 = 90;

/// Servers, and where to keep what they send.
#[derive(Debug)]
pub struct Debuginfod {
    servers: Vec<String>,
    cache: PathBuf,
    limits: Limits,
    quiet: bool,
}

/// How long a server may take, and how much it may send.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// For the connection, and for each [`PIECE`].
    timeout: Duration,
    /// For all.
    total: Option<Duration>,
    bytes: u64,
}

impl Debuginfod {
    /// The servers of `given` (separated by commas or blanks); where it is empty, those of `DEBUGINFOD_URLS`, else of
    /// `/etc/debuginfod/*.urls`.
    ///
    /// # Errors
    /// No server is known, or no place for a cache.
    pub fn new(given: &str, quiet: bool) -> Result<Self> {
        let list = [given.to_owned(), env::var("DEBUGINFOD_URLS").unwrap_or_default(), listed(Path::new(LISTS))];
        let servers = list.iter().map(|list| servers(list)).find(|servers| !servers.is_empty());
        let servers =
            servers.context("--debuginfod: no server is known; set DEBUGINFOD_URLS, or give --debuginfod=URL")?;
        let cache = debugfiles::caches().into_iter().next();
        let cache = cache.context("--debuginfod: no place for a cache; set DEBUGINFOD_CACHE_PATH")?;
        Ok(Self { servers, cache, limits: Limits::from_environment(), quiet })
    }

    /// Fetches the debug file of `shown` into the cache, and says what was asked and what came.
    pub fn fetch(&self, shown: &str, build_id: &str) {
        for server in &self.servers {
            let url = format!("{}/buildid/{build_id}/debuginfo", server.trim_end_matches('/'));
            self.say(format_args!("asking {url} for the debug file of {shown}"));
            let start = Instant::now();
            match self.fetch_from(&url, build_id) {
                Ok(bytes) => {
                    let seconds = start.elapsed().as_secs_f64();
                    return self.say(format_args!("got {bytes} bytes in {seconds:.1} s from {server}"));
                }
                Err(error) => self.say(format_args!("no debug file from {server}: {error:#}")),
            }
        }
    }

    fn say(&self, text: impl Display) {
        if !self.quiet {
            talk::say(escape::escaped(&text.to_string()));
        }
    }

    fn fetch_from(&self, url: &str, build_id: &str) -> Result<u64> {
        let mut part = Part::create(self.cache.join(build_id))?;
        let bytes = receive(url, self.limits, &mut part.file)?;
        match debugfile::build_id_of(&part.path) {
            Some(id) if id == build_id => part.keep().map(|()| bytes),
            Some(id) => bail!("it sent the debug file of another build (build id {id})"),
            None => bail!("it sent {bytes} bytes that are no debug file, or not all of one"),
        }
    }
}

impl Limits {
    fn from_environment() -> Self {
        // 0 means none.
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok()).filter(|&n| n > 0);
        Self {
            timeout: Duration::from_secs(number("DEBUGINFOD_TIMEOUT").unwrap_or(TIMEOUT_S)),
            total: number("DEBUGINFOD_MAXTIME").map(Duration::from_secs),
            bytes: number("DEBUGINFOD_MAXSIZE").unwrap_or(MAX_BYTES),
        }
    }
}

fn servers(list: &str) -> Vec<String> {
    list.split([' ', ',', '\t', '\n']).filter(|url| !url.is_empty()).map(str::to_owned).collect()
}

/// What the lists in a folder say.
fn listed(folder: &Path) -> String {
    let Ok(entries) = fs::read_dir(folder) else { return String::new() };
    let lists = entries.flatten().map(|e| e.path()).filter(|path| path.extension().is_some_and(|e| e == "urls"));
    lists.filter_map(|path| fs::read_to_string(path).ok()).collect::<Vec<_>>().join(" ")
}

/// A file on its way into the cache: nobody sees it before it is whole.
struct Part {
    folder: PathBuf,
    path: PathBuf,
    file: File,
}

impl Part {
    fn create(folder: PathBuf) -> Result<Self> {
        let failed = || format!("failed to write to the cache {}", folder.display());
        fs::create_dir_all(&folder).with_context(failed)?;
        let path = folder.join(format!("debuginfo.{}.part", std::process::id()));
        // What a process of this id left that was killed.
        let _ = fs::remove_file(&path);
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).with_context(failed)?;
        Ok(Self { folder, path, file })
    }

    fn keep(self) -> Result<()> {
        let place = self.folder.join("debuginfo");
        fs::rename(&self.path, &place).with_context(|| format!("failed to write {}", place.display()))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Neither is there any more where all went well, or it is not empty.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Writes what a server sends; bytes. It is asked by a thread of its own, which a server that hangs may keep.
fn receive(url: &str, limits: Limits, into: &mut File) -> Result<u64> {
    let (send, pieces) = mpsc::sync_channel(1);
    let url = url.to_owned();
    let ask = move || {
        let ended = ask(&url, limits, |piece| send.send(Ok(piece)).is_ok());
        if let Err(error) = ended {
            // Nobody waits any more.
            let _ = send.send(Err(error));
        }
    };
    thread::Builder::new().name("debuginfod".to_owned()).spawn(ask).context("failed to start a thread")?;
    let (start, mut bytes) = (Instant::now(), 0u64);
    loop {
        let left =
            limits.total.map_or(limits.timeout, |total| total.saturating_sub(start.elapsed()).min(limits.timeout));
        match pieces.recv_timeout(left) {
            Ok(piece) => {
                let piece = piece?;
                bytes += piece.len() as u64;
                if bytes > limits.bytes {
                    bail!("it sends more than {} bytes (DEBUGINFOD_MAXSIZE)", limits.bytes);
                }
                into.write_all(&piece).context("failed to write to the cache")?;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(bytes),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let seconds = limits.timeout.as_secs();
                bail!("it sent less than {} KB in {seconds} s (DEBUGINFOD_TIMEOUT)", PIECE >> 10)
            }
        }
    }
}

/// Asks, and hands on what comes until nobody wants it.
fn ask(url: &str, limits: Limits, mut hand_on: impl FnMut(Vec<u8>) -> bool) -> Result<()> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .user_agent(concat!("probe/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(limits.timeout))
        .timeout_recv_response(Some(limits.timeout))
        .build()
        .into();
    let response = agent.get(url).call().map_err(|error| match error {
        ureq::Error::StatusCode(404) => anyhow!("it has none (404)"),
        error => anyhow!(error),
    })?;
    let mut body = response.into_body().into_reader();
    loop {
        let mut piece = Vec::new();
        match io::Read::by_ref(&mut body).take(PIECE).read_to_end(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(_) if !hand_on(piece) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error).context("it broke off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_separated_by_blanks_or_commas() {
        assert_eq!(servers("http://a http://b/,https://c\n"), ["http://a", "http://b/", "https://c"]);
        assert!(servers(" ").is_empty());
    }

    #[test]
    fn lists_of_servers_are_files_with_that_suffix() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        for (name, text) in [("a.urls", "http://a\n"), ("b.txt", "http://b")] {
            fs::write(folder.path().join(name), text).expect("it can be written");
        }
        assert_eq!(servers(&listed(folder.path())), ["http://a"]);
        assert!(listed(&folder.path().join("none")).is_empty());
    }

    #[test]
    fn a_part_that_is_not_kept_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let place = folder.path().join("id");
        drop(Part::create(place.clone()).expect("it can be written"));
        assert!(!place.exists());
        Part::create(place.clone()).and_then(Part::keep).expect("it can be written");
        let left: Vec<_> = fs::read_dir(&place).expect("it is there").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["debuginfo"]);
    }
}
