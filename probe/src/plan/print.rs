//! The plan as text, for `--dry-run`.

use std::path::Path;

use symbols::code::EntryCost;

use super::{NO_FUNCTION, Plan, PlannedFunction, PlannedPoint, PointKind};
use crate::output::escape;

impl Plan {
    /// The plan as text, for `--dry-run`: one line for each function, its points behind it.
    pub fn print(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let mut by_function: Vec<Vec<&PlannedPoint>> = vec![Vec::new(); self.functions.len()];
        for point in &self.points {
            if let Some(points) = by_function.get_mut(point.function as usize) {
                points.push(point);
            }
        }
        for (function, points) in self.functions.iter().zip(by_function) {
            let traced = &function.traced;
            let file =
                Path::new(&traced.binary).file_name().map_or(traced.binary.as_str().into(), |n| n.to_string_lossy());
            let offset = traced.point.map(|o| format!("+{o:#x}")).unwrap_or_default();
            writeln!(
                out,
                "{:#x} {}{offset} ({})",
                traced.address,
                escape::escaped(&traced.name),
                escape::escaped(&file)
            )?;
            for point in points {
                writeln!(
                    out,
                    "    {:<12} file offset {}{}",
                    kind_name(point.kind),
                    point.offset,
                    cost_note(function, point)
                )?;
            }
        }
        for point in self.points.iter().filter(|point| point.function == NO_FUNCTION) {
            let file = self.files.get(point.file).map_or("", |file| file.shown.as_str());
            let (kind, offset) = (kind_name(point.kind), point.offset);
            writeln!(out, "internal: {kind}, file offset {offset} ({})", escape::escaped(file))?;
        }
        for skipped in &self.skipped {
            writeln!(out, "not probed: {}: {}", escape::escaped(&skipped.function), skipped.reason)?;
        }
        Ok(())
    }
}

fn kind_name(kind: PointKind) -> &'static str {
    match kind {
        PointKind::Entry => "entry",
        PointKind::Return => "return",
        PointKind::TailJump => "tail jump",
        PointKind::MaybeJump => "jump",
        PointKind::AfterReturn => "uretprobe",
        PointKind::Passed => "point",
        PointKind::GoroutineEnd => "Goexit",
        PointKind::Landing | PointKind::LongJump | PointKind::Recovery => "end of unwinding",
        PointKind::Context | PointKind::BoostContext => "coroutine's stack",
    }
}

fn cost_note(function: &PlannedFunction, point: &PlannedPoint) -> &'static str {
    match (point.kind, function.cost) {
        (PointKind::Entry, EntryCost::Nop) => ", nop: cheapest",
        (PointKind::Entry, EntryCost::Emulated) => ", emulated: cheap",
        (PointKind::Entry, EntryCost::SingleStep) => ", single-stepped",
        _ => "",
    }
}
