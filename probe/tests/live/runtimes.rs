//! Containers of every runtime that can be had here, each started by the test itself: found by name and by ID, also when they
//! start anew, and pods. `recurse -n N` is 200 × N calls. Docker has its own tests (`containers.rs`).

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    engine::{Alone, counts_root, unique},
    harness::{Process, Tracer, probe, run, tool},
};

/// What the tests ask of a runtime. In each container `/counts` waits for a line that never comes.
trait Runtime {
    /// Starts a container; its ID.
    fn start(&self, name: &str) -> String;

    /// `/counts recurse -n N` in it, to its end.
    fn recurse(&self, name: &str, n: u32);

    /// Ends it, and starts it again under the same name.
    fn restart(&self, name: &str);
}

/// Of two containers the chosen one is traced, by its name and by its ID's beginning, and when it starts anew.
fn containers_are_traced_by_name_and_by_id(runtime: &dyn Runtime, shown: impl Fn(&str) -> String, digits: usize) {
    let (web, db) = (unique("web"), unique("db"));
    let id = runtime.start(&web);
    runtime.start(&db);
    // The name last: who starts anew may have another ID.
    for named in [&id[..digits.min(id.len())], &*web] {
        let tracer = Tracer::start(&["--container", named, "recurse"]);
        runtime.recurse(&db, 3);
        runtime.recurse(&web, 2);
        if named == web {
            runtime.restart(&web);
            tracer.await_said("its first process is");
            runtime.recurse(&web, 1);
        }
        let traced = tracer.interrupt();
        let expected = if named == web { 600 } else { 400 };
        assert_eq!(traced.trace.calls.len(), expected, "{named}: {}", traced.ended.stderr);
        for call in &traced.trace.calls {
            assert_eq!(call.container.as_deref(), Some(&*shown(&web)), "{named}: {call:?}");
        }
    }
}

/// Runtimes without a daemon: a container's name is its ID.
struct WithoutDaemon {
    runtime: &'static str,
    root: TempDir,
    containers: RefCell<BTreeMap<String, Alone>>,
}

impl WithoutDaemon {
    fn new(runtime: &'static str) -> Self {
        Self { runtime, root: counts_root(), containers: RefCell::default() }
    }
}

impl Runtime for WithoutDaemon {
    fn start(&self, name: &str) -> String {
        self.containers.borrow_mut().insert(name.to_owned(), Alone::start(self.runtime, name, self.root.path()));
        name.to_owned()
    }

    fn recurse(&self, name: &str, n: u32) {
        self.containers.borrow()[name].recurse(n);
    }

    fn restart(&self, name: &str) {
        drop(self.containers.borrow_mut().remove(name));
        self.start(name);
    }
}

#[test]
fn containers_of_runc_alone_are_known_by_their_ids() {
    containers_are_traced_by_name_and_by_id(&WithoutDaemon::new("runc"), str::to_owned, usize::MAX);
}

#[test]
fn containers_of_crun_alone_are_known_by_their_ids() {
    containers_are_traced_by_name_and_by_id(&WithoutDaemon::new("crun"), str::to_owned, usize::MAX);
}

/// A first process runs its runtime's program at first: for a moment after `docker start` too, and as long as one likes here.
#[test]
fn of_a_container_that_is_being_started_its_program_is_traced_and_not_the_runtimes() {
    let root = counts_root();
    for runtime in ["runc", "crun"] {
        let mut web = Alone::created(runtime, &unique("web"), root.path());
        let tracer = Tracer::starting(&["--container", &web.id, "recurse"]);
        web.begin();
        tracer.await_said("probe: tracing");
        web.recurse(2);
        let traced = tracer.interrupt();
        assert_eq!(traced.trace.calls.len(), 400, "{runtime}: {}", traced.ended.stderr);
    }
}

#[test]
fn a_container_that_is_created_and_not_started_is_said_to_be() {
    let root = counts_root();
    for runtime in ["runc", "crun"] {
        let mut web = Alone::created(runtime, &unique("web"), root.path());
        let refused = probe(&["--container", &web.id, "recurse"]);
        assert_eq!(refused.code(), 1, "{runtime}: {}", refused.stderr);
        let said = format!("container {} is created, not started: start it, then trace it", web.id);
        assert!(refused.stderr.contains(&said), "{runtime}: {}", refused.stderr);
        // Its files are there to be named.
        let tracer = Tracer::start(&["--container", &web.id, "-x", "/counts", "recurse"]);
        web.begin();
        web.recurse(2);
        let traced = tracer.interrupt();
        assert_eq!(traced.trace.calls.len(), 400, "{runtime}: {}", traced.ended.stderr);
    }
}

