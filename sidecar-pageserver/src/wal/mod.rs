//! Where log comes from: `source` talks to safekeepers, `records` decodes ahead, `receiver` keeps one timeline supplied.

pub mod receiver;
mod records;
pub mod source;
