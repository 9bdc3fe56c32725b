//! One function, named by each kind of source there is: its calls are as many as the program itself counted.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    counts::Truth,
    harness::{Process, Traced, Tracer, nm, path, tool, trace, trace_with},
};

/// Without headers: LLVM's dwp (14 and 22) does not come to an end on what gcc says of `FILE` in DWARF 5.
const PROGRAM: &str = r#"
int printf(const char *, ...), getchar(void), strcmp(const char *, const char *), getppid(void);
long write(int, const void *, unsigned long);
static long counted_calls, chosen_calls, getppid_calls;
__attribute__((noinline)) long counted(long x) {
    counted_calls++;
    return x * 3 + getppid();
}
static __attribute__((noinline)) long implementation(long x) {
    chosen_calls++;
    return x ^ counted_calls;
}
static long (*resolve(void))(long) { return implementation; }
long chosen(long) __attribute__((ifunc("resolve")));
int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[argc - 1], "--wait")) {
        write(1, "ready\n", 6);
        getchar();
    }
    long sum = 0;
    for (int i = 0; i < 1000; i++) {
        sum += counted(i);
        getppid_calls++;
        if (i % 2) sum += chosen(i);
    }
    printf("{\"counted\": %ld, \"chosen\": %ld, \"getppid\": %ld, \"_sum:main\": %ld}\n", counted_calls, chosen_calls,
        getppid_calls, sum & 1);
    return 0;
}
"#;

/// A program in a folder of its own, with debug information and symbols.
struct Built {
    folder: tempfile::TempDir,
    whole: PathBuf,
}

