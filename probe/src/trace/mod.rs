//! `probe PATTERN...`: the live trace, from the request to the closing lines.

mod arrivals;
mod budget;
mod calibration;
mod inside;
mod kernel;
mod session;
mod shedding;
mod signals;
mod turns;
mod world;

use std::{
    fs::{self, File},
    io::{self, IsTerminal as _, Write},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use symbols::{binary::Machine, pattern::Pattern};

use self::inside::Inside;
use crate::{
    attach::{self, Scope, StackCopies, features::Features, rights},
    calls::{Skipped, tracker::Limits},
    output::{self, Format, OutputOptions, escape::escaped, talk},
    plan::{self, Plan},
    request::{Returns, StackMode, TargetRequest, Trace},
    target::{self, TracedFile, command::Waiting, containers, debuginfod::Debuginfod, processes::Processes},
};

/// Traces; the exit status.
///
/// # Errors
/// Whatever kept it from starting, or ended it early.
pub fn run(request: &Trace) -> Result<u8> {
    let patterns = parse_patterns(&request.patterns)?;
    request.proc.as_deref().map_or(Ok(()), target::proc::set)?;
    can_tell_apart(&request.target)?;
    let (inside, located) =
        Inside::find(request)?.map_or((None, None), |(inside, located)| (Some(inside), Some(located)));
    let request = located.as_ref().unwrap_or(request);
    let options = plan::Options { all: request.all, returns: request.returns, thorough: request.verbose > 0 };
    let wanted = Wanted {
        binaries: &request.binaries,
        target: &request.target,
        inside: inside.as_ref(),
        debuginfod: request.debuginfod.as_deref(),
        quiet: request.quiet,
    };
    let read = rights::only_reading(request.debuginfod.is_some(), || read(wanted, &patterns, options))?;
    let (Sought { files, names, awaited }, mut plan) = read?;
    if request.dry_run {
        plan.print(&mut io::stdout().lock())?;
        return Ok(0);
    }
    let features = features()?;
    let measured = match request.subtract_overhead {
        true => Some(probe_costs(request, &plan, &features, inside.as_ref(), !names.is_empty())?),
        false => None,
    };
    let mut out = destination(request)?;
    // Before the command is forked: its end must not be missed, nor an early Ctrl-C.
    let signals = signals::Signals::install(request.target.command.is_some())?;
    let clocks = session::Clocks::now();
    let recorder = attach::recorder::Recorder::start()
        .map_err(|error| attach::denied("failed to record what processes map", error))?;
    let waiting = match &request.target.command {
        Some(command) => Some(Waiting::fork(command, request.target.user.as_deref())?),
        None => None,
    };
    let mut processes = Processes::default();
    processes.live_in(inside.iter().flat_map(Inside::names));
    let mut shed = Vec::new();
    let attached = scope(&request.target, waiting.as_ref()).and_then(|scope| {
        if waiting.is_none() {
            running(&scope, &files, inside.as_ref()).into_iter().for_each(|pid| processes.know(pid));
        }
        // A command does not run yet: there is nothing to see of it.
        let budget = request.budget.filter(|_| waiting.is_none());
        let mut choose = |plan: &Plan, rehearsal: &attach::Rehearsal| {
            shed = budget.map(|limit| budget::beforehand(plan, limit.get(), rehearsal)).unwrap_or_default();
            shed.iter().map(|shed| shed.function).collect()
        };
        let choose: Option<&mut attach::Choose<'_>> = if budget.is_some() { Some(&mut choose) } else { None };
        let traps = measured.as_ref().is_some_and(|measured| measured.untimed.is_none());
        let options = attach::Options { traps, ..attach_options(request, scope, inside.as_ref()) };
        attach::attach(&mut plan, &files, &features, &options, choose)
    });
    let attachment = match attached {
        Ok(attachment) => attachment,
        Err(error) => {
            if let Some(waiting) = waiting {
                waiting.cancel();
            }
            return Err(error);
        }
    };
    let kernel = request.kernel_stack.then(kernel::KernelStacks::new);
    rights::keep_what_a_trace_needs(request.debuginfod.is_some()).context("failed to give up capabilities")?;
    warn_of_uretprobes(request, &plan);
    if !request.quiet {
        // Whether anybody listens is no matter of the trace.
        let mut text = Vec::new();
        announce(&plan, &awaited, request.verbose, &mut text)?;
        if let Some(measured) = &measured {
            announce_subtraction(measured, &plan, &mut text)?;
        }
        let _ = io::stderr().lock().write_all(&text);
    }
    let planning = arrivals::Planning {
        patterns,
        options,
        debuginfod: request.debuginfod.clone().map(|given| (given, request.quiet)),
        starts: request.target.pids.is_empty() && request.target.tids.is_empty() && inside.is_none(),
    };
    let arrivals = arrivals::Arrivals::new(names, planning);
    let sources = session::Sources {
        inside,
        attachment,
        shed,
        recorder,
        signals,
        clocks,
        processes,
        kernel,
        costs: measured.map(|measured| measured.costs),
        arrivals,
    };
    let options = OutputOptions { color: out.color, ..request.output.clone() };
    let sink = output::sink(&options, std::mem::replace(&mut out.writer, Box::new(io::sink())));
    let status = session::Session::new(request, plan, files, sources, sink)?.run(waiting)?;
    if let Some(said) = target::shortened() {
        talk::say(format_args!("{said}: names and lines of callers in it are missing or wrong"));
    }
    Ok(status)
}

/// What files the request means.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    binaries: &'a [PathBuf],
    target: &'a TargetRequest,
    inside: Option<&'a Inside>,
    debuginfod: Option<&'a str>,
    quiet: bool,
}

