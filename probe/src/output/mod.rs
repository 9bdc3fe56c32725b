//! Output: what became known about calls, as text or JSON lines.
//!
//! In: [`Enter`], [`Leave`] and [`Point`] in the order in which they became known. Out: bytes to one writer.

use std::cell::RefCell;
use std::io::{self, BufWriter, Write};
use std::rc::Rc;

use jiff::tz::TimeZone;

use crate::calls::{Enter, Leave, NewFile, Point, Shed, Summary, TraceInfo};

mod depth;
pub mod escape;
mod json;
mod slow;
mod stream;
pub mod summary;
pub mod talk;
mod text;
mod time;
mod timeline;

pub use time::{TimeFormat, duration};

/// Bytes gathered before they are written, so that a busy trace costs few system calls.
const BUFFER: usize = 64 * 1024;

/// One way to show a trace. A `BrokenPipe` error ends the trace quietly, any other is reported.
pub trait Sink {
    /// The probes are in place.
    fn begin(&mut self, trace: &TraceInfo) -> io::Result<()>;
    /// A call began.
    fn enter(&mut self, enter: &Enter) -> io::Result<()>;
    /// A call ended.
    fn leave(&mut self, leave: &Leave) -> io::Result<()>;
    /// A point was passed.
    fn point(&mut self, point: &Point) -> io::Result<()>;
    /// A file is traced from here on: `trace` has its functions behind those known.
    fn grown(&mut self, trace: &TraceInfo, file: &NewFile) -> io::Result<()>;
    /// A function is not traced any more from here on.
    fn shed(&mut self, shed: &Shed) -> io::Result<()>;
    /// Called some times a second, and when the events run dry, with the time up to which all events have been
    /// told (`CLOCK_MONOTONIC`, ns): what is open for more than a second is shown, buffers are flushed.
    fn tick(&mut self, now_ns: u64) -> io::Result<()>;
    /// The trace is over: everything still open has been told with [`crate::calls::End::Open`].
    fn end(&mut self, summary: &Summary) -> io::Result<()>;
}

/// The shape of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The timeline: a block for each outermost call.
    #[default]
    Tree,
    /// A line for each entry and each exit, in the order of events.
    Stream,
    /// JSON lines, a line for each call at its end.
    Json,
}

/// What the user wants to see, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputOptions {
    /// The shape.
    pub format: Format,
    /// How times are shown (in text).
    pub time: TimeFormat,
    /// Colours in text; the caller looks at the terminal and `NO_COLOR`.
    pub color: bool,
    /// Shorter calls are hidden, ns. Calls of unknown duration are shown.
    pub min_duration_ns: Option<u64>,
    /// Outermost calls that take less are hidden with all that they call, ns.
    pub slow_ns: Option<u64>,
    /// Levels of calls shown: 1 shows outermost calls only.
    pub max_depth: Option<u32>,
    /// Ends are not watched (`--returns=none`): text says nothing about how a call ended.
    pub entries_only: bool,
    /// What the output itself had to leave out. To be read after [`Sink::end`].
    pub notes: Notes,
}

/// Sentences that an output has for the user, to stand beside [`Summary::notes`]. Clones share them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes(Rc<RefCell<Vec<String>>>);

impl Notes {
    /// Adds a sentence.
    pub fn add(&self, note: String) {
        self.0.borrow_mut().push(note);
    }

    /// Takes all sentences.
    pub fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

/// The output that `options` describe, to `out`, which gets a buffer here.
pub fn sink(options: &OutputOptions, out: Box<dyn Write>) -> Box<dyn Sink> {
    wrapped(options, TimeZone::system(), Box::new(BufWriter::with_capacity(BUFFER, out)))
}

fn wrapped(options: &OutputOptions, zone: TimeZone, out: Box<dyn Write>) -> Box<dyn Sink> {
    let mut sink = shape(options, zone, out);
    if let Some(slow_ns) = options.slow_ns {
        sink = Box::new(slow::Slow::new(slow_ns, options.notes.clone(), sink));
    }
    if let Some(levels) = options.max_depth {
        sink = Box::new(depth::MaxDepth::new(levels, sink));
    }
    sink
}

fn shape(options: &OutputOptions, zone: TimeZone, out: Box<dyn Write>) -> Box<dyn Sink> {
    match options.format {
        Format::Tree => Box::new(timeline::Timeline::new(options, zone, out)),
        Format::Stream => Box::new(stream::Stream::new(options, zone, out)),
        Format::Json => Box::new(json::Json::new(options.min_duration_ns, out)),
    }
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod subtracted;
#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests {
    use super::testing::Story;
    use super::*;

    /// A pipe whose reader has gone.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_told_to_the_caller_at_the_next_tick() {
        for format in [Format::Tree, Format::Stream, Format::Json] {
            for slow_ns in [None, Some(1)] {
                let options = OutputOptions { format, slow_ns, ..OutputOptions::default() };
                let mut sink = sink(&options, Box::new(Closed));
                // JSON lines begin with one, which is written at once.
                let began = sink.begin(&TraceInfo::default());
                assert_eq!(began.is_err(), format == Format::Json);
                if began.is_ok() {
                    let mut story = Story::told_to(sink, testing::Written::default(), &["f"]);
                    story.enter(1, 0, 0);
                    story.leave(1, 5);
                    assert_eq!(story.try_tick(10).map_err(|error| error.kind()), Err(io::ErrorKind::BrokenPipe));
                }
            }
        }
    }
}
