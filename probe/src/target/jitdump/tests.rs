use std::io::Write as _;

use super::*;

fn head() -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [MAGIC, 1, HEAD as u32, 62, 0, 4711] {
        bytes.extend(field.to_ne_bytes());
    }
    bytes.extend([0; 16]);
    bytes
}

fn record(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((PREFIX as u32 + body.len() as u32).to_ne_bytes());
    bytes.extend(7_u64.to_ne_bytes());
    bytes.extend(body);
    bytes
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().copied().flat_map(u64::to_ne_bytes).collect()
}

fn loaded(start: u64, code: &[u8], name: &str) -> Vec<u8> {
    let head = words(&[4711 << 32 | 4711, start, start, code.len() as u64, 1]);
    record(CODE_LOAD, &[&head, name.as_bytes(), b"\0", code].concat())
}

fn moved(from: u64, to: u64, bytes: u64) -> Vec<u8> {
    record(CODE_MOVE, &words(&[4711 << 32 | 4711, to, from, to, bytes, 1]))
}

fn lines(start: u64, entries: &[(u64, u32, &[u8])]) -> Vec<u8> {
    let mut body = words(&[start, entries.len() as u64]);
    for (at, line, source) in entries {
        body.extend(at.to_ne_bytes());
        body.extend(line.to_ne_bytes());
        body.extend([0; 4]);
        body.extend(*source);
        body.push(0);
    }
    record(CODE_DEBUG_INFO, &body)
}

/// A dump that is written, and read by us.
struct Both {
    written: File,
    dump: JitDump,
}

impl Both {
    fn of(pieces: &[Vec<u8>]) -> Self {
        let written = tempfile::tempfile().expect("a file can be made");
        let dump = JitDump::new(written.try_clone().ok());
        let mut both = Self { written, dump };
        both.write(&pieces.concat());
        both
    }

    fn write(&mut self, bytes: &[u8]) {
        self.written.write_all(bytes).expect("it can be written");
    }

    fn name(&mut self, address: u64) -> Option<String> {
        self.dump.name(address).map(|found| match found.place {
            Some((source, line)) => format!("{} {source}:{line}", found.name),
            None => found.name.to_string(),
        })
    }
}

#[test]
fn what_was_loaded_is_named_where_it_is() {
    let mut both = Both::of(&[head(), loaded(0x1000, &[0x90; 32], "first"), loaded(0x2000, &[0x90; 8], "a b")]);
    for (address, name) in
        [(0xfff, None), (0x1000, Some("first")), (0x101f, Some("first")), (0x1020, None), (0x2007, Some("a b"))]
    {
        assert_eq!(both.name(address).as_deref(), name, "{address:#x}");
    }
}

#[test]
fn records_are_taken_once_they_are_whole_and_what_is_written_later_is_read_later() {
    let whole = [head(), loaded(0x1000, &[0x90; 32], "first"), loaded(0x2000, &[0x90; 300], "second")].concat();
    let first = head().len() + loaded(0x1000, &[0x90; 32], "first").len();
    let mut both = Both::of(&[]);
    for (at, byte) in whole.iter().enumerate() {
        assert_eq!(both.name(0x1000).is_some(), at >= first, "{at} bytes");
        assert_eq!(both.name(0x2000), None, "{at} bytes");
        both.write(&[*byte]);
    }
    assert_eq!(both.name(0x2000).as_deref(), Some("second"));
}

#[test]
fn new_code_takes_the_place_of_old_code_and_code_that_was_moved_is_in_both_places() {
    let mut both = Both::of(&[head(), loaded(0x1000, &[0; 64], "old"), loaded(0x1020, &[0; 8], "new")]);
    assert_eq!((both.name(0x1000), both.name(0x1020).as_deref()), (None, Some("new")));
    both.write(&[moved(0x1020, 0x5000, 8), moved(0x7777, 0x8000, 8)].concat());
    assert_eq!(both.name(0x5007).as_deref(), Some("new"));
    assert_eq!((both.name(0x1020).as_deref(), both.name(0x8000)), (Some("new"), None));
    both.write(&loaded(0x1018, &[0; 16], "newer"));
    assert_eq!(both.name(0x1018).as_deref(), Some("newer"));
    assert_eq!((both.name(0x1020).as_deref(), both.name(0x5000).as_deref()), (Some("newer"), Some("new")));
}

