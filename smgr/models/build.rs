//! Writes the mutants: copies of the protocol's source files, each with one mistake, and the modules that compile them with the same
//! scenarios as the true files. A mistake that cannot be made any more because its line has changed stops the build.

#[path = "src/mutants.rs"]
mod mutants;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use mutants::{Checker, File, MUTANTS, Mutant};

fn source(file: File) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    match file {
        File::Slots => folder.join("../src/slots.rs"),
        File::Pool => folder.join("../src/prefetch/pool.rs"),
    }
}

/// The file of a mutant: its own if the mistake is there.
fn file_of(mutant: &Mutant, file: File, out: &Path) -> io::Result<PathBuf> {
    if mutant.file != file {
        return source(file).canonicalize();
    }
    let mut text = fs::read_to_string(source(file))?;
    // The tests stay with the true file.
    text.truncate(text.find("#[cfg(test)]").unwrap_or(text.len()));
    for (before, after) in mutant.changes {
        assert_eq!(text.matches(before).count(), 1, "mutant {}: once in {file:?}: {before}", mutant.name);
        text = text.replace(before, after);
    }
    let path = out.join(format!("{}.rs", mutant.name));
    fs::write(&path, text)?;
    Ok(path)
}

fn main() -> io::Result<()> {
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?);
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for checker in [Checker::Exhaustive, Checker::Random] {
        let (mut modules, mut list) = (String::new(), String::new());
        for mutant in MUTANTS.iter().filter(|mutant| mutant.checker == checker) {
            let name = mutant.name;
            let _ = writeln!(modules, "pub mod {name} {{");
            for (module, path) in [
                ("slots", file_of(mutant, File::Slots, &out)?),
                ("pool", file_of(mutant, File::Pool, &out)?),
                ("world", here.join("world.rs")),
                ("scenarios", here.join("scenarios.rs")),
            ] {
                let _ = writeln!(
                    modules,
                    "#[path = {path:?}] #[allow(unused, reason = \"what a mistake leaves over\")] pub mod {module};"
                );
            }
            let _ = writeln!(modules, "}}");
            let _ = writeln!(list, "({name:?}, {name}::scenarios::ALL),");
        }
        let _ = writeln!(modules, "pub const SCENARIOS: &[(&str, &[crate::runner::Scenario])] = &[{list}];");
        fs::write(out.join(format!("{checker:?}.rs")), modules)?;
    }
    for path in
        [source(File::Slots), source(File::Pool), here.join("mutants.rs"), Path::new("build.rs").into()]
    {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    Ok(())
}
