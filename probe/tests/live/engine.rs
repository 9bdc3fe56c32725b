//! Container engines of a test's own: a Docker daemon, started and ended here, and runc.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::harness::{Ended, Process, program, tool};

/// A name that no other test, and no other run, has given.
pub(crate) fn unique(name: &str) -> String {
    let folder = tempfile::Builder::new().prefix(name).rand_bytes(8).tempdir().expect("a folder can be made");
    folder.path().file_name().expect("a name").to_string_lossy().to_lowercase()
}

/// What [`Docker::with_counts`] has: `c/counts-static`, as `/counts`.
pub(crate) const IMAGE: &str = "counts:1";

/// A Docker engine with its data in a folder of its own. It is ended when dropped, and its containers with it.
pub(crate) struct Docker {
    daemon: Child,
    folder: TempDir,
}

impl Docker {
    /// Starts it, and waits until it answers.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let log = fs::File::create(at("log")).expect("a log");
        let daemon = Command::new("dockerd")
            .args(["--iptables=false", "--bridge=none", "--data-root", &at("data"), "--exec-root", &at("exec")])
            .args(["--pidfile", &at("pid"), "--host", &format!("unix://{}", at("socket"))])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("dockerd is installed (Debian: docker.io)");
        let docker = Self { daemon, folder };
        let deadline = Instant::now() + Duration::from_secs(120);
        while docker.run(&["version"]).status.code() != Some(0) {
            let log = || fs::read_to_string(docker.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "dockerd does not answer: {}", log());
            thread::sleep(Duration::from_millis(100));
        }
        docker
    }

    /// Which has [`IMAGE`].
    pub(crate) fn with_counts() -> Self {
        let docker = Self::start();
        docker.image(IMAGE, &[(&program("c/counts-static"), "/counts")]);
        docker
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("--host").arg(format!("unix://{}", self.folder.path().join("socket").display())).args(args);
        command
    }

    /// `docker ARGS...`, to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        Process::start(self.command(args)).finish()
    }

    /// The same, which succeeds; what it printed.
    #[track_caller]
    pub(crate) fn tool(&self, args: &[&str]) -> String {
        self.run(args).success().trim_end().to_owned()
    }

    /// The same, in the background.
    pub(crate) fn spawn(&self, args: &[&str]) -> Process {
        Process::start(self.command(args))
    }

    /// An image of these files: where from (a path here), and where to.
    pub(crate) fn image(&self, name: &str, files: &[(&Path, &str)]) {
        let root = root_of(files);
        let tar = self.folder.path().join("image.tar");
        tool("tar", &["-C".as_ref(), root.path().as_os_str(), "-cf".as_ref(), tar.as_os_str(), ".".as_ref()]);
        self.tool(&["import", &tar.display().to_string(), name]);
    }

    /// Starts a container in which `/counts` waits for a line that never comes; its ID.
    pub(crate) fn counts(&self, image: &str, name: &str, options: &[&str]) -> String {
        let run = ["run", "--detach", "--interactive", "--net=none", "--name", name];
        self.tool(&[&run[..], options, &[image, "/counts", "recurse", "--wait"]].concat())
    }

    /// The first process of a container, as the host numbers it.
    pub(crate) fn pid(&self, name: &str) -> u32 {
        self.tool(&["inspect", "--format", "{{.State.Pid}}", name]).parse().expect("a number")
    }

    /// `/counts recurse -n N` in a running container, to its end.
    #[track_caller]
    pub(crate) fn recurse(&self, name: &str, n: u32) {
        self.tool(&["exec", name, "/counts", "recurse", "-n", &n.to_string()]);
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let listed = self.run(&["ps", "--all", "--quiet"]).stdout;
        let mut remove = vec!["rm", "--force"];
        remove.extend(listed.lines());
        if remove.len() > 2 {
            self.run(&remove);
        }
        // It ends its containerd; SIGKILL would leave that.
        let _ = Command::new("kill").arg(self.daemon.id().to_string()).status();
        let _ = self.daemon.wait();
    }
}

