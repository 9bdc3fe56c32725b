//! Whose code a function is: the language's own library's, or somebody's program.

use symbols::index::Language;

/// Whether a function is of the language's standard library, by its name.
pub(super) fn is_standard(language: Language, name: &str) -> bool {
    let any = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.trim_start_matches('<').starts_with(prefix));
    match language {
        // Import paths of the standard library have no dot in their first element (`go help importpath`), all others
        // that can be fetched do; a program is main.
        Language::Go => !name.starts_with("main.") && !is_fetched(name),
        Language::Rust => any(&["std::", "core::", "alloc::"]),
        Language::Cpp => any(&["std::", "__gnu_cxx::", "__cxxabiv1::"]),
        _ => false,
    }
}

fn is_fetched(name: &str) -> bool {
    name.split_once('/').is_some_and(|(first, _)| first.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_the_languages_are_told_from_programs() {
        for (language, name, standard) in [
            (Language::Go, "main.(*Store).Get", false),
            (Language::Go, "net/http.(*conn).serve", true),
            (Language::Go, "fmt.Sprintf", true),
            (Language::Go, "sync.(*Pool).Get", true),
            (Language::Go, "git.com/paas/myagent/pkg/storage.Save", false),
            (Language::Rust, "<alloc::string::String as core::fmt::Write>::write_str", true),
            (Language::Rust, "core::fmt::write", true),
            (Language::Rust, "<store::Row as core::fmt::Display>::fmt", false),
            (Language::Cpp, "std::vector<int>::push_back", true),
            (Language::Cpp, "Shape::area", false),
            (Language::C, "std", false),
        ] {
            assert_eq!(is_standard(language, name), standard, "{name}");
        }
    }
}
