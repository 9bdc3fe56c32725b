//! What container runtimes keep on disk: IDs, names, pods, the first process.
//!
//! Read, never written, and asked of no daemon: what cannot be read or understood is not there. Sources: moby
//! `container/container.go` (`config.v2.json`); containerd `runtime/v2` (a folder for each task) and
//! `pkg/cri/annotations`; CRI-O `pkg/annotations`; containers/storage `containers.go`; runc `libcontainer/state_linux.go`;
//! crun `src/libcrun/status.c`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::cgroups;
use crate::target::{all_pids, comm_of, debugfiles, proc};

/// A container that a runtime knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) id: String,
    /// Its names, the one to show first.
    pub(super) names: Vec<String>,
    /// The pod it belongs to, and that pod's namespace.
    pub(super) pod: Option<(String, String)>,
    /// Its first process, as the runtime knows it; none when it does not run, or that is not said.
    pub(super) pid: Option<u32>,
    /// It only holds a pod's namespaces.
    pub(super) is_sandbox: bool,
    /// Directories of its cgroups.
    pub(super) cgroups: Vec<PathBuf>,
}

impl Known {
    /// What a person calls it.
    pub(super) fn shown(&self) -> String {
        match (&self.pod, self.names.first()) {
            (Some((pod, _)), Some(name)) => format!("{pod}/{name}"),
            (None, Some(name)) => name.clone(),
            (_, None) => short(&self.id).to_owned(),
        }
    }

    /// Whether a person may call it so.
    pub(super) fn is_called(&self, name: &str) -> bool {
        let within_pod = || name.rsplit_once('/').is_some_and(|(pod, own)| self.is_in_pod(pod) && self.has_name(own));
        self.id == name || self.has_name(name) || within_pod()
    }

    fn has_name(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }

    /// Whether it belongs to the pod of this name, which may stand behind its namespace and a slash.
    pub(super) fn is_in_pod(&self, name: &str) -> bool {
        let Some((pod, namespace)) = &self.pod else { return false };
        pod == name || name.split_once('/') == Some((namespace, pod))
    }
}

/// An ID as people write it: 12 of 64 digits.
pub(super) fn short(id: &str) -> &str {
    if id.len() == 64 { id.get(..12).unwrap_or(id) } else { id }
}

/// Bytes of a state file that are read at most.
const MOST_BYTES: u64 = 16 << 20;

fn json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&debugfiles::read(path, MOST_BYTES).ok()?).ok()
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str().filter(|text| !text.is_empty())
}

fn pid_in(value: &Value, key: &str) -> Option<u32> {
    value.get(key)?.as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid != 0)
}

fn pid_file(path: &Path) -> Option<u32> {
    let bytes = debugfiles::read(path, MOST_BYTES).ok()?;
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
}

/// What is in a folder, with the names there. What is no folder in turn has nothing in it.
fn folders(path: &Path) -> Vec<(String, PathBuf)> {
    let names = debugfiles::names_in(path).unwrap_or_default().into_iter();
    let mut found: Vec<_> = names.filter_map(|name| Some((name.to_str()?.to_owned(), path.join(&name)))).collect();
    found.sort();
    found
}

/// All containers that runtimes of this machine know, each once.
pub(super) fn all() -> Vec<Known> {
    let mut places: Vec<Place> = all_pids().into_iter().filter_map(place_of).collect();
    for root in proc::host_roots() {
        let at = |path: &str| root.join(path);
        places.extend(docker_roots(&root).into_iter().map(Place::Docker));
        places.push(Place::Containerd(at("run/containerd/io.containerd.runtime.v2.task")));
        places.push(Place::Storage(at("var/lib/containers/storage"), at("run/containers/storage")));
    }
    // Each container of podman has a process that names the same place, by another root's path.
    let mut seen = BTreeSet::new();
    places.retain(|place| place.identity().is_some_and(|identity| seen.insert(identity)));
    let mut found: Vec<Known> = places.iter().flat_map(Place::containers).collect();
    found.extend(named_freely());
    each_once(found)
}

