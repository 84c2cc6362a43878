//! A program in miniature for the tests: the functions of `md.c` and `smgr.c` as a compiler might lay them out, the table, and
//! the symbol table with its hash. Each test changes what it wants refused.

use std::borrow::Cow;

use super::program::{Kind, Program, Segment};

pub const BIAS: u64 = 0x5555_5540_0000;
pub const CODE: u64 = BIAS + 0x1000;
pub const DATA: u64 = BIAS + 0x10_0000;
const SYMBOLS: u64 = BIAS + 0x20_0000;
/// Where the table lies, not at the beginning of its segment.
pub const TABLE: u64 = DATA + 8 * 40;

pub const MD: [&str; 19] = [
    "mdinit",
    "mdexists",
    "mdcreate",
    "mdunlink",
    "mdextend",
    "mdzeroextend",
    "mdopen",
    "mdclose",
    "mdprefetch",
    "mdreadv",
    "mdwritev",
    "mdwriteback",
    "mdnblocks",
    "mdtruncate",
    "mdregistersync",
    "mdimmedsync",
    "mdsyncfiletag",
    "mdunlinkfiletag",
    "mdfiletagmatches",
];
const SLOTS: [&str; 17] = [
    "mdinit",
    "",
    "mdopen",
    "mdclose",
    "mdcreate",
    "mdexists",
    "mdunlink",
    "mdextend",
    "mdzeroextend",
    "mdprefetch",
    "mdreadv",
    "mdwritev",
    "mdwriteback",
    "mdnblocks",
    "mdtruncate",
    "mdimmedsync",
    "mdregistersync",
];
pub const USERS: [&str; 18] = [
    "smgropen",
    "smgrdestroyall",
    "smgrrelease",
    "smgrclose",
    "smgrexists",
    "smgrcreate",
    "smgrdosyncall",
    "smgrdounlinkall",
    "smgrextend",
    "smgrzeroextend",
    "smgrprefetch",
    "smgrreadv",
    "smgrwritev",
    "smgrwriteback",
    "smgrnblocks",
    "smgrtruncate2",
    "smgrtruncate",
    "smgrimmedsync",
];

pub struct Fake {
    pub code: Vec<u8>,
    pub data: Vec<u64>,
    /// Name, address, bytes.
    pub functions: Vec<(String, u64, u64)>,
}

/// `opcode` followed by the distance from the end of the instruction at `at` to `target`.
pub fn relative(opcode: &[u8], at: u64, target: u64) -> Vec<u8> {
    let end = at + opcode.len() as u64 + 4;
    let distance = i32::try_from(target as i64 - end as i64).expect("near");
    [opcode, &distance.to_le_bytes()].concat()
}

/// lea target(%rip), %rdx
pub const LEA: [u8; 3] = [0x48, 0x8d, 0x15];
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const RET: u8 = 0xc3;

