//! Forms that are rare or missing in the programs that `tests/corpus_names.rs` compares, and hostile symbols.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::super::{MAX_NAME, full};
use super::{Show, name};

/// What `c++filt` makes of symbols.
fn filtered(symbols: &[&str], options: &[&str]) -> Vec<String> {
    let mut command = Command::new("c++filt");
    command.args(options).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("testdata/setup.sh installs it");
    child.stdin.take().expect("it is piped").write_all(symbols.join("\n").as_bytes()).expect("it reads all");
    let out = child.wait_with_output().expect("it runs").stdout;
    String::from_utf8_lossy(&out).lines().map(str::to_owned).collect()
}

const FORMS: [&str; 95] = [
    "_Z1fIJiiEEvDTsZT_E",
    "_Z1fIXadL_Z1gvEEEvv",
    "_Z1fIXadL_ZN1a1gEvEEEvv",
    "_ZN1AcvT_IiEEv",
    "_Z1fIiEDTplfp_fp_ET_",
    "_Z1fIiEDTcl1gfp_EET_",
    "_Z1fIiEDTcldtfp_4sizeEET_",
    "_Z1fIJicEEDTcl1gspfp_EEDpT_",
    "_Z1fIiEvDTsr3FooIT_EE4typeE",
    "_Z1fIiEvNSt9enable_ifIXsr3FooIT_EE5valueEiE4typeE",
    "_Z1fIiEvNSt9enable_ifIXeqstT_Li4EEiE4typeE",
    "_Z1fIiEvNSt9enable_ifIXgtstT_Li4EEiE4typeE",
    "_Z1fIiEvNSt9enable_ifIXaasr3FooIT_EE5valueLb1EEiE4typeE",
    "_Z1fIiEDTsc1XIT_Efp_ES1_",
    "_Z1fIiEDTcvT_fp_ES0_",
    "_Z1fIiEDTtlT_fp_EES0_",
    "_Z1fIiEDTnw_T_piLi1EEES0_",
    "_Z1fIJicEEvDpRKT_",
    "_Z1fIJicEEvDpPFvT_E",
    "_Z1fIJicEEvPFvDpT_E",
    "_ZZ1fIiEvT_ENKUlvE_clEv",
    "_ZZ1fIiEvT_ENKUlT_E_clIcEEDaS0_",
    "_ZZ1fvENKUlDpT_E_clIJicEEEDaS0_",
    "_ZZ1fvENKUlOT_E_clIRiEEDaS0_",
    "_ZZN1A1fEvEN1B1gEv",
    "_ZZ1fiE1x_0",
    "_ZZ1fiEs",
    "_ZZ1fiEd_NKUlvE_clEv",
    "_ZNK1AUlvE_clEv",
    "_ZN1A1xMUlvE_clEv",
    "_ZN1AUt0_1fEv",
    "_Z1fM1AFivE",
    "_Z1fM1AKFivE",
    "_Z1fM1AFivRE",
    "_Z1fM1AA3_i",
    "_Z1fPA3_A4_i",
    "_Z1fRA3_Kc",
    "_Z1fPFPFivEcE",
    "_Z1fDn",
    "_Z1fIDnLDn0EEvT_",
    "_Z1fILc65ELs3ELb1ELin3ELPKc0EEvv",
    "_Z1fILd4000000000000000EEvv",
    "_Z1fIL3Foo2EEvv",
    "_Z1fDv4_f",
    "_Z1fPKVi",
    "_Z1fIKiEvPKT_",
    "_Z1fIRiEvOT_",
    "_Z1fIRKiEvRKT_",
    "_ZN1AC1IiEET_",
    "_ZN1AC2B5cxx11Ev",
    "_ZN1A1fB5cxx11B3fooEv",
    "_Z1fPDoFvvE",
    "_Z1fPDOLb1EEFvvE",
    "_Z1fU3AS1Pi",
    "_Z1fPU3AS1i",
    "_Z1fCd",
    "_ZTCN1AE0_1B",
    "_ZTW1x",
    "_ZTHN1A1xE",
    "_ZN1AixEi",
    "_ZN1AclIiEEvT_",
    "_ZlsIiEvT_",
    "_ZltIiEvT_",
    "_ZgtIiEvT_",
    "_ZN1AnwEm",
    "_Zli3_kgy",
    "_Zv13foo1A",
    "_ZN1A1BD4Ev",
    "_ZW3mod1fv",
    "_Z1fIXLi3EEEvv",
    "_Z1fDF16_DF16bDF32_",
    "_Z1fDu",
    "_ZNKR1A1fEv",
    "_ZNKO1A1fEv",
    "_Z1fIiEDTflplT_ES0_",
    "_Z1fIJiiEEDTfrplfp_EDpT_",
    "_Z1fIJiiEEDTfLplLi0Efp_EDpT_",
    "_Z1fPFvvENS0_1XE",
    "_ZN5Outer1fIiEEvMT_FvvE",
    "_Z1fIiEDTquLb1Efp_Li2EET_",
    "_Z1fIiEDTdefp_ET_",
    "_Z1fIiEDTngfp_ET_",
    "_Z1fIiEDTixfp_Li0EET_",
    "_Z1fIiEDTppfp_ET_",
    "_Z1fIiEDTpp_fp_ET_",
    "_Z1fIiEDTsrT_1gES0_",
    "_Z1fIiEDTclsrT_1gEES0_",
    "_Z1fIiEDTsrNT_1XE1gES0_",
    "_Z1fIiEDTcl1gIiEfp_EET_",
    "_Z1fIiEDTptfp_1xET_",
    "_Z1fIiEDTptfp_onplET_",
    "_Z1fIiEDTtwfp_ET_",
    "_Z1fIiEDTcmfp_fp_ET_",
    "_Z1fIiEDTgsnw_T_EES0_",
    "_Z1fIiEDTilLi1ELi2EEET_",
];

