//! `--json`: one line for each call, at its end, children before parents.
//!
//! The hot path of the tool: lines are written by hand into one buffer that is kept; what a function contributes is
//! rendered once, and so are each caller and what one thread's calls have in common. serde would cost an allocation or a
//! formatter per field.

mod common;
mod digits;

use std::io::{self, Write};
use std::rc::Rc;

use rustc_hash::FxHashMap;

use self::common::Common;
use super::{BUFFER, Sink, escape, text::cut_reason};
use crate::calls::{
    CallerStack, Cause, End, Enter, Frame, Home, Leave, NewFile, Origin, Point, Shed, Skipped, Summary, Thread,
    TraceInfo, TracedFunction,
};

/// Callers rendered and kept; when there are more, all are forgotten and rendered anew.
const FRAMES_KEPT: usize = 8192;

/// How what a function contributes begins, unless the call has a parent.
const NO_PARENT: &[u8] = br#","parent":null"#;

/// What one function contributes to a line.
struct Fragment {
    /// The name alone.
    name: Vec<u8>,
    /// From `"parent"`, which is [`NO_PARENT`] there, to the colon after `"start_ns"`.
    call: Vec<u8>,
    /// The same for a point, with its offset.
    point: Vec<u8>,
}

/// The JSON lines.
pub(super) struct Json {
    out: Box<dyn Write>,
    /// Not yet written, to `out`.
    lines: Vec<u8>,
    min_duration_ns: u64,
    origin_ns: u64,
    /// Durations are less what the probes cost.
    subtracted: bool,
    fragments: Vec<Fragment>,
    unknown: Fragment,
    /// By the frame's place in memory; the frame is kept alive beside, so that no other can take its place.
    frames: FxHashMap<*const Frame, (Rc<Frame>, Box<[u8]>)>,
    common: Common,
}

impl Json {
    pub(super) fn new(min_duration_ns: Option<u64>, out: Box<dyn Write>) -> Json {
        Json {
            out,
            // Most lines are shorter than what there is room for beyond it.
            lines: Vec::with_capacity(BUFFER + 4096),
            min_duration_ns: min_duration_ns.unwrap_or(0),
            origin_ns: 0,
            subtracted: false,
            fragments: Vec::new(),
            unknown: Fragment {
                name: b"null".to_vec(),
                call: br#","parent":null,"function":null,"binary":null,"address":null,"start_ns":"#.to_vec(),
                point: br#","function":null,"offset":null,"binary":null,"address":null,"start_ns":"#.to_vec(),
            },
            frames: FxHashMap::default(),
            common: Common::default(),
        }
    }

    #[inline(always)]
    fn text(&mut self, text: &[u8]) {
        self.lines.extend_from_slice(text);
    }

    /// Inlined, as [`Self::optional`] is: then the key's length is known, and it is stored rather than copied.
    #[inline(always)]
    fn number(&mut self, key: &[u8], value: u64) {
        self.lines.extend_from_slice(key);
        digits::push(&mut self.lines, value);
    }

    #[inline(always)]
    fn optional(&mut self, key: &[u8], value: Option<u64>) {
        match value {
            Some(value) => self.number(key, value),
            None => {
                self.text(key);
                self.text(b"null");
            }
        }
    }

    #[inline(always)]
    fn fragment(&mut self, function: u32, part: fn(&Fragment) -> &[u8]) {
        let fragment = self.fragments.get(function as usize);
        self.lines.extend_from_slice(part(fragment.unwrap_or(&self.unknown)));
    }

