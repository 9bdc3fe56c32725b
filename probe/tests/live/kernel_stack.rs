//! `--kernel-stack`: the frames that ftrace sees at the same probe, by the names that the kernel's own table has.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::{
    harness::{nm, path, private_copy, run, trace},
    trace::{Call, Frame, callers},
};

/// ftrace at the beginning of one function, with the kernel's stack at each pass.
struct Ftrace {
    event: String,
    /// A mount of tracefs, which not every machine has at its usual place.
    tracing: tempfile::TempDir,
}

impl Ftrace {
    /// `offset`: in the file.
    fn at(program: &Path, offset: u64) -> Self {
        let tracing = tempfile::tempdir().expect("a directory");
        run("mount", &["-t", "tracefs", "tracefs", tracing.path().to_str().expect("UTF-8")]).success();
        let own = Self { event: format!("probe_test_{}/passed", std::process::id()), tracing };
        own.command(&format!("p:{} {}:{offset:#x}", own.event, program.display())).expect("it is a command");
        fs::create_dir(own.instance()).expect("it can be made");
        fs::write(own.instance().join("options/stacktrace"), "1").expect("it can be written");
        fs::write(own.instance().join(format!("events/{}/enable", own.event)), "1").expect("it can be written");
        own
    }

    fn instance(&self) -> PathBuf {
        self.tracing.path().join("instances").join(self.event.replace('/', "_"))
    }

    fn command(&self, command: &str) -> io::Result<()> {
        let mut events = fs::OpenOptions::new().append(true).open(self.tracing.path().join("uprobe_events"))?;
        events.write_all(command.as_bytes())
    }

    /// The stacks of all passes, innermost first.
    fn stacks(&self) -> Vec<Vec<String>> {
        let mut stacks: Vec<Vec<String>> = Vec::new();
        for line in fs::read_to_string(self.instance().join("trace")).expect("it can be read").lines() {
            if line.contains("<stack trace>") {
                stacks.push(Vec::new());
            } else if let (Some(frame), Some(stack)) = (line.strip_prefix(" => "), stacks.last_mut()) {
                stack.push(frame.split('+').next().unwrap_or(frame).to_owned());
            }
        }
        stacks
    }
}

impl Drop for Ftrace {
    fn drop(&mut self) {
        let _ = fs::write(self.instance().join(format!("events/{}/enable", self.event)), "0");
        let _ = fs::remove_dir(self.instance());
        let _ = self.command(&format!("-:{}", self.event));
        run("umount", &["--lazy".as_ref(), self.tracing.path().as_os_str()]);
    }
}

fn kernel_stack(call: &Call) -> &[Frame] {
    call.kernel_stack.as_deref().unwrap_or_else(|| panic!("no kernel stack: {call:?}"))
}

fn names(frames: &[Frame]) -> Vec<&str> {
    frames.iter().map(|frame| frame.function.as_deref().unwrap_or("?")).collect()
}

/// From where the kernel goes through all who have a probe there.
fn common(stack: &[&str]) -> Vec<String> {
    let from = stack.iter().position(|name| *name == "handler_chain").unwrap_or_else(|| panic!("{stack:?}"));
    stack[from..].iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_kernels_frames_are_those_that_ftrace_sees_from_the_trap_on() {
    let (_folder, program) = private_copy("c/test", "kernel-frames");
    // Linked such that code lies in the file as far from its beginning as in memory.
    let ftrace = Ftrace::at(&program, nm(&program)["func_d"]);
    let traced = trace(&["--kernel-stack", "func_d"], &[program.to_str().expect("UTF-8"), "20"]);
    let calls = traced.trace.of("func_d");
    let theirs = ftrace.stacks();
    assert_eq!((calls.len(), theirs.len()), (20, 20));
    for (call, theirs) in calls.iter().zip(&theirs) {
        let theirs: Vec<&str> = theirs.iter().map(String::as_str).collect();
        assert_eq!(common(&names(kernel_stack(call))), common(&theirs));
        // They are no part of the callers.
        assert_eq!(callers(call).first().map(String::as_str), Some("func_c"));
    }
}

#[test]
fn each_frame_has_the_name_before_it_in_the_kernels_table_and_its_module() {
    let traced = trace(&["--kernel-stack", "func_d"], &[path("c/test")]);
    let table = fs::read_to_string("/proc/kallsyms").expect("root reads it");
    let mut functions: Vec<(u64, &str)> = table
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
            // Modules' and other programs' may come and go.
            let of_kernel = words.next().is_none() && matches!(kind, "t" | "T" | "w" | "W");
            Some((u64::from_str_radix(address, 16).ok()?, name)).filter(|_| of_kernel)
        })
        .collect();
    functions.sort_by_key(|(address, _)| *address);
    let mut looked_at = 0;
    for frame in kernel_stack(traced.trace.of("func_d")[0]) {
        let (name, ip) = (frame.function.as_deref().expect("root sees names"), frame.ip());
        if frame.binary.as_deref() != Some("[kernel]") {
            assert!(name.starts_with("bpf_prog_") && frame.binary.as_deref() == Some("[bpf]"), "{frame:?}");
            continue;
        }
        let behind = functions.partition_point(|(start, _)| *start < ip);
        let start = functions[behind - 1].0;
        assert!(functions.contains(&(start, name)), "{frame:?}");
        looked_at += 1;
    }
    assert!(looked_at >= 4, "{looked_at}");
}

#[test]
fn the_kernels_frames_come_with_the_callers_of_each_call_that_has_them_walked_or_copied_and_at_points() {
    for how in ["fp", "dwarf"] {
        let all = trace(&["--stack", how, "--stack-all", "--kernel-stack", "func_*", "func_d+0x1"], &[path("c/test")]);
        assert_eq!(all.trace.calls.len(), 4);
        for call in &all.trace.calls {
            assert!(names(kernel_stack(call)).contains(&"handler_chain"), "{how}: {call:?}");
        }
        let point = &all.trace.points[0];
        let frames = point["kernel_stack"].as_array().expect("frames");
        assert!(frames.iter().any(|frame| frame["function"] == "handler_chain"), "{point}");
    }
    let outermost = trace(&["--kernel-stack", "func_*"], &[path("c/test")]);
    let with: Vec<_> =
        outermost.trace.calls.iter().filter(|c| c.kernel_stack.is_some()).map(|c| &*c.function).collect();
    assert_eq!(with, ["func_a"]);
    assert!(trace(&["func_*"], &[path("c/test")]).trace.calls.iter().all(|call| call.kernel_stack.is_none()));
}

#[test]
fn in_the_timeline_they_stand_before_the_callers_marked_as_the_kernels() {
    let shown = run(env!("CARGO_BIN_EXE_probe"), &["--kernel-stack", "-q", "func_d", "--", &path("c/test")]);
    let lines: Vec<&str> = shown.stderr.lines().collect();
    let begins = |with: &str| lines.iter().position(|line| line.trim_start().starts_with(with));
    let (kernel, user) = (begins("in ").expect("its frames"), begins("at func_c").expect("the callers"));
    assert!(kernel < user, "{lines:?}");
    for line in &lines[kernel..user] {
        assert!(line.ends_with("[kernel]") || line.ends_with("[bpf]"), "{lines:?}");
    }
}