/// Each container once, with all that is known of it: what is below a container engine (containerd's state of a Docker container)
/// adds what the engine does not say, and has no name for it.
fn each_once(found: Vec<Known>) -> Vec<Known> {
    let mut by_id: BTreeMap<String, Known> = BTreeMap::new();
    for known in found {
        let Some(before) = by_id.get_mut(&known.id) else {
            by_id.insert(known.id.clone(), known);
            continue;
        };
        before.names.extend(known.names);
        before.pod = before.pod.take().or(known.pod);
        before.pid = before.pid.or(known.pid);
        before.is_sandbox |= known.is_sandbox;
        before.cgroups.extend(known.cgroups);
    }
    by_id.into_values().collect()
}

/// Those whose IDs are no numbers: of the lowest runtimes, used alone. Their cgroups tell their processes.
pub(super) fn named_freely() -> Vec<Known> {
    let of = |root: PathBuf| [runc(&root.join("run/runc")), crun(&root.join("run/crun"))].concat();
    proc::host_roots().into_iter().flat_map(of).collect()
}

/// Docker's data folders below a root: the usual ones, and the one of its configuration.
fn docker_roots(root: &Path) -> Vec<PathBuf> {
    let configured = json(&root.join("etc/docker/daemon.json"));
    let configured = configured.as_ref().and_then(|value| text(value, "data-root")).map(str::to_owned);
    let mut paths = vec!["var/lib/docker".to_owned(), "var/snap/docker/common/var-lib-docker".to_owned()];
    paths.extend(configured);
    paths.iter().map(|path| root.join(path.trim_start_matches('/'))).collect()
}

/// Where a daemon keeps its state.
enum Place {
    Docker(PathBuf),
    /// Folders of tasks.
    Containerd(PathBuf),
    /// What is kept, and what there is while a container runs.
    Storage(PathBuf, PathBuf),
}

impl Place {
    /// Its folders, whatever path leads to them: device and inode numbers. None where there is no such place.
    fn identity(&self) -> Option<[(u64, u64); 2]> {
        let of = |path: &Path| debugfiles::folder(path).ok().map(|folder| (folder.dev(), folder.ino()));
        match self {
            Self::Docker(folder) | Self::Containerd(folder) => Some([of(folder)?; 2]),
            // What there is while a container runs need not be there.
            Self::Storage(kept, running) => Some([of(kept)?, of(running).unwrap_or_default()]),
        }
    }

    fn containers(&self) -> Vec<Known> {
        match self {
            Self::Docker(data) => docker(data),
            Self::Containerd(tasks) => containerd(tasks),
            Self::Storage(kept, running) => storage(kept, running),
        }
    }
}

/// The place that a process uses, if it is a daemon: root's own, and in no container, for anybody can call a program so.
fn place_of(pid: u32) -> Option<Place> {
    let comm = comm_of(pid).filter(|comm| matches!(&**comm, "dockerd" | "containerd-shim" | "conmon"))?;
    let is_roots = fs::metadata(proc::of(pid)).is_ok_and(|process| process.uid() == 0);
    if !is_roots || cgroups::of(pid).iter().any(|place| cgroups::container_id(&place.path).is_some()) {
        return None;
    }
    let line = fs::read(proc::of(pid).join("cmdline")).ok()?;
    let in_its_root = |path: &str| proc::of(pid).join("root").join(path.trim_start_matches('/'));
    Some(match &*comm {
        "dockerd" => {
            let data = option(&line, &["--data-root", "-g", "--graph"]).unwrap_or_else(|| "/var/lib/docker".to_owned());
            Place::Docker(in_its_root(&data))
        }
        // It works in the folder of its task: TASKS/NAMESPACE/ID.
        "containerd-shim" => {
            let task = fs::read_link(proc::of(pid).join("cwd")).ok()?;
            Place::Containerd(in_its_root(task.ancestors().nth(2)?.to_str()?))
        }
        // For each container of podman and CRI-O one: KEPT/overlay-containers/ID/userdata, RUNNING/…/ID/userdata/pidfile.
        _ => {
            let store =
                |option: String, levels| Some(in_its_root(Path::new(&option).ancestors().nth(levels)?.to_str()?));
            Place::Storage(
                store(option(&line, &["-b", "--bundle"])?, 3)?,
                store(option(&line, &["-p", "--container-pidfile"])?, 4)?,
            )
        }
    })
}

