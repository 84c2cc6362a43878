//! Servers without our patch: where their trees are, and their programs' files, whole or damaged on purpose.
//!
//! From the ELF specification: program headers, the dynamic section, relocations with addends.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use strata_smgr::stock::program::{Kind, Program, Segment};

use crate::whole::programs;

/// The tree of a flavour ("patched", "vanilla", "debian") with the extension in it; made if it is not there.
pub fn tree(flavour: &str) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../setup/install-extension.sh");
    let output = Command::new(&script).arg(programs().join("libstrata.so")).arg(flavour).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    ensure!(output.status.success(), "{}: {}", script.display(), text(&output.stderr));
    Ok(PathBuf::from(text(&output.stdout)))
}

/// The servers without the patch that can be had here. Where the source of Postgres is the user's own file, Debian's archive may be
/// out of reach.
pub fn flavours() -> Vec<&'static str> {
    match std::env::var_os("STRATA_PG_SOURCE") {
        None => vec!["vanilla", "debian"],
        Some(_) => {
            eprintln!("Debian's binary is left out: STRATA_PG_SOURCE is set");
            vec!["vanilla"]
        }
    }
}

/// The server's program in a tree. In Debian's tree `bin` holds scripts that start what is in `programs`.
pub fn server_program(tree: &Path) -> PathBuf {
    let behind = tree.join("programs/postgres");
    if behind.is_file() { behind } else { tree.join("bin/postgres") }
}

/// A tree like `tree` whose server has been changed: everything but its program is linked to.
pub fn changed_tree(tree: &Path, at: &Path, change: impl FnOnce(&mut Elf) -> Result<()>) -> Result<()> {
    let status = Command::new("cp").arg("-rs").arg(tree).arg(at).status()?;
    ensure!(status.success(), "cannot link {} to {}", at.display(), tree.display());
    let mut elf = Elf::read(&server_program(tree))?;
    change(&mut elf)?;
    let program = server_program(at);
    std::fs::remove_file(&program)?;
    std::fs::write(&program, &elf.bytes)?;
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(())
}

/// Where a loader might put it.
pub const BIAS: u64 = 0x5555_5555_4000;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const DT_RELA: u64 = 7;
const DT_RELASZ: u64 = 8;
const RELA_BYTES: u64 = 24;
const R_X86_64_RELATIVE: u64 = 8;

struct Header {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
}

/// The file of a program.
pub struct Elf {
    bytes: Vec<u8>,
}

impl Elf {
    pub fn read(path: &Path) -> Result<Elf> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "{} is no 64-bit ELF file", path.display());
        Ok(Elf { bytes })
    }

    fn number(&self, offset: u64, count: usize) -> Result<u64> {
        let offset = usize::try_from(offset)?;
        let bytes = self.bytes.get(offset..offset + count).context("the ELF file ends too early")?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn headers(&self) -> Result<Vec<Header>> {
        let (first, count) = (self.number(32, 8)?, self.number(56, 2)?);
        (0..count)
            .map(|index| {
                let at = first + index * 56;
                Ok(Header {
                    kind: u32::try_from(self.number(at, 4)?)?,
                    flags: u32::try_from(self.number(at + 4, 4)?)?,
                    offset: self.number(at + 8, 8)?,
                    address: self.number(at + 16, 8)?,
                    file_bytes: self.number(at + 32, 8)?,
                    memory_bytes: self.number(at + 40, 8)?,
                })
            })
            .collect()
    }

    /// Place in the file of an address of the file's own numbering.
    fn offset_of(&self, address: u64) -> Result<u64> {
        let headers = self.headers()?;
        let holds =
            |h: &&Header| h.kind == PT_LOAD && (h.address..h.address + h.file_bytes).contains(&address);
        let header = headers.iter().find(holds).context("no segment of the file holds this address")?;
        Ok(header.offset + address - header.address)
    }

    fn dynamic(&self) -> Result<Header> {
        let headers = self.headers()?;
        headers.into_iter().find(|header| header.kind == PT_DYNAMIC).context("there is no dynamic section")
    }

    fn dynamic_entry(&self, tag: u64) -> Result<u64> {
        let dynamic = self.dynamic()?;
        for index in 0..dynamic.file_bytes / 16 {
            let at = dynamic.offset + index * 16;
            if self.number(at, 8)? == tag {
                return self.number(at + 8, 8);
            }
        }
        anyhow::bail!("the dynamic section has no entry {tag}")
    }

    /// Relocations of the kind "the program's own address": where in the file each stands, what it fills, with which address.
    fn relocations(&self) -> Result<Vec<(u64, u64, u64)>> {
        let begin = self.offset_of(self.dynamic_entry(DT_RELA)?)?;
        let mut found = Vec::new();
        for index in 0..self.dynamic_entry(DT_RELASZ)? / RELA_BYTES {
            let at = begin + index * RELA_BYTES;
            if self.number(at + 8, 8)? & 0xffff_ffff == R_X86_64_RELATIVE {
                found.push((at, self.number(at, 8)?, self.number(at + 16, 8)?));
            }
        }
        Ok(found)
    }

    /// The program as a loader would lay it out.
    pub fn program(&self) -> Result<Program<'static>> {
        let mut segments = Vec::new();
        for header in self.headers()?.iter().filter(|header| header.kind == PT_LOAD) {
            let begin = usize::try_from(header.offset)?;
            let mut bytes = self.bytes[begin..begin + usize::try_from(header.file_bytes)?].to_vec();
            bytes.resize(usize::try_from(header.memory_bytes)?, 0);
            let kind = match header.flags {
                flags if flags & PF_X != 0 => Kind::Code,
                flags if flags & PF_W != 0 => Kind::Data,
                _ => Kind::ReadOnly,
            };
            segments.push(Segment { address: BIAS + header.address, kind, bytes: Cow::Owned(bytes) });
        }
        let mut program = Program { bias: BIAS, segments, dynamic: BIAS + self.dynamic()?.address };
        for (_, place, address) in self.relocations()? {
            write(&mut program, BIAS + place, &(BIAS + address).to_le_bytes())?;
        }
        Ok(program)
    }

    /// The pointer at `place` shall point to `target`; both are addresses of `program`.
    pub fn point(&mut self, place: u64, target: u64) -> Result<()> {
        let relocations = self.relocations()?;
        let found = relocations.iter().find(|(_, filled, _)| BIAS + filled == place);
        let at = usize::try_from(found.context("nothing fills this pointer")?.0)? + 16;
        self.bytes[at..at + 8].copy_from_slice(&(target - BIAS).to_le_bytes());
        Ok(())
    }

    /// Changes code at an address of `program`.
    pub fn put(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let at = usize::try_from(self.offset_of(address - BIAS)?)?;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

/// Writes into a program that lies in memory.
pub fn write(program: &mut Program<'_>, address: u64, bytes: &[u8]) -> Result<()> {
    let holds = |s: &&mut Segment<'_>| (s.address..s.end()).contains(&address);
    let segment = program.segments.iter_mut().find(holds).context("no segment holds this address")?;
    let at = usize::try_from(address - segment.address)?;
    segment.bytes.to_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    Ok(())
}

/// A jump at `at` to `target`.
pub fn jump(at: u64, target: u64) -> Vec<u8> {
    let distance = i32::try_from(target as i64 - (at + 5) as i64).expect("both in one program");
    [&[0xe9][..], &distance.to_le_bytes()].concat()
}