/// podman with its store in a folder of its own. Its containers are ended when it is dropped.
struct Podman {
    folder: TempDir,
}

const IMAGE: &str = "localhost/counts:1";

impl Podman {
    fn new() -> Self {
        let podman = Self { folder: tempfile::tempdir().expect("a folder can be made") };
        // What it would set needs CAP_SYS_RESOURCE; and its usual runtime refuses cgroups of both versions at once.
        let settings = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n[engine]\nruntime = \"runc\"\n";
        fs::write(podman.folder.path().join("containers.conf"), settings).expect("it can be written");
        let (root, tar) = (counts_root(), podman.folder.path().join("image.tar"));
        tool("tar", &["-C".as_ref(), root.path().as_os_str(), "-cf".as_ref(), tar.as_os_str(), ".".as_ref()]);
        podman.tool(&["import", &tar.display().to_string(), IMAGE]);
        podman
    }

    fn run(&self, args: &[&str]) -> crate::harness::Ended {
        let at = |name: &str| self.folder.path().join(name);
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", at("containers.conf"));
        // Else its store is mounted onto itself, and stays so.
        command.args(["--storage-driver=overlay", "--storage-opt=overlay.skip_mount_home=true"]);
        command.arg("--root").arg(at("root")).arg("--runroot").arg(at("run")).arg("--tmpdir").arg(at("tmp")).args(args);
        Process::start(command).finish()
    }

    #[track_caller]
    fn tool(&self, args: &[&str]) -> String {
        self.run(args).success().trim_end().to_owned()
    }

    fn counts(&self, name: &str, options: &[&str]) -> String {
        let run = ["run", "--detach", "--interactive", "--name", name];
        self.tool(&[&run[..], options, &[IMAGE, "/counts", "recurse", "--wait"]].concat())
    }
}

/// Whether any process's command line has this in it.
fn is_named_by_a_process(text: &[u8]) -> bool {
    let processes = fs::read_dir("/proc").expect("there is a /proc").flatten();
    let mut lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| line.windows(text.len()).any(|part| part == text))
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.run(&["pod", "rm", "--all", "--force", "--time", "0"]);
        self.run(&["rm", "--all", "--force", "--time", "0"]);
        // Each container's end is noted in the store by a process of its own, which would make folders there anew.
        let folder = self.folder.path().as_os_str().as_bytes();
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_named_by_a_process(folder) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        // Such a process may also have mounted a root again.
        let mounts = fs::read_to_string("/proc/mounts").expect("there are mounts");
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for point in points.filter(|point| self.folder.path().to_str().is_some_and(|folder| point.starts_with(folder)))
        {
            run("umount", &["--lazy", point]);
        }
    }
}

impl Runtime for Podman {
    fn start(&self, name: &str) -> String {
        self.counts(name, &["--network=none"])
    }

    fn recurse(&self, name: &str, n: u32) {
        self.tool(&["exec", name, "/counts", "recurse", "-n", &n.to_string()]);
    }

    fn restart(&self, name: &str) {
        self.tool(&["restart", "--time", "0", name]);
    }
}

#[test]
fn containers_of_podman_are_known_by_their_names_and_ids() {
    containers_are_traced_by_name_and_by_id(&Podman::new(), str::to_owned, 12);
}

#[test]
fn the_containers_of_a_pod_of_podman_are_traced_and_no_others() {
    let podman = Podman::new();
    let (shop, web, worker, other) = (unique("shop"), unique("web"), unique("worker"), unique("other"));
    podman.tool(&["pod", "create", "--network=none", "--name", &shop]);
    podman.counts(&web, &["--pod", &shop]);
    podman.counts(&other, &["--network=none"]);
    let tracer = Tracer::start(&["--pod", &shop, "recurse"]);
    podman.recurse(&other, 3);
    podman.recurse(&web, 2);
    podman.counts(&worker, &["--pod", &shop]);
    tracer.await_said("started: it is traced too");
    podman.recurse(&worker, 1);
    let traced = tracer.interrupt();
    let of = |name: &str| {
        let shown = format!("{shop}/{name}");
        traced.trace.calls.iter().filter(|call| call.container.as_deref() == Some(&shown)).count()
    };
    assert_eq!((of(&web), of(&worker), traced.trace.calls.len()), (400, 200, 600), "{}", traced.ended.stderr);
    let one = Tracer::start(&["--pod", &shop, "--container", &worker, "recurse"]);
    podman.recurse(&web, 2);
    podman.recurse(&worker, 1);
    assert_eq!(one.interrupt().trace.calls.len(), 200);
    let none = probe(&["--pod", "no-such-pod", "recurse"]);
    assert!(none.code() == 1 && none.stderr.contains(&shop), "{}", none.stderr);
}

