//! Where log comes from: `source` talks to safekeepers, `receiver` keeps one timeline supplied.

pub mod receiver;
pub mod source;
