//! Functions that Go's compiler inlined, as the function table has them.
//!
//! Source: src/runtime/symtabinl.go: a value for each address names a record of the function's inlining tree, and the
//! record an address in what it was inlined into, to go on from.

use super::pclntab::{Function, SourceLine, TableVersion};
use super::{Program, pclntab};
use crate::addr::Vaddr;
use crate::binary::Binary;
use crate::bytes::u32_at;

/// `abi.PCDATA_InlTreeIndex`
const INLINE_INDEX: usize = 2;
/// `abi.FUNCDATA_InlTree`
const INLINE_TREE: usize = 3;
/// The compiler inlines some tens of levels; broken tables may lead in circles.
const MAX_DEPTH: usize = 256;

/// Where things are in one record of the tree, in bytes.
struct Record {
    size: u64,
    name: usize,
    parent: usize,
}

impl TableVersion {
    // Go 1.16 to 1.19: src/runtime/symtab.go, inlinedCall; Go 1.20+: src/runtime/symtabinl.go.
    fn inline_record(self) -> Record {
        match self {
            Self::Go1_16 | Self::Go1_18 => Record { size: 20, name: 12, parent: 16 },
            Self::Go1_20 => Record { size: 16, name: 4, parent: 8 },
        }
    }
}

impl Program {
    /// The functions at an address of `function`, innermost first: (name as the table spells it, where it is). The last is
    /// `function`.
    pub fn inlined<'a>(
        &'a self,
        binary: &'a Binary,
        function: &Function<'a>,
        v: Vaddr,
    ) -> Vec<(&'a str, Option<SourceLine<'a>>)> {
        let mut frames = Vec::new();
        let mut at = v;
        while frames.len() < MAX_DEPTH
            && let Some((name, parent)) = self.inlined_at(binary, function, at)
        {
            frames.push((name, function.line_at(at)));
            at = parent;
        }
        frames.push((function.name(), function.line_at(at)));
        frames
    }

    /// What was inlined at `v`, and an address in what it was inlined into.
    fn inlined_at<'a>(&'a self, binary: &'a Binary, function: &Function<'a>, v: Vaddr) -> Option<(&'a str, Vaddr)> {
        let number = u64::try_from(function.pcdata_at(INLINE_INDEX, v)?).ok()?;
        self.inline_record(binary, function, number)
    }

    /// Record `number` of a function's tree: the name, and an address in what it was inlined into.
    fn inline_record<'a>(
        &'a self,
        binary: &'a Binary,
        function: &Function<'a>,
        number: u64,
    ) -> Option<(&'a str, Vaddr)> {
        let tree = self.inline_tree(binary, function)?;
        let shape = self.table_version().inline_record();
        let record = binary.bytes_at(tree.checked_add(number.checked_mul(shape.size)?)?, shape.size)?;
        let name = function.text_at(u32_at(record, shape.name)?)?;
        Some((name, function.address.checked_add(u64::from(u32_at(record, shape.parent)?))?))
    }

    fn inline_tree(&self, binary: &Binary, function: &Function<'_>) -> Option<Vaddr> {
        match function.funcdata(INLINE_TREE)? {
            pclntab::FuncData::Offset(into) => self.gofunc()?.checked_add(u64::from(into)),
            // Go 1.16 and 1.17 have pointers.
            pclntab::FuncData::Pointer(place) => binary.pointer_at(place).filter(|v| v.0 != 0),
        }
    }

    /// What functions' data is relative to (`moduledata.gofunc`).
    fn gofunc(&self) -> Option<Vaddr> {
        let minor = self.version().and_then(minor).unwrap_or(0);
        let word = match self.table_version() {
            TableVersion::Go1_16 => return None,
            TableVersion::Go1_18 => 38,
            TableVersion::Go1_20 if minor < 27 => 40,
            TableVersion::Go1_20 => 43,
        };
        self.module_word(word)
    }

    /// Where each function was inlined: calls `each` with (its name, the function it is in), once for each place.
    pub(crate) fn each_inlined<'a>(&'a self, binary: &'a Binary, mut each: impl FnMut(&'a str, &Function<'a>)) {
        for function in self.functions(binary) {
            // Every record stands for one place; those that only lead to others have no address of their own.
            let used = function.pcdata(INLINE_INDEX).filter_map(|number| u64::try_from(number).ok());
            let count = used.max().map_or(0, |most| most.saturating_add(1)).min(function.size());
            for number in 0..count {
                // The next ones are not there either: they lie behind it.
                let Some((name, _)) = self.inline_record(binary, &function, number) else { break };
                each(name, &function);
            }
        }
    }
}

/// The 27 of `go1.27.3`, and of `devel go1.27-0123abc`.
fn minor(version: &str) -> Option<u32> {
    let (_, rest) = version.split_once("go1.")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..digits)?.parse().ok()
}
