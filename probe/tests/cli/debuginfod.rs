//! `--debuginfod`: a server that has the debug file, and servers that do not do as they should.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{program, text};

/// A stripped program, and its debug file apart from it.
struct Stripped {
    folder: TempDir,
    program: PathBuf,
    debug: PathBuf,
    build_id: String,
}

fn tool(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn stripped() -> Stripped {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (served, stripped) = (folder.path().join("served"), folder.path().join("program"));
    fs::create_dir(&served).expect("a folder");
    let debug = served.join("program.debug");
    let whole = program("c/counts");
    let paths = [&whole, &debug, &stripped].map(|path| path.to_str().expect("UTF-8"));
    tool("objcopy", &["--only-keep-debug", paths[0], paths[1]]);
    tool("objcopy", &["--strip-all", paths[0], paths[2]]);
    let notes = tool("readelf", &["-n", paths[2]]);
    let id = notes.split("Build ID: ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a build id");
    Stripped { build_id: id.to_owned(), folder, program: stripped, debug }
}

impl Stripped {
    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// Lists its functions called `recurse`.
    fn list(&self, options: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_probe"));
        command.env_remove("DEBUGINFOD_URLS").env_remove("http_proxy").env_remove("HTTP_PROXY");
        command.env("DEBUGINFOD_CACHE_PATH", self.cache()).env("DEBUGINFOD_TIMEOUT", "1");
        command.envs(variables.iter().copied());
        command.arg("list").args(options).arg("-x").arg(&self.program).arg("recurse");
        command.output().expect("probe can be started")
    }

    /// What is said when this server answers, which has nothing of use: an error, and the cache is as it was.
    fn says_of(&self, server: &str) -> String {
        let output = self.list(&[&format!("--debuginfod={server}")], &[]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(output.stdout.is_empty());
        assert!(said.contains(&format!("asking {server}/buildid/{}/debuginfo", self.build_id)), "{said}");
        assert!(!said.contains("--debuginfod asks"), "{said}");
        let left: Vec<_> = fs::read_dir(self.cache()).expect("the cache").flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{left:?}");
        said
    }
}

/// Debian's server, for the files in a folder.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(served: &Path, database: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new("debuginfod");
        command.args(["-F", "-t0", "-g0", "-p", &port.to_string(), "-d"]).arg(database).arg(served);
        command.env_remove("DEBUGINFOD_URLS").stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("debuginfod, which testdata/setup.sh installs, can be started");
        let server = Self { process, url: format!("http://127.0.0.1:{port}") };
        let end = Instant::now() + Duration::from_secs(60);
        while !has_read_a_file(port) {
            assert!(Instant::now() < end, "it never read the file");
            thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

/// Whether a file's build ID is in the server's database, by its own account.
fn has_read_a_file(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut answer = String::new();
    let asked = stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").and_then(|()| stream.read_to_string(&mut answer));
    asked.is_ok() && answer.contains(r#"{step_done="file-scanned"} 1"#)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// A server that answers its one request so.
fn server(answer: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else { return };
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
            request.push(byte[0]);
        }
        answer(stream);
    });
    url
}

/// A server that sends this body, whatever length it announces.
fn sending(length: usize, body: Vec<u8>) -> String {
    server(move |mut stream| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    })
}

#[test]
fn a_debug_file_that_only_a_server_has_gives_names_and_lines_and_stays_in_the_cache() {
    let stripped = stripped();
    let before = stripped.list(&[], &[("DEBUGINFOD_URLS", "http://127.0.0.1:1")]);
    assert_eq!(before.status.code(), Some(1), "no server is asked that nobody wants asked");
    assert!(!text(&before.stderr).contains("asking"), "{before:?}");
    assert!(text(&before.stderr).contains("; --debuginfod asks servers for it"), "{before:?}");
    let server = Server::start(stripped.debug.parent().expect("a folder"), &stripped.folder.path().join("database"));
    let asked = stripped.list(&["--debuginfod"], &[("DEBUGINFOD_URLS", &format!("http://127.0.0.1:1 {}", server.url))]);
    let said = text(&asked.stderr);
    let url = format!("{}/buildid/{}/debuginfo", server.url, stripped.build_id);
    assert!(said.contains("no debug file from http://127.0.0.1:1: "), "{said}");
    let size = fs::metadata(&stripped.debug).expect("it is there").len();
    assert!(said.contains(&format!("asking {url} for the debug file of ")), "{said}");
    assert!(said.contains(&format!("got {size} bytes in ")), "{said}");
    let whole = program("c/counts");
    let whole = text(&crate::probe(&["list", "-x", whole.to_str().expect("UTF-8"), "recurse"]).stdout);
    assert!(whole.contains("counts.c:"), "{whole}");
    assert_eq!(text(&asked.stdout), whole);
    let cached = stripped.cache().join(&stripped.build_id).join("debuginfo");
    assert_eq!(fs::read(&cached).expect("it was kept"), fs::read(&stripped.debug).expect("it is there"));
    // From now on it is there without the server, and with the request nobody is asked again.
    drop(server);
    for options in [&[][..], &["--debuginfod=http://127.0.0.1:1"]] {
        let later = stripped.list(options, &[]);
        assert_eq!(text(&later.stdout), whole);
        assert!(!text(&later.stderr).contains("asking"), "{later:?}");
    }
}

#[test]
fn a_server_without_the_file_is_told() {
    let stripped = stripped();
    let gone = format!("http://127.0.0.1:{}", free_port());
    assert!(stripped.says_of(&gone).contains("refused"));
    let none = server(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nConnection: close\r\n\r\nnot found");
    });
    assert!(stripped.says_of(&none).contains("it has none (404)"));
    let broken = server(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    assert!(stripped.says_of(&broken).contains("500"));
}

#[test]
fn what_is_not_the_whole_debug_file_of_this_build_is_not_kept() {
    let stripped = stripped();
    let file = fs::read(&stripped.debug).expect("it is there");
    let garbage = b"\x1b[31m<html>Sign in</html>".repeat(100);
    assert!(stripped.says_of(&sending(garbage.len(), garbage)).contains("no debug file, or not all of one"));
    let half = file[..file.len() / 2].to_vec();
    assert!(stripped.says_of(&sending(file.len(), half.clone())).contains("it broke off"));
    // As if that were all of it.
    assert!(stripped.says_of(&sending(half.len(), half)).contains("no debug file, or not all of one"));
    let other = fs::read(program("c/test")).expect("it is there");
    assert!(stripped.says_of(&sending(other.len(), other)).contains("debug file of another build"));
    let no_http = server(|mut stream| drop(stream.write_all(b"\x7fELF and so on\r\n\r\n")));
    stripped.says_of(&no_http);
}

#[test]
fn a_server_that_sends_too_much_is_cut_off() {
    let stripped = stripped();
    let endless = server(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        while stream.write_all(&[7; 1 << 16]).is_ok() {}
    });
    let output = stripped.list(&[&format!("--debuginfod={endless}")], &[("DEBUGINFOD_MAXSIZE", "1000000")]);
    assert!(text(&output.stderr).contains("more than 1000000 bytes (DEBUGINFOD_MAXSIZE)"), "{output:?}");
    assert!(fs::read_dir(stripped.cache()).expect("the cache").next().is_none());
}

