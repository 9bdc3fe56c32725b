//! A trace in JSON lines, read back, and the laws that hold for every trace.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
    rc::Rc,
};

use serde::Deserialize;
use serde_json::Value;

/// A `"type":"call"` line.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: u64,
    pub(crate) parent: Option<u64>,
    pub(crate) function: Rc<str>,
    pub(crate) start_ns: u64,
    pub(crate) duration_ns: Option<u64>,
    /// What the duration is less by.
    pub(crate) overhead_ns: Option<u64>,
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) end_tid: Option<u32>,
    pub(crate) comm: Rc<str>,
    pub(crate) container: Option<String>,
    pub(crate) inner_pid: Option<u32>,
    pub(crate) goroutine: Option<u64>,
    pub(crate) parent_goroutine: Option<u64>,
    pub(crate) go_statement: Option<Value>,
    pub(crate) depth: u32,
    pub(crate) end: Rc<str>,
    pub(crate) lost: bool,
    pub(crate) stack: Option<Vec<Frame>>,
    pub(crate) stack_cut: Option<String>,
    pub(crate) kernel_stack: Option<Vec<Frame>>,
}

/// A caller.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Frame {
    pub(crate) function: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    pub(crate) binary: Option<String>,
    ip: String,
}

impl Frame {
    /// Its address at run time.
    pub(crate) fn ip(&self) -> u64 {
        self.ip.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok()).expect("an address")
    }
}

#[derive(Deserialize)]
struct CallLine<'a> {
    id: u64,
    parent: Option<u64>,
    #[serde(borrow)]
    function: Cow<'a, str>,
    start_ns: u64,
    duration_ns: Option<u64>,
    overhead_ns: Option<u64>,
    pid: u32,
    tid: u32,
    end_tid: Option<u32>,
    #[serde(borrow)]
    comm: Cow<'a, str>,
    container: Option<String>,
    inner_pid: Option<u32>,
    goroutine: Option<u64>,
    parent_goroutine: Option<u64>,
    go_statement: Option<Value>,
    depth: u32,
    #[serde(borrow)]
    end: Cow<'a, str>,
    lost: bool,
    stack: Option<Vec<Frame>>,
    stack_cut: Option<String>,
    kernel_stack: Option<Vec<Frame>>,
}

/// A trace.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) header: Value,
    pub(crate) calls: Vec<Call>,
    pub(crate) points: Vec<Value>,
    pub(crate) shed: Vec<Value>,
    /// Files that came later.
    pub(crate) files: Vec<Value>,
    pub(crate) summary: Value,
}

/// Texts that many calls share.
#[derive(Default)]
struct Texts(HashMap<Box<str>, Rc<str>>);

impl Texts {
    fn keep(&mut self, text: &str) -> Rc<str> {
        if let Some(kept) = self.0.get(text) {
            return kept.clone();
        }
        let kept: Rc<str> = text.into();
        self.0.insert(text.into(), kept.clone());
        kept
    }
}

impl Trace {
    /// Reads a trace that ended, and checks the laws.
    pub(crate) fn read(path: &Path) -> Self {
        let trace = Self::parse(path);
        trace.check_frame();
        trace.check_nesting();
        trace
    }

    fn parse(path: &Path) -> Self {
        let mut file = BufReader::with_capacity(1 << 20, File::open(path).expect("the trace is there"));
        let (mut header, mut summary) = (Value::Null, Value::Null);
        let (mut calls, mut points, mut shed, mut files) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut texts = Texts::default();
        let mut line = String::new();
        while file.read_line(&mut line).expect("the trace is text") > 0 {
            assert!(summary.is_null(), "a line after the summary: {line}");
            if line.starts_with(r#"{"type":"call","#) {
                let call = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
                calls.push(own(call, &mut texts));
            } else {
                let value: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
                match value["type"].as_str() {
                    Some("trace") if header.is_null() && calls.is_empty() => header = value,
                    Some("point") => points.push(value),
                    Some("shed") => shed.push(value),
                    Some("file") => files.push(value),
                    Some("summary") => summary = value,
                    _ => panic!("an unexpected line: {line}"),
                }
            }
            line.clear();
        }
        Self { header, calls, points, shed, files, summary }
    }

    /// The first and the last line say what lies between them.
    fn check_frame(&self) {
        assert_eq!(self.header["version"], 1, "{}", self.header);
        assert!(self.header["epoch_ns"].as_str().is_some_and(|ns| ns.parse::<u64>().is_ok()), "{}", self.header);
        assert_eq!(self.summary["type"], "summary", "no summary");
        let open = self.calls.iter().filter(|call| &*call.end == "open").count();
        assert_eq!(self.summary["shed"], self.shed.len(), "as many as were said");
        assert!(
            self.summary["open"].as_u64().is_some_and(|n| n <= open as u64),
            "{open} open, not as many as {}",
            self.summary
        );
    }

