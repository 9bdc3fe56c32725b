//! Go's function table, for Go 1.16 to 1.27: names, bounds, files and lines.
//!
//! Sources: src/internal/abi/symtab.go, src/runtime/symtab.go (pcHeader, `_func`, pcvalue), src/debug/gosym/pclntab.go.
//! Every offset in it is untrusted: reads outside the table give `None`, and every walk moves forward.

use std::ops::Range;

use super::values::Values;
use crate::Error;
use crate::addr::Vaddr;
use crate::binary::{Binary, Segment};
use crate::bytes::{name_at, short_str, u32_at, u64_at};

/// The layouts of the table, by the first release that wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableVersion {
    /// Magic fffffffa: absolute addresses.
    Go1_16,
    /// Magic fffffff0: addresses relative to the text's start.
    Go1_18,
    /// Magic fffffff1: functions know their first line. Still written by Go 1.27.
    Go1_20,
}

/// Where things are in one layout, in bytes.
struct Shape {
    /// Header field of the first of the five offsets (names, units, files, pctab, functions).
    offsets: usize,
    /// One functab entry.
    entry: usize,
    /// `_func.nameOff`; the fields up to cuOffset follow at fixed distances.
    name: usize,
    /// `_func.funcID`.
    id: usize,
}

impl TableVersion {
    fn of_magic(magic: u32) -> Option<Self> {
        match magic {
            0xffff_fffa => Some(Self::Go1_16),
            0xffff_fff0 => Some(Self::Go1_18),
            0xffff_fff1 => Some(Self::Go1_20),
            _ => None,
        }
    }

    fn shape(self) -> Shape {
        match self {
            Self::Go1_16 => Shape { offsets: 24, entry: 16, name: 8, id: 40 },
            Self::Go1_18 => Shape { offsets: 32, entry: 8, name: 4, id: 36 },
            Self::Go1_20 => Shape { offsets: 32, entry: 8, name: 4, id: 40 },
        }
    }
}

// Distances from `_func.nameOff`.
const PC_FILE: usize = 16;
const PC_LINE: usize = 20;
const PCDATA_COUNT: usize = 24;
const UNIT: usize = 28;
/// Bytes of a function behind which no other begins: the table's end states where the code ends.
const MAX_LAST: u64 = 1 << 20;
/// No file can be opened by a longer path.
const MAX_PATH: usize = 4096;
/// Header field textStart, Go 1.18+.
const TEXT_START: usize = 24;

/// A function table found in a binary.
#[derive(Debug)]
pub(super) struct Pclntab {
    version: TableVersion,
    address: Vaddr,
    /// The table in the file, to the end of its section or segment.
    bytes: Range<usize>,
    quantum: u32,
    count: usize,
    names: usize,
    units: usize,
    files: usize,
    values: usize,
    functions: usize,
    text: Vaddr,
    /// Go 1.16 and 1.17 in position-independent files: functab entries are relocated words.
    relocated: Vec<(Vaddr, Vaddr)>,
}

/// One function of the table.
#[derive(Clone, Copy)]
pub struct Function<'a> {
    table: &'a Pclntab,
    bytes: &'a [u8],
    /// Where it begins.
    pub address: Vaddr,
    /// Its place in the table.
    pub position: usize,
    func: usize,
}

/// Where a function's data of one kind is.
pub(super) enum FuncData {
    /// Bytes from `moduledata.gofunc`.
    Offset(u32),
    /// A pointer that is stored here.
    Pointer(Vaddr),
}

/// A place in a source file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceLine<'a> {
    /// The file's path as the compiler was given it.
    pub file: &'a str,
    /// Counted from 1.
    pub line: u32,
}