/// Finds and reads the files, and plans: all that is done with files that nobody vouches for, before anything is attached.
fn read(wanted: Wanted<'_>, patterns: &[Pattern], options: plan::Options) -> Result<(Sought, Plan)> {
    let sought = files(wanted);
    target::whole_files()?;
    let mut sought = sought?;
    sought.files = with_covered(sought.files, wanted.quiet);
    of_this_machine(&sought.files)?;
    let planned = match sought.awaited.is_empty() {
        true => plan::plan(&sought.files, patterns, options),
        // What matches nothing now may match in what comes.
        false => Ok(plan::plan_so_far(&sought.files, patterns, options).0),
    };
    target::whole_files()?;
    let mut plan = planned?;
    if options.returns != Returns::None {
        let libraries = watch_unwinders(wanted, &mut plan, &sought.files)?;
        sought.files.extend(libraries);
        target::whole_files()?;
    }
    Ok((sought, plan))
}

/// Has the unwinders of what is traced watched: the libraries that they are in.
fn watch_unwinders(wanted: Wanted<'_>, plan: &mut Plan, files: &[TracedFile]) -> Result<Vec<TracedFile>> {
    let named = processes(wanted.target)?;
    // What the loader would give is known for our own root only.
    let starts = named.is_empty() && files.iter().all(|file| file.through.is_none());
    let running = if named.is_empty() { running(&Scope::Everyone, files, wanted.inside) } else { named };
    let target::unwinders::Unwinders { files: libraries, missing } = target::unwinders::find(files, &running, starts);
    plan.watch_unwinders(files, &libraries);
    plan.unwatched.extend(missing.iter().map(|name| format!("{} was not found", escaped(name))));
    Ok(libraries)
}

/// Refuses what takes telling processes by numbers that the kernel half does not know them by.
fn can_tell_apart(target: &TargetRequest) -> Result<()> {
    let what = match target {
        TargetRequest { command: Some(_), .. } if !target::proc::has_our_numbers() => "start a command with --proc",
        _ if target::proc::is_the_machines() != Some(false) => return Ok(()),
        TargetRequest { command: Some(_), .. } => "start a command",
        TargetRequest { comm: Some(_), .. } => "tell processes by their names",
        TargetRequest { follow: true, .. } => "follow children",
        TargetRequest { tids, .. } if !tids.is_empty() => "tell threads apart",
        _ => return Ok(()),
    };
    bail!(
        "failed to {what}: in this PID namespace processes have other numbers than the machine's; use the machine's own \
         (docker run --pid=host)"
    )
}

fn parse_patterns(patterns: &[String]) -> Result<Vec<Pattern>> {
    Ok(patterns.iter().map(|p| p.parse()).collect::<Result<_, _>>()?)
}

/// What `--limit` and `--returns` mean for the tracker.
fn limits(request: &Trace) -> Limits {
    Limits { outermost: request.limit, entries_only: request.returns == Returns::None }
}