/// The path that an option has in a command line as `/proc` shows it: `--data-root DIR`, `--data-root=DIR`.
fn option(command_line: &[u8], names: &[&str]) -> Option<String> {
    let mut arguments = command_line.split(|&byte| byte == 0).filter_map(|argument| std::str::from_utf8(argument).ok());
    while let Some(argument) = arguments.next() {
        let (name, value) = argument.split_once('=').map_or((argument, None), |(name, value)| (name, Some(value)));
        if names.contains(&name) {
            return value.or_else(|| arguments.next()).filter(|path| path.starts_with('/')).map(str::to_owned);
        }
    }
    None
}

fn docker(root: &Path) -> Vec<Known> {
    folders(&root.join("containers")).into_iter().filter_map(|(id, folder)| docker_container(id, &folder)).collect()
}

fn docker_container(id: String, folder: &Path) -> Option<Known> {
    let config = json(&folder.join("config.v2.json"))?;
    let name = text(&config, "Name").map(|name| name.trim_start_matches('/').to_owned());
    let runs = config.pointer("/State/Running").and_then(Value::as_bool).unwrap_or(false);
    let pid = config.get("State").and_then(|state| pid_in(state, "Pid")).filter(|_| runs);
    let labels = config.pointer("/Config/Labels").cloned().unwrap_or_default();
    // Kubernetes with Docker below it.
    let pod = text(&labels, "io.kubernetes.pod.name").zip(text(&labels, "io.kubernetes.pod.namespace"));
    let inner = text(&labels, "io.kubernetes.container.name").map(str::to_owned);
    Some(Known {
        id,
        names: inner.into_iter().chain(name).collect(),
        pod: pod.map(owned),
        pid,
        is_sandbox: text(&labels, "io.kubernetes.docker.type") == Some("podsandbox"),
        cgroups: Vec::new(),
    })
}

fn owned((first, second): (&str, &str)) -> (String, String) {
    (first.to_owned(), second.to_owned())
}

/// `NAMESPACE/ID/{config.json,init.pid}`.
fn containerd(tasks: &Path) -> Vec<Known> {
    let tasks = folders(tasks).into_iter().flat_map(|(_, namespace)| folders(&namespace));
    let tasks = tasks.filter(|(_, folder)| debugfiles::names_in(folder).is_ok());
    tasks.map(|(id, folder)| annotated(id, &folder.join("config.json"), pid_file(&folder.join("init.pid")))).collect()
}

