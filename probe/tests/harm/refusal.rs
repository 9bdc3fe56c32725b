//! What the kernel refuses although nothing in the file told: found by bisecting, named, and all the rest attached.

use std::{fs, process::Command};

use probe::{
    attach::{self, Options, Scope, StackCopies, features::Features},
    plan::{self, PointKind},
    request::Returns,
    target::TracedFile,
};
use symbols::addr::FileOffset;

/// Twenty functions to trace, and one that holds an instruction which no kernel probes.
fn source() -> String {
    let mut source = String::from("__attribute__((noinline)) void trap(void) { __asm__ volatile(\"int3\"); }\n");
    for n in 0..20 {
        source.push_str(&format!("__attribute__((noinline)) int f{n}(int x) {{ return x * {n} + 1; }}\n"));
    }
    source.push_str("int main(int n, char **a) { int s = 0; for (int i = 0; i < 3; i++) s +=");
    for n in 0..20 {
        source.push_str(&format!(" f{n}(i) +"));
    }
    source.push_str(" 0; if (s == 1) trap(); return 0; }\n");
    source
}

#[test]
fn a_refused_link_is_bisected_and_made_again_without_the_refused_functions() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, path) = (folder.path().join("p.c"), folder.path().join("p"));
    fs::write(&code, source()).expect("the source");
    let gcc = Command::new("gcc").args(["-O1", "-o"]).arg(&path).arg(&code).status().expect("gcc runs");
    assert!(gcc.success());
    let bytes = fs::read(&path).expect("the program");
    let files = [TracedFile::open(&path, "p").expect("a program")];
    let patterns = ["f*".parse().expect("a pattern")];
    let mut plan = plan::plan(&files, &patterns, plan::Options { all: false, returns: Returns::Ret, thorough: false })
        .expect("a plan");
    let planned = plan.functions.len();
    assert!(planned >= 20);

    // As if the rules that keep int3 (0xcc) out had missed it, in two functions.
    let trap = symbols_address(&path, "trap");
    let int3 = (trap..trap + 16).find(|&at| bytes[at as usize] == 0xcc).expect("an int3");
    let bad: Vec<String> = [3, 11].map(|n| plan.functions[n].traced.name.clone()).into();
    for point in &mut plan.points {
        if point.kind == PointKind::Entry && (point.function == 3 || point.function == 11) {
            point.offset = FileOffset(int3);
        }
    }

    let features = Features::detect().expect("a kernel that can be asked");
    let options = Options {
        groups: None,
        scope: Scope::Everyone,
        stack_depth: 0,
        stack_copy: StackCopies::None,
        stack_all: false,
        kernel_stack: false,
        origins: false,
        buffer_bytes: 1 << 20,
        force: false,
        counted: false,
        min_duration_ns: 0,
        traps: false,
    };
    let mut attachment = attach::attach(&mut plan, &files, &features, &options, None).expect("the rest attaches");
    assert_eq!(plan.functions.len(), planned - 2);
    let skipped: Vec<&str> = plan.skipped.iter().map(|s| s.function.as_str()).collect();
    assert_eq!(skipped, bad);
    assert!(plan.skipped.iter().all(|s| s.reason.contains("the kernel refuses")));

    assert!(Command::new(&path).status().expect("the program runs").success());
    let mut entered = std::collections::BTreeMap::<u32, u32>::new();
    attachment.rings().look();
    while let Some(bytes) = attachment.rings().next() {
        let record = probe::events::decode(bytes).expect("a record");
        let Some(point) = plan.points.get(record.event.point as usize) else { continue };
        if point.kind == PointKind::Entry {
            *entered.entry(point.function).or_default() += 1;
        }
    }
    let f_functions = plan.functions.iter().filter(|f| f.traced.name.starts_with('f') && f.traced.name.len() <= 3);
    assert_eq!(entered.len(), f_functions.count());
    assert!(entered.values().all(|&calls| calls == 3), "{entered:?}");
}

/// The address that `nm` gives, which in so small a program is the file offset too.
fn symbols_address(path: &std::path::Path, name: &str) -> u64 {
    let nm = Command::new("nm").arg(path).output().expect("nm runs");
    let text = String::from_utf8(nm.stdout).expect("text");
    let line = text.lines().find(|line| line.ends_with(&format!(" {name}"))).expect("the symbol");
    u64::from_str_radix(line.split(' ').next().expect("an address"), 16).expect("a number")
}