#[test]
fn lines_belong_to_the_code_that_is_loaded_next_and_move_with_it() {
    let of_a = lines(0x1000, &[(0x1000, 3, b"/src/a.js"), (0x1010, 5, b"\xff"), (0x1018, 9, b"/src/b.js")]);
    let of_nobody = lines(0x9000, &[(0x9000, 1, b"/src/none.js")]);
    let mut both = Both::of(&[head(), of_a, loaded(0x1000, &[0; 32], "a"), of_nobody, loaded(0x2000, &[0; 32], "b")]);
    assert_eq!(both.name(0x100f).as_deref(), Some("a /src/a.js:3"));
    assert_eq!(both.name(0x1010).as_deref(), Some("a /src/a.js:5"));
    assert_eq!(both.name(0x101f).as_deref(), Some("a /src/b.js:9"));
    assert_eq!(both.name(0x2000).as_deref(), Some("b"));
    both.write(&moved(0x1000, 0x6000, 32));
    assert_eq!(both.name(0x6011).as_deref(), Some("a /src/a.js:5"));
}

#[test]
fn what_is_no_dump_names_nothing_and_is_not_read_again() {
    let mut other = head();
    other[0] = b'X';
    for beginning in [other, vec![0; 64], [&head()[..8], &[4, 0, 0, 0], &head()[12..]].concat()] {
        let mut both = Both::of(&[beginning, loaded(0x1000, &[0; 8], "a")]);
        assert_eq!(both.name(0x1000), None);
        assert!(both.dump.file.is_none());
    }
}

#[test]
fn a_record_without_size_or_the_close_record_ends_the_dump() {
    let ends = [vec![0; PREFIX], record(CODE_CLOSE, &[])];
    for end in ends {
        let mut both = Both::of(&[head(), loaded(0x1000, &[0; 8], "a"), end, loaded(0x2000, &[0; 8], "b")]);
        assert_eq!((both.name(0x1000).as_deref(), both.name(0x2000)), (Some("a"), None));
    }
}

#[test]
fn hostile_records_neither_hang_nor_panic_and_what_follows_is_read() {
    let mut endless = lines(0x1000, &[(0x1000, 1, b"/src/a")]);
    endless[PREFIX + 8..PREFIX + 16].copy_from_slice(&u64::MAX.to_ne_bytes());
    let no_end = record(CODE_LOAD, &[&words(&[0, 0, 0x3000, 8, 1])[..], &[b'x'; 100]].concat());
    let huge = record(CODE_LOAD, &[&words(&[0, 0, u64::MAX - 4, u64::MAX, 1])[..], b"huge\0"].concat());
    let hostile = [endless, no_end, huge, record(CODE_LOAD, &[]), record(CODE_MOVE, &[1]), record(99, &[9; 100])];
    let mut both = Both::of(&[&[head()][..], &hostile, &[loaded(0x2000, &[0; 8], "good")]].concat());
    assert_eq!(both.name(0x2000).as_deref(), Some("good"));
    assert_eq!(both.name(0x3000), None);
    assert_eq!(both.name(u64::MAX - 1).as_deref(), Some("huge"));
    // Whatever byte is another one, it ends.
    let whole = [&[head()][..], &hostile, &[loaded(0x2000, &[0; 8], "good")]].concat().concat();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0xff;
        let mut both = Both::of(&[changed]);
        let _ = both.name(0x2000);
        assert!(both.dump.codes.len() <= 8, "byte {at}");
    }
}

#[test]
fn only_a_name_of_its_form_is_taken_for_a_dump() {
    for (name, is) in
        [("/tmp/jit-12.dump", true), ("jit-.dump", true), ("/tmp/xjit-1.dump", false), ("/jit-1.dump/x", false)]
    {
        assert_eq!(is_its_name(Path::new(name)), is, "{name}");
    }
}
