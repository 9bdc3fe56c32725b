//! Live traces: real programs under real probes, as root. What a trace says is compared with what the program itself
//! counted, and with other tracers. The programs are those of `testdata/` (`make programs`).
//!
//! A test looks at its own processes only, and waits for words ("ready"), never for time to pass.

mod arrivals;
mod budget;
mod cgroups;
mod chain;
#[path = "../common/children.rs"]
mod children;
mod containers;
mod counts;
mod engine;
mod foreign;
mod goroutines;
mod harness;
mod kernel;
mod kernel_stack;
mod options;
mod overhead;
mod overlays;
mod processes;
mod real;
mod rights;
mod runtimes;
mod scenarios;
mod sharing;
mod sources;
mod stacks;
mod targets;
mod trace;
mod unwinding;
