//! Harm: whatever happens to `probe` or to a target, the target goes on unharmed, nothing of ours stays in the
//! kernel, and what is said is clear. Live: needs root, bpftool, a C compiler and the programs under `testdata/build`.

#[path = "../common/children.rs"]
mod children;
mod ending;
mod holder;
mod kernel;
mod left;
mod refusal;
mod run;
mod server;
mod target;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use tempfile::TempDir;

use run::{Ended, Probe, as_text, calls, program, signal, until};

/// `beat` and its library, built in a folder of their own: free to be replaced, deleted or spoilt.
struct Built(TempDir);

impl Built {
    fn new() -> Self {
        let built = Self(tempfile::tempdir().expect("a temporary folder"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harm");
        built.compile(&["-shared", "-fPIC", "-o", "libbeat.so", as_text(&source.join("libbeat.c"))]);
        built.compile(&["-o", "beat", as_text(&source.join("beat.c")), "-L.", "-lbeat", "-Wl,-rpath,$ORIGIN"]);
        built
    }

    fn compile(&self, args: &[&str]) {
        let status = Command::new("cc").args(["-O1", "-g"]).args(args).current_dir(self.0.path()).status();
        assert!(status.expect("a C compiler").success());
    }

    fn path(&self, name: &str) -> String {
        as_text(&self.0.path().join(name)).to_owned()
    }

    fn beat(&self) -> String {
        self.path("beat")
    }

    fn start(&self) -> Beat {
        Beat::start(Command::new(self.beat()))
    }
}

/// A running `beat`. Killed when dropped.
struct Beat {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Beat {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("beat can be started");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut beat = Self { child, stdin, stdout };
        assert_eq!(beat.line(), "ready");
        beat
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }

    fn send(&mut self, order: &str) {
        writeln!(self.stdin.as_mut().expect("a pipe"), "{order}").expect("it reads");
    }

    /// Gives an order; it is carried out when this returns.
    #[track_caller]
    fn told(&mut self, order: &str) {
        self.send(order);
        assert_eq!(self.line(), order);
    }

    /// Ends it: unharmed to its last instruction.
    #[track_caller]
    fn ends_well(mut self) {
        self.told("beat 10");
        self.told("lib 10");
        self.stdin = None;
        let status = until("the end of beat", || self.child.try_wait().expect("its state"));
        assert_eq!(status.code(), Some(7), "{status:?}");
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
