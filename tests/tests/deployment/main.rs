//! A deployment lets in whom its authority has signed for, and each does what its role may.

mod credentials;
mod files;
mod forgery;
mod hook;
mod life;
mod log;
mod matrix;
mod nkeys;
