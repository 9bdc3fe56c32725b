//! Control groups: which a process is in, and by what number the kernel knows them.
//!
//! In: `/proc/PID/cgroup` and the mounted hierarchies. Out: paths, and the inodes of their directories, which are the
//! kernel's ids. Source: cgroups(7).

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::Kind;
use crate::target::proc;

/// A process's place in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// `memory`, `cpu,cpuacct`; empty in the second version.
    pub(super) controllers: String,
    /// From the hierarchy's root, as it is seen from here.
    pub(super) path: String,
}

/// The places of a process; none when it has ended.
pub(super) fn of(pid: u32) -> Vec<Place> {
    let text = fs::read(proc::of(pid).join("cgroup")).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().filter_map(parse).collect()
}

/// `4:memory:/docker/9c22…`
fn parse(line: &str) -> Option<Place> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?.to_owned(), fields.next()?.to_owned());
    Some(Place { controllers, path })
}

/// A hierarchy that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// What of it is mounted.
    root: String,
    /// Where, from here.
    point: PathBuf,
    /// Where, as the machine itself names it.
    machines: PathBuf,
    /// Of the first version: its controllers. A named hierarchy has none.
    controllers: Option<Vec<String>>,
}

/// The hierarchies, the second version first.
pub(super) fn mounts() -> Vec<Mount> {
    let (table, root) = if proc::is_own() {
        (PathBuf::from("/proc/self/mountinfo"), PathBuf::from("/"))
    } else {
        (proc::of(1).join("mountinfo"), proc::host_root())
    };
    let text = fs::read(table).unwrap_or_default();
    let mut found: Vec<Mount> =
        String::from_utf8_lossy(&text).lines().filter_map(|line| parse_mount(line, &root)).collect();
    found.sort_by_key(|mount| mount.controllers.is_some());
    found
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - cgroup cgroup rw,memory`
fn parse_mount(line: &str, host: &Path) -> Option<Mount> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, point) = (place.next()?, place.next()?);
    let mut kind = kind.split(' ');
    let controllers = match kind.next()? {
        "cgroup2" => None,
        "cgroup" => Some(kind.nth(1)?.split(',').filter(|name| is_controller(name)).map(str::to_owned).collect()),
        _ => return None,
    };
    let (root, machines) = (root.to_owned(), PathBuf::from(point));
    Some(Mount { root, point: host.join(point.strip_prefix('/')?), machines, controllers })
}

/// Options of the mount stand beside the controllers.
fn is_controller(option: &str) -> bool {
    const CONTROLLERS: [&str; 15] = [
        "blkio",
        "cpu",
        "cpuacct",
        "cpuset",
        "devices",
        "dmem",
        "freezer",
        "hugetlb",
        "memory",
        "misc",
        "net_cls",
        "net_prio",
        "perf_event",
        "pids",
        "rdma",
    ];
    CONTROLLERS.contains(&option)
}

impl Mount {
    /// How its groups are told in the kernel half; none for a hierarchy that has only a name.
    fn kind(&self) -> Option<Kind> {
        match &self.controllers {
            None => Some(Kind::Cgroup2),
            Some(controllers) => Some(Kind::Cgroup1(controllers.first()?.clone())),
        }
    }

    fn has(&self, place: &Place) -> bool {
        match &self.controllers {
            None => place.controllers.is_empty(),
            Some(own) => own.iter().any(|own| place.controllers.split(',').any(|name| name == own)),
        }
    }

    /// The directory of a group.
    fn directory(&self, path: &str) -> Option<PathBuf> {
        let below = match self.root.as_str() {
            "/" => path,
            root => path.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/'))?,
        };
        // From within a namespace of cgroups what is outside of it begins with `..`, and the mount's root with it.
        if below.split('/').any(|part| part == "..") {
            return find_below(&self.point, below.trim_start_matches("/.."));
        }
        let directory = self.point.join(below.trim_start_matches('/'));
        directory.is_dir().then_some(directory)
    }
}

/// Directories of a hierarchy that are looked at: machines have thousands.
const MOST_DIRECTORIES: usize = 100_000;

/// The one directory whose path ends like this.
fn find_below(point: &Path, end: &str) -> Option<PathBuf> {
    let end = end.trim_start_matches('/');
    let mut found = None;
    let mut open = vec![point.to_owned()];
    let mut seen = 0;
    while let Some(directory) = open.pop() {
        seen += 1;
        if seen > MOST_DIRECTORIES || end.is_empty() {
            return None;
        }
        if directory.ends_with(end) && found.replace(directory.clone()).is_some() {
            return None;
        }
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        open.extend(entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
    }
    found
}

/// A group: what tells it in the kernel half, and where its processes say that they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) kind: Kind,
    /// The kernel's id: the inode of its directory.
    pub(super) id: u64,
    /// What `/proc/PID/cgroup` shows of its own processes.
    pub(super) place: Place,
    /// Its directory.
    pub(super) directory: PathBuf,
}

impl Group {
    /// Whether it was not removed, nor made anew.
    pub(super) fn is_there(&self) -> bool {
        fs::metadata(&self.directory).is_ok_and(|metadata| metadata.ino() == self.id)
    }

    /// Whether a process is in it, or in one below it.
    pub(super) fn holds(&self, places: &[Place]) -> bool {
        places.iter().any(|place| {
            place.controllers == self.place.controllers
                && place
                    .path
                    .strip_prefix(&self.place.path)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || self.place.path == "/")
        })
    }
}

/// The group of a container, of which one process is at `places`: in the first hierarchy in which it has one of its own.
pub(super) fn group_of(mounts: &[Mount], places: &[Place], owns: impl Fn(&str) -> Option<String>) -> Option<Group> {
    mounts.iter().find_map(|mount| {
        let place = places.iter().find(|place| mount.has(place))?;
        let place = Place { path: owns(&place.path)?, ..place.clone() };
        let directory = mount.directory(&place.path)?;
        Some(Group { kind: mount.kind()?, id: fs::metadata(&directory).ok()?.ino(), place, directory })
    })
}

/// The id of our own group in the hierarchy of this kind.
pub(super) fn own(kind: &Kind) -> Option<u64> {
    let places = of(proc::own_pid());
    let mounts = mounts();
    let mount = mounts.iter().find(|mount| mount.kind().as_ref() == Some(kind))?;
    let place = places.iter().find(|place| mount.has(place))?;
    Some(fs::metadata(mount.directory(&place.path)?).ok()?.ino())
}

/// The group that a person names: by its directory, or as `/proc/PID/cgroup` names it.
///
/// # Errors
/// There is none.
pub(super) fn named(name: &Path) -> Result<Group> {
    let mounts = mounts();
    if mounts.is_empty() {
        bail!("failed to find cgroup {}: no cgroup file system is mounted", name.display());
    }
    let shown = name.display();
    // As it is seen here: the machine's own tree may be elsewhere.
    let here = proc::host_root().join(name.strip_prefix("/").unwrap_or(name));
    let here = if name.is_absolute() { here } else { name.to_owned() };
    // Through another's root no path is to be made canonical: the link to that root would be read as one to ours.
    let real = if proc::is_own() { fs::canonicalize(&here).unwrap_or(here) } else { here };
    let by_directory = mounts.iter().filter_map(|mount| Some((mount, real.strip_prefix(&mount.point).ok()?)));
    // Of nested mounts the innermost is meant.
    if let Some((mount, below)) = by_directory.max_by_key(|(mount, _)| mount.point.components().count()) {
        let metadata = fs::metadata(&real).with_context(|| format!("failed to find cgroup {shown}"))?;
        if !metadata.is_dir() {
            bail!("failed to find cgroup {shown}: not a directory");
        }
        let path = joined(&mount.root, &below.to_string_lossy());
        return group(mount, path, real.clone(), metadata.ino(), &shown.to_string());
    }
    let path = joined("/", &name.to_string_lossy());
    let found = mounts.iter().filter_map(|mount| Some((mount, mount.directory(&path)?)));
    let mut first_error = None;
    for (mount, directory) in found {
        let id = fs::metadata(&directory).with_context(|| format!("failed to find cgroup {shown}"))?.ino();
        match group(mount, path.clone(), directory, id, &shown.to_string()) {
            Ok(group) => return Ok(group),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    let points: Vec<String> = mounts.iter().map(|mount| mount.point.display().to_string()).collect();
    Err(first_error
        .unwrap_or_else(|| anyhow!("failed to find cgroup {shown}: no such directory in {}", points.join(", "))))
}

fn group(mount: &Mount, path: String, directory: PathBuf, id: u64, shown: &str) -> Result<Group> {
    let kind = mount.kind().with_context(|| {
        format!("failed to use cgroup {shown}: its hierarchy has a name and no controller; name it in one that has")
    })?;
    let controllers = mount.controllers.as_ref().map(|own| own.join(",")).unwrap_or_default();
    Ok(Group { kind, id, place: Place { controllers, path }, directory })
}

fn joined(root: &str, below: &str) -> String {
    let parts = root.split('/').chain(below.split('/')).filter(|part| !part.is_empty());
    let path = parts.fold(String::new(), |path, part| path + "/" + part);
    if path.is_empty() { "/".to_owned() } else { path }
}

/// Digits of a container's ID in a cgroup's path.
const ID_DIGITS: usize = 64;

/// The ID of the innermost container that a path names: `/docker/ID`, `/system.slice/docker-ID.scope`,
/// `/kubepods/besteffort/podUID/ID`, `cri-containerd-ID.scope`, `crio-ID.scope`, `libpod-ID.scope`.
pub(super) fn container_id(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(id_in)
}

fn id_in(part: &str) -> Option<&str> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    // `libpod-conmon-ID` and `crio-conmon-ID` hold the runtime's own process.
    let id = name.rsplit('-').next()?;
    (id.len() == ID_DIGITS && is_hex(id) && !name.contains("-conmon-")).then_some(id)
}

/// Whether it could be (the beginning of) a container's ID.
pub(super) fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The part of a path up to where it names this container.
pub(super) fn up_to_id(path: &str, id: &str) -> Option<String> {
    let mut end = 0;
    for part in path.split('/') {
        end += part.len();
        let name = part.strip_suffix(".scope").unwrap_or(part);
        if name == id || name.strip_suffix(id).is_some_and(|before| before.ends_with('-')) && id_in(part) == Some(id) {
            return path.get(..end).map(str::to_owned);
        }
        end += 1;
    }
    None
}

/// The part of a path up to a group that is one of these: directories, or paths as `/proc/PID/cgroup` has them.
pub(super) fn up_to_one_of(path: &str, groups: &[PathBuf], mounts: &[Mount]) -> Option<String> {
    let is_group = |part: &Path| {
        let inside = part.strip_prefix("/").unwrap_or(part);
        let is_it = |group: &PathBuf| {
            group == part
                || mounts.iter().any(|mount| group.strip_prefix(&mount.machines).is_ok_and(|own| own == inside))
        };
        part != Path::new("/") && groups.iter().any(is_it)
    };
    let found = Path::new(path).ancestors().find(|part| is_group(part))?;
    Some(found.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "a417fb7e56b99d38aa72063309b949f307f1a63278a6d7c79569efb4c39c917c";
    const OTHER: &str = "b417fb7e56b99d38aa72063309b949f307f1a63278a6d7c79569efb4c39c917c";

    /// As runtimes and drivers name them: Docker (cgroupfs, systemd), containerd and CRI-O under Kubernetes, podman.
    #[test]
    fn a_container_is_known_by_the_paths_of_every_runtime() {
        for (path, up_to) in [
            (format!("/docker/{ID}"), format!("/docker/{ID}")),
            (format!("/system.slice/docker-{ID}.scope"), format!("/system.slice/docker-{ID}.scope")),
            (format!("/system.slice/docker-{ID}.scope/init.scope"), format!("/system.slice/docker-{ID}.scope")),
            (format!("/kubepods/besteffort/pod1-2/{ID}"), format!("/kubepods/besteffort/pod1-2/{ID}")),
            (
                format!("/kubepods.slice/kubepods-pod1_2.slice/cri-containerd-{ID}.scope"),
                format!("/kubepods.slice/kubepods-pod1_2.slice/cri-containerd-{ID}.scope"),
            ),
            (format!("/kubepods.slice/crio-{ID}.scope/container"), format!("/kubepods.slice/crio-{ID}.scope")),
            (format!("/machine.slice/libpod-{ID}.scope/container"), format!("/machine.slice/libpod-{ID}.scope")),
            (format!("/../../docker/{ID}"), format!("/../../docker/{ID}")),
            (format!("/docker/{OTHER}/docker/{ID}"), format!("/docker/{OTHER}/docker/{ID}")),
        ] {
            assert_eq!(container_id(&path), Some(ID), "{path}");
            assert_eq!(up_to_id(&path, ID), Some(up_to), "{path}");
        }
        for path in ["/", "/user.slice", &format!("/machine.slice/libpod-conmon-{ID}.scope"), &format!("/{}", &ID[1..])]
        {
            assert_eq!(container_id(path), None, "{path}");
        }
        assert_eq!(up_to_id(&format!("/docker/{OTHER}"), ID), None);
        assert_eq!(up_to_id("/runc/web", "web"), Some("/runc/web".to_owned()));
        assert_eq!(up_to_id("/runc/my-web", "web"), None);
    }

    #[test]
    fn a_group_holds_what_is_below_it_and_not_what_only_begins_like_it() {
        let place = |path: &str| Place { controllers: String::new(), path: path.to_owned() };
        let group = Group { kind: Kind::Cgroup2, id: 1, place: place("/a/b"), directory: PathBuf::new() };
        for (path, held) in [("/a/b", true), ("/a/b/c", true), ("/a/bc", false), ("/a", false), ("/", false)] {
            assert_eq!(group.holds(&[place(path)]), held, "{path}");
        }
        let memory = Place { controllers: "memory".to_owned(), path: "/a/b".to_owned() };
        assert!(!group.holds(&[memory]));
    }

    #[test]
    fn mounts_of_both_versions_are_read_and_others_are_not() {
        let mount = |line: &str| parse_mount(line, Path::new("/"));
        let v1 = mount("81 80 0:29 /docker/x /sys/fs/cgroup/cpu ro,nosuid master:3 - cgroup cgroup rw,cpu,cpuacct");
        let v1 = v1.expect("a mount");
        assert_eq!(v1.kind(), Some(Kind::Cgroup1("cpu".to_owned())));
        assert_eq!((v1.root.as_str(), v1.point.as_path()), ("/docker/x", Path::new("/sys/fs/cgroup/cpu")));
        let v2 = mount("30 1 0:27 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate").expect("a mount");
        assert_eq!(v2.kind(), Some(Kind::Cgroup2));
        let named = mount("30 1 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd").expect("a mount");
        assert_eq!(named.kind(), None);
        assert_eq!(mount("22 1 0:20 / /proc rw - proc proc rw"), None);
        assert_eq!(mount("nonsense"), None);
    }

    #[test]
    fn a_group_that_a_runtime_names_by_its_directory_is_found_in_a_path() {
        let mount = parse_mount("1 1 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory", Path::new("/"));
        let mounts = [mount.expect("a mount")];
        let directory = [PathBuf::from("/sys/fs/cgroup/memory/runs/web")];
        let relative = [PathBuf::from("/runs/web")];
        for (path, expected) in [
            ("/runs/web", Some("/runs/web")),
            ("/runs/web/inner", Some("/runs/web")),
            ("/web", None),
            ("/runs", None),
            ("/", None),
        ] {
            for groups in [&directory, &relative] {
                assert_eq!(up_to_one_of(path, groups, &mounts).as_deref(), expected, "{path}");
            }
        }
    }

    #[test]
    fn our_own_groups_are_found_where_the_kernel_says_that_we_are() {
        let own = of(proc::own_pid());
        assert!(!own.is_empty());
        for mount in mounts() {
            let Some(place) = own.iter().find(|place| mount.has(place)) else { continue };
            let directory = mount.directory(&place.path).expect("the directory of our group");
            let members = fs::read_to_string(directory.join("cgroup.procs")).expect("its processes");
            assert!(members.lines().any(|pid| pid == std::process::id().to_string()), "{}", directory.display());
        }
    }

    #[test]
    fn a_group_that_is_not_there_is_an_error_that_says_where_it_was_looked_for() {
        let said = named(Path::new("no/such/group")).expect_err("none").to_string();
        assert!(said.contains("no/such/group") && said.contains("/sys/fs/cgroup"), "{said}");
    }
}
