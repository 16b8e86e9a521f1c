//! Pure decisions: which pods are captured, how, and what a change means.

pub(super) mod annotation_values;
pub mod annotations;
pub mod index;
pub mod pod;
pub mod proxy_config;
pub mod restriction;
pub mod select;

pub use annotation_values::check_annotation;
