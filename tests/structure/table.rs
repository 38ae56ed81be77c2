//! Sets rows of cells as a table with aligned columns.

/// Returns the rows as lines; the first column is aligned to the left, the others to the right.
pub(crate) fn set(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(|column| width(rows, column)).collect();
    rows.iter().map(|row| line(row, &widths)).collect()
}

fn width(rows: &[Vec<String>], column: usize) -> usize {
    rows.iter()
        .filter_map(|row| row.get(column))
        .map(|cell| cell.chars().count())
        .max()
        .unwrap_or_default()
}

fn line(row: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
        line += &if index == 0 {
            format!("{cell:<width$}")
        } else {
            format!("  {cell:>width$}")
        };
    }
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(
            set(&[row(["crate", "files"]), row(["a", "12"])]),
            "crate  files\na         12\n"
        );
    }
}