#[test]
fn every_form_is_written_as_binutils_writes_it() {
    for (symbol, theirs) in FORMS.iter().zip(filtered(&FORMS, &[])) {
        assert_ne!(*symbol, theirs, "it reads all of these");
        assert_eq!(name(symbol.as_bytes(), Show::Full), Some(theirs), "{symbol}");
    }
}

#[test]
fn what_stands_in_no_function_is_bare_as_binutils_has_it() {
    let symbols: Vec<&str> = FORMS.into_iter().filter(|s| !s.starts_with("_ZZ") && !s.contains("cxx11")).collect();
    for (symbol, theirs) in symbols.iter().zip(filtered(&symbols, &["--no-params"])) {
        assert_eq!(name(symbol.as_bytes(), Show::Bare), Some(theirs), "{symbol}");
    }
}

/// Oracle: `llvm-cxxfilt` 22, in binutils' spelling of types; for the parameter of a constrained template the standard.
#[test]
fn forms_that_binutils_2_40_does_not_read() {
    for (symbol, expected) in [
        ("_Z1fIJiiEEvDTsZfp_E", "void f<int, int>(decltype (sizeof...({parm#1}...)))"),
        ("_Z1fITpTyJicEEvDpT_", "void f<int, char>(int, char)"),
        ("_Z1fIiEDTnxfp_ET_", "decltype (noexcept ({parm#1})) f<int>(int)"),
        ("_Z1fIiQ3FooIT_EEvS0_", "void f<int>(int)"),
        ("_Z1fIiEvT_Q3FooIS0_E", "void f<int>(int)"),
        ("_Z1fTs1A", "f(struct A)"),
        ("_ZGR1x_", "reference temporary #0 for x"),
        ("_ZGR1x0_", "reference temporary #1 for x"),
        ("_ZNH1A1fES_i", "A::f(this A, int)"),
        ("_ZZ1fvENKUlTyT_E_clIiEEDaS_", "auto f()::{lambda<typename $T>(auto:1)#1}::operator()<int>(int) const"),
    ] {
        assert_eq!(name(symbol.as_bytes(), Show::Full).as_deref(), Some(expected), "{symbol}");
    }
}

#[test]
fn a_symbol_that_is_cut_anywhere_is_no_name_or_that_of_another() {
    for symbol in FORMS {
        for len in 2..symbol.len() {
            if let Some(text) = name(&symbol.as_bytes()[..len], Show::Full) {
                assert!(!text.is_empty() && text.len() <= MAX_NAME, "{symbol}");
            }
        }
    }
}

/// Each argument is made of two of the one before: 2^40 letters, or as much work for expansions of nothing.
#[test]
fn short_symbols_of_huge_names_stay_mangled() {
    // `f` itself is the first that is remembered; `last` is the number of what the first and each further step adds last.
    let doubled = |beginning: &str, last: [u32; 2], step: &dyn Fn(&str) -> String| {
        let steps = (0..40).map(|level| step(&format!("S{}_", base36(last[0] + level * last[1] - 1))));
        steps.fold(beginning.to_owned(), |symbol, step| symbol + &step)
    };
    let classes = doubled("_Z1fIiEv1A", [1, 2], &|before| format!("1BI{before}{before}E"));
    let functions = doubled("_Z1fIiEvFvvE", [1, 1], &|before| format!("F{before}{before}E"));
    let nothing = doubled("_Z1fIJEEvDp1BIT_E", [4, 4], &|before| format!("Dp1CIT_{before}{before}E"));
    for symbol in [classes, functions, nothing] {
        assert!(symbol.len() < 1024);
        assert_eq!(full(symbol.as_bytes()), symbol);
    }
}

fn base36(number: u32) -> String {
    let digit = |n: u32| char::from(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[n as usize]);
    if number < 36 { digit(number).to_string() } else { format!("{}{}", base36(number / 36), digit(number % 36)) }
}

#[test]
fn parameters_that_stand_for_nothing_or_for_themselves_are_no_name() {
    for symbol in ["_Z1fT_", "_Z1fIT_EvT_", "_Z1fIiEvT0_", "_ZN1AcvT_Ev", "_Z1fIDpT_EvT_", "_Z1fIJT_EEvDpT_"] {
        assert_eq!(name(symbol.as_bytes(), Show::Full), None, "{symbol}");
    }
}