fn attach_options(request: &Trace, scope: Scope, inside: Option<&Inside>) -> attach::Options {
    attach::Options {
        scope,
        groups: inside.map(Inside::groups),
        stack_depth: if request.stack == StackMode::None { 0 } else { request.stack_depth },
        stack_all: request.stack_all || request.returns == Returns::None,
        kernel_stack: request.kernel_stack,
        origins: request.goroutines,
        stack_copy: match request.stack {
            StackMode::None | StackMode::FramePointers => StackCopies::None,
            StackMode::Auto => StackCopies::WithoutFramePointers,
            StackMode::Dwarf => StackCopies::Everywhere,
        },
        buffer_bytes: u32::try_from(request.buffer_bytes).unwrap_or(1 << 30),
        force: request.force,
        counted: request.budget.is_some(),
        min_duration_ns: unneeded_ns(request),
        traps: false,
    }
}

/// What the probes of the plan cost here and now; with `awaits` also those of libraries of any kind.
fn probe_costs(
    request: &Trace,
    plan: &Plan,
    features: &Features,
    inside: Option<&Inside>,
    awaits: bool,
) -> Result<calibration::Measured> {
    let command = request.target.command.is_some();
    // A command is not there yet: its process is to be followed.
    let scope =
        if command { Scope::Processes { pids: Vec::new(), follow: true } } else { scope(&request.target, None)? };
    calibration::measure(plan, features, &attach_options(request, scope, inside), request.returns, awaits)
}

/// Calls that take less need not be told of, ns; 0: all are needed. JSON lines tell of a call at its end; other outputs
/// show calls that are open for long, and `--limit` counts short ones too. What the probes cost within a longer call is only
/// known from the shorter ones in it; who made a goroutine is told at entries, which are held back.
fn unneeded_ns(request: &Trace) -> u64 {
    let hidden = request.output.min_duration_ns.unwrap_or(0);
    let only_ends = request.output.format == Format::Json && request.stack == StackMode::None;
    let needs_short = request.limit.is_some() || request.subtract_overhead || request.goroutines;
    if only_ends && !needs_short { hidden } else { 0 }
}

/// What there is to trace.
struct Sought {
    files: Vec<TracedFile>,
    /// Libraries by name: any of that name which a target loads is meant.
    names: Vec<String>,
    /// Those of them that are not there yet.
    awaited: Vec<String>,
}

/// The files to trace: those that were named, else the processes' programs, else the command's.
fn files(wanted: Wanted<'_>) -> Result<Sought> {
    let mut sought = Sought { files: Vec::new(), names: Vec::new(), awaited: Vec::new() };
    let target = wanted.target;
    let pids = processes(target)?;
    let debuginfod = wanted.debuginfod.map(|given| Debuginfod::new(given, wanted.quiet)).transpose()?;
    let debuginfod = debuginfod.as_ref();
    if let Some(inside) = wanted.inside.filter(|_| pids.is_empty()) {
        for path in wanted.binaries {
            let found = containers::files::named(inside.selected(), path, debuginfod)?;
            if let Some(name) = target::library_name(path) {
                sought.names.push(name.to_owned());
                sought.awaited.extend(found.is_empty().then(|| name.to_owned()));
            }
            sought.files.extend(found);
        }
        if wanted.binaries.is_empty() {
            sought.files = containers::files::programs(inside.selected(), debuginfod)?;
        }
        sought.files = distinct(sought.files);
        return Ok(sought);
    }
    // A command that cannot be started is better known before anything is attached.
    let program = target.command.as_deref().and_then(<[_]>::first).map(|name| target::find_program(Path::new(name)));
    let program = program.transpose()?;
    if wanted.binaries.is_empty() {
        if let Some(path) = &program {
            sought.files = vec![TracedFile::fetching(path, &path.display().to_string(), debuginfod)?];
            return Ok(sought);
        }
        let programs = pids.iter().map(|&pid| target::program_file(pid, debuginfod));
        sought.files = distinct(programs.collect::<Result<Vec<_>>>()?);
        return Ok(sought);
    }
    let named = running_by_name(target);
    for path in wanted.binaries {
        let library = target::library_name(path).filter(|_| program.is_some() || named.is_some() || !pids.is_empty());
        let found = match (library, pids.first()) {
            (Some(_), Some(_)) => target::libraries_of(&pids, path, debuginfod)?,
            (Some(_), None) => {
                let mapped = target::libraries_of(named.as_deref().unwrap_or_default(), path, debuginfod)?;
                match target::file_here(path, program.as_deref(), debuginfod) {
                    _ if !mapped.is_empty() => mapped,
                    Err(error) if error.is::<target::NoLibrary>() => mapped,
                    file => vec![file?],
                }
            }
            (None, Some(&pid)) => vec![target::file_of(pid, path, debuginfod)?],
            (None, None) => vec![target::file_here(path, program.as_deref(), debuginfod)?],
        };
        if let Some(name) = library {
            sought.names.push(name.to_owned());
            sought.awaited.extend(found.is_empty().then(|| name.to_owned()));
        }
        sought.files.extend(found);
    }
    Ok(sought)
}