/// A program and the libraries that it needs, at the places that they have here.
pub(crate) fn with_its_libraries(own: &Path, called: &str) -> Vec<(PathBuf, String)> {
    let listed = tool("ldd", &[own]);
    let libraries = listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    let libraries = libraries.map(|path| (PathBuf::from(path), path.to_owned()));
    [(own.to_owned(), called.to_owned())].into_iter().chain(libraries).collect()
}

/// Files by their paths: where from, and where to.
pub(crate) fn borrowed(files: &[(PathBuf, String)]) -> Vec<(&Path, &str)> {
    files.iter().map(|(from, to)| (from.as_path(), to.as_str())).collect()
}

/// A root of files: where from, and where to.
pub(crate) fn root_of(files: &[(&Path, &str)]) -> TempDir {
    let root = tempfile::tempdir().expect("a folder can be made");
    for (from, to) in files {
        let to = root.path().join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder can be made");
        fs::copy(from, to).expect("a copy can be made");
    }
    root
}

/// A root with a program that needs nothing else.
pub(crate) fn counts_root() -> TempDir {
    root_of(&[(&program("c/counts-static"), "/counts")])
}

/// A container of a runtime alone, `runc` or `crun`. It is ended when dropped.
pub(crate) struct Alone {
    pub(crate) id: String,
    runtime: &'static str,
    _bundle: TempDir,
    process: Process,
}

impl Alone {
    /// A container with this root, in which its `/counts` waits for a line that never comes.
    pub(crate) fn start(runtime: &'static str, id: &str, root: &Path) -> Self {
        let mut container = Self::new(runtime, id, root, "run");
        container.process.await_line("ready");
        container
    }

    /// One that is created, and not started: its first process waits in the runtime's own program.
    pub(crate) fn created(runtime: &'static str, id: &str, root: &Path) -> Self {
        let container = Self::new(runtime, id, root, "create");
        let state = || Process::start(Self::command(runtime, &["state", id])).finish().stdout;
        let end = Instant::now() + Duration::from_secs(30);
        while !state().contains("\"created\"") {
            assert!(Instant::now() < end, "{runtime} never created {id}");
            thread::sleep(Duration::from_millis(20));
        }
        container
    }

    /// Starts what was created.
    pub(crate) fn begin(&mut self) {
        Process::start(Self::command(self.runtime, &["start", &self.id])).finish().success();
        self.process.await_line("ready");
    }

    fn new(runtime: &'static str, id: &str, root: &Path, order: &str) -> Self {
        let bundle = tempfile::tempdir().expect("a folder can be made");
        let at = bundle.path().display().to_string();
        tool("runc", &["spec", "--bundle", &at]);
        let path = bundle.path().join("config.json");
        let spec = fs::read(&path).expect("runc wrote it");
        let mut spec: serde_json::Value = serde_json::from_slice(&spec).expect("JSON");
        spec["root"]["path"] = root.display().to_string().into();
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = ["/counts", "recurse", "--wait"].as_slice().into();
        fs::write(&path, spec.to_string()).expect("it can be written");
        let process = Process::start(Self::command(runtime, &[order, "--bundle", &at, id]));
        Self { id: id.to_owned(), runtime, _bundle: bundle, process }
    }

    /// crun refuses cgroups of both versions at once, so it is shown the first one only, where there is one.
    fn command(runtime: &str, args: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        let script = "[ \"$1\" != crun ] || umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
        command.args(["--mount", "sh", "-c", script, "sh", runtime]).args(args);
        command
    }

    /// `/counts recurse -n N` in it, to its end.
    #[track_caller]
    pub(crate) fn recurse(&self, n: u32) {
        let exec = ["exec", &self.id, "/counts", "recurse", "-n", &n.to_string()];
        Process::start(Self::command(self.runtime, &exec)).finish().success();
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        Process::start(Self::command(self.runtime, &["delete", "--force", &self.id])).finish();
    }
}