impl Pclntab {
    pub(super) fn parse(binary: &Binary, address: Vaddr, len: u64) -> Result<Self, Error> {
        let broken = || Error::GoTable("its header is broken");
        let start = binary.file_offset(address).and_then(|o| usize::try_from(o.0).ok()).ok_or_else(broken)?;
        let bytes = binary.bytes_at(address, len).ok_or_else(broken)?;
        let version = u32_at(bytes, 0).and_then(TableVersion::of_magic);
        let version = version.ok_or(Error::GoTable("its layout is unknown (Go 1.16 to 1.27 are known)"))?;
        let (zero, quantum, pointer) = (bytes.get(4..6), bytes.get(6), bytes.get(7));
        if zero != Some(&[0, 0]) || pointer != Some(&8) || !quantum.is_some_and(|q| matches!(q, 1 | 2 | 4)) {
            return Err(broken());
        }
        let shape = version.shape();
        let word = |at: usize| u64_at(bytes, at).and_then(|w| usize::try_from(w).ok()).ok_or_else(broken);
        let offset = |i: usize| word(shape.offsets + 8 * i);
        let table = Self {
            version,
            address,
            bytes: start..start + bytes.len(),
            quantum: quantum.copied().map_or(1, u32::from),
            count: word(8)?,
            names: offset(0)?,
            units: offset(1)?,
            files: offset(2)?,
            values: offset(3)?,
            functions: offset(4)?,
            text: Vaddr(0),
            relocated: Vec::new(),
        };
        let ordered = [table.names, table.units, table.files, table.values, table.functions, bytes.len()];
        let entries = table.count.checked_mul(shape.entry).and_then(|n| n.checked_add(table.functions));
        if table.count == 0 || !ordered.is_sorted() || entries.is_none_or(|end| end > bytes.len()) {
            return Err(broken());
        }
        Ok(table)
    }

    pub(super) fn version(&self) -> TableVersion {
        self.version
    }

    pub(super) fn address(&self) -> Vaddr {
        self.address
    }

    pub(super) fn text(&self) -> Vaddr {
        self.text
    }

    /// Whether entries are relative to the text's start.
    pub(super) fn needs_text(&self) -> bool {
        self.version >= TableVersion::Go1_18
    }

    /// The addresses that moduledata's words 1 and 4 hold if it belongs to this table: of the names and of the units.
    pub(super) fn landmarks(&self) -> [Vaddr; 2] {
        [self.names, self.units].map(|into| Vaddr(self.address.0.wrapping_add(into as u64)))
    }

    /// textStart of the header: Go 1.18 to 1.25.
    pub(super) fn header_text(&self, binary: &Binary) -> Option<Vaddr> {
        self.needs_text().then_some(())?;
        binary.pointer_at(self.address.checked_add(TEXT_START as u64)?).filter(|t| t.0 != 0)
    }

    pub(super) fn set_text(&mut self, binary: &Binary, text: Vaddr) -> Result<(), Error> {
        self.text = text;
        if self.version == TableVersion::Go1_16 && binary.is_pie() {
            let start = self.address.0.saturating_add(self.functions as u64);
            let end = start.saturating_add(16 * self.count as u64);
            self.relocated = binary.relocations_in(Vaddr(start)..Vaddr(end)).to_vec();
        }
        Ok(())
    }

    /// Whether the table's functions are in order, and the first and last are code in the file. The sum of their lengths
    /// is then bounded by the file's.
    pub(super) fn check(&self, binary: &Binary) -> Result<(), Error> {
        let code = |position| {
            let function = self.function(binary, position);
            function.is_some_and(|f| binary.is_executable(f.address) && binary.bytes_at(f.address, 1).is_some())
        };
        if !code(0) || !code(self.count - 1) || !self.is_in_one_segment(binary) {
            return Err(Error::GoTable("its functions are not in the code"));
        }
        let (bytes, entry) = (self.data(binary), self.version.shape().entry);
        let addresses = (0..self.count).map(|i| self.entry_address(bytes, self.functions + i * entry));
        if addresses.is_sorted() { Ok(()) } else { Err(Error::GoTable("its functions are out of order")) }
    }

    /// Between segments there may be any number of addresses without a byte of code.
    fn is_in_one_segment(&self, binary: &Binary) -> bool {
        let [first, last] = [0, self.count - 1].map(|n| self.function(binary, n).map(|f| f.address));
        let holds = |s: &Segment, v: Option<Vaddr>| {
            v.and_then(|v| v.0.checked_sub(s.vaddr.0)).is_some_and(|into| into < s.file_size)
        };
        binary.segments().iter().any(|s| holds(s, first) && holds(s, last))
    }