/// The processes of the name that is the target, if a name is.
fn running_by_name(target: &TargetRequest) -> Option<Vec<u32>> {
    let comm = target.comm.as_deref()?;
    let comm = target::cut_comm(comm);
    Some(target::all_pids().into_iter().filter(|&pid| target::is_called(pid, comm)).collect())
}

/// Refuses files that cannot run here.
fn of_this_machine(files: &[TracedFile]) -> Result<()> {
    let here = if cfg!(target_arch = "aarch64") { Machine::Aarch64 } else { Machine::X86_64 };
    for file in files {
        let machine = file.index.binary().machine();
        if machine != here {
            bail!("failed to trace {}: made for another machine: {machine}; this one is {here}", file.shown);
        }
    }
    Ok(())
}

/// Of copies that overlays made, also the images' files: processes that began before run those.
fn with_covered(mut files: Vec<TracedFile>, quiet: bool) -> Vec<TracedFile> {
    let covered: Vec<_> =
        files.iter_mut().filter_map(|file| Some((file.shown.clone(), file.take_covered()?))).collect();
    for (shown, covered) in covered {
        match covered {
            Ok(covered) => {
                if !quiet {
                    talk::say(format_args!(
                        "{} was changed, for which its overlay made a copy: processes that run the image's file are traced too",
                        escaped(&shown)
                    ));
                }
                files.push(covered);
            }
            Err(why) if !quiet => {
                talk::say(format_args!("{} as its image has it is not traced: {why:#}", escaped(&shown)))
            }
            Err(_) => {}
        }
    }
    distinct(files)
}

/// Several processes of one program are one file.
fn distinct(files: Vec<TracedFile>) -> Vec<TracedFile> {
    let mut kept: Vec<TracedFile> = Vec::new();
    for file in files {
        if !kept.iter().any(|known| containers::files::is_same(known, &file)) {
            kept.push(file);
        }
    }
    kept
}

fn processes(target: &TargetRequest) -> Result<Vec<u32>> {
    let mut pids = target.pids.clone();
    for &tid in &target.tids {
        pids.push(target::process_of_thread(tid).with_context(|| format!("no thread {tid}"))?);
    }
    for &pid in &pids {
        if target::process_of_thread(pid) != Some(pid) {
            bail!("no process {pid}");
        }
        if !target::runs(pid) {
            bail!("process {pid} has ended; its parent has not waited for it yet");
        }
    }
    Ok(pids)
}

fn scope(target: &TargetRequest, waiting: Option<&Waiting>) -> Result<Scope> {
    if let Some(waiting) = waiting {
        return Ok(Scope::Processes { pids: vec![waiting.pid()], follow: true });
    }
    if !target.tids.is_empty() {
        return Ok(Scope::Threads(target.tids.clone()));
    }
    if !target.pids.is_empty() {
        let mut pids = target.pids.clone();
        if target.follow {
            pids.extend(target::descendants(&target.pids));
        }
        return Ok(Scope::Processes { pids, follow: target.follow });
    }
    if let (Some(comm), Some(pids)) = (&target.comm, running_by_name(target)) {
        return Ok(Scope::Comm { comm: target::cut_comm(comm).to_owned(), pids });
    }
    Ok(Scope::Everyone)
}

/// Processes that are traced and run already. Of those that only have a traced library mapped, it is found out when
/// they call.
fn running(scope: &Scope, files: &[TracedFile], inside: Option<&Inside>) -> Vec<u32> {
    let runs_one = |pid: &u32| {
        let program = fs::metadata(target::proc::of(*pid).join("exe"));
        program.is_ok_and(|p| files.iter().any(|f| (f.identity.device, f.identity.inode) == (p.dev(), p.ino())))
    };
    match scope {
        Scope::Processes { pids, .. } | Scope::Comm { pids, .. } => pids.clone(),
        Scope::Threads(tids) => tids.iter().filter_map(|&tid| target::process_of_thread(tid)).collect(),
        Scope::Everyone => match inside {
            Some(inside) => inside.selected().processes(),
            None => target::all_pids().into_iter().filter(runs_one).collect(),
        },
    }
}

fn features() -> Result<Features> {
    Features::detect().map_err(|error| attach::denied("failed to ask the kernel what it can do", error.into()))
}

