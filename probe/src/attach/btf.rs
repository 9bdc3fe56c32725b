//! Offsets of members of kernel structures, from the kernel's own BTF.
//!
//! In: the bytes of `/sys/kernel/btf/vmlinux`. Out: byte offsets. aya-ebpf has no CO-RE, so they are set as globals
//! of the programs.
//!
//! Source: Documentation/bpf/btf.rst.

use probe_ebpf::abi::{GroupOffsets, NOT_THROUGH, TrapOffsets};

use crate::target::containers::Kind;

/// A struct or union, by its position in the type section.
struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type begins, by id.
    starts: Vec<usize>,
}

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const MAGIC: u16 = 0xeb9f;
/// Structures within structures are followed so far.
const MAX_DEPTH: u32 = 8;

/// Offsets in bytes; 0: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelOffsets {
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `signal_struct.live`
    pub signal_live: u32,
    /// `task_struct.thread.fsbase` (x86-64), `task_struct.thread.uw.tp_value` (arm64)
    pub task_tp: u32,
    /// `task_struct.mm`
    pub task_mm: u32,
    /// `mm_struct.start_stack`
    pub mm_start_stack: u32,
    /// `task_struct.sas_ss_sp`, with `sas_ss_size` right behind it.
    pub task_alternate: u32,
    /// What the kernel keeps of return probes; all 0 where one is not known.
    pub returns: ReturnOffsets,
}

/// Offsets on the way to the returns that a thread's return probes wait for, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReturnOffsets {
    /// `task_struct.utask`
    pub task_utask: u32,
    /// `uprobe_task.return_instances`
    pub first: u32,
    /// `return_instance.stack`
    pub stack: u32,
    /// `return_instance.orig_ret_vaddr`
    pub address: u32,
    /// `return_instance.next`
    pub next: u32,
}

/// Reads the offsets; none when the bytes are no BTF or lack the members.
pub fn kernel_offsets(btf: &[u8]) -> Option<KernelOffsets> {
    let types = Types::parse(btf)?;
    let task = types.find("task_struct")?;
    let signal = types.find("signal_struct")?;
    let thread =
        if cfg!(target_arch = "aarch64") { ["thread", "uw", "tp_value"].as_slice() } else { &["thread", "fsbase"] };
    Some(KernelOffsets {
        task_tgid: types.offset(task, &["tgid"])?,
        task_signal: types.offset(task, &["signal"])?,
        signal_live: types.offset(signal, &["live"])?,
        task_tp: types.offset(task, thread)?,
        task_mm: types.offset(task, &["mm"])?,
        mm_start_stack: types.find("mm_struct").and_then(|mm| types.offset(mm, &["start_stack"])).unwrap_or(0),
        task_alternate: alternate_stack(&types, task).unwrap_or(0),
        returns: returns(&types, task).unwrap_or_default(),
    })
}

/// The offsets by which the kernel half finds the numbers that a process has in its PID namespaces; none when the bytes are no
/// BTF or lack the members.
pub fn namespace_offsets(btf: &[u8]) -> Option<GroupOffsets> {
    let types = Types::parse(btf)?;
    let within = |structure: &str, path: &[&str]| types.offset(types.find(structure)?, path);
    Some(GroupOffsets {
        task_thread_pid: within("task_struct", &["thread_pid"])?,
        pid_level: within("pid", &["level"])?,
        pid_numbers: within("pid", &["numbers"])?,
        upid_size: types.size(types.find("upid")?)?,
        upid_nr: within("upid", &["nr"])?,
        upid_ns: within("upid", &["ns"])?,
        namespace_inum: within("pid_namespace", &["ns", "inum"])?,
        ..GroupOffsets::default()
    })
}

/// The same for its groups of this kind.
pub fn group_offsets(btf: &[u8], kind: &Kind) -> Option<GroupOffsets> {
    let namespaces = namespace_offsets(btf);
    if *kind == Kind::PidNamespace {
        return namespaces;
    }
    let types = Types::parse(btf)?;
    let task = types.find("task_struct")?;
    let within = |structure: &str, path: &[&str]| types.offset(types.find(structure)?, path);
    let (set_group, group_through) = match kind {
        Kind::Cgroup1(controller) => {
            // `blkio` is the old name of `io`.
            let controller = if controller == "blkio" { "io" } else { controller };
            let position = types.enumerator(&format!("{controller}_cgrp_id"))?;
            let first = within("css_set", &["subsys"])?;
            (first.checked_add(position.checked_mul(8)?)?, within("cgroup_subsys_state", &["cgroup"])?)
        }
        _ => (within("css_set", &["dfl_cgrp"])?, NOT_THROUGH),
    };
    // Linux 6.1: include/linux/cgroup-defs.h, `ancestors` in the place of `ancestor_ids`.
    let (cgroup_ancestors, ancestors_are_ids) = match within("cgroup", &["ancestors"]) {
        Some(ancestors) => (ancestors, 0),
        None => (within("cgroup", &["ancestor_ids"])?, 1),
    };
    Some(GroupOffsets {
        task_cgroups: types.offset(task, &["cgroups"])?,
        set_group,
        group_through,
        cgroup_level: within("cgroup", &["level"])?,
        cgroup_ancestors,
        ancestors_are_ids,
        cgroup_kn: within("cgroup", &["kn"])?,
        node_id: within("kernfs_node", &["id"])?,
        ..namespaces.unwrap_or_default()
    })
}

