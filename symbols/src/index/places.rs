//! Patterns that name places: addresses, offsets in functions, files and lines.

use super::Index;
use super::select::{Found, Hit};
use crate::addr::Vaddr;
use crate::pattern::Name;

impl Index {
    pub(super) fn find_address(&self, address: Vaddr) -> Found {
        let mut found = Found { takes_left_out: true, exact: true, ..Found::default() };
        if !self.binary.is_executable(address) {
            return found;
        }
        let holder = self.at(address).map(|f| f.id.0).or_else(|| self.starting_at(address).map(|i| i as u32));
        let hit = holder.and_then(|f| Some(Hit { function: f, name: self.shown(f as usize)? as u32 }));
        match hit {
            Some(hit) if self.start(hit.function as usize) == address => found.hits.push(hit),
            Some(hit) => {
                let offset = address.0.saturating_sub(self.start(hit.function as usize).0);
                found.points.push((address, Some(hit), offset));
            }
            None => found.points.push((address, None, 0)),
        }
        found
    }

    pub(super) fn find_offset(&self, name: &Name, offset: u64) -> Found {
        let (hits, _) = self.find_named(name);
        if hits.is_empty() && self.is_own_name(&name.literal) {
            // What functions without a name are called.
            return self.find_address(Vaddr(offset));
        }
        let mut found = Found { takes_left_out: true, exact: true, ..Found::default() };
        let mut too_short = 0;
        for hit in hits {
            let start = self.start(hit.function as usize);
            let Some(address) = start.checked_add(offset).filter(|&a| a < self.end(hit.function as usize)) else {
                too_short += 1;
                continue;
            };
            if offset == 0 {
                found.hits.push(hit);
            } else {
                found.points.push((address, Some(hit), offset));
            }
        }
        if too_short > 0 && !(found.hits.is_empty() && found.points.is_empty()) {
            found.note = Some(format!("{too_short} functions `{}` end before {offset:#x}", name.literal));
        }
        found
    }

    /// Functions defined in a file, or the first address of a line in each function that has code from it.
    pub(super) fn find_file(&self, path: &str, line: Option<u32>) -> Found {
        let mut found = Found { exact: line.is_some(), takes_left_out: line.is_some(), ..Found::default() };
        self.find_in_debug(path, line, &mut found);
        let Some(program) = self.binary.go() else {
            return found;
        };
        for (function, name) in (0..self.len()).filter_map(|function| Some((function, self.shown(function)? as u32))) {
            let hit = Hit { function: function as u32, name };
            let entry = self.entry(name as usize).filter(|n| n.is_go());
            let Some(code) = entry.and_then(|n| program.function(&self.binary, n.position() as usize)) else {
                continue;
            };
            let Some(wanted) = line else {
                if code.line_at(code.address).is_some_and(|l| is_tail_of_path(l.file, path)) {
                    found.hits.push(hit);
                }
                continue;
            };
            let at = code.lines().find(|(_, _, l)| l.line == wanted && is_tail_of_path(l.file, path));
            match at {
                Some((start, ..)) if start == code.address => found.hits.push(hit),
                Some((start, ..)) => found.points.push((start, Some(hit), start.0 - code.address.0)),
                None => {}
            }
        }
        found
    }
}

/// `http/server.go` is a tail of `/go/src/net/http/server.go`; `rver.go` is not.
pub(super) fn is_tail_of_path(path: &str, tail: &str) -> bool {
    path.strip_suffix(tail).is_some_and(|before| before.is_empty() || before.ends_with('/') || tail.starts_with('/'))
}
