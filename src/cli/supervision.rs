//! What commands that work by files alone remark where nobody reads the files yet.

use crate::app::world;
use crate::protocol::layout::Layout;

use super::screen;

/// Remarks that a change takes effect later, if no supervisor runs.
pub(crate) fn remark(layout: &Layout) {
    if !world::is_supervised(layout) {
        screen::warn("no supervisor runs: this takes effect with the next `nightcrew run`");
    }
}
