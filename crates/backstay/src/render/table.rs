//! Tables.
//!
//! Promise: on a terminal the columns that matter least are left out before any cell is wrapped; elsewhere nothing is
//! cut, and no line ends in spaces. The first column, which names the row, is never wrapped.

use crate::render::human::clean;
use crate::render::look::{Look, Width};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement};
use std::collections::BTreeSet;

/// How readily a column is left out where there is little room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Left out first.
    Extra,
    /// Left out when it must be.
    Useful,
    /// Never left out.
    Needed,
}

/// On which side the cells of a column stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its title, in capitals.
    pub title: &'static str,
    /// How readily it is left out.
    pub weight: Weight,
    /// Where its cells stand.
    pub side: Side,
}

impl Column {
    /// A column of text that is never left out.
    pub fn needed(title: &'static str) -> Column {
        Column {
            title,
            weight: Weight::Needed,
            side: Side::Left,
        }
    }

    /// A column of text that is left out when it must be.
    pub fn useful(title: &'static str) -> Column {
        Column {
            title,
            weight: Weight::Useful,
            side: Side::Left,
        }
    }

    /// A column of text that is left out first.
    pub fn extra(title: &'static str) -> Column {
        Column {
            title,
            weight: Weight::Extra,
            side: Side::Left,
        }
    }

    /// The same with its cells to the right.
    #[must_use]
    pub fn right(mut self) -> Column {
        self.side = Side::Right;
        self
    }
}

/// Rows under titles.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

const GAP: u16 = 2;

impl Table {
    /// A table without rows.
    pub fn new(columns: impl Into<Vec<Column>>) -> Table {
        Table {
            columns: columns.into(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; missing cells are empty, further ones are not shown.
    pub fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let cells = cells
            .into_iter()
            .map(|cell| clean(&cell.into()).replace('\n', " "));
        self.rows.push(cells.collect());
    }

    /// The lines.
    pub fn render(&self, look: &Look) -> String {
        let mut left_out = BTreeSet::new();
        if let Width::Columns(width) = look.width {
            while self.natural_width(&left_out) > usize::from(width) {
                match self.least(&left_out) {
                    Some(column) => left_out.insert(column),
                    None => break,
                };
            }
        }
        let mut table = self.shown(&left_out);
        if let Width::Columns(width) = look.width {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(width);
            // The first column names the row: a name in pieces cannot be copied.
            if let Some(names) = table.column_mut(0) {
                names.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n") + "\n"
    }

    /// The column to leave out next: of the lightest, the one furthest to the right.
    fn least(&self, left_out: &BTreeSet<usize>) -> Option<usize> {
        let shown = self.columns.iter().enumerate().rev();
        shown
            .filter(|(place, column)| column.weight < Weight::Needed && !left_out.contains(place))
            .min_by_key(|(_, column)| column.weight)
            .map(|(place, _)| place)
    }

    fn natural_width(&self, left_out: &BTreeSet<usize>) -> usize {
        let widths = self.shown(left_out).column_max_content_widths();
        let cells: usize = widths.iter().map(|width| usize::from(*width)).sum();
        cells + usize::from(GAP) * widths.len().saturating_sub(1)
    }

    fn shown(&self, left_out: &BTreeSet<usize>) -> comfy_table::Table {
        let kept: Vec<usize> = (0..self.columns.len())
            .filter(|place| !left_out.contains(place))
            .collect();
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING).force_no_tty();
        table.set_content_arrangement(ContentArrangement::Disabled);
        let titles = kept.iter().filter_map(|place| self.columns.get(*place));
        table.set_header(titles.map(|column| column.title));
        for row in &self.rows {
            table.add_row(
                kept.iter()
                    .map(|place| row.get(*place).map_or("", String::as_str)),
            );
        }
        for (shown, place) in kept.iter().enumerate() {
            let side = self.columns.get(*place).map(|column| column.side);
            if let Some(column) = table.column_mut(shown) {
                column.set_padding((0, if shown + 1 == kept.len() { 0 } else { GAP }));
                column.set_cell_alignment(match side {
                    Some(Side::Right) => CellAlignment::Right,
                    _ => CellAlignment::Left,
                });
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services() -> Table {
        let mut table = Table::new([
            Column::needed("SERVICE"),
            Column::extra("ENGINE"),
            Column::needed("RECOVERABLE"),
            Column::useful("SIZE").right(),
        ]);
        table.row([
            "orders-db",
            "postgresql 15",
            "2026-11-16 to 2026-11-23",
            "38.2 GiB",
        ]);
        table.row(["cache", "redis 7", "nothing", "1.1 GiB"]);
        table
    }

    fn at(width: Width) -> String {
        services().render(&Look {
            width,
            ..Look::plain()
        })
    }

    #[test]
    fn off_a_terminal_everything_is_shown() {
        assert_eq!(
            at(Width::Unlimited),
            "SERVICE    ENGINE         RECOVERABLE                   SIZE\n\
             orders-db  postgresql 15  2026-11-16 to 2026-11-23  38.2 GiB\n\
             cache      redis 7        nothing                    1.1 GiB\n"
        );
    }

    #[test]
    fn the_lightest_columns_go_first_and_only_then_are_cells_wrapped() {
        assert_eq!(
            at(Width::Columns(50)),
            "SERVICE    RECOVERABLE                   SIZE\n\
             orders-db  2026-11-16 to 2026-11-23  38.2 GiB\n\
             cache      nothing                    1.1 GiB\n"
        );
        assert_eq!(
            at(Width::Columns(24)),
            "SERVICE    RECOVERABLE\n\
             orders-db  2026-11-16 to\n           2026-11-23\n\
             cache      nothing\n"
        );
    }
}
