//! The timeline storage as a whole: against a model, through crashes at any step, against a second owner, and under faults.

mod storage {
    pub mod faults;
    pub mod model;
    pub mod objects;
    pub mod owners;
    pub mod random;
    pub mod whole;
}
