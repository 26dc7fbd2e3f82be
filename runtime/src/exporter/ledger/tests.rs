//! No call is executed twice, whatever is lost, repeated, forgotten or restarted.

use super::*;