    /// From the first function to the end of the last.
    pub(super) fn bounds(&self, binary: &Binary) -> Range<Vaddr> {
        let first = self.function(binary, 0).map_or(self.text, |f| f.address);
        let last = self.function(binary, self.count.saturating_sub(1));
        first..last.map_or(first, |f| Vaddr(f.address.0.saturating_add(f.size())))
    }

    /// The bytes of the file that hold the functions' names.
    pub(super) fn names(&self) -> Range<usize> {
        let in_file = |at: usize| self.bytes.start.saturating_add(at).min(self.bytes.end);
        in_file(self.names)..in_file(self.units)
    }

    fn data<'a>(&self, binary: &'a Binary) -> &'a [u8] {
        binary.data().get(self.bytes.clone()).unwrap_or_default()
    }

    pub(super) fn functions<'a>(&'a self, binary: &'a Binary) -> impl Iterator<Item = Function<'a>> + 'a {
        (0..self.count).filter_map(|position| self.function(binary, position))
    }

    pub(super) fn addresses<'a>(
        &'a self,
        binary: &'a Binary,
    ) -> impl ExactSizeIterator<Item = (usize, Option<Vaddr>)> + 'a {
        let (bytes, entry) = (self.data(binary), self.version.shape().entry);
        (0..self.count).map(move |i| (i, self.entry_address(bytes, self.functions + i * entry)))
    }

    pub(super) fn function<'a>(&'a self, binary: &'a Binary, position: usize) -> Option<Function<'a>> {
        self.function_of(self.data(binary), position)
    }

    fn function_of<'a>(&'a self, bytes: &'a [u8], position: usize) -> Option<Function<'a>> {
        if position >= self.count {
            return None;
        }
        let entry = self.functions.checked_add(position.checked_mul(self.version.shape().entry)?)?;
        let address = self.entry_address(bytes, entry)?;
        let func = match self.version {
            TableVersion::Go1_16 => usize::try_from(u64_at(bytes, entry + 8)?).ok()?,
            TableVersion::Go1_18 | TableVersion::Go1_20 => usize::try_from(u32_at(bytes, entry + 4)?).ok()?,
        };
        let func = self.functions.checked_add(func)?;
        // The fixed part of the record must be there; what it points to is checked when read.
        bytes.get(func..func.checked_add(self.version.shape().id + 4)?)?;
        Some(Function { table: self, bytes, address, position, func })
    }

    fn entry_address(&self, bytes: &[u8], entry: usize) -> Option<Vaddr> {
        match self.version {
            TableVersion::Go1_16 => {
                let place = Vaddr(self.address.0.checked_add(entry as u64)?);
                let found = self.relocated.binary_search_by_key(&place, |&(place, _)| place);
                match found.ok().and_then(|i| self.relocated.get(i)) {
                    Some(&(_, target)) => Some(target),
                    None => u64_at(bytes, entry).map(Vaddr),
                }
            }
            TableVersion::Go1_18 | TableVersion::Go1_20 => self.text.checked_add(u64::from(u32_at(bytes, entry)?)),
        }
    }

    pub(super) fn function_at<'a>(&'a self, binary: &'a Binary, v: Vaddr) -> Option<Function<'a>> {
        let bytes = self.data(binary);
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.functions.checked_add(middle.checked_mul(self.version.shape().entry)?)?;
            if self.entry_address(bytes, entry)? <= v { low = middle + 1 } else { high = middle }
        }
        let found = self.function(binary, low.checked_sub(1)?)?;
        found.holds(v).then_some(found)
    }

    /// The path of file number `file` of compilation unit `unit`. Go 1.16+: runtime.funcfile.
    fn file<'a>(&self, bytes: &'a [u8], unit: u32, file: i32) -> Option<&'a str> {
        let index = usize::try_from(unit).ok()?.checked_add(usize::try_from(file).ok()?)?;
        let at = self.units.checked_add(index.checked_mul(4)?).filter(|&at| at < self.files)?;
        let offset = u32_at(bytes, at).filter(|&offset| offset != u32::MAX)?;
        short_str(bytes, self.files.checked_add(usize::try_from(offset).ok()?)?, MAX_PATH)
    }
}

impl<'a> Function<'a> {
    fn field(&self, at: usize) -> Option<u32> {
        u32_at(self.bytes, self.func.checked_add(at)?)
    }

