//! The programs of servers without our patch, read from their files: the built one and Debian's are taken over; each of them
//! damaged in one place is refused. What a running server does is in `stock.rs`.

use anyhow::{Result, ensure};
use strata_regress::stock::{BIAS, Elf, flavours, jump, server_program, tree, write};
use strata_smgr::stock::program::{Functions, Kind, Program};
use strata_smgr::stock::table::SLOTS;
use strata_smgr::stock::{Refused, verify};

/// A program with the facts that the tests need.
struct Known {
    elf: Elf,
    functions: Functions,
    table: u64,
}

impl Known {
    fn of(flavour: &str) -> Result<Known> {
        let elf = Elf::read(&server_program(&tree(flavour)?))?;
        let program = elf.program()?;
        let plan = verify(&program)?;
        let functions = program.functions()?;
        Ok(Known { elf, functions, table: plan.table })
    }

    fn address(&self, name: &str) -> u64 {
        self.functions.named(name).expect("the program has it").address
    }

    /// What is said of the program after a change.
    fn after(&self, change: impl FnOnce(&mut Program<'_>) -> Result<()>) -> Result<Option<Refused>> {
        let mut program = self.elf.program()?;
        change(&mut program)?;
        Ok(verify(&program).err())
    }
}

fn on_each(test: impl Fn(&Known) -> Result<()>) -> Result<()> {
    for flavour in flavours() {
        eprintln!("{flavour}");
        test(&Known::of(flavour)?)?;
    }
    Ok(())
}

#[test]
fn they_are_taken_over() -> Result<()> {
    on_each(|known| {
        let plan = verify(&known.elf.program()?)?;
        let patch = plan.patch.expect("the compilers of both jump directly to mdregistersync");
        let function = known.functions.named("smgrregistersync").expect("exported");
        ensure!(function.holds(patch.address), "the patch lies in smgrregistersync");
        eprintln!("  table at {:#x}, {:x?} becomes {:x?}", plan.table - BIAS, patch.before, patch.after);
        // With the patch written nothing is left to be patched.
        let mut program = known.elf.program()?;
        write(&mut program, patch.address, &patch.after)?;
        let again = verify(&program);
        ensure!(again.as_ref().is_ok_and(|plan| plan.patch.is_none()), "after the patch: {again:?}");
        Ok(())
    })
}

#[test]
fn every_slot_counts() -> Result<()> {
    on_each(|known| {
        let stranger = known.address("BufferGetBlockNumber");
        for slot in 0..SLOTS as u64 {
            let place = known.table + slot * 8;
            let said = known.after(|program| write(program, place, &stranger.to_le_bytes()))?;
            ensure!(
                matches!(said, Some(Refused::Differs { table, found, .. }) if table == known.table && found == stranger),
                "slot {slot}: {said:?}"
            );
        }
        Ok(())
    })
}

#[test]
fn a_second_table() -> Result<()> {
    on_each(|known| {
        let said = known.after(|program| {
            let entry = program.bytes(known.table, SLOTS * 8).expect("the table").to_vec();
            // At the end of the server's variables, which are all zero as yet.
            let data = program.segments.iter().find(|segment| segment.kind == Kind::Data).expect("one");
            let place = (data.end() - 4096) / 8 * 8;
            write(program, place, &entry)
        })?;
        ensure!(matches!(said, Some(Refused::TwoTables(..))), "{said:?}");
        Ok(())
    })
}

#[test]
fn calls_that_go_around_the_table() -> Result<()> {
    on_each(|known| {
        // As a compiler would that knows the only entry.
        for (caller, target) in [
            ("smgrreadv", "mdreadv"),
            ("smgrwritev", "mdwritev"),
            ("smgrnblocks", "mdnblocks"),
            ("BufferGetBlockNumber", "mdextend"),
        ] {
            let (at, to) = (known.address(caller), known.address(target));
            let said = known.after(|program| write(program, at, &jump(at, to)))?;
            ensure!(
                matches!(&said, Some(Refused::AroundTable { function, caller: by, .. }) if *function == target && by == caller),
                "{caller} to {target}: {said:?}"
            );
        }
        // Another than smgrregistersync, and smgrregistersync in another form.
        let (at, to) = (known.address("smgr_bulk_finish"), known.address("mdregistersync"));
        let said = known.after(|program| write(program, at, &jump(at, to)))?;
        ensure!(matches!(said, Some(Refused::AroundTable { .. })), "{said:?}");
        let at = known.address("smgrregistersync");
        let said = known.after(|program| write(program, at, &[0x55]))?;
        ensure!(said.is_some(), "a push before the jump");
        Ok(())
    })
}

#[test]
fn a_function_that_lost_its_use_of_the_table() -> Result<()> {
    on_each(|known| {
        for name in
            ["smgropen", "smgrexists", "smgrextend", "smgrtruncate", "smgrdounlinkall", "smgrimmedsync"]
        {
            let function = known.functions.named(name).expect("exported");
            let nops = vec![0x90; usize::try_from(function.bytes)?];
            let said = known.after(|program| write(program, function.address, &nops))?;
            ensure!(said == Some(Refused::TableUnused(name)), "{name}: {said:?}");
        }
        Ok(())
    })
}