/// Whether it never answers or stops in the middle: the timeout ends it.
#[test]
fn a_server_that_hangs_holds_nobody_up() {
    let stripped = stripped();
    let hold = |mut stream: TcpStream| drop(stream.read(&mut [0]));
    let silent = server(hold);
    let said = stripped.says_of(&silent);
    assert!(said.contains("DEBUGINFOD_TIMEOUT") || said.contains("timeout"), "{said}");
    let stopping = server(move |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n\x7fELF");
        hold(stream);
    });
    let said = stripped.says_of(&stopping);
    assert!(said.contains("it sent less than 100 KB in 1 s (DEBUGINFOD_TIMEOUT)"), "{said}");
}

/// Large enough that it is mapped, with a name for each of its functions, and stripped of the rest.
fn large_program(folder: &Path) -> PathBuf {
    let (source, program) = (folder.join("large.c"), folder.join("large"));
    let code =
        "char filler[3 << 20] = {1};\nint work(int n) { return n + filler[n]; }\nint main(void) { return work(0); }\n";
    fs::write(&source, code).expect("a file");
    let paths = [&source, &program].map(|path| path.to_str().expect("UTF-8"));
    tool("gcc", &["-rdynamic", "-s", "-Wl,--build-id", "-o", paths[1], paths[0]]);
    program
}

/// It is open and mapped while the server is asked, and nothing else has been read of it than its headers.
fn while_it_is_mapped(program: &Path, command: &[&str], during: impl FnOnce() + Send + 'static) -> Output {
    let url = server(move |mut stream| {
        during();
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let mut probe = Command::new(env!("CARGO_BIN_EXE_probe"));
    probe.env_remove("http_proxy").env_remove("HTTP_PROXY").env("DEBUGINFOD_TIMEOUT", "20");
    probe.env("DEBUGINFOD_CACHE_PATH", program.with_file_name("cache")).args(command);
    probe.arg(format!("--debuginfod={url}")).arg("-x").arg(program).arg("work");
    probe.output().expect("probe can be started")
}

#[test]
fn a_large_file_that_becomes_shorter_while_it_is_read_is_an_error() {
    for command in [&["list"][..], &["--dry-run"]] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program = large_program(folder.path());
        let undisturbed = while_it_is_mapped(&program, command, || {});
        assert!(undisturbed.status.success(), "{undisturbed:?}");
        assert!(text(&undisturbed.stdout).contains("work"), "{undisturbed:?}");
        // As `cp` begins.
        let shorter = program.clone();
        let output = while_it_is_mapped(&program, command, move || {
            fs::File::create(shorter).expect("it can be written to");
        });
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(said.contains("large became shorter while it was read: is it being replaced?"), "{said}");
    }
}