/// The offsets by which the kernel half times traps; none when the bytes are no BTF or lack the members.
pub fn trap_offsets(btf: &[u8]) -> Option<TrapOffsets> {
    let types = Types::parse(btf)?;
    let task = types.find("task_struct")?;
    Some(TrapOffsets {
        task_utask: types.offset(task, &["utask"])?,
        utask_active: types.offset(types.find("uprobe_task")?, &["active_uprobe"])?,
        task_pid: types.offset(task, &["pid"])?,
    })
}

/// Whether there is a type of this name that stands for another.
pub fn has_type(btf: &[u8], name: &str) -> bool {
    Types::parse(btf).is_some_and(|types| types.find_kind(name, KIND_TYPEDEF).is_some())
}

/// Where a thread's alternate signal stack is kept: two words, the kernel half reads them at once.
fn alternate_stack(types: &Types<'_>, task: usize) -> Option<u32> {
    let (lowest, size) = (types.offset(task, &["sas_ss_sp"])?, types.offset(task, &["sas_ss_size"])?);
    (lowest.checked_add(8)? == size).then_some(lowest)
}

fn returns(types: &Types<'_>, task: usize) -> Option<ReturnOffsets> {
    let instance = types.find("return_instance")?;
    Some(ReturnOffsets {
        task_utask: types.offset(task, &["utask"])?,
        first: types.offset(types.find("uprobe_task")?, &["return_instances"])?,
        stack: types.offset(instance, &["stack"])?,
        address: types.offset(instance, &["orig_ret_vaddr"])?,
        next: types.offset(instance, &["next"])?,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

struct Head {
    name: u32,
    kind: u32,
    count: u32,
    /// The kernel's `kind_flag`: member offsets carry a bit field size in their upper 8 bits.
    flag: bool,
    /// Size or type, by kind.
    value: u32,
}

impl<'a> Types<'a> {
    fn parse(btf: &'a [u8]) -> Option<Self> {
        if u16::from_ne_bytes(btf.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let header = word(btf, 4)? as usize;
        let section = |at: usize| {
            let (offset, len) = (word(btf, at)? as usize, word(btf, at + 4)? as usize);
            let start = header.checked_add(offset)?;
            btf.get(start..start.checked_add(len)?)
        };
        let mut types = Self { types: section(8)?, strings: section(16)?, starts: vec![usize::MAX] };
        let mut at = 0;
        while at < types.types.len() {
            types.starts.push(at);
            at = at.checked_add(12)?.checked_add(types.head(at)?.extra()?)?;
        }
        Some(types)
    }

    fn head(&self, at: usize) -> Option<Head> {
        let info = word(self.types, at.checked_add(4)?)?;
        Some(Head {
            name: word(self.types, at)?,
            kind: info >> 24 & 0x1f,
            count: info & 0xffff,
            flag: info >> 31 != 0,
            value: word(self.types, at.checked_add(8)?)?,
        })
    }

    fn name(&self, offset: u32) -> Option<&[u8]> {
        let rest = self.strings.get(offset as usize..)?;
        rest.split(|&b| b == 0).next()
    }

    /// The structure with this name.
    fn find(&self, name: &str) -> Option<usize> {
        self.find_kind(name, KIND_STRUCT)
    }

    fn find_kind(&self, name: &str, kind: u32) -> Option<usize> {
        self.starts
            .iter()
            .skip(1)
            .copied()
            .find(|&at| self.head(at).is_some_and(|h| h.kind == kind && self.name(h.name) == Some(name.as_bytes())))
    }

    /// Bytes of a structure.
    fn size(&self, structure: usize) -> Option<u32> {
        Some(self.head(structure)?.value)
    }

    /// The value of an enumeration's constant.
    fn enumerator(&self, name: &str) -> Option<u32> {
        let within = |&at: &usize| {
            let head = self.head(at).filter(|head| head.kind == KIND_ENUM)?;
            let constants = (0..head.count as usize).map(|number| at + 12 + number * 8);
            constants
                .filter(|&constant| word(self.types, constant).and_then(|own| self.name(own)) == Some(name.as_bytes()))
                .find_map(|constant| word(self.types, constant + 4))
        };
        self.starts.iter().skip(1).find_map(within)
    }

    fn offset(&self, structure: usize, path: &[&str]) -> Option<u32> {
        let (first, rest) = path.split_first()?;
        let (bits, member) = self.member(structure, first, MAX_DEPTH)?;
        let inner = if rest.is_empty() { 0 } else { self.offset(self.resolve(member)?, rest)? };
        (bits / 8).checked_add(inner)
    }

    /// Bit offset and type of a member, also of anonymous structures within.
    fn member(&self, structure: usize, name: &str, depth: u32) -> Option<(u32, u32)> {
        let head = self.head(structure)?;
        if depth == 0 || (head.kind != KIND_STRUCT && head.kind != KIND_UNION) {
            return None;
        }
        for number in 0..head.count as usize {
            let at = structure + 12 + number * 12;
            let (member, kind, offset) = (word(self.types, at)?, word(self.types, at + 4)?, word(self.types, at + 8)?);
            let bits = if head.flag { offset & 0xff_ffff } else { offset };
            if self.name(member)? == name.as_bytes() {
                return Some((bits, kind));
            }
            if self.name(member)?.is_empty()
                && let Some(inner) = self.resolve(kind)
                && let Some((more, found)) = self.member(inner, name, depth - 1)
            {
                return Some((bits.checked_add(more)?, found));
            }
        }
        None
    }

    /// Through `const`, `volatile`, `typedef` to what it is.
    fn resolve(&self, id: u32) -> Option<usize> {
        let mut at = *self.starts.get(id as usize)?;
        for _ in 0..MAX_DEPTH {
            let head = self.head(at)?;
            // typedef, volatile, const, restrict, type tag
            if !matches!(head.kind, 8..=11 | 18) {
                return Some(at);
            }
            at = *self.starts.get(head.value as usize)?;
        }
        None
    }
}

impl Head {
    /// Bytes behind the 12 that every type has; none for a kind that is not known.
    fn extra(&self) -> Option<usize> {
        let count = self.count as usize;
        Some(match self.kind {
            1 | 14 | 17 => 4,              // int, var, decl tag
            3 => 12,                       // array
            4 | 5 | 15 | 19 => count * 12, // struct, union, datasec, enum64
            6 | 13 => count * 8,           // enum, func proto
            2 | 7..=12 | 16 | 18 => 0,     // pointers and the like
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_in_the_running_kernel_equal_what_bpftool_says() {
        let btf = std::fs::read("/sys/kernel/btf/vmlinux").expect("this kernel has BTF");
        let offsets = kernel_offsets(&btf).expect("the members are there");
        let dump = std::process::Command::new("bpftool")
            .args(["btf", "dump", "file", "/sys/kernel/btf/vmlinux"])
            .output()
            .expect("bpftool is installed");
        let dump = String::from_utf8_lossy(&dump.stdout);
        let oracle = |structure: &str, member: &str| -> u32 {
            let head = format!("STRUCT '{structure}' ");
            let mut lines = dump.lines().skip_while(|line| !line.contains(&head)).skip(1);
            let wanted = format!("'{member}' ");
            let line = lines.find(|line| line.trim_start().starts_with(&wanted)).expect("bpftool shows it");
            let bits = line.split("bits_offset=").nth(1).expect("an offset").split(' ').next().expect("a number");
            bits.parse::<u32>().expect("a number") / 8
        };
        let traps = trap_offsets(&btf).expect("the members are there");
        assert_eq!(traps.task_utask, oracle("task_struct", "utask"));
        assert_eq!(traps.utask_active, oracle("uprobe_task", "active_uprobe"));
        assert_eq!(traps.task_pid, oracle("task_struct", "pid"));
        assert_eq!(has_type(&btf, "btf_trace_notifier_run"), dump.contains("TYPEDEF 'btf_trace_notifier_run'"));
        assert!(!has_type(&btf, "btf_trace_of_nothing") && !has_type(b"no BTF", "btf_trace_notifier_run"));
        assert_eq!(offsets.task_tgid, oracle("task_struct", "tgid"));
        assert_eq!(offsets.task_signal, oracle("task_struct", "signal"));
        assert_eq!(offsets.signal_live, oracle("signal_struct", "live"));
        assert_eq!(offsets.task_tp, oracle("task_struct", "thread") + oracle("thread_struct", "fsbase"));
        assert_eq!(offsets.task_alternate, oracle("task_struct", "sas_ss_sp"));
        let returns = ReturnOffsets {
            task_utask: oracle("task_struct", "utask"),
            first: oracle("uprobe_task", "return_instances"),
            stack: oracle("return_instance", "stack"),
            address: oracle("return_instance", "orig_ret_vaddr"),
            next: oracle("return_instance", "next"),
        };
        assert_eq!(offsets.returns, returns);
    }

    #[test]
    fn the_offsets_of_groups_equal_what_bpftool_says() {
        let btf = std::fs::read("/sys/kernel/btf/vmlinux").expect("this kernel has BTF");
        let c = std::process::Command::new("bpftool")
            .args(["btf", "dump", "file", "/sys/kernel/btf/vmlinux", "format", "c"])
            .output()
            .expect("bpftool is installed");
        // The compiler lays out what bpftool writes as C, and says where the members are.
        let folder = tempfile::tempdir().expect("a folder");
        let (header, source, program) =
            (folder.path().join("vmlinux.h"), folder.path().join("offsets.c"), folder.path().join("offsets"));
        std::fs::write(&header, &c.stdout).expect("a header");
        let members = [
            "task_struct, thread_pid",
            "pid, level",
            "pid, numbers",
            "upid, nr",
            "upid, ns",
            "pid_namespace, ns.inum",
            "task_struct, cgroups",
            "css_set, dfl_cgrp",
            "css_set, subsys[memory_cgrp_id]",
            "css_set, subsys[io_cgrp_id]",
            "cgroup_subsys_state, cgroup",
            "cgroup, level",
            "cgroup, ancestors",
            "cgroup, kn",
            "kernfs_node, id",
        ];
        let lines: String = members.iter().map(|member| format!("O({member})\n")).collect();
        let text = format!(
            "#include \"vmlinux.h\"\nextern int printf(const char *, ...);\n\
             #define O(s, m) printf(\"%lu\\n\", __builtin_offsetof(struct s, m));\n\
             int main(void) {{\n{lines}printf(\"%lu\\n\", sizeof(struct upid));\n}}\n"
        );
        std::fs::write(&source, text).expect("a source");
        let made = std::process::Command::new("cc").arg("-w").arg("-o").args([&program, &source]).output();
        let made = made.expect("a compiler");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let said = std::process::Command::new(&program).output().expect("it runs");
        let said = String::from_utf8(said.stdout).expect("numbers");
        let said: Vec<u32> = said.lines().map(|line| line.parse().expect("a number")).collect();
        let [
            thread_pid,
            level,
            numbers,
            nr,
            ns,
            inum,
            cgroups,
            dfl,
            memory,
            io,
            through,
            cg_level,
            ancestors,
            kn,
            id,
            upid,
        ] = said.try_into().expect("as many numbers as members");
        let namespace = GroupOffsets {
            task_thread_pid: thread_pid,
            pid_level: level,
            pid_numbers: numbers,
            upid_size: upid,
            upid_nr: nr,
            upid_ns: ns,
            namespace_inum: inum,
            ..GroupOffsets::default()
        };
        assert_eq!(group_offsets(&btf, &Kind::PidNamespace), Some(namespace));
        let of_version_2 = GroupOffsets {
            task_cgroups: cgroups,
            set_group: dfl,
            group_through: NOT_THROUGH,
            cgroup_level: cg_level,
            cgroup_ancestors: ancestors,
            ancestors_are_ids: 0,
            cgroup_kn: kn,
            node_id: id,
            ..namespace
        };
        assert_eq!(group_offsets(&btf, &Kind::Cgroup2), Some(of_version_2));
        for (controller, set_group) in [("memory", memory), ("blkio", io)] {
            let expected = GroupOffsets { set_group, group_through: through, ..of_version_2 };
            assert_eq!(group_offsets(&btf, &Kind::Cgroup1(controller.to_owned())), Some(expected), "{controller}");
        }
        assert_eq!(group_offsets(&btf, &Kind::Cgroup1("no_such_controller".to_owned())), None);
    }

    #[test]
    fn cut_or_broken_btf_is_no_offsets_and_no_panic() {
        let btf = std::fs::read("/sys/kernel/btf/vmlinux").expect("this kernel has BTF");
        assert_eq!(kernel_offsets(b""), None);
        assert_eq!(kernel_offsets(b"\x7fELF and something else"), None);
        for len in (0..btf.len()).step_by(btf.len() / 20) {
            assert_eq!(kernel_offsets(&btf[..len]), None, "{len} bytes");
        }
    }
}