impl Built {
    fn new(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let built = Self { whole: folder.path().join("whole"), folder };
        fs::write(built.at("program.c"), PROGRAM).expect("it can be written");
        let (source, whole) = (built.at("program.c"), built.whole.clone());
        // Split debug information is written to where the compiler is told to put its output.
        tool("gcc", &[&["-O2", "-g"], flags, &["-o", text(&whole), text(&source)]].concat());
        built
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A copy that objcopy made.
    fn copy(&self, arguments: &[&str], from: &Path, name: &str) -> PathBuf {
        let made = self.at(name);
        tool("objcopy", &[arguments, &[text(from), text(&made)]].concat());
        made
    }

    fn stripped(&self) -> PathBuf {
        self.copy(&["--strip-all"], &self.whole, "stripped")
    }

    /// Without symbols, but with debug information.
    fn only_dwarf(&self) -> PathBuf {
        self.copy(&["--strip-all", "--keep-section=.debug_*", "--keep-section=.gnu_debugaltlink"], &self.whole, "dwarf")
    }

    fn debug_file(&self) -> PathBuf {
        self.copy(&["--only-keep-debug"], &self.whole, "debug-file")
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn build_id(path: &Path) -> String {
    let notes = tool("readelf", &["-n", text(path)]);
    notes.split("Build ID: ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a build id").to_owned()
}

/// All calls were seen, and returned.
#[track_caller]
fn assert_counted(what: &str, shown: &str, end: &str, calls: u64, traced: &Traced) {
    assert!(calls > 0, "{what}");
    let seen = traced.trace.of(shown);
    assert_eq!(seen.len() as u64, calls, "{what}: {}", traced.ended.stderr);
    assert!(seen.iter().all(|call| &*call.end == end), "{what}");
    assert_eq!(traced.trace.calls.len(), seen.len(), "{what}");
    assert_eq!((traced.lost_total(), traced.ended.code()), (0, 0), "{what}: {}", traced.ended.stderr);
}

fn truth(traced: &Traced, name: &str) -> u64 {
    Truth::of(&traced.ended.stdout).calls().find(|(called, _)| *called == name).expect("it counts them").1
}

/// Traces `counted`, which `pattern` means, in a run of a program.
#[track_caller]
fn check_with(what: &str, program: &Path, pattern: &str, variables: &[(&str, &OsStr)]) {
    let traced = trace_with(variables, &[pattern], &[program]);
    assert_counted(what, pattern, "return", truth(&traced, "counted"), &traced);
}

/// Nothing but its source can name the function.
#[track_caller]
fn check(what: &str, program: &Path) {
    let sections = tool("readelf", &["-SW", text(program)]);
    assert_eq!(sections.contains(" .symtab "), what == ".symtab", "{what}");
    check_with(what, program, "counted", &[]);
}

#[test]
fn a_function_named_by_a_symbol_table() {
    let built = Built::new(&[]);
    check(".symtab", &built.whole);
    check(".dynsym", &Built::new(&["-rdynamic"]).stripped());
    let mini = built.copy(&["--strip-debug"], &built.whole, "mini");
    tool("xz", &[&mini]);
    let section = format!("--add-section=.gnu_debugdata={}", text(&built.at("mini.xz")));
    check(".gnu_debugdata", &built.copy(&[&section], &built.stripped(), "with-mini"));
}

#[test]
fn a_go_function_named_by_the_function_table() {
    let traced = trace(&["main.recurse"], &[path("go/counts-strip").as_str(), "recurse", "-n", "5"]);
    assert_counted(".gopclntab", "main.recurse", "return", truth(&traced, "main.recurse"), &traced);
}

#[test]
fn a_function_named_by_debug_information_alone() {
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let built = Built::new(&[version]);
        check(version, &built.only_dwarf());
        for how in ["zlib", "zlib-gnu", "zstd"] {
            let how = format!("--compress-debug-sections={how}");
            check(&how, &built.copy(&[&how], &built.only_dwarf(), "compressed"));
        }
        let split = Built::new(&[version, "-gsplit-dwarf"]);
        let program = split.only_dwarf();
        check(&format!("{version}, .dwo"), &program);
        let objects = fs::read_dir(split.folder.path()).expect("the folder").flatten().map(|entry| entry.path());
        let object = objects.into_iter().find(|path| path.extension().is_some_and(|e| e == "dwo")).expect("an object");
        tool("llvm-dwp", &[text(&object), "-o", text(&split.at("dwarf.dwp"))]);
        fs::remove_file(object).expect("it is there");
        check(&format!("{version}, .dwp"), &program);
    }
}

#[test]
fn a_function_whose_name_dwz_moved_to_another_file() {
    let (built, other) = (Built::new(&["-gdwarf-5"]), Built::new(&["-gdwarf-5", "-O1"]));
    let common = built.at("common");
    tool("dwz", &["-m", text(&common), "-M", text(&common), text(&built.whole), text(&other.whole)]);
    let program = built.only_dwarf();
    // Its name is not in the file.
    let strings = tool("readelf", &["--string-dump=.debug_str", text(&program)]);
    assert!(!strings.lines().any(|line| line.ends_with("  counted")), "{strings}");
    check("dwz", &program);
}

#[test]
fn a_function_named_by_its_address_in_a_stripped_program() {
    let built = Built::new(&[]);
    let address = nm(&built.whole)["counted"];
    check_with(".eh_frame", &built.stripped(), &format!("stripped+{address:#x}"), &[]);
}

#[test]
fn a_function_named_by_a_debug_file_that_a_link_or_a_build_id_leads_to() {
    let linked = Built::new(&["-Wl,--build-id=none"]);
    let link = format!("--add-gnu-debuglink={}", text(&linked.debug_file()));
    check(".gnu_debuglink", &linked.copy(&[&link], &linked.stripped(), "linked"));
    let built = Built::new(&[]);
    let cached = built.at("cache").join(build_id(&built.whole)).join("debuginfo");
    fs::create_dir_all(cached.parent().expect("a folder")).expect("a folder can be made");
    fs::rename(built.debug_file(), cached).expect("it can be moved");
    let cache = built.at("cache");
    check_with("debuginfod's cache", &built.stripped(), "counted", &[("DEBUGINFOD_CACHE_PATH", cache.as_os_str())]);
}

/// A root of its own, in which the file of the build id is behind a link that means something else to us.
#[test]
fn a_function_named_by_a_debug_file_in_the_targets_root() {
    let built = Built::new(&["-static"]);
    let (root, id) = (built.at("root"), build_id(&built.whole));
    let place = root.join(format!("usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]));
    for folder in [place.parent().expect("a folder"), &root.join("store"), &root.join("bin")] {
        fs::create_dir_all(folder).expect("a folder can be made");
    }
    fs::rename(built.debug_file(), root.join("store/debug")).expect("it can be moved");
    std::os::unix::fs::symlink("/store/debug", place).expect("a link can be made");
    fs::rename(built.stripped(), root.join("bin/program")).expect("it can be moved");
    std::os::unix::fs::symlink("/bin/program", root.join("alias")).expect("a link can be made");
    for file in [&[][..], &["-x", "/alias"]] {
        let mut process = Process::waiting("chroot", &[text(&root), "/bin/program"]);
        let pid = process.pid().to_string();
        let tracer = Tracer::start(&[&["-p", &pid], file, &["counted"]].concat());
        process.go();
        let ended = process.finish().success();
        let traced = tracer.finish();
        let calls = Truth::of(&ended).calls().find(|(name, _)| *name == "counted").expect("it counts them").1;
        assert_counted("in the target's root", "counted", "return", calls, &traced);
    }
}

#[test]
fn calls_of_another_files_function_are_seen_at_its_stub() {
    let ibt = ["-fcf-protection=full", "-Wl,-z,ibtplt"];
    for flags in [&["-Wl,-z,lazy"][..], &["-Wl,-z,now"], &["-no-pie", "-Wl,-z,lazy"], &[ibt[0], ibt[1], "-Wl,-z,lazy"]]
    {
        let traced = trace(&["getppid@plt"], &[&Built::new(flags).stripped()]);
        assert_counted(&format!("{flags:?}"), "getppid@plt", "tailcall", truth(&traced, "getppid"), &traced);
    }
}

#[test]
fn an_ifunc_is_what_its_resolver_chose_in_the_traced_process() {
    for flags in [&[][..], &["-static"], &["-no-pie"]] {
        let built = Built::new(flags);
        let mut process = Process::waiting(&built.whole, &[]);
        let tracer = Tracer::start(&["-p", &process.pid().to_string(), "chosen"]);
        process.go();
        let ended = process.finish().success();
        let traced = tracer.finish();
        let calls = Truth::of(&ended).calls().find(|(name, _)| *name == "chosen").expect("it counts them").1;
        assert_counted(&format!("{flags:?}"), "chosen (IFUNC: implementation)", "return", calls, &traced);
    }
}

/// No process has run it: nothing says what the resolver would choose.
#[test]
fn an_ifunc_of_which_nothing_is_known_is_refused_with_the_reason() {
    let built = Built::new(&[]);
    let ended = crate::harness::probe(&["chosen", "--", text(&built.whole)]);
    assert_eq!(ended.code(), 1, "{ended:?}");
    for said in ["IFUNC", "resolver", "-p PID"] {
        assert!(ended.stderr.contains(said), "{ended:?}");
    }
    assert!(ended.stdout.is_empty(), "it was not started");
}
