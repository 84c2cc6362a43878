//! A running program as the system's loader has laid it out: segments, and the functions that it exports.
//!
//! From the ELF specification and its x86-64 and GNU supplements: program headers, the dynamic section, the symbol table,
//! whose length only the hash table tells. Everything is read with its bounds checked; what does not fit is refused.

use std::borrow::Cow;

use super::Refused;

const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
/// Entries of a dynamic section, and exported symbols: far more than any program has.
const DYNAMIC_MAX: u64 = 4096;
const SYMBOLS_MAX: u64 = 1 << 22;
const SYMBOL_BYTES: u64 = 24;
const TYPE_FUNCTION: u8 = 2;

/// What a segment is for, by its program header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Code,
    ReadOnly,
    /// Writable when the program was loaded; parts of it may be read-only by now (RELRO).
    Data,
}

pub struct Segment<'a> {
    pub address: u64,
    pub kind: Kind,
    pub bytes: Cow<'a, [u8]>,
}

impl Segment<'_> {
    pub fn end(&self) -> u64 {
        self.address + self.bytes.len() as u64
    }

    fn get(&self, address: u64, count: usize) -> Option<&[u8]> {
        let offset = usize::try_from(address.checked_sub(self.address)?).ok()?;
        self.bytes.get(offset..offset.checked_add(count)?)
    }
}

/// The main program of a process.
pub struct Program<'a> {
    /// Distance between the addresses in its file and those in memory.
    pub bias: u64,
    pub segments: Vec<Segment<'a>>,
    /// Address of its dynamic section.
    pub dynamic: u64,
}

/// A function that the program exports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Function {
    pub name: String,
    pub address: u64,
    pub bytes: u64,
}

impl Function {
    pub fn end(&self) -> u64 {
        self.address + self.bytes
    }

    pub fn holds(&self, address: u64) -> bool {
        (self.address..self.end()).contains(&address)
    }
}

/// The exported functions, by address.
pub struct Functions(Vec<Function>);

impl Functions {
    pub fn new(mut functions: Vec<Function>) -> Functions {
        functions.sort_by_key(|function| function.address);
        Functions(functions)
    }

    pub fn named(&self, name: &str) -> Option<&Function> {
        self.0.iter().find(|function| function.name == name)
    }

    pub fn get(&self, name: &'static str) -> Result<&Function, Refused> {
        self.named(name).ok_or(Refused::NoFunction(name))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Function> {
        self.0.iter()
    }

    /// For a message: the exported function that an address lies in or behind.
    pub fn describe(&self, address: u64) -> String {
        let behind = self.0.partition_point(|function| function.address <= address);
        match behind.checked_sub(1).map(|index| &self.0[index]) {
            Some(function) if function.holds(address) => function.name.clone(),
            Some(function) => format!("code after {}", function.name),
            None => "code".to_owned(),
        }
    }
}

impl Program<'_> {
    pub fn bytes(&self, address: u64, count: usize) -> Option<&[u8]> {
        self.segments.iter().find_map(|segment| segment.get(address, count))
    }

    fn number<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        self.bytes(address, N)?.try_into().ok()
    }

    fn u32_at(&self, address: u64) -> Option<u64> {
        self.number(address).map(|bytes| u64::from(u32::from_le_bytes(bytes)))
    }

    pub fn u64_at(&self, address: u64) -> Option<u64> {
        self.number(address).map(u64::from_le_bytes)
    }

    pub fn is_code(&self, address: u64) -> bool {
        self.code().any(|segment| (segment.address..segment.end()).contains(&address))
    }

    pub fn code(&self) -> impl Iterator<Item = &Segment<'_>> {
        self.segments.iter().filter(|segment| segment.kind == Kind::Code)
    }

    pub fn data(&self) -> impl Iterator<Item = &Segment<'_>> {
        self.segments.iter().filter(|segment| segment.kind == Kind::Data)
    }

    /// An entry of the dynamic section. Some loaders add the bias to addresses in it, others leave it as it is in the file.
    fn dynamic_entry(&self, tag: u64) -> Option<u64> {
        for index in 0..DYNAMIC_MAX {
            let entry = self.dynamic + index * 16;
            match self.u64_at(entry)? {
                0 => return None,
                found if found == tag => {
                    let value = self.u64_at(entry + 8)?;
                    return Some(if value < self.bias { value + self.bias } else { value });
                }
                _ => {}
            }
        }
        None
    }

    /// The GNU hash table ends with the last symbol of its last chain.
    fn symbol_count(&self) -> Option<u64> {
        let hash = self.dynamic_entry(DT_GNU_HASH)?;
        let (buckets, first) = (self.u32_at(hash)?, self.u32_at(hash + 4)?);
        let bloom_words = self.u32_at(hash + 8)?;
        let bucket = |index: u64| hash + 16 + bloom_words * 8 + index * 4;
        let mut last = 0;
        for index in 0..buckets {
            last = last.max(self.u32_at(bucket(index))?);
        }
        if last < first {
            return Some(first);
        }
        let chain = bucket(buckets);
        while self.u32_at(chain + (last - first) * 4)? & 1 == 0 {
            last += 1;
        }
        (last < SYMBOLS_MAX).then_some(last + 1)
    }

    fn name_at(&self, address: u64) -> Option<String> {
        let segment = self.segments.iter().find(|s| (s.address..s.end()).contains(&address))?;
        let text = &segment.bytes[usize::try_from(address - segment.address).ok()?..];
        let length = text.iter().take(512).position(|byte| *byte == 0)?;
        String::from_utf8(text[..length].to_vec()).ok()
    }

    /// Every function that the program exports.
    pub fn functions(&self) -> Result<Functions, Refused> {
        let symbols = self.dynamic_entry(DT_SYMTAB).ok_or(Refused::Unreadable("symbol table"))?;
        let names = self.dynamic_entry(DT_STRTAB).ok_or(Refused::Unreadable("names of symbols"))?;
        let count = self.symbol_count().ok_or(Refused::Unreadable("hash table of symbols"))?;
        let mut functions = Vec::new();
        for index in 0..count {
            let unreadable = || Refused::Unreadable("symbol");
            let symbol: [u8; 24] = self.number(symbols + index * SYMBOL_BYTES).ok_or_else(unreadable)?;
            let half = |at: usize| u16::from_le_bytes([symbol[at], symbol[at + 1]]);
            let word =
                |at: usize| u64::from_le_bytes(symbol[at..at + 8].try_into().expect("eight bytes of 24"));
            if symbol[4] & 0x0f != TYPE_FUNCTION || half(6) == 0 {
                continue;
            }
            let name = names + (word(0) & 0xffff_ffff);
            let name = self.name_at(name).ok_or_else(unreadable)?;
            functions.push(Function { name, address: word(8) + self.bias, bytes: word(16) });
        }
        Ok(Functions::new(functions))
    }
}