struct Destination {
    writer: Box<dyn Write>,
    color: bool,
}

/// stdout, or with `-- COMMAND` (whose stdout it is) stderr, or a file.
fn destination(request: &Trace) -> Result<Destination> {
    if let Some(path) = &request.output_file {
        let file = File::create(path).with_context(|| format!("failed to write {}", path.display()))?;
        return Ok(Destination { writer: Box::new(file), color: false });
    }
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    Ok(if request.target.command.is_some() {
        Destination { color: !plain && io::stderr().is_terminal(), writer: Box::new(io::stderr()) }
    } else {
        Destination { color: !plain && io::stdout().is_terminal(), writer: Box::new(io::stdout()) }
    })
}

fn warn_of_uretprobes(request: &Trace, plan: &Plan) {
    if request.returns == Returns::Uretprobe && plan.has_unwinding_languages {
        talk::say(
            "WARNING: --returns=uretprobe aborts a Rust or C++ program whose panic or exception passes a \
             traced function",
        );
    }
}

/// What durations are less by.
fn announce_subtraction(measured: &calibration::Measured, plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    let costs = measured.costs.told(&plan.points, &plan.functions);
    let costs: Vec<String> =
        costs.iter().map(|(trap, ns)| format!("{} {}", output::duration(*ns), trap.name())).collect();
    let costs = costs.join(", ");
    let Some(reason) = &measured.untimed else {
        return writeln!(
            out,
            "probe: durations are less the probes' own cost, measured in each trap; at the start: {costs}"
        );
    };
    writeln!(out, "probe: durations are less the probes' own cost, measured at the start: {costs}")?;
    writeln!(out, "probe: what it is in each trap cannot be measured here: {}", output::escape::escaped(reason))
}

/// What could not be probed and why, a line each: the first few, with `-v` all.
fn not_probed(skipped: &[Skipped], verbose: u8) -> impl Iterator<Item = String> {
    const FEW: usize = 5;
    let shown = if verbose > 0 { skipped.len() } else { skipped.len().min(FEW) };
    let more = (skipped.len() > shown).then(|| format!("not probed: {} more (-v names them)", skipped.len() - shown));
    let lines = skipped.iter().take(shown).map(|Skipped { function, reason }| {
        let mut line = "not probed: ".to_owned();
        output::escape::text(&mut line, function);
        line + ": " + reason
    });
    lines.chain(more)
}

/// What is traced, and what is not.
fn announce(plan: &Plan, awaited: &[String], verbose: u8, out: &mut dyn Write) -> io::Result<()> {
    for name in awaited {
        let name = escaped(name);
        writeln!(out, "probe: {name} is not there yet: traced as soon as a traced process loads it")?;
    }
    let attached = plan.functions.len();
    let files: Vec<_> = plan.traced_files().map(output::escape::escaped).collect();
    if files.is_empty() {
        return writeln!(out, "probe: tracing nothing yet; Ctrl-C ends");
    }
    write!(out, "probe: tracing {attached} of {} matched in {}", plan.matched, files.join(", "))?;
    if !plan.skipped.is_empty() {
        write!(out, "; {} cannot be probed", plan.skipped.len())?;
    }
    let left_out: u64 = plan.left_out.values().sum();
    if left_out > 0 {
        write!(out, "; {left_out} left out (--all takes them in)")?;
    }
    if let Some(inlined) = &plan.inlined {
        if inlined.copies > 0 {
            write!(out, "; {} inlined copies of {} are not seen", inlined.copies, inlined.functions)?;
        }
        if inlined.only > 0 {
            write!(out, "; {} only inlined", inlined.only)?;
        }
    }
    writeln!(out, "; Ctrl-C ends")?;
    for line in not_probed(&plan.skipped, verbose) {
        writeln!(out, "probe: {line}")?;
    }
    if verbose > 0 {
        for (reason, count) in &plan.left_out {
            writeln!(out, "probe: left out: {count} of {reason}")?;
        }
        for reason in &plan.unwatched {
            writeln!(out, "probe: some unwound calls will have no duration: {reason}")?;
        }
    }
    if let Some(inlined) = &plan.inlined {
        let others = inlined.others.iter().take(if verbose > 0 { usize::MAX } else { 0 });
        for sentence in inlined.named.iter().chain(others) {
            writeln!(out, "probe: {}", escaped(sentence))?;
        }
    }
    for note in &plan.notes {
        writeln!(out, "probe: {note}")?;
    }
    Ok(())
}
