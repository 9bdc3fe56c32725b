//! Names of the kernel's functions.
//!
//! In: `/proc/kallsyms`, lines of `ADDRESS TYPE NAME [MODULE]` (Linux: kernel/kallsyms.c, `s_show`). Out: names by address.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Seek as _},
    rc::Rc,
};

/// No function of the kernel's is larger: an address further away from what precedes it belongs to something that has no name.
const LARGEST: u64 = 1 << 20;
/// Read to see whether there are addresses: the first symbols may lie at 0 by themselves.
const SOME: u64 = 64 << 10;

/// A function, and the module it is in: `[kernel]`, `[bpf]`, `[nf_tables]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFunction {
    /// Its name.
    pub name: Rc<str>,
    /// What it is in, in brackets.
    pub module: Rc<str>,
}

/// The table of names.
pub struct Kallsyms {
    /// Until it is read.
    file: Option<File>,
    /// By address: where each begins.
    functions: Vec<(u64, KernelFunction)>,
}

impl Kallsyms {
    /// Opens the table, to be read when a name is first asked for. Whether it shows addresses is decided now, by the rights of who
    /// opens it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open() -> io::Result<Self> {
        Ok(Self { file: Some(File::open("/proc/kallsyms")?), functions: Vec::new() })
    }

    /// No names.
    pub fn none() -> Self {
        Self { file: None, functions: Vec::new() }
    }

    /// Whether all addresses are shown as 0, because we may not know them.
    pub fn is_hidden(&self) -> bool {
        let Some(file) = &self.file else { return self.functions.is_empty() };
        let mut lines = BufReader::new(io::Read::take(file, SOME)).split(b'\n').map_while(Result::ok);
        let hidden = !lines.any(|line| line.iter().take_while(|&&byte| byte != b' ').any(|&digit| digit != b'0'));
        let _ = (&*file).rewind();
        hidden
    }

    /// The function at an address.
    pub fn name(&mut self, address: u64) -> Option<&KernelFunction> {
        if let Some(file) = self.file.take() {
            self.functions = read(BufReader::with_capacity(1 << 16, file));
        }
        let behind = self.functions.partition_point(|(start, _)| *start <= address);
        let (start, function) = self.functions.get(behind.checked_sub(1)?)?;
        (address - start < LARGEST).then_some(function)
    }
}

/// The code's symbols, in order of their addresses.
fn read(table: impl io::BufRead) -> Vec<(u64, KernelFunction)> {
    let mut modules: Vec<Rc<str>> = vec!["[kernel]".into()];
    let mut functions: Vec<_> =
        table.lines().map_while(Result::ok).filter_map(|line| parse(&line, &mut modules)).collect();
    // Where several begin at one place, the first that is listed: as the kernel names it.
    functions.sort_by_key(|(address, _)| *address);
    functions.dedup_by_key(|(address, _)| *address);
    functions
}

fn parse(line: &str, modules: &mut Vec<Rc<str>>) -> Option<(u64, KernelFunction)> {
    let (address, rest) = line.split_once(' ')?;
    let (kind, rest) = rest.split_once(' ')?;
    let address = u64::from_str_radix(address, 16).ok().filter(|&address| address != 0)?;
    if !matches!(kind, "T" | "t" | "W" | "w") {
        return None;
    }
    let (name, module) = rest.split_once('\t').unwrap_or((rest, ""));
    let module = match modules.iter().find(|known| module.is_empty() || &***known == module) {
        Some(known) => known.clone(),
        None => {
            modules.push(module.into());
            module.into()
        }
    };
    Some((address, KernelFunction { name: name.into(), module }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "0000000000000000 A fixed_percpu_data\n\
                         ffffffff81000000 T first\n\
                         ffffffff81000000 T alias\n\
                         ffffffff81000800 D data\n\
                         ffffffffc0002000 t prog\t[bpf]\n\
                         ffffffff81001000 t second\n\
                         nonsense\n\
                         ffffffffc0001000 t of_module\t[nf_tables]\n";

    fn of(table: &str) -> Kallsyms {
        Kallsyms { file: None, functions: read(table.as_bytes()) }
    }

    #[test]
    fn an_address_is_named_by_the_last_function_that_begins_before_it() {
        let mut table = of(TABLE);
        let mut named = |address| table.name(address).map(|found| format!("{} {}", found.name, found.module));
        assert_eq!(named(0xffff_ffff_8100_0000).as_deref(), Some("first [kernel]"));
        assert_eq!(named(0xffff_ffff_8100_0fff).as_deref(), Some("first [kernel]"));
        assert_eq!(named(0xffff_ffff_8100_1001).as_deref(), Some("second [kernel]"));
        assert_eq!(named(0xffff_ffff_c000_1fff).as_deref(), Some("of_module [nf_tables]"));
        assert_eq!(named(0xffff_ffff_c000_2010).as_deref(), Some("prog [bpf]"));
        assert_eq!(named(0xffff_ffff_80ff_ffff), None);
        assert_eq!(named(0xffff_ffff_a000_0000), None, "nothing begins near it");
        assert_eq!(named(0x40_0000), None);
    }

    #[test]
    fn a_table_that_hides_its_addresses_names_nothing_and_is_known_to() {
        let hidden = "0000000000000000 A fixed_percpu_data\n0000000000000000 T first\n0000000000000000 t prog\t[bpf]\n";
        for (table, is_hidden) in [(hidden, true), (TABLE, false)] {
            let mut file = tempfile::tempfile().expect("a file can be made");
            io::Write::write_all(&mut file, table.as_bytes()).expect("it can be written");
            file.rewind().expect("it is a file");
            let mut kallsyms = Kallsyms { file: Some(file), functions: Vec::new() };
            assert_eq!(kallsyms.is_hidden(), is_hidden);
            assert_eq!(kallsyms.name(0xffff_ffff_8100_0010).is_none(), is_hidden, "it is read from its beginning");
        }
    }
}
