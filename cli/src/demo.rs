//! The demo: a virtual board, the processes around it, and the story that they play.

mod board;
mod process;
mod service;
mod show;
mod stage;
mod story;

pub(crate) use board::{Board, BoardAsked};
pub(crate) use show::Show;
pub(crate) use stage::Stage;
pub(crate) use story::{play, trial};