    fn after_name(&self, distance: usize) -> Option<u32> {
        self.field(self.table.version.shape().name + distance)
    }

    /// Its name as the table has it: package path with its last element escaped. Empty if the table is broken.
    pub fn name(&self) -> &'a str {
        std::str::from_utf8(self.name_bytes().unwrap_or_default()).unwrap_or_default()
    }

    pub(crate) fn name_bytes(&self) -> Option<&'a [u8]> {
        name_at(self.bytes, self.name_in_table()?)
    }

    fn name_in_table(&self) -> Option<usize> {
        let into = usize::try_from(self.after_name(0)?).ok()?;
        self.table.names.checked_add(into).filter(|&at| at < self.table.units)
    }

    /// Where its name is in the file.
    pub(crate) fn name_place(&self) -> Option<usize> {
        self.table.bytes.start.checked_add(self.name_in_table()?)
    }

    /// The highest id of all functions.
    pub(super) fn highest_id(&self) -> u8 {
        let functions = (0..self.table.count).filter_map(|position| self.table.function_of(self.bytes, position));
        functions.map(|f| f.id()).max().unwrap_or(u8::MAX)
    }

    /// `abi.FuncID`.
    pub fn id(&self) -> u8 {
        self.bytes.get(self.func + self.table.version.shape().id).copied().unwrap_or(0)
    }

    /// `abi.FuncFlag`: 1 top frame, 2 writes SP, 4 assembly. Zero before Go 1.17.
    pub fn flags(&self) -> u8 {
        self.bytes.get(self.func + self.table.version.shape().id + 1).copied().unwrap_or(0)
    }

    /// Whether this is a function of C that Go's linker took in (`net` and `runtime/cgo` without an external linker): the
    /// table has its name and nothing more.
    pub fn is_foreign(&self) -> bool {
        self.values(PC_LINE).is_none() && !self.name().starts_with("go:")
    }

    /// Bytes of code: the sum of the line table's steps, which is what the linker writes as the symbol's size. (The next
    /// function's address would count the padding in.) 0 if the table is broken.
    /// Functions of C, of which the table knows no more, reach to the next.
    pub fn size(&self) -> u64 {
        if self.is_foreign() {
            return self.next_address().map_or(0, |next| next.0.saturating_sub(self.address.0));
        }
        let last = self.values(PC_LINE).and_then(|values| values.last()).map_or(0, |(end, _)| end);
        // A line table that leads beyond the next function is broken; that function's address is then the better bound.
        match self.next_address() {
            Some(next) => last.min(next.0.saturating_sub(self.address.0)),
            None => last,
        }
    }

    /// Whether `v` lies in its code: not in the padding behind. Cheaper than [`Self::size`].
    pub(crate) fn holds(&self, v: Vaddr) -> bool {
        v.0.checked_sub(self.address.0).is_some_and(|into| {
            self.next_address().is_none_or(|next| v < next)
                && (self.is_foreign()
                    || self.values(PC_LINE).is_some_and(|mut values| values.any(|(end, _)| into < end)))
        })
    }

    fn next_address(&self) -> Option<Vaddr> {
        let entry = self.table.version.shape().entry;
        let at = self.table.functions.checked_add(self.position.checked_add(1)?.checked_mul(entry)?)?;
        self.table.entry_address(self.bytes, at)
    }

    /// The text at an offset of the table of names.
    pub(super) fn text_at(&self, offset: u32) -> Option<&'a str> {
        let at = self.table.names.checked_add(usize::try_from(offset).ok()?).filter(|&at| at < self.table.units)?;
        std::str::from_utf8(name_at(self.bytes, at)?).ok()
    }

    /// Where the record of fixed size ends: there are the offsets of tables of values, then those of data.
    fn pcdata_field(&self, number: usize) -> Option<usize> {
        let count = usize::try_from(self.after_name(PCDATA_COUNT)?).ok()?;
        (number < count).then(|| self.table.version.shape().id + 4 + 4 * number)
    }

    /// The value that table `number` has for an address.
    pub(super) fn pcdata_at(&self, number: usize, v: Vaddr) -> Option<i32> {
        let into = v.0.checked_sub(self.address.0)?;
        self.values_at(self.pcdata_field(number)?)?.find(|&(end, _)| into < end).map(|(_, value)| value)
    }

    /// The runs of table `number`, in order: (where each begins, its value).
    pub(super) fn pcdata(&self, number: usize) -> impl Iterator<Item = (Vaddr, i32)> + use<'a> {
        let values = self.pcdata_field(number).and_then(|field| self.values_at(field));
        let (mut start, address) = (0, self.address);
        values.into_iter().flatten().map(move |(end, value)| {
            let run = (Vaddr(address.0.wrapping_add(start)), value);
            start = end;
            run
        })
    }

    /// The data of kind `number`.
    pub(super) fn funcdata(&self, number: usize) -> Option<FuncData> {
        let shape = self.table.version.shape();
        let count = usize::from(*self.bytes.get(self.func.checked_add(shape.id + 3)?)?);
        if number >= count {
            return None;
        }
        let tables = usize::try_from(self.after_name(PCDATA_COUNT)?).ok()?;
        let start = self.func.checked_add(shape.id + 4)?.checked_add(tables.checked_mul(4)?)?;
        if self.table.version == TableVersion::Go1_16 {
            let place = self.table.address.0.checked_add(start as u64)?.checked_next_multiple_of(8)?;
            return Some(FuncData::Pointer(Vaddr(place.checked_add(8 * number as u64)?)));
        }
        u32_at(self.bytes, start.checked_add(4 * number)?).filter(|&at| at != u32::MAX).map(FuncData::Offset)
    }

    /// A table's runs. Each covers an instruction or more, so the function's length bounds their number: a table that
    /// many functions share must not be walked in full for each.
    fn values(&self, field: usize) -> Option<std::iter::Take<Values<'a>>> {
        self.values_at(self.table.version.shape().name + field)
    }

    fn values_at(&self, field: usize) -> Option<std::iter::Take<Values<'a>>> {
        let offset = self.field(field).filter(|&offset| offset != 0)?;
        let start = self.table.values.checked_add(usize::try_from(offset).ok()?)?;
        let bytes = self.bytes.get(start..self.table.functions)?;
        let room = self.next_address().map_or(MAX_LAST, |next| next.0.saturating_sub(self.address.0));
        let runs = usize::try_from(room / u64::from(self.table.quantum)).ok()?.saturating_add(1);
        Some(Values::new(bytes, self.table.quantum).take(runs))
    }

    fn value_at(&self, field: usize, v: Vaddr) -> Option<i32> {
        let into = v.0.checked_sub(self.address.0)?;
        self.values(field)?.find(|&(end, _)| into < end).map(|(_, value)| value)
    }

    /// The file and line of an address inside the function, inlined code included.
    pub fn line_at(&self, v: Vaddr) -> Option<SourceLine<'a>> {
        let line = u32::try_from(self.value_at(PC_LINE, v)?).ok()?;
        let file = self.value_at(PC_FILE, v)?;
        Some(SourceLine { file: self.table.file(self.bytes, self.after_name(UNIT)?, file)?, line })
    }

    /// Runs of code from one file and line, in order of address: (start, end, line).
    pub fn lines(&self) -> impl Iterator<Item = (Vaddr, Vaddr, SourceLine<'a>)> + use<'a> {
        let this = *self;
        let mut files = this.values(PC_FILE).into_iter().flatten();
        let mut file = files.next();
        let mut start = 0;
        this.values(PC_LINE).into_iter().flatten().flat_map(move |(end, line)| {
            // A line's run may span several files' runs where two files have code on the same line number.
            let mut runs = Vec::new();
            while start < end {
                while file.is_some_and(|(file_end, _)| file_end <= start) {
                    file = files.next();
                }
                let Some((file_end, number)) = file else {
                    break;
                };
                let stop = end.min(file_end);
                if let (Ok(line), Some(unit)) = (u32::try_from(line), this.after_name(UNIT))
                    && let Some(path) = this.table.file(this.bytes, unit, number)
                {
                    let at = |into: u64| Vaddr(this.address.0.wrapping_add(into));
                    runs.push((at(start), at(stop), SourceLine { file: path, line }));
                }
                start = stop;
            }
            start = end;
            runs
        })
    }
}
