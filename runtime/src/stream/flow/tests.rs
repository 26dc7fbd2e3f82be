//! Two ends over a channel that loses, repeats and reorders: every byte arrives once, in order.

use super::*;