/// containerd with its folders in one of its own, and containers as Kubernetes makes them: an ID of 64 digits, and annotations.
struct Containerd {
    daemon: Child,
    folder: TempDir,
    root: TempDir,
    pod: String,
    /// By name: ID, and who started it.
    containers: RefCell<BTreeMap<String, (String, Process)>>,
}

const NAMESPACE: &str = "k8s.io";

impl Containerd {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let settings = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n\
             [ttrpc]\naddress = {:?}\n",
            at("root"),
            at("state"),
            at("socket"),
            at("ttrpc")
        );
        fs::write(at("config.toml"), settings).expect("it can be written");
        let log = fs::File::create(at("log")).expect("a log");
        let daemon = Command::new("containerd")
            .args(["--config", &at("config.toml")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd is installed");
        let containerd =
            Self { daemon, folder, root: counts_root(), pod: unique("shop"), containers: RefCell::default() };
        let deadline = Instant::now() + Duration::from_secs(60);
        while containerd.run(&["version"]).status.code() != Some(0) {
            let log = || fs::read_to_string(containerd.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "containerd does not answer: {}", log());
            thread::sleep(Duration::from_millis(50));
        }
        containerd
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.folder.path().join("socket")).args(["--namespace", NAMESPACE]).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> crate::harness::Ended {
        Process::start(self.command(args)).finish()
    }

    fn remove(&self, name: &str) {
        let Some((id, process)) = self.containers.borrow_mut().remove(name) else { return };
        self.run(&["task", "kill", "--signal", "KILL", &id]);
        process.finish();
        self.run(&["container", "rm", &id]);
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let names: Vec<String> = self.containers.borrow().keys().cloned().collect();
        names.iter().for_each(|name| self.remove(name));
        let _ = Command::new("kill").arg(self.daemon.id().to_string()).status();
        let _ = self.daemon.wait();
    }
}

impl Runtime for Containerd {
    fn start(&self, name: &str) -> String {
        let id: String = tool("sha256sum", &[self.new_file(name)]).split(' ').next().expect("a sum").to_owned();
        let annotation = |key: &str, value: &str| format!("--annotation=io.kubernetes.cri.{key}={value}");
        let annotations = [
            annotation("container-name", name),
            annotation("container-type", "container"),
            annotation("sandbox-name", &self.pod),
            annotation("sandbox-namespace", "front"),
        ];
        let cgroup = format!("/kubepods-test/{}/{id}", self.pod);
        let root = self.root.path().display().to_string();
        let mut command = self.command(&["run", "--rm", "--rootfs", "--cgroup", &cgroup]);
        command.args(annotations).args([&*root, &id, "/counts", "recurse", "--wait"]);
        let mut process = Process::start(command);
        process.await_line("ready");
        self.containers.borrow_mut().insert(name.to_owned(), (id.clone(), process));
        id
    }

    fn recurse(&self, name: &str, n: u32) {
        let containers = self.containers.borrow();
        let id = &containers[name].0;
        self.run(&["task", "exec", "--exec-id", &unique("exec"), id, "/counts", "recurse", "-n", &n.to_string()])
            .success();
    }

    fn restart(&self, name: &str) {
        self.remove(name);
        Runtime::start(self, name);
    }
}

impl Containerd {
    /// A file whose contents are no other's.
    fn new_file(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join("seed");
        fs::write(&path, unique(name)).expect("it can be written");
        path
    }
}

#[test]
fn containers_of_containerd_are_known_by_their_names_and_ids_and_pods() {
    let containerd = Containerd::start();
    let shown = |name: &str| format!("{}/{name}", containerd.pod);
    containers_are_traced_by_name_and_by_id(&containerd, shown, 12);
    let (web, db) = (unique("web"), unique("db"));
    Runtime::start(&containerd, &web);
    let tracer = Tracer::start(&["--pod", &format!("front/{}", containerd.pod), "recurse"]);
    containerd.recurse(&web, 1);
    Runtime::start(&containerd, &db);
    tracer.await_said("started: it is traced too");
    containerd.recurse(&db, 2);
    let traced = tracer.interrupt();
    assert_eq!(traced.trace.calls.len(), 600, "{}", traced.ended.stderr);
}