impl Fake {
    /// As Debian's compiler makes it.
    pub fn usual() -> Fake {
        let mut fake = Fake { code: Vec::new(), data: vec![0; 100], functions: Vec::new() };
        fake.add("BufferGetBlock", |_| vec![RET]);
        for name in MD {
            fake.add(name, |_| [&ENDBR64[..], &[0x55; 30], &[RET]].concat());
        }
        let mdinit = fake.address("mdinit");
        fake.add("smgrinit", |at| relative(&[0xe8], at, mdinit));
        for name in USERS {
            fake.add(name, |at| [relative(&LEA, at, TABLE), vec![0xff, 0xe0]].concat());
        }
        let target = fake.address("mdregistersync");
        fake.add("smgrregistersync", |at| [&ENDBR64[..], &relative(&[0xe9], at + 4, target)].concat());
        fake.add("AtEOXact_SMgr", |_| vec![RET; 40]);
        for (index, name) in SLOTS.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            fake.data[40 + index] = fake.address(name);
        }
        fake
    }

    /// Adds a function at the next multiple of 16.
    pub fn add(&mut self, name: &str, body: impl FnOnce(u64) -> Vec<u8>) -> u64 {
        let gap = self.code.len().next_multiple_of(16) - self.code.len();
        let nops = [0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0];
        let mut padding = vec![0x90; gap.saturating_sub(10)];
        padding.extend(if gap >= 10 { &nops[..] } else { &[0x90; 9][..gap] });
        self.code.extend(padding);
        let address = CODE + self.code.len() as u64;
        let body = body(address);
        self.functions.push((name.to_owned(), address, body.len() as u64));
        self.code.extend(body);
        address
    }

    pub fn address(&self, name: &str) -> u64 {
        self.functions.iter().find(|(other, ..)| other == name).expect("a function of this name").1
    }

    /// Bytes of the code from an address on.
    pub fn at(&mut self, address: u64) -> &mut [u8] {
        &mut self.code[(address - CODE) as usize..]
    }

    /// Puts an instruction into a function's body, after what is there.
    pub fn put(&mut self, function: &str, offset: u64, opcode: &[u8], target: u64) {
        let at = self.address(function) + offset;
        let bytes = relative(opcode, at, target);
        self.at(at)[..bytes.len()].copy_from_slice(&bytes);
    }

    pub fn program(&self) -> Program<'static> {
        let (symbols, dynamic) = self.symbols();
        let data = self.data.iter().flat_map(|word| word.to_le_bytes()).collect();
        let segment = |address, kind, bytes: Vec<u8>| Segment { address, kind, bytes: Cow::Owned(bytes) };
        let segments = vec![
            segment(SYMBOLS, Kind::ReadOnly, symbols),
            segment(CODE, Kind::Code, self.code.clone()),
            segment(DATA, Kind::Data, data),
        ];
        Program { bias: BIAS, segments, dynamic }
    }

    /// Symbols, names, hash and dynamic section in one segment; the address of the last.
    fn symbols(&self) -> (Vec<u8>, u64) {
        let mut names = vec![0u8];
        let mut symbols = vec![0u8; 24];
        let undefined = ("memcpy".to_owned(), BIAS, 0);
        for (name, address, bytes) in std::iter::once(&undefined).chain(&self.functions) {
            let mut symbol = [0u8; 24];
            symbol[..4].copy_from_slice(&u32::try_from(names.len()).expect("few names").to_le_bytes());
            symbol[4] = 0x12;
            symbol[6] = if name == "memcpy" { 0 } else { 15 };
            symbol[8..16].copy_from_slice(&(address - BIAS).to_le_bytes());
            symbol[16..].copy_from_slice(&bytes.to_le_bytes());
            symbols.extend(symbol);
            names.extend(name.as_bytes());
            names.push(0);
        }
        let count = self.functions.len();
        // One bucket, whose chain begins at symbol 2: the first is null, the second undefined.
        let mut hash: Vec<u8> = [1u32, 2, 1, 6, 0, 0, 2].iter().flat_map(|word| word.to_le_bytes()).collect();
        for index in 0..count {
            hash.extend(u32::from(index + 1 == count).to_le_bytes());
        }
        let (names_at, hash_at) =
            (SYMBOLS + symbols.len() as u64, SYMBOLS + (symbols.len() + names.len()) as u64);
        let mut all = [symbols, names, hash].concat();
        all.resize(all.len().next_multiple_of(8), 0);
        let dynamic = SYMBOLS + all.len() as u64;
        // One address as the loader leaves it on this system, the others as they stand in the file.
        let entries = [(5, names_at), (6, SYMBOLS - BIAS), (0x6fff_fef5, hash_at - BIAS), (0, 0)];
        all.extend(
            entries
                .iter()
                .flat_map(|(tag, value): &(u64, u64)| [tag.to_le_bytes(), value.to_le_bytes()].concat()),
        );
        (all, dynamic)
    }
}