    /// Children stand before their parents, in the same thread or goroutine, within their parents' time, one after the
    /// other, one deeper.
    fn check_nesting(&self) {
        let moves = self.has_moved();
        let mut children: HashMap<u64, Vec<&Call>> = HashMap::new();
        let mut seen = std::collections::HashSet::with_capacity(self.calls.len());
        for call in &self.calls {
            assert!(seen.insert(call.id), "an id twice: {call:?}");
            assert_eq!(call.parent.is_none(), call.depth == 0, "{call:?}");
            assert!(matches!(&*call.end, "return" | "tailcall" | "unwind" | "exit" | "exec" | "open"), "{call:?}");
            assert!(!call.lost || call.duration_ns.is_none(), "a guessed duration: {call:?}");
            let timed = !call.lost && matches!(&*call.end, "return" | "tailcall" | "exit" | "exec");
            assert!(!timed || call.duration_ns.is_some(), "{call:?}");
            check_children(call, &children.remove(&call.id).unwrap_or_default(), moves);
            if let Some(parent) = call.parent {
                assert!(!seen.contains(&parent), "a child after its parent: {call:?}");
                children.entry(parent).or_default().push(call);
            }
        }
        assert!(children.is_empty(), "parents that are not in the file: {:?}", children.keys());
    }

    /// Whether a call outside of goroutines ended on another thread than it began on: only coroutines' do.
    pub(crate) fn has_moved(&self) -> bool {
        self.calls.iter().any(|call| call.goroutine.is_none() && call.end_tid.is_some_and(|end| end != call.tid))
    }

    /// Calls of each function, by name.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for call in &self.calls {
            *counts.entry(call.function.to_string()).or_default() += 1;
        }
        counts
    }

    /// The calls of a function.
    pub(crate) fn of(&self, function: &str) -> Vec<&Call> {
        self.calls.iter().filter(|call| &*call.function == function).collect()
    }
}

/// `moves`: there are coroutines that change threads.
fn check_children(parent: &Call, children: &[&Call], moves: bool) {
    let end = |call: &Call| call.duration_ns.map(|duration| call.start_ns + duration + call.overhead_ns.unwrap_or(0));
    let mut not_before = parent.start_ns;
    let mut sum = 0;
    for child in children {
        assert_eq!(child.depth, parent.depth + 1, "{child:?} in {parent:?}");
        assert_eq!((child.pid, child.goroutine), (parent.pid, parent.goroutine), "{child:?} in {parent:?}");
        assert!(moves || child.goroutine.is_some() || child.tid == parent.tid, "{child:?} in {parent:?}");
        assert!(child.start_ns >= not_before, "begins too early: {child:?} in {parent:?}");
        not_before = end(child).unwrap_or(child.start_ns);
        assert!(end(parent).is_none_or(|end| not_before <= end), "ends too late: {child:?} in {parent:?}");
        sum += child.duration_ns.unwrap_or(0);
    }
    assert!(parent.duration_ns.is_none_or(|duration| sum <= duration), "children take longer than {parent:?}");
}

fn own(line: CallLine<'_>, texts: &mut Texts) -> Call {
    Call {
        id: line.id,
        parent: line.parent,
        function: texts.keep(&line.function),
        start_ns: line.start_ns,
        duration_ns: line.duration_ns,
        overhead_ns: line.overhead_ns,
        pid: line.pid,
        tid: line.tid,
        end_tid: line.end_tid,
        comm: texts.keep(&line.comm),
        container: line.container,
        inner_pid: line.inner_pid,
        goroutine: line.goroutine,
        parent_goroutine: line.parent_goroutine,
        go_statement: line.go_statement,
        depth: line.depth,
        end: texts.keep(&line.end),
        lost: line.lost,
        stack: line.stack,
        stack_cut: line.stack_cut,
        kernel_stack: line.kernel_stack,
    }
}

/// Names of callers, innermost first; what has no name is the file's name in brackets.
pub(crate) fn callers(call: &Call) -> Vec<String> {
    let stack = call.stack.as_ref().unwrap_or_else(|| panic!("no stack: {call:?}"));
    let name = |frame: &Frame| {
        let file = frame.binary.as_deref().and_then(|path| path.rsplit('/').next()).unwrap_or("?");
        frame.function.clone().unwrap_or_else(|| format!("[{file}]"))
    };
    stack.iter().map(name).collect()
}
