//! The extension `strata`.
pgrx::pg_module_magic!();