    fn thread(&mut self, thread: Thread) {
        self.number(br#","pid":"#, thread.pid.into());
        self.number(br#","tid":"#, thread.tid.into());
    }

    /// From the inner process id to the depth.
    fn context(&mut self, home: &Home, comm: &str, goroutine: Option<u64>, origin: Option<&Origin>, depth: u32) {
        self.optional(br#","inner_pid":"#, home.inner_pid.map(u64::from));
        self.text(br#","container":"#);
        match &home.container {
            Some(container) => escape::json(&mut self.lines, container),
            None => self.text(b"null"),
        }
        self.text(br#","comm":"#);
        escape::json(&mut self.lines, comm);
        self.optional(br#","goroutine":"#, goroutine);
        self.origin(origin);
        self.number(br#","depth":"#, depth.into());
    }

    fn origin(&mut self, origin: Option<&Origin>) {
        self.optional(br#","parent_goroutine":"#, origin.and_then(|origin| origin.parent));
        self.text(br#","go_statement":"#);
        match origin.and_then(|origin| origin.go_statement.as_ref()) {
            Some(place) => self.frame(place),
            None => self.text(b"null"),
        }
    }

    #[inline]
    fn stack(&mut self, stack: Option<&Rc<CallerStack>>) {
        let Some(stack) = stack else {
            self.text(br#","stack":null,"stack_cut":null}"#);
            return;
        };
        self.text(br#","stack":["#);
        self.all_frames(&stack.frames);
        self.text(br#"],"stack_cut":"#);
        match stack.cut {
            Some(cut) => escape::json(&mut self.lines, cut_reason(cut)),
            None => self.text(b"null"),
        }
        if let Some(frames) = &stack.kernel {
            self.text(br#","kernel_stack":["#);
            self.all_frames(frames);
            self.lines.push(b']');
        }
        self.lines.push(b'}');
    }

    fn all_frames(&mut self, frames: &[Rc<Frame>]) {
        for (at, frame) in frames.iter().enumerate() {
            if at > 0 {
                self.lines.push(b',');
            }
            self.frame(frame);
        }
    }

    fn frame(&mut self, frame: &Rc<Frame>) {
        if let Some((_, text)) = self.frames.get(&Rc::as_ptr(frame)) {
            self.lines.extend_from_slice(text);
            return;
        }
        if self.frames.len() >= FRAMES_KEPT {
            self.frames.clear();
        }
        let text = render_frame(frame);
        self.lines.extend_from_slice(&text);
        self.frames.insert(Rc::as_ptr(frame), (Rc::clone(frame), text.into_boxed_slice()));
    }

    fn skipped(&mut self, skipped: &[Skipped]) {
        self.text(br#","skipped":["#);
        for (at, Skipped { function, reason }) in skipped.iter().enumerate() {
            self.text(if at > 0 { br#",{"function":"# } else { br#"{"function":"# });
            escape::json(&mut self.lines, function);
            self.text(br#","reason":"#);
            escape::json(&mut self.lines, reason);
            self.lines.push(b'}');
        }
        self.text(b"]");
    }

    /// What other calls' lines have too: from the process to `returns`.
    fn common(&mut self, leave: &Leave) {
        let (call, from) = (&leave.call, self.lines.len());
        self.thread(call.thread);
        // Where a call ended is known only if its end was seen.
        self.optional(br#","end_tid":"#, leave.has_ended().then_some(leave.end_tid.into()));
        self.context(&call.home, &call.comm, call.goroutine, call.origin.as_deref(), call.depth);
        self.text(end_fields(leave.end, leave.lost));
        self.common.keep(leave, &self.lines[from..]);
    }

    /// Whole lines are written, many at once: `out` need not gather them.
    fn end_line(&mut self) -> io::Result<()> {
        self.lines.push(b'\n');
        if self.lines.len() < BUFFER { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> io::Result<()> {
        let written = self.out.write_all(&self.lines);
        self.lines.clear();
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write()?;
        self.out.flush()
    }
}

impl Sink for Json {
    fn begin(&mut self, trace: &TraceInfo) -> io::Result<()> {
        self.origin_ns = trace.origin_ns;
        self.fragments = trace.functions.iter().map(render_function).collect();
        self.number(br#"{"type":"trace","version":1,"epoch_ns":""#, trace.epoch_ns);
        self.number(br#"","matched":"#, trace.matched);
        self.number(br#","attached":"#, trace.functions.len() as u64);
        self.skipped(&trace.skipped);
        self.subtracted = trace.subtracted.is_some();
        if let Some(costs) = &trace.subtracted {
            self.text(br#","probe_cost_ns":{"#);
            for (at, (trap, ns)) in costs.iter().enumerate() {
                let separator = if at > 0 { "," } else { "" };
                self.number(format!(r#"{separator}"{}":"#, trap.key()).as_bytes(), *ns);
            }
            self.lines.push(b'}');
        }
        self.lines.push(b'}');
        self.end_line()?;
        self.flush()
    }

    fn enter(&mut self, _: &Enter) -> io::Result<()> {
        Ok(())
    }

    fn leave(&mut self, leave: &Leave) -> io::Result<()> {
        let duration = leave.duration_ns();
        if duration.is_some_and(|ns| ns < self.min_duration_ns) {
            return Ok(());
        }
        let call = &leave.call;
        self.number(br#"{"type":"call","id":"#, call.id);
        match call.parent {
            None => self.fragment(call.function, |fragment| &fragment.call),
            Some(parent) => {
                self.number(br#","parent":"#, parent);
                self.fragment(call.function, |fragment| &fragment.call[NO_PARENT.len()..]);
            }
        }
        self.number(b"", call.start_ns.saturating_sub(self.origin_ns));
        self.optional(br#","duration_ns":"#, duration);
        if self.subtracted {
            self.optional(br#","overhead_ns":"#, duration.map(|_| leave.overhead_ns));
        }
        match self.common.of(leave) {
            Some(text) => self.lines.extend_from_slice(text),
            None => self.common(leave),
        }
        self.stack(call.stack.as_ref());
        self.end_line()
    }

    fn point(&mut self, point: &Point) -> io::Result<()> {
        self.optional(br#"{"type":"point","parent":"#, point.parent);
        self.fragment(point.function, |fragment| &fragment.point);
        self.number(b"", point.at_ns.saturating_sub(self.origin_ns));
        self.thread(point.thread);
        self.context(&point.home, &point.comm, point.goroutine, point.origin.as_deref(), point.depth);
        self.text(br#","args":null"#);
        self.stack(point.stack.as_ref());
        self.end_line()
    }

    fn grown(&mut self, trace: &TraceInfo, file: &NewFile) -> io::Result<()> {
        let new = trace.functions.iter().skip(self.fragments.len()).map(render_function);
        self.fragments.extend(new);
        self.text(br#"{"type":"file","binary":"#);
        escape::json(&mut self.lines, &file.binary);
        self.text(match file.cause {
            Cause::Replaced => br#","cause":"replaced""#,
            Cause::Loaded => br#","cause":"loaded""#,
        });
        self.number(br#","at_ns":"#, file.at_ns.saturating_sub(self.origin_ns));
        self.number(br#","matched":"#, file.matched);
        self.number(br#","attached":"#, file.attached);
        self.skipped(&file.skipped);
        self.lines.push(b'}');
        self.end_line()
    }

    fn shed(&mut self, shed: &Shed) -> io::Result<()> {
        self.text(br#"{"type":"shed","function":"#);
        let name = usize::try_from(shed.function).ok().and_then(|at| self.fragments.get(at)).map(|f| &f.name);
        self.lines.extend_from_slice(name.map_or(b"null", Vec::as_slice));
        self.number(br#","rate":"#, shed.rate);
        self.number(br#","at_ns":"#, shed.at_ns.saturating_sub(self.origin_ns));
        self.lines.push(b'}');
        self.end_line()
    }

    fn tick(&mut self, _: u64) -> io::Result<()> {
        self.flush()
    }

    fn end(&mut self, summary: &Summary) -> io::Result<()> {
        self.number(br#"{"type":"summary","calls":"#, summary.calls);
        self.number(br#","events":"#, summary.events);
        self.number(br#","lost":"#, summary.lost());
        self.number(br#","unmatched_returns":"#, summary.unmatched_returns);
        self.number(br#","open":"#, summary.open);
        self.number(br#","shed":"#, summary.shed.len() as u64);
        self.lines.push(b'}');
        self.end_line()?;
        self.flush()
    }
}

/// `end` to `returns` are one of few texts.
fn end_fields(end: End, lost: bool) -> &'static [u8] {
    macro_rules! fields {
        ($end:literal) => {
            match lost {
                false => concat!(r#","end":""#, $end, r#"","lost":false,"args":null,"returns":null"#).as_bytes(),
                true => concat!(r#","end":""#, $end, r#"","lost":true,"args":null,"returns":null"#).as_bytes(),
            }
        };
    }
    match end {
        End::Return => fields!("return"),
        End::TailCall => fields!("tailcall"),
        End::Unwind => fields!("unwind"),
        End::Exit => fields!("exit"),
        End::Exec => fields!("exec"),
        // For the trace it never ended; a line of its own tells that its function was shed.
        End::Open | End::Shed => fields!("open"),
    }
}

fn render_function(function: &TracedFunction) -> Fragment {
    let mut alone = Vec::new();
    escape::json(&mut alone, &function.name);
    let name = [br#","function":"#, &alone[..]].concat();
    let mut place = br#","binary":"#.to_vec();
    escape::json(&mut place, &function.binary);
    place.extend_from_slice(format!(r#","address":"{:#x}","start_ns":"#, function.address).as_bytes());
    let offset = function.point.map_or("null".to_owned(), |offset| offset.to_string());
    Fragment {
        name: alone,
        call: [NO_PARENT, &name, &place].concat(),
        point: [&name[..], br#","offset":"#, offset.as_bytes(), &place].concat(),
    }
}

fn render_frame(frame: &Frame) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let string = |out: &mut Vec<u8>, key: &[u8], value: Option<&str>| {
        out.extend_from_slice(key);
        match value {
            Some(value) => escape::json(out, value),
            None => out.extend_from_slice(b"null"),
        }
    };
    string(&mut out, br#"{"function":"#, frame.function.as_deref());
    string(&mut out, br#","file":"#, frame.file.as_deref());
    let line = frame.line.map_or("null".to_owned(), |line| line.to_string());
    out.extend_from_slice(format!(r#","line":{line}"#).as_bytes());
    string(&mut out, br#","binary":"#, frame.binary.as_deref());
    let address = frame.address.map(|address| format!("{address:#x}"));
    string(&mut out, br#","address":"#, address.as_deref());
    out.extend_from_slice(format!(r#","ip":"{:#x}","inlined":{}}}"#, frame.ip, frame.inlined).as_bytes());
    out
}

#[cfg(test)]
mod tests;
