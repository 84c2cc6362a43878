//! Builds the extension `plain_index.c` and makes its functions and its index method known.

use anyhow::Result;
use strata_regress::traps::Ground;
use strata_regress::whole::Compute;

pub fn install(ground: &Ground, compute: &Compute) -> Result<()> {
    let library = ground.library("plain_index")?;
    ground.sql(
        compute,
        &format!(
            "CREATE FUNCTION plain_handler(internal) RETURNS index_am_handler LANGUAGE C AS '{library}';
             CREATE FUNCTION smuggle(regclass) RETURNS void LANGUAGE C AS '{library}';
             CREATE ACCESS METHOD plain TYPE INDEX HANDLER plain_handler;
             CREATE OPERATOR CLASS plain_int DEFAULT FOR TYPE int USING plain AS OPERATOR 1 ="
        ),
    )?;
    Ok(())
}