/// By the annotations that CRI runtimes give.
fn annotated(id: String, config: &Path, pid: Option<u32>) -> Known {
    let config = json(config).unwrap_or_default();
    let annotations = config.get("annotations").cloned().unwrap_or_default();
    let first = |keys: &[&str]| keys.iter().find_map(|key| text(&annotations, key)).map(str::to_owned);
    let name = first(&["io.kubernetes.cri.container-name", "io.kubernetes.container.name", "nerdctl/name"]);
    let pod = first(&["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]);
    let namespace = first(&["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"]);
    let kind = first(&["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"]);
    Known {
        id,
        names: name.into_iter().collect(),
        pod: pod.map(|pod| (pod, namespace.unwrap_or_default())),
        pid,
        is_sandbox: kind.as_deref() == Some("sandbox"),
        cgroups: Vec::new(),
    }
}

/// A container's annotation that names its pod's sandbox, of podman and CRI-O.
const SANDBOX: &str = "io.kubernetes.cri-o.SandboxID";

/// podman and CRI-O: `overlay-containers/containers.json` names them, `ID/userdata` has what runs.
fn storage(kept: &Path, running: &Path) -> Vec<Known> {
    let (kept, running) = (kept.join("overlay-containers"), running.join("overlay-containers"));
    let list = json(&kept.join("containers.json")).unwrap_or_default();
    let entries = list.as_array().cloned().unwrap_or_default();
    let config = |id: &str| {
        let config =
            Some(running.join(id).join("userdata/config.json")).filter(|path| debugfiles::metadata(path).is_ok());
        config.unwrap_or_else(|| kept.join(id).join("userdata/config.json"))
    };
    let sandbox_of = |id: &str| text(json(&config(id))?.get("annotations")?, SANDBOX).map(str::to_owned);
    // podman calls a pod's host as the pod, unless it is told otherwise, and writes the name nowhere else that we can read.
    let host = |id: &str| text(&json(&config(id))?, "hostname").map(str::to_owned);
    let known = |entry: &Value| {
        let id = text(entry, "id")?.to_owned();
        let pid = pid_file(&running.join(&id).join("userdata/pidfile"));
        let mut known = annotated(id.clone(), &config(&id), pid);
        if known.pod.is_none() {
            known.pod = sandbox_of(&id).and_then(|sandbox| Some((host(&sandbox)?, String::new())));
        }
        let names = entry.get("names").and_then(Value::as_array).cloned().unwrap_or_default();
        known.names.extend(names.iter().filter_map(|name| Some(name.as_str()?.to_owned())));
        Some(known)
    };
    entries.iter().filter_map(known).collect()
}

/// `ID/state.json`.
fn runc(root: &Path) -> Vec<Known> {
    let known = |(id, folder): (String, PathBuf)| {
        let state = json(&folder.join("state.json"))?;
        let paths = state.get("cgroup_paths").and_then(Value::as_object).cloned().unwrap_or_default();
        let cgroups = paths.values().filter_map(|path| Some(PathBuf::from(path.as_str()?))).collect();
        let pid = pid_in(&state, "init_process_pid");
        Some(Known { names: vec![id.clone()], id, pid, cgroups, ..Known::default() })
    };
    folders(root).into_iter().filter_map(known).collect()
}

/// `ID/status`.
fn crun(root: &Path) -> Vec<Known> {
    let known = |(id, folder): (String, PathBuf)| {
        let status = json(&folder.join("status"))?;
        let cgroups = text(&status, "cgroup-path").map(PathBuf::from).into_iter().collect();
        let pid = pid_in(&status, "pid");
        Some(Known { names: vec![id.clone()], id, pid, cgroups, ..Known::default() })
    };
    folders(root).into_iter().filter_map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "a417fb7e56b99d38aa72063309b949f307f1a63278a6d7c79569efb4c39c917c";

    fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join(path.replace("ID", ID));
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text.replace("\"ID\"", &format!("{ID:?}"))).expect("a file");
        }
        folder
    }

    fn pod(name: &str, namespace: &str) -> Option<(String, String)> {
        Some((name.to_owned(), namespace.to_owned()))
    }

    #[test]
    fn a_container_of_docker_has_the_name_that_was_given_and_its_process_while_it_runs() {
        let config = r#"{"ID":"ID","Name":"/web","State":{"Running":true,"Pid":4711},"Config":{"Labels":{}}}"#;
        let root = written(&[("containers/ID/config.v2.json", config), ("containers/broken/config.v2.json", "{")]);
        let [web] = docker(root.path()).try_into().expect("one");
        let expected = Known { id: ID.into(), names: vec!["web".into()], pid: Some(4711), ..Known::default() };
        assert_eq!(web, expected);
        assert_eq!(web.shown(), "web");
        let stopped = config.replace("true", "false");
        let root = written(&[("containers/ID/config.v2.json", &stopped)]);
        assert_eq!(docker(root.path())[0].pid, None);
    }

    #[test]
    fn a_container_of_kubernetes_is_called_by_its_own_name_and_its_pods() {
        let cri = r#"{"annotations":{"io.kubernetes.cri.container-name":"app","io.kubernetes.cri.sandbox-name":"web-7d9f",
            "io.kubernetes.cri.sandbox-namespace":"shop","io.kubernetes.cri.container-type":"container"}}"#;
        let root = written(&[("k8s.io/ID/config.json", cri), ("k8s.io/ID/init.pid", "4711\n")]);
        let [app] = containerd(root.path()).try_into().expect("one");
        assert_eq!((app.pod.clone(), app.pid, app.is_sandbox), (pod("web-7d9f", "shop"), Some(4711), false));
        assert_eq!(app.shown(), "web-7d9f/app");
        for (name, called) in
            [("app", true), ("web-7d9f/app", true), ("shop/web-7d9f/app", true), (ID, true), ("web-7d9f", false)]
        {
            assert_eq!(app.is_called(name), called, "{name}");
        }
        for (name, inside) in [("web-7d9f", true), ("shop/web-7d9f", true), ("other/web-7d9f", false), ("web", false)] {
            assert_eq!(app.is_in_pod(name), inside, "{name}");
        }
        let sandbox = cri.replace(r#"-type":"container"#, r#"-type":"sandbox"#);
        assert!(containerd(written(&[("k8s.io/ID/config.json", &sandbox)]).path())[0].is_sandbox);
    }

    #[test]
    fn containers_of_podman_and_cri_o_are_named_by_their_common_store() {
        let list = r#"[{"id":"ID","names":["web"]},{"names":["nameless"]}]"#;
        let kept = written(&[("overlay-containers/containers.json", list)]);
        let running = written(&[("overlay-containers/ID/userdata/pidfile", "4711")]);
        let [web] = storage(kept.path(), running.path()).try_into().expect("one");
        assert_eq!((web.shown(), web.pid), ("web".to_owned(), Some(4711)));
        let annotations = r#"{"annotations":{"io.kubernetes.container.name":"app","io.kubernetes.pod.name":"p",
            "io.kubernetes.pod.namespace":"n","io.kubernetes.cri-o.ContainerType":"container"}}"#;
        let running = written(&[("overlay-containers/ID/userdata/config.json", annotations)]);
        let [app] = storage(kept.path(), running.path()).try_into().expect("one");
        assert_eq!((app.shown(), app.pod.clone()), ("p/app".to_owned(), pod("p", "n")));
    }

    #[test]
    fn a_pod_of_podman_is_called_like_the_host_of_its_sandbox() {
        let sandbox = ID.replacen('a', "b", 1);
        let list = format!(r#"[{{"id":"ID","names":["web"]}},{{"id":"{sandbox}","names":["1-infra"]}}]"#);
        let config = format!(r#"{{"annotations":{{"{SANDBOX}":"{sandbox}","io.container.manager":"libpod"}}}}"#);
        let of_sandbox = format!("overlay-containers/{sandbox}/userdata/config.json");
        let kept = written(&[
            ("overlay-containers/containers.json", &list),
            ("overlay-containers/ID/userdata/config.json", &config),
            (&of_sandbox, r#"{"hostname":"shop","annotations":{}}"#),
        ]);
        let [web, infra] = storage(kept.path(), kept.path()).try_into().expect("two");
        assert!(web.is_in_pod("shop") && web.is_called("web") && web.is_called("shop/web"), "{web:?}");
        assert!(!infra.is_in_pod("shop"), "it holds namespaces only: {infra:?}");
    }

    #[test]
    fn runc_and_crun_name_their_containers_by_their_folders() {
        let state = r#"{"id":"web","init_process_pid":4711,"cgroup_paths":{"memory":"/sys/fs/cgroup/memory/web"}}"#;
        let [web] = runc(written(&[("web/state.json", state)]).path()).try_into().expect("one");
        assert_eq!((web.shown(), web.pid), ("web".to_owned(), Some(4711)));
        assert_eq!(web.cgroups, [Path::new("/sys/fs/cgroup/memory/web")]);
        let [web] =
            crun(written(&[("web/status", r#"{"pid":4712,"cgroup-path":"/web"}"#)]).path()).try_into().expect("one");
        assert_eq!((web.shown(), web.pid), ("web".to_owned(), Some(4712)));
    }

    #[test]
    fn what_several_say_of_a_container_is_put_together_whoever_is_asked_first() {
        let engine = Known { id: ID.into(), names: vec!["web".into()], ..Known::default() };
        let below = Known { id: ID.into(), pid: Some(4711), cgroups: vec!["/docker/web".into()], ..Known::default() };
        let whole = Known { pid: below.pid, cgroups: below.cgroups.clone(), ..engine.clone() };
        assert_eq!(each_once(vec![engine.clone(), below.clone()]), std::slice::from_ref(&whole));
        assert_eq!(each_once(vec![below, engine]), [whole]);
    }

    #[test]
    fn a_daemon_says_in_its_command_line_where_its_data_is() {
        for (line, root) in [
            ("dockerd\0--data-root\0/srv/docker\0", Some("/srv/docker")),
            ("dockerd\0--data-root=/srv/docker\0-H\0fd://\0", Some("/srv/docker")),
            ("dockerd\0-g\0/srv/docker\0", Some("/srv/docker")),
            ("dockerd\0-H\0fd://\0", None),
            ("dockerd\0--data-root\0", None),
        ] {
            assert_eq!(option(line.as_bytes(), &["--data-root", "-g"]).as_deref(), root, "{line:?}");
        }
    }
}
